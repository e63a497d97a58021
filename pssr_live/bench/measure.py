"""All measurements in order."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pssr_live import __version__
from pssr_live.bench.daemon import at_pace, full_speed
from pssr_live.bench.engines import scale_with_size, time_engines, windows_of
from pssr_live.bench.frames import preset_info, render
from pssr_live.bench.paper import MakePackage, time_paper
from pssr_live.bench.peak import matmul_peak, network_gmacs, processor
from pssr_live.bench.process import can_measure_memory, memory_drift, start_up
from pssr_live.bench.results import (
    BenchReport,
    DaemonResult,
    EngineTiming,
    LatencyResult,
    Machine,
    MemoryResult,
    PaperNetwork,
    Refused,
)
from pssr_live.frames import Frame
from pssr_live.model import ModelPackage, find_model
from pssr_live.settings import RunSettings
from pssr_live.source import StreamInfo

__all__ = ["FULL", "QUICK", "Effort", "measure"]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes
    ----------
    rendered : int
        Different frames.
    timed : int
        Frames that each engine is timed over.
    rounds : int
        Rounds of daemon against bare engine.
    seconds : float
        Of each part of a round.
    paced : int
        Frames at the preset's pace.
    sizes : tuple of int
        Heights and widths for cost against size, pixels.
    size_rounds : int
        How often each is measured.
    warm_up, drift : int
        Frames before the drift of memory is taken, and over which; drift 0 leaves it out.
    starts : int
        Fresh processes that are timed.
    paper : int
        How often a tile of the published network is timed, where that is asked for.
    """

    rendered: int
    timed: int
    rounds: int
    seconds: float
    paced: int
    sizes: tuple[int, ...]
    size_rounds: int
    warm_up: int
    drift: int
    starts: int
    paper: int


FULL = Effort(
    rendered=32,
    timed=100,
    rounds=5,
    seconds=5.0,
    paced=200,
    sizes=(128, 192, 256, 384, 512, 768, 1024),
    size_rounds=5,
    warm_up=2_000,
    drift=10_000,
    starts=5,
    paper=5,
)
QUICK = Effort(
    rendered=12,
    timed=10,
    rounds=1,
    seconds=3.0,
    paced=24,
    sizes=(128, 256, 512, 1024),
    size_rounds=2,
    warm_up=0,
    drift=0,
    starts=3,
    paper=2,
)


def measure(
    settings: RunSettings,
    effort: Effort,
    on_step: Callable[[str], None],
    paper: MakePackage | None = None,
) -> BenchReport:
    """Measure everything.

    Parameters
    ----------
    settings : RunSettings
        Model, engine and precision; an engine's name limits the bench to that engine.
    effort : Effort
        `FULL` or `QUICK`.
    on_step : callable
        Called with what is measured next.
    paper : callable or None
        Makes the published network, to be timed as well; see `paper_tool`.

    Returns
    -------
    BenchReport

    Raises
    ------
    PssrLiveError
        The model, the engine or the disk.
    """
    machine = _machine()
    model = find_model(settings.model)
    on_step("rendering frames")
    info, frames = preset_info(), render(effort.rendered)
    peak, engines, refused = _engines(model, settings, effort, frames, on_step)
    daemon, latency = _daemon(model, settings, effort, info, frames, on_step)
    on_step("cost against size")
    scaling = scale_with_size(
        model, settings.engine, settings.precision, effort.sizes, effort.size_rounds
    )
    memory = _memory(settings, effort, on_step)
    on_step("time to start")
    started = start_up(effort.starts)
    published, not_run = _published(paper, settings, effort, info, on_step)
    return BenchReport(
        machine=machine,
        model=model.manifest.name,
        model_sha256=model.network_sha256,
        size=info.height,
        gmacs=network_gmacs(model, info.height, info.width),
        peak_gflops=peak,
        engines=engines,
        refused=refused + not_run,
        daemon=daemon,
        latency=latency,
        scaling=scaling,
        memory=memory,
        start_up=started,
        paper=published,
    )


def _engines(
    model: ModelPackage,
    settings: RunSettings,
    effort: Effort,
    frames: Sequence[Frame],
    on_step: Callable[[str], None],
) -> tuple[dict[str, float], list[EngineTiming], list[Refused]]:
    """Time the bare engines, and the processor's peak (Gflop/s by precision) around them."""
    on_step("matrix-multiply peak")
    before = matmul_peak(effort.seconds / 2)
    engines, refused = time_engines(
        model,
        settings.engine,
        windows_of(frames, model),
        frames=effort.timed,
        on_step=on_step,
    )
    # Before and after the engines: what disturbs them must not lower the peak alone.
    on_step("matrix-multiply peak once more")
    after = matmul_peak(effort.seconds / 2)
    return {name: max(rate, after[name]) for name, rate in before.items()}, engines, refused


def _daemon(
    model: ModelPackage,
    settings: RunSettings,
    effort: Effort,
    info: StreamInfo,
    frames: Sequence[Frame],
    on_step: Callable[[str], None],
) -> tuple[DaemonResult, LatencyResult]:
    """Run the whole daemon, as fast as the engine goes and at the preset's pace."""
    daemon = full_speed(
        model,
        settings,
        info,
        frames,
        rounds=effort.rounds,
        seconds=effort.seconds,
        on_step=on_step,
    )
    on_step(f"whole daemon, a frame every {info.interval_ms:g} ms")
    return daemon, at_pace(model, settings, info, frames, effort.paced)


def _memory(
    settings: RunSettings, effort: Effort, on_step: Callable[[str], None]
) -> MemoryResult | None:
    """Measure how memory drifts, where that is asked for and can be seen."""
    if not effort.drift or not can_measure_memory():
        return None
    on_step(f"memory over {effort.drift} small frames")
    return memory_drift(settings, effort.warm_up, effort.drift)


def _published(
    paper: MakePackage | None,
    settings: RunSettings,
    effort: Effort,
    info: StreamInfo,
    on_step: Callable[[str], None],
) -> tuple[list[PaperNetwork], list[Refused]]:
    """Time the published network, where that is asked for."""
    if paper is None:
        return [], []
    return time_paper(
        paper,
        settings.engine,
        settings.precision,
        frame=info.height,
        times=effort.paper,
        on_step=on_step,
    )


def _machine() -> Machine:
    # Windows does not have it, and there the type checker does not know it either.
    load_average = getattr(os, "getloadavg", None)
    return Machine(
        processor=processor(),
        system=platform.platform(),
        python=platform.python_version(),
        version=__version__,
        cpus=os.cpu_count() or 1,
        load=None if load_average is None else load_average()[0],
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
    )
