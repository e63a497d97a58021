"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pssr_live.engine.base import EngineReport
from pssr_live.errors import EngineError
from pssr_live.model import ModelPackage

__all__ = ["ONNXRuntimeEngine"]

_CPU = "CPUExecutionProvider"
_WHAT = "ONNX Runtime"


class ONNXRuntimeEngine:
    """Runs a network with ONNX Runtime's CPU provider.

    Parameters
    ----------
    precision : str
        ``fp32`` or ``int8``.
    """

    def __init__(self, precision: str) -> None:
        if precision not in ("fp32", "int8"):
            raise EngineError(
                f"{_WHAT} cannot run in {precision}",
                "its CPU kernels for these networks are fp32 and int8",
                "use --precision fp32, or --engine openvino",
            )
        self._precision = precision
        self._session: Any = None

    def prepare(self, model: ModelPackage, height: int, width: int) -> EngineReport:
        """Load for one frame size; see `Engine`."""
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                _WHAT, "it is not installed", 'pip install "pssr-live[onnxruntime]"'
            ) from error
        from pssr_live.engine.ort import open_session, refusal

        started = time.perf_counter()
        model.check_size(height, width)
        threads = os.cpu_count() or 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session, executed = open_session(
            _WHAT, model, self._precision, (height, width), options, [_CPU]
        )
        try:
            output = self.run(
                np.zeros((1, model.manifest.window_length, height, width), np.float32)
            )
        except Exception as error:  # its exceptions share no public base class
            raise refusal(_WHAT, model, error) from error
        scale = model.manifest.scale
        if output.shape != (scale * height, scale * width):
            raise EngineError(
                f"{_WHAT} ran model {model.manifest.name} wrongly",
                f"its output is {output.shape} for frames of {height}×{width}",
                "choose another engine with --engine, or report this",
            )
        return EngineReport(
            requested="onnxruntime",
            engine="onnxruntime",
            device=", ".join(self._session.get_providers()),
            precision=executed,
            version=str(onnxruntime.__version__),
            threads=threads,
            prepare_ms=(time.perf_counter() - started) * 1e3,
        )

    def run(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run once; see `Engine`."""
        output: NDArray[np.float32] = self._session.run(None, {"window": window})[0][0, 0]
        return output

    def close(self) -> None:
        """Let go of the session; see `Engine`."""
        self._session = None
