"""Run a compiled engine: one window in, one restored frame out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pssr_live.engine.trt.bindings import Messages
from pssr_live.engine.trt.cuda import Cuda
from pssr_live.engine.trt.network import INPUT, OUTPUT
from pssr_live.errors import EngineError

__all__ = ["Execution", "ForeignEngineError"]

log = logging.getLogger(__name__)

_WARM_UP_RUNS = 3
_DO = "delete the cache of engines (`pssr-live doctor` says where it is), or choose another engine"


class ForeignEngineError(EngineError):
    """The library does not take these bytes for an engine of its own, for this GPU."""


class Execution:
    """A deserialized engine with its memory, warmed up.

    Copies and kernels go through one stream: a frame is restored while the microscope scans the
    next, and there is nothing that could be copied meanwhile. Without a CUDA graph, each kernel
    costs a launch; with it, copies and kernels together cost one.

    Parameters
    ----------
    trt : module
        ``tensorrt`` or ``tensorrt_rtx``.
    title : str
        The library's name, for errors.
    content : bytes
        Serialized engine.
    shape : tuple of int
        Of a window: 1, frames, H, W.
    runtime_cache : bytes or None
        TensorRT-RTX: kernels that were finished on this GPU earlier, or empty. None: TensorRT,
        whose engines are finished.

    Attributes
    ----------
    graphed : bool
        Whether a CUDA graph runs.

    Raises
    ------
    ForeignEngineError
        The engine cannot be deserialized here.
    EngineError
        It cannot be run.
    """

    def __init__(
        self,
        trt: Any,
        title: str,
        content: bytes,
        shape: tuple[int, int, int, int],
        runtime_cache: bytes | None,
    ) -> None:
        self._trt, self._title = trt, title
        self._messages = Messages(trt)
        self._cuda = Cuda()
        self._context: Any = None
        self._config: Any = None
        self._cache: Any = None
        self._launch: Callable[[], None] = _closed
        self.graphed = False
        try:
            self._runtime = trt.Runtime(self._messages.logger)
            self._engine = self._deserialize(content)
            self._context = self._make_context(runtime_cache)
            self._bind(shape)
            self._warm_up(record=runtime_cache is None)
        except BaseException:
            self.close()
            raise

    def run(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Restore one window.

        Parameters
        ----------
        window : ndarray, shape (1, frames, H, W), float32
            Normalised frames.

        Returns
        -------
        ndarray, shape (scale·H, scale·W), float32
            Pinned memory; valid until the next call, and not after `close`.
        """
        self._cuda.make_current()
        np.copyto(self._host_in, window)
        self._launch()
        self._cuda.wait()
        restored: NDArray[np.float32] = self._host_out[0, 0]
        return restored

    @property
    def restored_shape(self) -> tuple[int, int]:
        """Height and width of what `run` gives."""
        height, width = self._host_out.shape[2:]
        return height, width

    def runtime_cache(self) -> bytes:
        """Return the kernels that TensorRT-RTX has finished on this GPU, to be kept."""
        return b"" if self._cache is None else bytes(self._cache.serialize())

    def close(self) -> None:
        """Let go of the engine, then of the memory that it used."""
        # From left to right: each is used by those before it.
        self._context = self._engine = self._runtime = self._config = self._cache = None
        self._launch = _closed
        self._cuda.close()

    def _deserialize(self, content: bytes) -> Any:
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise ForeignEngineError(
                f"{self._title} cannot load a compiled engine",
                self._messages.why("it does not say why"),
                _DO,
            )
        return engine

    def _make_context(self, runtime_cache: bytes | None) -> Any:
        if runtime_cache is None:
            context = self._engine.create_execution_context()
        else:
            trt = self._trt
            self._config = config = self._engine.create_runtime_config()
            self._cache = config.create_runtime_cache()
            # One of another driver or version is refused, and made anew.
            if runtime_cache:
                self._cache.deserialize(runtime_cache)
            config.set_runtime_cache(self._cache)
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            # Kernels that are replaced in mid-run would give other bytes for the same window.
            config.dynamic_shapes_kernel_specialization_strategy = (
                trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            context = self._engine.create_execution_context(config)
            self.graphed = config.cuda_graph_strategy == trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if context is None:
            raise self._failure("it makes no execution context")
        return context

    def _bind(self, shape: tuple[int, int, int, int]) -> None:
        self._check_types()
        context, cuda = self._context, self._cuda
        if not context.set_input_shape(INPUT, shape):
            raise self._failure(f"it takes no window of shape {shape}")
        restored = tuple(context.get_tensor_shape(OUTPUT))
        if len(restored) != 4 or min(restored) < 1:
            raise self._failure(f"its output has the shape {restored}")
        self._host_in, self._host_out = cuda.pinned(shape), cuda.pinned(restored)
        self._device_in = cuda.device(self._host_in.nbytes)
        self._device_out = cuda.device(self._host_out.nbytes)
        for name, address in ((INPUT, self._device_in), (OUTPUT, self._device_out)):
            if not context.set_tensor_address(name, address):
                raise self._failure(f"it refuses the memory for {name}")

    def _check_types(self) -> None:
        trt, engine = self._trt, self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        found = {
            name: (engine.get_tensor_mode(name), engine.get_tensor_dtype(name)) for name in names
        }
        if found != {
            INPUT: (trt.TensorIOMode.INPUT, trt.DataType.FLOAT),
            OUTPUT: (trt.TensorIOMode.OUTPUT, trt.DataType.FLOAT),
        }:
            raise self._failure(f"its inputs and outputs are {', '.join(names)}")

    def _warm_up(self, record: bool) -> None:
        self._host_in[...] = 0
        self._launch = self._put
        for _ in range(_WARM_UP_RUNS):
            self._launch()
            self._cuda.wait()
        if record:
            try:
                self._launch = self._cuda.record(self._put)
                self.graphed = True
            except EngineError as error:
                log.warning("%s runs without a CUDA graph: %s", self._title, error.why)
            # Also the first launch of a graph takes longer.
            self._launch()
            self._cuda.wait()

    def _put(self) -> None:
        """Put one restoration into the stream."""
        self._cuda.upload(self._host_in, self._device_in)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise self._failure("the GPU does not start it")
        self._cuda.download(self._device_out, self._host_out)

    def _failure(self, why: str) -> EngineError:
        return EngineError(f"{self._title} cannot run the network", self._messages.why(why), _DO)


def _closed() -> None:
    raise RuntimeError("the engine is closed")
