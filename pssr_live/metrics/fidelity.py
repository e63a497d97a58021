"""PSNR and SSIM against ground truth, after the published intensity matching."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pssr_live.errors import UsageError
from pssr_live.frames import Pixels
from pssr_live.metrics.extra import evaluation_libraries
from pssr_live.metrics.images import Floats, same_shape

__all__ = ["Fidelity", "fidelity", "match_intensities"]

LOW_PERCENT, HIGH_PERCENT = 0.1, 99.9
"""Percentiles of the ground truth that become 0 and 1, before its mean is taken off."""

SSIM_WINDOW = 7
"""Edge of SSIM's uniform window, pixels: scikit-image's default, as in the published code."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How close an image comes to the truth.

    Attributes
    ----------
    psnr_db : float
        Peak signal-to-noise ratio, dB; infinite, up to rounding, for identical images.
    ssim : float
        Mean structural similarity; 1 for identical images.
    """

    psnr_db: float
    ssim: float


def match_intensities(image: Pixels, truth: Pixels) -> tuple[Floats, Floats]:
    """Bring an image and the truth to one scale, as the published evaluation does.

    The truth is mapped linearly so that its 0.1 and 99.9 percentiles become 0 and 1 (nothing is
    clipped), and its mean is taken off. The image's mean is taken off too, and it is multiplied by
    the factor that gives the least squared difference from the truth: covariance over variance.
    So neither brightness nor offset of an image counts. An image without structure becomes zero.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        Any dtype and intensity scale.
    truth : ndarray, shape (H, W)
        Same sampling and field.

    Returns
    -------
    image, truth : ndarray, shape (H, W), float64
        Matched, both of mean 0, in units of the truth's percentile range.

    Raises
    ------
    UsageError
        The shapes differ, or the truth has no structure.

    Notes
    -----
    Fang et al., Nat. Methods 18, 406 (2021), in the published ``metric_gen.py``; the same fit of
    scale and offset as ``normalize_minmse`` of CSBDeep (Weigert et al., Nat. Methods 15, 1090
    (2018)). Here in float64, there in float32.
    """
    pixels, target = same_shape(image, truth)
    low, high = np.percentile(target, [LOW_PERCENT, HIGH_PERCENT])
    if not low < high:
        raise UsageError(
            "nothing can be compared with this ground truth", "it is flat", "leave the frame out"
        )
    target = (target - low) / (high - low)
    target -= target.mean()
    pixels = pixels - pixels.mean()
    variance = float(np.square(pixels).mean())
    factor = float((pixels * target).mean()) / variance if variance > 0 else 0.0
    return factor * pixels, target


def flat(truth: Pixels) -> bool:
    """Say whether a ground truth has no structure that `match_intensities` could match to."""
    low, high = np.percentile(truth, [LOW_PERCENT, HIGH_PERCENT])
    return not low < high


def fidelity(image: Pixels, truth: Pixels) -> Fidelity:
    """Compute PSNR and SSIM of an image, intensities matched to the truth's.

    PSNR is 10 log10(1 / mean squared difference). SSIM is averaged over uniform windows of 7×7
    pixels, with the sample covariance, K1 = 0.01 and K2 = 0.03. The data range of both is 1, the
    truth's range from its 0.1 to its 99.9 percentile. Both by scikit-image.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        Any dtype and intensity scale; at least 7×7 pixels.
    truth : ndarray, shape (H, W)
        Same sampling and field.

    Returns
    -------
    Fidelity

    Raises
    ------
    UsageError
        The images do not fit, or scikit-image is not installed.

    Notes
    -----
    Matching and data range: see `match_intensities`. SSIM: Wang et al., IEEE Trans. Image Process.
    13, 600 (2004). The published code gives SSIM images of mean 0, and so does this: the term for
    brightness then differs from that of images between 0 and 1.
    """
    with evaluation_libraries():
        from skimage import metrics
    if min(np.shape(truth)) < SSIM_WINDOW:
        raise UsageError(
            "SSIM cannot be computed",
            f"an image of {np.shape(truth)} pixels is smaller than its window",
            f"give images of at least {SSIM_WINDOW}×{SSIM_WINDOW} pixels",
        )
    matched, target = match_intensities(image, truth)
    psnr: Callable[..., float] = metrics.peak_signal_noise_ratio
    ssim: Callable[..., float] = metrics.structural_similarity
    identical = not np.any(matched != target)
    return Fidelity(
        psnr_db=float("inf") if identical else float(psnr(target, matched, data_range=1.0)),
        ssim=float(ssim(target, matched, data_range=1.0, win_size=SSIM_WINDOW)),
    )
