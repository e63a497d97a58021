"""The windows that a network is trained and judged on: as the daemon makes them.

Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pssr_live_models.movies import Movie

__all__ = ["Batch", "Mixture", "MovieSamples", "drawn_batches", "normalise", "window_frames"]

Image: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Training samples.

    Attributes
    ----------
    windows : ndarray, shape (N, window_length, H, W), float32
        z-scores.
    truths : ndarray, shape (N, 1, 4H, 4W), float32
        On the same scale.
    weights : ndarray, shape (N,), float32
        What turns a squared error of z-scores into a share of the variance of the true frame, so
        that dim and bright movies count alike; at most 10.
    """

    windows: NDArray[np.float32]
    truths: NDArray[np.float32]
    weights: NDArray[np.float32]


def drawn_batches(
    draw: Callable[[np.random.Generator], Batch], seed: int, size: int, first: int
) -> Iterator[Batch]:
    """Put single random samples together, endlessly.

    Parameters
    ----------
    draw : callable
        Draws one sample: a batch of one.
    seed : int
        Same seed, same batches.
    size : int
        Samples per batch.
    first : int
        Number of the first batch.

    Yields
    ------
    Batch
    """
    for number in count(first):
        rng = np.random.default_rng((seed, number))
        drawn = [draw(rng) for _ in range(size)]
        yield Batch(
            np.concatenate([one.windows for one in drawn]),
            np.concatenate([one.truths for one in drawn]),
            np.concatenate([one.weights for one in drawn]),
        )


def window_frames(
    index: int, available: Sequence[int], *, length: int = 5, centre: int = 2
) -> list[int]:
    """Choose the frames of the window around one frame, as the daemon does.

    Parameters
    ----------
    index : int
        The frame to restore; must be available.
    available : sequence of int
        Frames that exist. Those before the first, after the last and lost ones do not.
    length, centre : int
        Of the window.

    Returns
    -------
    list of int
        As many as the window is long. A frame that does not exist is replaced by the nearest one
        inside the window's span; of two equally near ones, by the one nearer to the centre.
    """
    span = range(index - centre, index - centre + length)
    inside = [have for have in available if have in span]
    return [min(inside, key=lambda have: (abs(have - want), abs(have - index))) for want in span]


def normalise(window: Image) -> tuple[NDArray[np.float32], float, float]:
    """Turn a window into z-scores by its own mean and standard deviation.

    Parameters
    ----------
    window : ndarray, shape (window_length, H, W)
        Raw frames.

    Returns
    -------
    values : ndarray, float32
        Of the same shape.
    mean, std : float
        Raw intensity = value × std + mean. A window without contrast has std 1.
    """
    mean = float(np.mean(window, dtype=np.float64))
    std = float(np.std(window, dtype=np.float64)) or 1.0
    return ((window - mean) / std).astype(np.float32), mean, std


class Drawn(Protocol):
    """Where single samples come from."""

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw a batch of one; the same state gives the same sample."""


class Mixture:
    """Endless random training samples of several kinds, each of which may be a mixture itself.

    Parameters
    ----------
    parts : sequence of (float, Drawn)
        Kinds, and the share of the samples that is of each; the shares add up to 1.
    seed : int
        Same seed, same samples.
    """

    def __init__(self, parts: Sequence[tuple[float, Drawn]], seed: int) -> None:
        self._parts = [part for _, part in parts]
        self._shares = [share for share, _ in parts]
        self._seed = seed

    def batches(self, size: int, first: int = 0) -> Iterator[Batch]:
        """Draw batches; see `drawn_batches`."""
        return drawn_batches(self.draw, self._seed, size, first)

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw a batch of one, of any of the kinds."""
        return self._parts[int(rng.choice(len(self._parts), p=self._shares))].draw(rng)


class MovieSamples:
    """Random training samples from movies.

    A sample is a crop of a window with the truth of its middle frame, mirrored and turned at
    random. One window in eight has lost a frame or two; windows at the ends of a movie repeat
    frames. Half the samples are normalised by the whole frames, half by the crop alone, so that
    the network gets to see dense, sparse and empty windows.

    Parameters
    ----------
    movies : sequence of Movie
        With frames of any size from ``crop`` up.
    crop : int
        Height and width of the crops, scanned pixels.
    length, centre : int
        Of the window.
    """

    def __init__(
        self, movies: Sequence[Movie], *, crop: int, length: int = 5, centre: int = 2
    ) -> None:
        self._movies = movies
        self._crop = crop
        self._length = length
        self._centre = centre
        self._variances: dict[tuple[int, int], float] = {}

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw a batch of one; the same state gives the same sample."""
        number = int(rng.integers(len(self._movies)))
        movie = self._movies[number]
        frames, height, width = movie.frames.shape
        index = int(rng.integers(frames))
        available = list(range(frames))
        if self._length > 1 and rng.random() < 1 / 8:
            lost = rng.choice([-2, -1, 1, 2], size=rng.integers(1, 3), replace=False) + index
            available = [have for have in available if have not in lost]
        chosen = window_frames(index, available, length=self._length, centre=self._centre)
        top = int(rng.integers(height - self._crop + 1))
        left = int(rng.integers(width - self._crop + 1))
        rows, columns = slice(top, top + self._crop), slice(left, left + self._crop)
        whole = movie.frames[chosen]
        window = whole[:, rows, columns]
        _, mean, std = normalise(whole if rng.random() < 1 / 2 else window)
        truth = movie.truth[
            index, 4 * top : 4 * (top + self._crop), 4 * left : 4 * (left + self._crop)
        ]
        weight = std**2 / max(self._variance(number, index), std**2 / 10)
        turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
        x, y = (
            _turned((part - mean) / std, turns, mirror).astype(np.float32)
            for part in (window, truth[None])
        )
        return Batch(x[None], y[None], np.array([weight], np.float32))

    def _variance(self, number: int, index: int) -> float:
        """Variance of a whole true frame, which takes longer to find than all else of a sample."""
        if (number, index) not in self._variances:
            whole = self._movies[number].truth[index]
            self._variances[number, index] = float(np.var(whole, dtype=np.float64))
        return self._variances[number, index]


def _turned(planes: Image, turns: int, mirror: bool) -> Image:
    """One of the eight symmetries of the square."""
    planes = np.rot90(planes, turns, axes=(1, 2))
    return planes[:, ::-1] if mirror else planes
