"""Sinks that record: raw frames first, restored frames beside them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from isal import isal_zlib

from pssr_live.errors import SourceError, StorageError
from pssr_live.frames import Frame, Pixels, Restored
from pssr_live.model import Manifest
from pssr_live.record.log import (
    AcquisitionLog,
    FrameRecord,
    LostEvent,
    RestoredEvent,
    SkippedLiveEvent,
)
from pssr_live.record.ome_xml import raw_stack, restored_stack, truth_stack
from pssr_live.record.plane_table import PlaneInfo
from pssr_live.record.planes import PlaneIndex, RawPlane
from pssr_live.record.run_folder import RunFolder
from pssr_live.record.stack import StackWriter
from pssr_live.source import StreamInfo

__all__ = ["RawRecorder", "RestoredRecorder", "crc32"]


class RawRecorder:
    """Records raw frames: their pixels, the ground truth if they carry it, then a line in the log.

    Parameters
    ----------
    folder : RunFolder
        Where to.
    log : AcquisitionLog
        Gets a ``frame`` line for each frame once its plane is safe.
    planes : PlaneIndex
        Filled as planes are committed.
    started : datetime
        When the acquisition started; with a time zone.
    annotations : mapping of str to str
        What to keep with the pixels: the run id.
    """

    def __init__(
        self,
        folder: RunFolder,
        log: AcquisitionLog,
        planes: PlaneIndex,
        *,
        started: datetime,
        annotations: Mapping[str, str],
    ) -> None:
        self._folder = folder
        self._log = log
        self._planes = planes
        self._started = started
        self._annotations = annotations
        self._truth: StackWriter | None = None
        self._last_index: int | None = None

    @property
    def recorded(self) -> int:
        """Frames whose planes are safe; may be read from any thread."""
        return len(self._planes)

    def open(self, info: StreamInfo) -> None:
        """Make the raw stack.

        Raises
        ------
        StorageError
            The disk does not take it.
        """
        self._info = info
        self._raw = StackWriter(self._folder.raw, raw_stack(info, self._started, self._annotations))

    def put(self, item: Frame) -> None:
        """Record one frame. Once this returns, it survives the death of the process.

        Raises
        ------
        StorageError
            The disk does not take it.
        SourceError
            Its shape, dtype or index do not follow from what the source said before.
        """
        try:
            self._put(item)
        except BaseException:
            self._planes.end()
            raise

    def skip(self, indices: Sequence[int], reason: str) -> None:
        """Nothing to do: what is missing is seen in the next frame's index."""

    def close(self) -> None:
        """Finish the stacks.

        Raises
        ------
        StorageError
            The disk does not take the finished OME-XML; all planes are safe nevertheless.
        """
        self._planes.end()
        try:
            self._raw.close()
        finally:
            if self._truth is not None:
                self._truth.close()

    def _put(self, frame: Frame) -> None:
        self._check(frame)
        info = PlaneInfo(frame.index, frame.t_source_ns)
        plane = self._raw.committed
        pixels_at = self._raw.put(plane, frame.pixels, info)
        recorded_ns = time.monotonic_ns()
        if frame.truth is not None:
            self._put_truth(frame.truth, info)
        self._log_frame(frame, plane, recorded_ns)
        self._last_index = frame.index
        self._planes.add(RawPlane(frame.index, frame.t_source_ns, pixels_at))

    def _check(self, frame: Frame) -> None:
        expected = (self._info.height, self._info.width)
        if frame.pixels.shape != expected or frame.pixels.dtype != self._info.dtype:
            raise SourceError(
                f"frame {frame.index} is {frame.pixels.shape} {frame.pixels.dtype}",
                f"the source announced {expected} {self._info.dtype}",
                "keep the region of interest and pixel type as they are during a run",
            )
        if self._last_index is not None and frame.index <= self._last_index:
            raise SourceError(
                f"frame {frame.index} came after frame {self._last_index}",
                "a source must count its frames upwards",
                "report this to the driver's author",
            )

    def _put_truth(self, truth: Pixels, info: PlaneInfo) -> None:
        if self._truth is None:
            height, width = truth.shape
            self._truth = StackWriter(
                self._folder.truth,
                truth_stack(
                    self._info, (height, width), truth.dtype, self._started, self._annotations
                ),
            )
        self._truth.put(self._truth.committed, truth, info)

    def _log_frame(self, frame: Frame, plane: int, recorded_ns: int) -> None:
        lost = 0 if self._last_index is None else frame.index - self._last_index - 1
        if lost:
            self._log.write(
                LostEvent(
                    t_host_ns=frame.t_host_ns,
                    first_index=frame.index - lost,
                    last_index=frame.index - 1,
                )
            )
        self._log.write(
            FrameRecord(
                index=frame.index,
                plane=plane,
                t_source_ns=frame.t_source_ns,
                t_host_ns=frame.t_host_ns,
                t_recorded_ns=recorded_ns,
                crc32=crc32(frame.pixels),
                lost_before=lost,
                tags=frame.tags,
            )
        )


