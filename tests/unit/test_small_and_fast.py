"""The daemon is small: importing it brings in no engine, no torch, no Qt, no Micro-Manager."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "torch", "PyQt5", "pyqtgraph", "pymmcore", "pycromanager", "openvino", "onnxruntime", "onnx",
    "tensorrt", "scipy", "tifffile", "zmq",
)  # fmt: skip


def loaded_after(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after running the code."""
    report = f"{code}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=60
    )
    return set(ended.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import pssr_live") == set()


def test_the_command_line_loads_nothing_heavy() -> None:
    assert loaded_after("import pssr_live.cli") == set()


def test_a_session_loads_no_window_no_training_and_no_microscope() -> None:
    loaded = loaded_after("import pssr_live.session")
    assert loaded & {"torch", "PyQt5", "pyqtgraph", "pymmcore", "openvino", "onnxruntime"} == set()
