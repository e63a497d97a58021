"""A named engine runs or is an error; only ``auto`` falls back, and says why."""

from __future__ import annotations

import sys

import pytest

from pssr_live.engine import gpu, openvino, select
from pssr_live.engine.base import EngineReport
from pssr_live.errors import EngineError, ModelError
from pssr_live.model import find_model

MODEL = find_model("neuron_mf")


def refuse(self: object, *args: object) -> EngineReport:
    raise EngineError("OpenVINO", "this is a test", "go on")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the processor, also on a machine that has a GPU."""

    def find_gpu() -> gpu.Gpu:
        raise EngineError("no NVIDIA GPU can be used", "this is a test", "go on")

    monkeypatch.setattr(gpu, "find_gpu", find_gpu)


def test_auto_tries_in_the_stated_order() -> None:
    stated = ("tensorrt", "tensorrt-rtx", "cuda", "openvino", "onnxruntime", "torch")
    assert tuple(name for name in stated if name in select.AUTO_ORDER) == select.AUTO_ORDER


def test_auto_takes_the_first_engine_that_can() -> None:
    engine, report = select.prepare_engine("auto", None, MODEL, 64, 64)
    engine.close()
    assert (report.requested, report.engine, report.precision) == ("auto", "openvino", "fp32")
    before = select.AUTO_ORDER[: select.AUTO_ORDER.index("openvino")]
    assert [refusal.engine for refusal in report.refused] == list(before)


def test_auto_falls_back_and_keeps_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(openvino.OpenVINOEngine, "prepare", refuse)
    engine, report = select.prepare_engine("auto", None, MODEL, 64, 64)
    engine.close()
    assert (report.requested, report.engine) == ("auto", "onnxruntime")
    last = report.refused[-1]
    assert (last.engine, last.why) == ("openvino", "OpenVINO: this is a test; go on")


def test_a_named_engine_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino.OpenVINOEngine, "prepare", refuse)
    with pytest.raises(EngineError, match="this is a test"):
        select.prepare_engine("openvino", None, MODEL, 64, 64)


def test_when_none_can_all_reasons_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino.OpenVINOEngine, "prepare", refuse)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineError, match=r"this is a test.*onnxruntime: .*pip install"):
        select.prepare_engine("auto", None, MODEL, 64, 64)


def test_a_precision_an_engine_does_not_have_is_an_error() -> None:
    with pytest.raises(EngineError, match="ONNX Runtime cannot run in bf16"):
        select.prepare_engine("onnxruntime", "bf16", MODEL, 64, 64)


@pytest.mark.parametrize("name", ["auto", "openvino"])
def test_a_size_the_model_cannot_take_is_the_model_s_error(name: str) -> None:
    with pytest.raises(ModelError, match="cannot restore frames of 2×64"):
        select.prepare_engine(name, None, MODEL, 2, 64)


def test_bf16_is_read_back_from_what_runs_where_the_processor_has_it() -> None:
    import openvino as runtime

    if "BF16" not in runtime.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16")
    engine, report = select.prepare_engine("openvino", "bf16", MODEL, 64, 64)
    engine.close()
    assert "bf16" in report.precision
