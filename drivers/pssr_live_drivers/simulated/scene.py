"""What a scene is made of: emitters, tubes, and a world without edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SPACING_UM",
    "Emitters",
    "Floats",
    "Layer",
    "Scene",
    "join",
    "nothing",
    "resting",
    "straight_tube",
    "strands",
    "world_size_um",
]

Floats: TypeAlias = NDArray[np.float32]

SPACING_UM = 0.13
"""Distance of emitters along a tube: close enough that the blurred tube shows no beads."""


@dataclass(frozen=True, slots=True, eq=False)
class Emitters:
    """Points that fluoresce, as they are at one time.

    Attributes
    ----------
    x, y : ndarray, shape (N,), float32
        Position, µm; x along the fast axis.
    vx, vy : ndarray, shape (N,), float32
        Velocity, µm/s, valid until the scene advances.
    weight : ndarray, shape (N,), float32
        Brightness, in the scene's own unit.
    """

    x: Floats
    y: Floats
    vx: Floats
    vy: Floats
    weight: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Emitters in focus, and those far from focus that only make haze."""

    sharp: Emitters
    haze: Emitters


class Scene(Protocol):
    """A living sample in a square world whose opposite edges are joined.

    The world is larger than the field of view: what leaves at one edge comes back at the other,
    unseen in between, so that a scene can go on for hours.
    """

    @property
    def world_um(self) -> float:
        """Edge of the world, µm."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""

    def still(self) -> Layer:
        """Give what never changes."""

    def moving(self) -> Layer:
        """Give the rest, as it is now."""


def world_size_um(field_um: float) -> float:
    """Edge of the world for a field of view: margins of at least 6 µm on each side."""
    return max(1.15 * field_um, field_um + 12.0)


def resting(
    x: NDArray[np.floating], y: NDArray[np.floating], weight: NDArray[np.floating]
) -> Emitters:
    """Make emitters that do not move, from arrays of one shape."""
    still = np.zeros(x.size, np.float32)
    flat_x, flat_y, flat_weight = (
        np.asarray(part, np.float32).reshape(-1) for part in (x, y, weight)
    )
    return Emitters(flat_x, flat_y, still, still, flat_weight)


def nothing() -> Emitters:
    """Make no emitters."""
    none = np.zeros(0, np.float32)
    return resting(none, none, none)


def join(parts: list[Emitters]) -> Emitters:
    """Put several sets of emitters together."""
    names = ("x", "y", "vx", "vy", "weight")
    return Emitters(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def strands(count: int) -> tuple[Floats, Floats]:
    """Split a round tube into parallel lines that carry its brightness.

    Parameters
    ----------
    count : int
        Number of lines.

    Returns
    -------
    offset, share : ndarray, shape (count,), float32
        Distance from the tube's axis in radii, and share of the brightness (its sum is 1): the
        depth of the tube at that distance.
    """
    offset = (2 * np.arange(count) + 1) / count - 1
    share = np.sqrt(1 - offset**2)
    return offset.astype(np.float32), (share / share.sum()).astype(np.float32)


def straight_tube(length_um: float, radius_um: float, x: float, y: float) -> Emitters:
    """Make a resting tube of brightness 1 along x, centred on a point.

    Parameters
    ----------
    length_um, radius_um : float
        Size of the tube, µm.
    x, y : float
        Its centre, µm.
    """
    along = np.arange(-length_um / 2, length_um / 2, SPACING_UM)[:, None]
    offset, share = strands(4)
    weight = np.broadcast_to(share * (radius_um**2 * SPACING_UM), (along.size, share.size))
    return resting(x + along + 0 * offset, y + 0 * along + radius_um * offset, weight)
