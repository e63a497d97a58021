"""Every operator gives what ONNX's own reference gives; what is not known is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx.reference import ReferenceEvaluator  # noqa: E402

from pssr_live.engine.torch_graph import TorchGraph, UnknownOperatorError  # noqa: E402

DRAW = np.random.default_rng(0)
WINDOW = DRAW.standard_normal((1, 4, 11, 9)).astype(np.float32)


def weights(*shape: int) -> NDArray[np.float32]:
    return DRAW.standard_normal(shape).astype(np.float32)


def integers(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def node(kind: str, inputs: list[str], output: str = "restored", **attributes: Any) -> Any:
    return onnx.helper.make_node(kind, inputs, [output], **attributes)


def network(nodes: list[Any], *, opset: int = 20, **constants: NDArray[Any]) -> bytes:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "test",
        [value("window", onnx.TensorProto.FLOAT, WINDOW.shape)],
        [value("restored", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    content: bytes = onnx.helper.make_model(graph, opset_imports=opsets).SerializeToString()
    return content


def run(content: bytes, window: NDArray[np.float32] = WINDOW) -> NDArray[np.float32]:
    """Trace with other pixels, then run: nothing of the pixels may have been kept."""
    graph = TorchGraph(content, torch.device("cpu"))
    with torch.inference_mode():
        traced = graph.trace(torch.from_numpy(np.zeros_like(window)))
        result = graph.run(torch.from_numpy(window))
    assert traced.shape == result.shape
    return np.asarray(result.numpy())


SINGLE: dict[str, tuple[list[Any], dict[str, NDArray[Any]]]] = {
    "convolution with bias": (
        [node("Conv", ["window", "w", "b"], pads=[1, 2, 1, 2], strides=[2, 1])],
        {"w": weights(6, 4, 3, 5), "b": weights(6)},
    ),
    "convolution in groups, dilated": (
        [node("Conv", ["window", "w"], group=2, dilations=[2, 2])],
        {"w": weights(6, 2, 3, 3)},
    ),
    "convolution over a row": (
        [
            node("Reshape", ["window", "shape"], "row"),
            node("Conv", ["row", "w"], pads=[1, 1]),
        ],
        {"shape": integers(0, 0, -1), "w": weights(2, 4, 3)},
    ),
    "max-pool": (
        [node("MaxPool", ["window"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        {},
    ),
    "average over 2×2, the rest at the end by itself": (
        [
            node("AveragePool", ["window"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1,
                 count_include_pad=1)
        ],
        {},
    ),
    "mean over the frame": ([node("ReduceMean", ["window", "axes"])], {"axes": integers(2, 3)}),
    "mean without its axes": (
        [node("ReduceMean", ["window", "axes"], keepdims=0)],
        {"axes": integers(-1)},
    ),
    "edge padding": (
        [node("Pad", ["window", "p"], mode="edge")],
        {"p": integers(0, 0, 3, 1, 0, 0, 2, 4)},
    ),
    "reflecting padding": (
        [node("Pad", ["window", "p"], mode="reflect")],
        {"p": integers(0, 0, 1, 2, 0, 0, 0, 3)},
    ),
    "zero padding": ([node("Pad", ["window", "p"])], {"p": integers(0, 0, 1, 2, 0, 0, 0, 3)}),
    "slice from the end": (
        [node("Slice", ["window", "starts", "ends", "axes"])],
        {"starts": integers(-5, 1), "ends": integers(2**62, -1), "axes": integers(2, -1)},
    ),
    "every second row": (
        [node("Slice", ["window", "starts", "ends", "axes", "steps"])],
        {"starts": integers(1), "ends": integers(9), "axes": integers(2), "steps": integers(2)},
    ),
    "pixel shuffle": ([node("DepthToSpace", ["window"], blocksize=2, mode="CRD")], {}),
    "four times, linear": (
        [node("Resize", ["window", "", "scales"], mode="linear")],
        {"scales": np.array([1, 1, 4, 4], np.float32)},
    ),
    "to a size, nearest": (
        [
            node("Resize", ["window", "", "", "sizes"], mode="nearest", nearest_mode="floor",
                 coordinate_transformation_mode="asymmetric")
        ],
        {"sizes": integers(1, 4, 17, 23)},
    ),
    "batch norm": (
        [node("BatchNormalization", ["window", "s", "b", "m", "v"], epsilon=1e-3, momentum=0.8)],
        {"s": weights(4), "b": weights(4), "m": weights(4), "v": np.abs(weights(4))},
    ),
    "attention": (
        [
            node("Reshape", ["window", "shape"], "row"),
            node("Transpose", ["row"], "turned", perm=[0, 2, 1]),
            node("MatMul", ["turned", "row"], "likeness"),
            node("Softmax", ["likeness"], "share", axis=1),
            node("MatMul", ["row", "share"]),
        ],
        {"shape": integers(1, 4, 99)},
    ),
    "arithmetic": (
        [
            node("Relu", ["window"], "positive"),
            node("Neg", ["window"], "negative"),
            node("Mul", ["positive", "factor"], "scaled"),
            node("Div", ["scaled", "divisor"], "divided"),
            node("Sub", ["divided", "negative"], "less"),
            node("Add", ["less", "factor"], "more"),
            node("Concat", ["more", "window"], axis=1),
        ],
        {"factor": weights(4, 1, 1), "divisor": np.array(3.0, np.float32)},
    ),
    "arithmetic of sizes": (
        [
            node("Shape", ["window"], "size", start=2),
            node("Neg", ["size"], "minus"),
            node("Mod", ["minus", "eight"], "missing"),
            node("Div", ["minus", "eight"], "quotient"),
            node("Squeeze", ["one_axis", "axes"], "one"),
            node("Add", ["missing", "quotient"], "odd"),
            node("Add", ["odd", "one"], "more"),
            node("Concat", ["nothing", "more"], "padding", axis=0),
            node("Pad", ["window", "padding"], mode="edge"),
        ],
        {
            "eight": integers(8),
            "nothing": integers(0, 0, 0, 0, 0, 0),
            "one_axis": np.array([[1]], np.int64),
            "axes": integers(0),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_operators_give_what_the_reference_gives(name: str) -> None:
    nodes, constants = SINGLE[name]
    content = network(nodes, **constants)
    (expected,) = ReferenceEvaluator(onnx.load_from_string(content)).run(None, {"window": WINDOW})
    found = run(content)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5


def test_what_depends_on_the_size_alone_is_computed_once() -> None:
    nodes, constants = SINGLE["arithmetic of sizes"]
    graph = TorchGraph(network(nodes, **constants), torch.device("cpu"))
    with torch.inference_mode():
        graph.trace(torch.from_numpy(WINDOW))
    assert len(graph._steps) == 1


REFUSED: dict[str, tuple[list[Any], dict[str, NDArray[Any]], str]] = {
    "an operator": ([node("Erf", ["window"])], {}, "operator Erf"),
    "an attribute's value": (
        [node("MaxPool", ["window"], kernel_shape=[2, 2], ceil_mode=1)],
        {},
        "MaxPool with ceil_mode 1",
    ),
    "an attribute": ([node("Shape", ["window"], axis=3)], {}, "operator Shape with axis"),
    "padding that differs": (
        [node("Conv", ["window", "w"], pads=[0, 1, 1, 1])],
        {"w": weights(1, 4, 3, 3)},
        "not the same at both ends",
    ),
    "a convolution over volumes": (
        [node("Conv", ["window", "w"])],
        {"w": weights(1, 4, 3, 3, 3)},
        "weights of 5 axes",
    ),
    "padding of channels": (
        [node("Pad", ["window", "p"])],
        {"p": integers(0, 1, 0, 0, 0, 0, 0, 0)},
        "more than rows and columns",
    ),
    "the other pixel shuffle": (
        [node("DepthToSpace", ["window"], blocksize=2)],
        {},
        "DepthToSpace with mode DCR",
    ),
    "cubic": (
        [node("Resize", ["window", "", "s"], mode="cubic")],
        {"s": np.ones(4, np.float32)},
        "Resize with mode cubic",
    ),
    "aligned corners": (
        [node("Resize", ["window", "", "s"], mode="linear",
              coordinate_transformation_mode="align_corners")],
        {"s": np.ones(4, np.float32)},
        "align_corners",
    ),
    "nearest, rounded": (
        [node("Resize", ["window", "", "s"], mode="nearest", nearest_mode="ceil",
              coordinate_transformation_mode="asymmetric")],
        {"s": np.ones(4, np.float32)},
        "Resize with ceil",
    ),
    "backwards": (
        [node("Slice", ["window", "a", "b", "c", "d"])],
        {"a": integers(5), "b": integers(0), "c": integers(2), "d": integers(-1)},
        "Slice backwards",
    ),
    "someone else's operator": (
        [onnx.helper.make_node("Relu", ["window"], ["restored"], domain="elsewhere")],
        {},
        "operator Relu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name: str) -> None:
    nodes, constants, says = REFUSED[name]
    with pytest.raises(UnknownOperatorError, match=says):
        run(network(nodes, **constants))


def test_another_operator_set_is_refused() -> None:
    with pytest.raises(UnknownOperatorError, match="17"):
        run(network([node("Relu", ["window"])], opset=17))
