"""Give an ONNX network from elsewhere the ends that engines expect; nothing in it is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["named", "padded"]

_INPUT, _OUTPUT = "window", "restored"
_OLDEST_OPSET = 11
"""Since then `Pad` and `Slice` take sizes that are computed."""


def named(content: bytes) -> bytes:
    """Give a network's ends the names that engines expect.

    Parameters
    ----------
    content : bytes
        ONNX with one input and one output.

    Returns
    -------
    bytes
        ONNX with input ``window`` and output ``restored``; the same bytes if they are named so.

    Raises
    ------
    ValueError
        It is no such network; one line.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import compose

    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise ValueError("its network is no ONNX file, or a damaged one") from error
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ValueError(
            f"its network has {len(inputs)} inputs and {len(graph.output)} outputs, not one of each"
        )
    if (inputs[0], graph.output[0].name) == (_INPUT, _OUTPUT):
        return content
    # So that no name in it is one of ours.
    compose.add_prefix(model, "inner/", inplace=True)
    _rename(graph, {f"inner/{inputs[0]}": _INPUT, graph.output[0].name: _OUTPUT})
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def padded(content: bytes, *, frames: int, scale: int, least: int, step: int) -> bytes:
    """Let a network that takes some sizes only take any size, by padding and cropping around it.

    Parameters
    ----------
    content : bytes
        ONNX that was looked through, with input ``window``, ``(1, frames, H, W)``, and output
        ``restored``, ``(1, 1, scale·H, scale·W)``, for H and W of ``least + k·step``.
    frames : int
        Frames, as channels.
    scale : int
        Restored pixels per raw pixel and axis.
    least, step : int
        See ``content``.

    Returns
    -------
    bytes
        The same for any H and W from ``least`` up: frames are padded at the bottom and on the right
        with their edges.

    Raises
    ------
    ValueError
        It was written for an ONNX too old for that; one line.
    """
    import onnx
    from onnx import compose

    model = onnx.ModelProto.FromString(content)
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < _OLDEST_OPSET:
        raise ValueError(f"its network has opset {opset}; write it again with {_OLDEST_OPSET} up")
    compose.add_prefix(model, "padded/", inplace=True)
    taken, made = f"padded/{_INPUT}", f"padded/{_OUTPUT}"
    _pad_and_crop(model.graph, taken, made, frames=frames, scale=scale, least=least, step=step)
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                _rename(inner, names)


def _pad_and_crop(
    graph: Any, taken: str, made: str, *, frames: int, scale: int, least: int, step: int
) -> None:
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "two": [2],
        "four": [4],
        "zero": [0],
        "least": [least],
        "step": [step],
        "scale": [scale],
        "no_padding": [0] * 6,
        "crop_starts": [0, 0],
        "height_and_width": [2, 3],
    }
    node = helper.make_node
    before = [
        node("Shape", [_INPUT], ["shape"]),
        node("Slice", ["shape", "two", "four", "zero"], ["size"]),
        node("Sub", ["least", "size"], ["below"]),
        node("Mod", ["below", "step"], ["missing"]),
        node("Concat", ["no_padding", "missing"], ["padding"], axis=0),
        node("Pad", [_INPUT, "padding"], [taken], mode="edge"),
    ]
    after = [
        node("Mul", ["size", "scale"], ["crop_ends"]),
        node("Slice", [made, "crop_starts", "crop_ends", "height_and_width"], [_OUTPUT]),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in constants.items()
    )
    weights = [value for value in graph.input if value.name != taken]
    del graph.input[:], graph.output[:]
    float32 = TensorProto.FLOAT
    window = helper.make_tensor_value_info(_INPUT, float32, [1, frames, "height", "width"])
    restored = helper.make_tensor_value_info(_OUTPUT, float32, [1, 1, "height_out", "width_out"])
    graph.input.extend([window, *weights])
    graph.output.append(restored)
