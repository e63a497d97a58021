"""Images scanned afresh for every sample: new noise, other sizes, directions and detectors.

Needs torch and scipy (extra ``train``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, product
from pathlib import Path

import msgspec
import numpy as np

from pssr_live.errors import UsageError
from pssr_live_models.crappify import SCALE, Crappifier, Detect, Sample, find_crappifier
from pssr_live_models.movies import Movie
from pssr_live_models.recordings import RECORDINGS, find_recording, read_recording
from pssr_live_models.training.recordings import Recording
from pssr_live_models.training.samples import Samples
from pssr_live_models.training.scenes import Augmentation, UndersampledMovie

__all__ = ["recorded", "rescans"]

AUGMENTATION = Augmentation(rotation_deg=45.0, zoom=1.3, dimming=0.5)
"""Wider than for one laboratory's own movies: pixel sizes differ."""

_EVERY = 4
"""One movie in so many is scanned again: to find its brightness, all of it has to be read."""
_STILL = 4
"""One of so many stands still, as a fixed sample does."""


def rescans(movies: Sequence[Movie], window_length: int, crop: int, seed: int) -> Samples:
    """Scan the true images of movies again.

    Parameters
    ----------
    movies : sequence of Movie
        Every fourth is taken; one of four of these stands still.
    window_length : int
        Frames of a window.
    crop : int
        Height and width of a sample, scanned pixels.
    seed : int
        Same seed, same samples.

    Returns
    -------
    Samples
    """
    chosen = zip(movies[::_EVERY], cycle(_detectors()), strict=False)
    scenes = [
        UndersampledMovie(_recording(movie, number), detector, window_length, AUGMENTATION)
        for number, (movie, detector) in enumerate(chosen)
    ]
    return Samples(scenes, seed, crop=crop)


def recorded(folder: Path, window_length: int, crop: int, seed: int) -> Samples:
    """Scan real recordings at a quarter of their sampling.

    Parameters
    ----------
    folder : Path
        Holds the recordings that the shipped models learn from; those that are smaller than a crop
        are mirrored at their far edges.
    window_length : int
        Frames of a window.
    crop : int
        Height and width of a sample, scanned pixels.
    seed : int
        Same seed, same samples.

    Returns
    -------
    Samples

    Raises
    ------
    UsageError
        One is not there.
    """
    scenes = []
    for known in RECORDINGS:
        if not known.learnt_from:
            continue
        path = find_recording(known, [folder])
        if path is None:
            raise UsageError(
                f"recording {known.file}",
                f"the shipped models learn from it, and it is not in {folder}",
                f"get it ({known.origin}) and give its folder with --recordings",
            )
        planes = read_recording(path, known.channel)
        missing = [max(0, SCALE * crop - edge) for edge in planes.shape[1:]]
        planes = np.pad(planes, [(0, 0), *((0, more) for more in missing)], "symmetric")
        recording = Recording(known.file, planes, None, "")
        detector = find_crappifier("physical")
        scenes.append(UndersampledMovie(recording, detector, window_length, AUGMENTATION))
    return Samples(scenes, seed, crop=crop)


def _recording(movie: Movie, number: int) -> Recording:
    planes = movie.truth if (number + 1) % _STILL else movie.truth[:1]
    return Recording(f"movie {number}", planes, None, "")


def _detectors() -> list[Crappifier]:
    """Vary the crappifier ``physical``: small and large spots, dark and light backgrounds."""
    physical = find_crappifier("physical")
    return [
        msgspec.structs.replace(
            physical,
            steps=tuple(
                msgspec.structs.replace(step, spot=spot)
                if isinstance(step, Sample)
                else msgspec.structs.replace(step, background=background)
                if isinstance(step, Detect)
                else step
                for step in physical.steps
            ),
        )
        for spot, background in product(("area", "point", "area"), (0.0, 0.05, 0.2))
    ]
