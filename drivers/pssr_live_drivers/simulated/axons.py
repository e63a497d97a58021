"""Axons and dendrites: closed paths around the joined world, filled with a dim glow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pssr_live_drivers.simulated.scene import Emitters, Floats, Layer, join, resting, strands

__all__ = ["Axons"]

PATH_UM = 0.1
"""Distance of the points that describe an axon."""

STRAND_UM = 0.18
"""Widest distance of the lines that fill an axon: blurred, they show no stripes."""

WINDINGS = [(1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (2, -1), (1, 2), (1, -2), (3, 1), (3, -1)]
"""Directions of axons: whole turns around the joined world in x and y."""


@dataclass(frozen=True, slots=True, eq=False)
class _Axon:
    """One closed path.

    ``path`` (M + 1, 2) holds points at equal distances, ``normal`` (M + 1, 2) unit normals.
    """

    path: Floats
    normal: Floats
    length: float
    radius: float
    deep: bool
    dendrite: bool


def _wave(
    rng: np.random.Generator, length: float, waves: NDArray[np.float64], size: float
) -> NDArray[np.float64]:
    """Draw a closed undulation along a path.

    Parameters
    ----------
    rng : numpy.random.Generator
    length : float
        Length of the path, µm; its end meets its start.
    waves : ndarray
        Wavelengths, µm, from which it is made.
    size : float
        Typical height of each, as a share of its wavelength.

    Returns
    -------
    ndarray
        Heights, µm, at equal distances from start to end.
    """
    u = np.linspace(0.0, 1.0, max(1024, int(4 * length)) + 1)
    total = np.zeros_like(u)
    for turns in np.unique(np.maximum(np.rint(length / waves), 1)):
        height = rng.normal() * size * length / turns
        total += height * np.sin(2 * np.pi * (turns * u + rng.random()))
    return total


class Axons:
    """The axons of a field, in bundles and alone, and a few dendrites.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws them.
    world_um, field_um : float
        Edges of the world and of the field of view; the first axon crosses the field's middle.

    Attributes
    ----------
    lengths, radii : ndarray, shape (A,), float32
        Of each axon, µm.
    dendrite, deep : ndarray, shape (A,), bool
        Is a dendrite; lies so far from focus that it only makes haze.
    """

    def __init__(self, rng: np.random.Generator, world_um: float, field_um: float) -> None:
        self._rng = rng
        self._world_um = world_um
        self._cytosol = rng.uniform(0.02, 0.12)
        self._axons = self._grow(np.full(2, field_um / 2))
        self.lengths = np.array([axon.length for axon in self._axons], np.float32)
        self.radii = np.array([axon.radius for axon in self._axons], np.float32)
        self.dendrite = np.array([axon.dendrite for axon in self._axons])
        self.deep = np.array([axon.deep for axon in self._axons])
        self._points = np.array([len(axon.path) - 1 for axon in self._axons])
        self._starts = np.cumsum(self._points + 1) - (self._points + 1)
        self._path = np.concatenate([axon.path for axon in self._axons])
        self._normal = np.concatenate([axon.normal for axon in self._axons])

    def at(self, axon: NDArray[np.int32], s: Floats) -> tuple[Floats, Floats]:
        """Find places on axons.

        Parameters
        ----------
        axon : ndarray, shape (N,), int
        s : ndarray, shape (N,), float32
            Way along the axon, µm; goes round.

        Returns
        -------
        place, normal : ndarray, shape (N, 2), float32
        """
        points = self._points[axon]
        index = (s / self.lengths[axon]) % 1 * points
        low = np.minimum(index.astype(np.intp), points - 1)
        part = (index - low).astype(np.float32)[:, None]
        low = low + self._starts[axon]
        place = self._path[low] * (1 - part) + self._path[low + 1] * part
        return place, self._normal[low]

    def _grow(self, base: NDArray[np.float64]) -> list[_Axon]:
        """Lay bundles and single axons until the world has its density."""
        rng, world = self._rng, self._world_um
        wanted = rng.uniform(0.3, 1.0) * world**2
        main = rng.choice(len(WINDINGS))
        axons: list[_Axon] = []
        laid = 0.0
        while laid < wanted:
            winding = WINDINGS[main if rng.random() < 0.5 else rng.choice(len(WINDINGS))]
            way = world * float(np.hypot(*winding))
            many = int(rng.integers(3, 12)) if rng.random() < 0.35 else 1
            dendrite = many == 1 and rng.random() < 0.2
            spread = rng.uniform(0.3, 1.0) * np.sqrt(many - 1)
            shared = _wave(rng, way, np.array([25.0, 33.0, 50.0, 100.0]), 0.03)
            shared -= shared[0]
            deep = bool(axons) and rng.random() < 0.2
            for _ in range(many):
                own = _wave(rng, way, 100 / np.arange(1, 14), 0.008) + rng.normal() * spread
                axons.append(self._lay(base, winding, shared + own, deep, dendrite))
                laid += axons[-1].length
            base = rng.random(2) * world
        return axons

    def _lay(
        self,
        base: NDArray[np.float64],
        winding: tuple[int, int],
        swing: NDArray[np.float64],
        deep: bool,
        dendrite: bool,
    ) -> _Axon:
        """Lay one axon and put points on it at equal distances."""
        turn = np.array(winding, np.float64) * self._world_um
        across = np.array([-turn[1], turn[0]]) / np.hypot(*turn)
        u = np.arange(swing.size) / (swing.size - 1)
        rough = base + u[:, None] * turn + swing[:, None] * across
        rough[-1] = rough[0] + turn
        way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(rough, axis=0).T))])
        count = 2 * int(np.ceil(way[-1] / PATH_UM / 2))
        at = np.linspace(0.0, way[-1], count + 1)
        path = np.stack([np.interp(at, way, rough[:, axis]) for axis in (0, 1)], axis=1)
        tangent = np.gradient(path, axis=0)
        tangent /= np.hypot(*tangent.T)[:, None]
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
        thin = float(np.clip(self._rng.lognormal(-1.6, 0.35), 0.1, 0.45))
        radius = float(self._rng.uniform(0.6, 1.3)) if dendrite else thin
        return _Axon(
            path.astype(np.float32),
            normal.astype(np.float32),
            float(way[-1]),
            radius,
            deep,
            dendrite,
        )

    def glow(self) -> Layer:
        """Fill the axons dimly, and put dim cells under and over them."""
        parts: dict[bool, list[Emitters]] = {False: [], True: [self._clouds()]}
        for axon in self._axons:
            offset, share = strands(int(np.ceil(2 * 1.6 * axon.radius / STRAND_UM)))
            wave = _wave(self._rng, axon.length, np.array([2.5, 4.0, 7.0, 12.0, 20.0]), 0.02)
            path, normal = axon.path[:-1:2], axon.normal[:-1:2]
            at = np.linspace(0, wave.size - 1, len(path)).astype(np.intp)
            radius = axon.radius * np.clip(1 + wave[at], 0.6, 1.6)[:, None]
            # A slice of a thick dendrite shows no more than the depth of focus.
            depth = np.minimum(radius, 0.5)
            place = path[:, None] + (normal * radius)[:, None] * offset[:, None]
            level = self._cytosol * self._rng.uniform(0.5, 1.5)
            weight = level * depth * radius * (2 * PATH_UM) * share
            parts[axon.deep].append(resting(place[..., 0], place[..., 1], weight))
        return Layer(join(parts[False]), join(parts[True]))

    def _clouds(self) -> Emitters:
        """Put blurred, dim cells under and over the field."""
        rng = self._rng
        many = 1 + int(rng.poisson(self._world_um**2 / 1500))
        width = rng.uniform(3.0, 9.0, (many, 1))
        centre = rng.random((2, many, 1)) * self._world_um
        x, y = centre + width * rng.standard_normal((2, many, 80))
        weight = rng.uniform(0.0, 0.05, (many, 1)) * 2 * np.pi * width**2 / 80
        return resting(x, y, np.broadcast_to(weight, x.shape))
