"""Resolution-scaled error and Pearson correlation, with an error map (NanoJ-SQUIRREL)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pssr_live.errors import UsageError
from pssr_live.frames import Pixels
from pssr_live.metrics.extra import evaluation_libraries
from pssr_live.metrics.images import Floats, as_floats

__all__ = ["ResolutionScaled", "resolution_scaled_error"]

WIDEST = 10.0
"""Largest Gaussian tried, in the reference's pixels: NanoJ-SQUIRREL's own bound."""

SIGMA_WITHIN = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class ResolutionScaled:
    """An image compared with a reference at the reference's resolution.

    Attributes
    ----------
    rse : float
        Resolution-scaled error: root mean squared difference, in the reference's intensities.
    rsp : float
        Resolution-scaled Pearson correlation, −1 to 1; 0 for an image without structure.
    factor, offset : float
        What the image's intensities are multiplied by and what is added then.
    sigma_px : float
        Standard deviation of the Gaussian that the image is blurred with, in its own pixels.
    error_map : ndarray, shape (H, W), float64
        Absolute difference per pixel, in the reference's intensities.
    """

    rse: float
    rsp: float
    factor: float
    offset: float
    sigma_px: float
    error_map: Floats


def resolution_scaled_error(image: Pixels, reference: Pixels) -> ResolutionScaled:
    """Scale, shift and blur an image until it fits a reference best, and see what is left.

    A true image of better resolution, blurred by the resolution-scaling function, gives the
    reference; what does not fit is an error of the image (or noise of the reference). Scale and
    offset are those of the least squared difference for each width of the blur, a Gaussian; the
    width with the smallest difference is taken.

    Parameters
    ----------
    image : ndarray, shape (s·H, s·W)
        The image to judge.
    reference : ndarray, shape (H, W)
        The same field at the same or coarser sampling (s = 1, 2, …); it is brought to the image's
        sampling by cubic splines first. A noisy reference sets a floor to the error.

    Returns
    -------
    ResolutionScaled

    Raises
    ------
    UsageError
        The sizes do not fit, the reference is flat, or SciPy is not installed.

    Notes
    -----
    Culley et al., Nat. Methods 15, 263 (2018): NanoJ-SQUIRREL. As in its successor NanoPyx
    (Saraiva et al., Nat. Methods 22, 283 (2025)) the width is searched in one dimension with the
    linear fit inside, where NanoJ-SQUIRREL has a particle swarm over all three numbers.
    """
    with evaluation_libraries():
        from scipy.ndimage import gaussian_filter
        from scipy.optimize import minimize_scalar
    pixels, coarse = as_floats(image), as_floats(reference)
    magnification = _magnification(pixels, coarse)
    target = _magnified(coarse, magnification)
    if np.ptp(target) == 0:
        raise UsageError("resolution-scaled error", "the reference is flat", "leave the frame out")

    def blurred(sigma: float) -> Floats:
        return np.asarray(gaussian_filter(pixels, sigma))

    def error(sigma: float) -> float:
        return _fit(blurred(sigma), target)[2]

    widest = WIDEST * magnification
    found = minimize_scalar(
        error, bounds=(0, widest), method="bounded", options={"xatol": SIGMA_WITHIN}
    )
    # A bounded search never tries its bounds; no blur at all is a frequent best one.
    sigma = min((0.0, float(found.x), widest), key=error)
    scaled = blurred(sigma)
    factor, offset, rse = _fit(scaled, target)
    scaled = factor * scaled + offset
    spread = float(scaled.std() * target.std())
    covariance = float(((scaled - scaled.mean()) * (target - target.mean())).mean())
    return ResolutionScaled(
        rse=rse,
        rsp=max(-1.0, min(covariance / spread, 1.0)) if spread > 0 else 0.0,
        factor=factor,
        offset=offset,
        sigma_px=sigma,
        error_map=np.abs(scaled - target),
    )


def _magnification(image: Floats, reference: Floats) -> int:
    magnification = int(image.shape[0]) // int(reference.shape[0])
    if magnification < 1 or image.shape != tuple(magnification * n for n in reference.shape):
        raise UsageError(
            "these images cannot be compared",
            f"{image.shape} is no whole multiple of the reference's {reference.shape}",
            "give a reference of the same field",
        )
    return magnification


def _magnified(reference: Floats, magnification: int) -> Floats:
    """Interpolate around pixel centres, as everywhere in this program."""
    if magnification == 1:
        return reference
    from scipy.ndimage import zoom

    return np.asarray(zoom(reference, magnification, order=3, mode="mirror", grid_mode=True))


def _fit(image: Floats, target: Floats) -> tuple[float, float, float]:
    """Find factor and offset of the least squared difference, and its root mean square."""
    centred = image - image.mean()
    variance = float(np.square(centred).mean())
    factor = float((centred * target).mean()) / variance if variance > 0 else 0.0
    difference = factor * centred + target.mean() - target
    offset = float(target.mean() - factor * image.mean())
    return factor, offset, float(np.sqrt(np.square(difference).mean()))
