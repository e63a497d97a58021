"""The one OpenVINO of this process."""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["openvino_core"]


@cache
def openvino_core() -> Any:
    """Load OpenVINO, once.

    Its CPU plugin gives the thread that loads it a stack for signal handlers of its own, and
    restores the former one when it is unloaded. With two cores, of which the older one goes first,
    what is restored last has been unmapped already: the next signal, Ctrl-C for one, kills the
    process or writes into memory that others use. So there is one, and it stays.

    Returns
    -------
    openvino.Core
    """
    import openvino

    return openvino.Core()
