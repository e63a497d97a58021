"""PyTorch, on an NVIDIA GPU where it has one, else on the CPU."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pssr_live.engine.base import EngineReport
from pssr_live.engine.executed import check_executed, joined
from pssr_live.engine.openvino_core import openvino_core
from pssr_live.errors import EngineError
from pssr_live.model import ModelPackage

__all__ = ["TorchEngine"]

_NAMES = {"torch.float32": "fp32", "torch.bfloat16": "bf16"}


class TorchEngine:
    """Runs a network's ONNX graph with PyTorch's own operators.

    Slower than the other engines; the same code runs on every device that torch knows, and it is a
    judge of the others that shares no line with them.

    Parameters
    ----------
    precision : str
        ``fp32``, or ``bf16`` where the processor or the GPU has instructions for it.
    """

    def __init__(self, precision: str) -> None:
        if precision not in _NAMES.values():
            raise EngineError(
                f"PyTorch cannot run in {precision}",
                f"this engine runs a network's fp32 file, in {' or '.join(_NAMES.values())}",
                "choose another --precision or another --engine",
            )
        self._precision = precision
        self._device: Any = None
        self._graph: Any = None
        self._output: Any = None

    def prepare(self, model: ModelPackage, height: int, width: int) -> EngineReport:
        """Read the graph, and run it once for this frame size; see `Engine`."""
        try:
            import torch

            from pssr_live.engine.torch_graph import TorchGraph, UnknownOperatorError
        except ImportError as error:
            raise EngineError(
                "PyTorch", f"it is not installed ({error})", 'pip install "pssr-live[torch]"'
            ) from error
        started = time.perf_counter()
        model.check_size(height, width)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._check_precision()
        try:
            self._graph = TorchGraph(model.network_for(self._precision), self._device)
            output = self._run(
                self._graph.trace,
                np.zeros((1, model.manifest.window_length, height, width), np.float32),
            )
        except UnknownOperatorError as error:
            raise _refusal(model, f"its network has {error}, unknown here") from error
        except (RuntimeError, ValueError, KeyError) as error:
            why = next((line for line in str(error).splitlines() if line.strip()), repr(error))
            raise _refusal(model, why) from error
        executed = joined(_NAMES.get(str(one), str(one)) for one in self._graph.arithmetic)
        check_executed("PyTorch", model, self._precision, executed)
        scale = model.manifest.scale
        if output.shape != (scale * height, scale * width):
            raise _refusal(model, f"its output is {output.shape} for frames of {height}×{width}")
        return EngineReport(
            requested="torch",
            engine="torch",
            device=self._device_name(),
            precision=executed,
            version=str(torch.__version__),
            threads=torch.get_num_threads(),
            prepare_ms=(time.perf_counter() - started) * 1e3,
        )

    def run(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run once; see `Engine`."""
        return self._run(self._graph.run, window)

    def close(self) -> None:
        """Let go of the network; see `Engine`."""
        self._graph = None
        self._output = None

    def _run(self, graph: Any, window: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with ExitStack() as within:
            within.enter_context(torch.inference_mode())
            if self._device.type == "cuda":
                # fp32 would otherwise be TF32, and algorithms would change from run to run.
                exactly = torch.backends.cudnn.flags(
                    enabled=True, deterministic=True, allow_tf32=False
                )
                within.enter_context(exactly)
            if self._precision == "bf16":
                within.enter_context(torch.autocast(self._device.type, torch.bfloat16))
            placed = torch.from_numpy(window).to(self._device, memory_format=torch.channels_last)
            self._output = graph(placed)[0, 0].float().contiguous().cpu().numpy()
        output: NDArray[np.float32] = self._output
        return output

    def _check_precision(self) -> None:
        """Refuse what would be computed in software, slower than fp32 and no more exact."""
        import torch

        if self._precision != "bf16":
            return
        if self._device.type == "cuda":
            able = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            able = _processor_has_bf16()
        if not able:
            raise EngineError(
                "PyTorch cannot run in bf16",
                f"{self._device_name()} has no instructions for it",
                "use --precision fp32",
            )

    def _device_name(self) -> str:
        import torch

        if self._device.type == "cuda":
            return torch.cuda.get_device_name(self._device)
        return f"CPU ({torch.backends.cpu.get_cpu_capability()})"


def _refusal(model: ModelPackage, why: str) -> EngineError:
    return EngineError(
        f"PyTorch cannot run model {model.manifest.name}",
        why,
        "choose another engine with --engine, or report this",
    )


def _processor_has_bf16() -> bool:
    """Ask OpenVINO, which every installation has: torch has no public word for it."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
