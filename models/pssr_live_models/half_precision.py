"""The fp16 network of a package, made from its fp32 one."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from pssr_live.errors import ModelError

__all__ = ["half_precision"]

_LARGEST = float(np.finfo(np.float16).max)


def half_precision(network: bytes) -> bytes:
    """Hold weights and arithmetic of a network in fp16.

    The precision is in the file, not in an option of the engine: TensorRT 10, 11 and TensorRT-RTX
    run a network in the types that it is written in.

    Parameters
    ----------
    network : bytes
        ONNX in fp32, as `pssr_live.model.Manifest.network` describes it.

    Returns
    -------
    bytes
        ONNX with the same float32 input and output, for the same sizes of frames; all between is
        fp16. The same network gives the same bytes.

    Raises
    ------
    ModelError
        A weight does not fit into fp16.
    """
    model = onnx.load_from_string(network)
    for initializer in model.graph.initializer:
        if initializer.data_type == TensorProto.FLOAT:
            _check_range(initializer)
    half = convert_float_to_float16(model, keep_io_types=True)
    # The converter puts the casts of the inputs at the end; ONNX wants nodes in order.
    inputs = {value.name for value in half.graph.input}
    nodes = list(half.graph.node)
    nodes.sort(key=lambda node: not (node.op_type == "Cast" and node.input[0] in inputs))
    del half.graph.node[:], half.graph.value_info[:]
    half.graph.node.extend(nodes)
    onnx.checker.check_model(half, full_check=True)
    content: bytes = half.SerializeToString(deterministic=True)
    return content


def _check_range(weights: TensorProto) -> None:
    largest = float(np.abs(numpy_helper.to_array(weights)).max(initial=0))
    if not largest <= _LARGEST:
        raise ModelError(
            "a network cannot be held in fp16",
            f"its weights {weights.name} reach {largest:.3g}, fp16 ends at {_LARGEST:.0f}",
            "ship the model without an fp16 network",
        )
