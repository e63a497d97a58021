"""U2OS cells: a mitochondrial network that bends, grows, retracts, divides and fuses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pssr_live_drivers.simulated.cells import Cells, Doubles
from pssr_live_drivers.simulated.scene import (
    SPACING_UM,
    Emitters,
    Floats,
    Layer,
    nothing,
    strands,
    world_size_um,
)

__all__ = ["U2osScene"]

STEP_S = 0.5
"""Longest step of the life in the scene, s."""

MODE_SIZE_UM = np.array([0.25, 0.2, 0.16, 0.12, 0.08], np.float32)
"""How far a tubule moves as a whole, tilts, and bends ever finer."""

MODE_TAU_S = np.array([40.0, 30.0, 18.0, 10.0, 6.0], np.float32)
"""How long each of these motions lasts."""

MODES = MODE_SIZE_UM.size

RELAX_S = 1.5
"""How fast a tubule follows what pulls at it."""

CROWD_UM = 0.75
"""Edge of the squares in which the density of tubules is counted, µm."""

TRIALS = 8
"""Paths tried for a tubule; it takes the one where there is most room."""

ROUNDS = 12
"""The first network is laid in so many rounds, each making room for the next."""

STRIDE = 4
"""Points of a path from one change of direction to the next."""


class U2osScene:
    """A field of U2OS cells whose mitochondria glow.

    Tubules lie along the cells' grain, spread out, and half of them branch off others. A tubule
    moves in a few smooth ways, its tip grows and retracts, a gap may open in it (it divides) and
    close (it fuses); one that has retracted wholly grows again elsewhere.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the scene and all its life.
    field_um : float
        Edge of the field of view, µm.
    """

    def __init__(self, rng: np.random.Generator, field_um: float) -> None:
        self._rng = rng
        self.world_um = max(world_size_um(field_um), 48.0)
        self._radius = rng.uniform(0.15, 0.24)
        self._branching = rng.uniform(0.2, 0.7)
        self._bendy = rng.uniform(0.12, 0.35)
        self._pace = rng.uniform(0.5, 1.6)
        self._cells = Cells(rng, self.world_um, field_um)
        self._crowd = np.zeros((round(self.world_um / CROWD_UM),) * 2, np.float32)
        self._make_room(self._draw_lengths())
        for part in np.array_split(rng.permutation(self._home.size), ROUNDS):
            self._grow(part)
        self._tip[:] = self._whole * rng.uniform(0.5, 1.0, self._home.size)
        self._glow = Layer(nothing(), self._cells.cytoplasm(rng.uniform(0.005, 0.03)))
        for _ in range(60):
            self._step(STEP_S)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        steps = max(1, int(np.ceil(seconds / STEP_S)))
        for _ in range(steps):
            self._step(seconds / steps)

    def still(self) -> Layer:
        """Give what never changes: the glow of the cell bodies."""
        return self._glow

    def moving(self) -> Layer:
        """Give the network, as it is now."""
        gap = np.abs(self._along - self._gap_at[self._owner]) - self._gap[self._owner]
        gap[self._gap[self._owner] < 0.02] = np.inf
        end = np.minimum(self._tip[self._owner] - self._along, self._along + np.float32(SPACING_UM))
        end = np.minimum(end, gap)
        seen = np.flatnonzero(end > 0)
        owner, motion = self._owner[seen], self._motion()[seen]
        # Ends are round.
        full = self._thick[owner]
        short = np.maximum(1 - end[seen] / full, 0)
        radius = full * np.sqrt(1 - short**2)
        offset, share = strands(4)
        across = self._normal[seen] * radius[:, None]
        spot = (self._path[seen] + motion[:, :2])[:, None] + across[:, None] * offset[:, None]
        glow = radius**2 * (self._bright * np.float32(SPACING_UM))[owner]
        speed = np.repeat(motion[:, 2:], offset.size, axis=0)
        x, y = spot.reshape(-1, 2).T
        weight = (glow[:, None] * share).ravel()
        return Layer(Emitters(x, y, speed[:, 0], speed[:, 1], weight), nothing())

    def _motion(self) -> Floats:
        """Give displacement and velocity, shape (N, 4), of every place on the tubules.

        Branches go where the place goes to which they are attached, less so towards their tips.
        """
        state = np.concatenate([self._modes, self._speed], axis=2)
        own = np.zeros((self._owner.size, 4), np.float32)
        for mode in range(MODES):
            own += self._basis[mode][:, None] * state[:, mode][self._owner]
        rows = np.flatnonzero((self._parent >= 0)[self._owner])
        anchor, hold = self._anchor[self._owner[rows]], self._hold[rows][:, None]
        motion = own.copy()
        for _ in range(3):  # branches of branches of branches
            motion[rows] = own[rows] + hold * motion[anchor]
        return motion

    # -- laying the network ----------------------------------------------------------------

    def _draw_lengths(self) -> Floats:
        """Draw how many tubules each cell has (``_home``), and how long each can grow."""
        rng = self._rng
        density, mean = rng.uniform(0.6, 1.7), rng.uniform(3.0, 9.0)
        counts = np.maximum((density * self._cells.areas_um2() / mean).astype(np.intp), 5)
        self._home = np.repeat(np.arange(len(counts)), counts)
        lengths = np.clip(mean * rng.lognormal(0, 0.55, self._home.size), 1.0, 25.0)
        short = rng.random(lengths.size) < rng.uniform(0.0, 0.4)
        lengths[short] = rng.uniform(0.5, 2.0, lengths.size)[short]
        return lengths.astype(np.float32)

    def _make_room(self, lengths: Floats) -> None:
        """Make the arrays: one entry a tubule, or one a point on the tubules."""
        many = lengths.size
        self._count = np.ceil(lengths / SPACING_UM).astype(np.intp) + 1
        self._first = np.cumsum(self._count) - self._count
        self._owner = np.repeat(np.arange(many), self._count)
        self._step_on = np.arange(self._owner.size) - self._first[self._owner]
        self._along = (self._step_on * SPACING_UM).astype(np.float32)
        self._whole = ((self._count - 1) * SPACING_UM).astype(np.float32)
        u = self._along / self._whole[self._owner]
        self._basis = np.cos(np.pi * np.arange(MODES)[:, None] * u).astype(np.float32)
        self._hold = 1 - u
        self._path = np.zeros((u.size, 2), np.float32)
        self._normal = np.zeros((u.size, 2), np.float32)
        # A short tubule moves as a whole more than it bends.
        self._reach = np.repeat(MODE_SIZE_UM[None, :, None], many, axis=0)
        self._reach[:, 1:] *= np.minimum(self._whole / 8, 1)[:, None, None]
        self._modes = np.zeros((many, MODES, 2), np.float32)
        self._target = np.zeros_like(self._modes)
        self._speed = np.zeros_like(self._modes)
        self._born = np.zeros(many, np.bool_)
        self._parent = np.full(many, -1)
        self._anchor = np.zeros(many, np.intp)
        self._thick, self._bright = np.zeros(many, np.float32), np.zeros(many, np.float32)
        self._tip, self._growing = np.zeros(many, np.float32), np.zeros(many, np.float32)
        self._gap_at, self._gap = np.zeros(many, np.float32), np.zeros(many, np.float32)
        self._gap_wanted = np.zeros(many, np.float32)

    def _grow(self, slots: NDArray[np.intp]) -> None:
        """Give tubules new paths: from other tubules, or from anywhere in their cells."""
        rng, many = self._rng, slots.size
        self._occupy(slots[self._born[slots]], -1)
        self._parent[np.isin(self._parent, slots)] = -1
        self._parent[slots] = -1
        home = np.repeat(self._home[slots], TRIALS)
        place, heading = self._cells.draw(rng, home)
        mate = self._mates(home, slots)
        branch = np.repeat(rng.random(many) < self._branching, TRIALS) & (mate >= 0)
        stem = self._first[mate] + (rng.random(mate.size) * self._count[mate]).astype(np.intp)
        side = rng.choice(np.array([-1.0, 1.0]), mate.size)[:, None] * self._normal[stem]
        aside = np.arctan2(side[:, 1], side[:, 0]) + 0.4 * rng.standard_normal(mate.size)
        place[branch], heading[branch] = self._path[stem[branch]], aside[branch]
        best = np.arange(many) * TRIALS + self._walk(slots, home, place, heading)
        held = branch[best]
        self._parent[slots[held]] = mate[best][held]
        self._anchor[slots[held]] = stem[best][held]
        self._occupy(slots, 1)
        self._born[slots] = True
        # Out of focus by up to a micrometre: wider and dimmer.
        defocus = 1 + 0.4 * rng.standard_normal(many) ** 2
        wide = self._radius * rng.uniform(0.8, 1.2, many) * np.sqrt(defocus)
        self._thick[slots] = np.minimum(wide, 0.32)
        self._bright[slots] = np.clip(rng.lognormal(-0.2, 0.25, many), 0.3, 1.1) / defocus**1.5
        self._tip[slots], self._growing[slots] = 0.0, 0.15
        self._gap[slots] = self._gap_wanted[slots] = 0.0
        self._modes[slots] = self._target[slots] = self._speed[slots] = 0.0

    def _mates(self, home: NDArray[np.intp], slots: NDArray[np.intp]) -> NDArray[np.intp]:
        """Draw tubules of the same cells to branch from; -1 where there is none."""
        ready = self._born.copy()
        ready[slots] = False
        mate = np.full(home.size, -1)
        for cell in np.unique(home):
            mates = np.flatnonzero(ready & (self._home == cell))
            here = home == cell
            if mates.size:
                mate[here] = self._rng.choice(mates, int(here.sum()))
        return mate

    def _walk(
        self, slots: NDArray[np.intp], home: NDArray[np.intp], place: Doubles, heading: Doubles
    ) -> NDArray[np.intp]:
        """Lay trial paths that follow the cells' grain; keep those with most room."""
        cells, longest = self._cells, int(self._count[slots].max())
        knots = longest // STRIDE + 2
        bends = self._bendy * self._rng.standard_normal((knots, home.size))
        headings = np.empty((knots, home.size))
        at = place
        for k in range(knots):
            headings[k] = heading
            way = np.stack([np.cos(heading), np.sin(heading)], axis=1)
            at = at + STRIDE * SPACING_UM * way
            nucleus, share, outward = cells.where(home, at)
            grain = cells.grain(home, at, nucleus, outward)
            turn = 0.1 * np.sin(2 * (grain - heading)) + bends[k]
            turn = np.where(nucleus < 1.12, 0.5 * np.sin(outward - heading), turn)
            along_edge = 0.4 * np.sin(2 * (outward + np.pi / 2 - heading))
            back = -0.15 * np.sin(outward - heading)
            heading = heading + np.where(share > 0.9, along_edge + back, turn)
        step = np.arange(longest) / STRIDE
        low = step.astype(np.intp)
        part = (step - low)[:, None]
        fine = headings[low] * (1 - part) + headings[low + 1] * part
        tangent = np.stack([np.cos(fine), np.sin(fine)], axis=2)
        path = place + np.cumsum(tangent, axis=0) * SPACING_UM
        best = self._roomiest(slots, home, path)
        for number, slot in enumerate(slots):
            span = slice(self._first[slot], self._first[slot] + self._count[slot])
            column = number * TRIALS + best[number]
            self._path[span] = path[: self._count[slot], column]
            self._normal[span] = tangent[: self._count[slot], column, ::-1] * [-1, 1]
        return best

    def _roomiest(
        self, slots: NDArray[np.intp], home: NDArray[np.intp], path: Doubles
    ) -> NDArray[np.intp]:
        """Choose among the trial paths of each tubule."""
        nucleus, share, _ = self._cells.where(np.broadcast_to(home, path.shape[:2]), path)
        crowd = self._crowd[self._squares(path)]
        cost = crowd * np.exp(2 * share) + 20.0 * ((nucleus < 1.0) | (share > 1.0))
        on = np.arange(len(path))[:, None] < np.repeat(self._count[slots], TRIALS)
        mean = (cost * on).sum(axis=0) / on.sum(axis=0)
        return np.asarray(np.argmin(mean.reshape(-1, TRIALS), axis=1))

    def _squares(self, place: NDArray[np.floating]) -> tuple[NDArray[np.intp], ...]:
        many = len(self._crowd)
        square = np.floor(place * (many / self.world_um)).astype(np.intp) % many
        return square[..., 1], square[..., 0]

    def _occupy(self, slots: NDArray[np.intp], sign: int) -> None:
        """Count tubules in, or out, where they lie."""
        rows = np.flatnonzero(np.isin(self._owner, slots))
        np.add.at(self._crowd, self._squares(self._path[rows]), np.float32(sign * SPACING_UM))

    # -- its life --------------------------------------------------------------------------

    def _step(self, dt: float) -> None:
        """Move everything by the velocities shown, then draw what happens next."""
        rng, pace = self._rng, self._pace
        self._modes += self._speed * dt
        fade = np.exp(-dt * pace / MODE_TAU_S)[:, None]
        kick = self._reach * np.sqrt(1 - fade**2)
        self._target *= fade
        self._target += kick * rng.standard_normal(self._target.shape, dtype=np.float32)
        self._speed = (self._target - self._modes) * np.float32((1 - np.exp(-dt / RELAX_S)) / dt)
        chance = rng.random(self._home.size)
        self._grow_tips(dt, chance)
        self._open_gaps(dt, chance)
        gone = (self._tip <= 0) | ((chance > 0.5) & (chance < 0.5 + 0.0005 * pace * dt))
        if gone.any():
            self._grow(np.flatnonzero(gone))

    def _grow_tips(self, dt: float, chance: Doubles) -> None:
        """Let tips grow, rest and retract."""
        self._tip += self._growing * np.float32(dt)
        change = chance < 0.03 * self._pace * dt
        speeds = np.array([-0.15, 0.0, 0.0, 0.0, 0.15, 0.25]) * self._pace
        self._growing[change] = self._rng.choice(speeds, chance.size)[change]
        self._growing[(self._tip >= self._whole) & (self._growing > 0)] = 0.0
        np.minimum(self._tip, self._whole, out=self._tip)

    def _open_gaps(self, dt: float, chance: Doubles) -> None:
        """Let tubules divide and fuse, in their middle or where they branch off."""
        rng, many = self._rng, chance.size
        divide = (self._gap_wanted == 0) & (chance > 1 - 0.004 * self._pace * dt)
        heal = (self._gap_wanted > 0) & (chance > 1 - 0.03 * self._pace * dt)
        at = np.where(rng.random(many) < 0.4, 0.0, rng.uniform(0.2, 0.8, many)) * self._whole
        self._gap_at[divide] = at[divide]
        self._gap_wanted[divide] = rng.uniform(0.25, 0.6, many)[divide]
        self._gap_wanted[heal] = 0.0
        self._gap += (self._gap_wanted - self._gap) * np.float32(1 - np.exp(-dt / 1.5))
