"""From expected photons to digital numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pssr_live_drivers.simulated.scene import Floats

__all__ = ["Detector"]


@dataclass(frozen=True, slots=True)
class Detector:
    """A photomultiplier and its digitiser.

    Attributes
    ----------
    bits : int
        Of the digitiser; values are clipped to ``0 .. 2**bits - 1``.
    gain : float
        Mean digital numbers per photon.
    offset : float
        Digital number without light.
    read_noise : float
        Standard deviation of the electronics, digital numbers.
    pulse_spread : float
        Relative standard deviation of the pulse that one photon makes: raises the variance of a
        signal by ``1 + pulse_spread**2`` over the Poisson variance.
    dark : float
        Photons and dark counts per dwell that do not come from the scene.
    """

    bits: int
    gain: float
    offset: float
    read_noise: float
    pulse_spread: float
    dark: float

    @property
    def excess_noise(self) -> float:
        """Variance over Poisson variance."""
        return 1 + self.pulse_spread**2

    def detect(self, photons: Floats, rng: np.random.Generator) -> NDArray[np.uint16]:
        """Count photons, amplify and digitise.

        Parameters
        ----------
        photons : ndarray, float32
            Expected photons of the scene per dwell.
        rng : numpy.random.Generator
            Draws the noise.

        Returns
        -------
        ndarray, uint16
        """
        counted = rng.poisson(photons + self.dark).astype(np.float32)
        spread = np.sqrt((self.gain * self.pulse_spread) ** 2 * counted + self.read_noise**2)
        signal = self.gain * counted + self.offset
        signal += spread * rng.standard_normal(photons.shape, dtype=np.float32)
        return self._digitise(signal)

    def ideal(self, photons: Floats) -> NDArray[np.uint16]:
        """Digitise the expected signal: no noise of any kind."""
        return self._digitise(self.gain * (photons + np.float32(self.dark)) + self.offset)

    def _digitise(self, signal: Floats) -> NDArray[np.uint16]:
        np.rint(signal, out=signal)
        np.clip(signal, 0, 2**self.bits - 1, out=signal)
        return signal.astype(np.uint16)
