"""Everything a run writes: run folder, acquisition log, raw and restored stacks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from pssr_live.counters import Counts, WarningLog
from pssr_live.document import engine_event, engine_report, run_document, start_record
from pssr_live.engine.base import EngineReport
from pssr_live.engine.restore import Restorer
from pssr_live.errors import PssrLiveError
from pssr_live.frames import Frame, Restored
from pssr_live.model import ModelPackage
from pssr_live.offline import restore_planes
from pssr_live.record.log import AcquisitionLog, StopRecord
from pssr_live.record.mend_log import logged_latency_ms
from pssr_live.record.planes import PlaneIndex, RawPlanes
from pssr_live.record.recorder import RawRecorder, RestoredRecorder
from pssr_live.record.run_folder import RunFolder, Summary
from pssr_live.record.run_lock import RunLock
from pssr_live.settings import RunSettings
from pssr_live.sink import SinkQueue
from pssr_live.source import StreamInfo

__all__ = ["Recording"]

log = logging.getLogger(__name__)

_RAW_QUEUE_BYTES = 64 << 20
_RESTORED_QUEUE = 4
_CLOSE_WITHIN_S = 120.0


class Recording:
    """The recorders of one run, each behind its queue; also the summary at the end.

    Parameters
    ----------
    run_id : str
        Identifies the run.
    settings : RunSettings
        What was asked.
    info : StreamInfo
        What the source announced.
    model : ModelPackage
        What restores.
    engine : EngineReport
        What really runs.
    on_raw_error, on_restored_error : callable
        Called once, from the recorder's thread, when a stack can no longer be written.

    Attributes
    ----------
    folder : RunFolder
        Where everything goes.
    warnings : WarningLog
        The last warnings; from now on, all go to the acquisition log too.
    raw_bound : int
        Raw frames that can wait for the disk.

    Raises
    ------
    StorageError
        The disk does not take it.
    """

    def __init__(
        self,
        run_id: str,
        settings: RunSettings,
        info: StreamInfo,
        model: ModelPackage,
        engine: EngineReport,
        *,
        on_raw_error: Callable[[PssrLiveError], None],
        on_restored_error: Callable[[PssrLiveError], None],
    ) -> None:
        self._info = info
        self._model = model
        started = datetime.now().astimezone()
        self.folder = RunFolder.create(Path(settings.out), settings.scope, model.manifest.name)
        self._document = run_document(run_id, started, settings, info, model, engine)
        planes = PlaneIndex()
        self._raw_planes = RawPlanes(self.folder.raw, info, planes)
        with ExitStack() as opened:
            lock = RunLock(self.folder)
            lock.take_if_possible()
            opened.callback(lock.release)
            self.folder.write_run_json(self._document)
            self._log = AcquisitionLog(self.folder.log)
            opened.callback(self._log.close)
            self._log.write(start_record(run_id, started, info, model, engine))
            self.warnings = WarningLog(lambda line: self._log.event("warning", line))
            logging.getLogger().addHandler(self.warnings)
            opened.callback(logging.getLogger().removeHandler, self.warnings)
            self._raw = RawRecorder(
                self.folder, self._log, planes, started=started, annotations={"run_id": run_id}
            )
            self._restored = RestoredRecorder(
                self.folder,
                self._log,
                planes,
                model=model.manifest,
                started=started,
                annotations={"run_id": run_id},
            )
            frame_bytes = info.height * info.width * info.dtype.itemsize
            self.raw_bound = max(4, min(64, _RAW_QUEUE_BYTES // frame_bytes))
            self._raw_queue = SinkQueue[Frame](
                "pssr-raw",
                self._raw,
                bound=self.raw_bound,
                release=Frame.release,
                on_error=on_raw_error,
            )
            self._restored_queue = SinkQueue[Restored](
                "pssr-restored",
                self._restored,
                bound=_RESTORED_QUEUE,
                release=lambda _: None,
                on_error=on_restored_error,
            )
            for queue in (self._raw_queue, self._restored_queue):
                queue.open(info)
                opened.callback(queue.close, _CLOSE_WITHIN_S)
            self._opened = opened.pop_all()

    @property
    def frames_recorded(self) -> int:
        """Planes of the raw stack now."""
        return self._raw.recorded

    @property
    def frames_restored(self) -> int:
        """Frames in the restored stack now; those behind a gap are not visible to readers yet."""
        return self._restored.restored

    def put_raw(self, frame: Frame) -> None:
        """Record a raw frame; waits only while its disk is behind by the whole queue."""
        frame.hold()
        self._raw_queue.put(frame, wait=True)

    def put_restored(self, restored: Restored) -> bool:
        """Record a restored frame; never waits.

        Returns
        -------
        bool
            False if the disk is behind by the whole queue; the frame has to be restored once more.
        """
        return self._restored_queue.put(restored, wait=False)

    def restore_recorded(self, index: int, restorer: Restorer) -> Restored | None:
        """Restore a frame that live has skipped, while the run goes on.

        Parameters
        ----------
        index : int
            The source's number of the frame.
        restorer : Restorer
            The one that works live.

        Returns
        -------
        Restored or None
            None while the raw stack does not reach past the frame's window.
        """
        planes = self._raw_planes.index
        length = self._model.manifest.window_length
        if len(planes) == 0 or planes[len(planes) - 1].index < index + length:
            return None
        return next(self._restore([planes.position(index)], restorer))

    def note_engine(self, engine: EngineReport) -> None:
        """Keep what the engine's first window has shown: in the log, and at once in ``run.json``.

        Parameters
        ----------
        engine : EngineReport
            What really runs from now on.
        """
        self._log.event("engine", f"what restores from here on: {engine}", **engine_event(engine))
        self._document["engine"] = engine_report(engine)
        self.folder.write_run_json(self._document)

    def skip(self, index: int) -> None:
        """Note in the log that live had no time for a frame."""
        self._restored_queue.skip([index], "the engine was behind")

    def flush(self) -> None:
        """Wait until all that was handed over is in the files."""
        self._raw_queue.flush()
        self._restored_queue.flush()

    def restore_missing(self, restorer: Restorer, on_plane: Callable[[int, int], bool]) -> None:
        """Finish the restored stack from the raw one.

        Parameters
        ----------
        restorer : Restorer
            The one that worked live.
        on_plane : callable
            Called with (done, to do) after each plane; the rest is left if it returns False.
        """
        missing = self._restored.missing()
        if not missing:
            return
        for done, restored in enumerate(self._restore(missing, restorer), start=1):
            if not self._restored_queue.put(restored, wait=True):
                return
            if not on_plane(done, len(missing)):
                log.warning(
                    "the restored stack ends before the raw one: %d planes were not restored; "
                    "`pssr-live restore` does that from raw.ome.tif",
                    len(missing) - done,
                )
                return
        self._restored_queue.flush()

    def close_stacks(self) -> None:
        """Finish both stacks.

        Raises
        ------
        StorageError
            A stack cannot be finished; what was recorded stays readable.
        """
        try:
            self._restored_queue.close(_CLOSE_WITHIN_S)
        finally:
            self._raw_queue.close(_CLOSE_WITHIN_S)

    def summary(self, counts: Counts) -> Summary:
        """Sum the run up; latencies are those of the whole run, read from the log."""
        return Summary(
            frames_received=counts.received,
            frames_recorded=self.frames_recorded,
            frames_restored=self._restored.committed,
            frames_skipped_live=counts.skipped,
            frames_lost_at_source=counts.lost,
            latency_ms=logged_latency_ms(self.folder.log),
        )

    def write_end(self, summary: Summary, reason: str, errors: list[str]) -> None:
        """Write the log's last line and the final ``run.json``."""
        stopped = datetime.now().astimezone()
        self._log.write(
            StopRecord(
                stopped=stopped, t_host_ns=time.monotonic_ns(), reason=reason, summary=summary
            )
        )
        self._document.update(stopped=stopped, reason=reason, errors=errors, summary=summary)
        self.folder.write_run_json(self._document)

    def _restore(self, positions: Iterable[int], restorer: Restorer) -> Iterator[Restored]:
        return restore_planes(
            self._raw_planes, positions, restorer, self._model.manifest, self._info
        )

    def close(self) -> None:
        """Let go of the log and whatever is still open. A second call does nothing."""
        self._opened.close()
