"""Image metrics: how good, how sharp, how noisy, how bleached, how moved.

`docs/metrics.md` says of each what it is, where it comes from and how it was checked. Importing
this loads numpy only; the metrics that need scikit-image or SciPy load them when called (the extra
``evaluate``).
"""

from pssr_live.metrics.fidelity import Fidelity, fidelity, match_intensities
from pssr_live.metrics.fourier import RingCorrelation, Threshold, fourier_ring_correlation
from pssr_live.metrics.movies import bleaching_curve, kymograph
from pssr_live.metrics.noise import signal_and_background, signal_to_noise
from pssr_live.metrics.squirrel import ResolutionScaled, resolution_scaled_error

__all__ = [
    "Fidelity",
    "ResolutionScaled",
    "RingCorrelation",
    "Threshold",
    "bleaching_curve",
    "fidelity",
    "fourier_ring_correlation",
    "kymograph",
    "match_intensities",
    "resolution_scaled_error",
    "signal_and_background",
    "signal_to_noise",
]
