"""How near one prediction is to another.

All in the network's own units, in which a window has a standard deviation of 1; the figures do not
change if both predictions are brought to raw intensities.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pssr_live.engine.normalise import Statistics, keep_mean

__all__ = ["agreement_db", "contrast_gain", "drop_db", "with_mean_of"]

Plane = NDArray[np.float32]

_SPAN_PERCENTILES = (0.1, 99.9)
"""So that a hot pixel does not count."""


def agreement_db(prediction: Plane, expected: Plane, raw: Plane) -> float:
    """Peak signal-to-noise ratio of a prediction, another one taken for the truth.

    The peak is the range from the 0.1 to the 99.9 percentile of the expected pixels, or of the raw
    ones where that is larger, and at least 1. So what is far below the noise of a frame with next
    to no signal in it counts as little as it matters.

    Parameters
    ----------
    prediction : ndarray, shape (scale·H, scale·W), float32
        To be judged.
    expected : ndarray, shape (scale·H, scale·W), float32
        Taken for the truth.
    raw : ndarray, shape (H, W), float32
        The normalised frame that both restore.

    Returns
    -------
    float
        dB; infinite if they are equal, NaN if the prediction is not finite.
    """
    error = _mean_square(prediction, expected)
    if error == 0:
        return math.inf
    scale = expected.shape[0] // raw.shape[0]
    peak = max(_span(expected[::scale, ::scale]), _span(raw), 1.0)
    return 10 * math.log10(peak**2 / error) if math.isfinite(error) else math.nan


def with_mean_of(raw: Plane, prediction: Plane) -> Plane:
    """Shift a prediction to the mean of the raw frame, as what goes live is where the model asks.

    Parameters
    ----------
    raw : ndarray, shape (H, W), float32
        The normalised frame that is restored.
    prediction : ndarray, shape (scale·H, scale·W), float32
        What the network made of it.

    Returns
    -------
    ndarray, shape (scale·H, scale·W), float32
    """
    kept = keep_mean(Statistics(0.0, 1.0), raw, prediction)
    return prediction + np.float32(kept.mean)


def contrast_gain(prediction: Plane, expected: Plane) -> float:
    """Regress a prediction on another: the factor between their contrasts.

    Parameters
    ----------
    prediction, expected : ndarray, shape (H, W), float32
        The same size.

    Returns
    -------
    float
        1 if they have the same contrast, or if the expected pixels have none.
    """
    deviation = expected - np.float32(expected.mean(dtype=np.float64))
    variance = float(np.vdot(deviation, deviation))
    return float(np.vdot(deviation, prediction)) / variance if variance else 1.0


def drop_db(prediction: Plane, expected: Plane, truth: Plane) -> float:
    """How much nearer to the truth the expected pixels are than the predicted ones.

    Parameters
    ----------
    prediction, expected, truth : ndarray, shape (H, W), float32
        The same size.

    Returns
    -------
    float
        Difference of their peak signal-to-noise ratios, dB; negative if the prediction is nearer.
    """
    smallest = np.finfo(np.float64).tiny
    worse, better = _mean_square(prediction, truth), _mean_square(expected, truth)
    return 10 * math.log10(max(worse, smallest) / max(better, smallest))


def _mean_square(one: Plane, other: Plane) -> float:
    # Sums by rows are exact enough in float32, and faster than in float64. Judges of broken engines
    # meet numbers of any size.
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.square(one - other).mean(axis=1).mean(dtype=np.float64))


def _span(pixels: Plane) -> float:
    low, high = np.percentile(pixels, _SPAN_PERCENTILES)
    return float(high - low)
