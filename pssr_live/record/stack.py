"""BigTIFF with a commit pointer: planes once acknowledged survive a crash, readable by anyone.

A file is, at every moment, a valid OME-TIFF of the planes committed so far. A plane's pixels and
its directory (IFD) go to the end of the file, where no reader looks yet; then the eight bytes that
link the directory into the chain make it part of the file; then the digits of SizeT in the OME-XML
follow. Readers accept a SizeT smaller than the number of directories, never a larger one, hence
the order. Nothing that a reader needs is ever only in memory.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from io import FileIO
from pathlib import Path

import msgspec
import numpy as np

from pssr_live import __version__
from pssr_live.errors import StorageError
from pssr_live.frames import Pixels
from pssr_live.record.ome_xml import (
    SIZE_T_DIGITS,
    StackDescription,
    finished_xml,
    reserved_xml,
)

__all__ = ["PlaneInfo", "StackWriter"]

HEADER = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0)
FIRST_LINK_AT = 8
PAGE = 4096
BLOCK = 512
"""Planes and directories start at multiples of this; a directory is not longer."""

SMALLEST_UM = 0.003
"""Pixels smaller than this do not fit the resolution tags, only the OME-XML."""

AHEAD = 4
"""The file reaches at least so many planes beyond its last one while it is being written."""

ASCII, SHORT, LONG, RATIONAL, LONG8 = 2, 3, 4, 5, 16
SOFTWARE = f"pssr-live {__version__}\0".encode("ascii")


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


class StackWriter:
    """Writes one stack, plane by plane, in any order; used by one thread at a time.

    Parameters
    ----------
    path : Path
        File to make; it must not exist.
    stack : StackDescription
        What the stack is.

    Raises
    ------
    StorageError
        The file cannot be made.
    """

    def __init__(self, path: Path, stack: StackDescription) -> None:
        self.path = path
        self._stack = stack
        self._dtype = stack.dtype.newbyteorder("<")
        self._unlinked: dict[int, tuple[_Directory, PlaneInfo]] = {}
        self._planes = _PlaneTable()
        self._link_at = FIRST_LINK_AT
        self._description_at = 0
        self._xml, digits_at = reserved_xml(stack)
        self._xml_at = len(HEADER)
        # SIGKILL can cut a write at a boundary of memory pages; these digits must not be cut.
        if (self._xml_at + digits_at) % PAGE > PAGE - SIZE_T_DIGITS:
            self._xml_at += len(HEADER)
        self._size_t_at = self._xml_at + digits_at
        self._end = _round_up(self._xml_at + len(self._xml))
        self._size = 0
        with self._storing():
            self._file = create_file(path)
            try:
                self._write(0, HEADER)
                self._write(self._xml_at, self._xml)
            except OSError:
                self._file.close()
                raise

    @property
    def committed(self) -> int:
        """Number of planes that readers see; may be read from any thread."""
        return len(self._planes.times_ns)

    def put(self, position: int, pixels: Pixels, info: PlaneInfo) -> int:
        """Write one plane. Once this returns, the plane survives the death of the process.

        A plane that is ahead of a missing one is kept in the file and becomes visible to readers
        together with the last plane missing before it.

        Parameters
        ----------
        position : int
            Its number in the stack, from 0; not yet written.
        pixels : ndarray, shape (height, width)
            In the stack's dtype; written from where they are if C-contiguous.
        info : PlaneInfo
            What the file says about the plane.

        Returns
        -------
        int
            Where its pixels begin in the file, bytes.

        Raises
        ------
        StorageError
            The disk does not take it. What was committed stays readable; the same plane may be
            put again unless `missing` no longer names it.
        ValueError
            The plane was written before, or does not fit the stack.
        """
        if position < self.committed or position in self._unlinked:
            raise ValueError(f"plane {position} of {self.path.name} was written before")
        expected = (self._stack.height, self._stack.width)
        if pixels.shape != expected or pixels.dtype != self._stack.dtype:
            raise ValueError(
                f"plane {position} is {pixels.shape} {pixels.dtype}, "
                f"{self.path.name} holds {expected} {self._stack.dtype}"
            )
        data = np.ascontiguousarray(pixels, self._dtype).reshape(-1).view(np.uint8).data
        with self._storing():
            pixels_at = self._end
            at = _round_up(pixels_at + len(data))
            directory, content = self._directory(position == 0, at, info)
            self._write(pixels_at, data)
            self._write(at, content)
            self._end = _round_up(at + len(content))
            self._unlinked[position] = directory, info
            self._reach_ahead(len(data))
            self._link()
        return pixels_at

    def missing(self, total: int) -> list[int]:
        """List the planes that a stack of ``total`` planes still lacks."""
        return [plane for plane in range(self.committed, total) if plane not in self._unlinked]

    def close(self, total: int | None = None) -> None:
        """Finish the file: times of all planes and annotations go into its OME-XML.

        A stack without planes is no TIFF: its file is removed. Planes still ahead of a missing one
        stay invisible.

        Parameters
        ----------
        total : int, optional
            Number of planes that the stack must have.

        Raises
        ------
        StorageError
            The disk does not take it (the planes are safe nevertheless), or, with the file
            finished as far as it goes, planes are missing.
        """
        if self._file.closed:
            return
        with self._storing():
            with self._file:
                try:
                    self._link()
                    if self.committed:
                        self._finish()
                finally:
                    # Refused where a program has mapped the file; zeros at the end do no harm.
                    with suppress(OSError):
                        self._file.truncate(self._end)
            if not self.committed:
                self.path.unlink()
        if total is not None and self.committed != total:
            raise StorageError(
                f"{self.path.name} has {self.committed} of {total} planes",
                f"plane {self.committed} was not written",
                "restore the raw stack again with `pssr-live restore`",
            )

    def _finish(self) -> None:
        xml = finished_xml(self._stack, self._planes.times_ns, self._planes.notes())
        at = self._end
        self._write(at, xml)
        self._end += len(xml)
        self._write(self._description_at, struct.pack("<QQ", len(xml), at))

    def _reach_ahead(self, plane_bytes: int) -> None:
        """Grow the file before planes need it.

        Readers note the file's size when they open it, and take a link beyond that for damage:
        planes that come while somebody is opening the file must lie within its size.
        """
        if self._size < self._end + AHEAD * (plane_bytes + 2 * BLOCK):
            self._size = self._end + 2 * AHEAD * (plane_bytes + 2 * BLOCK)
            # A full disk will refuse the planes themselves.
            with suppress(OSError):
                self._file.truncate(self._size)

    def _link(self) -> None:
        linked = False
        while (found := self._unlinked.get(self.committed)) is not None:
            directory, info = found
            self._write(self._link_at, struct.pack("<Q", directory.at))
            self._link_at = directory.next_at
            if directory.description_at is not None:
                self._description_at = directory.description_at
            del self._unlinked[self.committed]
            self._planes.add(info)
            linked = True
        if linked:
            self._write(self._size_t_at, b"%0*d" % (SIZE_T_DIGITS, self.committed))

    def _directory(self, first: bool, at: int, info: PlaneInfo) -> tuple[_Directory, bytes]:
        stack = self._stack
        tags = {
            256: _number(LONG, stack.width),
            257: _number(LONG, stack.height),
            258: _number(SHORT, stack.dtype.itemsize * 8),
            259: _number(SHORT, 1),  # not compressed
            262: _number(SHORT, 1),  # black is zero
            273: _number(LONG8, self._end),
            277: _number(SHORT, 1),
            278: _number(LONG, stack.height),  # one strip
            279: _number(LONG8, stack.height * stack.width * stack.dtype.itemsize),
            285: (ASCII, msgspec.json.encode(info) + b"\0"),
            339: _number(SHORT, 3 if np.issubdtype(stack.dtype, np.floating) else 1),
        }
        if stack.pixel_size_um is not None and stack.pixel_size_um > SMALLEST_UM:
            per_cm = Fraction(1e4 / stack.pixel_size_um).limit_denominator(1000)
            ratio = struct.pack("<II", per_cm.numerator, per_cm.denominator)
            tags |= {282: (RATIONAL, ratio), 283: (RATIONAL, ratio), 296: _number(SHORT, 3)}
        if first:
            tags[305] = (ASCII, SOFTWARE)
            tags[270] = (ASCII, b"")  # points to the OME-XML, which is elsewhere
        return self._pack_directory(at, tags)

    def _pack_directory(
        self, at: int, tags: Mapping[int, tuple[int, bytes]]
    ) -> tuple[_Directory, bytes]:
        values_at = at + 8 + 20 * len(tags) + 8
        entries, values = bytearray(), bytearray()
        description_at = None
        for tag, (kind, value) in sorted(tags.items()):
            count = len(value) if kind == ASCII else 1
            if tag == 270:
                description_at = at + 8 + len(entries) + 4
                count, value = len(self._xml), struct.pack("<Q", self._xml_at)
            elif len(value) > 8:
                offset = values_at + len(values)
                values += value + b"\0" * (len(value) % 2)
                value = struct.pack("<Q", offset)
            entries += struct.pack("<HHQ8s", tag, kind, count, value)
        content = struct.pack("<Q", len(tags)) + entries + bytes(8) + values
        return _Directory(at, values_at - 8, description_at), content

    def _write(self, at: int, data: bytes | memoryview) -> None:
        self._file.seek(at)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written",
                f"{error.strerror or error} ({self.committed} planes are safe in it)",
                "make room on the disk or choose another folder with --out",
            ) from error


def create_file(path: Path) -> FileIO:
    """Make a file that does not exist yet, for writing without a buffer."""
    return path.open("xb", buffering=0)


@dataclass(frozen=True, slots=True)
class _Directory:
    """Where a TIFF directory (IFD) is, and what is written in it later."""

    at: int
    next_at: int
    description_at: int | None


class _PlaneTable:
    """What the OME-XML says at the end about the committed planes; a few bytes a plane."""

    def __init__(self) -> None:
        self.times_ns = array("q")
        self._last_index: int | None = None
        self._edge = _Ranges()
        self._incomplete = _Ranges()
        self._afterwards = _Ranges()
        self._lost = _Ranges()

    def add(self, info: PlaneInfo) -> None:
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


def _number(kind: int, value: int) -> tuple[int, bytes]:
    return kind, struct.pack({SHORT: "<H", LONG: "<I", LONG8: "<Q"}[kind], value)


def _round_up(offset: int) -> int:
    return -(-offset // BLOCK) * BLOCK
