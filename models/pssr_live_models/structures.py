"""Structures that are neither mitochondria nor drawn by a smooth field: drawn once, then moved.

Needs scipy (extra ``train``).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

__all__ = ["moving_structures"]

Image: TypeAlias = NDArray[Any]

_MARGIN = 32
"""Pixels that are drawn beyond each edge, so that what moves in is there."""


def moving_structures(rng: np.random.Generator, count: int, size: int) -> Image:
    """Draw filaments, cell borders or vesicles that drift, bend and, some of them, stand still.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws all.
    count : int
        Images.
    size : int
        Height and width.

    Returns
    -------
    ndarray, shape (count, size, size), float32
        At least 0; the brightest structures are at about 1.
    """
    extent = size + 2 * _MARGIN
    kind = rng.integers(4)
    if kind == 0:
        images = _moved(_filaments(rng, extent), rng, count)
    elif kind == 1:
        images = _moved(_borders(rng, extent), rng, count)
    elif kind == 2:
        images = _vesicles(rng, count, extent)
    else:
        images = _moved(_filaments(rng, extent), rng, count) + _vesicles(rng, count, extent)
    images = images[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    sharpness = float(np.exp(rng.uniform(np.log(0.7), np.log(4.0))))
    images = gaussian_filter(images, (0.0, sharpness, sharpness))
    if rng.random() < 1 / 2:
        images = images * np.exp(0.6 * _smooth(rng, size, size / 6))
    images = images / max(float(np.percentile(images, 99.9)), 1e-6)
    return np.asarray(images, np.float32)


def _smooth(rng: np.random.Generator, size: int, length: float) -> Image:
    """Draw one smooth random field of variance 1."""
    coarse = gaussian_filter(rng.standard_normal((size, size)).astype(np.float32), length)
    return np.asarray(coarse / max(float(coarse.std()), 1e-9))


def _points(extent: int, where: Image, weights: Image) -> Image:
    """Add up points on a grid, shared among the four pixels around each."""
    total = np.zeros((extent, extent), np.float32)
    base = np.floor(where).astype(int)
    part = where - base
    for down in (0, 1):
        for right in (0, 1):
            rows, columns = base[:, 0] + down, base[:, 1] + right
            inside = (rows >= 0) & (rows < extent) & (columns >= 0) & (columns < extent)
            share = np.abs(1 - down - part[:, 0]) * np.abs(1 - right - part[:, 1]) * weights
            np.add.at(total, (rows[inside], columns[inside]), share[inside])
    return total


def _filaments(rng: np.random.Generator, extent: int) -> Image:
    """Draw curves that keep their direction for a while, as microtubules and actin do."""
    number = int(np.exp(rng.uniform(np.log(8), np.log(120))))
    steps = 2 * extent
    stiffness = np.exp(rng.uniform(np.log(0.01), np.log(0.12)))
    bends = gaussian_filter(rng.standard_normal((number, steps)), (0.0, 6.0)) * stiffness * 4
    direction = rng.uniform(0, 2 * np.pi, (number, 1)) + np.cumsum(bends, axis=1)
    start = rng.uniform(0, extent, (number, 2, 1))
    path = start + np.cumsum(0.7 * np.stack([np.sin(direction), np.cos(direction)], axis=1), axis=2)
    bright = np.repeat(rng.uniform(0.2, 1.0, number), steps)
    # Some end inside the image.
    ends = np.arange(steps)[None] < rng.uniform(0.2, 1.5, (number, 1)) * steps
    where = path.transpose(0, 2, 1).reshape(-1, 2)
    return _points(extent, where, (bright * ends.ravel()).astype(np.float32))


def _borders(rng: np.random.Generator, extent: int) -> Image:
    """Draw the borders of cells that touch each other, of uneven brightness."""
    cell = np.exp(rng.uniform(np.log(24), np.log(160)))
    number = max(4, int((extent / cell) ** 2))
    seeds = rng.uniform(-cell, extent + cell, (number * 2, 2))
    grid = np.moveaxis(np.mgrid[0:extent:2, 0:extent:2], 0, -1).reshape(-1, 2)
    wobble = (
        0.15 * cell * np.stack([_smooth(rng, extent, cell / 4)[::2, ::2] for _ in range(2)], -1)
    )
    near, _ = cKDTree(seeds).query(grid + wobble.reshape(-1, 2), k=2)
    width = rng.uniform(1.0, 3.0)
    line = np.exp(-np.square((near[:, 1] - near[:, 0]) / (2 * width)))
    image = line.reshape(extent // 2, extent // 2) + rng.uniform(0, 0.2)
    image = image.repeat(2, axis=0).repeat(2, axis=1)
    return np.asarray(image * np.exp(0.5 * _smooth(rng, extent, cell / 3)))


def _moved(image: Image, rng: np.random.Generator, count: int) -> Image:
    """Let an image drift and bend; one in three stands still, as a fixed sample does."""
    if rng.random() < 1 / 3:
        return np.repeat(image[None].astype(np.float32), count, axis=0)
    extent = len(image)
    speed = np.exp(rng.uniform(np.log(0.1), np.log(3.0)))
    drift = rng.normal(0, 0.5 * speed, 2)
    bend = speed * np.stack([_smooth(rng, extent, extent / 10) for _ in range(2)])
    grid = np.mgrid[0:extent, 0:extent].astype(np.float32)
    return np.stack(
        [
            map_coordinates(
                image.astype(np.float32),
                grid + (time - count // 2) * (bend + drift[:, None, None]),
                order=1,
                mode="nearest",
            )
            for time in range(count)
        ]
    )


def _vesicles(rng: np.random.Generator, count: int, extent: int) -> Image:
    """Draw spots of several sizes; each moves on its own."""
    number = int(np.exp(rng.uniform(np.log(20), np.log(1500))))
    where = rng.uniform(0, extent, (number, 2))
    speed = np.exp(rng.uniform(np.log(0.05), np.log(4.0)))
    heading = rng.normal(0, speed, (number, 2)) * (rng.random((number, 1)) < rng.uniform(0, 1))
    bright = rng.gamma(1.5, 1.0, number).astype(np.float32)
    size = rng.integers(3, size=number)
    radii = rng.uniform(0.5, 1.5) * np.array([0.5, 1.5, 3.0])
    images = np.zeros((count, extent, extent), np.float32)
    for time in range(count):
        moved = where + (time - count // 2) * heading
        for group, radius in enumerate(radii):
            chosen = size == group
            spots = _points(extent, moved[chosen], bright[chosen])
            images[time] += gaussian_filter(spots, radius) * radius**2
    return images / max(float(images.max()), 1e-6)
