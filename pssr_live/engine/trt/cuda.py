"""What an engine needs of the CUDA driver: memory, one stream, one graph.

Through the driver's own interface, which is the same from CUDA 12 on; the runtime library that
TensorRT brings is another matter, and need not be found here. Both work in the GPU's primary
context.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import EngineError

__all__ = ["Cuda"]


class Cuda:
    """The first GPU, its primary context and one stream.

    Everything that is allocated is given back by `close`, last first.

    Raises
    ------
    EngineError
        The driver refuses.
    """

    def __init__(self) -> None:
        from cuda.bindings import driver

        self._driver: Any = driver
        self._context: Any = None
        self._owned = ExitStack()
        try:
            self._call("cuInit", 0)
            device = self._call("cuDeviceGet", 0)
            self._context = self._call("cuDevicePrimaryCtxRetain", device)
            self._owned.callback(self._call, "cuDevicePrimaryCtxRelease", device)
            self.make_current()
            flags = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
            self._stream = self._call("cuStreamCreate", flags.value)
            self._owned.callback(self._call, "cuStreamDestroy", self._stream)
        except BaseException:
            self.close()
            raise

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream)

    def make_current(self) -> None:
        """Let the calling thread use this context; each thread that uses it must."""
        self._call("cuCtxSetCurrent", self._context)

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Allocate memory of this computer that the GPU copies from and to without the processor.

        Parameters
        ----------
        shape : tuple of int
            Of the array.

        Returns
        -------
        ndarray of float32
            Not valid after `close`.
        """
        size = math.prod(shape)
        address = int(self._call("cuMemHostAlloc", 4 * size, 0))
        self._owned.callback(self._call, "cuMemFreeHost", address)
        memory = (ctypes.c_float * size).from_address(address)
        array: NDArray[np.float32] = np.ctypeslib.as_array(memory).reshape(shape)
        return array

    def device(self, nbytes: int) -> int:
        """Allocate memory of the GPU.

        Returns
        -------
        int
            Its address.
        """
        pointer = self._call("cuMemAlloc", nbytes)
        self._owned.callback(self._call, "cuMemFree", pointer)
        return int(pointer)

    def upload(self, source: NDArray[np.float32], target: int) -> None:
        """Put a copy to the GPU into the stream."""
        self._call("cuMemcpyHtoDAsync", target, source.ctypes.data, source.nbytes, self._stream)

    def download(self, source: int, target: NDArray[np.float32]) -> None:
        """Put a copy from the GPU into the stream."""
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, source, target.nbytes, self._stream)

    def wait(self) -> None:
        """Wait until the stream is empty."""
        self._call("cuStreamSynchronize", self._stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what ``work`` puts into the stream, as one graph.

        Parameters
        ----------
        work : callable
            Puts copies and kernels into the stream; they are recorded, not executed.

        Returns
        -------
        callable
            Puts all of it into the stream again, at the cost of one launch.

        Raises
        ------
        EngineError
            The driver cannot record it. The stream is usable again.
        """
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            self._driver.cuStreamEndCapture(self._stream)
            raise
        graph = self._call("cuStreamEndCapture", self._stream)
        try:
            recorded = self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)
        self._owned.callback(self._call, "cuGraphExecDestroy", recorded)
        return lambda: self._call("cuGraphLaunch", recorded, self._stream)

    def close(self) -> None:
        """Give everything back."""
        if self._context is not None:
            self.make_current()  # another thread than the one that allocated may do this
            self._context = None
        self._owned.close()

    def _call(self, function: str, *arguments: object) -> Any:
        error, *values = getattr(self._driver, function)(*arguments)
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise EngineError(
                f"the GPU refuses {function}",
                getattr(error, "name", str(error)),
                "see `nvidia-smi` for what else uses it, or choose another --engine",
            )
        return values[0] if values else None
