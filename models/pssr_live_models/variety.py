"""Images beside the simulated cells, so that the network learns scanning and not one kind of cell.

A network that has seen simulated mitochondria only takes membranes and vesicles of real recordings
for haze, and removes them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["altered_images", "drawn_images"]

Image: TypeAlias = NDArray[Any]


def altered_images(images: Image, rng: np.random.Generator) -> Image:
    """Make something else of known images: other size, contrast and sharpness.

    Parameters
    ----------
    images : ndarray, shape (T, H, W)
        H and W even.
    rng : numpy.random.Generator
        Draws the changes.

    Returns
    -------
    ndarray, shape (T, H, W) or (T, H/2, W/2), float32
        At least 0; the brightest structures are at about 1.
    """
    if rng.random() < 1 / 2:
        count, height, width = images.shape
        images = images.reshape(count, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    low, high = np.percentile(images, (0.1, 99.9))
    images = np.clip((images.astype(np.float32) - low) / max(high - low, 1e-6), 0, 2)
    images = images ** np.exp(rng.uniform(np.log(0.5), np.log(2.0)))
    return _blurred(images, rng.uniform(0.0, 3.0))


def drawn_images(rng: np.random.Generator, count: int, size: int) -> Image:
    """Draw outlines, filled areas and spots of random size that slowly change shape.

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
    total = np.zeros((count, size, size), np.float32)
    for _ in range(rng.integers(1, 4)):
        field = _field(rng, count, size, 3, 40)
        width = rng.uniform(0.05, 0.4)
        shape = rng.integers(3)
        if shape == 0:
            layer = np.exp(-np.square(field / width))
        elif shape == 1:
            layer = (1 + np.tanh((field - rng.uniform(-1, 1.5)) / width)) / 2
        else:
            layer = np.clip(field - rng.uniform(0.8, 2.0), 0, None)
        glow = np.exp(0.5 * _field(rng, count, size, 4, 60))
        total += rng.uniform(0.2, 1.0) * layer * glow
    total = _blurred(total, rng.uniform(0.5, 4.0))
    return total / max(float(np.percentile(total, 99.9)), 1e-6)


def _field(
    rng: np.random.Generator, count: int, size: int, shortest: float, longest: float
) -> Image:
    """Draw smooth random fields of variance 1, of a random length, that turn into each other."""
    # A field that is smooth over the whole image is nothing but a huge constant.
    length = min(np.exp(rng.uniform(np.log(shortest), np.log(longest))), size / 8)
    ends = _blurred(rng.standard_normal((2, size, size)).astype(np.float32), length)
    ends /= ends.std(axis=(1, 2), keepdims=True)
    turn = rng.uniform(0, 0.12) * np.arange(count, dtype=np.float32)[:, None, None]
    return np.asarray(np.cos(turn) * ends[0] + np.sin(turn) * ends[1])


def _blurred(images: Image, sigma: float) -> Image:
    """Gaussian blur with joined edges; ``sigma`` in pixels."""
    rows = np.fft.fftfreq(images.shape[1])[:, None]
    columns = np.fft.rfftfreq(images.shape[2])
    transfer = np.exp(-2 * np.square(np.pi * sigma) * (np.square(rows) + np.square(columns)))
    spectrum = np.fft.rfft2(images) * transfer
    blurred = np.fft.irfft2(spectrum, s=images.shape[1:]).astype(np.float32)
    return np.clip(blurred, 0, None) if images.min() >= 0 else blurred
