"""What is installed on this machine, what is not, and what that means."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from pssr_live import __version__
from pssr_live.display import has_display
from pssr_live.engine.check import check_test_pair
from pssr_live.engine.select import AUTO_ORDER
from pssr_live.errors import PssrLiveError
from pssr_live.model import read_package, shipped_models
from pssr_live.source import source_names
from pssr_live.stream.connection import connections, runtime_folder

__all__ = ["examine"]

_NEEDED = ("numpy", "openvino", "pyzmq", "tifffile", "msgspec", "typer", "platformdirs")
_EXTRAS = {
    "gui": (("PyQt5", "pyqtgraph"), "viewer and review windows"),
    "micromanager": (("pymmcore", "mm-test-adapters"), "--scope mm"),
    "onnxruntime": (("onnxruntime",), "--engine onnxruntime"),
    "train": (("torch", "onnx", "onnxscript"), "training models"),
}


def examine() -> Iterator[str]:
    """Look at this machine.

    Yields
    ------
    str
        One finding a line: ``ok``, ``--`` (not installed, not needed for the daemon itself), or
        ``!!`` (broken).
    """
    yield f"pssr-live {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield f"{os.cpu_count()} processors"
    yield from _packages()
    yield f"ok  sources: {', '.join(source_names())}"
    yield from _models_and_engines()
    if has_display():
        yield "ok  display: there is one"
    else:
        yield "--  display: none; no window opens here, all else works"
    yield f"ok  connection files: {runtime_folder()} ({len(list(connections()))} daemons announced)"


def _packages() -> Iterator[str]:
    for name in _NEEDED:
        found = _version(name)
        yield f"ok  {name} {found}" if found else f"!!  {name} is missing: reinstall pssr-live"
    for extra, (names, purpose) in _EXTRAS.items():
        missing = [name for name in names if _version(name) is None]
        if missing:
            install = f'pip install "pssr-live[{extra}]"'
            yield f"--  {purpose}: {', '.join(missing)} not installed; {install}"
        else:
            yield f"ok  {purpose}: {', '.join(f'{name} {_version(name)}' for name in names)}"


def _models_and_engines() -> Iterator[str]:
    for folder in shipped_models():
        try:
            package = read_package(folder)
        except PssrLiveError as error:
            yield f"!!  {error}"
            continue
        manifest = package.manifest
        yield f"ok  model {manifest.name} {manifest.version}: {manifest.description}"
        for name in AUTO_ORDER:
            try:
                worst, report = check_test_pair(package, name, None)
            except PssrLiveError as error:
                yield f"--  engine {name}: {error}"
            else:
                yield (
                    f"ok  engine {name} {report.version}: {report.precision} on {report.device}, "
                    f"{report.threads} threads; misses {manifest.name}'s test pair by {worst:.1e} "
                    "standard deviations"
                )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
