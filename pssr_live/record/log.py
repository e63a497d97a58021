"""The acquisition log: JSON Lines, one record a line, written at once.

A line is one ``write`` to a file in append mode: what was written survives the death of the
process, and only the last line can be torn. Times are monotonic ns of this computer, except where
a field's name says otherwise; ``start`` ties them to the calendar.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from pssr_live.errors import StorageError
from pssr_live.frames import Tag
from pssr_live.record.run_folder import Summary

__all__ = [
    "AcquisitionLog",
    "Event",
    "FrameRecord",
    "LostEvent",
    "Record",
    "RestoredEvent",
    "SkippedLiveEvent",
    "StartRecord",
    "StopRecord",
    "iter_log",
    "read_log",
]


class _Line(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A line of the log; unknown fields are refused."""


class StartRecord(_Line, frozen=True, kw_only=True, tag_field="record", tag="start"):
    """The first line: what holds for the whole run.

    Attributes
    ----------
    version : int
        Version of this log format.
    run_id : str
        Name of the run.
    started : datetime
        Calendar time, with time zone, of ``t_host_ns``.
    t_host_ns : int
        Monotonic time of this line, ns.
    source : str
        What delivers the frames.
    height, width : int
        Size of a raw frame, pixels.
    dtype : str
        uint8, uint16 or float32.
    bits : int
        Bits that carry intensity.
    pixel_size_um : float or None
        Edge of a raw pixel, µm.
    interval_ms : float or None
        Announced time from frame to frame, ms.
    channel : str
        Name of the channel.
    model, model_version, model_sha256 : str
        The model, and the hash of its network.
    scale : int
        Restored pixels per raw pixel and axis.
    engine : str
        What really runs, as read back from it.
    engine_report : mapping
        All that it says about itself, as ``engine`` in ``run.json``.
    metadata : mapping
        What else the source says about the run.
    """

    version: Literal[1] = 1
    run_id: str
    started: datetime
    t_host_ns: int
    source: str
    height: int
    width: int
    dtype: str
    bits: int
    pixel_size_um: float | None
    interval_ms: float | None
    channel: str
    model: str
    model_version: str
    model_sha256: str
    scale: int
    engine: str
    engine_report: Mapping[str, Any] = {}
    metadata: Mapping[str, Tag] = {}


class FrameRecord(_Line, frozen=True, kw_only=True, tag_field="record", tag="frame"):
    """One raw frame, written once its plane is committed to ``raw.ome.tif``.

    Attributes
    ----------
    index : int
        As the source counts.
    plane : int
        Number of its plane in the raw stack, from 0.
    t_source_ns : int
        The source's time of the frame, ns since its start.
    t_host_ns : int
        When this computer had the whole frame, monotonic ns.
    t_recorded_ns : int
        When its plane had been written, monotonic ns.
    crc32 : int
        CRC-32 of its pixels, little-endian, row by row.
    lost_before : int
        Frames missing in the source's count between the frame before and this one.
    tags : mapping
        What else the source says about this frame.
    """

    index: int
    plane: int
    t_source_ns: int
    t_host_ns: int
    t_recorded_ns: int
    crc32: int
    lost_before: int
    tags: Mapping[str, Tag] = {}


class RestoredEvent(_Line, frozen=True, kw_only=True, tag_field="record", tag="event"):
    """One restored frame, written once it is in ``restored.ome.tif``.

    Readers see its plane as soon as the planes before it are there too.

    Attributes
    ----------
    index : int
        Index of the raw frame.
    plane : int
        Number of its plane in the restored stack, the same as in the raw stack.
    t_recorded_ns : int
        When its plane had been written, monotonic ns.
    latency_ms : float or None
        Last needed frame in the computer → restored frame ready; None if restored afterwards.
    engine_ms : float
        Time inside the engine.
    edge : bool
        The window reached past an end of the run.
    complete : bool
        No frame was missing from the window.
    live : bool
        False if live had skipped it and it was restored afterwards.
    crc32 : int
        CRC-32 of its pixels, little-endian, row by row.
    """

    event: Literal["restored"] = "restored"
    index: int
    plane: int
    t_recorded_ns: int
    latency_ms: float | None
    engine_ms: float
    edge: bool
    complete: bool
    live: bool
    crc32: int


class LostEvent(_Line, frozen=True, kw_only=True, tag_field="record", tag="event"):
    """Frames missing in the source's count, noticed with the next frame.

    Attributes
    ----------
    t_host_ns : int
        Monotonic time of this line, ns.
    first_index, last_index : int
        The first and last missing one.
    """

    event: Literal["lost"] = "lost"
    t_host_ns: int
    first_index: int
    last_index: int


