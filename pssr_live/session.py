"""One run from start to summary: source → ring → engine → record, stream.

Threads, in the order in which they are stopped: ``pssr-source`` (source and ring),
``pssr-engine`` (live restoration), ``pssr-restored`` and ``pssr-raw`` (recorders),
``pssr-status`` (twice a second), ``pssr-control`` and ``pssr-publisher`` (stream).
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum

from pssr_live.counters import Counters
from pssr_live.document import engine_status
from pssr_live.engine.base import EngineReport
from pssr_live.engine.live import LiveRestorer
from pssr_live.engine.restore import Restorer
from pssr_live.errors import PssrLiveError
from pssr_live.frames import Frame, Restored, Window
from pssr_live.model import find_model
from pssr_live.record.run_folder import RunFolder, Summary
from pssr_live.recording import Recording
from pssr_live.ring import Ring, Slots
from pssr_live.settings import RunSettings
from pssr_live.source import FrameSource, make_source
from pssr_live.stream.connection import Connection, remove_connection, write_connection
from pssr_live.stream.control import ControlServer
from pssr_live.stream.publisher import Publisher
from pssr_live.stream.sockets import check_loopback
from pssr_live.stream.wire import Status

__all__ = ["Phase", "RunResult", "Session"]

log = logging.getLogger(__name__)

_STATUS_EVERY_S = 0.5
_STOP_WITHIN_S = 120.0


class Phase(Enum):
    """Where a run is in its life."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"


LEGAL = {
    Phase.NEW: {Phase.STARTING},
    Phase.STARTING: {Phase.RUNNING, Phase.FINISHED},
    Phase.RUNNING: {Phase.STOPPING},
    Phase.STOPPING: {Phase.FINISHED},
    Phase.FINISHED: set(),
}
"""From which phase a run may go to which."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended.

    Attributes
    ----------
    folder : RunFolder
        What it left.
    summary : Summary
        In numbers.
    reason : str
        Why it ended.
    errors : tuple of PssrLiveError
        What went wrong, first things first.
    """

    folder: RunFolder
    summary: Summary
    reason: str
    errors: tuple[PssrLiveError, ...]


