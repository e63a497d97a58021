"""Movies in Zeiss' CZI format, read plane by plane; needs the extra ``czi``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pssr_live.errors import SourceError, UsageError
from pssr_live.frames import DTYPES, Pixels

__all__ = ["CziMovie", "opened_czi"]

_METRES = re.compile(r'<Distance Id="X">\s*<Value>([0-9.eE+-]+)</Value>')
_EXPORT = "export one channel without tiles and z as OME-TIFF (ZEN: Image Export; or Fiji)"


class CziMovie:
    """The planes of one CZI file.

    Parameters
    ----------
    file : czifile.CziFile
        Opened.
    name : str
        For messages.

    Attributes
    ----------
    planes : list
        What is known of each time point.
    shape : tuple of int
        Height and width, pixels.
    dtype : numpy.dtype
        uint8, uint16 or float32.
    pixel_size_um : float or None
        Edge of a pixel, µm.

    Raises
    ------
    SourceError
        It holds anything but one movie of grey planes.
    """

    def __init__(self, file: Any, name: str) -> None:  # czifile has no types
        self._name = name
        sizes = {axis: size for axis, size in zip(file.axes, file.shape, strict=True) if size > 1}
        odd = {axis: size for axis, size in sizes.items() if axis not in "TYX"}
        if odd:
            has = ", ".join(f"{size} {axis}" for axis, size in odd.items())
            raise SourceError(f"{name} cannot be read", f"it is no plain movie ({has})", _EXPORT)
        time = file.axes.find("T")
        # Smaller copies for quick viewing lie beside the planes.
        whole = [e for e in file.filtered_subblock_directory if e.shape == e.stored_shape]
        self.planes = sorted(whole, key=lambda entry: entry.start[time] if time >= 0 else 0)
        edges = {(e.shape[e.axes.index("Y")], e.shape[e.axes.index("X")]) for e in self.planes}
        if len(edges) != 1 or len(self.planes) != sizes.get("T", 1):
            raise SourceError(f"{name} cannot be read", "its planes are in tiles", _EXPORT)
        (self.shape,) = edges
        self.dtype = np.dtype(file.dtype)
        if self.dtype not in DTYPES:
            raise SourceError(f"{name} cannot be read", f"its pixels are {self.dtype}", _EXPORT)
        metres = _METRES.search(file.metadata() or "")
        self.pixel_size_um = float(metres[1]) * 1e6 if metres else None

    def read(self, position: int) -> Pixels:
        """Read one plane, ``(height, width)``."""
        try:
            plane: Pixels = self.planes[position].data_segment().data()
        except Exception as error:  # czifile raises whatever damaged bytes lead it to
            raise SourceError(
                f"{self._name} cannot be read at frame {position}",
                f"{type(error).__name__}: {error}",
                _EXPORT,
            ) from error
        return plane.reshape(self.shape)


@contextmanager
def opened_czi(path: Path) -> Iterator[CziMovie]:
    """Open a CZI file for a while.

    Raises
    ------
    UsageError
        The reader is not installed.
    SourceError
        It is no CZI file, or no movie.
    """
    try:
        import czifile
    except ImportError as error:
        raise UsageError(
            f"movie {path}", "the reader for CZI is not installed", 'pip install "pssr-live[czi]"'
        ) from error
    try:
        opened = czifile.CziFile(path)
    except Exception as error:  # czifile raises whatever damaged bytes lead it to
        raise SourceError(
            f"{path} cannot be opened", f"it is no CZI file ({error})", "give CZI or TIFF files"
        ) from error
    with opened:
        yield CziMovie(opened, path.name)
