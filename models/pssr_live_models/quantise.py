"""The int8 network of a package, made from its fp32 one: quantisation after training.

8-bit convolutions are three times as fast as fp32 ones on a processor that has instructions for
them. Which ranges the 8 bits stand for is measured on sample windows.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

from pssr_live.errors import ModelError

__all__ = ["quantise"]

_PERCENTILE = 99.999
"""Of the values in a tensor that keep their place; the few beyond are clipped.

Raw frames are bright dots on a dark ground: with the full range, the steps are too coarse for what
is between (loss against truth 0.3 dB instead of 0.07). With 99.99, contrast of bright scenes falls
by half a per cent.
"""

_TYPES = ("Conv", "MaxPool", "Add", "DepthToSpace")
_EXACT_OUTPUTS = ("Conv", "Add")
"""Their sums go on in float32 until the next 8-bit layer reads them."""

_WHAT = "a network cannot be quantised"

_PREPROCESSED = ("onnx.quant.pre_process", "onnxruntime.quant")
"""Keeps ONNX Runtime from advising what the network does not need."""


def quantise(network: bytes, windows: Iterable[NDArray[np.float32]]) -> bytes:
    """Let a network's convolutions run in int8.

    Convolutions that read the window itself stay in float32, upsampling of the middle frame among
    them, and so does what follows the last ones. With a window of 8 bits, a spot brighter than the
    sample windows loses half of its brightness; so it loses 3 %.

    Parameters
    ----------
    network : bytes
        ONNX in fp32, as `pssr_live.model.Manifest.network` describes it.
    windows : iterable of ndarray, shape (1, window_length, H, W), float32
        Normalised windows of what the model is for, none of them seen in evaluation; they are held
        in memory. Sixteen of 160² pixels with all photon rates did; six of 96² changed the contrast
        of other movies by 2 %.

    Returns
    -------
    bytes
        ONNX with the same float32 input and output, for the same sizes of frames. Activations are
        uint8, weights int8 by output channel, between pairs of QuantizeLinear and
        DequantizeLinear. The same network and windows give the same bytes.

    Raises
    ------
    ModelError
        There are no windows, or of a wrong shape, or no convolution that could be quantised.
    """
    model = onnx.load_from_string(network)
    samples = _Samples(model.graph.input[0], list(windows))
    _name_all(model.graph)
    exact = _exact_nodes(model.graph)
    _check(model.graph, exact, samples)
    key, value = _PREPROCESSED
    model.metadata_props.add(key=key, value=value)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder, "int8.onnx")
        quantize_static(
            model,
            path,
            samples,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_TYPES),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(exact),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "CalibPercentile": _PERCENTILE,
                "CalibStridedMinMax": 1,  # one window after the other, for the sake of memory
                "OpTypesToExcludeOutputQuantization": list(_EXACT_OUTPUTS),
                "WeightSymmetric": True,
            },
        )
        quantised = onnx.load(os.fspath(path))
    _read_exactly(quantised.graph, exact)
    del quantised.metadata_props[:], quantised.graph.value_info[:]
    onnx.checker.check_model(quantised, full_check=True)
    content: bytes = quantised.SerializeToString(deterministic=True)
    return content


class _Samples:
    """What ONNX Runtime calls a calibration data reader."""

    def __init__(self, taken: onnx.ValueInfoProto, windows: Sequence[NDArray[np.float32]]) -> None:
        length = taken.type.tensor_type.shape.dim[1].dim_value
        for window in windows:
            if window.dtype != np.float32 or window.ndim != 4 or window.shape[:2] != (1, length):
                raise ModelError(
                    _WHAT,
                    f"a sample window is {window.dtype} {window.shape}",
                    f"give float32 ones of (1, {length}, H, W)",
                )
        self._name = taken.name
        self._windows = windows
        self._places = iter(range(len(windows)))

    def __len__(self) -> int:
        return len(self._windows)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._places = iter(range(start_index, end_index))

    def get_next(self) -> Mapping[str, NDArray[np.float32]] | None:
        place = next(self._places, None)
        return None if place is None else {self._name: self._windows[place]}


def _check(graph: onnx.GraphProto, exact: set[str], samples: _Samples) -> None:
    if not len(samples):
        raise ModelError(_WHAT, "there are no windows to measure ranges on", "give some")
    if not {node.name for node in graph.node if node.op_type == "Conv"} - exact:
        raise ModelError(
            _WHAT,
            "it has no convolution but those that must stay exact",
            "ship the model without an int8 network",
        )


def _name_all(graph: onnx.GraphProto) -> None:
    """Nodes are left out by name, and need one."""
    for number, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{number}"


def _exact_nodes(graph: onnx.GraphProto) -> set[str]:
    """Name the nodes that stay in float32: behind the last convolutions, and up to the first."""
    _, exact = _reached_backwards(graph, [value.name for value in graph.output], ["Conv"])
    for node in graph.node:
        if node.op_type == "Conv":
            layers, passed = _reached_backwards(graph, [node.input[0]], ["Conv", "Relu"])
            if not layers:  # it reads the window itself
                exact |= passed | {node.name}
    return exact


def _reached_backwards(
    graph: onnx.GraphProto, names: Sequence[str], stop: Sequence[str]
) -> tuple[list[onnx.NodeProto], set[str]]:
    """Follow tensors back to where they come from.

    Returns
    -------
    ends : list of NodeProto
        Nodes of the types to stop at.
    passed : set of str
        Names of the nodes on the way.
    """
    makers = _makers(graph)
    ends, passed, left = [], set(), list(names)
    while left:
        node = makers.get(left.pop())
        if node is None or node.name in passed:
            continue
        if node.op_type in stop:
            ends.append(node)
        else:
            passed.add(node.name)
            left.extend(node.input)
    return ends, passed


def _read_exactly(graph: onnx.GraphProto, exact: set[str]) -> None:
    """Let nodes that stay in float32 read what is not rounded to 8 bits for their neighbours."""
    makers = _makers(graph)
    for node in graph.node:
        for place, name in enumerate(node.input) if node.name in exact else ():
            maker = makers.get(name)
            if maker is not None and maker.op_type == "DequantizeLinear":
                node.input[place] = makers[maker.input[0]].input[0]


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output}
