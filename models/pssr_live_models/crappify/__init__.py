"""Crappifiers: from movies at full sampling to the undersampled frames that a scanner would give.

A crappifier is a list of steps with a seed. `find_crappifier` takes the name of a preset or a file
that `Crappifier.save` or ``pssr-live calibrate`` wrote; `Crappifier.crappify` gives the frames
together with the noise-free truth on the frames' own intensity scale::

    pair = find_crappifier("physical").crappify(images, np.random.default_rng(7))
    pair.frames  # (T, H, W), uint8, uint16 or float32
    pair.truth   # (T, 4H, 4W), float32: gain and offset applied, no noise, not undersampled

`calibrate` fits the physical crappifier to a laboratory's own frames.

Needs numpy and scipy (extras ``train`` and ``evaluate``), no torch.
"""

from __future__ import annotations

from pssr_live_models.crappify.calibrate import calibrate
from pssr_live_models.crappify.crappifier import Crappifier, Fit, load_crappifier
from pssr_live_models.crappify.presets import PRESETS, find_crappifier
from pssr_live_models.crappify.steps import (
    SCALE,
    Blur,
    Degradation,
    Detect,
    Digitise,
    GaussianNoise,
    LocalVarianceNoise,
    Multiply,
    Pair,
    PoissonNoise,
    RestoreMaximum,
    SaltAndPepper,
    Sample,
    Step,
    Unit,
)

__all__ = [
    "PRESETS",
    "SCALE",
    "Blur",
    "Crappifier",
    "Degradation",
    "Detect",
    "Digitise",
    "Fit",
    "GaussianNoise",
    "LocalVarianceNoise",
    "Multiply",
    "Pair",
    "PoissonNoise",
    "RestoreMaximum",
    "SaltAndPepper",
    "Sample",
    "Step",
    "Unit",
    "calibrate",
    "find_crappifier",
    "load_crappifier",
]
