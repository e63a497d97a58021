"""A run folder as the review shows it: planes and what the log says about each. No Qt here."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import StorageError
from pssr_live.frames import Pixels
from pssr_live.record import (
    Event,
    FrameRecord,
    LostEvent,
    Record,
    RestoredEvent,
    RunFolder,
    SkippedLiveEvent,
    StackReader,
    StartRecord,
    StopRecord,
    Summary,
    iter_log,
)

__all__ = ["RecordedRun", "RunLog"]


class RunLog:
    """What the acquisition log says, found by plane. A killed run's log ends early.

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
    frames : dict of int to FrameRecord
        By plane.
    restored : dict of int to RestoredEvent
        By plane.
    lost : list of LostEvent
        Gaps in the source's count.
    skipped : list of int
        Indexes that were not restored live.
    warnings : list of str
        Warnings and errors of the run.

    Raises
    ------
    StorageError
        The log cannot be read, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.start: StartRecord | None = None
        self.stop: StopRecord | None = None
        self.frames: dict[int, FrameRecord] = {}
        self.restored: dict[int, RestoredEvent] = {}
        self.lost: list[LostEvent] = []
        self.skipped: list[int] = []
        self.warnings: list[str] = []
        for record in iter_log(path):
            self._take(record)

    def _take(self, record: Record) -> None:
        match record:
            case FrameRecord():
                self.frames[record.plane] = record
            case RestoredEvent():
                self.restored[record.plane] = record
            case LostEvent():
                self.lost.append(record)
            case SkippedLiveEvent():
                self.skipped.extend(record.indices)
            case StartRecord():
                self.start = record
            case StopRecord():
                self.stop = record
            case Event(event="warning" | "error"):
                self.warnings.append(record.message)
            case Event():
                pass

    def lost_indices(self) -> NDArray[np.int64]:
        """List the indexes that the source lost, ascending."""
        ranges = [np.arange(gap.first_index, gap.last_index + 1) for gap in self.lost]
        return np.concatenate([np.zeros(0, np.int64), *ranges])

    def latencies(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Index and latency, ms, of every frame that was restored live."""
        live = [
            (event.index, event.latency_ms)
            for _, event in sorted(self.restored.items())
            if event.latency_ms is not None
        ]
        return (
            np.array([index for index, _ in live], np.int64),
            np.array([latency for _, latency in live], np.float64),
        )


class RecordedRun:
    """One run, finished or not; used by one thread.

    Parameters
    ----------
    path : Path
        The run folder.

    Attributes
    ----------
    folder : RunFolder
        Its paths.
    log : RunLog
        Its log.
    raw : StackReader
        Raw frames.
    restored, truth : StackReader or None
        None where the run has no such plane.
    notes : list of str
        Why a stack that is there is not shown.

    Raises
    ------
    StorageError
        It is no run folder, or has no raw plane.
    """

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder.open(path)
        self.log = RunLog(self.folder.log)
        self.notes: list[str] = []
        with ExitStack() as opened:
            self.raw = opened.enter_context(StackReader(self.folder.raw))
            self.restored = self._open(self.folder.restored, opened)
            self.truth = self._open(self.folder.truth, opened)
            self._opened = opened.pop_all()
        frames = (self.log.frames.get(plane) for plane in range(len(self)))
        self._indices = np.array(
            [plane if frame is None else frame.index for plane, frame in enumerate(frames)]
        )

    def __len__(self) -> int:
        return len(self.raw)

    def __enter__(self) -> RecordedRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._opened.close()

    def index(self, plane: int) -> int:
        """Find the source's index of a raw plane; its number where the log does not know it."""
        return int(self._indices[plane])

    def plane_near(self, index: float) -> int:
        """Find the raw plane whose index is nearest."""
        return int(np.argmin(np.abs(self._indices - index)))

    def time_s(self, plane: int) -> float | None:
        """Time of a raw plane after the first one, by the source's clock, s."""
        first, this = self.log.frames.get(0), self.log.frames.get(plane)
        if first is None or this is None:
            return None
        return (this.t_source_ns - first.t_source_ns) / 1e9

    def read(self, stack: StackReader | None, plane: int) -> Pixels | None:
        """Read a plane; None where the stack does not reach so far."""
        return None if stack is None or plane >= len(stack) else stack.read(plane)

    def summary(self) -> Summary:
        """Return the run in numbers; those of an unfinished run are counted from what is there."""
        if self.log.stop is not None:
            return self.log.stop.summary
        return Summary(
            frames_received=max(len(self), len(self.log.frames)),
            frames_recorded=len(self),
            frames_restored=0 if self.restored is None else len(self.restored),
            frames_skipped_live=len(self.log.skipped),
            frames_lost_at_source=self.log.lost_indices().size,
        )

    def _open(self, path: Path, opened: ExitStack) -> StackReader | None:
        if not path.is_file():
            return None
        try:
            return opened.enter_context(StackReader(path))
        except StorageError as error:
            # The raw frames are worth looking at whatever became of the rest.
            self.notes.append(f"{path.name}: {error.why}")
            return None
