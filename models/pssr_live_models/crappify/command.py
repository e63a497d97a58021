"""What ``pssr-live calibrate`` does: from files of frames to a crappifier in a file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pssr_live.errors import StorageError, UsageError
from pssr_live.settings import ReplaySettings, RunSettings
from pssr_live.source import make_source
from pssr_live_models.crappify.calibrate import calibrate
from pssr_live_models.crappify.crappifier import Crappifier
from pssr_live_models.crappify.steps import SCALE, Blur, Detect, Image
from pssr_live_models.training.czi import opened_czi
from pssr_live_models.training.recordings import refuse_predictions

__all__ = ["calibrate_files", "figures"]

MOST_FRAMES = 100
"""Frames to read of a movie."""

PIXEL_TOLERANCE = 0.15


@dataclass(frozen=True, slots=True)
class _Recording:
    images: Image
    pixel_size_um: float | None
    bits: int


def calibrate_files(
    frames: Sequence[Path],
    out: Path,
    *,
    high_resolution: Sequence[Path] = (),
    offset: float | None = None,
    pixel_size_um: float | None = None,
) -> str:
    """Fit the physical crappifier to recorded frames and keep it in a file.

    Parameters
    ----------
    frames : sequence of Path
        Undersampled movies of one detector and setting, of any kind that the source ``replay``
        takes, or CZI; the first 100 frames are read, of a movie with gaps the longest part without.
    out : Path
        TOML file to make, for ``pssr-live train --crappifier``; it must not exist.
    high_resolution : sequence of Path
        Movies or images of the same kind of sample at four times the sampling.
    offset : float, optional
        Counts without light, where they are known.
    pixel_size_um : float, optional
        Edge of the frames' pixels, µm; by default what the files say.

    Returns
    -------
    str
        The fitted figures for people, a line each.

    Raises
    ------
    UsageError
        The frames cannot be fitted, `out` exists, or the pixel sizes of frames and
        ``high_resolution`` are not as 4 to 1.
    SourceError, StorageError
        A file cannot be read, was restored by a model, or cannot be written.
    """
    _check(out, pixel_size_um)
    movies = [_read(file) for file in frames]
    images = [_read(file) for file in high_resolution]
    if pixel_size_um is None and movies:
        pixel_size_um = movies[0].pixel_size_um
    for file, image in zip(high_resolution, images, strict=True):
        _check_pixel_size(file, image.pixel_size_um, pixel_size_um)
    fitted = calibrate(
        [movie.images for movie in movies],
        [image.images for image in images],
        name=out.stem,
        offset=offset,
        bits=max((movie.bits for movie in movies), default=None),
        pixel_size_um=pixel_size_um,
    )
    fitted.save(out)
    return figures(fitted)


def _check(out: Path, pixel_size_um: float | None) -> None:
    """Refuse before anything is read what would fail after the fit."""
    if out.exists():
        raise UsageError(f"--out {out}", "it exists", "choose another name")
    if not out.absolute().parent.is_dir():
        raise StorageError(
            f"cannot write {out}",
            "its folder does not exist",
            "choose a file in a folder you may write to",
        )
    if pixel_size_um is not None and not 0 < pixel_size_um < float("inf"):
        raise UsageError(
            f"--pixel-size {pixel_size_um:g}",
            "it is no size above 0",
            "give the edge of a pixel in µm, such as 0.17",
        )


def _read(file: Path) -> _Recording:
    return _read_czi(file) if file.suffix.lower() == ".czi" else _replay(file)


def _read_czi(file: Path) -> _Recording:
    with opened_czi(file) as czi:
        positions = range(min(MOST_FRAMES, len(czi.planes)))
        images = np.stack([czi.read(position) for position in positions])
        return _Recording(images, czi.pixel_size_um, 8 * czi.dtype.itemsize)


def _replay(file: Path) -> _Recording:
    """Read the longest part without gaps among the first frames of a movie."""
    parts: list[list[Image]] = []
    # The pace is of no interest; said, it need not be guessed with a warning.
    replay = ReplaySettings(input=str(file), fast=True, interval_ms=1.0)
    settings = RunSettings(scope="replay", replay=replay)
    with closing(make_source(settings)) as source:
        info, last = source.open(), None
        refuse_predictions(file)
        for count, frame in enumerate(source.frames(), start=1):
            if last is None or frame.index != last + 1:
                parts.append([])
            parts[-1].append(frame.pixels.copy())
            last = frame.index
            if count == MOST_FRAMES:
                source.stop()
                break
    if not parts:
        raise UsageError(f"{file}", "it has no frames", "give movies")
    return _Recording(np.stack(max(parts, key=len)), info.pixel_size_um, info.bits)


def _check_pixel_size(file: Path, fine: float | None, coarse: float | None) -> None:
    if fine is None or coarse is None:
        return
    if abs(SCALE * fine / coarse - 1) > PIXEL_TOLERANCE:
        raise UsageError(
            f"{file}",
            f"its pixels are {fine:g} µm, those of the frames {coarse:g} µm",
            f"give movies with {SCALE} times the sampling, or say --pixel-size if the files do not",
        )


def figures(fitted: Crappifier) -> str:
    """Put a calibrated crappifier into words.

    Parameters
    ----------
    fitted : Crappifier
        From `calibrate`.

    Returns
    -------
    str
        A line for each figure.
    """
    detect = next(step for step in fitted.steps if isinstance(step, Detect))
    blur = next(step for step in fitted.steps if isinstance(step, Blur))
    fit = fitted.fit
    if fit is None:
        raise UsageError(
            f"crappifier {fitted.name}", "it was not calibrated", "make one with calibrate"
        )
    offset, rates, width = "given", "", "not fitted: give --high-resolution"
    if fit.offset_range is not None:
        offset = "{:.4g} to {:.4g} are possible".format(*fit.offset_range)
    if detect.spread > 1:
        lowest, highest = detect.photons / detect.spread, detect.photons * detect.spread
        rates = f" ({lowest:.3g} to {highest:.3g} between movies)"
    if fit.blur_error is not None:
        low, high = _possible_blurs(blur.sigma, fit.blur_error)
        width = f"{blur.sigma:.2f} restored pixels ({low:.2f} to {high:.2f} are possible)"
    lines = [
        ("gain", f"{detect.gain:.4g} counts a photon (± {100 * fit.gain_error:.0f} %)"),
        ("offset", f"{detect.offset:.4g} counts ({offset})"),
        ("read noise", f"{detect.read_noise:.3g} counts"),
        ("photons", f"{detect.photons:.3g} per dwell time where it is brightest{rates}"),
        ("background", f"{100 * detect.background:.1f} % of them"),
        ("blur", width),
        ("mean-variance line", f"{100 * fit.line_error:.1f} % off at {fit.levels} levels"),
        ("noise histogram", f"{100 * fit.noise_distance:.1f} % apart"),
        ("noise of neighbours", f"correlation {fit.noise_correlation:.2f}"),
    ]
    if fit.spectrum_error_db is not None and fit.histogram_distance is not None:
        lines += [
            ("power spectrum", f"{fit.spectrum_error_db:.1f} dB apart"),
            ("histogram", f"{100 * fit.histogram_distance:.1f} % apart"),
        ]
    return "\n".join(f"{what:<20} {value}" for what, value in lines)


def _possible_blurs(blur: float, error: float) -> tuple[float, float]:
    """Range of two standard errors either way; the spectrum tells the square of the blur."""
    square, twice = blur**2, 2 * ((blur + error) ** 2 - blur**2)
    return max(0.0, square - twice) ** 0.5, (square + twice) ** 0.5
