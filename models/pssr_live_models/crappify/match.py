"""How well a fitted crappifier matches the frames it was fitted to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace
from scipy import stats

from pssr_live_models.crappify.crappifier import Crappifier, Fit
from pssr_live_models.crappify.noise import Differences, Line, Noise
from pssr_live_models.crappify.spectra import power_spectrum
from pssr_live_models.crappify.steps import Detect, Digitise, Image, Step

__all__ = ["match"]

MOST_VALUES = 1_000_000
MOST_IMAGES = 8


def match(
    fitted: Crappifier,
    found: Differences,
    levels: Noise,
    line: Line,
    frames: Sequence[Image],
    images: Sequence[Image],
) -> Fit:
    """Compare the statistics of real frames with those of crappified ones.

    Parameters
    ----------
    fitted : Crappifier
        The physical one, with the fitted parameters.
    found, levels, line : Differences, Noise, Line
        The noise of the frames.
    frames : sequence of ndarray, shape (T, H, W)
        The real frames.
    images : sequence of ndarray, shape (T, 4H, 4W)
        Movies at full sampling to crappify, or none.

    Returns
    -------
    Fit
        Without ``offset_range`` and ``blur_error``.
    """
    expected = line.at(levels.brightness)
    left = (levels.variance - expected) / np.maximum(expected, 1e-9)
    spectrum, histogram = _compared(fitted, frames, images) if images else (None, None)
    return Fit(
        frames=sum(len(movie) for movie in frames),
        levels=levels.pixels.size,
        line_error=float(np.sqrt(np.average(left**2, weights=levels.pixels))),
        gain_error=line.slope_error / line.slope,
        noise_correlation=_correlation(found, line, float(levels.variance.min())),
        noise_distance=_noise_distance(fitted, found),
        spectrum_error_db=spectrum,
        histogram_distance=histogram,
    )


def _correlation(found: Differences, line: Line, least: float) -> float:
    variance = np.maximum(line.at(found.level.astype(np.float64)), least)
    noise = np.where(found.still, found.noise / np.sqrt(variance), 0)
    power = float(np.mean(noise[found.still] ** 2))
    found_along = []
    for axis in (1, 2):
        values, still = np.moveaxis(noise, axis, 0), np.moveaxis(found.still, axis, 0)
        both = still[1:] & still[:-1]
        found_along.append(float(np.mean((values[1:] * values[:-1])[both])) / power)
    return max(found_along, key=abs)


def _noise_distance(fitted: Crappifier, found: Differences) -> float:
    """Draw the noise anew where the real frames have it, at the brightness that they have."""
    rng = np.random.default_rng(fitted.seed)
    detect = next(step for step in fitted.steps if isinstance(step, Detect))
    light = np.maximum((found.level - detect.offset) / detect.gain, 0)
    before, middle, after = (_recorded(fitted.steps, detect, light, rng) for _ in range(3))
    drawn = before - 2 * middle + after
    return _distance(found.noise[found.still], drawn[found.still])


def _recorded(
    steps: Sequence[Step], detect: Detect, photons: Image, rng: np.random.Generator
) -> Image:
    counts = detect.gain * rng.poisson(photons) + detect.offset
    counts += detect.read_noise * rng.standard_normal(photons.shape)
    last = steps[-1]
    return np.clip(np.rint(counts), 0, last.maximum) if isinstance(last, Digitise) else counts


def _compared(
    fitted: Crappifier, frames: Sequence[Image], images: Sequence[Image]
) -> tuple[float, float]:
    """Compare power spectra, dB, and histograms."""
    steps = tuple(
        replace(step, spread=1.0) if isinstance(step, Detect) else step for step in fitted.steps
    )
    one_rate, rng = replace(fitted, steps=steps), np.random.default_rng(fitted.seed)
    made = [one_rate.crappify(movie[:MOST_IMAGES], rng).frames for movie in images]
    decibels = 10 * np.log10(power_spectrum(made) / power_spectrum(frames))
    values, others = (np.concatenate([m.ravel() for m in movies]) for movies in (frames, made))
    return float(np.sqrt(np.mean(decibels**2))), _distance(values, others)


def _distance(values: Image, others: Image) -> float:
    """Kolmogorov-Smirnov distance of two samples, 0 to 1."""
    few, fewer = (part[:: 1 + part.size // MOST_VALUES] for part in (values, others))
    return float(stats.ks_2samp(few, fewer, method="asymp").statistic)
