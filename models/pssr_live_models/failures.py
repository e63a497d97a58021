"""Pictures of what a model makes of frames that it is not for.

Needs Pillow and scikit-image (extra ``evaluate``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw

from pssr_live.evaluate.stacks import upsample
from pssr_live.settings import Preset
from pssr_live_models.movies import (
    FIRST_EVALUATION_SEED,
    Movie,
    degraded_movie,
    simulated_movie,
)

__all__ = ["failures"]

Image: TypeAlias = NDArray[Any]

_SHOWN = 48
"""Height and width of what the pictures show, scanned pixels."""
_PHOTONS = 14.0


def failures(preset: Preset, restore: Callable[[Image], Image]) -> Picture.Image:
    """Draw what a model makes of frames that it is good for, and of frames that it is not.

    Parameters
    ----------
    preset : {"neuron", "u2os"}
        The model's own.
    restore : callable
        From a window ``(5, H, W)`` to a restored frame ``(4H, 4W)``.

    Returns
    -------
    PIL.Image.Image
        A row each: raw frame (bilinear), restored frame, true image; from the truth's 1st to its
        99.9th percentile, the same grey for the same intensity within a row.
    """
    rows = [_row(label, movie, restore) for label, movie in _cases(preset).items()]
    sheet = Picture.new("L", (rows[0].width, sum(row.height for row in rows)), 255)
    for number, row in enumerate(rows):
        sheet.paste(row, (0, number * row.height))
    return sheet


def _cases(preset: Preset) -> dict[str, Movie]:
    seed = FIRST_EVALUATION_SEED
    rng = np.random.default_rng(seed)
    cells = simulated_movie(preset, seed, size=2 * _SHOWN, frames=5, photons=_PHOTONS)
    return {
        "its own kind": _middle(cells),
        "noise only": _noise(rng),
        "beads smaller than a scanned pixel": degraded_movie(_beads(rng), rng, photons=_PHOTONS),
        "pixels twice too large": degraded_movie(_smaller(cells.truth), rng, photons=_PHOTONS),
        "lines beyond the sampling": degraded_movie(_lines(), rng, photons=_PHOTONS),
    }


def _middle(movie: Movie) -> Movie:
    first = (movie.frames.shape[1] - _SHOWN) // 2
    near, far = slice(first, first + _SHOWN), slice(4 * first, 4 * (first + _SHOWN))
    return Movie(movie.frames[:, near, near], movie.truth[:, far, far])


def _noise(rng: np.random.Generator) -> Movie:
    frames = (100 + 4 * rng.poisson(5.0, (5, _SHOWN, _SHOWN))).astype(np.uint16)
    return Movie(frames, np.full((5, 4 * _SHOWN, 4 * _SHOWN), 120, np.float32))


def _beads(rng: np.random.Generator) -> Image:
    image = np.zeros((4 * _SHOWN, 4 * _SHOWN), np.float32)
    for row, column in rng.integers(8, 4 * _SHOWN - 8, (40, 2)):
        image[row - 1 : row + 1, column - 1 : column + 1] = rng.uniform(0.5, 1.0)
    return np.repeat(image[None], 5, axis=0)


def _smaller(truth: Image) -> Image:
    """Shrink by two, so that the structures are half as large in pixels as they should be."""
    count, height, width = truth.shape
    blocks = truth.reshape(count, height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean(axis=(2, 4)))


def _lines() -> Image:
    """Draw lines whose distance shrinks from four scanned pixels to less than one."""
    where = np.linspace(0, 1, 4 * _SHOWN)
    period = 16 * 0.18**where
    pattern = 0.5 + 0.5 * np.cos(2 * np.pi * np.cumsum(1 / period))
    return np.broadcast_to(pattern.astype(np.float32), (5, 4 * _SHOWN, 4 * _SHOWN)).copy()


def _row(label: str, movie: Movie, restore: Callable[[Image], Image]) -> Picture.Image:
    truth = movie.truth[2].astype(np.float64)
    shown = [upsample(movie.frames[2], 4), restore(movie.frames), truth]
    low, high = np.percentile(truth, 1), np.percentile(truth, 99.9)
    if high - low < 1:
        low, high = np.percentile(shown[0], (1, 99.9))
    gap = np.full((4 * _SHOWN, 6), 255, np.uint8)
    parts: list[Image] = []
    for image in shown:
        grey = 255 * np.clip((image - low) / (high - low), 0, 1)
        parts += [grey.astype(np.uint8), gap]
    panel = Picture.fromarray(np.concatenate(parts[:-1], axis=1))
    row = Picture.new("L", (panel.width, panel.height + 18), 255)
    row.paste(panel, (0, 18))
    ImageDraw.Draw(row).text((2, 3), f"{label}: raw, restored, truth", fill=0)
    return row
