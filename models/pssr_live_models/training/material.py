"""What a training learns from and what it is judged by, from files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pssr_live.errors import UsageError
from pssr_live_models.crappify import Crappifier
from pssr_live_models.training.pairs import recorded_pair
from pssr_live_models.training.recordings import Recording, find_files, open_recording
from pssr_live_models.training.samples import SCALE, Scene
from pssr_live_models.training.scenes import Augmentation, UndersampledMovie

__all__ = ["SMALLEST", "Material", "material_of_movies", "material_of_pairs"]

log = logging.getLogger(__name__)

SMALLEST = 16
"""Height and width of the smallest window to validate on, scanned pixels."""

_HELD_OUT = 0.15
"""Share of the movies that are kept for validation; at least one."""

_COARSEST_UM = 0.35
"""Scanned pixels above this size make one wonder whether the movies were undersampled already."""


@dataclass(frozen=True, slots=True)
class Material:
    """Scenes to train on and to validate on.

    Attributes
    ----------
    training, validation : sequence of Scene
        None is in both.
    split : str
        What validation is done on, in words.
    recordings : tuple of Recording
        All of them.
    pixel_size_um : tuple of float, or None
        Range of raw pixel sizes, µm; None if a file does not say.
    shortest : int
        Largest crop that fits into every scene to train on, scanned pixels.
    source : str
        What was trained on, in words.
    """

    training: Sequence[Scene]
    validation: Sequence[Scene]
    split: str
    recordings: tuple[Recording, ...]
    pixel_size_um: tuple[float, float] | None
    shortest: int
    source: str


def material_of_movies(
    given: Sequence[Path],
    cache: Path,
    crappifier: Crappifier,
    window_length: int,
    augmentation: Augmentation,
    *,
    seed: int,
    on_plane: Callable[[str, int, int], object],
) -> Material:
    """Take movies at full sampling; a crappifier makes the undersampled frames.

    Parameters
    ----------
    given : sequence of Path
        Movies, and folders of movies.
    cache : Path
        Folder for arrays.
    crappifier : Crappifier
        What undersamples them.
    window_length : int
        Frames of a window.
    augmentation : Augmentation
        How movies to train on are varied.
    seed : int
        Chooses the movies to validate on.
    on_plane : callable
        Called with (movie, planes read, planes) while reading.

    Returns
    -------
    Material

    Raises
    ------
    PssrLiveError
        A movie cannot be read or is too small.
    """
    movies = [_opened(file, cache, on_plane) for file in find_files(given)]
    training, validation, split = _divided(movies, seed)
    _check_fields(validation)
    _check_lengths(movies, window_length)
    frames = sum(len(movie.planes) for movie in movies)
    pixels_um = _pixel_sizes(movies, SCALE)
    if pixels_um is not None:
        _check_pixels(pixels_um, crappifier)
        pixels_um = pixels_um[0] / augmentation.zoom, pixels_um[1] * augmentation.zoom
    return Material(
        [UndersampledMovie(one, crappifier, window_length, augmentation) for one in training],
        [UndersampledMovie(one, crappifier, window_length, augmentation) for one in validation],
        split,
        tuple(movies),
        pixels_um,
        min(min(movie.planes.shape[1:]) for movie in training) // SCALE,
        f"{len(movies)} recordings ({frames} frames), undersampled by the crappifier "
        f"{crappifier.name}",
    )


def material_of_pairs(
    undersampled: Sequence[Path],
    truths: Sequence[Path],
    cache: Path,
    window_length: int,
    *,
    on_plane: Callable[[str, int, int], object],
) -> Material:
    """Take undersampled recordings with their ground truth.

    Parameters
    ----------
    undersampled, truths : sequence of Path
        As many of each, in one order.
    cache : Path
        Folder for arrays.
    window_length : int
        Frames of a window.
    on_plane : callable
        Called with (recording, planes read, planes) while reading.

    Returns
    -------
    Material

    Raises
    ------
    PssrLiveError
        A recording cannot be read, or does not belong to its truth.
    """
    if len(undersampled) != len(truths):
        raise UsageError(
            f"{len(undersampled)} --undersampled and {len(truths)} --truth",
            "each recording needs its ground truth",
            "give both, in the same order",
        )
    raw = [_opened(file, cache, on_plane) for file in undersampled]
    clean = [_opened(file, cache, on_plane) for file in truths]
    pairs = [recorded_pair(*both, window_length) for both in zip(raw, clean, strict=True)]
    if len(pairs) == 1:
        upper, lower = pairs[0].split()
        training, validation = [upper], [lower]
        split = f"the lowest quarter of {raw[0].name}, the rest of which was trained on"
    else:
        *training, last = pairs
        validation = [last]
        split = f"{raw[-1].name}, not trained on"
    if min(pair.shortest for pair in validation) < SMALLEST:
        raise _too_small(raw[-1].name, SMALLEST if len(pairs) > 1 else 4 * SMALLEST)
    pixels_um = _pixel_sizes(raw, 1)
    return Material(
        training,
        validation,
        split,
        (*raw, *clean),
        pixels_um,
        min(pair.shortest for pair in training),
        f"{len(pairs)} real undersampled recordings ({sum(len(one.planes) for one in raw)} frames) "
        "with their ground truth",
    )


def _opened(file: Path, cache: Path, on_plane: Callable[[str, int, int], object]) -> Recording:
    return open_recording(file, cache, lambda done, total: on_plane(file.name, done, total))


def _divided(
    movies: Sequence[Recording], seed: int
) -> tuple[list[Recording], list[Recording], str]:
    """Keep whole movies for validation, or of a single one a part of its field; say which."""
    if len(movies) == 1:
        (movie,) = movies
        split = f"the lowest quarter of {movie.name}, the rest of which was trained on"
        return *_upper_and_lower(movie), split
    count = max(1, round(_HELD_OUT * len(movies)))
    held_out = set(np.random.default_rng(seed).permutation(len(movies))[:count].tolist())
    training = [movie for place, movie in enumerate(movies) if place not in held_out]
    validation = [movies[place] for place in sorted(held_out)]
    names = ", ".join(movie.name for movie in validation)
    return training, validation, f"{count} of {len(movies)} movies, not trained on ({names})"


def _upper_and_lower(movie: Recording) -> tuple[list[Recording], list[Recording]]:
    height = movie.planes.shape[1]
    cut = height - height // 4
    return [movie.rows(slice(0, cut))], [movie.rows(slice(cut, height))]


def _check_fields(validation: Sequence[Recording]) -> None:
    for movie in validation:
        if min(movie.planes.shape[1:]) < SCALE * SMALLEST:
            raise _too_small(movie.name, SCALE * SMALLEST)
    if all(movie.is_flat() for movie in validation):
        raise UsageError(
            f"movie {validation[0].name}",
            "what is kept for validation is equally bright everywhere",
            "give movies that show something",
        )


def _check_lengths(movies: Sequence[Recording], window_length: int) -> None:
    for movie in movies:
        if window_length > 1 and len(movie.planes) < window_length:
            log.warning(
                "%s is shorter than a window (%d of %d frames); windows repeat its frames and show "
                "no movement",
                movie.name,
                len(movie.planes),
                window_length,
            )


def _too_small(name: str, edge: int) -> UsageError:
    return UsageError(
        f"movie {name}",
        f"the part of it that is kept for validation is less than {edge} pixels high or wide",
        "give larger movies, or more than one",
    )


def _pixel_sizes(movies: Sequence[Recording], scale: int) -> tuple[float, float] | None:
    sizes = [movie.pixel_size_um for movie in movies]
    known = [size * scale for size in sizes if size]
    return (min(known), max(known)) if len(known) == len(sizes) else None


def _check_pixels(pixels_um: tuple[float, float], crappifier: Crappifier) -> None:
    low, high = pixels_um
    if high > _COARSEST_UM:
        log.warning(
            "the movies' pixels are up to %.3g µm; four times that is coarse for a scan: movies to "
            "train on have full sampling",
            high / SCALE,
        )
    fitted = crappifier.pixel_size_um
    if fitted is not None and not low / 1.15 <= fitted <= high * 1.15:
        log.warning(
            "the crappifier was fitted to frames with pixels of %.3g µm; these movies give frames "
            "with %.3g to %.3g µm",
            fitted,
            low,
            high,
        )
