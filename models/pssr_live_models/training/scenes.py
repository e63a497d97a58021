"""Movies at full sampling as scenes: cut, turned, zoomed, and undersampled by a crappifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pssr_live_models.crappify import Crappifier, Unit
from pssr_live_models.training.recordings import Recording
from pssr_live_models.training.samples import SCALE, Region, draw_window

__all__ = ["Augmentation", "UndersampledMovie"]

Image: TypeAlias = NDArray[Any]

_PLACES = 4
"""Of so many places, half of the samples take the one with the most structure."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How a movie is varied before it is undersampled, beside crops and the square's symmetries.

    Attributes
    ----------
    rotation_deg : float
        Largest angle either way. Half of the samples are turned and zoomed.
    zoom : float
        Largest factor, and its inverse the smallest.
    dimming : float
        Smallest factor of brightness; the largest is 1.
    """

    rotation_deg: float = 10.0
    zoom: float = 1.1
    dimming: float = 0.5


class UndersampledMovie:
    """A movie at full sampling as a scene; every region is undersampled afresh.

    A single image stands for a sample that does not move: each frame of a window is a scan of it
    with noise of its own.

    Parameters
    ----------
    movie : Recording
        At full sampling.
    crappifier : Crappifier
        What undersamples it.
    window_length : int
        Frames of a window.
    augmentation : Augmentation
        How it is varied.
    """

    def __init__(
        self,
        movie: Recording,
        crappifier: Crappifier,
        window_length: int,
        augmentation: Augmentation,
    ) -> None:
        self._planes = movie.planes
        self._length = window_length
        self._augmentation = augmentation
        self._low, self._span = 0.0, 1.0
        steps: Sequence[object] = crappifier.steps
        if isinstance(steps[0], Unit):
            # The scale is that of the whole movie, not that of each crop.
            self._low, self._span = movie.unit(steps[0].low, steps[0].high)
            steps = steps[1:]
        self._crappifier = msgspec.structs.replace(crappifier, steps=tuple(steps))

    def region(self, rng: np.random.Generator, size: int, *, varied: bool) -> Region:
        """Cut a region at random; see `pssr_live_models.training.samples.Scene`."""
        shortest = min(self._planes.shape[1:]) // SCALE
        size = min(size, shortest)
        if varied and rng.random() < 1 / 2:
            size = min(size * 3 // 2, shortest)
        index, chosen = draw_window(rng, len(self._planes), self._length, varied=varied)
        if len(self._planes) == 1:
            scans, scanned, middle = chosen, np.arange(self._length), self._length // 2
        else:  # a frame that stands in for another has the same noise
            unique, scanned = np.unique(chosen, return_inverse=True)
            scans, middle = list(unique), int(np.searchsorted(unique, index))
        images = self._cut(rng, scans, index, SCALE * size, varied)
        images = np.maximum(images - self._low, 0) / self._span if self._span else images
        if varied:
            images *= self._augmentation.dimming ** rng.random()
        pair = self._crappifier.crappify(images.astype(np.float32), rng)
        return Region(pair.frames[scanned], pair.truth[middle])

    def _cut(
        self, rng: np.random.Generator, scans: list[int], index: int, edge: int, varied: bool
    ) -> Image:
        """Cut, turn and zoom; ``edge`` in pixels of the movie."""
        turned = self._augmentation
        angle, zoom, needed = 0.0, 1.0, edge
        if varied and turned.rotation_deg and rng.random() < 1 / 2:
            angle = math.radians(turned.rotation_deg) * rng.uniform(-1, 1)
            zoom = turned.zoom ** rng.uniform(-1, 1)
            needed = math.ceil(edge * (math.cos(angle) + abs(math.sin(angle))) / zoom) + 2
            if needed > min(self._planes.shape[1:]):
                angle, zoom, needed = 0.0, 1.0, edge
        top, left = self._place(rng, index, needed, choose=not varied or rng.random() < 1 / 2)
        cut = self._planes[:, top : top + needed, left : left + needed]
        images = np.stack([cut[scan] for scan in scans]).astype(np.float32)
        return images if needed == edge else _warped(images, angle, zoom, edge)

    def _place(
        self, rng: np.random.Generator, index: int, edge: int, *, choose: bool
    ) -> tuple[int, int]:
        height, width = self._planes.shape[1:]
        tops = rng.integers(height - edge + 1, size=_PLACES)
        lefts = rng.integers(width - edge + 1, size=_PLACES)
        if not choose:
            return int(tops[0]), int(lefts[0])
        plane = self._planes[index]
        contrasts = [
            float(np.std(plane[top : top + edge : SCALE, left : left + edge : SCALE]))
            for top, left in zip(tops, lefts, strict=True)
        ]
        best = int(np.argmax(contrasts))
        return int(tops[best]), int(lefts[best])


def _warped(images: Image, angle: float, zoom: float, edge: int) -> Image:
    """Turn and zoom about the centre, bicubically; the result is ``edge`` high and wide."""
    reach = edge / (zoom * images.shape[1])
    cosine, sine = reach * math.cos(angle), reach * math.sin(angle)
    matrix = torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]])
    grid = functional.affine_grid(matrix, [1, len(images), edge, edge], align_corners=False)
    warped = functional.grid_sample(
        torch.from_numpy(images)[None], grid, mode="bicubic", align_corners=False
    )
    return np.asarray(warped[0].numpy())
