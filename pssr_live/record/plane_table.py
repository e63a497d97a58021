"""What is remembered of a stack's planes while it is being written: a few bytes each."""

from __future__ import annotations

import struct
from array import array
from typing import NamedTuple

import msgspec

__all__ = ["PlaneInfo", "PlaneTable", "Waiting", "WaitingPlanes"]


class PlaneInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the file says about one plane (JSON in the tag PageName).

    Attributes
    ----------
    index : int
        Index of the frame as the source counts; a jump from plane to plane is a gap.
    t_source_ns : int
        The source's time of the frame, ns.
    edge : bool
        Restored from a window that reaches past an end of the run.
    complete : bool
        No frame was missing from the window.
    live : bool
        False if live had skipped it and it was restored afterwards.
    """

    index: int
    t_source_ns: int
    edge: bool = False
    complete: bool = True
    live: bool = True


class Waiting(NamedTuple):
    """A plane that is in the file but not yet linked.

    Attributes
    ----------
    directory_at : int
        Where its directory (IFD) is, bytes.
    next_at : int
        Where that directory says which one follows, bytes.
    info : PlaneInfo
        What the file says about the plane.
    """

    directory_at: int
    next_at: int
    info: PlaneInfo


class WaitingPlanes:
    """Planes that wait for a link, because one before them is missing.

    Thousands may wait behind one gap, so each is a row in one block of memory: 35 bytes, and as
    many for a position that is still missing.
    """

    _ROW = struct.Struct("<qqqq???")

    def __init__(self) -> None:
        self._rows = bytearray()
        self._first = 0

    def __contains__(self, position: int) -> bool:
        return self._directory_at(position) != 0

    def add(self, position: int, plane: Waiting) -> None:
        """Remember a plane; its position is not below the first."""
        start = (position - self._first) * self._ROW.size
        self._rows.extend(bytes(max(0, start + self._ROW.size - len(self._rows))))
        self._ROW.pack_into(
            self._rows,
            start,
            plane.directory_at,
            plane.next_at,
            plane.info.index,
            plane.info.t_source_ns,
            plane.info.edge,
            plane.info.complete,
            plane.info.live,
        )

    def first(self) -> Waiting | None:
        """Return the plane that comes next in the stack; None while it is missing."""
        if self._first not in self:
            return None
        directory_at, next_at, *info = self._ROW.unpack_from(self._rows)
        return Waiting(directory_at, next_at, PlaneInfo(*info))

    def drop_first(self) -> None:
        """Forget the plane that came next: it has its link."""
        del self._rows[: self._ROW.size]
        self._first += 1

    def _directory_at(self, position: int) -> int:
        """0, where no directory can be, if the plane is not there."""
        start = (position - self._first) * self._ROW.size
        if not 0 <= start < len(self._rows):
            return 0
        return int.from_bytes(self._rows[start : start + 8], "little")


class PlaneTable:
    """What the OME-XML says at the end about the committed planes.

    Attributes
    ----------
    times_ns : array of int
        The source's time of each plane, ns.
    """

    def __init__(self) -> None:
        self.times_ns = array("q")
        self._last_index: int | None = None
        self._edge = _Ranges()
        self._incomplete = _Ranges()
        self._afterwards = _Ranges()
        self._lost = _Ranges()

    def add(self, info: PlaneInfo) -> None:
        """Take the next plane."""
        plane = len(self.times_ns)
        if info.edge:
            self._edge.add(plane, plane)
        if not info.complete:
            self._incomplete.add(plane, plane)
        if not info.live:
            self._afterwards.add(plane, plane)
        if self._last_index is not None and info.index > self._last_index + 1:
            self._lost.add(self._last_index + 1, info.index - 1)
        self._last_index = info.index
        self.times_ns.append(info.t_source_ns)

    def notes(self) -> dict[str, str]:
        """Return the annotations: which planes are special, as ranges."""
        notes = {
            "edge_planes": str(self._edge),
            "incomplete_planes": str(self._incomplete),
            "planes_restored_afterwards": str(self._afterwards),
            "lost_indices": str(self._lost),
        }
        return {key: ranges for key, ranges in notes.items() if ranges}


class _Ranges:
    """Ascending numbers, kept and shown as ranges: ``0-1 98-99``."""

    def __init__(self) -> None:
        self._firsts = array("q")
        self._lasts = array("q")

    def add(self, first: int, last: int) -> None:
        if self._lasts and first == self._lasts[-1] + 1:
            self._lasts[-1] = last
        else:
            self._firsts.append(first)
            self._lasts.append(last)

    def __str__(self) -> str:
        pairs = zip(self._firsts, self._lasts, strict=True)
        return " ".join(str(low) if low == high else f"{low}-{high}" for low, high in pairs)
