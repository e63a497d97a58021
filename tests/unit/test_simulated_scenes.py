"""The living scenes: what moves, and that they go on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pssr_live_drivers.simulated.neuron import NeuronScene
from pssr_live_drivers.simulated.scene import Emitters, Scene, straight_tube, strands
from pssr_live_drivers.simulated.u2os import U2osScene

SCENES = {"neuron": NeuronScene, "u2os": U2osScene}


def scene(name: str, seed: int = 1, field_um: float = 12.0) -> Scene:
    made: Scene = SCENES[name](np.random.default_rng(seed), field_um)
    return made


def speeds(emitters: Emitters) -> np.ndarray:  # type: ignore[type-arg]
    return np.hypot(emitters.vx, emitters.vy)


@pytest.mark.parametrize("name", SCENES)
def test_emitters_are_finite_float32_and_glow(name: str) -> None:
    living = scene(name)
    layers = (living.still(), living.moving())
    for emitters in (part for layer in layers for part in (layer.sharp, layer.haze)):
        for part in (emitters.x, emitters.y, emitters.vx, emitters.vy, emitters.weight):
            assert part.dtype == np.float32
            assert part.shape == emitters.x.shape
            assert np.isfinite(part).all()
        assert (emitters.weight >= 0).all()


@pytest.mark.parametrize("name", SCENES)
def test_the_picture_changes_but_keeps_its_light(name: str) -> None:
    living = scene(name)
    start = living.moving().sharp
    for _ in range(3):
        living.advance(300.0)
        now = living.moving().sharp
        assert 0.6 < now.weight.sum() / start.weight.sum() < 1.5
        assert 0.5 < now.x.size / start.x.size < 2
    assert not np.array_equal(now.x[: start.x.size], start.x[: now.x.size])


@pytest.mark.parametrize("name", SCENES)
def test_places_follow_the_velocities_they_show(name: str) -> None:
    living = scene(name)
    for _ in range(10):
        before = living.moving().sharp
        living.advance(0.01)
        after = living.moving().sharp
        if before.x.size != after.x.size:
            continue  # something divided, fused or grew
        world = living.world_um
        moved = after.x - before.x - before.vx * 0.01
        moved -= world * np.rint(moved / world)
        assert np.median(np.abs(moved)) < 1e-4
        assert np.percentile(np.abs(moved), 90) < 5e-3


def test_mitochondria_run_both_ways_and_most_rest() -> None:
    living = scene("neuron", seed=2, field_um=40.0)
    both: list[float] = []
    resting: list[float] = []
    for _ in range(40):
        living.advance(5.0)
        m = living._mitochondria  # type: ignore[attr-defined]
        both += list(m["v"][np.abs(m["v"]) > 0.2])
        resting.append(float((np.abs(m["v"]) < 0.1).mean()))
    assert min(both) < -0.3
    assert max(both) > 0.3
    assert max(np.abs(both)) < 3.0
    assert 0.5 < np.mean(resting) < 0.99


def test_mitochondria_divide_and_fuse_in_balance() -> None:
    living = scene("neuron", seed=2, field_um=40.0)
    counts = []
    for _ in range(300):
        counts.append(len(living._mitochondria))  # type: ignore[attr-defined]
        living.advance(0.3 * 10)
    steps = np.diff(counts)
    assert (steps > 0).any()
    assert (steps < 0).any()
    assert 0.7 < counts[-1] / counts[0] < 1.4


def test_mitochondria_that_meet_fuse_or_pass_each_other() -> None:
    living = NeuronScene(np.random.default_rng(4), 12.0)
    outcomes = set()
    for _ in range(60):
        pair = living._mitochondria[:1].repeat(2).copy()
        pair["axon"], pair["length"], pair["motile"] = 0, 1.0, True
        pair["s"], pair["heading"], pair["pace"] = (5.0, 7.0), (1, -1), 0.8
        pair["v"] = (0.8, -0.8)
        pair["lane"] = pair["side"] = 0.0
        living._mitochondria = pair
        living._wanted, living._mass = 2, 2.0
        for _ in range(10):
            living.advance(0.3)
        after = living._mitochondria
        if len(after) == 1:
            assert after["length"][0] == pytest.approx(2.0, abs=0.5)
            outcomes.add("fused")
        elif len(after) == 2 and after["s"][0] > after["s"][1]:
            assert abs(after["lane"][0] - after["lane"][1]) > 0.4
            outcomes.add("passed")
    assert outcomes == {"fused", "passed"}


def test_the_network_leaves_the_nucleus_free_and_divides_and_fuses() -> None:
    living = U2osScene(np.random.default_rng(3), 80.0)
    gaps = []
    for _ in range(20):
        living.advance(4.0)
        emitters = living.moving().sharp
        place = np.stack([emitters.x, emitters.y], axis=1)
        gaps.append(living._gap > 0.2)
        away = np.hypot(*(place - living._cells.centre[0]).T)
        light = [emitters.weight[(away >= r) & (away < r + 2)].sum() / (r + 1) for r in (0, 12)]
        assert light[0] < 0.1 * light[1]
    changes = np.diff(np.array(gaps).astype(int), axis=0)
    assert (changes > 0).any()
    assert (changes < 0).any()


def test_tubules_move_slowly() -> None:
    living = scene("u2os", field_um=40.0)
    fastest = []
    for _ in range(10):
        living.advance(2.0)
        fastest.append(float(np.percentile(speeds(living.moving().sharp), 99)))
    assert 0.03 < np.mean(fastest) < 0.5  # µm/s


@pytest.mark.parametrize("name", SCENES)
def test_scenes_vary_widely_with_the_seed(name: str) -> None:
    light = []
    for seed in range(6):
        emitters = scene(name, seed, 30.0).moving().sharp
        light.append(float(emitters.weight.sum()))
    assert max(light) / min(light) > 1.8
    assert len(set(light)) == 6


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_strands_of_a_tube_carry_its_width(count: int) -> None:
    offset, share = strands(count)
    assert share.sum() == pytest.approx(1.0)
    # A uniform disc seen from the side has a variance of a quarter of its radius squared.
    assert (share * offset**2).sum() == pytest.approx(0.25, abs=0.02 + 0.08 / count)


def test_a_straight_tube_lies_where_asked() -> None:
    tube = straight_tube(4.0, 0.2, 5.0, 3.0)
    assert tube.x.min() == pytest.approx(3.0)
    assert tube.x.max() == pytest.approx(7.0, abs=0.15)
    assert np.abs(tube.y - 3.0).max() <= 0.2
    assert (tube.weight * tube.y).sum() / tube.weight.sum() == pytest.approx(3.0)
    assert all(not part.any() for part in itertools.chain([tube.vx], [tube.vy]))
