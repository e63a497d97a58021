"""Normalisation by what the window itself holds, and back.

Kept beside the network, in float32 with float64 statistics, so that it is the same for every
engine and precision. What one window holds makes restoration a pure function of the window: no
maximum of the whole movie (which the published code divides by), and restored frames keep the raw
intensity scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pssr_live.frames import Frame, Pixels

__all__ = ["Statistics", "denormalise", "keep_mean", "normalise"]

_BLOCK_PIXELS = 1 << 17
"""Pixels that are scaled at a time: small enough to stay in a core's cache."""


_TOP_VALUE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is subtracted from a window and what it is then divided by, in raw intensities."""

    mean: float
    std: float


def normalise(
    frames: Sequence[Frame],
    out: NDArray[np.float32],
    training: tuple[float, float] | None = None,
) -> Statistics:
    """Write a window as z-scores.

    Parameters
    ----------
    frames : sequence of Frame
        The window's frames, oldest first.
    out : ndarray, shape (1, len(frames), H, W), float32
        Where to write.
    training : tuple of float or None
        None: z-scores by the mean and standard deviation of all pixels of the window. Otherwise
        the mean and standard deviation that a model was trained with, of images whose brightest
        pixel is 1; the brightest pixel of the window is taken for 1.

    Returns
    -------
    Statistics
        What was subtracted and divided by. A window without contrast is divided by 1.
    """
    for plane, frame in zip(out[0], frames, strict=True):
        np.copyto(plane, frame.pixels)
    if training is not None:
        return _by_brightest_pixel(out, *training)
    mean = float(out.mean(dtype=np.float64))
    out -= np.float32(mean)
    # The mean in float32 misses the true one by a rounding error; the second moment does not care.
    std = float(np.sqrt(np.mean(np.square(out), dtype=np.float64))) or 1.0
    out *= np.float32(1.0 / std)
    return Statistics(mean, std)


def _by_brightest_pixel(out: NDArray[np.float32], mean: float, std: float) -> Statistics:
    brightest = max(float(out.max()), 0.0) or 1.0
    out -= np.float32(mean * brightest)
    out *= np.float32(1.0 / (std * brightest))
    return Statistics(mean * brightest, std * brightest)


def keep_mean(
    statistics: Statistics, raw: NDArray[np.float32], prediction: NDArray[np.float32]
) -> Statistics:
    """Shift what will be added, so that the restored frame gets the mean of its raw frame.

    Intensity over time (bleaching, calcium) can then be measured in either stack.

    Parameters
    ----------
    statistics : Statistics
        Of the window.
    raw : ndarray, shape (H, W), float32
        The frame that is restored, z-scores.
    prediction : ndarray, shape (scale·H, scale·W), float32
        z-scores.

    Returns
    -------
    Statistics
        To bring the prediction back with.
    """
    # Sums by rows are exact enough in float32, and a third faster than in float64.
    predicted = float(prediction.mean(axis=1).mean(dtype=np.float64))
    shift = float(raw.mean(dtype=np.float64)) - predicted
    return Statistics(statistics.mean + statistics.std * shift, statistics.std)


def denormalise(
    prediction: NDArray[np.float32], statistics: Statistics, dtype: np.dtype[np.generic]
) -> Pixels:
    """Bring a prediction back to the raw intensity scale and dtype.

    Parameters
    ----------
    prediction : ndarray, shape (H, W), float32
        z-scores.
    statistics : Statistics
        Of the window.
    dtype : numpy.dtype
        Of the raw frames; integers are rounded to nearest and clipped to their range.

    Returns
    -------
    ndarray, shape (H, W), dtype
    """
    out = np.empty(prediction.shape, dtype)
    top_value = _TOP_VALUE.get(dtype)
    rows = max(1, _BLOCK_PIXELS // prediction.shape[1])
    for top in range(0, prediction.shape[0], rows):
        block = prediction[top : top + rows] * np.float32(statistics.std)
        block += np.float32(statistics.mean)
        if top_value is not None:
            np.rint(block, out=block)
            np.clip(block, 0, top_value, out=block)
        np.copyto(out[top : top + rows], block, casting="unsafe")
    return out
