"""Power spectra of frames, and the blur that makes one of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, signal

from pssr_live_models.crappify.steps import Blur, Image, Pair, Sample

__all__ = ["fitted_blur", "looked_at", "power_spectrum", "scanned"]

Floats: TypeAlias = NDArray[np.float64]

BINS = 24
WIDEST_BLUR = 8.0
"""Pixels of the images at full sampling: twice the frames' own pixels."""

MOST_IMAGES = 6
WIDEST_IMAGE = 1024
FIELDS_DIFFER = 0.1
"""Relative difference of two spectra that says nothing: the fields of view are not the same."""

ALIKE = 2.0
"""Bins over which that difference stays alike: where structures are a little larger or smaller,
many frequencies in a row have more or less power, as a blur would make them."""

NOISE_UNSURE = 0.02
"""Relative standard error of the variance of the noise: it is all there is at fine patterns."""


def power_spectrum(movies: Sequence[Image]) -> Floats:
    """Average the power spectrum over directions, frames and movies.

    Parameters
    ----------
    movies : sequence of ndarray, shape (T, H, W)
        At least 32 pixels an edge.

    Returns
    -------
    ndarray, shape (BINS,), float64
        Power per pixel, counts²: white noise of variance v gives v everywhere. The frequencies are
        those in the middle of `BINS` equal parts from 0 to 1/2 per pixel; the constant is left out.
    """
    total, weight = np.zeros(BINS), np.zeros(BINS)
    for movie in movies:
        height, width = movie.shape[1:]
        window = _window(height, width)
        power = np.zeros((height, width))
        for frame in movie:
            flat = frame - np.mean(frame, dtype=np.float64)
            power += np.abs(np.fft.fft2(window * flat)) ** 2 / np.sum(window**2)
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
        place = (2 * BINS * frequency).astype(int)
        # The window spreads what is left of the constant over its neighbours.
        used = (frequency > 2 / min(height, width)) & (place < BINS)
        total += np.bincount(place[used], power[used], BINS)
        weight += np.bincount(place[used], minlength=BINS) * len(movie)
    there = weight > 0
    return np.asarray(
        np.interp(np.arange(BINS), np.flatnonzero(there), (total[there] / weight[there]))
    )


def looked_at(movies: Sequence[Image]) -> float:
    """Find the brightness that the noise in `power_spectrum` belongs to.

    Parameters
    ----------
    movies : sequence of ndarray, shape (T, H, W)
        The same.

    Returns
    -------
    float
        Mean of the pixels, those in the middle counting as much more as they do in the spectrum:
        where the sample is in the middle, noise there is more than that of the mean brightness.
    """
    total = weight = 0.0
    for movie in movies:
        counts = _window(*movie.shape[1:]) ** 2
        plane = np.mean(movie, axis=0, dtype=np.float64)
        pixels = movie.size / float(counts.sum())
        total += pixels * float(np.sum(counts * plane))
        weight += movie.size
    return total / weight


def _window(height: int, width: int) -> Floats:
    """Fade out to the edges."""
    window = np.outer(signal.windows.hann(height), signal.windows.hann(width))
    return np.asarray(window, np.float64)


def fitted_blur(spectrum: Floats, noise: float, images: Sequence[Image]) -> tuple[float, float]:
    """Find how much the frames are blurred over the images at full sampling.

    Parameters
    ----------
    spectrum : ndarray, shape (BINS,)
        Of the frames; see `power_spectrum`.
    noise : float
        Variance of their noise.
    images : sequence of ndarray, shape (T, 4H, 4W)
        Movies of the same kind of sample, with little noise of their own.

    Returns
    -------
    blur, error : float
        Standard deviation of the Gaussian blur that a scan of points needs, pixels of the images,
        at most `WIDEST_BLUR`; and how much more would hardly show: the square of the blur has the
        standard error ``(blur + error)² - blur²``.
    """
    few = [_few(movie) for movie in images]
    blurs = np.linspace(0, WIDEST_BLUR, 17)
    logs = np.log([power_spectrum([scanned(movie, blur) for movie in few]) for blur in blurs])

    def left(values: Floats) -> Floats:
        # The logarithm of the power falls with the square of the blur.
        power = [np.interp(values[0], blurs**2, column) for column in logs.T]
        expected = np.exp(values[1] + np.array(power)) + noise * np.exp(values[2])
        apart = (np.log(expected) - np.log(spectrum)) / FIELDS_DIFFER
        return np.append(apart, values[2] / NOISE_UNSURE)

    amplitude = np.log(max(float(spectrum[0]) - noise, 1e-6 * float(spectrum[0])))
    best = min(
        (
            optimize.least_squares(
                left,
                (start, amplitude - logs[0][0], 0.0),
                bounds=((0, -np.inf, -1.0), (WIDEST_BLUR**2, np.inf, 1.0)),
                x_scale=(1.0, 0.1, 0.01),
            )
            for start in (0.5, 10.0)
        ),
        key=lambda fit: float(fit.cost),
    )
    square = float(best.x[0])
    error = np.sqrt(square + min(_error_of_square(best), WIDEST_BLUR**2))
    return float(np.sqrt(square)), float(error - np.sqrt(square))


def _error_of_square(best: optimize.OptimizeResult) -> float:
    """Find the standard error of the blur's square.

    The fit takes the bins for independent, which costs little precision; its error must not: what
    differs between two fields differs alike in neighbouring bins, and looks like a blur.
    """
    scatter = max(1.0, 2 * float(best.cost) / (BINS - 2))
    bins = np.arange(BINS)
    expected = np.zeros((BINS + 1, BINS + 1))  # the last one is the noise's own
    expected[:BINS, :BINS] = scatter * np.exp(-np.abs(bins[:, None] - bins) / ALIKE)
    expected[BINS, BINS] = 1
    taken = np.linalg.pinv(best.jac)
    return float(np.sqrt((taken @ expected @ taken.T)[0, 0]))


def _few(movie: Image) -> Image:
    """Take a few images of a movie, and of large ones the middle."""
    top, left = (max(0, (edge - WIDEST_IMAGE) // 2) for edge in movie.shape[1:])
    step = max(1, len(movie) // MOST_IMAGES)
    return movie[::step, top : top + WIDEST_IMAGE, left : left + WIDEST_IMAGE][:MOST_IMAGES]


def scanned(images: Image, blur: float) -> Image:
    """Scan a movie with blurred points.

    Parameters
    ----------
    images : ndarray, shape (T, 4H, 4W)
        At full sampling.
    blur : float
        Standard deviation of the Gaussian blur, pixels of the images.

    Returns
    -------
    ndarray, shape (T, H, W), float32
        Without noise, on the scale of the images.
    """
    rng = np.random.default_rng(0)
    blurred = Blur(sigma=blur)(Pair(images, images), rng)
    return Sample(spot="point")(blurred, rng).frames
