"""What the acquisition log says, in few bytes a frame: a log may have very many."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import StorageError
from pssr_live.record.log import (
    Event,
    FrameRecord,
    LostEvent,
    Record,
    RestoredEvent,
    SkippedLiveEvent,
    StartRecord,
    StopRecord,
    iter_log,
)

__all__ = ["EventRow", "RunLog", "frames_of"]

KEPT_ROWS = 100
"""Rows of the table of events."""

MANY_S = 600.0
"""Longer runs are shown in minutes."""


@dataclass(slots=True)
class EventRow:
    """One row of the table of events.

    Attributes
    ----------
    t_host_ns : int
        When, monotonic ns; of several in one row, the first.
    kind : str
        Such as ``warning`` or ``lost``.
    text : str
        One line for people.
    count : int
        Events in this row.
    """

    t_host_ns: int
    kind: str
    text: str
    count: int = 1


class RunLog:
    """The log of a run that ended, was killed, or still goes on.

    Parameters
    ----------
    path : Path
        ``log.jsonl``.

    Attributes
    ----------
    start : StartRecord or None
        The first line.
    stop : StopRecord or None
        The last line of a run that ended in order.
    damage : str
        Why the rest of the log could not be read; empty if it could.
    lost : list of LostEvent
        Gaps in the source's count.
    skipped : array of int
        The source's numbers of the frames that live had no time for.
    warnings : Counter of str
        Warnings and errors, in the order in which they first came.
    rows : list of EventRow
        The first events, those of a kind that follow each other together.
    left_out : Counter of str
        How many more events there are, by kind.
    """

    def __init__(self, path: Path) -> None:
        self.start: StartRecord | None = None
        self.stop: StopRecord | None = None
        self.damage = ""
        self.lost: list[LostEvent] = []
        self.skipped = array("q")
        self.warnings: Counter[str] = Counter()
        self.rows: list[EventRow] = []
        self.left_out: Counter[str] = Counter()
        self._indices = array("q")
        self._times_ns = array("q")
        self._restored = array("q")
        self._latencies = array("d")
        self._flags: dict[int, tuple[bool, bool, bool]] = {}
        self._same = ""
        try:
            for record in iter_log(path):
                self._take(record)
        except StorageError as error:
            # What was read before is worth reporting.
            self.damage = str(error).replace(str(path), path.name)

    def __len__(self) -> int:
        """Raw frames that the log acknowledges."""
        return len(self._indices)

    def _take(self, record: Record) -> None:
        match record:
            case FrameRecord():
                self._indices.append(record.index)
                self._times_ns.append(record.t_source_ns)
            case RestoredEvent():
                self._restored.append(record.index)
                self._latencies.append(np.nan if record.latency_ms is None else record.latency_ms)
                if record.edge or not (record.complete and record.live):
                    self._flags[record.index] = (record.edge, record.complete, record.live)
            case LostEvent(first_index=first, last_index=last):
                self.lost.append(record)
                self._row(record.t_host_ns, "lost", f"the source lost {frames_of([(first, last)])}")
            case SkippedLiveEvent():
                self.skipped.extend(record.indices)
                text = f"live had no time: {record.reason}"
                self._row(record.t_host_ns, "skipped live", text, same=text)
            case StartRecord():
                self.start = record
            case StopRecord():
                self.stop = record
                self._row(record.t_host_ns, "stop", record.reason)
            case Event():
                if record.event in ("warning", "error"):
                    self.warnings[record.message] += 1
                text = record.message or record.event
                self._row(record.t_host_ns, record.event, text, same=text)

    def _row(self, t_host_ns: int, kind: str, text: str, same: str = "") -> None:
        """Add a row, or count it with the one before that says the same."""
        if same and same == self._same and not self.left_out:
            self.rows[-1].count += 1
        elif len(self.rows) < KEPT_ROWS:
            self.rows.append(EventRow(t_host_ns, kind, text))
        else:
            self.left_out[kind] += 1
        self._same = same

    def after_start_s(self, t_host_ns: int) -> float | None:
        """Time since the first line, s; None if there is none."""
        return None if self.start is None else (t_host_ns - self.start.t_host_ns) / 1e9

    def index(self, plane: int) -> int:
        """Return the source's number of a raw plane; its own number where the log ends earlier."""
        return self._indices[plane] if plane < len(self._indices) else plane

    def plane_from(self, index: int) -> int:
        """Find the first raw plane whose frame has this number or a larger one."""
        return bisect_left(self._indices, index)

    def time_s(self, plane: int) -> float | None:
        """Time of a raw plane after the first one, by the source's clock, s; None if unknown."""
        if plane >= len(self._times_ns):
            return None
        return (self._times_ns[plane] - self._times_ns[0]) / 1e9

    def flags(self, index: int) -> tuple[str, ...]:
        """Name what a reader must know before trusting a restored frame."""
        edge, complete, live = self._flags.get(index, (False, True, True))
        named = {
            "edge of the run": edge,
            "window incomplete": not complete,
            "restored afterwards": not live,
        }
        return tuple(flag for flag, holds in named.items() if holds)

    def incomplete(self) -> NDArray[np.int64]:
        """List the frames that were restored from a window with a missing frame, ascending."""
        found = (index for index, (_, complete, _) in self._flags.items() if not complete)
        return np.array(sorted(found), np.int64)

    def frames_lost(self) -> int:
        """Count the frames that the source lost."""
        return sum(gap.last_index - gap.first_index + 1 for gap in self.lost)

    def latencies(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Index and latency, ms, of every frame that was restored live, ascending."""
        indices, latencies = np.array(self._restored, np.int64), np.array(self._latencies)
        live = np.flatnonzero(~np.isnan(latencies))
        order = live[np.argsort(indices[live], kind="stable")]
        return indices[order], latencies[order]

    def interval_ms(self) -> float | None:
        """Median time from one frame to the next in the source's count, ms; None if unknown."""
        indices, times = np.array(self._indices), np.array(self._times_ns)
        steps = np.diff(times)[np.diff(indices) == 1]
        found = float(np.median(steps)) / 1e6 if steps.size else 0.0
        return found if found > 0 else None

    def duration_s(self) -> float | None:
        """Time from the first to the last frame, by the source's clock, s."""
        return self.time_s(len(self) - 1) if len(self) > 1 else None

    def axis(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.float64], str]:
        """Say when frames were scanned; of lost ones, between their neighbours.

        Parameters
        ----------
        indices : ndarray, shape (N,)
            The source's numbers.

        Returns
        -------
        times : ndarray, shape (N,), float64
            In s, or min in a long run; the number itself if the source has no clock.
        label : str
            For the axis.
        """
        last_s = self.duration_s() or 0.0
        if last_s <= 0:
            return indices.astype(np.float64), "frame number"
        times = (np.array(self._times_ns) - self._times_ns[0]) / 1e9
        found = np.interp(indices, np.array(self._indices), times)
        return (found / 60, "time, min") if last_s > MANY_S else (found, "time, s")


def frames_of(ranges: Sequence[tuple[int, int]], most: int = 8) -> str:
    """Write ``frame 3`` or ``frames 3–5, 9``; so many ranges at most."""
    parts = [str(first) if first == last else f"{first}–{last}" for first, last in ranges[:most]]
    noun = "frame" if len(ranges) == 1 and ranges[0][0] == ranges[0][1] else "frames"
    return f"{noun} {', '.join(parts)}{' …' if len(ranges) > most else ''}"
