"""OpenVINO on the CPU."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pssr_live.engine.base import EngineReport
from pssr_live.engine.executed import check_executed, joined
from pssr_live.engine.openvino_core import openvino_core
from pssr_live.errors import EngineError
from pssr_live.model import ModelPackage

__all__ = ["OpenVINOEngine"]

_NEEDS = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}
"""What OpenVINO calls a processor's ability to run in each precision."""

_NAMES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "u8": "int8", "i8": "int8"}


class OpenVINOEngine:
    """Runs a network with OpenVINO's CPU plugin.

    Parameters
    ----------
    precision : str
        ``fp32``, ``bf16`` or ``int8``; with ``int8``, layers that are not quantised run in bf16
        where the processor has it.
    """

    def __init__(self, precision: str) -> None:
        if precision not in _NEEDS:
            raise EngineError(
                f"OpenVINO cannot run in {precision}",
                f"on the CPU it has {', '.join(_NEEDS)}",
                "use --precision fp32",
            )
        self._precision = precision
        self._request: Any = None
        self._input: NDArray[np.float32] | None = None

    def prepare(self, model: ModelPackage, height: int, width: int) -> EngineReport:
        """Compile for one frame size; see `Engine`."""
        import openvino

        started = time.perf_counter()
        core = openvino_core()
        hint = self._hint(core)
        content = model.network_for(self._precision)
        model.check_size(height, width)
        try:
            network = core.read_model(io.BytesIO(content))
            # A static size is faster, and a dynamic one would give wrong shapes without an error.
            network.reshape([1, model.manifest.window_length, height, width])
            compiled = core.compile_model(
                network,
                "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY",
                    "NUM_STREAMS": "1",
                    "INFERENCE_PRECISION_HINT": hint,
                    # Threads are OpenVINO's own choice: one for each core that is good for it.
                    # None is bound to its core, which another thread may need: that frames arrive.
                    "ENABLE_CPU_PINNING": "NO",
                },
            )
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO cannot compile model {model.manifest.name}",
                _first_line(error),
                "choose another engine with --engine, or report this",
            ) from error
        executed = _executed(compiled)
        check_executed("OpenVINO", model, self._precision, executed)
        self._request = compiled.create_infer_request()
        self._check_shape(compiled, model, height, width)
        self.run(np.zeros((1, model.manifest.window_length, height, width), np.float32))
        return EngineReport(
            requested="openvino",
            engine="openvino",
            device=str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip(),
            precision=executed,
            version=str(openvino.__version__),
            threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
            prepare_ms=(time.perf_counter() - started) * 1e3,
        )

    def run(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run once; see `Engine`."""
        import openvino

        if self._input is not window:
            # The tensor shares the caller's memory; the reference keeps that memory alive.
            self._request.set_input_tensor(openvino.Tensor(window, shared_memory=True))
            self._input = window
        self._request.infer()
        output: NDArray[np.float32] = self._request.get_output_tensor().data[0, 0]
        return output

    def close(self) -> None:
        """Let go of the compiled network; see `Engine`."""
        self._request = None
        self._input = None

    def _hint(self, core: Any) -> str:
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if _NEEDS[self._precision] not in able:
            raise EngineError(
                f"OpenVINO cannot run in {self._precision}",
                f"this processor offers {', '.join(able)}",
                "use --precision fp32",
            )
        return "bf16" if self._precision != "fp32" and "BF16" in able else "f32"

    @staticmethod
    def _check_shape(compiled: Any, model: ModelPackage, height: int, width: int) -> None:
        scale = model.manifest.scale
        expected = [1, 1, scale * height, scale * width]
        found = list(compiled.output(0).shape)
        if found != expected:
            raise EngineError(
                f"OpenVINO compiled model {model.manifest.name} wrongly",
                f"its output is {found} instead of {expected}",
                "choose another engine with --engine, or report this",
            )


def _executed(compiled: Any) -> str:
    """Read the precision of the convolutions back from the graph that really runs."""
    names = (
        str(node.get_rt_info()["runtimePrecision"].value)
        for node in compiled.get_runtime_model().get_ordered_ops()
        if str(node.get_rt_info()["layerType"].value) in {"Convolution", "FullyConnected", "MatMul"}
    )
    return joined(_NAMES.get(name, name) for name in names)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), repr(error))
