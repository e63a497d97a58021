"""The source ``replay``: a recorded movie, delivered at its own pace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from pssr_live.errors import SourceError, UsageError
from pssr_live.frames import DTYPES, Frame, Pixels, read_only
from pssr_live.settings import ReplaySettings, RunSettings
from pssr_live.source import FrameSource, StreamInfo
from pssr_live_drivers.movie import Movie

__all__ = ["Clock", "MonotonicClock", "RecordedMovie", "frame_dtype", "recorded_movie", "to_frame"]

log = logging.getLogger(__name__)

ASSUMED_INTERVAL_MS = 270.49
"""Pace of a movie that does not say its own: the paper's interval for neurons."""

LONGEST_WAIT_S = 60.0


class Clock(Protocol):
    """What paces a replay; a test's own clock needs no waiting."""

    def now_ns(self) -> int:
        """Tell the time, ns, never running backwards."""

    def wait_until(self, deadline_ns: int, stopping: threading.Event) -> None:
        """Return at the deadline, or as soon as ``stopping`` is set."""


class MonotonicClock:
    """The computer's monotonic clock."""

    def now_ns(self) -> int:
        """Tell the time, ns."""
        return time.monotonic_ns()

    def wait_until(self, deadline_ns: int, stopping: threading.Event) -> None:
        """Return at the deadline, or as soon as ``stopping`` is set."""
        while (left_ns := deadline_ns - self.now_ns()) > 0:
            if stopping.wait(min(left_ns / 1e9, LONGEST_WAIT_S)):
                return


def recorded_movie(settings: RunSettings) -> FrameSource:
    """Make the source that replays a TIFF file.

    Parameters
    ----------
    settings : RunSettings
        ``settings.replay`` names the file.

    Returns
    -------
    FrameSource

    Raises
    ------
    UsageError
        No file is named.
    """
    if settings.replay.input is None:
        raise UsageError("--scope replay", "no movie is named", "give a TIFF file with --input")
    return RecordedMovie(settings.replay)


