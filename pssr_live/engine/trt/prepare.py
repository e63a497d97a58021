"""From a model and a GPU to an engine that runs: out of the cache, or built."""

from __future__ import annotations

import hashlib
import logging
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pssr_live.engine.base import EngineReport
from pssr_live.engine.cache import cache_folder
from pssr_live.engine.gpu import Gpu
from pssr_live.engine.trt.bindings import Flavour, load
from pssr_live.engine.trt.build import build
from pssr_live.engine.trt.cache import EngineCache, EngineKey
from pssr_live.engine.trt.execution import Execution, ForeignEngineError
from pssr_live.engine.trt.network import FLAGS, Built, Request
from pssr_live.engine.trt.whole_file import write_file
from pssr_live.errors import EngineError, ModelError
from pssr_live.model import ModelPackage

__all__ = ["compiled_engines", "key_for", "prepare", "timings_file"]

log = logging.getLogger(__name__)


def prepare(
    flavour: Flavour, model: ModelPackage, precision: str, height: int, width: int, gpu: Gpu
) -> tuple[Execution, EngineReport]:
    """Find the compiled engine or build it, load it and warm it up.

    Parameters
    ----------
    flavour : Flavour
        The library.
    model : ModelPackage
        What to run.
    precision : str
        Which of its networks.
    height, width : int
        Size of the raw frames, pixels.
    gpu : Gpu
        Where.

    Returns
    -------
    execution : Execution
        Warmed up.
    report : EngineReport
        What runs.

    Raises
    ------
    EngineError
        It cannot be built, or does not run.
    """
    trt = load(flavour)
    started = time.perf_counter()
    network = _network(model, precision)
    shape = (1, model.manifest.window_length, height, width)
    key = key_for(flavour, str(trt.__version__), network, shape, precision, gpu)
    cached, execution, built = _load_or_build(trt, flavour, model, network, key)
    try:
        _check_shape(execution, flavour, model, height, width)
        if flavour.portable:
            _keep_kernels(execution, key)
    except BaseException:
        execution.close()
        raise
    report = EngineReport(
        requested=flavour.name,
        engine=flavour.name,
        device=str(gpu),
        precision=built.precision,
        version=str(trt.__version__),
        threads=1,
        prepare_ms=(time.perf_counter() - started) * 1e3,
        cached=cached,
    )
    return execution, report


def compiled_engines() -> EngineCache:
    """Return the cache of this user."""
    return EngineCache(cache_folder() / "engines")


def key_for(
    flavour: Flavour,
    version: str,
    network: bytes,
    shape: tuple[int, int, int, int],
    precision: str,
    target: Gpu | tuple[int, ...],
) -> EngineKey:
    """Put together what a compiled engine depends on.

    Parameters
    ----------
    flavour : Flavour
        The library.
    version : str
        Its exact version.
    network : bytes
        ONNX.
    shape : tuple of int
        Of a window: 1, frames, H, W.
    precision : str
        That is asked for.
    target : Gpu or tuple of int
        The GPU that it is built on; or the compute capabilities that it is built for ahead of
        time, on any GPU, driver and operating system.

    Returns
    -------
    EngineKey
    """
    gpu = target if isinstance(target, Gpu) else None
    return EngineKey(
        network_sha256=hashlib.sha256(network).hexdigest(),
        engine=flavour.name,
        version=version,
        sm=(target.sm,) if isinstance(target, Gpu) else tuple(sorted(set(target))),
        gpu=gpu.name if gpu else None,
        driver=gpu.driver if gpu else None,
        system=f"{sys.platform}-{platform.machine().lower()}" if gpu else None,
        shape=shape,
        precision=precision,
        flags=FLAGS,
    )


def timings_file(cache: EngineCache, key: EngineKey) -> Path:
    """Return the file in which TensorRT keeps its timings: good for all networks on this GPU."""
    gpu = (key.engine, key.version, key.sm, key.gpu, key.driver, key.system)
    digest = hashlib.sha256(repr(gpu).encode()).hexdigest()
    return cache.folder / f"{key.engine}-{digest[:16]}.timings"


def _network(model: ModelPackage, precision: str) -> bytes:
    try:
        return model.network_for(precision)
    except ModelError as error:  # another engine may make its own
        raise EngineError(error.what, error.why, error.do) from error


def _load_or_build(
    trt: Any, flavour: Flavour, model: ModelPackage, network: bytes, key: EngineKey
) -> tuple[bool, Execution, Built]:
    cache, name = compiled_engines(), model.manifest.name
    found = cache.find(name, key)
    if found is not None:
        try:
            return True, _execute(trt, flavour, found.content, key), found.built
        except ForeignEngineError as error:
            cache.discard(found.path, error.why)
    log.info("compiling %s for %s with %s; kept for the next run", name, key.gpu, flavour.title)
    request = Request(
        engine=flavour.name,
        shape=key.shape,
        sm=key.sm,
        out="",
        timing_cache=None if flavour.portable else str(timings_file(cache, key)),
    )
    content, built = build(request, network, _tenths())
    try:
        cache.keep(name, key, content, built)
    except OSError as error:
        log.warning("the compiled engine cannot be kept for the next run: %s", error)
    return False, _execute(trt, flavour, content, key), built


def _execute(trt: Any, flavour: Flavour, content: bytes, key: EngineKey) -> Execution:
    kernels: bytes | None = None
    if flavour.portable:
        try:
            kernels = _kernels_file(key).read_bytes()
        except OSError:
            kernels = b""
    return Execution(trt, flavour.title, content, key.shape, kernels)


def _kernels_file(key: EngineKey) -> Path:
    """Where TensorRT-RTX keeps its finished kernels: good for this engine on this GPU."""
    return compiled_engines().folder / f"{key.engine}-{key.digest[:16]}.kernels"


def _keep_kernels(execution: Execution, key: EngineKey) -> None:
    """Keep what TensorRT-RTX has finished on this GPU, so that the next start is fast."""
    kernels, path = execution.runtime_cache(), _kernels_file(key)
    try:
        if not path.is_file() or path.read_bytes() != kernels:
            write_file(path, kernels)
    except OSError as error:
        log.warning("kernels cannot be kept for the next run: %s", error)


def _check_shape(
    execution: Execution, flavour: Flavour, model: ModelPackage, height: int, width: int
) -> None:
    scale = model.manifest.scale
    if execution.restored_shape != (scale * height, scale * width):
        raise EngineError(
            f"{flavour.title} compiled model {model.manifest.name} wrongly",
            f"its output is {execution.restored_shape} for frames of {height}×{width}",
            "choose another engine with --engine, or report this",
        )


def _tenths() -> Callable[[float], None]:
    """Log progress ten times, not a hundred."""
    told = 0

    def on_progress(done: float) -> None:
        nonlocal told
        if int(10 * done) > told:
            told = int(10 * done)
            log.info("compiled: %d %%", 10 * told)

    return on_progress
