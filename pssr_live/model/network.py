"""Look through an ONNX network before any engine gets it: nothing is run, nothing else is read."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import ModelError
from pssr_live.model.files import one_line
from pssr_live.model.package import Manifest
from pssr_live.model.shapes import Shape, leave_out_weights, shapes_for

__all__ = ["check_network"]

_OWN_DOMAINS = ("", "ai.onnx")


class _RefusedError(Exception):
    """Why, in one line."""


def check_network(content: bytes, manifest: Manifest, precision: str = "fp32") -> None:
    """Refuse a network that is damaged, reaches for other files or is not what its manifest says.

    Parameters
    ----------
    content : bytes
        The ONNX file.
    manifest : Manifest
        What its package says about it.
    precision : str
        The arithmetic that the file is for.

    Raises
    ------
    ModelError
        It is no ONNX; keeps weights in other files; needs operators that ONNX does not define; has
        weights that are no finite numbers; or takes or gives other shapes or types than the
        manifest says.
    """
    try:
        _check(content, manifest)
    except _RefusedError as error:
        raise ModelError(
            f"the {precision} network of model {manifest.name}",
            one_line(str(error)),
            "do not use this package; get it again from where you trust",
        ) from error


def _check(content: bytes, manifest: Manifest) -> None:
    # Here, because it takes a tenth of a second and only models need it.
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise _RefusedError("it is no ONNX file, or a damaged one") from error
    if not model.graph.node:
        raise _RefusedError("it is no ONNX file, or an empty one")
    _check_nodes(model)
    for tensor in _tensors(model):
        _check_tensor(tensor)
    window = _check_ends(model.graph, manifest)
    height, width = _sizes(manifest)
    try:
        leave_out_weights(model.graph)
        # From bytes that hold all weights, so no other file is looked for.
        onnx.checker.check_model(model.SerializeToString())
        shapes = shapes_for(model, window, (1, manifest.window_length, height, width))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise _RefusedError(f"it is damaged ({str(error).strip().splitlines()[0]})") from error
    _check_channels(model.graph, shapes)
    found = shapes.get(model.graph.output[0].name)
    wanted = (1, 1, manifest.scale * height, manifest.scale * width)
    if found is not None and not _fits(found, wanted):
        raise _RefusedError(
            f"it makes {_written(found)} of frames of {height}×{width} pixels, not "
            f"{_written(wanted)} as its manifest says (scale {manifest.scale})"
        )


def _graphs(model: Any) -> Iterator[Any]:
    """All graphs, also within nodes, and functions, which hold nodes too."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)


def _check_nodes(model: Any) -> None:
    functions = {(function.domain, function.name) for function in model.functions}
    for graph in _graphs(model):
        for node in graph.node:
            for attribute in node.attribute:
                if not all(map(isfinite, (attribute.f, *attribute.floats))):
                    raise _RefusedError(f"{node.op_type} holds values that are no finite numbers")
            if node.domain in _OWN_DOMAINS or (node.domain, node.op_type) in functions:
                continue
            raise _RefusedError(
                f"it needs the operator {node.domain}.{node.op_type}, which ONNX does not define"
            )


def _tensors(model: Any) -> Iterator[Any]:
    """All weights and constants."""
    for graph in _graphs(model):
        sparse = list(getattr(graph, "sparse_initializer", ()))  # functions have no weights
        yield from getattr(graph, "initializer", ())
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                sparse.extend((attribute.sparse_tensor, *attribute.sparse_tensors))
        for tensor in sparse:
            yield from (tensor.values, tensor.indices)


def _check_tensor(tensor: Any) -> None:
    from onnx import TensorProto

    name = tensor.name or "a constant"
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        where = {entry.key: entry.value for entry in tensor.external_data}.get("location", "?")
        raise _RefusedError(f"{name} is kept in another file ({where})")
    if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return
    try:
        values = _values(tensor)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise _RefusedError(f"{name} does not hold the values that it claims") from error
    if not _finite(values):
        raise _RefusedError(f"{name} holds values that are no finite numbers")


def _values(tensor: Any) -> NDArray[Any]:
    from onnx import helper, numpy_helper

    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if tensor.HasField("raw_data") and dtype.kind in "fiub":
        # Seen where it lies: onnx would copy 190 MB of weights.
        values: NDArray[Any] = np.frombuffer(tensor.raw_data, dtype)
    else:
        values = numpy_helper.to_array(tensor)
    if any(length < 0 for length in tensor.dims) or values.size != prod(tensor.dims):
        raise ValueError("too few or too many values")
    return values


def _finite(values: NDArray[Any]) -> bool:
    if values.dtype.kind in "iub":
        return True
    if values.dtype in (np.float32, np.float64):
        # A sum with such a value is no finite number, and takes a quarter of the time.
        with np.errstate(all="ignore"):
            if np.isfinite(values.sum()):
                return True
    return bool(np.isfinite(values).all())


def _check_ends(graph: Any, manifest: Manifest) -> Any:
    """Compare what goes in and comes out with the manifest, as far as the graph states it."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise _RefusedError(
            f"it has {len(inputs)} inputs and {len(graph.output)} outputs, not one of each"
        )
    taken = _stated("input", inputs[0])
    made = _stated("output", graph.output[0])
    if taken[1] not in (None, manifest.window_length):
        raise _RefusedError(
            f"it takes {taken[1]} channels, not {manifest.window_length} frames as its manifest "
            "says"
        )
    fixed = manifest.min_size if manifest.min_size == manifest.max_size else None
    if taken[0] not in (None, 1) or any(size not in (None, fixed) for size in taken[2:]):
        raise _RefusedError(
            f"it takes {_written(taken)} only, not frames of {manifest.min_size} to "
            f"{manifest.max_size} pixels as its manifest says"
        )
    if made[0] not in (None, 1) or made[1] not in (None, 1):
        raise _RefusedError(f"it makes {_written(made)}, not one plane of one channel")
    return inputs[0]


def _stated(end: str, value: Any) -> Shape:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        raise _RefusedError(f"its {end} is not float32")
    if len(tensor.shape.dim) != 4:
        raise _RefusedError(f"its {end} has {len(tensor.shape.dim)} axes, not four")
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)


def _sizes(manifest: Manifest) -> tuple[int, int]:
    """Choose a height and a width to try: different ones that nothing divides, where allowed."""
    low, high = manifest.min_size, manifest.max_size
    return min(low + 3, high), min(low + 5, high)


def _check_channels(graph: Any, shapes: dict[str, Shape]) -> None:
    """Compare convolutions with what goes into them, which shape inference does not."""
    for node in graph.node:
        if node.op_type != "Conv" or node.domain not in _OWN_DOMAINS:
            continue
        taken, kernel = shapes.get(node.input[0]), shapes.get(node.input[1])
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        if not taken or not kernel or taken[1] is None or kernel[1] is None:
            continue
        if taken[1] != groups * kernel[1]:
            raise _RefusedError(
                f"a convolution takes {groups * kernel[1]} channels but gets {taken[1]}"
            )


def _fits(found: Shape, wanted: tuple[int, ...]) -> bool:
    return len(found) == len(wanted) and all(
        length in (None, expected) for length, expected in zip(found, wanted, strict=True)
    )


def _written(shape: Shape) -> str:
    return "×".join("?" if length is None else str(length) for length in shape)
