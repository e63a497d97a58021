"""How fast this processor multiplies matrices, and how much a network asks of it."""

from __future__ import annotations

import io
import math
import time
from typing import Any

import numpy as np

from pssr_live.engine.openvino_core import openvino_core
from pssr_live.engine.tile import plan_tiles
from pssr_live.model import ModelPackage

__all__ = ["matmul_peak", "network_gmacs", "processor"]

_HINTS = {"fp32": ("f32", "FP32"), "bf16": ("bf16", "BF16")}
_EDGES = (512, 1024, 2048)
"""The smallest fits into the cores' caches, the largest hides what it costs to start."""


def processor() -> str:
    """Name of the processor, as OpenVINO reads it."""
    return str(openvino_core().get_property("CPU", "FULL_DEVICE_NAME")).strip()


def matmul_peak(seconds: float) -> dict[str, float]:
    """Measure the matrix-multiply peak with the library that runs the network.

    Parameters
    ----------
    seconds : float
        How long to try for each precision.

    Returns
    -------
    dict of str to float
        10⁹ operations per second (a multiplication and an addition are two) of the fastest
        multiplication, by precision; only those that the processor has.
    """
    core = openvino_core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {
        precision: max(_fastest(core, hint, edge, seconds / len(_EDGES)) for edge in _EDGES)
        for precision, (hint, capability) in _HINTS.items()
        if capability in able
    }


def _fastest(core: Any, hint: str, edge: int, seconds: float) -> float:
    import openvino
    from openvino import opset13

    draw = np.random.default_rng(0)
    left = opset13.parameter([edge, edge], np.float32)
    right = opset13.constant(draw.standard_normal((edge, edge), np.float32))
    # The weights are constant, as a network's are, so they may be packed once.
    product = opset13.matmul(left, right, False, False)
    compiled = core.compile_model(
        openvino.Model([product], [left], "peak"),
        "CPU",
        {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": hint},
    )
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(draw.standard_normal((edge, edge), np.float32)))
    request.infer()
    least_s = math.inf
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        request.infer()
        least_s = min(least_s, time.perf_counter() - started)
    return 2 * edge**3 / least_s / 1e9


def network_gmacs(model: ModelPackage, height: int, width: int) -> float:
    """Count the multiply-accumulates of convolutions and matrix products for one frame.

    Parameters
    ----------
    model : ModelPackage
        Whose ONNX graph to count; for a frame that it restores in tiles, that of all tiles.
    height, width : int
        Size of the raw frames, pixels.

    Returns
    -------
    float
        10⁹ multiply-accumulates.
    """
    network = openvino_core().read_model(io.BytesIO(model.network))
    rows, columns = (plan_tiles(model.manifest, side) for side in (height, width))
    network.reshape([1, model.manifest.window_length, rows.size, columns.size])
    tiles = len(rows.pieces) * len(columns.pieces)
    return tiles * sum(_macs(node) for node in network.get_ordered_ops()) / 1e9


def _macs(node: Any) -> int:
    kind = node.get_type_name()
    if kind == "Convolution":  # weights (out, in, rows, columns)
        per_output = math.prod(list(node.input(1).get_shape())[1:])
    elif kind == "GroupConvolution":  # weights (groups, out, in, rows, columns)
        per_output = math.prod(list(node.input(1).get_shape())[2:])
    elif kind == "ConvolutionBackpropData":  # weights (in, out, …): each input goes to all of them
        weights = list(node.input(1).get_shape())
        return int(math.prod([*node.input(0).get_shape(), *weights[1:]]))
    elif kind == "MatMul":
        shape = list(node.input(0).get_shape())
        per_output = shape[-2] if node.get_attributes()["transpose_a"] else shape[-1]
    else:
        return 0
    return int(math.prod(node.output(0).get_shape()) * per_output)
