"""The torch engine says what it really runs and refuses, in one line, what it cannot."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from pssr_live.engine import torch as torch_engine  # noqa: E402
from pssr_live.engine.check import check_test_pair  # noqa: E402
from pssr_live.engine.openvino import OpenVINOEngine  # noqa: E402
from pssr_live.engine.select import AUTO_ORDER, prepare_engine  # noqa: E402
from pssr_live.engine.torch import TorchEngine  # noqa: E402
from pssr_live.errors import EngineError  # noqa: E402
from pssr_live.model import ModelPackage, find_model, shipped_models  # noqa: E402


@pytest.fixture(scope="module")
def model() -> ModelPackage:
    return find_model("neuron_mf")


@pytest.fixture(scope="module")
def window(model: ModelPackage) -> NDArray[np.float32]:
    pixels = np.random.default_rng(0).standard_normal((1, model.manifest.window_length, 33, 46))
    return pixels.astype(np.float32)


def decibels(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    error = np.sqrt(np.mean((found - expected) ** 2))
    return float(20 * np.log10(np.ptp(expected) / error))


def can_bf16() -> bool:
    try:
        TorchEngine("bf16").prepare(find_model("neuron_mf"), 32, 32)
    except EngineError:
        return False
    return True


@pytest.mark.parametrize("name", [folder.name for folder in shipped_models()])
def test_every_shipped_model_reproduces_its_test_pair(name: str) -> None:
    worst, report = check_test_pair(find_model(name), "torch", None)
    assert worst < 1e-3
    assert (report.engine, report.precision) == ("torch", "fp32")
    assert report.version == torch.__version__


def test_bf16_is_executed_and_near_fp32(model: ModelPackage, window: NDArray[np.float32]) -> None:
    if not can_bf16():
        pytest.skip("this processor has no bf16 instructions")
    exact = OpenVINOEngine("fp32")
    exact.prepare(model, 33, 46)
    expected = exact.run(window).copy()
    exact.close()
    engine = TorchEngine("bf16")
    report = engine.prepare(model, 33, 46)
    found = engine.run(window)
    assert report.precision == "bf16"
    assert found.dtype == np.float32
    assert 40 < decibels(found, expected) < 90, "it is either wrong or not bf16"
    engine.close()


def test_convolutions_that_stay_fp32_are_not_called_bf16(
    model: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The precision is what was computed, not what was asked for."""
    monkeypatch.setattr(torch_engine, "_processor_has_bf16", lambda: True)
    monkeypatch.setattr(torch, "autocast", lambda *_: torch.no_grad())
    with pytest.raises(EngineError, match="in bf16: most of its layers run in fp32"):
        TorchEngine("bf16").prepare(model, 32, 32)


def test_bf16_without_instructions_is_refused(
    model: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch_engine, "_processor_has_bf16", lambda: False)
    with pytest.raises(EngineError, match=r"no instructions for it; use --precision fp32"):
        TorchEngine("bf16").prepare(model, 32, 32)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_arithmetic_is_refused(precision: str) -> None:
    with pytest.raises(EngineError, match=f"PyTorch cannot run in {precision}"):
        TorchEngine(precision)


def test_an_operator_that_is_not_known_is_named(model: ModelPackage) -> None:
    changed = onnx.load_from_string(model.network)
    (*_, relu) = (node for node in changed.graph.node if node.op_type == "Relu")
    relu.op_type = "Erf"
    with pytest.raises(EngineError, match="operator Erf"):
        TorchEngine("fp32").prepare(replace(model, network=changed.SerializeToString()), 32, 32)


def test_a_damaged_network_is_one_line(model: ModelPackage) -> None:
    changed = onnx.load_from_string(model.network)
    kernel = next(one for one in changed.graph.initializer if len(one.dims) == 4)
    kernel.CopyFrom(onnx.numpy_helper.from_array(np.zeros((1, 1, 3, 3), np.float32), kernel.name))
    with pytest.raises(EngineError, match="PyTorch cannot run model neuron_mf") as raised:
        TorchEngine("fp32").prepare(replace(model, network=changed.SerializeToString()), 32, 32)
    assert "\n" not in str(raised.value)


def test_a_network_of_another_scale_is_refused(model: ModelPackage) -> None:
    changed = onnx.load_from_string(model.network)
    (scale,) = (one for one in changed.graph.initializer if one.name == "scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(np.array([3], np.int64), "scale"))
    with pytest.raises(EngineError, match=r"its output is \(96, 96\) for frames of 32×32"):
        TorchEngine("fp32").prepare(replace(model, network=changed.SerializeToString()), 32, 32)


def test_without_torch_it_says_what_to_install(
    model: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pssr_live.engine.torch_graph", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineError, match=r'pip install "pssr-live\[torch\]"'):
        prepare_engine("torch", None, model, 32, 32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_it_says_which(
    precision: str, model: ModelPackage, window: NDArray[np.float32]
) -> None:
    exact = OpenVINOEngine("fp32")
    exact.prepare(model, 33, 46)
    engine = TorchEngine(precision)
    report = engine.prepare(model, 33, 46)
    assert report.device == torch.cuda.get_device_name()
    assert report.precision == precision
    least = 90 if precision == "fp32" else 40  # TF32 gives about 70
    assert decibels(engine.run(window), exact.run(window)) > least
    engine.close()
    exact.close()


def test_auto_tries_it_last() -> None:
    assert AUTO_ORDER[-1] == "torch"
