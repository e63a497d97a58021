"""What all metrics expect of the images that they are given."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import UsageError
from pssr_live.frames import Pixels

__all__ = ["Floats", "Mask", "as_floats", "same_shape"]

Floats: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]


def as_floats(image: Pixels) -> Floats:
    """Take an image's pixels as float64.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        Any dtype.

    Raises
    ------
    UsageError
        It is no grey image, or has pixels that are not finite.
    """
    pixels = np.asarray(image)
    if pixels.ndim != 2 or pixels.size == 0 or pixels.dtype.kind not in "buif":
        raise UsageError(
            "this is no image",
            f"its shape is {pixels.shape} and its pixels are {pixels.dtype}",
            "give one grey plane (H, W)",
        )
    floats = pixels.astype(np.float64)
    if not np.isfinite(floats).all():
        raise UsageError(
            "this image cannot be measured", "it has pixels that are not finite", "mask them first"
        )
    return floats


def same_shape(first: Pixels, second: Pixels) -> tuple[Floats, Floats]:
    """Take two images of one shape as float64.

    Raises
    ------
    UsageError
        Their shapes differ, or one is no grey image.
    """
    if np.shape(first) != np.shape(second):
        raise UsageError(
            "these images cannot be compared",
            f"their shapes are {np.shape(first)} and {np.shape(second)}",
            "give images with the same sampling of the same field",
        )
    return as_floats(first), as_floats(second)
