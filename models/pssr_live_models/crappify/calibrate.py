"""Fitting the physical crappifier to a laboratory's own frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from msgspec.structs import replace
from scipy import ndimage, stats

from pssr_live.errors import UsageError
from pssr_live_models.crappify.crappifier import Crappifier, Fit, full_sampling
from pssr_live_models.crappify.match import match
from pssr_live_models.crappify.noise import FEWEST_FRAMES, Line, Noise, differences, noise_levels
from pssr_live_models.crappify.spectra import fitted_blur, looked_at, power_spectrum, scanned
from pssr_live_models.crappify.steps import (
    SCALE,
    Blur,
    Detect,
    Digitise,
    Image,
    Pair,
    Sample,
    Step,
    Unit,
)

__all__ = ["calibrate"]

log = logging.getLogger(__name__)

Light: TypeAlias = tuple[float, float]
"""Counts of the brightest structures above the background, and of the background."""

DIMENSIONS = 3
LOW, HIGH = 0.1, 99.9
"""Percentiles of a movie between which its structures lie, as for the preset ``physical``."""

SMALLEST = 32
SATURATED = 0.005
"""Share of the pixels at the largest value from which on frames are refused."""

CERTAIN = 3.0
"""Standard errors by which the noise must grow with brightness."""

ROUNDING = 1 / 12
"""Variance of the error of rounding to whole counts."""

CORRELATED = 0.1
UNLIKE_DB = 3.0


def calibrate(
    frames: Sequence[Image],
    high_resolution: Sequence[Image] = (),
    *,
    name: str = "calibrated",
    offset: float | None = None,
    bits: int | None = None,
    pixel_size_um: float | None = None,
) -> Crappifier:
    """Fit detector, light and blur of the physical crappifier to real undersampled frames.

    Gain and read noise come from the line of the noise's variance against brightness (photon
    transfer: J. R. Janesick, Photon Transfer, SPIE Press 2007), with the noise from second
    differences of frames that follow each other, taken at the finest spatial pattern, so that
    neither steady bleaching nor what moves counts as noise. The line alone cannot tell a larger
    offset from a smaller read noise: the offset is where the third moment of the noise, to which
    read noise adds nothing, would be zero; where a dark frame is at hand, give its mean instead.
    The photon rate comes from the variance that is left without the noise, the blur from the power
    spectrum that is left without it.

    Parameters
    ----------
    frames : sequence of ndarray, shape (T, H, W)
        Undersampled movies of one detector and one setting of it; at least 5 consecutive frames
        each, at least 32×32.
    high_resolution : sequence of ndarray, shape (T, 4H, 4W)
        Movies or images of the same kind of sample at four times the sampling, with little noise.
        Need not show the same places. Without them the blur is taken to be 0 (a scan of points) and
        the photon rate comes from the frames alone.
    name : str
        Of the crappifier.
    offset : float, optional
        Counts without light, where they are known.
    bits : int, optional
        Of the digitiser, for frames of whole counts; by default all that the dtype has.
    pixel_size_um : float, optional
        Edge of the frames' pixels, µm; kept with the crappifier.

    Returns
    -------
    Crappifier
        `Unit`, `Blur`, `Sample`, `Detect` and, for frames of whole counts, `Digitise`; its ``fit``
        says how well it matches. The photon rates of several movies give ``spread``.

    Raises
    ------
    UsageError
        Too few, too small, constant or saturated frames, or frames whose noise does not grow with
        brightness.
    """
    _check(frames)
    units = _units(high_resolution)
    found = differences(frames)
    levels = noise_levels(found)
    line = _rising_line(levels)
    dark, possible = _offset(levels, line, offset)
    blur, blur_error = _blur(frames, line, units)
    lights = [_light(movie, line, dark, units, blur) for movie in frames]
    steps = _steps(frames[0].dtype, line, dark, blur, lights)
    if frames[0].dtype.kind in "ui":
        steps = (*steps, Digitise(maximum=_maximum(frames, bits)))
    fitted = Crappifier(name=name, pixel_size_um=pixel_size_um, steps=steps)
    fit = replace(
        match(fitted, found, levels, line, frames, high_resolution),
        offset_range=possible,
        blur_error=blur_error,
    )
    _warn(fit)
    return replace(fitted, fit=fit)


def _warn(fit: Fit) -> None:
    if fit.noise_correlation > CORRELATED:
        log.warning(
            "calibration: neighbouring pixels change together (correlation %.2f): the sample moves "
            "much from frame to frame, or the frames were filtered, averaged or resampled",
            fit.noise_correlation,
        )
    if fit.spectrum_error_db is not None and fit.spectrum_error_db > UNLIKE_DB:
        log.warning(
            "calibration: the power spectra of real and crappified frames are %.1f dB apart: the "
            "movies at full sampling show another kind of sample, or their pixel size is not a "
            "quarter of the frames'; the blur and the photon rate are not to be trusted",
            fit.spectrum_error_db,
        )


def _refusal(why: str, do: str) -> UsageError:
    return UsageError("cannot calibrate a crappifier to these frames", why, do)


def _check(frames: Sequence[Image]) -> None:
    if not frames:
        raise _refusal("there are none", "give movies of undersampled frames")
    for movie in frames:
        if movie.ndim != DIMENSIONS or len(movie) < FEWEST_FRAMES:
            raise _refusal(
                f"a movie has {len(movie) if movie.ndim == DIMENSIONS else 1}",
                f"give at least {FEWEST_FRAMES} consecutive ones",
            )
        if min(movie.shape[1:]) < SMALLEST:
            raise _refusal(
                f"they have {movie.shape[1]}×{movie.shape[2]} pixels",
                f"give at least {SMALLEST}×{SMALLEST}",
            )
        if movie.dtype != frames[0].dtype or movie.dtype.kind not in "uif":
            raise _refusal("they are not all of one real dtype", "give frames of one detector")
        if not np.isfinite(movie).all():
            raise _refusal("some pixels are not finite", "give intensities")
        if movie.min() == movie.max():
            raise _refusal(f"all pixels are {movie.min():g}", "give frames that show something")
    highest = max(movie.max() for movie in frames)
    share = float(np.mean([np.mean(movie == highest) for movie in frames]))
    if share > SATURATED:
        raise _refusal(
            f"they are saturated: {100 * share:.1f} % of the pixels are at {highest:g}",
            "record some with less gain or light",
        )


def _units(movies: Sequence[Image]) -> list[Image]:
    """Check the movies at full sampling and bring each to unit scale."""
    smallest = SCALE * SMALLEST
    units = []
    for movie in movies:
        images = full_sampling(movie)
        if min(images.shape[1:]) < smallest or images.min() == images.max():
            raise UsageError(
                "cannot compare the frames with the movies at full sampling",
                f"one has {images.shape[1]}×{images.shape[2]} pixels from {images.min():g} to "
                f"{images.max():g}",
                f"give movies of at least {smallest}×{smallest} that show something",
            )
        unit, _ = Unit(low=LOW, high=HIGH)(Pair(images, images), np.random.default_rng(0))
        units.append(unit)
    return units


def _rising_line(levels: Noise) -> Line:
    """Fit the noise's variance against brightness, and refuse a line that does not rise."""
    line = levels.variance_line()
    if line.slope < CERTAIN * line.slope_error:
        raise _refusal(
            "their noise does not grow with brightness",
            "give frames as the detector delivers them, of a field with bright and dark places "
            "that moves little",
        )
    return line


