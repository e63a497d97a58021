"""Every engine that runs on a CPU, against the one engine contract and the others."""

from __future__ import annotations

import numpy as np
import pytest

from pssr_live.engine.base import Engine
from pssr_live.engine.onnxruntime import ONNXRuntimeEngine
from pssr_live.engine.openvino import OpenVINOEngine
from pssr_live.engine.torch import TorchEngine
from pssr_live.model import ModelPackage, find_model
from pssr_live.testing import EngineContract

MODEL = find_model("neuron_mf")


class TestOpenVINO(EngineContract):
    def make(self) -> Engine:
        return OpenVINOEngine("fp32")

    def model(self) -> ModelPackage:
        return MODEL


class TestONNXRuntime(EngineContract):
    def make(self) -> Engine:
        pytest.importorskip("onnxruntime")
        return ONNXRuntimeEngine("fp32")

    def model(self) -> ModelPackage:
        return MODEL


class TestTorch(EngineContract):
    def make(self) -> Engine:
        pytest.importorskip("torch")
        pytest.importorskip("onnx")
        return TorchEngine("fp32")

    def model(self) -> ModelPackage:
        return MODEL


def test_the_engines_agree_with_each_other() -> None:
    pytest.importorskip("onnxruntime")
    window = np.random.default_rng(0).standard_normal((1, 5, 61, 47)).astype(np.float32)
    outputs = []
    for engine in (OpenVINOEngine("fp32"), ONNXRuntimeEngine("fp32")):
        engine.prepare(MODEL, 61, 47)
        outputs.append(engine.run(window).copy())
        engine.close()
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-3
