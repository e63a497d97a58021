"""The engines that the daemon sees.

What takes time to import is imported once it is known that the library and a GPU are there: most
machines have neither, and ``auto`` asks at every start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from pssr_live.engine.base import EngineReport
from pssr_live.engine.trt.bindings import PRECISIONS, RTX, TENSORRT, Flavour, require
from pssr_live.errors import EngineError
from pssr_live.model import ModelPackage

if TYPE_CHECKING:
    from pssr_live.engine.trt.execution import Execution

__all__ = ["TensorRTEngine", "TensorRTRTXEngine"]


class _Engine:
    """A network compiled for one size of frames.

    Parameters
    ----------
    precision : str
        ``fp32`` or ``fp16``: which of the package's networks is compiled.
    """

    flavour: ClassVar[Flavour]

    def __init__(self, precision: str) -> None:
        if precision not in PRECISIONS:
            raise EngineError(*self.flavour.refusal(precision))
        self._precision = precision
        self._execution: Execution | None = None

    @property
    def graphed(self) -> bool:
        """Whether a CUDA graph runs."""
        return self._execution is not None and self._execution.graphed

    def prepare(self, model: ModelPackage, height: int, width: int) -> EngineReport:
        """Find the compiled engine or build it, load it and warm it up; see `Engine`."""
        model.check_size(height, width)
        require(self.flavour)
        from pssr_live.engine.gpu import find_gpu

        gpu = find_gpu()
        from pssr_live.engine.trt.prepare import prepare

        self._execution, report = prepare(self.flavour, model, self._precision, height, width, gpu)
        return report

    def run(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run once; see `Engine`."""
        if self._execution is None:
            raise RuntimeError("run() before prepare()")
        return self._execution.run(window)

    def close(self) -> None:
        """Let go of the GPU's memory; see `Engine`."""
        if self._execution is not None:
            self._execution.close()
            self._execution = None


class TensorRTEngine(_Engine):
    """Runs a network compiled by TensorRT for this very GPU."""

    flavour = TENSORRT


class TensorRTRTXEngine(_Engine):
    """Runs a network compiled by TensorRT-RTX, here or ahead of time."""

    flavour = RTX
