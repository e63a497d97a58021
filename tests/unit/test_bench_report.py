"""The bench's report: the budget is judged as the design says, and nothing is called measured."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from pssr_live.bench import command as command_module
from pssr_live.bench import paper as paper_module
from pssr_live.bench import report as report_module
from pssr_live.bench.command import run_bench
from pssr_live.bench.measure import QUICK, Effort
from pssr_live.bench.report import budget, check_plot, plot, refusals, show
from pssr_live.bench.results import (
    BenchReport,
    DaemonResult,
    EngineTiming,
    LatencyResult,
    Machine,
    MemoryResult,
    PaperNetwork,
    Percentiles,
    Refused,
    Round,
    SizeCost,
    SizeScaling,
    StartUp,
)
from pssr_live.errors import StorageError, UsageError
from pssr_live.settings import RunSettings


@pytest.fixture
def measured() -> BenchReport:
    """A machine that meets every line of the budget."""
    return BenchReport(
        machine=Machine(
            processor="a processor",
            system="a system",
            python="3.11",
            version="0.1.0",
            cpus=2,
            load=0.1,
            started="2026-03-01T14:30:15+01:00",
        ),
        model="neuron_mf",
        model_sha256="ab" * 32,
        size=440,
        gmacs=10.9,
        peak_gflops={"fp32": 400.0, "bf16": 800.0},
        engines=[
            EngineTiming(
                engine="openvino",
                precision="fp32",
                device="a processor",
                version="2026.4",
                psnr_db=None,
                tiles=1,
                frame_ms=Percentiles(100.0, 120.0),
                network_ms=Percentiles(95.0, 110.0),
                network_least_ms=90.0,
                frames=100,
                frames_per_s=10.0,
                output_megapixels_per_s=31.0,
            )
        ],
        refused=[Refused("onnxruntime", "bf16", "ONNX Runtime cannot run in bf16: no kernels")],
        daemon=DaemonResult(
            engine="openvino fp32 on a processor",
            rounds=[Round(10.0, 9.6, 10.0)],
            ratio=0.96,
            seen_by_viewer=80,
        ),
        latency=LatencyResult(
            interval_ms=270.49,
            frames=200,
            skipped=0,
            lost=0,
            engine_ms=Percentiles(100.0, 120.0),
            total_ms=Percentiles(103.0, 130.0),
            added_ms=Percentiles(3.0, 10.0),
            added_to_ready_ms=Percentiles(0.5, 2.0),
            seen_after_ms=Percentiles(4.0, 6.0),
        ),
        scaling=SizeScaling([SizeCost(128, 9.0), SizeCost(1024, 600.0)], 1.01),
        memory=MemoryResult(
            size=64,
            warm_up=2000,
            frames=10_000,
            skipped=0,
            start_mb=130.0,
            end_mb=130.5,
            samples=[(0, 120.0), (2000, 130.0), (12_000, 130.5)],
        ),
        start_up=StartUp(0.05, 0.3),
    )


def shown(report: BenchReport) -> str:
    text = io.StringIO()
    show(report, Console(file=text, width=140))
    return text.getvalue()


def test_a_machine_within_the_budget_meets_every_line(measured: BenchReport) -> None:
    assert [line.met for line in budget(measured)] == [True] * 8
    assert "MISSED" not in shown(measured)


@pytest.mark.parametrize(
    ("part", "field", "value", "line"),
    [
        ("daemon", "ratio", 0.89, "whole daemon's rate"),
        ("latency", "added_ms", Percentiles(5.1, 10.0), "added to the engine's time, p50"),
        ("latency", "added_ms", Percentiles(3.0, 20.1), "added to the engine's time, p99"),
        ("latency", "skipped", 1, "skipped and lost"),
        ("latency", "lost", 1, "skipped and lost"),
        ("scaling", "slope", 1.06, "cost against pixels"),
        ("memory", "end_mb", 131.4, "memory drift"),
        ("start_up", "import_s", 0.31, "import pssr_live"),
        ("start_up", "help_s", 0.61, "pssr-live --help"),
    ],
)
def test_a_line_that_is_missed_is_said_so_and_only_that_line(
    measured: BenchReport, part: str, field: str, value: object, line: str
) -> None:
    changed = msgspec.structs.replace(getattr(measured, part), **{field: value})
    report = msgspec.structs.replace(measured, **{part: changed})
    missed = [found.what for found in budget(report) if found.met is False]
    assert len(missed) == 1
    assert missed[0].startswith(line)
    assert "MISSED" in shown(report)


def test_what_was_not_measured_is_neither_met_nor_missed(measured: BenchReport) -> None:
    report = msgspec.structs.replace(measured, memory=None)
    (line,) = (line for line in budget(report) if line.met is None)
    assert line.what.startswith("memory drift")
    assert line.measured == "not measured"


def test_the_table_says_what_ran_what_was_refused_and_where(measured: BenchReport) -> None:
    text = shown(measured)
    for said in (
        "a processor, 2 processors", "load 0.1", "neuron_mf abababababab", "10.9 GMAC",
        "openvino fp32", "61%", "equal", "onnxruntime bf16: ONNX Runtime cannot run in bf16",
        "10.0, 9.6, 10.0", "1024² → 4096²",
    ):  # fmt: skip
        assert said in text


def test_a_tiled_engine_and_one_near_fp32_say_so(measured: BenchReport) -> None:
    tiled = msgspec.structs.replace(measured.engines[0], tiles=9, psnr_db=61.4)
    text = shown(msgspec.structs.replace(measured, engines=[tiled]))
    assert "openvino fp32, 9 tiles" in text
    assert " 61 " in text


def test_a_gpu_is_not_compared_with_the_processor_s_peak(measured: BenchReport) -> None:
    on_processor = measured.engines[0]
    share = measured.share_of_peak(on_processor)
    assert share is not None
    for device in ("CPUExecutionProvider", "CPU (AVX512)"):
        same = msgspec.structs.replace(on_processor, device=device)
        assert measured.share_of_peak(same) == share
    on_gpu = msgspec.structs.replace(on_processor, device="NVIDIA RTX A2000")
    assert measured.share_of_peak(on_gpu) is None


def test_one_reason_for_many_refusals_is_said_once(measured: BenchReport) -> None:
    no_gpu, no_kernels = "no NVIDIA GPU can be used", "no kernels"
    report = msgspec.structs.replace(
        measured,
        refused=[
            Refused("tensorrt", "fp32", no_gpu),
            Refused("tensorrt", "fp16", no_gpu),
            Refused("cuda", "fp32", no_gpu),
            Refused("cuda", "fp32", no_gpu),
            Refused("onnxruntime", "bf16", no_kernels),
        ],
    )
    assert refusals(report) == [
        "refused: tensorrt fp32/fp16, cuda fp32: no NVIDIA GPU can be used",
        "refused: onnxruntime bf16: no kernels",
    ]


def test_the_command_that_would_install_an_engine_is_printed_whole(measured: BenchReport) -> None:
    why = 'it is not installed; pip install "pssr-live[tensorrt]"'
    report = msgspec.structs.replace(measured, refused=[Refused("tensorrt", "fp32", why)])
    assert "pssr-live[tensorrt]" in shown(report)


@pytest.fixture
def with_paper(measured: BenchReport) -> BenchReport:
    paper = PaperNetwork(
        engine="openvino", precision="fp32", device="a processor", version="2026.4", tile=128,
        tile_ms=[3100.0, 2900.0], gmacs=127.0, tiles=16,
    )  # fmt: skip
    return msgspec.structs.replace(measured, paper=[paper])


def test_the_published_network_is_extrapolated_and_said_so(
    measured: BenchReport, with_paper: BenchReport
) -> None:
    assert with_paper.paper[0].frame_s == pytest.approx(16 * 2.9)
    text = shown(with_paper)
    for said in ("PSSR-MF", "random weights", "128² → 512²", "2.90", "16", "46.4", "extrapolated:"):
        assert said in text
    assert "PSSR-MF" not in shown(measured)


def test_the_published_network_is_in_the_json_and_in_the_plot(
    with_paper: BenchReport, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    assert msgspec.json.decode(msgspec.json.encode(with_paper), type=BenchReport) == with_paper
    plot(with_paper, tmp_path / "bench.svg")
    assert "published network" in (tmp_path / "bench.svg").read_text("utf-8")


def test_without_torch_the_published_network_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command_module, "measure", lambda *_: pytest.fail("it measured"))
    monkeypatch.setattr(paper_module, "entry_points", lambda **_: ())
    with pytest.raises(UsageError, match=r'pip install "pssr-live\[train\]"'):
        run_bench(RunSettings(), quick=True, out=None, picture=None, paper=True)


def test_the_json_holds_everything_and_reads_back(measured: BenchReport) -> None:
    assert msgspec.json.decode(msgspec.json.encode(measured), type=BenchReport) == measured


def test_a_plot_without_matplotlib_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report_module, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pssr-live\[evaluate\]"):
        check_plot(Path("bench.png"))


def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_module, "measure", lambda *_: pytest.fail("it measured"))
    with pytest.raises(UsageError, match="PNG or SVG"):
        run_bench(RunSettings(), quick=True, out=None, picture=tmp_path / "bench.jpeg")
    with pytest.raises(StorageError, match="there is no folder"):
        run_bench(RunSettings(), quick=True, out=tmp_path / "no" / "bench.json", picture=None)


def test_the_command_prints_the_tables_and_leaves_json_and_picture(
    measured: BenchReport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    asked: list[object] = []

    def measure(
        settings: RunSettings, effort: Effort, on_step: Callable[[str], None], paper: object
    ) -> BenchReport:
        asked.append(effort)
        on_step("rendering frames")
        return measured

    monkeypatch.setattr(command_module, "measure", measure)
    out, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    run_bench(RunSettings(), quick=True, out=out, picture=picture)
    assert asked == [QUICK]
    assert msgspec.json.decode(out.read_bytes(), type=BenchReport) == measured
    assert b"<svg" in picture.read_bytes()
    shown_now = capsys.readouterr()
    assert "whole daemon's rate" in shown_now.out
    assert "rendering frames" in shown_now.err


def test_a_plot_is_drawn(measured: BenchReport, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot(measured, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