class Session:
    """One run.

    `start`, then `wait` until it returns true, then `finish`; `request_stop` at any time from any
    thread.

    Parameters
    ----------
    settings : RunSettings
        What is asked.
    source : FrameSource or None
        Delivers the frames instead of the source that the settings name.
    """

    def __init__(self, settings: RunSettings, source: FrameSource | None = None) -> None:
        self._settings = settings
        self._given_source = source
        self._run_id = uuid.uuid4().hex[:16]
        self._phase = Phase.NEW
        self._stopping = threading.Event()
        self._finished = threading.Event()
        self._reason = ""
        self._errors: list[PssrLiveError] = []
        self._counters = Counters()
        self._last_windows: list[Window] = []
        self._gaps: deque[int] = deque()

    @property
    def folder(self) -> RunFolder:
        """Where this run is recorded."""
        return self._recording.folder

    @property
    def engine(self) -> EngineReport:
        """What really runs."""
        return self._restorer.report

    def start(self) -> None:
        """Open everything and start acquiring.

        Raises
        ------
        PssrLiveError
            Something cannot run; all that was opened is closed again.
        """
        self._to(Phase.STARTING)
        with ExitStack() as opened:
            try:
                self._open(opened)
            except BaseException:
                self._to(Phase.FINISHED)
                raise
            self._opened = opened.pop_all()
        self._to(Phase.RUNNING)
        for thread in (self._source_thread, self._status_thread):
            thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the run's end: so many frames, so long, no more frames, an error, a request.

        Returns
        -------
        bool
            True if it is time to call `finish`.
        """
        return self._stopping.wait(timeout_s)

    def request_stop(self, reason: str) -> None:
        """Ask for an ordered stop; returns at once. Only the first reason is kept.

        Parameters
        ----------
        reason : str
            One line.
        """
        if not self._stopping.is_set():
            self._reason = reason
            self._stopping.set()
        self._source.stop()

    def finish(self, on_plane: Callable[[int, int], bool] = lambda *_: True) -> RunResult:
        """Stop in order: the last windows, the planes that live skipped, the summary.

        Parameters
        ----------
        on_plane : callable
            Called with (done, to do) while planes that live skipped are restored; if it returns
            False the rest is left, and the restored stack ends before the raw one.

        Returns
        -------
        RunResult
        """
        self._to(Phase.STOPPING)
        self._source.stop()
        self._collect(lambda: _join(self._source_thread))
        self._collect(self._source_closer.close)
        self._collect(lambda: self._live.finish(self._last_windows, _STOP_WITHIN_S))
        self._recording.flush()
        if not self._live.failed:
            self._collect(lambda: self._recording.restore_missing(self._restorer, on_plane))
        self._collect(self._recording.close_stacks)
        summary = self._recording.summary(self._counters.read())
        self._collect(lambda: self._write_end(summary))
        self._to(Phase.FINISHED)
        self._finished.set()
        self._collect(lambda: _join(self._status_thread))
        self._publisher.publish_status(self.status())
        self._collect(self._opened.close)
        return RunResult(self.folder, summary, self._reason, tuple(self._errors))

    def status(self) -> Status:
        """How the run is doing. May be called from any thread once `start` has returned."""
        counts = self._counters.read()
        return Status(
            run_id=self._run_id,
            phase=self._phase.value,  # type: ignore[arg-type]  # never NEW once started
            source=self.info.source,
            model=self._model.manifest.name,
            model_sha256=self._model.network_sha256,
            engine=engine_status(self._restorer.report),
            run_folder=str(self.folder.path.resolve()),
            frames_received=counts.received,
            frames_recorded=self._recording.frames_recorded,
            frames_restored=self._recording.frames_restored,
            frames_skipped_live=counts.skipped,
            frames_lost_at_source=counts.lost,
            fps_raw=counts.fps_raw,
            fps_restored=counts.fps_restored,
            latency_ms_p50=counts.latency_ms_p50,
            latency_ms_p99=counts.latency_ms_p99,
            uptime_s=time.monotonic() - self._began,
            viewers=self._publisher.counters().viewers,
            warnings=tuple(self._recording.warnings.last),
            standing=self._standing,
            final=self._phase is Phase.FINISHED,
        )

    def _open(self, opened: ExitStack) -> None:
        """Open all parts; what is cheap to refuse comes before what is slow or leaves files."""
        settings = self._settings
        self._model = find_model(settings.model)
        manifest = self._model.manifest
        check_loopback(settings.control, any_port=True)
        self._publisher = Publisher(settings.publish, self._run_id)
        opened.callback(self._publisher.close)
        self._source = self._given_source or make_source(settings)
        self._source_closer = opened.enter_context(ExitStack())
        self._source_closer.callback(self._source.close)
        self.info = info = self._source.open()
        self._restorer = Restorer(
            self._model,
            settings.engine,
            settings.precision,
            info.height,
            info.width,
            on_judged=self._on_judged,
        )
        opened.callback(self._restorer.close)
        self._began = time.monotonic()
        self._recording = Recording(
            self._run_id,
            settings,
            info,
            self._model,
            self._restorer.report,
            on_raw_error=self._fail_raw,
            on_restored_error=self._fail,
        )
        opened.callback(self._recording.close)
        doubt = self._model.doubt_about_pixel_size(info.pixel_size_um)
        self._standing = (doubt,) if doubt else ()
        for warning in self._standing:
            log.warning("%s", warning)
        # Beside the raw queue, windows in the ring, in wait and in work, the frame at hand and the
        # one being written need slots; so only the raw recorder can ever make the source wait.
        slots = self._recording.raw_bound + 3 * manifest.window_length + 2
        self._slots = Slots(slots, info.height, info.width, info.dtype)
        self._ring = Ring(manifest.window_length, manifest.centre)
        self._live = LiveRestorer(
            self._restorer,
            on_restored=self._on_restored,
            on_skipped=self._on_skipped,
            on_error=self._fail,
            on_pause=self._on_pause,
        )
        self._source_thread = threading.Thread(target=self._acquire, name="pssr-source")
        self._status_thread = threading.Thread(target=self._tell, name="pssr-status")
        self._announce(opened)
        self._live.start()

    def _announce(self, opened: ExitStack) -> None:
        control = ControlServer(
            self._settings.control,
            on_status=self.status,
            on_stop=lambda: self.request_stop("stopped through the control socket"),
        )
        opened.callback(control.close)
        self.connection = Connection(
            version=1,
            run_id=self._run_id,
            publish=self._publisher.endpoint,
            control=control.endpoint,
            pid=os.getpid(),
            started_unix_ns=time.time_ns(),
            run_folder=str(self.folder.path.resolve()),
        )
        write_connection(self.connection)
        opened.callback(remove_connection, self.connection)

    def _acquire(self) -> None:
        """Thread ``pssr-source``: raw first, then whoever wants to look."""
        reason = "the source has no more frames"
        try:
            for number, delivered in enumerate(self._source.frames(), start=1):
                self._take(delivered)
                if number == self._settings.frames:
                    reason = f"{number} frames acquired"
                    break
                if self._stopping.is_set():
                    break
        except Exception as error:
            self._fail(error)
        self._last_windows = self._ring.finish()
        self.request_stop(reason)

    def _take(self, delivered: Frame) -> None:
        frame = self._slots.keep(delivered)
        try:
            self._counters.count_received(frame)
            self._recording.put_raw(frame)
            self._publisher.publish_raw(frame)
            self._live.offer(self._ring.push(frame))
        finally:
            frame.release()

    def _on_judged(self, report: EngineReport) -> None:
        self._collect(lambda: self._recording.note_engine(report))

    def _on_restored(self, restored: Restored) -> None:
        self._publisher.publish_restored(restored)
        self._counters.count_restored(restored)
        self._keep(restored)

    def _on_skipped(self, index: int) -> None:
        self._counters.count_skipped()
        self._recording.skip(index)
        self._gaps.append(index)

    def _on_pause(self) -> bool:
        """Restore the oldest frame that live has skipped, if its window is on disk."""
        if not self._gaps:
            return False
        restored = self._recording.restore_recorded(self._gaps[0], self._restorer)
        if restored is None:
            return False
        self._gaps.popleft()
        self._keep(restored)
        return True

    def _keep(self, restored: Restored) -> None:
        if not self._recording.put_restored(restored):
            self._gaps.append(restored.index)

    def _tell(self) -> None:
        """Thread ``pssr-status``: the status twice a second, and the end of a timed run."""
        while not self._finished.wait(_STATUS_EVERY_S):
            self._publisher.publish_status(self.status())
            limit_s = self._settings.duration_s
            if limit_s is not None and time.monotonic() - self._began >= limit_s:
                self.request_stop(f"{limit_s:g} s have passed")

    def _write_end(self, summary: Summary) -> None:
        self._recording.write_end(summary, self._reason, [str(error) for error in self._errors])

    def _fail_raw(self, error: PssrLiveError) -> None:
        self._fail(error)
        self.request_stop("raw frames can no longer be recorded")

    def _fail(self, error: Exception) -> None:
        """Keep an error that does not end the program, and say it at once."""
        if not isinstance(error, PssrLiveError):
            log.debug("unexpected", exc_info=error)
            error = PssrLiveError("the run broke", repr(error), "report this with the log")
        self._errors.append(error)
        log.warning("%s", error)

    def _collect(self, step: Callable[[], None]) -> None:
        """Do one step; if it fails, keep the error and go on with the next."""
        try:
            step()
        except Exception as error:
            self._fail(error)

    def _to(self, phase: Phase) -> None:
        if phase not in LEGAL[self._phase]:
            raise RuntimeError(f"a run cannot go from {self._phase.value} to {phase.value}")
        self._phase = phase


def _join(thread: threading.Thread) -> None:
    thread.join(_STOP_WITHIN_S)
    if thread.is_alive():
        raise RuntimeError(f"thread {thread.name} did not end within {_STOP_WITHIN_S:g} s")
