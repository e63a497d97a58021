"""ONNX Runtime on an NVIDIA GPU, without compiling anything first."""

from __future__ import annotations

import contextlib
import io
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pssr_live.engine.base import EngineReport
from pssr_live.engine.gpu import find_gpu
from pssr_live.engine.ort import has_package, open_session, refusal
from pssr_live.errors import EngineError
from pssr_live.model import ModelPackage

__all__ = ["CUDAEngine"]

_PROVIDER = "CUDAExecutionProvider"
_WHAT = "ONNX Runtime with CUDA"
_INSTALL = 'pip install "pssr-live[cuda]"'
_INSTEAD = f"pip uninstall -y onnxruntime onnxruntime-gpu, then {_INSTALL}"


class CUDAEngine:
    """Runs a network with ONNX Runtime's CUDA provider, and with nothing else.

    Window and prediction keep their places in the GPU's memory; ONNX Runtime's Python interface
    has no pinned memory on this side.

    Parameters
    ----------
    precision : str
        ``fp32`` (TF32 is off) or ``fp16``.
    """

    def __init__(self, precision: str) -> None:
        if precision not in ("fp32", "fp16"):
            raise EngineError(
                f"{_WHAT} cannot run in {precision}",
                "this engine has fp32 and fp16",
                "use --precision fp16, or another --engine",
            )
        self._precision = precision
        self._session: Any = None
        self._binding: Any = None
        self._input: Any = None
        self._output: Any = None

    def prepare(self, model: ModelPackage, height: int, width: int) -> EngineReport:
        """Load for one frame size; see `Engine`."""
        started = time.perf_counter()
        model.check_size(height, width)
        _check_packages()
        gpu = find_gpu()  # in a process of its own: some libraries crash without a driver
        onnxruntime = _import()
        options = onnxruntime.SessionOptions()
        # Otherwise what CUDA cannot run, or all of it, goes to the CPU without a word.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # TF32 keeps 10 bits of a product's factors; fp32 means fp32.
        providers = [(_PROVIDER, {"device_id": "0", "use_tf32": "0"})]
        self._session, executed = open_session(
            _WHAT, model, self._precision, (height, width), options, providers
        )
        if self._session.get_providers()[0] != _PROVIDER:
            raise EngineError(
                f"{_WHAT} cannot run model {model.manifest.name}",
                f"its libraries do not load; it would run on {self._session.get_providers()[0]}",
                f"{_INSTALL}, which brings CUDA and cuDNN, or choose another --engine",
            )
        self._bind(onnxruntime, model, height, width)
        try:
            self.run(np.zeros((1, model.manifest.window_length, height, width), np.float32))
        except Exception as error:  # its exceptions share no public base class
            raise refusal(_WHAT, model, error) from error
        return EngineReport(
            requested="cuda",
            engine="cuda",
            device=str(gpu),
            precision=executed,
            version=str(onnxruntime.__version__),
            threads=1,
            prepare_ms=(time.perf_counter() - started) * 1e3,
        )

    def run(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run once; see `Engine`."""
        self._input.update_inplace(window)
        self._session.run_with_iobinding(self._binding)
        output: NDArray[np.float32] = self._output.numpy()[0, 0]
        return output

    def close(self) -> None:
        """Let go of the GPU's memory; see `Engine`."""
        self._binding = self._input = self._output = self._session = None

    def _bind(self, onnxruntime: Any, model: ModelPackage, height: int, width: int) -> None:
        """Give window and prediction their places in the GPU's memory."""
        scale = model.manifest.scale
        place = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        window = [1, model.manifest.window_length, height, width]
        restored = [1, 1, scale * height, scale * width]
        self._input = place(window, np.float32, "cuda", 0)
        self._output = place(restored, np.float32, "cuda", 0)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input("window", self._input)
        self._binding.bind_ortvalue_output("restored", self._output)


def _check_packages() -> None:
    """Refuse before anything is loaded: both packages write into the same folder."""
    if not has_package("onnxruntime-gpu"):
        why, do = "onnxruntime-gpu is not installed", _INSTALL
        if has_package("onnxruntime"):
            why = "the installed onnxruntime is the one without CUDA"
            do = f"{_INSTEAD} (it runs --engine onnxruntime as well)"
        raise EngineError(_WHAT, why, do)
    if has_package("onnxruntime"):
        raise EngineError(
            _WHAT,
            "onnxruntime and onnxruntime-gpu are both installed, each over the other's files",
            _INSTEAD,
        )


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(_WHAT, f"it cannot be imported ({error})", _INSTEAD) from error
    # Of what it cannot load, it prints a line on stdout, which is for results; the session says it.
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
    return onnxruntime
