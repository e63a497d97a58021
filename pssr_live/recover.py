"""Finishes a run whose daemon has died, so that it is as one that ended in order.

Every step can be done again: stacks are only appended to, a plane is linked or let go by single
writes that no death can cut, and no line of the log is taken back before another is in its place.
So whatever interrupts a recovery, the next one goes on from there.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import get_args

from pssr_live.counters import WarningLog
from pssr_live.document import stream_info, what_ran
from pssr_live.engine.restore import Restorer
from pssr_live.errors import EngineError, ModelError, StorageError
from pssr_live.frames import Restored
from pssr_live.model import ModelPackage, find_model
from pssr_live.offline import restore_planes
from pssr_live.record.log import AcquisitionLog, StopRecord
from pssr_live.record.mend_log import (
    acknowledge,
    cut_torn_line,
    logged_latency_ms,
    read_logged,
    replace_superseded,
)
from pssr_live.record.planes import PlaneIndex, RawPlane, RawPlanes
from pssr_live.record.recorder import RestoredRecorder, crc32
from pssr_live.record.run_folder import RunFolder, Summary
from pssr_live.record.run_lock import RunLock
from pssr_live.record.stack import StackWriter, round_up
from pssr_live.record.stored import Slot
from pssr_live.record.survey import stored_stack, survey_raw, survey_restored
from pssr_live.settings import Precision

__all__ = ["Recovered", "recover"]

log = logging.getLogger(__name__)

_REASON = "recovered"
_SPARE_BYTES = 1 << 20
_LINE_BYTES = 500
"""More than a line of the log about one frame, or a plane's part of the OME-XML, takes."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a recovery has done.

    Attributes
    ----------
    planes : int
        Of the raw and of the restored stack.
    acknowledged : int
        Raw frames that were whole but had no line in the log.
    restored : int
        Planes restored now.
    """

    planes: int
    acknowledged: int
    restored: int


def recover(
    folder: RunFolder,
    on_plane: Callable[[str, int, int], object] = lambda *_: None,
    *,
    model: str | None = None,
) -> Recovered | None:
    """Finish a run whose daemon has died. Can be interrupted, and done again, at any moment.

    Parameters
    ----------
    folder : RunFolder
        The run.
    on_plane : callable
        Called with what is being done, and the number of planes done and to do.
    model : str, optional
        Where the model of the run is now; by default, where it was then.

    Returns
    -------
    Recovered or None
        None if the run had ended in order: nothing was touched.

    Raises
    ------
    StorageError
        The run still goes on, there is no room, the disk does not take it, or more is damaged
        than a death of the daemon can damage.
    ModelError, EngineError
        What restored is not to be had. The raw stack is finished; the restored one keeps what it
        has, and the next recovery goes on with it.
    """
    if folder.read_run_json().get("summary") is not None:
        return None
    lock = RunLock(folder)
    lock.take()
    try:
        return _Recovery(folder, on_plane, model).run()
    finally:
        lock.release()


class _Recovery:
    """One recovery; the folder is locked."""

    def __init__(
        self, folder: RunFolder, on_plane: Callable[[str, int, int], object], model: str | None
    ) -> None:
        self._folder = folder
        self._on_plane = on_plane
        self._document = folder.read_run_json()
        self._ran = what_ran(self._document)
        self._model_name = model or self._ran.settings.model
        self._info = stream_info(self._document)
        self._logged = read_logged(folder.log)
        self._looked = 0
        self._restorer: Restorer | None = None
        self._refused: ModelError | EngineError | None = None

    def run(self) -> Recovered | None:
        stop = self._logged.stop
        if stop is not None:  # death came when only run.json was left to write
            self._write_document(stop)
            return None
        self._raw = survey_raw(
            self._folder, self._logged, truth=self._info.truth, looked=self._look
        )
        kept = survey_restored(self._folder, self._logged, self._raw, self._look)
        with ExitStack() as opened:
            if self._raw.raw:
                kept = self._without_stale(kept, opened)
            missing = [plane for plane in self._raw.raw if plane not in kept]
            self._check_room(len(missing))
            acknowledged = self._finish_raw()
            planes = self._finish_restored(kept, missing)
        if planes < len(self._raw.raw):
            self._refuse(planes)
        self._end(acknowledged, len(missing))
        if self._raw.damage:
            raise StorageError(
                f"{self._folder.path} is finished, but not all that was acknowledged is there",
                "; ".join(self._raw.damage),
                "see `pssr-live verify`, and keep the folder as it is",
            )
        return Recovered(planes, acknowledged, len(missing))

    def _look(self) -> None:
        self._looked += 1
        total = len(self._logged.frames) + len(self._logged.restored)
        self._on_plane("checking planes", min(self._looked, total), total)

    def _without_stale(self, kept: dict[int, Slot], opened: ExitStack) -> dict[int, Slot]:
        """Get what restored in the run, and leave out planes that the raw stack does not give.

        The last ones may have been restored live from frames that death kept from being recorded.
        If what restored is not to be had, all are kept.
        """
        try:
            self._model = self._find_model()
            self._restorer = self._open_restorer(self._model)
            opened.callback(self._restorer.close)
            manifest, infos = self._model.manifest, self._raw.infos
            ahead = manifest.window_length - 1 - manifest.centre
            doubtful = [plane for plane in kept if infos[plane].index + ahead > infos[-1].index]
            stale = []
            for plane, again in zip(doubtful, self._restored(doubtful), strict=True):
                event = self._logged.restored[plane]
                said = event.crc32, event.edge, event.complete
                if said != (crc32(again.pixels), again.edge, again.complete):
                    stale.append(plane)
        except (ModelError, EngineError) as error:
            self._refused, self._restorer = error, None
            return kept
        return {plane: slot for plane, slot in kept.items() if plane not in stale}

    def _find_model(self) -> ModelPackage:
        start, name = self._logged.start, self._model_name
        model = find_model(name)
        if model.network_sha256 != start.model_sha256:
            raise ModelError(
                f"model {name}",
                f"its network is not that of the run ({start.model} {start.model_version}, "
                f"sha256 {start.model_sha256[:12]}…)",
                "say with --model where the one that the run used is",
            )
        return model

    def _open_restorer(self, model: ModelPackage) -> Restorer:
        ran = self._ran.engine
        executed = ran.precision.split("+")[0]
        precision = executed if executed in get_args(Precision) else self._ran.settings.precision
        return Restorer(model, ran.engine, precision, self._info.height, self._info.width)

    def _restored(self, planes: Iterable[int]) -> Iterator[Restored]:
        assert self._restorer is not None
        raw = RawPlanes(self._folder.raw, self._info, self._index())
        return restore_planes(raw, planes, self._restorer, self._model.manifest, self._info)

    def _index(self) -> PlaneIndex:
        index = PlaneIndex()
        for info, slot in zip(self._raw.infos, self._raw.raw.values(), strict=True):
            index.add(RawPlane(info.index, info.t_source_ns, slot.pixels_at))
        index.end()
        return index

    def _check_room(self, missing: int) -> None:
        info, scale = self._info, self._logged.start.scale
        plane_bytes = round_up(info.height * info.width * scale**2 * info.dtype.itemsize + 512)
        lines = 4 * len(self._raw.raw) + missing
        needed = missing * plane_bytes + lines * _LINE_BYTES + _SPARE_BYTES
        needed += self._folder.log.stat().st_size
        free = shutil.disk_usage(self._folder.path).free
        log.info(
            "%d of %d planes are not restored; %.0f MB of disk needed, %.0f MB free",
            missing, len(self._raw.raw), needed / 1e6, free / 1e6,
        )  # fmt: skip
        if free < needed:
            raise StorageError(
                f"{self._folder.path} is not recovered",
                f"that needs {needed / 1e6:.0f} MB of disk, and {free / 1e6:.0f} MB are free",
                "make room, or copy the folder to a larger disk",
            )

    def _finish_raw(self) -> int:
        """Finish the raw stack and the truth, and log whole frames that have no line."""
        _finish(self._folder.raw, self._raw.raw)
        if self._raw.truth or not self._logged.frames:
            _finish(self._folder.truth, self._raw.truth)
        cut_torn_line(self._folder.log)
        acquisition = AcquisitionLog(self._folder.log)
        try:
            for info, crc in self._raw.unlogged:
                acknowledge(acquisition, self._logged, info, crc)
        finally:
            acquisition.close()
        return len(self._raw.unlogged)

    def _finish_restored(self, kept: dict[int, Slot], missing: list[int]) -> int:
        """Finish the restored stack as far as it can be; return its planes."""
        path = self._folder.restored
        if self._restorer is None or not missing:
            return _finish(path, kept)
        stored = stored_stack(path)
        if stored is None:
            path.unlink(missing_ok=True)
            stack = None
        else:
            with stored:
                stack = StackWriter.resume(stored, kept)
        start = self._logged.start
        with ExitStack() as opened:
            acquisition = AcquisitionLog(self._folder.log)
            opened.callback(acquisition.close)
            warnings = WarningLog(lambda line: acquisition.event("warning", line))
            logging.getLogger().addHandler(warnings)
            opened.callback(logging.getLogger().removeHandler, warnings)
            recorder = RestoredRecorder(
                self._folder,
                acquisition,
                self._index(),
                model=self._model.manifest,
                started=start.started,
                annotations={"run_id": start.run_id},
                stack=stack,
                logged=self._logged.restored,
            )
            self._restore(recorder, missing)
            self._compare(self._restorer)
        return recorder.committed

    def _restore(self, recorder: RestoredRecorder, missing: list[int]) -> None:
        recorder.open(self._info)
        try:
            for done, plane in enumerate(self._restored(missing), start=1):
                recorder.put(plane)
                self._on_plane("restoring", done, len(missing))
        except BaseException as error:
            # What there is becomes a whole file; the next recovery goes on with it.
            with suppress(StorageError):
                recorder.close()
            if not isinstance(error, EngineError):
                raise
            self._refused = error
        else:
            recorder.close()

    def _compare(self, restorer: Restorer) -> None:
        """Warn of an engine that may restore a little differently from the one that ran live."""
        before, now = self._ran.engine, restorer.report
        if (before.engine, before.device, before.precision, before.version) != (
            now.engine, now.device, now.precision, now.version
        ):  # fmt: skip
            log.warning(
                "live frames were restored by %s %s on %s (version %s), these by %s (version %s)",
                before.engine, before.precision, before.device, before.version, now, now.version,
            )  # fmt: skip

    def _refuse(self, planes: int) -> None:
        assert self._refused is not None, "otherwise all planes are there"
        raise type(self._refused)(
            f"{self._folder.restored} has {planes} of {len(self._raw.raw)} planes",
            str(self._refused),
            "then run `pssr-live recover` again; raw.ome.tif is finished",
        )

    def _end(self, acknowledged: int, restored: int) -> None:
        replace_superseded(self._folder.log)
        planes = len(self._raw.raw)
        logged = read_logged(self._folder.log)
        summary = Summary(
            frames_received=planes,
            frames_recorded=planes,
            frames_restored=planes,
            frames_skipped_live=logged.skipped,
            frames_lost_at_source=sum(frame.lost_before for frame in logged.frames),
            latency_ms=logged_latency_ms(self._folder.log),
        )
        stop = StopRecord(
            stopped=datetime.now().astimezone(),
            t_host_ns=time.monotonic_ns(),
            reason=_REASON,
            summary=summary,
        )
        acquisition = AcquisitionLog(self._folder.log)
        try:
            acquisition.event(
                _REASON,
                f"the daemon had died; {acknowledged} frames were acknowledged and {restored} "
                "planes restored afterwards",
                frames_acknowledged=acknowledged,
                planes_restored=restored,
            )
            acquisition.write(stop)
        finally:
            acquisition.close()
        self._write_document(stop)

    def _write_document(self, stop: StopRecord) -> None:
        self._document.update(
            stopped=stop.stopped,
            reason=stop.reason,
            errors=self._document.get("errors", []),
            summary=stop.summary,
        )
        self._folder.write_run_json(self._document)


def _finish(path: Path, planes: dict[int, Slot]) -> int:
    """Make a stack of the planes that are kept, as an ordered stop leaves it; count its planes."""
    if planes and 0 not in planes:
        return 0  # all wait for the first one: nothing to finish, and nothing to throw away
    stored = stored_stack(path)
    if stored is None:
        path.unlink(missing_ok=True)
        return 0
    with stored:
        writer = StackWriter.resume(stored, planes)
    writer.close()
    return writer.committed
