"""The NVIDIA GPU of this machine, asked for in a process of its own.

Some drivers and libraries crash the process that asks; the one that acquires frames must not be
that process. ``python -m pssr_live.engine.gpu`` is the one that asks: it prints JSON and ends.
"""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from pssr_live.errors import EngineError

__all__ = ["Gpu", "find_gpu", "gpu_from"]

TIMEOUT_S = 60
"""A driver that wakes a sleeping laptop GPU takes seconds."""

_WHAT = "no NVIDIA GPU can be used"
_DO = "install NVIDIA's driver and look at `nvidia-smi`, or choose another --engine"


class Gpu(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The GPU that CUDA puts first.

    Attributes
    ----------
    name : str
        Its name, as the driver says it.
    sm : int
        Compute capability, ten times the major number plus the minor one: 86 for 8.6.
    driver : str
        Version of the driver.
    memory_bytes : int
        Its memory.
    """

    name: str
    sm: int
    driver: str
    memory_bytes: int

    def __str__(self) -> str:
        return f"{self.name} (SM {self.sm}, driver {self.driver})"


def find_gpu() -> Gpu:
    """Look for a GPU; the answer of the first time is kept.

    Returns
    -------
    Gpu

    Raises
    ------
    EngineError
        There is none, or it cannot be asked.
    """
    if not _has_bindings():
        raise EngineError(
            _WHAT, "cuda-bindings is not installed", 'pip install "cuda-bindings>=13.2"'
        )
    found = _found()
    if isinstance(found, str):
        raise EngineError(_WHAT, found, _DO)
    return found


@cache
def _found() -> Gpu | str:
    if not _has_driver():
        return "this machine has no NVIDIA driver"
    # -P: nothing in the folder that the daemon was started in stands in for a library.
    try:
        return gpu_from([sys.executable, "-P", "-m", "pssr_live.engine.gpu"])
    except EngineError as error:
        return error.why


def gpu_from(command: Sequence[str], timeout_s: float = TIMEOUT_S) -> Gpu:
    """Run the process that asks.

    Parameters
    ----------
    command : sequence of str
        Its command line.
    timeout_s : float
        How long it may take, s.

    Returns
    -------
    Gpu

    Raises
    ------
    EngineError
        It found none, crashed, or did not end.
    """
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        why = f"the driver did not answer within {timeout_s:g} s"
        raise EngineError(_WHAT, why, _DO) from error
    except OSError as error:
        raise EngineError(_WHAT, f"it cannot be asked ({error})", _DO) from error
    if ended.returncode:
        lines = ended.stderr.decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "it said nothing"
        how = f"asking the driver crashed (exit {ended.returncode}): {last}"
        raise EngineError(_WHAT, last if ended.returncode == 1 and lines else how, _DO)
    try:
        return msgspec.json.decode(ended.stdout, type=Gpu)
    except msgspec.DecodeError as error:
        raise EngineError(
            _WHAT, f"the answer of the driver makes no sense ({error})", _DO
        ) from error


def _has_bindings() -> bool:
    try:
        return importlib.util.find_spec("cuda.bindings") is not None
    except ModuleNotFoundError:  # not even the package that it is a part of
        return False


def _has_driver() -> bool:
    """Whether the driver's library can be loaded; without one, no process need be started."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _ask() -> Gpu:
    from cuda.bindings import driver

    def call(function: str, *arguments: object) -> Any:
        error, *values = getattr(driver, function)(*arguments)
        if error != driver.CUresult.CUDA_SUCCESS:
            raise SystemExit(str(getattr(error, "name", error)))
        return values[0] if values else None

    call("cuInit", 0)
    device = call("cuDeviceGet", 0)
    which = driver.CUdevice_attribute
    major, minor = (
        int(call("cuDeviceGetAttribute", attribute, device))
        for attribute in (
            which.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            which.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    return Gpu(
        name=call("cuDeviceGetName", 256, device).decode().rstrip("\0"),
        sm=10 * major + minor,
        driver=_driver_version() or _cuda_version(int(call("cuDriverGetVersion"))),
        memory_bytes=int(call("cuDeviceTotalMem", device)),
    )


def _cuda_version(number: int) -> str:
    return f"for CUDA {number // 1000}.{number % 1000 // 10}"


def _driver_version() -> str | None:
    """Ask the management library, which some containers lack; CUDA knows only what it supports."""
    from cuda.bindings import nvml

    try:
        nvml.init_v2()
        try:
            return str(nvml.system_get_driver_version())
        finally:
            nvml.shutdown()
    except (nvml.NvmlError, RuntimeError):
        return None


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_ask()))
