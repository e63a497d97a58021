"""The fp16 network of a package: what engines run whose arithmetic is in the file."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pssr_live.engine.openvino import OpenVINOEngine
from pssr_live.engine.openvino_core import openvino_core
from pssr_live.errors import ModelError
from pssr_live.model import find_model
from pssr_live_models.half_precision import half_precision

MODEL = find_model("neuron_mf")
FLOOR_DB = 60.0
"""What an engine must reach in fp16 before it goes live."""


def scored_window(size: int) -> np.ndarray:
    window = MODEL.test_pair().window[:, :size, :size].astype(np.float64)
    return ((window - window.mean()) / window.std()).astype(np.float32)[None]


def test_input_and_output_stay_fp32_and_all_arithmetic_is_fp16() -> None:
    network = onnx.load_from_string(half_precision(MODEL.network))
    ends = [*network.graph.input, *network.graph.output]
    assert [(end.name, end.type.tensor_type.elem_type) for end in ends] == [
        ("window", TensorProto.FLOAT),
        ("restored", TensorProto.FLOAT),
    ]
    weights = {w.data_type for w in network.graph.initializer if w.data_type != TensorProto.INT64}
    assert weights == {TensorProto.FLOAT16}


def test_the_same_network_gives_the_same_bytes_of_half_the_size() -> None:
    once, again = half_precision(MODEL.network), half_precision(MODEL.network)
    assert once == again
    assert len(once) < 0.55 * len(MODEL.network)


def test_rounding_every_number_to_fp16_stays_above_the_floor() -> None:
    window = scored_window(48)
    half = onnx.load_from_string(half_precision(MODEL.network))
    # The reference evaluator computes in the types of the file; engines on a CPU do not.
    found = ReferenceEvaluator(half).run(None, {"window": window})[0][0, 0]
    engine = OpenVINOEngine("fp32")
    engine.prepare(MODEL, *window.shape[2:])
    exact = engine.run(window).copy()
    engine.close()
    assert found.dtype == np.float32
    psnr = 10 * np.log10(np.ptp(exact) ** 2 / np.mean((found - exact) ** 2))
    assert psnr > FLOOR_DB + 10


def test_it_takes_frames_of_any_size() -> None:

    network = openvino_core().read_model(io.BytesIO(half_precision(MODEL.network)))
    for height, width in ((37, 53), (440, 440)):
        network.reshape([1, MODEL.manifest.window_length, height, width])
        assert list(network.output(0).shape) == [1, 1, 4 * height, 4 * width]


def test_a_weight_that_does_not_fit_is_refused() -> None:
    node = helper.make_node("Mul", ["window", "gain"], ["restored"])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4])
        for name in ("window", "restored")
    ]
    gain = numpy_helper.from_array(np.array([7e4], np.float32), "gain")
    graph = helper.make_graph([node], "too bright", ends[:1], ends[1:], [gain])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    with pytest.raises(ModelError, match=r"its weights gain reach 7e\+04, fp16 ends at 65504"):
        half_precision(model.SerializeToString())
