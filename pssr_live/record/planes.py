"""Which planes the raw stack has so far, and reading them back while it is being written."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pssr_live.errors import StorageError
from pssr_live.frames import Pixels
from pssr_live.source import StreamInfo

__all__ = ["PlaneIndex", "RawPlane", "RawPlanes"]

RAW_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class RawPlane:
    """One committed plane of the raw stack.

    Attributes
    ----------
    index : int
        The source's number of its frame.
    t_source_ns : int
        The source's time of its frame, ns.
    pixels_at : int
        Where its pixels begin in the file, bytes.
    """

    index: int
    t_source_ns: int
    pixels_at: int


class PlaneIndex:
    """What became of each raw frame; the raw recorder fills it, everybody may read.

    Keeps 24 bytes a frame.
    """

    def __init__(self) -> None:
        self._indices = array("q")
        self._times_ns = array("q")
        self._pixels_at = array("q")
        self._ended = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        with self._changed:
            return len(self._indices)

    def __getitem__(self, position: int) -> RawPlane:
        with self._changed:
            return RawPlane(
                self._indices[position], self._times_ns[position], self._pixels_at[position]
            )

    def add(self, plane: RawPlane) -> None:
        """Say that a frame has been committed as the next plane."""
        with self._changed:
            self._indices.append(plane.index)
            self._times_ns.append(plane.t_source_ns)
            self._pixels_at.append(plane.pixels_at)
            self._changed.notify_all()

    def end(self) -> None:
        """Say that no more planes will come; nobody waits for them any longer."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def position(self, index: int) -> int:
        """Find the plane of a frame; waits while the raw recorder has not got there.

        Parameters
        ----------
        index : int
            The source's number of the frame.

        Raises
        ------
        StorageError
            That raw frame has not been recorded and will not be.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._reached(index), RAW_WAIT_S)
            position = bisect_left(self._indices, index)
            if position < len(self._indices) and self._indices[position] == index:
                return position
        raise StorageError(
            f"restored frame {index} cannot be recorded",
            "its raw frame is not in the raw stack",
            "see why raw frames were not recorded",
        )

    def _reached(self, index: int) -> bool:
        return bool(self._indices) and self._indices[-1] >= index


class RawPlanes:
    """Planes of the raw stack, read back from the file that is being written.

    Parameters
    ----------
    path : Path
        The raw stack.
    info : StreamInfo
        What its frames are.
    index : PlaneIndex
        Which planes there are.

    Attributes
    ----------
    index : PlaneIndex
        As given.
    """

    def __init__(self, path: Path, info: StreamInfo, index: PlaneIndex) -> None:
        self.index = index
        self._path = path
        self._info = info

    def read(self, position: int) -> Pixels:
        """Read one plane.

        Parameters
        ----------
        position : int
            Its number, from 0.

        Returns
        -------
        ndarray, shape (H, W)
            Memory of its own.

        Raises
        ------
        StorageError
            The plane cannot be read.
        """
        shape = (self._info.height, self._info.width)
        dtype = self._info.dtype.newbyteorder("<")
        try:
            with self._path.open("rb") as file:
                file.seek(self.index[position].pixels_at)
                stored = np.fromfile(file, dtype, shape[0] * shape[1])
            return stored.reshape(shape).astype(self._info.dtype, copy=False)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{self._path}, plane {position}", str(error), "check the disk"
            ) from error
