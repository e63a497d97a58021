"""A recorded movie in a TIFF file, read plane by plane."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import tifffile

from pssr_live.errors import SourceError
from pssr_live.frames import Pixels
from pssr_live_drivers.movie_axes import find_time_axis
from pssr_live_drivers.movie_metadata import (
    MovieMetadata,
    imagej_metadata,
    ome_metadata,
    plain_metadata,
)

__all__ = ["Movie", "PlaneStamp"]

log = logging.getLogger(__name__)

PAGE_NAME = 285
RESOLUTION_UNIT = 296
X_RESOLUTION, Y_RESOLUTION = 282, 283

KINDS = {"ome": "OME-TIFF", "imagej": "ImageJ TIFF"}


class PlaneStamp(msgspec.Struct, frozen=True):
    """What pssr-live's own stacks say about each plane, in the tag PageName.

    Attributes
    ----------
    index : int
        The source's frame number when the movie was recorded.
    t_source_ns : int
        The source's time, ns.
    """

    index: int
    t_source_ns: int


class Movie:
    """The planes of one movie, read one at a time; used by one thread at a time.

    Parameters
    ----------
    path : Path
        OME-TIFF, ImageJ TIFF or plain TIFF.

    Attributes
    ----------
    kind : str
        Kind of the file, for people.
    height, width : int
        Size of a plane, pixels.
    dtype : numpy.dtype
        Of the pixels as stored, in this computer's byte order.
    metadata : MovieMetadata
        What the file says.
    stamped : bool
        The planes carry their frame numbers and times: a stack of pssr-live.
    planes : list of int
        Numbers, from 0, of the time points that the file really holds.

    Raises
    ------
    SourceError
        There is no such file, it is no TIFF, it is cut off, or it is no movie.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = tifffile.TiffFile(path)
        except OSError as error:
            raise SourceError(
                f"{path} cannot be opened", error.strerror or str(error), "give a TIFF file"
            ) from error
        except Exception as error:  # tifffile raises whatever a damaged header leads it to
            raise SourceError(
                f"{path} cannot be opened", f"it is no TIFF file ({error})", "give a TIFF file"
            ) from error
        try:
            with self._reading("is damaged or cut off"):
                self._find_planes()
                self._check_whole()
                self.metadata = self._read_metadata()
                self.stamped = self._stamp(0) is not None
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self.planes)

    def read(self, position: int) -> Pixels:
        """Read one plane.

        Parameters
        ----------
        position : int
            Its place in `planes`.

        Returns
        -------
        ndarray, shape (height, width)
            Memory of its own, in this computer's byte order.

        Raises
        ------
        SourceError
            The plane cannot be read.
        """
        number = int(self._time.planes[self.planes[position]])
        with self._reading(f"cannot be read at frame {self.planes[position]}"):
            if self._contiguous_at is not None:
                return self._read_at(self._contiguous_at + number * self._plane_bytes)
            page, part = divmod(number, self._planes_per_page)
            found = self._pages[page]
            assert found is not None
            planes: Pixels = found.asarray().reshape(-1, self.height, self.width)
            plane: Pixels = planes[part].astype(self.dtype, copy=False)
        return plane

    def stamp(self, position: int) -> PlaneStamp:
        """Read the frame number and time that a plane of a stamped movie carries.

        Raises
        ------
        SourceError
            It has none.
        """
        with self._reading(f"cannot be read at frame {self.planes[position]}"):
            stamp = self._stamp(position)
            if stamp is None:
                raise ValueError("the plane has lost its frame number (tag PageName)")
        return stamp

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _find_planes(self) -> None:
        if not len(self._file.pages):
            raise ValueError("it has no complete page")
        series = self._file.series
        first = series[0]
        alike = {(one.axes, one.shape, one.dtype) for one in series}
        if len(series) > 1 and len(alike) == 1 and first.axes == "YX":
            log.warning("%s holds %d single images; taken as time points", self.name, len(series))
            self._pages: Sequence[tifffile.TiffPage | tifffile.TiffFrame | None] = [
                one.pages[0] for one in series
            ]
            axes, shape = "TYX", (len(series), *first.shape)
            self._contiguous_at = None
        else:
            if len(series) > 1:
                log.warning(
                    "%s holds %d images; only the first is replayed", self.name, len(series)
                )
            self._pages = first.pages
            axes, shape = first.axes, first.shape
            # One directory for many planes: how ImageJ writes movies of more than 4 GB.
            single = len(first.pages) == 1 and not first.is_multifile
            self._contiguous_at = first.dataoffset if single else None
        self._time = find_time_axis(self.name, axes, shape)
        for note in self._time.notes:
            log.warning("%s", note)
        self.kind = KINDS.get(first.kind, "TIFF")
        self.height, self.width = shape[axes.index("Y")], shape[axes.index("X")]
        if first.dtype is None:
            raise ValueError("its pixel type is unknown")
        self.dtype = np.dtype(first.dtype).newbyteorder("=")
        self._stored_planes = math.prod(shape) // (self.height * self.width)
        self._plane_bytes = self.height * self.width * self.dtype.itemsize
        self._planes_per_page = math.prod(first.keyframe.shape) // (self.height * self.width)
        self.planes = self._planes_there()

    def _planes_there(self) -> list[int]:
        count = len(self._time.planes)
        if self._contiguous_at is not None:
            return list(range(count))
        there = [
            time
            for time, number in enumerate(self._time.planes)
            if self._pages[int(number) // self._planes_per_page] is not None
        ]
        if len(there) < count:
            log.warning(
                "%s lacks %d of its %d time points; they are gaps",
                self.name,
                count - len(there),
                count,
            )
        return there

    def _check_whole(self) -> None:
        """Refuse a file whose chain of directories, or whose block of planes, is cut off."""
        handle, tiff, pages = self._file.filehandle, self._file.tiff, self._file.pages
        last = pages[len(pages) - 1]
        handle.seek(last.offset)
        (entries,) = np.frombuffer(
            handle.read(tiff.tagnosize), f"{tiff.byteorder}u{tiff.tagnosize}"
        )
        handle.seek(last.offset + tiff.tagnosize + int(entries) * tiff.tagsize)
        link = handle.read(tiff.offsetsize)
        if len(link) < tiff.offsetsize or any(link):
            raise ValueError(f"only {len(pages)} of its pages are there")
        described = int((self._file.imagej_metadata or {}).get("images", 1))
        ends = (self._contiguous_at or 0) + self._stored_planes * self._plane_bytes
        if described > self._stored_planes or (self._contiguous_at and ends > handle.size):
            raise ValueError("it is shorter than the movie it describes")

    def _read_metadata(self) -> MovieMetadata:
        page = self._file.pages.first
        x_per_unit, y_per_unit = (
            _ratio(page.tags.valueof(code)) for code in (X_RESOLUTION, Y_RESOLUTION)
        )
        plain = plain_metadata(x_per_unit, y_per_unit, page.tags.valueof(RESOLUTION_UNIT))
        if (xml := self._file.ome_metadata) is not None:
            return ome_metadata(xml, self._time.axis, len(self._time.planes))
        if (entries := self._file.imagej_metadata) is not None:
            found = imagej_metadata(entries, x_per_unit, y_per_unit)
            return found if "unit" in entries else replace(plain, interval_ms=found.interval_ms)
        return plain

    def _stamp(self, position: int) -> PlaneStamp | None:
        number = int(self._time.planes[self.planes[position]])
        page = self._pages[number // self._planes_per_page]
        assert page is not None
        if not isinstance(page, tifffile.TiffPage):
            # tifffile keeps pages like the first one without their tags.
            page.parent.filehandle.seek(page.offset)
            page = tifffile.TiffPage(page.parent, index=page.index)
        try:
            return msgspec.json.decode(page.tags.valueof(PAGE_NAME, ""), type=PlaneStamp)
        except (msgspec.DecodeError, TypeError):
            return None

    def _read_at(self, offset: int) -> Pixels:
        self._file.filehandle.seek(offset)
        stored = self._file.filehandle.read(self._plane_bytes)
        if len(stored) < self._plane_bytes:
            raise ValueError("the file ends inside it")
        pixels = np.frombuffer(stored, self.dtype.newbyteorder(self._file.byteorder))
        return pixels.reshape(self.height, self.width).astype(self.dtype, copy=False)

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self._path.name

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except SourceError:
            raise
        except Exception as error:  # tifffile raises whatever damaged bytes lead it to
            raise SourceError(
                f"{self.name} {what}",
                str(error) or type(error).__name__,
                "copy the file again, or save it uncompressed from Fiji",
            ) from error


def _ratio(value: object) -> float | None:
    """Value of a TIFF rational; None if there is none."""
    if not isinstance(value, tuple) or len(value) < 2 or not value[1]:
        return None
    return float(value[0] / value[1])
