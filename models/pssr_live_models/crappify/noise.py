"""The noise of a movie against its brightness: what the photon-transfer method looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pssr_live.errors import UsageError
from pssr_live_models.crappify.steps import Image

__all__ = ["FEWEST_FRAMES", "Differences", "Line", "Noise", "differences", "noise_levels"]

Floats: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

FEWEST_FRAMES = 5
"""Three frames give the noise, one on either side of them the brightness."""

TRIPLES = 24
"""Most triples of frames to look at, over all movies."""

LEVELS = 32
FEWEST_LEVELS = 4
FEWEST_PIXELS = 300
PATCH = 5
CLIPPED = 0.01
"""Share of clipped pixels from which on the variance of a level is not trusted."""

CHECKER = np.outer([1, -2, 1], [1, -2, 1]) / 6
"""Passes the finest pattern a frame can hold: noise has it, what the spot has blurred hardly."""

REPEATED = (1 + 2 * (4 / 6) ** 2 + 2 * (1 / 6) ** 2) ** 3
"""How many neighbours in time and space tell the same: differences overlap along each axis."""


@dataclass(frozen=True, slots=True)
class Differences:
    """Second differences in time, which cancel what moves or bleaches steadily.

    Attributes
    ----------
    noise : ndarray, shape (N, H, W), float32
        ``frame[t - 1] - 2 frame[t] + frame[t + 1]``: six times the variance of a frame.
    brightness : ndarray, shape (N, H, W), float32
        Mean of the three frames.
    level : ndarray, shape (N, H, W), float32
        The frames before and after the three, averaged and smoothed: tells bright places from dark
        ones without looking at the noise that is measured.
    clipped : ndarray, shape (N, H, W), bool
        One of the three frames has the largest or the smallest value of all.
    still : ndarray, shape (N, H, W), bool
        Where nothing moves more than the noise shows.
    """

    noise: Image
    brightness: Image
    level: Image
    clipped: Mask
    still: Mask


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line through points of known weight.

    Attributes
    ----------
    slope, slope_error : float
        And its standard error, from the scatter of the points or their weights, whichever is more.
    x, y, y_error : float
        A point on it, the weighted mean of the points, and its standard error.
    """

    slope: float
    slope_error: float
    x: float
    y: float
    y_error: float

    def at(self, x: Floats | float) -> Floats:
        """Read the line."""
        return np.asarray(self.y + self.slope * (x - self.x))

    @property
    def zero(self) -> float:
        """Where the line crosses zero."""
        return self.x - self.y / self.slope

    @property
    def zero_error(self) -> float:
        """Standard error of `zero`."""
        return float(np.hypot(self.y_error, (self.zero - self.x) * self.slope_error) / self.slope)

    @classmethod
    def fit(cls, x: Floats, y: Floats, errors: Floats) -> Line:
        """Fit by weighted least squares; ``errors`` are the standard errors of ``y``."""
        weights = 1 / errors**2
        mean_x = float(np.average(x, weights=weights))
        mean_y = float(np.average(y, weights=weights))
        spread = float(np.sum(weights * (x - mean_x) ** 2))
        slope = float(np.sum(weights * (x - mean_x) * (y - mean_y))) / spread
        left = y - mean_y - slope * (x - mean_x)
        scatter = max(1.0, float(np.sum(weights * left**2)) / (x.size - 2))
        slope_error = float(np.sqrt(scatter / spread))
        y_error = float(np.sqrt(scatter / np.sum(weights)))
        return cls(slope, slope_error, mean_x, mean_y, y_error)


@dataclass(frozen=True, slots=True)
class Noise:
    """Brightness levels of the frames with the moments of their noise.

    Attributes
    ----------
    brightness, variance, third, pixels : ndarray, shape (levels,), float64
        Mean, variance and third central moment of the values that one pixel would take, and how
        many pixels they were taken from.
    """

    brightness: Floats
    variance: Floats
    third: Floats
    pixels: Floats

    def variance_line(self) -> Line:
        """Fit variance against brightness.

        The weights are those of a line fitted before, so that levels whose variance happens to
        come out small do not count more.
        """
        expected = self.variance
        for _ in range(3):
            line = Line.fit(
                self.brightness, self.variance, expected * np.sqrt(2 * REPEATED / self.pixels)
            )
            floor = 0.1 * float(expected.min())
            expected = np.maximum(line.at(self.brightness), floor)
        return line

    def third_moment_line(self, variance: Line) -> Line:
        """Fit the third central moment against brightness; read noise has none."""
        expected = np.maximum(variance.at(self.brightness), 0.1 * self.variance)
        # Standard error of a third moment of a normal variable with six times the variance, / 6.
        errors = np.sqrt(6 * (6 * expected) ** 3 / self.pixels) / 6
        return Line.fit(self.brightness, self.third, errors)


