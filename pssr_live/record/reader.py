"""Reads a stack plane by plane, finished or still being written."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TypeVar, overload

import msgspec
import numpy as np
import tifffile

from pssr_live.errors import StorageError
from pssr_live.frames import Pixels
from pssr_live.record.plane_table import PlaneInfo
from pssr_live.record.stack import HEADER

__all__ = ["StackReader"]

UNREADABLE = (OSError, ValueError, struct.error)
"""What tifffile raises for files that are cut or no TIFF."""

T = TypeVar("T")


class StackReader:
    """Planes of one stack, read one at a time; used by one thread at a time.

    Parameters
    ----------
    path : Path
        A stack of this program, or any TIFF file with one grey plane per page.

    Attributes
    ----------
    path : Path
        The file.
    shape : tuple of int
        Planes, height, width. As of opening or the last `refresh`.
    dtype : numpy.dtype
        Of the pixels.

    Raises
    ------
    StorageError
        The file cannot be read, has no plane yet, or is no stack of grey planes.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        try:
            with self.path.open("rb") as file:
                no_plane = file.read(len(HEADER)) == HEADER
            if no_plane:
                raise self._unreadable("it has no plane yet")
            self._file = tifffile.TiffFile(self.path)
        except UNREADABLE as error:
            raise self._unreadable(str(error)) from error
        try:
            if not len(self._file.pages):
                raise self._unreadable("it is cut before its first page")
            first = self._page(0)
            if len(first.shape) != 2 or first.dtype is None:
                raise self._unreadable(f"its pages have shape {first.shape}")
            images = (self._file.imagej_metadata or {}).get("images", 1)
            if images > len(self._file.pages):
                raise self._unreadable("ImageJ wrote it without one page per plane")
            self.shape = (len(self._file.pages), *first.shape)
            self.dtype = np.dtype(first.dtype)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return self.shape[0]

    def __enter__(self) -> StackReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def read(self, position: int) -> Pixels:
        """Read one plane.

        Parameters
        ----------
        position : int
            Its number, from 0.

        Returns
        -------
        ndarray, shape (height, width)
            Memory of its own.

        Raises
        ------
        StorageError
            The plane cannot be read.
        """
        try:
            pixels: Pixels = self._page(position).asarray()
        except UNREADABLE as error:
            raise self._unreadable(f"plane {position}: {error}") from error
        if pixels.shape != self.shape[1:]:
            raise self._unreadable(f"plane {position} has another shape, {pixels.shape}")
        return pixels

    @property
    def infos(self) -> Sequence[PlaneInfo | None]:
        """What the file says about each plane; None where another program wrote it."""
        return _PerPlane(len(self), lambda position: _plane_info(self._page(position)))

    @property
    def indices(self) -> Sequence[int]:
        """The source's index of each plane; its number where the file does not say."""
        infos = self.infos

        def index(position: int) -> int:
            info = infos[position]
            return position if info is None else info.index

        return _PerPlane(len(self), index)

    @property
    def times_ns(self) -> Sequence[int]:
        """The source's time of each plane, ns; from the interval where the file does not say."""
        infos = self.infos
        step_ns = round((self.interval_ms or 0) * 1e6)

        def time_ns(position: int) -> int:
            info = infos[position]
            return position * step_ns if info is None else info.t_source_ns

        return _PerPlane(len(self), time_ns)

    @cached_property
    def pixel_size_um(self) -> float | None:
        """Edge of a pixel, µm, from the OME-XML; None if it does not say."""
        return self._pixels_attribute("PhysicalSizeX", unit="µm")

    @cached_property
    def interval_ms(self) -> float | None:
        """Time from plane to plane, ms, as announced before the run; None if it does not say."""
        seconds = self._pixels_attribute("TimeIncrement", unit="s")
        return None if seconds is None else seconds * 1e3

    @cached_property
    def name(self) -> str:
        """What the stack says it is; empty for other programs' files."""
        found = re.search(r'<Image [^>]*?\bName="([^"]*)"', self._description)
        return found[1] if found else ""

    def refresh(self) -> int:
        """Look again at a file that is being written.

        Returns
        -------
        int
            Planes there are now.
        """
        self._file.close()
        self._open()
        return len(self)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    @cached_property
    def _description(self) -> str:
        return self._page(0).description if self._file.is_ome else ""

    def _pixels_attribute(self, name: str, *, unit: str) -> float | None:
        found = re.search(r"<Pixels [^>]*>", self._description)
        attributes = dict(re.findall(r'(\w+)="([^"]*)"', found[0])) if found else {}
        if name not in attributes or attributes.get(f"{name}Unit", unit) != unit:
            return None
        return float(attributes[name])

    def _page(self, position: int) -> tifffile.TiffPage:
        page = self._file.pages[position]
        assert isinstance(page, tifffile.TiffPage)
        return page

    def _unreadable(self, why: str) -> StorageError:
        return StorageError(
            f"{self.path} cannot be read as a stack",
            why,
            "give a TIFF file with one grey plane per page",
        )


class _PerPlane(Sequence[T]):
    """A value for each plane, read when asked for: a long stack has very many."""

    def __init__(self, planes: int, read: Callable[[int], T]) -> None:
        self._positions = range(planes)
        self._read = read

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, at: int) -> T: ...

    @overload
    def __getitem__(self, at: slice) -> list[T]: ...

    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            return [self._read(position) for position in self._positions[at]]
        return self._read(self._positions[at])


def _plane_info(page: tifffile.TiffPage) -> PlaneInfo | None:
    tag = page.tags.get("PageName")
    try:
        return None if tag is None else msgspec.json.decode(tag.value, type=PlaneInfo)
    except (msgspec.DecodeError, TypeError):
        return None