class RecordedMovie:
    """A recorded movie as a source; see `pssr_live.source.FrameSource`.

    Frames are numbered as in the file, from 0; missing planes of an OME-TIFF are gaps. The raw
    stacks of this program carry their frame numbers and times, so their gaps are gaps again.

    The pace is that of the times in the file, or of its interval. Where it says neither, frames
    come every 270.49 ms and a warning says so; ``interval_ms`` overrules the file.

    Parameters
    ----------
    settings : ReplaySettings
        The file and its pace; ``settings.input`` is not None.
    clock : Clock, optional
        What paces the frames.
    """

    def __init__(self, settings: ReplaySettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock: Clock = MonotonicClock() if clock is None else clock
        self._stopping = threading.Event()
        self._movie: Movie | None = None
        self._step_ns = 0

    def open(self) -> StreamInfo:
        """Open the file and read what it says.

        Raises
        ------
        SourceError
            It cannot be replayed.
        """
        assert self._settings.input is not None
        movie = self._movie = Movie(Path(self._settings.input))
        says = movie.metadata
        dtype = frame_dtype(movie.name, movie.dtype)
        to_frame(movie.read(0), dtype, f"{movie.name}, first frame")
        if movie.dtype.kind == "f" and movie.dtype.itemsize > dtype.itemsize:
            log.warning("%s has %s pixels; they are rounded to %s", movie.name, movie.dtype, dtype)
        interval_ms = self._settings.interval_ms or says.interval_ms
        if interval_ms is None and not movie.stamped and len(movie) > 1:
            log.warning(
                "%s does not say its frame interval; its times are counted at %g ms "
                "(--interval-ms sets it)",
                movie.name,
                ASSUMED_INTERVAL_MS,
            )
        self._step_ns = round((interval_ms or ASSUMED_INTERVAL_MS) * 1e6)
        widest = dtype.itemsize * 8
        return StreamInfo(
            source=f"{movie.kind} {movie.name}",
            height=movie.height,
            width=movie.width,
            dtype=dtype,
            bits=says.bits if says.bits is not None and 0 < says.bits <= widest else widest,
            pixel_size_um=says.pixel_size_um,
            interval_ms=interval_ms,
            channel=says.channel,
            frames=len(movie),
            metadata={
                "input": str(Path(self._settings.input).absolute()),
                "stored_dtype": movie.dtype.name,
                "fast": self._settings.fast,
            },
        )

    def frames(self) -> Iterator[Frame]:
        """Deliver the planes in order.

        Raises
        ------
        SourceError
            A plane cannot be read, or has values that no frame can hold.
        """
        movie = self._movie
        assert movie is not None, "frames() before open()"
        dtype = frame_dtype(movie.name, movie.dtype)
        start_ns, first_ns = self._clock.now_ns(), None
        last_index = -1
        for position, number in enumerate(movie.planes):
            if self._stopping.is_set():
                return
            index, t_source_ns = self._place(movie, position)
            if index <= last_index:
                raise SourceError(
                    f"{movie.name}, plane {number}",
                    f"its frame number {index} follows {last_index}",
                    "give a stack whose frame numbers rise",
                )
            last_index = index
            pixels = to_frame(movie.read(position), dtype, f"{movie.name}, frame {index}")
            if not self._settings.fast:
                first_ns = t_source_ns if first_ns is None else first_ns
                self._clock.wait_until(start_ns + t_source_ns - first_ns, self._stopping)
                if self._stopping.is_set():
                    return
            yield Frame(
                pixels=read_only(pixels),
                index=index,
                t_source_ns=t_source_ns,
                t_host_ns=self._clock.now_ns(),
                pixel_size_um=movie.metadata.pixel_size_um,
                channel=movie.metadata.channel,
                tags={"plane": number},
            )

    def stop(self) -> None:
        """Make `frames` end; a wait for the next frame ends at once."""
        self._stopping.set()

    def close(self) -> None:
        """Let go of the file."""
        if self._movie is not None:
            self._movie.close()

    def _place(self, movie: Movie, position: int) -> tuple[int, int]:
        """Frame number and time (ns) of a plane."""
        number = movie.planes[position]
        index, t_source_ns = number, None
        if movie.stamped:
            stamp = movie.stamp(position)
            index, t_source_ns = stamp.index, stamp.t_source_ns
        if self._settings.interval_ms is not None:
            return index, index * self._step_ns
        if t_source_ns is None:
            t_source_ns = movie.metadata.times_ns.get(number)
        return index, index * self._step_ns if t_source_ns is None else t_source_ns


def frame_dtype(name: str, stored: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """Choose the dtype of the frames of a movie.

    Parameters
    ----------
    name : str
        The movie's name, for messages.
    stored : numpy.dtype
        Of the pixels in the file.

    Returns
    -------
    numpy.dtype
        The stored one if frames can have it; uint8 or uint16 for other integers, float32 for other
        floating-point numbers.

    Raises
    ------
    SourceError
        No frame can hold such pixels.
    """
    if stored in DTYPES:
        return stored
    if stored.kind in "iu":
        return np.dtype(np.uint8 if stored.itemsize == 1 else np.uint16)
    if stored.kind == "f":
        return np.dtype(np.float32)
    raise SourceError(
        f"{name} cannot be replayed",
        f"its pixels are {stored}",
        "save it with 8-bit, 16-bit or 32-bit float pixels (Fiji: Image > Type)",
    )


def to_frame(pixels: Pixels, dtype: np.dtype[np.generic], what: str) -> Pixels:
    """Turn stored pixels into a frame's.

    Parameters
    ----------
    pixels : ndarray, shape (H, W)
        As stored.
    dtype : numpy.dtype
        As `frame_dtype` chose. Integers keep their values; float64 is rounded to float32.
    what : str
        What is converted, for messages.

    Returns
    -------
    ndarray, shape (H, W)

    Raises
    ------
    SourceError
        Values are not finite, or an integer does not fit.
    """
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            converted = pixels.astype(dtype, copy=False)
        if not np.isfinite(converted).all():
            raise SourceError(
                what,
                f"it has values that are infinite, not a number or too large for {dtype}",
                "replace them in the movie (Fiji: Process > Math > NaN Background)",
            )
        return converted
    if pixels.dtype != dtype:
        low, high = int(pixels.min()), int(pixels.max())
        if low < 0 or high >= 1 << 8 * dtype.itemsize:
            raise SourceError(
                what,
                f"its values ({low} to {high}) do not fit {dtype} without loss",
                "save the movie as unsigned 16-bit or as 32-bit float (Fiji: Image > Type)",
            )
    return pixels.astype(dtype, copy=False)
