"""BigTIFF with a commit pointer: planes once acknowledged survive a crash, readable by anyone.

A file is, at every moment, a valid OME-TIFF of the planes committed so far. A plane's pixels and
its directory (IFD) go to the end of the file, where no reader looks yet; then the eight bytes that
link the directory into the chain make it part of the file; then the digits of SizeT in the OME-XML
follow. Readers accept a SizeT smaller than the number of directories, never a larger one, hence
the order. Nothing that a reader needs is ever only in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

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
from pssr_live.record.plane_table import PlaneInfo, PlaneTable, Waiting, WaitingPlanes

if TYPE_CHECKING:
    from pssr_live.record.stored import Slot, StoredStack

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
        xml, digits_at = reserved_xml(stack)
        xml_at = len(HEADER)
        # SIGKILL can cut a write at a boundary of memory pages; these digits must not be cut.
        if (xml_at + digits_at) % PAGE > PAGE - SIZE_T_DIGITS:
            xml_at += len(HEADER)
        self._begin(path, stack, xml, xml_at, xml_at + digits_at)
        with self._storing():
            self._file = create_file(path)
            try:
                self._write(0, HEADER)
                self._write(self._xml_at, self._xml)
            except OSError:
                self._file.close()
                raise

    def _begin(
        self, path: Path, stack: StackDescription, xml: bytes, xml_at: int, size_t_at: int
    ) -> None:
        self.path = path
        self._stack = stack
        self._dtype = stack.dtype.newbyteorder("<")
        self._waiting = WaitingPlanes()
        self._planes = PlaneTable()
        self._link_at = FIRST_LINK_AT
        self._description_at = 0
        self._xml = xml
        self._xml_at = xml_at
        self._size_t_at = size_t_at
        self._end = round_up(xml_at + len(xml))
        self._size = 0

    @classmethod
    def resume(cls, stored: StoredStack, planes: Mapping[int, Slot]) -> StackWriter:
        """Go on with a stack whose process has died.

        Parameters
        ----------
        stored : StoredStack
            What its file holds.
        planes : mapping of int to Slot
            Where the planes are that the stack keeps, by their number; no others are in it
            from now on. Their pixels are not touched. All slots have an ``info``.

        Returns
        -------
        StackWriter
            New planes go behind the last one that is kept.

        Raises
        ------
        StorageError
            The file cannot be changed. What was committed and is kept stays readable.
        """
        writer = cls.__new__(cls)
        writer._begin(stored.path, stored.description, stored.xml, stored.xml_at, stored.size_t_at)
        with writer._storing():
            writer._file = open_file(stored.path)
            try:
                writer._take_up(stored, planes)
            except BaseException:
                writer._file.close()
                raise
        return writer

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
        if position < self.committed or position in self._waiting:
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
            at = round_up(pixels_at + len(data))
            next_at, content = self._directory(position == 0, pixels_at, at, info)
            self._write(pixels_at, data)
            self._write(at, content)
            self._end = round_up(at + len(content))
            self._waiting.add(position, Waiting(at, next_at, info))
            self._reach_ahead(len(data))
            self._link()
        return pixels_at

    def missing(self, total: int) -> list[int]:
        """List the planes that a stack of ``total`` planes still lacks."""
        return [plane for plane in range(self.committed, total) if plane not in self._waiting]

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

    def _take_up(self, stored: StoredStack, planes: Mapping[int, Slot]) -> None:
        """Link the planes that are kept, in an order in which a reader never misses one."""
        self._size = stored.size
        kept = sorted(planes.items())
        prefix = sum(position == number for number, (position, _) in enumerate(kept))
        # SizeT must not be larger than the number of pages at any moment: it goes first.
        self._write(self._size_t_at, b"%0*d" % (SIZE_T_DIGITS, max(1, min(stored.size_t, prefix))))
        for position, slot in kept:
            assert slot.info is not None
            next_at, description_at = slot.next_at, slot.description_at
            if not slot.whole or (position == 0 and not description_at):
                next_at, content = self._directory(
                    position == 0, slot.pixels_at, slot.directory_at, slot.info
                )
                self._write(slot.directory_at, content)
            elif position == 0:
                self._description_at = description_at
                pointer = struct.pack("<QQ", len(self._xml), self._xml_at)
                self._write(description_at, pointer)
            self._waiting.add(position, Waiting(slot.directory_at, next_at, slot.info))
            self._end = max(self._end, slot.directory_at + BLOCK)
        self._link()
        self._write(self._link_at, struct.pack("<Q", 0))

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
        while (plane := self._waiting.first()) is not None:
            self._write(self._link_at, struct.pack("<Q", plane.directory_at))
            self._link_at = plane.next_at
            self._waiting.drop_first()
            self._planes.add(plane.info)
            linked = True
        if linked:
            self._write(self._size_t_at, b"%0*d" % (SIZE_T_DIGITS, self.committed))

    def _directory(
        self, first: bool, pixels_at: int, at: int, info: PlaneInfo
    ) -> tuple[int, bytes]:
        """Make a plane's directory; also return where the link to the next one goes."""
        stack = self._stack
        tags = {
            256: _number(LONG, stack.width),
            257: _number(LONG, stack.height),
            258: _number(SHORT, stack.dtype.itemsize * 8),
            259: _number(SHORT, 1),  # not compressed
            262: _number(SHORT, 1),  # black is zero
            273: _number(LONG8, pixels_at),
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

    def _pack_directory(self, at: int, tags: Mapping[int, tuple[int, bytes]]) -> tuple[int, bytes]:
        values_at = at + 8 + 20 * len(tags) + 8
        entries, values = bytearray(), bytearray()
        for tag, (kind, value) in sorted(tags.items()):
            count = len(value) if kind == ASCII else 1
            if tag == 270:
                self._description_at = at + 8 + len(entries) + 4
                count, value = len(self._xml), struct.pack("<Q", self._xml_at)
            elif len(value) > 8:
                offset = values_at + len(values)
                values += value + b"\0" * (len(value) % 2)
                value = struct.pack("<Q", offset)
            entries += struct.pack("<HHQ8s", tag, kind, count, value)
        content = struct.pack("<Q", len(tags)) + entries + bytes(8) + values
        return values_at - 8, content

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


def open_file(path: Path) -> FileIO:
    """Open a file that exists for changes in place, without a buffer."""
    return path.open("r+b", buffering=0)


def _number(kind: int, value: int) -> tuple[int, bytes]:
    return kind, struct.pack({SHORT: "<H", LONG: "<I", LONG8: "<Q"}[kind], value)


def round_up(offset: int) -> int:
    """Go on to where a plane or a directory may begin."""
    return -(-offset // BLOCK) * BLOCK
