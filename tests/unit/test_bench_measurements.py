"""The bench measures what it says: counts that can be checked by hand, small runs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import openvino
import pytest
from openvino import opset13

from pssr_live.bench import measure as measure_module
from pssr_live.bench.daemon import at_pace, full_speed
from pssr_live.bench.engines import scale_with_size, time_engines, windows_of
from pssr_live.bench.frames import MemorySource, preset_info, render
from pssr_live.bench.measure import Effort, measure
from pssr_live.bench.paper import paper_tiles, time_paper
from pssr_live.bench.peak import matmul_peak, network_gmacs
from pssr_live.bench.process import drift, start_up
from pssr_live.bench.report import budget
from pssr_live.bench.results import Round
from pssr_live.engine.select import AUTO_ORDER
from pssr_live.engine.tile import plan_tiles
from pssr_live.errors import PssrLiveError
from pssr_live.model import ModelPackage, Tiling, find_model
from pssr_live.settings import RunSettings
from pssr_live.testing import SourceContract

SIZE = 48
INFO = replace(preset_info(), height=SIZE, width=SIZE)
SETTINGS = RunSettings(engine="openvino", precision="fp32")


@pytest.fixture(scope="module")
def model() -> ModelPackage:
    return find_model("neuron_mf")


class TestMemorySource(SourceContract):
    """What the daemon relies on in a source."""

    def make(self) -> MemorySource:
        source = MemorySource(INFO, render(6, SIZE), count=100, interval_ms=0)
        source.go()
        return source


def test_frames_come_at_the_pace_asked_for() -> None:
    source = MemorySource(INFO, render(2, SIZE), count=6, interval_ms=5.0)
    source.open()
    source.go()
    frames = list(source.frames())
    assert [frame.index for frame in frames] == list(range(6))
    assert [frame.t_source_ns for frame in frames] == [5_000_000 * index for index in range(6)]
    assert all(later.t_host_ns >= sooner.t_host_ns for sooner, later in pairwise(frames))
    assert frames[-1].t_host_ns - frames[0].t_host_ns >= 24_000_000


def test_a_source_that_was_never_let_go_can_be_stopped() -> None:
    source = MemorySource(INFO, render(1, SIZE), count=6, interval_ms=0)
    source.open()
    source.stop()
    assert list(source.frames()) == []


def test_the_preset_is_the_paper_s_neuron_setting() -> None:
    info = preset_info()
    assert (info.height, info.width, info.interval_ms) == (440, 440, 270.49)


def test_multiply_accumulates_are_counted_as_by_hand(
    model: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 channels to 8 by 3×3, down by 2, a product of matrices, up by 2×2."""
    frames = opset13.parameter([1, 5, 32, 24], np.float32)
    weights = opset13.constant(np.zeros((8, 5, 3, 3), np.float32))
    seen = opset13.convolution(frames, weights, [2, 2], [1, 1], [1, 1], [1, 1])
    mixed = opset13.matmul(seen, opset13.constant(np.zeros((12, 12), np.float32)), False, False)
    up = opset13.convolution_backprop_data(
        mixed, opset13.constant(np.zeros((8, 3, 2, 2), np.float32)), [2, 2]
    )
    graph = openvino.Model([up], [frames], "by hand")
    monkeypatch.setattr(openvino.Core, "read_model", lambda *_: graph)
    by_hand = 16 * 12 * 8 * (5 * 3 * 3) + 8 * 16 * 12 * 12 + 16 * 12 * 8 * (3 * 2 * 2)
    assert network_gmacs(model, 32, 24) == by_hand / 1e9


def test_the_shipped_network_asks_for_as_much_per_pixel_at_every_size(
    model: ModelPackage,
) -> None:
    small, large = network_gmacs(model, 64, 64), network_gmacs(model, 256, 256)
    assert large == pytest.approx(16 * small)


def test_the_peak_is_measured_for_what_the_processor_has() -> None:
    peaks = matmul_peak(0.05)
    assert peaks["fp32"] > 1
    assert set(peaks) <= {"fp32", "bf16"}


def test_every_engine_is_timed_or_refused_with_its_reason(model: ModelPackage) -> None:
    steps: list[str] = []
    timings, refused = time_engines(
        model,
        "auto",
        windows_of(render(6, SIZE), model),
        frames=2,
        on_step=steps.append,
    )
    assert len(timings) + len(refused) == len(steps)
    (one,) = (one for one in timings if (one.engine, one.precision) == ("openvino", "fp32"))
    assert one.frames_per_s == pytest.approx(1e3 / one.frame_ms.p50)
    assert one.output_megapixels_per_s == pytest.approx(one.frames_per_s * (4 * SIZE) ** 2 / 1e6)
    assert 0 < one.network_least_ms <= one.network_ms.p50
    assert any("bf16" in one.why for one in refused if one.engine == "onnxruntime")
    assert {one.engine for one in [*timings, *refused]} == set(AUTO_ORDER)
    assert one.tiles == 1
    assert one.psnr_db is None or one.psnr_db > 90


def test_frames_in_tiles_are_timed_and_counted_as_tiles(model: ModelPackage) -> None:
    tiling = Tiling(size=112, overlap=96)
    tiled = replace(model, manifest=msgspec.structs.replace(model.manifest, tiling=tiling))
    windows = windows_of(render(6, 128), model)
    timings, _ = time_engines(tiled, "openvino", windows, frames=1, on_step=lambda _: None)
    assert {one.tiles for one in timings} == {4}
    tile = plan_tiles(tiled.manifest, 128).size
    assert network_gmacs(tiled, 128, 128) == pytest.approx(4 * network_gmacs(model, tile, tile))
    costs = scale_with_size(tiled, "openvino", "fp32", (64, 128), 1).costs
    assert [cost.size for cost in costs] == [64, 128]


