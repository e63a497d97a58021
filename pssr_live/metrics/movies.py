"""What happens over time: bleaching, and movement along a line."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pssr_live.errors import UsageError
from pssr_live.frames import Pixels
from pssr_live.metrics.images import Floats, Mask, as_floats

__all__ = ["bleaching_curve", "kymograph"]


def bleaching_curve(
    planes: Iterable[Pixels], *, background: float, first: int = 3, region: Mask | None = None
) -> Floats:
    """Compute the mean intensity over time, relative to the first frames.

    The background is taken off each mean, and the curve is divided by the mean of its first
    values: 1 is the brightness at the start, 0 nothing but background.

    Parameters
    ----------
    planes : iterable of ndarray, shape (H, W)
        One at a time, in order; raw and restored frames are on one intensity scale.
    background : float
        Intensity without fluorescence, in the pixels' units: the detector's offset, or the mean
        of a region without cells. It is not guessed: left in, it makes bleaching look weaker.
    first : int
        How many frames at the start count as 1.
    region : ndarray, shape (H, W), bool, optional
        Where to measure; by default everywhere. Of other dtypes, such as masks of 0 and 255, what
        is not 0 counts.

    Returns
    -------
    ndarray, shape (T,), float64

    Raises
    ------
    UsageError
        There are fewer planes than `first`, the region is empty or has another shape, or the
        first frames are not brighter than the background.

    Notes
    -----
    The usual normalisation of photobleaching curves.
    """
    if region is not None:
        region = np.asarray(region, bool)
    means = []
    for plane in planes:
        pixels = as_floats(plane)
        if region is not None and (region.shape != pixels.shape or not region.any()):
            raise UsageError(
                "the bleaching curve cannot be computed",
                f"the region of shape {region.shape} is empty or not of shape {pixels.shape}",
                "give a region of the planes' shape",
            )
        means.append(float(pixels.mean() if region is None else pixels[region].mean()))
    curve = np.asarray(means) - background
    if first < 1 or len(curve) < first or not 0 < curve[:first].mean() < np.inf:
        raise UsageError(
            "the bleaching curve cannot be normalised",
            f"of {len(curve)} frames the first {first} are not brighter than {background:g}",
            "give more frames, or the intensity of the background",
        )
    return curve / float(curve[:first].mean())


def kymograph(
    planes: Iterable[Pixels],
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    width: int = 1,
) -> Floats:
    """Sample all frames along a line: position to the right, time downwards.

    Samples go evenly from start to end, at most one pixel apart, and are interpolated linearly
    between pixel centres. With a width, as many parallel lines, one pixel apart and centred on the
    line, are averaged.

    Parameters
    ----------
    planes : iterable of ndarray, shape (H, W)
        One at a time, in order.
    start, end : tuple of float
        Row and column, in pixels; (0, 0) is the centre of the first pixel. To follow one line in
        raw and restored frames: restored = 4 · raw + 1.5.
    width : int
        Pixels across the line to average over.

    Returns
    -------
    ndarray, shape (T, L), float64
        L is the line's length in pixels, rounded up, plus one; samples are length / (L − 1)
        pixels apart.

    Raises
    ------
    UsageError
        The line has no length, or reaches outside the frames by more than half a pixel.

    Notes
    -----
    As the profile of Fiji's and scikit-image's line tools (``skimage.measure.profile_line``), one
    frame a row.
    """
    length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    if not 0 < length < np.inf or width < 1:
        raise UsageError(
            "there is no kymograph of this line",
            f"it is {length:g} pixels long and {width} wide",
            "give two different points and a width of at least 1",
        )
    along = np.array([(end[axis] - start[axis]) / length for axis in (0, 1)])
    across = np.array([-along[1], along[0]])
    steps = np.linspace(0, length, int(np.ceil(length)) + 1)
    lanes = np.arange(width) - (width - 1) / 2
    rows, columns = (
        start[axis] + along[axis] * steps[:, None] + across[axis] * lanes[None, :]
        for axis in (0, 1)
    )
    profiles = [_sampled(as_floats(plane), rows, columns).mean(axis=1) for plane in planes]
    return np.array(profiles).reshape(-1, len(steps))


def _sampled(pixels: Floats, rows: Floats, columns: Floats) -> Floats:
    """Interpolate linearly between pixel centres; within the outer half pixel values go on."""
    lows, parts = [], []
    for at, size in zip((rows, columns), pixels.shape, strict=True):
        if at.min() < -0.5 or at.max() > size - 0.5:
            raise UsageError(
                "there is no kymograph of this line",
                f"it reaches from {at.min():.1f} to {at.max():.1f} in frames of {size} pixels",
                "choose a line, and a width, inside the frames",
            )
        inside = np.clip(at, 0, size - 1)
        low = np.minimum(inside.astype(np.intp), max(size - 2, 0))
        lows.append(low)
        parts.append(inside - low)
    (row, column), (down, right) = lows, parts
    below = np.minimum(row + 1, pixels.shape[0] - 1)
    beside = np.minimum(column + 1, pixels.shape[1] - 1)
    upper = pixels[row, column] * (1 - right) + pixels[row, beside] * right
    lower = pixels[below, column] * (1 - right) + pixels[below, beside] * right
    return np.asarray(upper * (1 - down) + lower * down)
