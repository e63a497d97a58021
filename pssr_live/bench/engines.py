"""Engines on their own: no ring, no files, no stream."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import get_args

import numpy as np

from pssr_live.bench.frames import noise_window
from pssr_live.bench.results import EngineTiming, Percentiles, Refused, SizeCost, SizeScaling
from pssr_live.engine.base import EngineReport
from pssr_live.engine.restore import Restorer
from pssr_live.engine.select import AUTO_ORDER, prepare_engine
from pssr_live.errors import PssrLiveError
from pssr_live.frames import Frame, Window
from pssr_live.model import ModelPackage
from pssr_live.settings import Precision

__all__ = ["bare_rate", "percentiles", "scale_with_size", "time_engines", "windows_of"]

_WARM_UP = 3
_AT_LEAST_S = 0.03
"""What takes less is repeated, so that the clock and the threads' wake-up do not count."""


def percentiles(values_ms: Sequence[float]) -> Percentiles:
    """Take median and 99th percentile."""
    p50, p99 = np.percentile(values_ms, [50, 99]).tolist()
    return Percentiles(p50, p99)


def windows_of(frames: Sequence[Frame], model: ModelPackage) -> list[Window]:
    """Make all whole windows of consecutive frames."""
    length, centre = model.manifest.window_length, model.manifest.centre
    return [
        Window(
            tuple(frames[start : start + length]),
            centre,
            edge=False,
            complete=True,
            t_ready_ns=time.monotonic_ns(),
        )
        for start in range(len(frames) - length + 1)
    ]


def time_engines(
    model: ModelPackage,
    engine: str,
    windows: Sequence[Window],
    *,
    frames: int,
    on_step: Callable[[str], None],
) -> tuple[list[EngineTiming], list[Refused]]:
    """Time every engine in every precision, or only one engine.

    Parameters
    ----------
    model : ModelPackage
        What to run.
    engine : str
        A name, or ``auto`` for all.
    windows : sequence of Window
        To restore, in turn.
    frames : int
        How many to time.
    on_step : callable
        Called with what is timed next.

    Returns
    -------
    timings : list of EngineTiming
    refused : list of Refused
    """
    timings: list[EngineTiming] = []
    refused: list[Refused] = []
    for name in AUTO_ORDER if engine == "auto" else (engine,):
        for precision in get_args(Precision):
            on_step(f"engine {name} {precision}")
            try:
                timings.append(_time(model, name, precision, windows, frames))
            except PssrLiveError as error:
                refused.append(Refused(name, precision, str(error)))
    return timings, refused


def _time(
    model: ModelPackage, name: str, precision: str, windows: Sequence[Window], frames: int
) -> EngineTiming:
    height, width = windows[0].frames[0].pixels.shape
    scored = np.zeros((1, model.manifest.window_length, height, width), np.float32)
    frame_ms, network_ms = [], []
    with ExitStack() as opened:
        restorer = Restorer(model, name, precision, height, width)
        opened.callback(restorer.close)
        network, report = prepare_engine(name, precision, model, height, width)
        opened.callback(network.close)
        # In turn, so that whatever else the machine does meets both.
        for number in range(_WARM_UP + frames):
            started = time.perf_counter()
            restorer.restore(windows[number % len(windows)], live=False)
            restored = time.perf_counter()
            network.run(scored)
            finished = time.perf_counter()
            frame_ms.append(1e3 * (restored - started))
            network_ms.append(1e3 * (finished - restored))
        # By now, the gate has judged the first window too.
        nearness = _nearness_db(restorer.report)
    whole, alone = percentiles(frame_ms[_WARM_UP:]), percentiles(network_ms[_WARM_UP:])
    return EngineTiming(
        engine=report.engine,
        precision=report.precision,
        device=report.device,
        version=report.version,
        psnr_db=nearness,
        tiles=report.tiles,
        frame_ms=whole,
        network_ms=alone,
        network_least_ms=min(network_ms),
        frames=frames,
        frames_per_s=1e3 / whole.p50,
        output_megapixels_per_s=height * width * model.manifest.scale**2 / whole.p50 / 1e3,
    )


def _nearness_db(report: EngineReport) -> float | None:
    least = min((check.psnr_db for check in report.checks), default=math.inf)
    return least if math.isfinite(least) else None


def bare_rate(restorer: Restorer, windows: Sequence[Window], seconds: float) -> float:
    """Restore for a while.

    Returns
    -------
    float
        Frames per second.
    """
    restorer.restore(windows[0], live=False)
    started = time.perf_counter()
    done = 0
    while (passed := time.perf_counter() - started) < seconds:
        restorer.restore(windows[done % len(windows)], live=False)
        done += 1
    return done / passed


def scale_with_size(
    model: ModelPackage, engine: str, precision: str | None, sizes: Sequence[int], rounds: int
) -> SizeScaling:
    """Measure cost against size, all sizes in turn, the least disturbed of several rounds.

    Parameters
    ----------
    model : ModelPackage
        What to run.
    engine, precision : str
        As for a run.
    sizes : sequence of int
        Height and width of raw frames, pixels; those that the model does not take are left out.
    rounds : int
        How often each is measured.

    Returns
    -------
    SizeScaling

    Raises
    ------
    PssrLiveError
        The model takes fewer than two of them.
    """
    low, high = model.manifest.min_size, model.manifest.max_size
    sizes = [size for size in sizes if low <= size <= high]
    if len(sizes) < 2:
        raise PssrLiveError(
            "cost against size cannot be measured",
            f"{model.manifest.name} takes {low} to {high} pixels per side only",
            "choose another --model",
        )
    length, centre = model.manifest.window_length, model.manifest.centre
    least: dict[int, float] = {}
    with ExitStack() as opened:
        restorers = []
        for size in sizes:
            restorer = Restorer(model, engine, precision, size, size)
            opened.callback(restorer.close)
            restorers.append((size, restorer, noise_window(length, centre, size)))
        for _ in range(rounds):
            for size, restorer, window in restorers:
                least[size] = min([*_lap_ms(restorer, window), least.get(size, np.inf)])
    costs = [SizeCost(size, least[size]) for size in sizes]
    pixels = [2 * np.log(cost.size) for cost in costs]
    slope = np.polyfit(pixels, [np.log(cost.frame_ms) for cost in costs], 1)[0]
    return SizeScaling(costs, float(slope))


def _lap_ms(restorer: Restorer, window: Window) -> Iterator[float]:
    """Time single frames, after one that brings the caches back, until it is worth it."""
    restorer.restore(window, live=False)
    begun = time.perf_counter()
    while True:
        started = time.perf_counter()
        restorer.restore(window, live=False)
        ended = time.perf_counter()
        yield 1e3 * (ended - started)
        if ended - begun >= _AT_LEAST_S:
            return
