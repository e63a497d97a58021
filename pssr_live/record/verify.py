"""Checks every plane of a run's stacks against the acquisition log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pssr_live.errors import StorageError
from pssr_live.record.log import FrameRecord, RestoredEvent, StopRecord, iter_log
from pssr_live.record.reader import StackReader
from pssr_live.record.recorder import crc32
from pssr_live.record.run_folder import RunFolder

__all__ = ["Problem", "VerifyReport", "verify"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as the log says.

    Attributes
    ----------
    file : str
        Name of the file.
    plane : int or None
        Which plane, from 0; None for the file as a whole.
    what : str
        What is wrong, one line.
    """

    file: str
    plane: int | None
    what: str

    def __str__(self) -> str:
        where = self.file if self.plane is None else f"{self.file}, plane {self.plane}"
        return f"{where}: {self.what}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check found.

    Attributes
    ----------
    raw_planes, restored_planes : int
        Planes that the stacks have.
    ended : bool
        The run ended in order.
    problems : tuple of Problem
        Empty if every acknowledged plane is there as it was acknowledged.
    notes : tuple of str
        Worth knowing but no loss: what a run leaves that did not end in order, or still runs.
    """

    raw_planes: int
    restored_planes: int
    ended: bool
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def verify(folder: RunFolder, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Check every plane of the raw and the restored stack against the log.

    Parameters
    ----------
    folder : RunFolder
        The run.
    progress : callable, optional
        Called with the number of planes checked and of planes to check.

    Returns
    -------
    VerifyReport

    Raises
    ------
    StorageError
        The log itself cannot be read.
    """
    return _Verification(folder, progress or (lambda _done, _total: None)).report()


class _Verification:
    """One check: what the log says, and what has been found so far."""

    def __init__(self, folder: RunFolder, progress: Callable[[int, int], None]) -> None:
        self._folder = folder
        self._progress = progress
        self._checked = 0
        self._problems: list[Problem] = []
        self._notes: list[str] = []
        self._frames: list[FrameRecord] = []
        self._restored: list[RestoredEvent] = []
        self._ended = False
        for record in iter_log(folder.log):
            match record:
                case FrameRecord():
                    self._frames.append(record)
                case RestoredEvent():
                    self._restored.append(record)
                case StopRecord():
                    self._ended = True

    def report(self) -> VerifyReport:
        raw = self._raw_stack()
        restored = self._restored_stack()
        if self._ended and raw != restored:
            self._problem(
                self._folder.restored, None, f"has {restored} planes, the raw stack has {raw}"
            )
        if not self._ended:
            self._notes.append(
                "the run did not end in order (`pssr-live recover` finishes it) or is still running"
            )
        return VerifyReport(raw, restored, self._ended, tuple(self._problems), tuple(self._notes))

    def _raw_stack(self) -> int:
        path = self._folder.raw
        for expected, frame in enumerate(self._frames):
            if frame.plane != expected:
                self._problem(path, expected, f"the log has plane {frame.plane} in its place")
        planes = self._planes(path, self._frames)
        self._unlogged(path, set(range(len(self._frames), planes)), planes)
        for frame in self._frames[planes:]:
            self._problem(path, frame.plane, "is in the log but not in the file")
        return planes

    def _restored_stack(self) -> int:
        path = self._folder.restored
        logged = {event.plane for event in self._restored}
        if len(logged) < len(self._restored):
            self._problem(path, None, "the log has a plane twice")
        for event in self._restored:
            frame = self._frames[event.plane] if event.plane < len(self._frames) else None
            if frame is None or frame.index != event.index:
                self._problem(path, event.plane, f"is not the plane of raw frame {event.index}")
        planes = self._planes(path, self._restored)
        self._unlogged(path, set(range(planes)) - logged, planes)
        beyond = sorted(plane for plane in logged if plane >= planes)
        if beyond and planes not in logged:
            do = (
                "`pssr-live restore` makes the whole stack from the raw one"
                if self._ended
                else "`pssr-live recover` restores it"
            )
            self._notes.append(
                f"{path.name}: {len(beyond)} restored planes wait for plane {planes}, which was "
                f"not restored; {do}"
            )
        else:
            for plane in beyond:
                self._problem(path, plane, "is in the log but not in the file")
        return planes

    def _planes(self, path: Path, records: list[FrameRecord] | list[RestoredEvent]) -> int:
        """Check the planes that are both in the log and in the file; count those in the file."""
        try:
            with StackReader(path) as stack:
                for record in records:
                    if record.plane < len(stack):
                        self._plane(stack, record)
                    self._checked += 1
                    self._progress(self._checked, len(self._frames) + len(self._restored))
                return len(stack)
        except StorageError as error:
            # As long as the first plane is missing, the others wait for it.
            if any(record.plane == 0 for record in records):
                self._problem(path, None, error.why)
            return 0

    def _plane(self, stack: StackReader, record: FrameRecord | RestoredEvent) -> None:
        info = stack.infos[record.plane]
        if info is None or info.index != record.index:
            found = "no frame" if info is None else f"frame {info.index}"
            self._problem(
                stack.path, record.plane, f"holds {found}, the log says frame {record.index}"
            )
        try:
            if crc32(stack.read(record.plane)) != record.crc32:
                self._problem(stack.path, record.plane, "its pixels are not those that were logged")
        except StorageError as error:
            self._problem(stack.path, record.plane, error.why)

    def _unlogged(self, path: Path, unlogged: set[int], planes: int) -> None:
        for plane in sorted(unlogged):
            if plane == planes - 1 and not self._ended:
                self._notes.append(f"{path.name}: plane {plane} was written but not acknowledged")
            else:
                self._problem(path, plane, "is in the file but not in the log")

    def _problem(self, path: Path, plane: int | None, what: str) -> None:
        self._problems.append(Problem(path.name, plane, what))
