"""Movies as files: found, read once into arrays on disk, and then opened without being read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from xml.sax.saxutils import unescape

import numpy as np
import tifffile
from numpy.typing import NDArray

from pssr_live.errors import SourceError, StorageError, UsageError
from pssr_live.frames import Pixels
from pssr_live.record.ome_xml import PREDICTION
from pssr_live.settings import ReplaySettings, RunSettings
from pssr_live.source import make_source
from pssr_live_models.training.czi import opened_czi

__all__ = ["Planes", "Recording", "find_files", "open_recording", "refuse_predictions"]

Image: TypeAlias = NDArray[Any]

SUFFIXES = (".tif", ".tiff", ".czi")
_LOOKED_AT = 1 << 22
"""Pixels that percentiles are taken from: 32 MB."""


@dataclass(frozen=True, slots=True)
class Planes:
    """A movie that is being read.

    Attributes
    ----------
    count, height, width : int
        Its planes, and their size in pixels.
    dtype : numpy.dtype
        uint8, uint16 or float32.
    pixel_size_um : float or None
        Edge of a pixel, µm; None if the file does not say.
    planes : iterator of ndarray, shape (height, width)
        In order of time.
    """

    count: int
    height: int
    width: int
    dtype: np.dtype[np.generic]
    pixel_size_um: float | None
    planes: Iterator[Pixels]


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A movie on disk.

    Attributes
    ----------
    name : str
        The file's name.
    planes : ndarray, shape (T, H, W)
        Read-only, not in memory.
    pixel_size_um : float or None
        Edge of a pixel, µm.
    sha256 : str
        Hash of the file's path, size and time: another recording has another one.
    """

    name: str
    planes: Image
    pixel_size_um: float | None
    sha256: str

    def unit(self, low: float | None, high: float) -> tuple[float, float]:
        """Find the scale on which the movie's brightest structures are at 1.

        Parameters
        ----------
        low : float or None
            Percentile that becomes 0; None keeps 0 at 0.
        high : float
            Percentile that becomes 1.

        Returns
        -------
        offset, span : float
            To subtract, and then to divide by; the span is at least a billionth.
        """
        step = max(1, round((self.planes.size / _LOOKED_AT) ** (1 / 2)))
        pixels = np.asarray(self.planes[:, ::step, ::step])
        if high == 100:  # one bright pixel counts
            top = max(float(plane.max()) for plane in self.planes)
        else:
            top = float(np.percentile(pixels, high))
        offset = 0.0 if low is None else float(np.percentile(pixels, low))
        return offset, max(top - offset, 1e-9)

    def is_flat(self) -> bool:
        """Say whether no plane shows anything: all its pixels are equal."""
        return all(plane.min() == plane.max() for plane in self.planes)

    def rows(self, rows: slice) -> Recording:
        """Take a part of the field."""
        return Recording(self.name, self.planes[:, rows], self.pixel_size_um, self.sha256)


def find_files(given: Sequence[Path]) -> list[Path]:
    """List the movies among files and folders.

    Parameters
    ----------
    given : sequence of Path
        Files, and folders whose movies are taken (not those of folders inside).

    Returns
    -------
    list of Path
        In the order given, folders by name; none twice.

    Raises
    ------
    UsageError
        There is no such file, or a folder holds no movie.
    """
    found: dict[Path, Path] = {}
    for path in given:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.iterdir()
                if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
            )
            if not inside:
                raise UsageError(
                    f"folder {path}",
                    f"it holds no movie ({', '.join(SUFFIXES)})",
                    "give movies, or the folder that they lie in",
                )
        elif path.is_file():
            inside = [path]
        else:
            raise _missing(path)
        found |= {file.resolve(): file for file in inside}
    return list(found.values())


def _missing(file: Path) -> UsageError:
    return UsageError(f"movie {file}", "there is no such file", "check the path")


def open_recording(file: Path, cache: Path, on_plane: Callable[[int, int], object]) -> Recording:
    """Open a movie; the first time, it is copied into an array on disk.

    Parameters
    ----------
    file : Path
        TIFF, OME-TIFF, or CZI with the extra ``czi``.
    cache : Path
        Folder for the arrays.
    on_plane : callable
        Called with (planes copied, planes) while copying.

    Returns
    -------
    Recording

    Raises
    ------
    UsageError
        There is no such file.
    SourceError
        It cannot be read.
    StorageError
        There is no room for it.
    """
    if not file.is_file():
        raise _missing(file)
    status = file.stat()
    identity = f"{file.resolve()} {status.st_size} {status.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()
    copied = cache / f"{file.name}.{digest[:12]}.npy"
    with _reader(file) as movie:
        if movie.count < 1:
            raise SourceError(f"{file.name} cannot be read", "it has no frames", "leave it out")
        if not copied.exists():
            _copy(movie, copied, on_plane)
        pixel_size_um = movie.pixel_size_um
    planes = np.load(copied, mmap_mode="r", allow_pickle=False)
    return Recording(file.name, planes, pixel_size_um, digest)


def _copy(movie: Planes, copied: Path, on_plane: Callable[[int, int], object]) -> None:
    fresh = copied.with_suffix(".new")
    shape = (movie.count, movie.height, movie.width)
    try:
        copied.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file,
                {
                    "descr": np.lib.format.dtype_to_descr(movie.dtype),
                    "fortran_order": False,
                    "shape": shape,
                },
            )
            count = 0
            for count, plane in enumerate(movie.planes, start=1):
                file.write(np.ascontiguousarray(plane, movie.dtype).data)
                on_plane(count, movie.count)
        if count != movie.count:
            raise SourceError(
                f"{copied.stem} cannot be read", "it ends early", "copy the file again"
            )
        fresh.replace(copied)
    except OSError as error:
        raise StorageError(
            f"array {copied}", error.strerror or str(error), "free space, or choose another --out"
        ) from error
    finally:
        with suppress(OSError):  # what went wrong before is what matters
            fresh.unlink(missing_ok=True)


@contextmanager
def _reader(file: Path) -> Iterator[Planes]:
    if file.suffix.lower() == ".czi":
        with opened_czi(file) as czi:
            yield Planes(
                len(czi.planes),
                *czi.shape,
                czi.dtype,
                czi.pixel_size_um,
                (czi.read(position) for position in range(len(czi.planes))),
            )
        return
    # Any interval will do: times are of no use here, so a file need not say them.
    replay = ReplaySettings(input=str(file), fast=True, interval_ms=1.0)
    with closing(make_source(RunSettings(scope="replay", replay=replay))) as source:
        info = source.open()
        refuse_predictions(file)
        pixels = (frame.pixels for frame in source.frames())
        yield Planes(
            info.frames or 0, info.height, info.width, info.dtype, info.pixel_size_um, pixels
        )


def refuse_predictions(file: Path) -> None:
    """Refuse a restored stack: a model that learns from predictions learns their mistakes.

    Parameters
    ----------
    file : Path
        TIFF.

    Raises
    ------
    SourceError
        A model made it.
    """
    with tifffile.TiffFile(file) as tiff:
        described = tiff.ome_metadata or ""
    if PREDICTION in unescape(described):
        raise SourceError(
            f"{file.name} cannot be learnt from",
            "a model restored it: its pixels are predictions",
            "give movies as the microscope recorded them",
        )
