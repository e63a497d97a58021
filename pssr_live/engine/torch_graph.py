"""An ONNX network as PyTorch calls, for frames of one size.

Reads the operators that this program's networks and the published one are made of, with exactly
the attributes they use; anything else is refused by name rather than guessed. The graph is run
once: what depends on nothing but the frames' size is computed then and kept, and what is left is
the list of calls that every frame needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional

__all__ = ["TorchGraph", "UnknownOperatorError"]

Call = Callable[..., Tensor]

_OPSETS = range(18, 21)
"""Of the default operator set; between them, no operator below changed its meaning."""


class UnknownOperatorError(ValueError):
    """The graph asks for what is not known here."""


class _Attributes:
    """Of one node; all must be asked for."""

    def __init__(self, node: Any) -> None:
        self._operator = node.op_type
        self._left = {one.name: helper.get_attribute_value(one) for one in node.attribute}

    def take(self, name: str, default: Any = None) -> Any:
        value = self._left.pop(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def expect(self, **allowed: Any) -> None:
        """Refuse values other than these; they are also what a missing one stands for."""
        for name, value in allowed.items():
            self.one_of(name, value)

    def one_of(self, name: str, *allowed: Any) -> Any:
        value = self.take(name, allowed[0])
        if value not in allowed:
            raise UnknownOperatorError(f"operator {self._operator} with {name} {value}")
        return value

    def finish(self) -> None:
        for name in self._left:
            raise UnknownOperatorError(f"operator {self._operator} with {name}")


@dataclass(frozen=True, slots=True)
class _Step:
    call: Call
    inputs: tuple[str, ...]
    output: str
    done_with: tuple[str, ...]


class TorchGraph:
    """A network.

    Parameters
    ----------
    content : bytes
        ONNX with one input ``window`` and one output ``restored``.
    device : torch.device
        Where to run it. What is computed of sizes stays on the processor.

    Raises
    ------
    UnknownOperatorError
        It asks for what is not known here.
    """

    def __init__(self, content: bytes, device: torch.device) -> None:
        model = onnx.load_from_string(content)
        opsets = {one.domain: one.version for one in model.opset_import}
        if set(opsets) != {""} or opsets[""] not in _OPSETS or len(model.functions):
            raise UnknownOperatorError(f"operator sets {opsets}")
        self._graph = model.graph
        self._constants = {
            one.name: _on_device(torch.from_numpy(numpy_helper.to_array(one).copy()), device)
            for one in model.graph.initializer
        }
        self._steps: list[_Step] = []
        self.arithmetic: list[torch.dtype] = []

    def trace(self, window: Tensor) -> Tensor:
        """Run once, and keep what frames of this size need.

        Parameters
        ----------
        window : Tensor, shape (1, window_length, H, W), float32
            On the device.

        Returns
        -------
        Tensor, shape (1, 1, scale·H, scale·W)
            What the network gives. `arithmetic` then holds the type that each convolution and
            matrix product really gave.
        """
        known = dict(self._constants)
        of_pixels = {"window": window}
        steps: list[tuple[Call, tuple[str, ...], str]] = []
        for node in self._graph.node:
            call, inputs = _call(node), tuple(node.input)
            (output,) = node.output
            value = call(*(_value(name, of_pixels, known) for name in inputs))
            if node.op_type == "Shape" or not any(name in of_pixels for name in inputs):
                known[output] = value
                continue
            of_pixels[output] = value
            steps.append((call, inputs, output))
            if node.op_type in ("Conv", "MatMul"):
                self.arithmetic.append(value.dtype)
        wanted = {name for _, inputs, _ in steps for name in inputs}
        self._constants = {name: value for name, value in known.items() if name in wanted}
        self._steps = _with_last_uses(steps)
        return of_pixels["restored"]

    def run(self, window: Tensor) -> Tensor:
        """Run for a window of the size that was traced; as `trace`."""
        values = {"window": window}
        for step in self._steps:
            values[step.output] = step.call(
                *(_value(name, values, self._constants) for name in step.inputs)
            )
            for name in step.done_with:
                del values[name]
        return values["restored"]


def _value(name: str, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Tensor | None:
    """Look a value up; inputs that a node leaves out have no name."""
    if not name:
        return None
    found = first.get(name)
    return second[name] if found is None else found


def _with_last_uses(steps: Sequence[tuple[Call, tuple[str, ...], str]]) -> list[_Step]:
    """Say with each step which results nobody needs after it."""
    last = {name: at for at, (_, inputs, _) in enumerate(steps) for name in inputs}
    made = {output for _, _, output in steps}
    return [
        _Step(
            call,
            inputs,
            output,
            tuple(sorted(name for name in set(inputs) & made if last[name] == at)),
        )
        for at, (call, inputs, output) in enumerate(steps)
    ]


def _on_device(value: Tensor, device: torch.device) -> Tensor:
    if not value.is_floating_point():
        return value
    if value.ndim == 4:
        return value.to(device, memory_format=torch.channels_last)
    return value.to(device)


def _call(node: Any) -> Call:
    if node.domain or node.op_type not in _OPERATORS:
        raise UnknownOperatorError(f"operator {node.op_type}")
    attributes = _Attributes(node)
    call = _OPERATORS[node.op_type](attributes)
    attributes.finish()
    return call


def _numbers(value: Tensor) -> list[int]:
    return [int(number) for number in value.tolist()]


def _symmetric(attributes: _Attributes) -> list[int] | int:
    """Take the padding by axis, which must be the same at both ends."""
    pads = attributes.take("pads")
    if pads is None:
        return 0
    half = len(pads) // 2
    if pads[:half] != pads[half:]:
        raise UnknownOperatorError(f"padding {pads}, not the same at both ends")
    return list(pads[:half])


def _convolution(attributes: _Attributes) -> Call:
    attributes.expect(auto_pad="NOTSET")
    attributes.take("kernel_shape")  # the weights have it
    stride, dilation = attributes.take("strides", 1), attributes.take("dilations", 1)
    groups, padding = attributes.take("group", 1), _symmetric(attributes)

    def call(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        convolve = {3: functional.conv1d, 4: functional.conv2d}.get(weight.ndim)
        if convolve is None:
            raise UnknownOperatorError(f"operator Conv with weights of {weight.ndim} axes")
        return convolve(x, weight, bias, stride, padding, dilation, groups)

    return call


def _max_pool(attributes: _Attributes) -> Call:
    attributes.expect(auto_pad="NOTSET", ceil_mode=0, storage_order=0, dilations=[1, 1])
    kernel, stride = attributes.take("kernel_shape"), attributes.take("strides", [1, 1])
    padding = _symmetric(attributes)
    return lambda x: functional.max_pool2d(x, kernel, stride, padding)


def _average_pool(attributes: _Attributes) -> Call:
    attributes.expect(auto_pad="NOTSET", dilations=[1, 1], pads=[0, 0, 0, 0])
    attributes.take("count_include_pad")  # there is no padding to count
    kernel, stride = attributes.take("kernel_shape"), attributes.take("strides", [1, 1])
    ceil = bool(attributes.one_of("ceil_mode", 0, 1))
    return lambda x: functional.avg_pool2d(x, kernel, stride, 0, ceil)


def _pad(attributes: _Attributes) -> Call:
    mode = attributes.one_of("mode", "constant", "edge", "reflect")
    torch_mode = {"edge": "replicate"}.get(mode, mode)

    def call(x: Tensor, pads: Tensor) -> Tensor:
        each = _numbers(pads)
        rank = len(each) // 2
        if any(each[:2]) or any(each[rank : rank + 2]):
            raise UnknownOperatorError("operator Pad over more than rows and columns")
        # ONNX: all starts, then all ends; torch: (start, end) by axis, the last axis first.
        columns, rows = (each[3], each[rank + 3]), (each[2], each[rank + 2])
        return functional.pad(x, (*columns, *rows), mode=torch_mode)

    return call


def _slice(_: _Attributes) -> Call:
    def call(
        x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor, steps: Tensor | None = None
    ) -> Tensor:
        each_step = [1] * len(starts) if steps is None else _numbers(steps)
        if min(each_step) < 1:
            raise UnknownOperatorError("operator Slice backwards")
        where = [slice(None)] * x.ndim
        for axis, start, end, step in zip(
            _numbers(axes), _numbers(starts), _numbers(ends), each_step, strict=True
        ):
            where[axis] = slice(start, end, step)
        return x[tuple(where)]

    return call


def _depth_to_space(attributes: _Attributes) -> Call:
    block, mode = attributes.take("blocksize"), attributes.take("mode", "DCR")
    if mode != "CRD":
        raise UnknownOperatorError(f"operator DepthToSpace with mode {mode}")
    return lambda x: functional.pixel_shuffle(x, block)


def _resize(attributes: _Attributes) -> Call:
    mode = attributes.one_of("mode", "nearest", "linear")
    attributes.expect(antialias=0, exclude_outside=0, keep_aspect_ratio_policy="stretch")
    # Neither is used by these two modes.
    attributes.take("extrapolation_value")
    attributes.take("cubic_coeff_a")
    positions = attributes.take("coordinate_transformation_mode", "half_pixel")
    rounding = attributes.take("nearest_mode", "round_prefer_floor")
    if (mode, positions) not in (("linear", "half_pixel"), ("nearest", "asymmetric")):
        raise UnknownOperatorError(f"operator Resize, {mode}, with {positions} positions")
    if mode == "nearest" and rounding != "floor":
        raise UnknownOperatorError(f"operator Resize with {rounding}")
    how: dict[str, Any] = (
        {"mode": "bilinear", "align_corners": False} if mode == "linear" else {"mode": "nearest"}
    )

    def call(
        x: Tensor, _: Tensor | None, scales: Tensor | None, sizes: Tensor | None = None
    ) -> Tensor:
        if sizes is not None:
            return functional.interpolate(x, size=_numbers(sizes)[2:], **how)
        assert scales is not None
        return functional.interpolate(x, scale_factor=scales.tolist()[2:], **how)

    return call


def _batch_norm(attributes: _Attributes) -> Call:
    epsilon = attributes.take("epsilon", 1e-5)
    attributes.expect(training_mode=0)
    attributes.take("momentum")  # of training

    def call(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)

    return call


def _mean(attributes: _Attributes) -> Call:
    keep = bool(attributes.one_of("keepdims", 1, 0))
    attributes.expect(noop_with_empty_axes=0)
    return lambda x, axes: x.mean(_numbers(axes), keepdim=keep)


def _reshape(attributes: _Attributes) -> Call:
    literally = attributes.one_of("allowzero", 0, 1)

    def call(x: Tensor, shape: Tensor) -> Tensor:
        sizes = _numbers(shape)
        if not literally:  # then a zero stands for the size that was there
            sizes = [size or x.shape[axis] for axis, size in enumerate(sizes)]
        return x.reshape(sizes)

    return call


def _shape(attributes: _Attributes) -> Call:
    start, end = attributes.take("start", 0), attributes.take("end")
    return lambda x: torch.tensor(x.shape[start:end])


def _squeeze(_: _Attributes) -> Call:
    return lambda x, axes=None: x.squeeze() if axes is None else x.squeeze(_numbers(axes))


def _divide(_: _Attributes) -> Call:
    def call(x: Tensor, y: Tensor) -> Tensor:
        return torch.div(x, y, rounding_mode=None if x.is_floating_point() else "trunc")

    return call


def _modulo(attributes: _Attributes) -> Call:
    attributes.expect(fmod=0)
    return torch.remainder


def _concatenate(attributes: _Attributes) -> Call:
    axis = attributes.take("axis")
    return lambda *parts: torch.cat(parts, axis)


def _transpose(attributes: _Attributes) -> Call:
    order = attributes.take("perm")
    return lambda x: x.permute(order)


def _softmax(attributes: _Attributes) -> Call:
    axis = attributes.take("axis", -1)
    return lambda x: functional.softmax(x, axis)


def _plain(call: Call) -> Callable[[_Attributes], Call]:
    return lambda _: call


_OPERATORS: dict[str, Callable[[_Attributes], Call]] = {
    "Add": _plain(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Concat": _concatenate,
    "Conv": _convolution,
    "DepthToSpace": _depth_to_space,
    "Div": _divide,
    "MatMul": _plain(torch.matmul),
    "MaxPool": _max_pool,
    "Mod": _modulo,
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Pad": _pad,
    "ReduceMean": _mean,
    "Relu": _plain(functional.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Transpose": _transpose,
}
