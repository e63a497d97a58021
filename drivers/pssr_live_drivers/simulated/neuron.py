"""Axons with mitochondria that travel, pause, pass each other, divide and fuse."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pssr_live_drivers.simulated.axons import Axons
from pssr_live_drivers.simulated.scene import (
    SPACING_UM,
    Emitters,
    Layer,
    strands,
    world_size_um,
)

__all__ = ["NeuronScene"]

STEP_S = 0.3
"""Longest step of the life in the scene, s."""

RUN_TAU_S = 0.4
"""How fast a mitochondrion takes up speed, s."""

MITOCHONDRION = np.dtype(
    [
        ("s", np.float32),  # centre, µm along the axon
        ("length", np.float32),
        ("radius", np.float32),
        ("glow", np.float32),
        ("glow_to", np.float32),  # the brightness that it slowly takes on
        ("phase", np.float32),
        ("axon", np.int32),
        ("motile", np.bool_),
        ("heading", np.int8),  # -1, 0 (paused), 1
        ("pace", np.float32),  # µm/s when it runs
        ("v", np.float32),
        ("lane", np.float32),  # where across the axon it wants to be, radii
        ("side", np.float32),  # where across the axon it is, radii
    ]
)


class NeuronScene:
    """A field of a neuronal culture.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the scene and all its life.
    field_um : float
        Edge of the field of view, µm.
    """

    def __init__(self, rng: np.random.Generator, field_um: float) -> None:
        self.world_um = world_size_um(field_um)
        self._rng = rng
        self._busy = rng.uniform(0.15, 0.6)
        self._axons = Axons(rng, self.world_um, field_um)
        self._glow = self._axons.glow()
        self._mitochondria = self._populate()
        self._wanted = len(self._mitochondria)
        self._mass = float(self._mitochondria["length"].sum())
        for _ in range(100):
            self._step(STEP_S)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        steps = max(1, int(np.ceil(seconds / STEP_S)))
        for _ in range(steps):
            self._step(seconds / steps)

    def still(self) -> Layer:
        """Give what never changes: the glow of the axons."""
        return self._glow

    def moving(self) -> Layer:
        """Give the mitochondria, as they are now."""
        deep = self._axons.deep[self._mitochondria["axon"]]
        sharp, haze = self._mitochondria[~deep], self._mitochondria[deep]
        return Layer(self._bodies(sharp), self._bodies(haze))

    def _populate(self) -> NDArray[Any]:
        """Place the first mitochondria."""
        rng = self._rng
        spacing = rng.uniform(5.0, 16.0)
        girth = rng.uniform(0.85, 1.2)
        crowd = np.where(self._axons.dendrite, 0.35, 1.0)
        counts = rng.poisson(self._axons.lengths / (spacing * crowd))
        counts[0] = max(counts[0], 1)
        axon = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        born = np.zeros(axon.size, MITOCHONDRION)
        born["axon"] = axon
        dendrite = self._axons.dendrite[axon]
        born["s"] = rng.random(axon.size) * self._axons.lengths[axon]
        mean = np.where(dendrite, 3.0, 1.3)
        born["length"] = np.clip(mean * rng.lognormal(0, 0.6, axon.size), 0.35, 9.0)
        born["radius"] = girth * rng.uniform(0.13, 0.26, axon.size)
        born["glow"] = born["glow_to"] = self._glows(axon.size)
        born["phase"] = rng.random(axon.size)
        born["motile"] = rng.random(axon.size) < np.where(dendrite, 0.1, self._busy)
        born["pace"] = np.clip(rng.lognormal(-0.5, 0.45, axon.size), 0.15, 2.0)
        born["lane"] = rng.uniform(-0.5, 0.5, axon.size)
        born["side"] = born["lane"]
        return born

    def _glows(self, many: int) -> NDArray[np.float64]:
        return np.clip(self._rng.lognormal(-0.35, 0.35, many), 0.2, 1.2)

    def _step(self, dt: float) -> None:
        """Move everything by the velocities shown, then draw what happens next."""
        m, rng = self._mitochondria, self._rng
        m["s"] = (m["s"] + m["v"] * dt) % self._axons.lengths[m["axon"]]
        m["side"] += (m["lane"] - m["side"]) * min(1.0, dt / 2)
        chance = rng.random(len(m))
        paused = m["heading"] == 0
        go = m["motile"] & paused & (chance < 0.08 * dt)
        m["heading"][go] = np.where(rng.random(len(m)) < 0.5, -1, 1)[go]
        stop = ~paused & (chance < 0.12 * dt)
        m["heading"][stop] = 0
        turn = ~paused & (chance > 1 - 0.01 * dt)
        m["heading"][turn] *= -1
        self._renew(dt)
        self._fuse(dt)
        self._divide(dt)
        m = self._mitochondria
        wanted = m["heading"] * m["pace"] * rng.uniform(0.7, 1.3, len(m))
        wanted += 0.03 * rng.standard_normal(len(m))
        m["v"] += (wanted - m["v"]) * (1 - np.exp(-dt / RUN_TAU_S))

    def _renew(self, dt: float) -> None:
        """Keep up, over hours, how many can travel and how much mitochondrion there is."""
        m, rng = self._mitochondria, self._rng
        anew = rng.random(len(m)) < dt / 150
        travel = np.where(self._axons.dendrite[m["axon"]], 0.1, self._busy)
        m["motile"][anew] = (rng.random(len(m)) < travel)[anew]
        m["glow_to"][anew] = self._glows(len(m))[anew]
        m["glow"] += (m["glow_to"] - m["glow"]) * np.float32(dt / 60)
        m["length"] *= 1 + 0.005 * dt * (self._mass / m["length"].sum() - 1)

    def _fuse(self, dt: float) -> None:
        """Let mitochondria that meet end to end fuse, or pass each other."""
        m, rng = self._mitochondria, self._rng
        order = np.lexsort((m["s"], m["axon"]))
        first, second = order[:-1], order[1:]
        gap = m["s"][second] - m["s"][first] - (m["length"][first] + m["length"][second]) / 2
        nearing = (m["v"][first] - m["v"][second]) > 0.05
        meet = (m["axon"][first] == m["axon"][second]) & nearing & (gap < 0.4) & (gap > -0.5)
        crowd = len(m) / self._wanted
        gone = np.zeros(len(m), np.bool_)
        for a, b in zip(first[meet], second[meet], strict=True):
            whole = m["length"][a] + m["length"][b]
            if gone[a] or gone[b]:
                continue
            if whole < 7.0 and rng.random() < 0.5 * crowd**2 * dt:
                part = m["length"][b] / whole
                for trait in ("radius", "glow", "glow_to"):
                    m[trait][a] += part * (m[trait][b] - m[trait][a])
                left = m["s"][a] - m["length"][a] / 2
                right = m["s"][b] + m["length"][b] / 2
                m["s"][a], m["length"][a] = (left + right) / 2, max(right - left, 0.5)
                m["heading"][a] = 0
                gone[b] = True
            else:
                m["lane"][a], m["lane"][b] = rng.uniform(0.3, 0.9), -rng.uniform(0.3, 0.9)
        self._mitochondria = m[~gone]

    def _divide(self, dt: float) -> None:
        """Let long mitochondria divide; one daughter leaves."""
        m, rng = self._mitochondria, self._rng
        rate = 0.004 * (self._wanted / len(m)) ** 4 * np.clip(m["length"] - 1.0, 0.0, 4.0)
        parent = np.flatnonzero(rng.random(len(m)) < rate * dt)
        if not parent.size:
            return
        part = rng.uniform(0.3, 0.7, parent.size)
        young = m[parent]
        whole = m["length"][parent]
        young["length"] = np.maximum(whole * part - 0.05, 0.4)
        young["s"] += whole * (1 - part) / 2
        young["glow_to"] = self._glows(parent.size)
        young["heading"] = 1
        young["motile"] = rng.random(parent.size) < max(self._busy, 0.3)
        young["pace"] = np.clip(rng.lognormal(-0.5, 0.45, parent.size), 0.15, 2.0)
        m["length"][parent] = np.maximum(whole * (1 - part) - 0.05, 0.4)
        m["s"][parent] -= whole * part / 2
        self._mitochondria = np.concatenate([m, young])

    def _bodies(self, m: NDArray[Any]) -> Emitters:
        """Draw mitochondria as sausages that follow their axon."""
        count = np.ceil(m["length"] / SPACING_UM).astype(np.intp) + 1
        owner = np.repeat(np.arange(len(m)), count)
        first = np.repeat(np.cumsum(count) - count, count)
        along = ((np.arange(owner.size) - first) / (count[owner] - 1) - 0.5).astype(np.float32)
        mine = m[owner]
        along *= mine["length"]
        place, normal = self._axons.at(mine["axon"], mine["s"] + along)
        cap = np.maximum(np.abs(along) - (mine["length"] / 2 - mine["radius"]), 0.0)
        cap = np.minimum(cap / mine["radius"], 0.95)
        swell = 1 + 0.12 * np.sin(5 * along + 2 * np.pi * mine["phase"])
        radius = mine["radius"] * np.sqrt(1 - cap**2) * swell
        offset, share = strands(3)
        lane = self._axons.radii[mine["axon"]] * mine["side"]
        drift = self._axons.radii[mine["axon"]] * (mine["lane"] - mine["side"]) / 2
        spot = place[:, None] + normal[:, None] * (lane[:, None] + radius[:, None] * offset)[
            ..., None
        ].astype(np.float32)
        speed = normal[:, ::-1] * np.array([1, -1], np.float32) * mine["v"][:, None]
        speed = (speed + normal * drift[:, None]).astype(np.float32)
        spacing = m["length"] / (count - 1)
        weight = (mine["glow"] * radius**2 * spacing[owner])[:, None] * share
        wide = np.repeat(speed, offset.size, axis=0)
        return Emitters(
            spot[..., 0].ravel(),
            spot[..., 1].ravel(),
            wide[:, 0],
            wide[:, 1],
            weight.astype(np.float32).ravel(),
        )
