"""Whether a window can open here; asked without loading Qt."""

from __future__ import annotations

import importlib.util
import os
import platform

__all__ = ["has_display", "has_windows"]


def has_display() -> bool:
    """Whether there is a screen: always on Windows and macOS, elsewhere if a variable says so."""
    if platform.system() in {"Windows", "Darwin"}:
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def has_windows() -> bool:
    """Whether the packages of the viewer are installed (the extra ``gui``)."""
    return all(importlib.util.find_spec(name) for name in ("pyqtgraph", "PyQt5"))
