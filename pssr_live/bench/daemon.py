"""The whole daemon: both stacks recorded, one viewer in a process of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec
import numpy as np

from pssr_live.bench.engines import bare_rate, percentiles, windows_of
from pssr_live.bench.frames import MemorySource
from pssr_live.bench.results import DaemonResult, LatencyResult, Round
from pssr_live.bench.viewer import Seen, ViewerProcess
from pssr_live.engine.restore import Restorer
from pssr_live.errors import PssrLiveError
from pssr_live.frames import Frame
from pssr_live.model import Manifest, ModelPackage
from pssr_live.record.log import FrameRecord, Record, RestoredEvent, read_log
from pssr_live.record.run_folder import Summary
from pssr_live.session import Session
from pssr_live.settings import RunSettings
from pssr_live.source import StreamInfo

__all__ = ["DaemonRun", "at_pace", "full_speed", "run_daemon_once"]

_OVERDRIVE = 1.25
"""At full speed, frames come so many times faster than the bare engine restores them."""
_LOOK_EVERY_S = 0.1
_VIEWER_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class DaemonRun:
    """What one run left.

    Attributes
    ----------
    log : list of Record
        The acquisition log.
    summary : Summary
        In numbers.
    seen : list of Seen
        What the viewer's process took.
    unix_minus_monotonic_ns : int
        Between the two clocks.
    engine : str
        What ran.
    """

    log: list[Record]
    summary: Summary
    seen: list[Seen]
    unix_minus_monotonic_ns: int
    engine: str

    def live(self) -> list[RestoredEvent]:
        """Frames restored live from whole windows, in order."""
        return [
            record
            for record in self.log
            if isinstance(record, RestoredEvent) and record.live and not record.edge
        ]


def run_daemon_once(
    settings: RunSettings, source: MemorySource, on_look: Callable[[], object] = lambda: None
) -> DaemonRun:
    """Run a daemon in this process, its files in a temporary folder.

    Parameters
    ----------
    settings : RunSettings
        Model, engine and precision.
    source : MemorySource
        Delivers once the viewer is there.
    on_look : callable
        Called ten times a second while frames come.

    Returns
    -------
    DaemonRun

    Raises
    ------
    PssrLiveError
        The first thing that went wrong.
    """
    with tempfile.TemporaryDirectory(prefix="pssr-live-bench-") as folder:
        session = Session(msgspec.structs.replace(settings, out=folder), source)
        session.start()
        with ExitStack() as opened:
            try:
                viewer = opened.enter_context(ViewerProcess(session.connection.publish))
                _wait_for(viewer, session)
                source.go()
                while not session.wait(_LOOK_EVERY_S):
                    on_look()
            finally:
                result = session.finish()
            seen = viewer.seen()
        if result.errors:
            raise result.errors[0]
        return DaemonRun(
            log=read_log(result.folder.log),
            summary=result.summary,
            seen=seen,
            unix_minus_monotonic_ns=time.time_ns() - time.monotonic_ns(),
            engine=str(session.engine),
        )


def _wait_for(viewer: ViewerProcess, session: Session) -> None:
    deadline = time.monotonic() + _VIEWER_WITHIN_S
    while session.status().viewers == 0:
        if not viewer.running or time.monotonic() > deadline:
            raise PssrLiveError(
                "the bench's viewer did not come",
                "its process ended or did not subscribe",
                "see what it wrote above",
            )
        time.sleep(_LOOK_EVERY_S)


def full_speed(
    model: ModelPackage,
    settings: RunSettings,
    info: StreamInfo,
    frames: Sequence[Frame],
    *,
    rounds: int,
    seconds: float,
    on_step: Callable[[str], None],
) -> DaemonResult:
    """Compare the daemon's sustained rate with the bare engine's, in turn, in this process.

    Parameters
    ----------
    model : ModelPackage
        What to run.
    settings : RunSettings
        Engine and precision.
    info : StreamInfo
        Of the frames.
    frames : sequence of Frame
        To restore, in turn.
    rounds : int
        How often.
    seconds : float
        How long each part of a round takes.
    on_step : callable
        Called with what is measured next.

    Returns
    -------
    DaemonResult
    """
    windows = windows_of(frames, model)
    restorer = Restorer(model, settings.engine, settings.precision, info.height, info.width)
    measured: list[Round] = []
    seen = 0
    try:
        bare = bare_rate(restorer, windows, seconds)
        for number in range(rounds):
            on_step(f"whole daemon at full speed, round {number + 1} of {rounds}")
            pace = _OVERDRIVE * bare
            count = model.manifest.window_length + max(8, round(seconds * pace))
            source = MemorySource(info, frames, count=count, interval_ms=1e3 / pace)
            run = run_daemon_once(settings, source)
            after = bare_rate(restorer, windows, seconds)
            measured.append(Round(bare, _sustained(run), after))
            bare, seen = after, seen + len(run.seen)
    finally:
        restorer.close()
    ratio = float(np.median([one.ratio for one in measured]))
    return DaemonResult(engine=run.engine, rounds=measured, ratio=ratio, seen_by_viewer=seen)


def _sustained(run: DaemonRun) -> float:
    """Frames restored live and on disk, per second, once the engine is busy."""
    times_ns = [event.t_recorded_ns for event in run.live()]
    if len(times_ns) < 2:
        raise PssrLiveError(
            "the daemon's rate cannot be measured",
            "it restored fewer than two frames live",
            "leave out --quick, or use a faster engine",
        )
    return (len(times_ns) - 1) / (times_ns[-1] - times_ns[0]) * 1e9


def at_pace(
    model: ModelPackage,
    settings: RunSettings,
    info: StreamInfo,
    frames: Sequence[Frame],
    count: int,
) -> LatencyResult:
    """Run at the pace that the source announces.

    Parameters
    ----------
    model : ModelPackage
        What to run.
    settings : RunSettings
        Engine and precision.
    info : StreamInfo
        Of the frames, with their interval.
    frames : sequence of Frame
        To restore, in turn.
    count : int
        Frames to acquire.

    Returns
    -------
    LatencyResult
    """
    assert info.interval_ms is not None
    source = MemorySource(info, frames, count=count, interval_ms=info.interval_ms)
    return _latencies(run_daemon_once(settings, source), model.manifest, info.interval_ms)


def _latencies(run: DaemonRun, manifest: Manifest, interval_ms: float) -> LatencyResult:
    """Work out, for the frames that the viewer saw, where their time went."""
    ahead = manifest.window_length - 1 - manifest.centre
    needed_ns = {
        record.index - ahead: record.t_host_ns
        for record in run.log
        if isinstance(record, FrameRecord)
    }
    live = {event.index: event for event in run.live()}
    seen = [one for one in run.seen if one.index in live]
    if not seen:
        raise PssrLiveError(
            "latency cannot be measured",
            "the viewer saw no frame that was restored live",
            "use a faster engine, or look at what the daemon said",
        )
    total_ms = [
        (one.t_sent_unix_ns - run.unix_minus_monotonic_ns - needed_ns[one.index]) / 1e6
        for one in seen
    ]
    added_ms = [total - one.engine_ms for total, one in zip(total_ms, seen, strict=True)]
    to_ready_ms = [(event.latency_ms or 0.0) - event.engine_ms for event in live.values()]
    seen_after_ms = [(one.t_received_unix_ns - one.t_sent_unix_ns) / 1e6 for one in seen]
    return LatencyResult(
        interval_ms=interval_ms,
        frames=run.summary.frames_received,
        skipped=run.summary.frames_skipped_live,
        lost=run.summary.frames_lost_at_source,
        engine_ms=percentiles([one.engine_ms for one in seen]),
        total_ms=percentiles(total_ms),
        added_ms=percentiles(added_ms),
        added_to_ready_ms=percentiles(to_ready_ms),
        seen_after_ms=percentiles(seen_after_ms),
    )