class RestoredRecorder:
    """Records restored frames in the order of the raw stack, whatever order they come in.

    Parameters
    ----------
    folder : RunFolder
        Where to.
    log : AcquisitionLog
        Gets an event ``restored`` for each frame, and ``skipped_live``.
    planes : PlaneIndex
        Filled by the raw recorder.
    model : Manifest
        Of the model that restores.
    started : datetime
        When the acquisition started; with a time zone.
    annotations : mapping of str to str
        What to keep with the pixels besides the model and the engine: the run id.
    stack : StackWriter, optional
        The stack to go on with; by default the first frame makes it.
    logged : mapping of int to RestoredEvent, optional
        What the log says already, by plane; it is not said twice.
    """

    def __init__(
        self,
        folder: RunFolder,
        log: AcquisitionLog,
        planes: PlaneIndex,
        *,
        model: Manifest,
        started: datetime,
        annotations: Mapping[str, str],
        stack: StackWriter | None = None,
        logged: Mapping[int, RestoredEvent] | None = None,
    ) -> None:
        self._folder = folder
        self._log = log
        self._planes = planes
        self._model = model
        self._started = started
        self._annotations = annotations
        self._restored = 0
        self._stack = stack
        self._logged = logged or {}

    @property
    def restored(self) -> int:
        """Frames written, visible to readers or not yet; may be read from any thread."""
        return self._restored

    @property
    def committed(self) -> int:
        """Planes that readers see; may be read from any thread."""
        return 0 if self._stack is None else self._stack.committed

    def open(self, info: StreamInfo) -> None:
        """Wait for the first frame: only then it is known for sure which engine restores."""
        self._info = info

    def put(self, item: Restored) -> None:
        """Record one restored frame, once its raw one is recorded; the first makes the stack.

        Raises
        ------
        StorageError
            The disk does not take it, or its raw frame will never be recorded.
        """
        plane = self._planes.position(item.index)
        crc, known = crc32(item.pixels), self._logged.get(plane)
        if known and (known.crc32, known.edge, known.complete) != (crc, item.edge, item.complete):
            known = None
        live = known.live if known else item.live
        info = PlaneInfo(item.index, item.t_source_ns, item.edge, item.complete, live)
        if self._stack is None:
            annotations = {**self._annotations, "engine": item.engine}
            stack = restored_stack(self._info, self._model, self._started, annotations)
            self._stack = StackWriter(self._folder.restored, stack)
        self._stack.put(plane, item.pixels, info)
        self._restored += 1
        if known:
            return
        self._log.write(
            RestoredEvent(
                index=item.index,
                plane=plane,
                t_recorded_ns=time.monotonic_ns(),
                latency_ms=None if item.latency_ms is None else round(item.latency_ms, 3),
                engine_ms=round(item.engine_ms, 3),
                edge=item.edge,
                complete=item.complete,
                live=item.live,
                crc32=crc,
            )
        )

    def skip(self, indices: Sequence[int], reason: str) -> None:
        """Log frames that live skips."""
        self._log.write(
            SkippedLiveEvent(t_host_ns=time.monotonic_ns(), indices=list(indices), reason=reason)
        )

    def missing(self) -> list[int]:
        """List the planes of the raw stack that have no restored plane yet."""
        if self._stack is None:
            return list(range(len(self._planes)))
        return self._stack.missing(len(self._planes))

    def close(self) -> None:
        """Finish the stack.

        Raises
        ------
        StorageError
            The disk does not take it, or, with the file finished as far as it goes, planes are
            missing.
        """
        if self._stack is not None:
            self._stack.close(len(self._planes))
        elif len(self._planes):
            raise StorageError(
                f"{self._folder.restored.name} was not made",
                "no frame was restored",
                "restore the raw stack with `pssr-live restore`",
            )


def crc32(pixels: Pixels) -> int:
    """Compute the CRC-32 of pixels as they lie in the file: little-endian, row by row."""
    return isal_zlib.crc32(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).data)
