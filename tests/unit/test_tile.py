"""Large frames come out of tiles: every pixel once, and no seam."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pssr_live.engine.base import EngineReport
from pssr_live.engine.select import prepare_engine
from pssr_live.engine.tile import BLEND, GRID, TiledEngine, fits, plan_tiles
from pssr_live.errors import ModelError
from pssr_live.model import ModelPackage, Tiling, find_model

MODEL = find_model("neuron_mf")
SCALE = 4


def in_tiles_of(tiling: Tiling, **changes: int) -> ModelPackage:
    return replace(
        MODEL, manifest=msgspec.structs.replace(MODEL.manifest, tiling=tiling, **changes)
    )


class StandIn:
    """An engine without a runtime: the middle frame, each pixel repeated."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []
        self.closed = False

    def prepare(self, model: ModelPackage, height: int, width: int) -> EngineReport:
        model.check_size(height, width)
        self.sizes.append((height, width))
        return EngineReport("auto", "stand-in", "none", "fp32", "1", 1, 0.1)

    def run(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        return window[0, 2].repeat(SCALE, axis=0).repeat(SCALE, axis=1)

    def close(self) -> None:
        self.closed = True


class LooksAtEverything(StandIn):
    """Adds the mean of all that it sees, as the published network's averages do."""

    def run(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().run(window) + 0.3 * window.mean()


class Constants(StandIn):
    """One constant after another."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = iter(values)

    def run(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full_like(super().run(window), next(self.values))


def restored(engine: StandIn, tiling: Tiling, frame: NDArray[np.float32]) -> NDArray[np.float32]:
    tiled = TiledEngine(engine)
    report = tiled.prepare(in_tiles_of(tiling), *frame.shape)
    assert report.tiles > 1
    window = np.repeat(frame[None, None], 5, axis=1)
    return tiled.run(window)


def noise(height: int, width: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((height, width)).astype(np.float32)


class TestPlan:
    @given(
        length=st.integers(16, 5000),
        size=st.integers(16, 1100),
        overlap=st.integers(0, 300),
        min_size=st.integers(1, 64),
    )
    def test_every_pixel_is_given_once_and_far_from_a_tile_s_border(
        self, length: int, size: int, overlap: int, min_size: int
    ) -> None:
        assume(min_size <= length)
        assume(size - GRID + 1 >= max(overlap + GRID, min_size))
        model = in_tiles_of(Tiling(size=size, overlap=overlap), min_size=min_size)
        tiles = plan_tiles(model.manifest, length)
        pieces = tiles.pieces
        assert min_size <= tiles.size <= size
        assert all(piece.origin % GRID == 0 for piece in pieces)
        assert pieces[0].origin == 0
        assert pieces[-1].origin + tiles.size == length
        middles = [piece.start + piece.blend // 2 for piece in pieces] + [length]
        assert middles[0] == 0
        assert middles == sorted(set(middles))
        for before, after in pairwise(pieces):
            shared = before.origin + tiles.size - after.origin
            assert shared >= overlap
            assert after.blend == min(BLEND, shared) // 2 * 2
            assert before.stop == after.start + after.blend
            margin = (overlap - BLEND) // 2
            assert after.start - after.origin >= margin
            assert before.origin + tiles.size - before.stop >= margin

    @pytest.mark.parametrize(
        ("length", "size", "overlap", "count"),
        [(128, 128, 24, 1), (129, 128, 24, 2), (440, 128, 24, 4), (2048, 1024, 54, 3)],
    )
    def test_there_are_no_more_tiles_than_needed(
        self, length: int, size: int, overlap: int, count: int
    ) -> None:
        manifest = in_tiles_of(Tiling(size=size, overlap=overlap)).manifest
        assert len(plan_tiles(manifest, length).pieces) == count

    def test_tiles_are_no_larger_than_needed(self) -> None:
        manifest = in_tiles_of(Tiling(size=1024, overlap=54)).manifest
        assert plan_tiles(manifest, 2048).size == 720

    @pytest.mark.parametrize(
        ("tiling", "says"),
        [
            (Tiling(size=64, overlap=64), "overlap of 64.*tiles need 79"),
            (Tiling(size=64, overlap=50), "overlap of 50.*tiles need 65"),
            (Tiling(size=18, overlap=0), "smallest size of 16.*tiles need 23"),
        ],
    )
    def test_tiles_that_get_nowhere_are_refused(self, tiling: Tiling, says: str) -> None:
        with pytest.raises(ModelError, match=says):
            plan_tiles(in_tiles_of(tiling, min_size=16).manifest, 200)


class TestJoining:
    @pytest.mark.parametrize("size", [(61, 83), (32, 90), (90, 32), (100, 100)])
    def test_a_network_that_looks_near_gives_the_frame_in_one_piece(
        self, size: tuple[int, int]
    ) -> None:
        frame = noise(*size)
        engine = StandIn()
        whole = StandIn().run(np.repeat(frame[None, None], 5, axis=1))
        assert np.array_equal(restored(engine, Tiling(size=32, overlap=8), frame), whole)
        assert len(engine.sizes) == 1

    @pytest.mark.parametrize("values", [(0, 1, 1, 0), (0, 1, 0, 1), (0, 0, 1, 1), (1, 1, 1, 0)])
    def test_tiles_that_differ_pass_into_each_other_without_a_step(
        self, values: tuple[float, ...]
    ) -> None:
        out = restored(Constants(*values), Tiling(size=64, overlap=16), noise(100, 100))
        assert out.min() >= 0
        assert out.max() <= 1
        for axis in (0, 1):
            assert np.abs(np.diff(out, axis=axis)).max() <= 1 / (BLEND * SCALE) + 1e-6
        corners = (out[0, 0], out[0, -1], out[-1, 0], out[-1, -1])
        assert corners == values

    def test_a_network_that_looks_at_everything_shows_no_seam(self) -> None:
        frame = np.linspace(0, 4, 104, dtype=np.float32) * np.ones((64, 1), np.float32)
        frame += 0.1 * noise(64, 104)
        tiling = Tiling(size=64, overlap=24)
        seam = SCALE * 52
        jumps = {}
        for name, chosen in (("passing", tiling), ("cut", blurred(tiling))):
            out = restored(LooksAtEverything(), chosen, frame)
            steps = np.abs(np.diff(out, axis=1)).mean(axis=0)
            near = steps[seam - 4 * BLEND : seam + 4 * BLEND]
            jumps[name] = near.max() / steps[SCALE - 1 :: SCALE].mean()
        assert jumps["passing"] < 1.3
        assert jumps["cut"] > 1.3 * jumps["passing"]

    def test_seams_are_blurred_as_in_the_published_code_and_nothing_else_is(self) -> None:
        filters = pytest.importorskip("skimage.filters")
        frame = noise(64, 104)
        out = restored(StandIn(), Tiling(size=64, overlap=24, seam_blur=True), frame).copy()
        expected = StandIn().run(np.repeat(frame[None, None], 5, axis=1))
        strip = np.s_[:, SCALE * 52 - 5 : SCALE * 52 + 5]
        expected[strip] = filters.gaussian(expected[strip], sigma=1.0)
        np.testing.assert_allclose(out, expected, atol=1e-5)

    def test_the_next_window_leaves_nothing_of_the_one_before(self) -> None:
        model = in_tiles_of(Tiling(size=64, overlap=16, seam_blur=True))
        engine = TiledEngine(LooksAtEverything())
        engine.prepare(model, 100, 90)
        first, other = (np.full((1, 5, 100, 90), value, np.float32) for value in (1.5, -7))
        before = engine.run(first).copy()
        engine.run(other)
        assert engine.run(first).tobytes() == before.tobytes()

    def test_closing_closes_the_engine_within(self) -> None:
        engine = StandIn()
        TiledEngine(engine).close()
        assert engine.closed


def blurred(tiling: Tiling) -> Tiling:
    return msgspec.structs.replace(tiling, seam_blur=True)


class TestSelection:
    def test_frames_that_fit_are_restored_in_one_piece(self) -> None:
        model = in_tiles_of(Tiling(size=64, overlap=16))
        engine, report = prepare_engine("openvino", "fp32", model, 64, 48)
        engine.close()
        assert report.tiles == 1
        assert not isinstance(engine, TiledEngine)

    def test_larger_frames_are_restored_in_tiles_and_the_report_says_how_many(self) -> None:
        model = in_tiles_of(Tiling(size=64, overlap=16))
        engine, report = prepare_engine("openvino", "fp32", model, 100, 48)
        try:
            out = engine.run(np.repeat(noise(100, 48)[None, None], 5, axis=1))
        finally:
            engine.close()
        assert (report.tiles, report.engine) == (2, "openvino")
        assert out.shape == (400, 192)
        assert np.isfinite(out).all()

    def test_the_largest_frame_stays_the_model_s(self) -> None:
        model = in_tiles_of(Tiling(size=64, overlap=16), max_size=128)
        with pytest.raises(ModelError, match="frames of 129×48"):
            prepare_engine("openvino", "fp32", model, 129, 48)

    def test_without_tiles_everything_fits(self) -> None:
        assert fits(msgspec.structs.replace(MODEL.manifest, tiling=None), 4096, 4096)
