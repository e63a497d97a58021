"""Where in a field the cells lie, and where in a cell mitochondria may be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pssr_live_drivers.simulated.scene import Emitters, resting

__all__ = ["Cells", "Doubles"]

Doubles = NDArray[np.float64]

APART_UM = 38.0
"""Least distance of two cells' centres."""

AREA_UM2 = 2600.0
"""World per cell, on average."""

ANGLES = 256


class Cells:
    """Outlines and nuclei of cells, in polar form around the nuclei's centres.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the cells.
    world_um, field_um : float
        Edges of the world and of the field of view; one cell lies near the field's middle.
    """

    def __init__(self, rng: np.random.Generator, world_um: float, field_um: float) -> None:
        wanted = max(1, int(rng.poisson(world_um**2 / AREA_UM2)))
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(11.0, 16.0)
        self.centre = (field_um / 2 + away * np.array([np.cos(angle), np.sin(angle)]))[None]
        for _ in range(30 * wanted):
            centre = rng.random(2) * world_um
            gap = (centre - self.centre + world_um / 2) % world_um - world_um / 2
            if len(self.centre) < wanted and np.hypot(*gap.T).min() > APART_UM:
                self.centre = np.concatenate([self.centre, centre[None]])
        many = len(self.centre)
        u = np.arange(ANGLES) / ANGLES
        outline = np.repeat(rng.uniform(20.0, 29.0, (many, 1)), ANGLES, axis=1)
        for turns in range(2, 7):
            swing = rng.standard_normal((many, 1)) * 4.5 / turns
            outline += swing * np.sin(2 * np.pi * (turns * u + rng.random((many, 1))))
        self.outline = np.clip(outline, 14.0, 34.0)
        self._axes = rng.uniform([7.5, 5.5], [10.0, 7.5], (many, 2))
        self._turn = rng.uniform(0, np.pi, many)

    def __len__(self) -> int:
        return len(self.centre)

    def areas_um2(self) -> Doubles:
        """Area of each cell."""
        return np.asarray(np.pi * np.mean(self.outline**2, axis=1))

    def where(self, cell: NDArray[np.intp], place: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """Tell where places are in their cells.

        Parameters
        ----------
        cell : ndarray, shape (...), int
            Which cell each place belongs to.
        place : ndarray, shape (..., 2)
            x and y, µm.

        Returns
        -------
        nucleus, share, outward : ndarray, shape (...)
            Distance from the nucleus's centre as a multiple of its radius in that direction and
            as a share of the way to the cell's outline; direction away from the nucleus, rad.
        """
        delta = place - self.centre[cell]
        outward = np.arctan2(delta[..., 1], delta[..., 0])
        reach = np.hypot(delta[..., 0], delta[..., 1])
        a, b = self._axes[cell, 0], self._axes[cell, 1]
        angle = outward - self._turn[cell]
        edge = a * b / np.hypot(b * np.cos(angle), a * np.sin(angle))
        step = (outward * (ANGLES / (2 * np.pi))).astype(np.intp) % ANGLES
        return reach / edge, reach / self.outline[cell, step], outward

    def grain(
        self, cell: NDArray[np.intp], place: Doubles, nucleus: Doubles, outward: Doubles
    ) -> Doubles:
        """Direction of the cytoskeleton: around the nucleus close to it, outwards elsewhere."""
        delta = place - self.centre[cell]
        sway = 0.6 * np.sin(0.2 * delta[..., 0] + 2 * self._turn[cell])
        sway += 0.6 * np.sin(0.25 * delta[..., 1])
        return np.asarray(outward + sway + np.pi / 2 * np.clip(2 - 1.2 * nucleus, 0, 0.8))

    def draw(self, rng: np.random.Generator, cell: NDArray[np.intp]) -> tuple[Doubles, Doubles]:
        """Draw a place in the cytoplasm of each given cell, and a heading along its grain."""
        place = np.zeros((cell.size, 2))
        heading = np.zeros(cell.size)
        left = np.arange(cell.size)
        while left.size:
            angle = rng.uniform(0, 2 * np.pi, left.size)
            reach = rng.uniform(5.0, 34.0, left.size)
            offset = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None]
            tried = self.centre[cell[left]] + offset
            nucleus, share, outward = self.where(cell[left], tried)
            grain = self.grain(cell[left], tried, nucleus, outward)
            good = (nucleus > 1.08) & (share < 0.92)
            place[left[good]] = tried[good]
            heading[left[good]] = (grain + np.pi * rng.integers(0, 2, left.size))[good]
            left = left[~good]
        return place, heading

    def cytoplasm(self, level: float) -> Emitters:
        """Let the cell bodies glow evenly, the nuclei a little less."""
        step = 0.8
        grid = np.arange(-34.0, 34.0, step)
        offset = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
        place = (self.centre[:, None] + offset).reshape(-1, 2)
        nucleus, share, _ = self.where(np.repeat(np.arange(len(self)), len(offset)), place)
        thick = np.clip(1.3 - share, 0, 1) * np.where(nucleus < 1, 0.6, 1.0)
        inside = share < 1
        weight = level * step**2 * thick[inside]
        return resting(place[inside, 0], place[inside, 1], weight)
