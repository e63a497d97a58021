"""Which shapes a network makes of a window of a given size, without running it.

ONNX's own shape inference stops where a network computes sizes by other operators than it follows
(padding to a multiple, resizing to another part's size), and breaks the whole process where it goes
on from sizes below zero. So it is asked node by node, and those few numbers are computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Shape", "leave_out_weights", "shapes_for"]

Shape = tuple[int | None, ...]
"""None where a length is not known."""

_Array = NDArray[Any]

_MOST_VALUES = 64
"""Sizes are made of so few numbers; larger tensors are weights."""

_TOO_MANY = 1 << 31
"""Values of one array, of the smallest window that a network takes."""
_OWN_DOMAINS = ("", "ai.onnx")


def leave_out_weights(graph: Any) -> None:
    """Keep of a graph's weights only their shapes, so that looking at it takes little time.

    Parameters
    ----------
    graph : onnx.GraphProto
        Changed in place: weights become inputs.
    """
    from onnx import helper

    small = [tensor for tensor in graph.initializer if prod(tensor.dims) <= _MOST_VALUES]
    stated = {value.name for value in graph.input}
    graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
        if prod(tensor.dims) > _MOST_VALUES and tensor.name not in stated
    )
    del graph.initializer[:]
    graph.initializer.extend(small)
    # What the file claims about what lies between its ends is found out anew.
    del graph.value_info[:]


def shapes_for(model: Any, window: Any, shape: tuple[int, ...]) -> dict[str, Shape]:
    """Find the shapes of a network's values.

    Parameters
    ----------
    model : onnx.ModelProto
        Without its weights.
    window : onnx.ValueInfoProto
        Its input.
    shape : tuple of int
        Of the input.

    Returns
    -------
    dict
        Shapes by name, as far as they can be known without running the network.

    Raises
    ------
    ValueError
        Its parts do not fit together, or the input is too small for it; one line.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    types = {value.name: value.type for value in graph.input}
    types[window.name] = helper.make_tensor_type_proto(window.type.tensor_type.elem_type, shape)
    known: dict[str, _Array] = {}
    for tensor in graph.initializer:
        known[tensor.name] = numpy_helper.to_array(tensor)
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    for node in graph.node:
        value = _value(node, types, known)
        if value is None or value.size > _MOST_VALUES:
            types.update(_inferred(node, types, known, model))
            continue
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        known[node.output[0]] = value
        types[node.output[0]] = helper.make_tensor_type_proto(kind, value.shape)
    return {name: _shape(kind) for name, kind in types.items() if _has_shape(kind)}


def _has_shape(kind: Any) -> bool:
    return bool(kind.HasField("tensor_type") and kind.tensor_type.HasField("shape"))


def _shape(kind: Any) -> Shape:
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else None for dim in kind.tensor_type.shape.dim
    )


def _inferred(
    node: Any, types: Mapping[str, Any], known: Mapping[str, _Array], model: Any
) -> dict[str, Any]:
    from onnx import defs, numpy_helper, shape_inference

    given = [name for name in node.input if name]
    if node.domain not in _OWN_DOMAINS or any(name not in types for name in given):
        return {}
    version = max(item.version for item in model.opset_import if item.domain in _OWN_DOMAINS)
    try:
        inferred: dict[str, Any] = shape_inference.infer_node_outputs(
            defs.get_schema(node.op_type, version),
            node,
            {name: types[name] for name in given},
            {name: numpy_helper.from_array(known[name]) for name in given if name in known},
            opset_imports=list(model.opset_import),
            ir_version=model.ir_version,
        )
    except shape_inference.InferenceError as error:
        raise ValueError(str(error).strip().splitlines()[0]) from error
    for kind in inferred.values():
        shape = _shape(kind) if _has_shape(kind) else ()
        lengths = [length for length in shape if length is not None]
        if any(not 0 <= length < _TOO_MANY for length in lengths) or prod(lengths) >= _TOO_MANY:
            raise ValueError(f"its operator {node.op_type} would make arrays of {shape}")
    return inferred