def _offset(
    levels: Noise, line: Line, given: float | None
) -> tuple[float, tuple[float, float] | None]:
    """Take the offset that is given, or find it and the range that it is in.

    The variance of the read noise and the light of the darkest level bound it.
    """
    possible = line.zero, max(line.zero, float(levels.brightness.min()))
    if given is None:
        return _likely_offset(levels, line, possible), possible
    _check_offset(given, possible, line)
    return given, None


def _likely_offset(levels: Noise, line: Line, possible: tuple[float, float]) -> float:
    """Find where the noise would have no third moment: the expected place, within the bounds."""
    third = levels.third_moment_line(line)
    if third.slope <= 0 or possible[1] - possible[0] < 1e-9 * abs(line.x - line.zero):
        return possible[0]
    error = third.zero_error
    low, high = ((bound - third.zero) / error for bound in possible)
    mean = float(stats.truncnorm.mean(low, high, loc=third.zero, scale=error))
    return float(np.clip(mean, *possible)) if np.isfinite(mean) else possible[0]


def _check_offset(offset: float, possible: tuple[float, float], line: Line) -> None:
    margin = CERTAIN * line.zero_error
    if not possible[0] - margin <= offset <= possible[1] + margin:
        raise UsageError(
            f"an offset of {offset:g} counts",
            f"the noise of the frames allows {possible[0]:.1f} to {possible[1]:.1f}",
            "leave it out, or measure it with the settings of these frames",
        )


