"""The two libraries, and what differs between them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import import_module
from textwrap import shorten
from typing import Any

from pssr_live.errors import EngineError

__all__ = ["FLAVOURS", "PRECISIONS", "RTX", "TENSORRT", "Flavour", "Messages", "load", "require"]

PRECISIONS = ("fp32", "fp16")
"""Networks of a package that are built; those in int8 are quantised for processors."""

SUPPORTED = {"tensorrt": (10, 11), "tensorrt_rtx": (1, 1)}
"""First and last major version whose calls have been compared with ours."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """One of the two libraries.

    Attributes
    ----------
    name : str
        The engine's name, and that of the extra that installs it.
    title : str
        The library's name for people.
    module : str
        The module to import.
    portable : bool
        True for TensorRT-RTX: it builds without a GPU, for a list of compute capabilities and for
        any operating system, and finishes the kernels on the GPU that runs them. TensorRT times
        its kernels on the GPU it builds for, and its engines run there only.
    """

    name: str
    title: str
    module: str
    portable: bool

    def refusal(self, precision: str) -> tuple[str, str, str]:
        """Say what, why and what to do about a precision that it does not take."""
        return (
            f"{self.title} cannot run in {precision}",
            f"it runs a network in the types of its file, here {' or '.join(PRECISIONS)}",
            f"use --precision {' or '.join(PRECISIONS)}, or another engine",
        )


TENSORRT = Flavour("tensorrt", "TensorRT", "tensorrt", portable=False)
RTX = Flavour("tensorrt-rtx", "TensorRT-RTX", "tensorrt_rtx", portable=True)
FLAVOURS = {flavour.name: flavour for flavour in (TENSORRT, RTX)}


def require(flavour: Flavour) -> None:
    """Refuse, quickly, what is not installed.

    Raises
    ------
    EngineError
        The library is not there.
    """
    if importlib.util.find_spec(flavour.module) is None:
        raise EngineError(
            flavour.title, "it is not installed", f'pip install "pssr-live[{flavour.name}]"'
        )


def load(flavour: Flavour) -> Any:
    """Import the library.

    Returns
    -------
    module
        ``tensorrt`` or ``tensorrt_rtx``.

    Raises
    ------
    EngineError
        It is not there, cannot be loaded, or is of another major version.
    """
    require(flavour)
    reinstall = f'reinstall it: pip install --force-reinstall "pssr-live[{flavour.name}]"'
    try:
        module = import_module(flavour.module)
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(flavour.title, f"it cannot be loaded ({error})", reinstall) from error
    first, last = SUPPORTED[flavour.module]
    if not first <= int(str(module.__version__).split(".", 1)[0]) <= last:
        raise EngineError(
            f"{flavour.title} {module.__version__}",
            f"this version of pssr-live is written for {first}.x to {last}.x",
            f'pip install "pssr-live[{flavour.name}]"',
        )
    return module


class Messages:
    """Collects what the library says; its errors become the reason of ours.

    Parameters
    ----------
    trt : module
        ``tensorrt`` or ``tensorrt_rtx``.

    Attributes
    ----------
    logger : ILogger
        To be given to the library.
    errors : list of str
        Errors so far.
    """

    def __init__(self, trt: Any) -> None:
        errors: list[str] = []

        class Collector(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                    errors.append(" ".join(message.split()))

        self.errors = errors
        self.logger = Collector()

    def why(self, otherwise: str) -> str:
        """Return the first error, which is the cause of those that follow, or ``otherwise``."""
        return shorten(self.errors[0], 300) if self.errors else otherwise
