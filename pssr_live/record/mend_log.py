"""Mends the log of a run whose process has died, and sums it up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from pssr_live.errors import StorageError
from pssr_live.record.log import (
    AcquisitionLog,
    FrameRecord,
    LostEvent,
    RestoredEvent,
    SkippedLiveEvent,
    StartRecord,
    StopRecord,
    iter_log,
)
from pssr_live.record.plane_table import PlaneInfo
from pssr_live.record.run_folder import LatencyMs

__all__ = [
    "RECOVERED",
    "Logged",
    "acknowledge",
    "cut_torn_line",
    "logged_latency_ms",
    "read_logged",
    "replace_superseded",
]

RECOVERED = "recovered"
"""Tag of a frame whose line was lost and written afterwards."""


@dataclass
class Logged:
    """What a log says, as far as finishing the run needs it.

    Attributes
    ----------
    start : StartRecord
        The first line.
    frames : list of FrameRecord
        One per acknowledged frame, by plane.
    restored : dict of int to RestoredEvent
        The last one of each plane.
    skipped : int
        Frames that live had no time for.
    lost_up_to : int
        The last frame that is said to have been lost at the source.
    stop : StopRecord or None
        The last line, if the run ended in order.
    """

    start: StartRecord
    frames: list[FrameRecord] = field(default_factory=list)
    restored: dict[int, RestoredEvent] = field(default_factory=dict)
    skipped: int = 0
    lost_up_to: int = -1
    stop: StopRecord | None = None


def read_logged(path: Path) -> Logged:
    """Read a log whose last line may be torn.

    Raises
    ------
    StorageError
        It cannot be read, has no first line, or a frame of it is missing.
    """
    records = iter_log(path)
    start = next(records, None)
    if not isinstance(start, StartRecord):
        raise StorageError(
            f"{path} does not say what was recorded",
            "its first line is missing",
            "restore raw.ome.tif, if it is there, with `pssr-live restore`",
        )
    logged = Logged(start)
    for record in records:
        match record:
            case FrameRecord():
                if record.plane != len(logged.frames):
                    raise StorageError(
                        f"{path} is damaged",
                        f"it has plane {record.plane} where {len(logged.frames)} should be",
                        "use a log that nobody has edited",
                    )
                logged.frames.append(record)
            case RestoredEvent():
                logged.restored[record.plane] = record
            case LostEvent():
                logged.lost_up_to = record.last_index
            case SkippedLiveEvent():
                logged.skipped += len(record.indices)
            case StopRecord():
                logged.stop = record
    return logged


def logged_latency_ms(path: Path) -> LatencyMs:
    """Sum up the latencies of all frames restored live."""
    latencies = [
        record.latency_ms
        for record in iter_log(path)
        if isinstance(record, RestoredEvent) and record.latency_ms is not None
    ]
    p50, p99 = np.percentile(latencies, [50, 99]).tolist() if latencies else (None, None)
    return LatencyMs(p50, p99)


def cut_torn_line(path: Path) -> None:
    """Cut what follows the last whole line, so that the next one can be appended.

    Raises
    ------
    StorageError
        The disk does not take it.
    """
    try:
        with path.open("r+b") as file:
            end = 0
            for line in file:
                end += len(line) if line.endswith(b"\n") else 0
            file.truncate(end)
    except OSError as error:
        raise _unwritable(path, error) from error


def acknowledge(log: AcquisitionLog, logged: Logged, info: PlaneInfo, crc32: int) -> None:
    """Write the line of a raw frame that is whole in its stack and has none; also to `logged`.

    What only the dead process knew is taken from the source's clock, and the tag `RECOVERED` says
    so.
    """
    before = logged.frames[-1] if logged.frames else None
    lost = 0 if before is None else info.index - before.index - 1
    t_host_ns = (
        logged.start.t_host_ns + info.t_source_ns
        if before is None
        else before.t_host_ns + info.t_source_ns - before.t_source_ns
    )
    if lost and logged.lost_up_to < info.index - 1:
        first = info.index - lost
        log.write(LostEvent(t_host_ns=t_host_ns, first_index=first, last_index=info.index - 1))
    record = FrameRecord(
        index=info.index,
        plane=len(logged.frames),
        t_source_ns=info.t_source_ns,
        t_host_ns=t_host_ns,
        t_recorded_ns=t_host_ns,
        crc32=crc32,
        lost_before=lost,
        tags={RECOVERED: True},
    )
    log.write(record)
    logged.frames.append(record)


def replace_superseded(path: Path) -> None:
    """Leave out all but the last line of each restored plane; a reader sees the old or new log.

    Raises
    ------
    StorageError
        The disk does not take it; the old one stays.
    """
    restored = (record for record in iter_log(path) if isinstance(record, RestoredEvent))
    times = Counter(event.plane for event in restored)
    if not any(count > 1 for count in times.values()):
        return
    new = path.with_suffix(".jsonl.new")
    try:
        with path.open("rb") as old, new.open("wb") as file:
            for line in old:
                if b'"restored"' in line:
                    plane = msgspec.json.decode(line).get("plane")
                    times[plane] -= 1
                    if times[plane] > 0:
                        continue
                file.write(line)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path} cannot be written", error.strerror or str(error), "make room on the disk"
    )
