"""What the two engines that use ONNX Runtime share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from pssr_live.engine.executed import check_executed, joined
from pssr_live.errors import EngineError
from pssr_live.model import ModelPackage

__all__ = ["has_package", "open_session", "refusal"]

_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
}
_ERRORS_ONLY = 3


def has_package(name: str) -> bool:
    """Whether a distribution is installed; ``onnxruntime`` and ``-gpu`` import by one name."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def open_session(
    what: str,
    model: ModelPackage,
    precision: str,
    size: tuple[int, int],
    options: Any,
    providers: list[Any],
) -> tuple[Any, str]:
    """Load a network for one frame size.

    Parameters
    ----------
    what : str
        The engine, for messages.
    model : ModelPackage
        What to run.
    precision : str
        Arithmetic that was asked for.
    size : tuple of int
        Height and width of the raw frames, pixels.
    options : onnxruntime.SessionOptions
        To load with; completed here.
    providers : list
        As ONNX Runtime takes them.

    Returns
    -------
    session : onnxruntime.InferenceSession
    executed : str
        Precision of the convolutions and matrix products in the graph that really runs, the most
        frequent one first.

    Raises
    ------
    EngineError
        It cannot be loaded, or would run in another precision.
    """
    import onnxruntime

    content = _for_size(model.network_for(precision), *size)
    options.log_severity_level = _ERRORS_ONLY
    # What really runs is in the optimised graph, and that can only be had as a file.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "runs.onnx")
        options.optimized_model_filepath = str(path)
        try:
            session = onnxruntime.InferenceSession(
                content, options, providers=providers, enable_fallback=0
            )
            executed = joined(_executed(onnx.load(path).graph))
        except Exception as error:  # its exceptions share no public base class
            raise refusal(what, model, error) from error
    check_executed(what, model, precision, executed)
    return session, executed


def refusal(what: str, model: ModelPackage, error: Exception) -> EngineError:
    """Say in one line why a network cannot be loaded or run."""
    return EngineError(
        f"{what} cannot run model {model.manifest.name}",
        next((line for line in str(error).splitlines() if line.strip()), repr(error)),
        "choose another engine with --engine, or report this",
    )


def _for_size(network: bytes, height: int, width: int) -> bytes:
    """Fix the size of the frames, so that what depends on it alone is computed while loading."""
    model = onnx.load_from_string(network)
    for dimension, length in zip(
        model.graph.input[0].type.tensor_type.shape.dim[2:], (height, width), strict=True
    ):
        dimension.dim_value = length
    content: bytes = model.SerializeToString()
    return content


def _executed(graph: onnx.GraphProto) -> Iterator[str]:
    """Read the precision of the layers back from the optimised graph, by their weights."""
    weights: dict[str, int] = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if "QLinear" in node.op_type and node.op_type.endswith(("Conv", "MatMul")):
            yield "int8"
        elif node.op_type.endswith(("Conv", "Gemm", "MatMul")):
            yield _NAMES.get(weights.get(node.input[1], TensorProto.FLOAT), "unknown")
