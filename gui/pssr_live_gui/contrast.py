"""Automatic contrast: percentiles of a subsample, smoothed over time."""

from __future__ import annotations

import math

import numpy as np

from pssr_live.frames import Pixels

__all__ = ["AutoContrast", "Levels", "levels_of"]

Levels = tuple[float, float]
"""Intensities shown as black and as white."""

LOW, HIGH = 0.5, 99.7
SAMPLE = 128
"""The subsample has at most about this many pixels per side."""


def levels_of(*planes: Pixels) -> Levels:
    """Find the intensities to show as black and as white.

    Parameters
    ----------
    *planes : ndarray, shape (H, W)
        One or more planes; about 128 × 128 pixels of each are looked at.

    Returns
    -------
    tuple of float
        Two different intensities, the lower first; (0, 1) if no pixel is finite.
    """
    samples = []
    for plane in planes:
        steps = [max(1, math.ceil(side / SAMPLE)) for side in plane.shape]
        samples.append(plane[:: steps[0], :: steps[1]].ravel())
    sample = np.concatenate(samples).astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return (0.0, 1.0)
    low, high = (float(value) for value in np.percentile(sample, (LOW, HIGH)))
    if high > low:
        return (low, high)
    return (low, low + max(1.0, abs(low) * 1e-6))


class AutoContrast:
    """Contrast that follows bleaching and focus slowly, so that the picture does not flicker.

    Parameters
    ----------
    settle_s : float
        Time constant of the smoothing, s.
    """

    def __init__(self, settle_s: float = 1.5) -> None:
        self._settle_s = settle_s
        self._levels: Levels | None = None
        self._when = 0.0

    def restart(self) -> None:
        """Forget the past: the next frame sets the contrast at once."""
        self._levels = None

    def update(self, pixels: Pixels, now_s: float) -> Levels:
        """Take one more frame into account.

        Parameters
        ----------
        pixels : ndarray, shape (H, W)
            The frame.
        now_s : float
            Time, s, on any clock that does not go back.

        Returns
        -------
        tuple of float
            Intensities to show as black and as white.
        """
        target = levels_of(pixels)
        before, self._levels = self._levels, target
        if before is not None and before[0] < target[1] and target[0] < before[1]:
            weight = 1.0 - math.exp(-max(0.0, now_s - self._when) / self._settle_s)
            self._levels = (
                before[0] + weight * (target[0] - before[0]),
                before[1] + weight * (target[1] - before[1]),
            )
        # Ranges that do not even overlap: another scene or laser power. Waiting would show black.
        self._when = now_s
        return self._levels