class SkippedLiveEvent(_Line, frozen=True, kw_only=True, tag_field="record", tag="event"):
    """Frames that are not restored live; they are restored afterwards.

    Attributes
    ----------
    t_host_ns : int
        Monotonic time of this line, ns.
    indices : list of int
        The source's indexes.
    reason : str
        Why.
    """

    event: Literal["skipped_live"] = "skipped_live"
    t_host_ns: int
    indices: list[int]
    reason: str


class Event(_Line, frozen=True, kw_only=True, tag_field="record", tag="event"):
    """Anything else that happened: a warning, a state of the run, an error.

    Attributes
    ----------
    event : str
        What kind: ``warning``, ``state``, ``error`` …
    t_host_ns : int
        Monotonic time of this line, ns.
    message : str
        One line for people.
    details : mapping
        Plain values for programs.
    """

    event: str
    t_host_ns: int
    message: str = ""
    details: Mapping[str, Tag | None] = {}


class StopRecord(_Line, frozen=True, kw_only=True, tag_field="record", tag="stop"):
    """The last line of a run that ended in order.

    Attributes
    ----------
    stopped : datetime
        Calendar time, with time zone.
    t_host_ns : int
        Monotonic time of this line, ns.
    reason : str
        Why the run ended.
    summary : Summary
        The run in numbers.
    """

    stopped: datetime
    t_host_ns: int
    reason: str
    summary: Summary


Record: TypeAlias = (
    StartRecord | FrameRecord | RestoredEvent | LostEvent | SkippedLiveEvent | Event | StopRecord
)


class _Kind(Struct, frozen=True):
    """As much of a line as tells which record it is."""

    record: Literal["start", "frame", "event", "stop"]
    event: str | None = None


RECORDS: dict[str, type[Any]] = {"start": StartRecord, "frame": FrameRecord, "stop": StopRecord}
EVENTS: dict[str | None, type[Any]] = {
    "restored": RestoredEvent,
    "lost": LostEvent,
    "skipped_live": SkippedLiveEvent,
}


class AcquisitionLog:
    """Appends records to ``log.jsonl``; any thread may write.

    Parameters
    ----------
    path : Path
        The file; made if it does not exist.

    Raises
    ------
    StorageError
        The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._encoder = msgspec.json.Encoder()
        try:
            self._file = path.open("ab", buffering=0)
            self._end = self._file.seek(0, 2)
        except OSError as error:
            raise self._refused(error) from error

    def write(self, record: Record) -> None:
        """Append one record. Once this returns, it survives the death of the process.

        Parameters
        ----------
        record : Record
            Becomes one line.

        Raises
        ------
        StorageError
            The disk does not take it; the log ends with the line before.
        """
        line = self._encoder.encode(record) + b"\n"
        with self._lock:
            try:
                written = self._file.write(line)
                if written != len(line):
                    self._file.truncate(self._end)
                    raise OSError(0, "the disk took only a part of a line")
            except OSError as error:
                raise self._refused(error) from error
            self._end += written

    def event(self, event: str, message: str = "", **details: Tag | None) -> None:
        """Append an `Event` that happened now.

        Parameters
        ----------
        event : str
            What kind.
        message : str
            One line for people.
        **details
            Plain values for programs.
        """
        now_ns = time.monotonic_ns()
        self.write(Event(event=event, t_host_ns=now_ns, message=message, details=details))

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._file.close()

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self.path} cannot be written",
            error.strerror or str(error),
            "make room on the disk or choose another folder with --out",
        )


def iter_log(path: Path) -> Iterator[Record]:
    """Read a log record by record.

    A last line that is torn, because the process died or is writing it right now, is left out.

    Parameters
    ----------
    path : Path
        ``log.jsonl``.

    Yields
    ------
    Record

    Raises
    ------
    StorageError
        The file cannot be read, or a line that is not the last one is damaged.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    yield _decode(path, number, line)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read", error.strerror or str(error), "give a run folder"
        ) from error


def read_log(path: Path) -> list[Record]:
    """Read a whole log; as `iter_log`."""
    return list(iter_log(path))


def _decode(path: Path, number: int, line: bytes) -> Record:
    try:
        kind = msgspec.json.decode(line, type=_Kind)
        decoded: Record = msgspec.json.decode(
            line,
            type=RECORDS[kind.record] if kind.record != "event" else EVENTS.get(kind.event, Event),
        )
    except msgspec.DecodeError as error:
        raise StorageError(
            f"{path}, line {number}", str(error), "use a log that nobody has edited"
        ) from error
    return decoded
