"""What is measured in fresh processes: memory over many frames, and the time to start."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

import msgspec
import numpy as np

from pssr_live.bench.frames import MemorySource, preset_info, render
from pssr_live.bench.results import MemoryResult, StartUp
from pssr_live.errors import PssrLiveError
from pssr_live.settings import RunSettings

__all__ = ["can_measure_memory", "drift", "memory_drift", "start_up"]

_SIZE = 64
"""Frames small enough that thousands take a minute: what the daemon keeps of each is as much as of
a large one, and it is small buffers that fragment a heap."""
_RENDERED = 16
_HEADROOM = 2.4
"""Interval of the frames over the engine's time.

That of the paper's neuron setting, 270.49 ms, over the budget's 110 ms. Below 2.3, the engine's
pauses are too short for frames that live has skipped.
"""


def can_measure_memory() -> bool:
    """Whether psutil is there (extra ``bench``)."""
    return find_spec("psutil") is not None


def memory_drift(settings: RunSettings, warm_up: int, frames: int) -> MemoryResult:
    """Run a daemon in a process of its own over many small frames.

    Parameters
    ----------
    settings : RunSettings
        Model, engine and precision.
    warm_up, frames : int
        Frames before, and over which the drift is taken.

    Returns
    -------
    MemoryResult
    """
    asked = msgspec.json.encode(settings).decode()
    answer = _python("-m", __name__, asked, str(warm_up), str(frames))
    return msgspec.json.decode(answer, type=MemoryResult)


def drift(
    samples: Sequence[tuple[int, float]], warm_up: int, frames: int, skipped: int
) -> MemoryResult:
    """Compare memory soon after the warm-up with memory at the end.

    Parameters
    ----------
    samples : sequence of tuple of float
        (frames received, MB), in order.
    warm_up, frames, skipped : int
        As measured.

    Returns
    -------
    MemoryResult
    """
    first = [mb for at, mb in samples if warm_up <= at <= warm_up + frames / 10]
    last = [mb for at, mb in samples if at >= warm_up + 0.9 * frames]
    if not first or not last:
        raise PssrLiveError(
            "memory drift cannot be measured", "too few samples were taken", "use more frames"
        )
    return MemoryResult(
        size=_SIZE,
        warm_up=warm_up,
        frames=frames,
        skipped=skipped,
        start_mb=float(np.median(first)),
        end_mb=float(np.median(last)),
        samples=list(samples),
    )


def start_up(repeat: int) -> StartUp:
    """Time ``import pssr_live`` and ``pssr-live --help`` in fresh processes.

    Parameters
    ----------
    repeat : int
        How often; the median counts.
    """
    return StartUp(
        _median_s(["-c", "import pssr_live"], repeat),
        _median_s(["-m", "pssr_live", "--help"], repeat),
    )


def _median_s(arguments: list[str], repeat: int) -> float:
    _python(*arguments)  # once for the disk
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        _python(*arguments)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def _python(*arguments: str) -> bytes:
    ended = subprocess.run(
        [sys.executable, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
    )
    if ended.returncode != 0:
        raise PssrLiveError(
            "a process of the bench broke",
            f"it ended with {ended.returncode}",
            "see what it wrote above",
        )
    return ended.stdout


def _sample(settings: RunSettings, warm_up: int, frames: int) -> MemoryResult:
    """Run the daemon here, and look at this process now and then."""
    import psutil

    from pssr_live.bench.daemon import run_daemon_once
    from pssr_live.bench.engines import bare_rate, windows_of
    from pssr_live.engine.restore import Restorer
    from pssr_live.model import find_model

    info, rendered = replace(preset_info(), height=_SIZE, width=_SIZE), render(_RENDERED, _SIZE)
    model = find_model(settings.model)
    restorer = Restorer(model, settings.engine, settings.precision, _SIZE, _SIZE)
    interval_ms = _HEADROOM * 1e3 / bare_rate(restorer, windows_of(rendered, model), 1.0)
    restorer.close()
    source = MemorySource(info, rendered, count=warm_up + frames, interval_ms=interval_ms)
    samples: list[tuple[int, float]] = []
    memory_info = psutil.Process().memory_info
    run = run_daemon_once(
        settings,
        source,
        on_look=lambda: samples.append((source.delivered, memory_info().rss / 1e6)),
    )
    return drift(samples, warm_up, frames, run.summary.frames_skipped_live)


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.argv[1], type=RunSettings)
    sys.stdout.buffer.write(msgspec.json.encode(_sample(asked, int(sys.argv[2]), int(sys.argv[3]))))
