"""What the file of a stack holds, linked into it or not: for stacks whose process has died.

All planes of a stack are as large, and so are their directories, so that a plane is at one of
evenly spaced places, its directory behind its pixels. A plane whose link did not get into the
file, because one before it was missing or the power went, can be found there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec
from isal import isal_zlib

from pssr_live.errors import StorageError
from pssr_live.record.ome_xml import SIZE_T_DIGITS, described, size_t_digits
from pssr_live.record.plane_table import PlaneInfo
from pssr_live.record.stack import BLOCK, HEADER, round_up

__all__ = ["Slot", "StoredStack"]

LONGEST_XML = 1 << 20


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one plane.

    Attributes
    ----------
    pixels_at, directory_at : int
        Where they begin in the file, bytes.
    info : PlaneInfo or None
        What the file says about the plane; None if no whole directory is there.
    whole : bool
        The directory is whole.
    next_at, description_at : int
        Where a whole directory says what follows, and where the OME-XML is; 0 if it does not.
    """

    pixels_at: int
    directory_at: int
    info: PlaneInfo | None = None
    whole: bool = False
    next_at: int = 0
    description_at: int = 0


class StoredStack:
    """One stack's file, opened to look at; used by one thread at a time.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    path : Path
        The file.
    description : StackDescription
        What it says it is.
    xml : bytes
        The OME-XML that it began with.
    xml_at, size_t_at : int
        Where that is, and the digits of SizeT in it, bytes.
    size_t : int
        What those digits say: not more than the planes that readers see.
    size : int
        Of the file, bytes.
    stride : int
        From slot to slot, bytes.

    Raises
    ------
    StorageError
        It cannot be read.
    ValueError
        It does not begin as a stack of this program does: no plane can be in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            self.size = path.stat().st_size
            self._look_at(self._file.read(LONGEST_XML))
        except OSError as error:
            self._file.close()
            raise self._unreadable(error) from error
        except BaseException:
            self._file.close()
            raise

    def _look_at(self, head: bytes) -> None:
        self.xml_at = head.find(b"<?xml")
        ends = head.find(b"</OME>\0")
        if head[:8] != HEADER[:8] or self.xml_at not in (len(HEADER), 2 * len(HEADER)) or ends < 0:
            raise ValueError("its beginning is not that of a stack")
        self.xml = head[self.xml_at : ends + len(b"</OME>\0")]
        self.description = described(self.xml)
        digits_at = size_t_digits(self.xml)
        self.size_t_at = self.xml_at + digits_at
        self.size_t = int(self.xml[digits_at : digits_at + SIZE_T_DIGITS])
        stack = self.description
        self.plane_bytes = stack.height * stack.width * stack.dtype.itemsize
        self.stride = round_up(self.plane_bytes) + BLOCK
        self._first_at = round_up(self.xml_at + len(self.xml))

    def __len__(self) -> int:
        """Places whose pixels lie within the file, used or not."""
        return max(0, (self.size - self._first_at - self.plane_bytes) // self.stride + 1)

    def __enter__(self) -> StoredStack:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def slot(self, number: int) -> Slot:
        """Look at one place.

        Parameters
        ----------
        number : int
            Below the length.

        Returns
        -------
        Slot

        Raises
        ------
        StorageError
            The file cannot be read.
        """
        pixels_at = self._first_at + number * self.stride
        directory_at = pixels_at + self.stride - BLOCK
        empty = Slot(pixels_at, directory_at)
        try:
            return self._parsed(empty, self._read(directory_at, BLOCK)) or empty
        except (struct.error, msgspec.DecodeError):
            return empty

    def crc32(self, slot: Slot) -> int:
        """Compute the CRC-32 of the pixels there, as the log has it.

        Raises
        ------
        StorageError
            The file cannot be read.
        """
        return isal_zlib.crc32(self._read(slot.pixels_at, self.plane_bytes))

    def _parsed(self, slot: Slot, block: bytes) -> Slot | None:
        (count,) = struct.unpack_from("<Q", block)
        if count > BLOCK // 20:
            return None
        entries: dict[int, tuple[int, bytes, int]] = {}
        for number in range(count):
            tag, _kind, items, value = struct.unpack_from("<HHQ8s", block, 8 + 20 * number)
            entries[tag] = items, value, slot.directory_at + 8 + 20 * number + 4
        if not {273, 279, 285} <= entries.keys():
            return None
        (pixels_at,) = struct.unpack("<Q", entries[273][1])
        (plane_bytes,) = struct.unpack("<Q", entries[279][1])
        (text_at,) = struct.unpack("<Q", entries[285][1])
        start = text_at - slot.directory_at
        text = block[start : start + entries[285][0]] if 0 < start < BLOCK else b""
        if (pixels_at, plane_bytes) != (slot.pixels_at, self.plane_bytes) or text[-1:] != b"\0":
            return None
        return Slot(
            pixels_at,
            slot.directory_at,
            info=msgspec.json.decode(text[:-1], type=PlaneInfo),
            whole=True,
            next_at=slot.directory_at + 8 + 20 * count,
            description_at=entries[270][2] if 270 in entries else 0,
        )

    def _read(self, at: int, length: int) -> bytes:
        try:
            self._file.seek(at)
            return self._file.read(length)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self.path} cannot be read", error.strerror or str(error), "check the disk"
        )
