"""Fourier ring correlation: up to which detail two images agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import UsageError
from pssr_live.frames import Pixels
from pssr_live.metrics.images import Floats, same_shape

__all__ = ["RingCorrelation", "Threshold", "fourier_ring_correlation"]

Threshold: TypeAlias = Literal["1/7", "1/2", "half-bit"]

Spectrum: TypeAlias = NDArray[np.complex128]

TAPER = 0.25
"""Share of an edge over which the images fade out, half of it on each side."""

SMALLEST = 32


@dataclass(frozen=True, slots=True, eq=False)
class RingCorrelation:
    """Agreement of two images by spatial frequency.

    Attributes
    ----------
    frequency : ndarray, shape (n,), float64
        Cycles per nm, from the first ring to half a cycle per pixel.
    correlation : ndarray, shape (n,), float64
        Of the two spectra in each ring, −1 to 1, smoothed over three rings.
    threshold : ndarray, shape (n,), float64
        What counts as agreement.
    resolution_nm : float
        One over the first frequency at which the correlation falls below the threshold; two
        pixels if it never does (the sampling is the limit), infinite if it is never above.
    """

    frequency: Floats
    correlation: Floats
    threshold: Floats
    resolution_nm: float


def fourier_ring_correlation(
    first: Pixels, second: Pixels, pixel_size_nm: float, *, threshold: Threshold = "1/7"
) -> RingCorrelation:
    """Correlate the spectra of two images ring by ring.

    Both images lose their mean and fade out towards the edges (Tukey window over ¼ of each edge).
    In rings one frequency step wide, the real part of the summed cross spectrum is divided by the
    root of the product of both summed power spectra. The curve is smoothed over three rings
    (¼, ½, ¼), and the crossing is found by linear interpolation.

    Two images of one field with independent noise give the resolution of each of them with the
    threshold 1/7. An image compared with noise-free truth needs 1/2 instead: a correlation of 1/7
    between two noisy images is one of √(2 · ⅐ / (1 + ⅐)) = ½ between either and the truth.

    Parameters
    ----------
    first, second : ndarray, shape (H, W)
        Two images of one field; at least 32×32 pixels. Noise that both share counts as structure.
    pixel_size_nm : float
        Edge of a pixel, nm.
    threshold : {"1/7", "1/2", "half-bit"}
        What counts as agreement; half-bit depends on the number of pixels in a ring.

    Returns
    -------
    RingCorrelation

    Raises
    ------
    UsageError
        The images do not fit or are too small, or the pixel size is not positive.

    Notes
    -----
    Saxton & Baumeister, J. Microsc. 127, 127 (1982); 1/7 for light microscopy: Nieuwenhuizen et
    al., Nat. Methods 10, 557 (2013); ½ against a perfect reference: Rosenthal & Henderson, J. Mol.
    Biol. 333, 721 (2003); half-bit: van Heel & Schatz, J. Struct. Biol. 151, 250 (2005).
    """
    one, two = same_shape(first, second)
    if min(one.shape) < SMALLEST or not 0 < pixel_size_nm < np.inf:
        raise UsageError(
            "the Fourier ring correlation cannot be computed",
            f"the images have {one.shape} pixels of {pixel_size_nm} nm",
            f"give images of at least {SMALLEST}×{SMALLEST} pixels and a pixel size above 0",
        )
    cross, power_one, power_two, pixels = _ring_sums(_spectrum(one), _spectrum(two), one.shape)
    power = np.sqrt(power_one * power_two)
    correlation = np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)
    padded = np.pad(correlation, 1, mode="edge")
    correlation = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    step = 1 / (min(one.shape) * pixel_size_nm)
    frequency = step * np.arange(1, len(correlation) + 1)
    limit = _limit(threshold, pixels)
    crossing = _first_crossing(frequency, correlation - limit)
    if crossing is None:
        resolution_nm = 2 * pixel_size_nm
    else:
        resolution_nm = 1 / crossing if crossing > 0 else float("inf")
    return RingCorrelation(frequency, correlation, limit, resolution_nm)


def _spectrum(image: Floats) -> Spectrum:
    height, width = image.shape
    faded = (image - image.mean()) * np.outer(_tukey(height), _tukey(width))
    return np.asarray(np.fft.rfft2(faded), np.complex128)


def _tukey(length: int) -> Floats:
    """Cosine-tapered window, as ``scipy.signal.windows.tukey(length, TAPER)``."""
    from_edge = np.minimum(np.arange(length), np.arange(length)[::-1]) / (length - 1)
    rise = np.minimum(2 * from_edge / TAPER, 1)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * rise))


def _ring_sums(
    one: Spectrum, two: Spectrum, shape: tuple[int, ...]
) -> tuple[Floats, Floats, Floats, Floats]:
    """Sum cross and power spectra over rings of equal physical frequency, the mean left out."""
    height, width = shape
    edge = min(shape)
    radius = edge * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    ring = np.rint(radius).astype(np.intp)
    # A real image's spectrum is symmetric: all columns but the first and, if the width is even,
    # the last stand for two.
    twice = np.full(one.shape, 2.0)
    twice[:, 0] = 1
    if width % 2 == 0:
        twice[:, -1] = 1
    rings = edge // 2 + 1

    def summed(values: Floats) -> Floats:
        sums = np.bincount(ring.ravel(), (values * twice).ravel(), minlength=rings)
        return np.asarray(sums[1:rings], np.float64)

    return (
        summed((one * np.conj(two)).real),
        summed(np.square(np.abs(one))),
        summed(np.square(np.abs(two))),
        summed(np.ones(one.shape)),
    )


def _limit(threshold: Threshold, pixels: Floats) -> Floats:
    if threshold == "half-bit":
        root = np.sqrt(pixels / 2)  # the other half of a ring is the same numbers again
        return np.asarray((0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root))
    return np.full(pixels.shape, {"1/7": 1 / 7, "1/2": 1 / 2}[threshold])


def _first_crossing(frequency: Floats, above: Floats) -> float | None:
    """Find where the curve falls below zero first; 0 if it starts there, None if never."""
    below = np.flatnonzero(above < 0)
    if not len(below):
        return None
    at = int(below[0])
    if at == 0:
        return 0.0
    share = above[at - 1] / (above[at - 1] - above[at])
    return float(frequency[at - 1] + share * (frequency[at] - frequency[at - 1]))
