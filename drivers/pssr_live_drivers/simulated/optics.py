"""Confocal optics: how sharp a spot the microscope sees, and how thick a slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Objective", "lateral_sigma_um", "section_um"]

IMMERSION = 1.518
"""Refractive index of immersion oil."""


@dataclass(frozen=True, slots=True)
class Objective:
    """Objective and light.

    Attributes
    ----------
    na : float
        Numerical aperture, in oil.
    excitation_nm, emission_nm : float
        Wavelengths of laser and of detected light, nm.
    """

    na: float
    excitation_nm: float
    emission_nm: float

    def airy_unit_um(self) -> float:
        """Diameter of one Airy unit of the emission, in the sample, µm."""
        return 1.22 * self.emission_nm / 1000 / self.na


def _airy(r_um: NDArray[np.float64], wavelength_nm: float, na: float) -> NDArray[np.float64]:
    """Intensity of a diffraction-limited spot, 1 at its centre (scalar theory)."""
    v = 2 * np.pi * na / (wavelength_nm / 1000) * r_um
    # Bessel's integral for J1; the trapezoid rule converges exponentially on a whole period.
    tau = (np.arange(64) + 0.5) * (np.pi / 64)
    v_axis = np.linspace(0.0, float(v.max()), 1024)
    j1 = np.cos(tau[None, :] - v_axis[:, None] * np.sin(tau)[None, :]).mean(axis=1)
    profile = np.ones_like(v_axis)
    profile[1:] = (2 * j1[1:] / v_axis[1:]) ** 2
    return np.interp(v, v_axis, profile)


def lateral_sigma_um(objective: Objective, pinhole_au: float) -> float:
    """Width of the Gaussian with the confocal spot's full width at half maximum.

    The confocal spot is the excitation spot times the emission spot smeared by the pinhole
    (scalar theory, in focus).

    Parameters
    ----------
    objective : Objective
    pinhole_au : float
        Pinhole diameter, Airy units of the emission.

    Returns
    -------
    float
        Standard deviation, µm.
    """
    step, half = 0.01, 160
    axis = (np.arange(2 * half) - half) * step
    r = np.hypot(axis[:, None], axis[None, :])
    emission = _airy(r, objective.emission_nm, objective.na)
    pinhole = (r <= pinhole_au * objective.airy_unit_um() / 2).astype(np.float64)
    spectrum = np.fft.rfft2(np.fft.ifftshift(emission)) * np.fft.rfft2(np.fft.ifftshift(pinhole))
    seen = np.fft.fftshift(np.fft.irfft2(spectrum, s=r.shape))
    spot = (_airy(r, objective.excitation_nm, objective.na) * seen)[half, half:]
    spot = spot / spot[0]
    beyond = int(np.argmax(spot < 0.5))
    inner, outer = spot[beyond - 1], spot[beyond]
    half_width = step * (beyond - 1 + (inner - 0.5) / (inner - outer))
    return float(half_width / np.sqrt(2 * np.log(2)))


def section_um(objective: Objective, pinhole_au: float) -> float:
    """Thickness of the optical section, full width at half maximum.

    Parameters
    ----------
    objective : Objective
    pinhole_au : float
        Pinhole diameter, Airy units of the emission.

    Returns
    -------
    float
        Thickness, µm: wave-optical and geometrical part added in squares, as for pinholes of
        one Airy unit and more.
    """
    depth = IMMERSION - np.sqrt(IMMERSION**2 - objective.na**2)
    wave = 0.88 * objective.excitation_nm / 1000 / depth
    pinhole_um = pinhole_au * objective.airy_unit_um()
    return float(np.hypot(wave, np.sqrt(2) * IMMERSION * pinhole_um / objective.na))