def _noise_variance(line: Line, movie: Image) -> float:
    return max(0.0, float(line.at(float(np.mean(movie, dtype=np.float64)))))


def _blur(
    frames: Sequence[Image], line: Line, units: Sequence[Image]
) -> tuple[float, float | None]:
    if not units:
        return 0.0, None
    noise = max(0.0, float(line.at(looked_at(frames))))
    return fitted_blur(power_spectrum(frames), noise, units)


def _light(movie: Image, line: Line, offset: float, units: Sequence[Image], blur: float) -> Light:
    """Find how bright the structures of a movie are: its contrast is what noise does not explain.

    Without noise, a frame = bright · (movie at unit scale) + background + offset.
    """
    mean, variance = (float(take(movie, dtype=np.float64)) for take in (np.mean, np.var))
    contrast = float(np.sqrt(max(variance - _noise_variance(line, movie), 1e-6 * variance)))
    if units:
        seen = [scanned(unit, blur) for unit in units]
        bright = contrast / float(np.sqrt(np.mean([unit.var() for unit in seen])))
        dark = mean - bright * float(np.mean([unit.mean() for unit in seen]))
    else:
        # Smoothing takes noise away, and some of the contrast; that is known, and given back.
        threes = [movie[t : t + 3].mean(axis=0) for t in range(0, len(movie) - 2, 3)]
        smooth = ndimage.gaussian_filter(np.stack(threes), (0, 1, 1))
        low, high = np.percentile(smooth, (LOW, HIGH))
        gain = contrast / max(float(smooth.std()), 1e-9)
        bright, dark = gain * float(high - low), mean + gain * float(low - smooth.mean())
    return bright, max(0.0, dark - offset)


def _steps(
    dtype: np.dtype[Any], line: Line, offset: float, blur: float, lights: Sequence[Light]
) -> tuple[Step, ...]:
    rounding = ROUNDING if dtype.kind in "ui" else 0.0
    photons = np.array([bright for bright, _ in lights]) / line.slope
    detect = Detect(
        photons=float(np.sqrt(photons.min() * photons.max())),
        gain=line.slope,
        offset=offset,
        read_noise=float(np.sqrt(max(0.0, float(line.at(offset)) - rounding))),
        background=float(np.mean([background / bright for bright, background in lights])),
        spread=float(np.sqrt(photons.max() / photons.min())),
    )
    return Unit(low=LOW, high=HIGH), Blur(sigma=blur), Sample(spot="point"), detect


def _maximum(frames: Sequence[Image], bits: int | None) -> int:
    full = min(int(np.iinfo(frames[0].dtype).max), 65535)
    maximum = full if bits is None else min(full, 2**bits - 1)
    highest = int(max(movie.max() for movie in frames))
    if highest > maximum:
        raise _refusal(f"they reach {highest} counts", f"{maximum} is the most of {bits} bits")
    return maximum