def differences(movies: Sequence[Image]) -> Differences:
    """Take second differences of frames that follow each other.

    Parameters
    ----------
    movies : sequence of ndarray, shape (T, H, W)
        At least `FEWEST_FRAMES` each; all of one detector. Larger ones are cut to the smallest.

    Returns
    -------
    Differences
    """
    height, width = (min(movie.shape[axis] for movie in movies) for axis in (1, 2))
    lowest = min(float(movie.min()) for movie in movies)
    highest = max(float(movie.max()) for movie in movies)
    middles = [(movie, t) for movie in movies for t in range(2, len(movie) - 2)]
    chosen = np.unique(np.linspace(0, len(middles) - 1, min(TRIPLES, len(middles))).astype(int))
    noise, brightness, level, clipped = [], [], [], []
    for movie, t in (middles[choice] for choice in chosen):
        near = movie[t - 2 : t + 3, :height, :width].astype(np.float32)
        noise.append(near[1] - 2 * near[2] + near[3])
        brightness.append(near[1:4].mean(axis=0))
        level.append(ndimage.gaussian_filter((near[0] + near[4]) / 2, 1.0))
        clipped.append(((near[1:4] == lowest) | (near[1:4] == highest)).any(axis=0))
    noises, levels = np.stack(noise), np.stack(level)
    still = _still(noises, levels)
    return Differences(noises, np.stack(brightness), levels, np.stack(clipped), still)


def _places(level: Image) -> tuple[Image, int]:
    """Sort pixels into levels evenly spread from the darkest to the brightest."""
    low, high = (float(edge) for edge in np.percentile(level, (0.1, 99.9)))
    return np.searchsorted(np.linspace(low, high, LEVELS + 1)[1:-1], level), LEVELS


def _still(noise: Image, level: Image) -> Mask:
    """Find patches whose mean difference is no larger than that of most patches as bright."""
    means = np.abs(ndimage.uniform_filter(noise, (0, PATCH, PATCH)))
    places, count = _places(level)
    still = np.ones(noise.shape, bool)
    for place in range(count):
        here = places == place
        if here.any():
            # The median of |x| is 0.6745 standard deviations of a normal x.
            still[here] = means[here] <= 3 * np.median(means[here]) / 0.6745
    # The pattern that the noise is measured with needs all its neighbours.
    inner = np.zeros(noise.shape[1:], bool)
    inner[1:-1, 1:-1] = True
    return still & inner


def noise_levels(found: Differences) -> Noise:
    """Take the moments of the noise at each brightness.

    Parameters
    ----------
    found : Differences
        Of all movies.

    Returns
    -------
    Noise

    Raises
    ------
    UsageError
        There is no noise, or nearly all pixels are equally bright.
    """
    if not found.noise.any():
        raise UsageError(
            "cannot fit the noise",
            "consecutive frames are identical",
            "give frames as the detector delivers them, not averaged or repeated",
        )
    places, count = _places(found.level)
    fine = ndimage.convolve(found.noise, CHECKER[None])
    around = ndimage.convolve(found.brightness, CHECKER[None] ** 2)
    rows, clean = [], []
    for place in range(count):
        here = (places == place) & found.still
        pixels = int(np.count_nonzero(here))
        if pixels < FEWEST_PIXELS:
            continue
        noise = found.noise[here].astype(np.float64)
        variance = float(np.mean(fine[here].astype(np.float64) ** 2)) / 6
        third = -float(np.mean((noise - noise.mean()) ** 3)) / 6
        rows.append((float(around[here].mean(dtype=np.float64)), variance, third, pixels))
        clean.append(float(found.clipped[here].mean()) <= CLIPPED)
    # A photon counter has many zeros and is right in all of them.
    kept = [row for row, good in zip(rows, clean, strict=True) if good]
    rows = kept if len(kept) >= FEWEST_LEVELS else rows
    rows = [row for row in rows if row[1] > 0]
    if len(rows) < FEWEST_LEVELS:
        raise UsageError(
            "cannot fit the noise",
            f"the frames show {len(rows)} levels of brightness with enough pixels",
            "give more or larger frames, of a field with bright and dark places",
        )
    return Noise(*(np.array(column) for column in zip(*rows, strict=True)))