def _value(node: Any, types: Mapping[str, Any], known: Mapping[str, _Array]) -> _Array | None:
    """Compute what depends on known shapes and numbers alone."""
    from onnx import helper

    if len(node.output) != 1 or node.domain not in _OWN_DOMAINS:
        return None
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "Shape":
        kind = types.get(node.input[0])
        shape = _shape(kind) if kind is not None and _has_shape(kind) else (None,)
        if None in shape:
            return None
        return np.array(shape[attributes.get("start", 0) : attributes.get("end")], np.int64)
    compute = _OPERATORS.get(node.op_type)
    if compute is None or any(name and name not in known for name in node.input):
        return None
    inputs = [known[name] if name else None for name in node.input]
    try:
        return np.asarray(compute(attributes, *inputs))
    except (ValueError, IndexError, TypeError, KeyError, ArithmeticError):
        return None  # left to those who run it


def _axes(attributes: Mapping[str, Any], axes: _Array | None) -> tuple[int, ...] | None:
    """Take axes from the attribute that older operators have, or from the input of newer ones."""
    given = attributes.get("axes") if axes is None else axes.tolist()
    return None if given is None else tuple(given)


def _cast(attributes: Mapping[str, Any], data: _Array) -> _Array:
    from onnx import helper

    cast: _Array = data.astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))
    return cast


def _constant(attributes: Mapping[str, Any]) -> _Array:
    from onnx import numpy_helper

    ((name, value),) = attributes.items()
    if name == "value":
        array: _Array = numpy_helper.to_array(value)
        return array
    return np.asarray(value, np.int64 if name in ("value_int", "value_ints") else np.float32)


def _divide(_: Mapping[str, Any], left: _Array, right: _Array) -> _Array:
    quotient = left / right
    if left.dtype.kind in "iu":
        return np.trunc(quotient).astype(left.dtype)
    return np.asarray(quotient, left.dtype)


def _slice(
    attributes: Mapping[str, Any],
    data: _Array,
    starts: _Array | None = None,
    ends: _Array | None = None,
    axes: _Array | None = None,
    steps: _Array | None = None,
) -> _Array:
    first = attributes["starts"] if starts is None else starts.tolist()
    last = attributes["ends"] if ends is None else ends.tolist()
    along = _axes(attributes, axes) or range(len(first))
    every = [1] * len(first) if steps is None else steps.tolist()
    cut = [slice(None)] * data.ndim
    for axis, start, end, step in zip(along, first, last, every, strict=True):
        cut[axis] = slice(start, end, step)
    return data[tuple(cut)]


def _squeeze(attributes: Mapping[str, Any], data: _Array, axes: _Array | None = None) -> _Array:
    return np.squeeze(data, _axes(attributes, axes))


def _unsqueeze(attributes: Mapping[str, Any], data: _Array, axes: _Array | None = None) -> _Array:
    return np.expand_dims(data, _axes(attributes, axes) or ())


def _where(_: Mapping[str, Any], which: _Array, left: _Array, right: _Array) -> _Array:
    return np.where(which, left, right)


_OPERATORS: Mapping[str, Callable[..., _Array]] = {
    "Add": lambda _, left, right: left + right,
    "Cast": _cast,
    "Ceil": lambda _, data: np.ceil(data),
    "Concat": lambda at, *parts: np.concatenate(parts, at["axis"]),
    "Constant": _constant,
    "Div": _divide,
    "Equal": lambda _, left, right: left == right,
    "Floor": lambda _, data: np.floor(data),
    "Gather": lambda at, data, which: np.take(data, which, at.get("axis", 0)),
    "Identity": lambda _, data: data,
    "Max": lambda _, *data: np.maximum.reduce(data),
    "Min": lambda _, *data: np.minimum.reduce(data),
    "Mod": lambda at, left, right: (np.fmod if at.get("fmod") else np.mod)(left, right),
    "Mul": lambda _, left, right: left * right,
    "Neg": lambda _, data: -data,
    "Reshape": lambda _, data, shape: np.reshape(data, shape.tolist()),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": lambda _, left, right: left - right,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
"""Operators that sizes are computed with; none makes much of little."""