def test_sizes_that_the_model_does_not_take_are_left_out(model: ModelPackage) -> None:
    small = replace(model, manifest=msgspec.structs.replace(model.manifest, max_size=64))
    costs = scale_with_size(small, "openvino", "fp32", (32, 64, 128), 1).costs
    assert [cost.size for cost in costs] == [32, 64]
    with pytest.raises(PssrLiveError, match="16 to 64 pixels"):
        scale_with_size(small, "openvino", "fp32", (64, 128), 1)


def test_the_published_code_cuts_a_frame_into_sixteen_tiles() -> None:
    assert [paper_tiles(size, 4) for size in (100, 128, 129, 250, 440)] == [1, 1, 4, 4, 16]


def test_one_tile_of_the_published_network_is_timed(model: ModelPackage) -> None:
    """Its place is taken by the shipped network here, which compiles in a moment."""
    folders: list[Path] = []
    steps: list[str] = []

    def make(folder: Path) -> ModelPackage:
        assert folder.is_dir()
        folders.append(folder)
        return model

    (one,), refused = time_paper(make, "auto", None, frame=440, times=2, on_step=steps.append)
    assert refused == []
    assert (one.engine, one.precision) == ("openvino", "fp32")
    assert (one.tile, one.tiles, len(one.tile_ms)) == (128, 16, 2)
    assert one.frame_s == pytest.approx(16 * min(one.tile_ms) / 1e3)
    assert one.gmacs == network_gmacs(model, 128, 128)
    assert not folders[0].exists()
    assert "published network, one tile, 2 of 2" in steps


def test_an_engine_that_cannot_run_the_published_network_is_refused(model: ModelPackage) -> None:
    timings, (one,) = time_paper(
        lambda _: model, "torch", "int8", frame=440, times=1, on_step=lambda _: None
    )
    assert timings == []
    assert (one.engine, one.precision) == ("torch", "int8")


def test_a_round_compares_the_daemon_with_the_bare_engine_around_it() -> None:
    assert Round(9.0, 9.5, 11.0).ratio == 0.95


def test_the_daemon_at_full_speed_is_compared_round_by_round(model: ModelPackage) -> None:
    result = full_speed(
        model, SETTINGS, INFO, render(6, SIZE), rounds=1, seconds=0.2, on_step=lambda _: None
    )
    (one,) = result.rounds
    assert result.ratio == one.ratio > 0
    assert one.bare_after > 0
    assert result.seen_by_viewer > 0
    assert "openvino fp32" in result.engine


def test_at_its_pace_all_frames_are_counted_and_latency_is_more_than_the_engine_s_time(
    model: ModelPackage, tmp_path: Path
) -> None:
    info = replace(INFO, interval_ms=40.0)
    result = at_pace(model, SETTINGS, info, render(6, SIZE), 12)
    assert (result.frames, result.lost, result.interval_ms) == (12, 0, 40.0)
    assert result.total_ms.p50 > result.engine_ms.p50 > 0
    assert result.added_ms.p99 >= result.added_ms.p50 > 0
    assert result.seen_after_ms.p50 > 0


def test_the_slope_is_of_time_against_pixels(model: ModelPackage) -> None:
    scaling = scale_with_size(model, "openvino", "fp32", (32, 64), 1)
    (small, large) = scaling.costs
    by_hand = math.log(large.frame_ms / small.frame_ms) / math.log(4)
    assert scaling.slope == pytest.approx(by_hand)


def test_memory_drift_is_from_after_the_warm_up_to_the_end() -> None:
    samples = [(at, 100.0 if at < 500 else 150 + at / 1000) for at in range(0, 2001, 50)]
    result = drift(samples, warm_up=1000, frames=1000, skipped=0)
    assert (result.start_mb, result.end_mb) == (151.05, 151.95)
    assert result.drift == pytest.approx(0.9 / 151.05)


def test_too_few_looks_at_memory_are_an_error_and_no_figure() -> None:
    with pytest.raises(PssrLiveError, match="too few samples"):
        drift([(0, 100.0)], warm_up=1000, frames=1000, skipped=0)


def test_starting_takes_time_and_help_more_than_an_import() -> None:
    taken = start_up(1)
    assert 0 < taken.import_s < taken.help_s


def test_one_command_measures_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `pssr-live bench`, on small frames; memory in a process of its own."""
    monkeypatch.setattr(measure_module, "preset_info", lambda: replace(INFO, interval_ms=40.0))
    monkeypatch.setattr(measure_module, "render", lambda count: render(count, SIZE))
    small = Effort(
        rendered=6, timed=2, rounds=1, seconds=0.2, paced=12, sizes=(32, 64), size_rounds=1,
        warm_up=20, drift=240, starts=1, paper=1,
    )  # fmt: skip
    steps: list[str] = []
    report = measure(SETTINGS, small, steps.append, lambda _: find_model("neuron_mf"))
    assert report.model == "neuron_mf"
    assert {one.engine for one in report.engines} == {"openvino"}
    assert report.latency.frames == 12
    assert report.memory is not None
    assert report.memory.start_mb > 10
    assert report.machine.cpus >= 1
    assert "memory over 240 small frames" in steps
    assert [one.tiles for one in report.paper] == [1]
    assert [line.met for line in budget(report)].count(None) == 0
