"""Signal-to-noise ratio of one image."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pssr_live.errors import UsageError
from pssr_live.frames import Pixels
from pssr_live.metrics.extra import evaluation_libraries
from pssr_live.metrics.images import Mask, as_floats

__all__ = ["signal_and_background", "signal_to_noise"]

BACKGROUND_PERCENT = 25.0


def signal_and_background(reference: Pixels) -> tuple[Mask, Mask]:
    """Find where an image shows structures and where it shows nothing.

    Take the regions from the truth, or from a mean over time, never from the image that is
    measured: its own noise would sort its pixels.

    Parameters
    ----------
    reference : ndarray, shape (H, W)
        Little or no noise.

    Returns
    -------
    signal, background : ndarray, shape (H, W), bool
        Pixels above Otsu's threshold (IEEE Trans. Syst. Man Cybern. 9, 62 (1979), by
        scikit-image); and those up to the 25th percentile that are not above that threshold.

    Raises
    ------
    UsageError
        The image is flat, or scikit-image is not installed.
    """
    with evaluation_libraries():
        from skimage import filters
    pixels = as_floats(reference)
    if np.ptp(pixels) == 0:
        raise UsageError("signal and background", "the image is flat", "give one with structures")
    otsu: Callable[..., float] = filters.threshold_otsu
    signal = pixels > otsu(pixels)
    background = (pixels <= np.percentile(pixels, BACKGROUND_PERCENT)) & ~signal
    return signal, background


def signal_to_noise(image: Pixels, signal: Mask, background: Mask) -> float:
    """Compute the signal-to-noise ratio of an image.

    (Mean over the signal − mean over the background) / standard deviation over the background;
    a ratio without unit, not in dB. It does not change with the image's brightness or offset.

    It measures noise only where the background is truly empty, and any smoothing raises it: an
    image whose background a network has made flat has a huge or infinite ratio and may still be
    wrong. It is no measure of fidelity.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        Any dtype.
    signal, background : ndarray, shape (H, W), bool
        Where the structures are, and where nothing is; see `signal_and_background`. Of other
        dtypes, such as masks of 0 and 255, what is not 0 counts.

    Returns
    -------
    float
        Infinite, with the sign of the contrast, if the background has no variation at all; not a
        number if there is no contrast either.

    Raises
    ------
    UsageError
        A region has fewer than two pixels, or another shape than the image.

    Notes
    -----
    The contrast-over-background-noise definition common in fluorescence microscopy. The PSSR paper
    (Fang et al., Nat. Methods 18, 406 (2021)) reports an SNR of its fluorescence movies; its code
    has none, and the wording of its methods section was not at hand, so figures of this function
    are not claimed to be comparable with the paper's.
    """
    pixels = as_floats(image)
    signal, background = np.asarray(signal, bool), np.asarray(background, bool)
    for name, region in (("signal", signal), ("background", background)):
        if region.shape != pixels.shape or np.count_nonzero(region) < 2:
            raise UsageError(
                "the signal-to-noise ratio cannot be computed",
                f"the {name} has {np.count_nonzero(region)} pixels of {region.shape}",
                f"give regions of shape {pixels.shape} with at least two pixels each",
            )
    contrast = float(pixels[signal].mean() - pixels[background].mean())
    noise = float(pixels[background].std(ddof=1))
    return contrast / noise if noise > 0 else contrast * math.inf
