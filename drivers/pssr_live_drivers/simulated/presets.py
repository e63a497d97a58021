"""The acquisitions that can be simulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pssr_live_drivers.simulated.neuron import NeuronScene
from pssr_live_drivers.simulated.optics import Objective
from pssr_live_drivers.simulated.scene import Scene
from pssr_live_drivers.simulated.u2os import U2osScene

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True, slots=True)
class Preset:
    """How a sample is scanned.

    Attributes
    ----------
    size : int
        Pixels per line, and lines.
    pixel_um, interval_ms, dwell_us, pinhole_au
        Sampling in space and time, and pinhole of the undersampled frames.
    objective : Objective
    bits : int
        Of the detector.
    photons : float
        Expected from the brightest structures per dwell, before bleaching.
    fade : float
        Share of the signal lost in the first 100 frames at ``photons``.
    scene : callable
        Makes the sample from a random generator and the field's edge in µm.
    """

    size: int
    pixel_um: float
    interval_ms: float
    dwell_us: float
    pinhole_au: float
    objective: Objective
    bits: int
    photons: float
    fade: float
    scene: Callable[[np.random.Generator, float], Scene]


RED = Objective(na=1.4, excitation_nm=561.0, emission_nm=605.0)

PRESETS = {
    "neuron": Preset(
        size=440,
        pixel_um=0.170,
        interval_ms=270.49,
        dwell_us=1.2,
        pinhole_au=2.5,
        objective=RED,
        bits=12,
        photons=16.0,
        fade=0.03,
        scene=NeuronScene,
    ),
    "u2os": Preset(
        size=440,
        pixel_um=0.196,
        interval_ms=2000.0,
        dwell_us=2.0,
        pinhole_au=2.5,
        objective=RED,
        bits=16,
        photons=16.0,
        fade=0.05,
        scene=U2osScene,
    ),
}
