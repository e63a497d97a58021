"""What is installed on this machine, what is not, and what that means."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from pssr_live import __version__
from pssr_live.display import has_display
from pssr_live.engine.base import Check, EngineReport
from pssr_live.engine.cache import cache_folder
from pssr_live.engine.gate import Gate
from pssr_live.engine.openvino_core import openvino_core
from pssr_live.engine.select import AUTO_ORDER, prepare_engine
from pssr_live.errors import PssrLiveError
from pssr_live.model import ModelPackage, find_model, read_package, shipped_models
from pssr_live.source import source_names
from pssr_live.stream.connection import connections, runtime_folder

__all__ = ["engine_line", "engine_line_from", "examine"]

_NEEDED = (
    "numpy", "openvino", "onnx", "pyzmq", "tifffile", "msgspec", "typer", "platformdirs",
    "ruamel.yaml", "filelock",
)  # fmt: skip
_EXTRAS = {
    "gui": (("PyQt5", "pyqtgraph"), "viewer and review windows"),
    "micromanager": (("pymmcore", "mm-test-adapters"), "--scope mm"),
    "train": (("torch", "onnx", "onnxscript"), "training models"),
    "evaluate": (("matplotlib", "scikit-image", "scipy"), "comparing with ground truth, plots"),
    "parquet": (("pyarrow",), "log export --parquet"),
    "bench": (("psutil",), "memory in the bench"),
}
_CLASH = ("onnxruntime", "onnxruntime-gpu")
_WITHIN_S = 600.0
"""A GPU engine is compiled the first time."""
_SHORTER = {"BF16": "bf16", "FP16": "fp16", "INT8": "int8"}


def examine() -> Iterator[str]:
    """Look at this machine.

    Yields
    ------
    str
        One finding a line: ``ok``, ``--`` (not installed, not needed for the daemon itself), or
        ``!!`` (broken).
    """
    yield f"pssr-live {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield _processor()
    yield from _packages()
    yield f"ok  sources: {', '.join(source_names())}"
    yield from _models()
    yield from _engines()
    if has_display():
        yield "ok  display: there is one"
    else:
        yield "--  display: none; no window opens here, all else works"
    yield f"ok  cache of compiled engines: {cache_folder()} ({_megabytes():.0f} MB; may be deleted)"
    yield f"ok  connection files: {runtime_folder()} ({len(list(connections()))} daemons announced)"


def _processor() -> str:
    """Say which shorter arithmetic the processor has instructions for, as OpenVINO sees it."""
    cores = f"{os.cpu_count()} processors"
    try:
        core = openvino_core()
        name = str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip()
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ImportError, RuntimeError) as error:
        return f"!!  {cores}; OpenVINO cannot look at them: {_one_line(str(error))}"
    has = [word for capability, word in _SHORTER.items() if capability in able]
    lacks = [word for word in _SHORTER.values() if word not in has]
    said = f"instructions for {', '.join(['fp32', *has])}"
    return f"ok  {cores}, {name}: {said}{f'; not for {_listed(lacks)}' if lacks else ''}"


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
    if all(_version(name) for name in _CLASH):
        yield (
            f"!!  {' and '.join(_CLASH)} are both installed and overwrite each other's files: "
            f"pip uninstall {' '.join(_CLASH)}, then pip install one: "
            '"pssr-live[cuda]" (runs on the CPU too) or "pssr-live[onnxruntime]"'
        )


def _models() -> Iterator[str]:
    for folder in shipped_models():
        try:
            manifest = read_package(folder).manifest
        except PssrLiveError as error:
            yield f"!!  {error}"
        else:
            networks = ", ".join(["fp32", *manifest.variants])
            what = f"{manifest.name} {manifest.version} ({networks})"
            yield f"ok  model {what}: {manifest.description}"


def _engines() -> Iterator[str]:
    """Try every engine on one model, each in a process of its own: some libraries crash."""
    name = next((folder.name for folder in shipped_models()), None)
    if name is None:
        yield "!!  engines: there is no model to try them on; reinstall pssr-live"
        return
    for engine in AUTO_ORDER:
        # -P: nothing in the folder where this was started stands in for a library.
        yield engine_line_from([sys.executable, "-P", "-m", __name__, engine, name], engine)


def engine_line_from(command: Sequence[str], engine: str, within_s: float = _WITHIN_S) -> str:
    """Run a process that tries an engine.

    Parameters
    ----------
    command : sequence of str
        Its command line; the last line that it prints is the finding.
    engine : str
        The engine's name.
    within_s : float
        How long it may take, s.

    Returns
    -------
    str
        The finding; that the process crashed is one.
    """
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=within_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"!!  engine {engine}: no answer within {within_s:g} s; choose another --engine"
    said = ended.stdout.decode(errors="replace").splitlines()
    if ended.returncode or not said:
        last = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return (
            f"!!  engine {engine}: its library crashed (exit {ended.returncode}): "
            f"{_one_line(*last) or 'it said nothing'}; reinstall it or choose another --engine"
        )
    return said[-1]


def engine_line(engine: str, model: ModelPackage) -> str:
    """Try an engine on a model's test pair, as before a run.

    Parameters
    ----------
    engine : str
        Its name.
    model : ModelPackage
        What to run, in fp32.

    Returns
    -------
    str
        The finding.
    """
    height, width = model.test_pair().window.shape[1:]
    gate = Gate(model, None, height, width)
    try:
        running, report = prepare_engine(engine, None, model, height, width, gate.admit)
        running.close()
    except PssrLiveError as error:
        return f"--  engine {engine}: {error}"
    finally:
        gate.close()
    return f"ok  engine {engine} {_ran(report, model)}"


def _ran(report: EngineReport, model: ModelPackage) -> str:
    cached = {True: ", from the cache", False: ", compiled now", None: ""}[report.cached]
    parts = [
        f"{report.version}: {report.precision} on {report.device}",
        f"{report.threads} thread{'s' if report.threads != 1 else ''}, "
        f"ready in {report.prepare_ms / 1e3:.1f} s{cached}",
        *(_passed(check, model) for check in report.checks),
    ]
    return "; ".join(parts)


def _passed(check: Check, model: ModelPackage) -> str:
    near = f"{check.psnr_db:.0f} dB" if math.isfinite(check.psnr_db) else "equal"
    needed = f"at least {check.floor_db:.0f} dB needed"
    return f"{check.what} of {model.manifest.name}: {near}, {needed}"


def _megabytes() -> float:
    folder = cache_folder()
    files = (path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else ()
    return sum(path.stat().st_size for path in files) / 1e6


def _listed(words: Sequence[str]) -> str:
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"


def _one_line(*lines: str) -> str:
    return " ".join(" ".join(lines).split())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(f"\n{engine_line(sys.argv[1], find_model(sys.argv[2]))}", flush=True)  # noqa: T201
