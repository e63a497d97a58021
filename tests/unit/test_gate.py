"""No engine goes live before it agrees with fp32; a wrong one is caught, whatever is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pssr_live.engine.check import check_test_pair
from pssr_live.engine.gate import FLOORS_DB
from pssr_live.engine.openvino_core import openvino_core
from pssr_live.engine.restore import Restorer
from pssr_live.errors import EngineError
from pssr_live.frames import Frame, Window
from pssr_live.model import ModelPackage, TestPair, find_model
from tests import wrong_engines
from tests.wrong_engines import (
    Breaks,
    Noisy,
    NotFinite,
    OnePercentBrighter,
    OnePixelAside,
    Right,
    RoundedLikeTF32,
    SwappedRows,
    WrongLater,
    WrongShape,
    WrongSign,
)

HEIGHT, WIDTH = 48, 100


@pytest.fixture(scope="module")
def model() -> ModelPackage:
    return find_model("neuron_mf")


@pytest.fixture
def verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, where nothing has been judged yet."""
    monkeypatch.setenv("PSSR_LIVE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "verdicts"


def window(scale: float = 1.0, seed: int = 0) -> Window:
    planes: NDArray[np.generic] = np.random.default_rng(seed).poisson(
        scale * np.linspace(1, 60, WIDTH), (5, HEIGHT, WIDTH)
    )
    frames = tuple(Frame(plane.astype(np.uint16), k, 0, 0) for k, plane in enumerate(planes))
    return Window(frames, centre=2, edge=False, complete=True, t_ready_ns=0)


def opened(model: ModelPackage, engine: str, precision: str | None = None) -> Restorer:
    return Restorer(model, engine, precision, HEIGHT, WIDTH)


class TestTestPair:
    @pytest.mark.parametrize(
        ("wrong", "precision", "why"),
        [
            (WrongSign, None, "dB from fp32 where 90 dB are needed"),
            (WrongSign, "bf16", "dB from fp32 where 60 dB are needed"),
            (OnePercentBrighter, None, "dB from fp32"),
            (OnePercentBrighter, "bf16", r"contrast \+1.0 %"),
            (SwappedRows, "bf16", "dB from fp32"),
            (OnePixelAside, "bf16", "dB from fp32"),
            (RoundedLikeTF32, None, "dB from fp32"),
            (NotFinite, "bf16", "some pixels are not finite"),
            (WrongShape, "bf16", r"\(188, 400\) pixels, not \(192, 400\)"),
            (Breaks, "bf16", "it broke: device lost"),
        ],
    )
    def test_a_wrong_engine_is_refused_and_why_is_said(
        self,
        model: ModelPackage,
        monkeypatch: pytest.MonkeyPatch,
        wrong: type[Right],
        precision: str | None,
        why: str,
    ) -> None:
        wrong_engines.install(monkeypatch, wrong)
        with pytest.raises(EngineError, match=f"a test does not restore as it should: .*{why}"):
            opened(model, "cuda", precision)

    def test_auto_goes_on_to_the_next_engine_and_keeps_the_reason(
        self, model: ModelPackage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong_engines.install(monkeypatch, SwappedRows)
        restorer = opened(model, "auto")
        restorer.close()
        assert (restorer.report.requested, restorer.report.engine) == ("auto", "openvino")
        (refusal,) = restorer.report.refused
        assert refusal.engine == "cuda"
        assert "test pair" in refusal.why
        assert "dB from fp32" in refusal.why

    def test_fp32_on_the_processor_is_judged_by_what_torch_gave(
        self, model: ModelPackage, verdicts: Path
    ) -> None:
        restorer = opened(model, "openvino")
        restorer.close()
        (check,) = restorer.report.checks
        assert (check.what, check.floor_db, check.cached) == ("test pair", 90, False)
        assert check.psnr_db > 120

    @pytest.mark.parametrize("engine", ["openvino", "cuda"])
    def test_a_package_that_fp32_does_not_reproduce_cannot_be_run_at_all(
        self,
        model: ModelPackage,
        monkeypatch: pytest.MonkeyPatch,
        verdicts: Path,
        engine: str,
    ) -> None:
        wrong_engines.install(monkeypatch, Right)
        pair = model.test_pair()
        other = replace(model, pair=TestPair(pair.window, pair.restored[::-1], None))
        with pytest.raises(EngineError, match=r"openvino fp32 on .* test pair: .* dB from fp32"):
            opened(other, engine)

    def test_an_engine_too_far_from_the_truth_is_refused_though_it_is_near_fp32(
        self, model: ModelPackage, monkeypatch: pytest.MonkeyPatch, verdicts: Path
    ) -> None:
        wrong_engines.install(monkeypatch, Noisy)
        pair = model.test_pair()
        blind = replace(model, pair=TestPair(pair.window, pair.restored, None))
        assert opened_and_closed(blind, "cuda", "int8").report.checks[0].drop_db is None
        # The mirrored part has other statistics; a size that the pair covers has them too.
        truth = TestPair(pair.window, pair.restored, pair.restored + np.float32(1))
        with pytest.raises(EngineError, match="dB further from the truth than fp32"):
            check_test_pair(replace(model, pair=truth), "cuda", "int8")

    def test_a_right_engine_says_by_how_much_it_passed(
        self, model: ModelPackage, verdicts: Path
    ) -> None:
        if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            pytest.skip("this processor has no bf16")
        restorer = opened_and_closed(model, "openvino", "bf16")
        (check,) = restorer.report.checks
        assert check.floor_db == FLOORS_DB["bf16"] < check.psnr_db < 90

    def test_verifying_a_package_judges_by_the_same_floors(
        self, model: ModelPackage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worst, report = check_test_pair(model, "openvino", None)
        assert worst < 1e-3
        assert report.checks[0].psnr_db > FLOORS_DB["fp32"]
        wrong_engines.install(monkeypatch, WrongSign)
        with pytest.raises(EngineError, match="dB from fp32"):
            check_test_pair(model, "cuda", None)


class TestFirstWindow:
    def test_a_named_engine_that_is_wrong_there_restores_nothing_then_or_later(
        self, model: ModelPackage, monkeypatch: pytest.MonkeyPatch, verdicts: Path
    ) -> None:
        wrong_engines.install(monkeypatch, WrongLater)
        restorer = opened(model, "cuda", "bf16")
        for _ in range(2):
            with pytest.raises(EngineError, match=r"first window: .* dB from fp32"):
                restorer.restore(window(), live=True)
        restorer.close()
        assert WrongLater.runs == 2

    def test_auto_goes_on_with_fp32_and_says_so(
        self,
        model: ModelPackage,
        monkeypatch: pytest.MonkeyPatch,
        verdicts: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        wrong_engines.install(monkeypatch, WrongLater)
        judged: list[str] = []
        restorer = Restorer(
            model,
            "auto",
            None,
            HEIGHT,
            WIDTH,
            on_judged=lambda report: judged.append(report.engine),
        )
        assert restorer.report.engine == "cuda"
        first = restorer.restore(window(), live=True)
        second = restorer.restore(window(seed=1), live=True)
        restorer.close()
        assert judged == ["openvino"]
        assert (restorer.report.requested, restorer.report.engine) == ("auto", "openvino")
        assert "first window" in restorer.report.refused[0].why
        assert "goes on instead" in caplog.text
        reference = opened(model, "openvino")
        for restored, seed in ((first, 0), (second, 1)):
            expected = reference.restore(window(seed=seed), live=True)
            assert restored.pixels.tobytes() == expected.pixels.tobytes()
            assert restored.engine == expected.engine
        reference.close()

    @pytest.mark.parametrize("scale", [0.0, 0.1, 30.0])
    def test_a_right_engine_passes_in_the_dark_and_in_the_light(
        self, model: ModelPackage, monkeypatch: pytest.MonkeyPatch, scale: float
    ) -> None:
        wrong_engines.install(monkeypatch, Right)
        restorer = opened(model, "cuda")
        restored = restorer.restore(window(scale), live=True)
        restorer.restore(window(scale), live=True)
        restorer.close()
        checks = restorer.report.checks
        assert [(check.what, check.floor_db) for check in checks] == [
            ("test pair", 90),
            ("first window", 75),
        ]
        assert restored.engine == "cuda fp32 on a test"

    def test_fp32_on_the_processor_is_not_compared_with_itself(self, model: ModelPackage) -> None:
        restorer = opened(model, "openvino")
        restorer.restore(window(), live=True)
        restorer.close()
        assert [check.what for check in restorer.report.checks] == ["test pair"]


class TestVerdicts:
    @pytest.fixture(autouse=True)
    def judged_once(
        self, model: ModelPackage, monkeypatch: pytest.MonkeyPatch, verdicts: Path
    ) -> None:
        wrong_engines.install(monkeypatch, Right)
        opened_and_closed(model, "cuda")
        assert Right.runs == 1

    def test_an_engine_that_passed_is_not_judged_again(self, model: ModelPackage) -> None:
        restorer = opened_and_closed(model, "cuda")
        assert Right.runs == 1
        assert restorer.report.checks[0].cached

    @pytest.mark.parametrize("content", [b"", b"{", b'{"psnr_db": 1e9}', b"\xff" * 100])
    def test_a_damaged_verdict_counts_for_nothing_and_is_made_anew(
        self, model: ModelPackage, verdicts: Path, content: bytes
    ) -> None:
        for file in verdicts.iterdir():
            file.write_bytes(content)
        restorer = opened_and_closed(model, "cuda")
        assert Right.runs == 2
        assert not restorer.report.checks[0].cached
        assert opened_and_closed(model, "cuda").report.checks[0].cached
        assert {file.suffix for file in verdicts.iterdir()} == {".json"}

    def test_another_version_is_judged_anew(
        self, model: ModelPackage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Right, "version", "1.1")
        assert not opened_and_closed(model, "cuda").report.checks[0].cached

    def test_another_precision_is_judged_anew(self, model: ModelPackage) -> None:
        assert not opened_and_closed(model, "cuda", "bf16").report.checks[0].cached

    def test_another_frame_size_is_judged_anew(self, model: ModelPackage) -> None:
        restorer = Restorer(model, "cuda", None, HEIGHT, WIDTH + 1)
        restorer.close()
        assert not restorer.report.checks[0].cached

    @pytest.mark.parametrize(("earlier", "again"), [(True, False), (False, True)])
    def test_an_engine_compiled_just_now_is_judged_anew(
        self, model: ModelPackage, monkeypatch: pytest.MonkeyPatch, earlier: bool, again: bool
    ) -> None:
        monkeypatch.setattr(Right, "compiled_earlier", earlier)
        assert opened_and_closed(model, "cuda").report.checks[0].cached is not again

    def test_a_verdict_below_the_floor_counts_for_nothing(
        self, model: ModelPackage, monkeypatch: pytest.MonkeyPatch, verdicts: Path
    ) -> None:
        wrong_engines.install(monkeypatch, Noisy)
        monkeypatch.setattr(Noisy, "version", "2.0")
        pair = model.test_pair()
        blind = replace(model, pair=TestPair(pair.window, pair.restored, None))
        with monkeypatch.context() as lenient:
            lenient.setitem(FLOORS_DB, "fp32", 10.0)
            opened_and_closed(blind, "cuda")
        with pytest.raises(EngineError, match="dB from fp32 where 90 dB are needed"):
            opened(blind, "cuda")

    def test_a_failure_is_not_kept(
        self, model: ModelPackage, monkeypatch: pytest.MonkeyPatch, verdicts: Path
    ) -> None:
        monkeypatch.setattr(WrongSign, "version", "2.0")
        wrong_engines.install(monkeypatch, WrongSign)
        before = set(verdicts.iterdir())
        for _ in range(2):
            with pytest.raises(EngineError):
                opened(model, "cuda")
        assert WrongSign.runs == 2
        assert set(verdicts.iterdir()) == before

    def test_a_cache_that_cannot_be_written_only_costs_time(
        self, model: ModelPackage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "a-file").touch()
        monkeypatch.setenv("PSSR_LIVE_CACHE_DIR", str(tmp_path / "a-file"))
        assert not opened_and_closed(model, "cuda").report.checks[0].cached


def opened_and_closed(model: ModelPackage, engine: str, precision: str | None = None) -> Restorer:
    restorer = opened(model, engine, precision)
    restorer.close()
    return restorer
