"""``pssr-live models compile``: build an engine before it is needed, also for other machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pssr_live.engine.gpu import Gpu, find_gpu
from pssr_live.engine.tile import plan_tiles
from pssr_live.engine.trt.bindings import FLAVOURS, PRECISIONS, Flavour, load, require
from pssr_live.engine.trt.build import build
from pssr_live.engine.trt.cache import EngineCache, EngineKey
from pssr_live.engine.trt.network import Built, Request
from pssr_live.engine.trt.prepare import compiled_engines, key_for, timings_file
from pssr_live.errors import EngineError, StorageError, UsageError
from pssr_live.model import ModelPackage

__all__ = ["Compiled", "compile_engine", "parse_size", "parse_sm", "summary"]


@dataclass(frozen=True, slots=True)
class Compiled:
    """An engine that has been built and kept.

    Attributes
    ----------
    path : Path
        Its file; what it is stands beside it (``.json``).
    key : EngineKey
        All that it depends on.
    built : Built
        What the library says about it.
    network_bytes : int
        Size of the ONNX file that it was built from.
    """

    path: Path
    key: EngineKey
    built: Built
    network_bytes: int


def parse_sm(text: str) -> tuple[int, ...]:
    """Read ``86,89`` (or ``8.6,8.9``).

    Raises
    ------
    UsageError
        It is no list of compute capabilities.
    """
    try:
        found = tuple(int(part.strip().replace(".", "")) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise UsageError(
            f"--sm {text}",
            "it is no list of compute capabilities",
            "write them without dots, such as --sm 86,89",
        )
    return tuple(sorted(set(found)))


def parse_size(text: str) -> tuple[int, int]:
    """Read ``440x440``: height and width of the raw frames.

    Raises
    ------
    UsageError
        It is no size.
    """
    height, times, width = text.lower().replace("×", "x").partition("x")
    if not (times and height.strip().isdigit() and width.strip().isdigit()):
        raise UsageError(f"--size {text}", "it is no size", "write HEIGHTxWIDTH, such as 440x440")
    return int(height), int(width)


def compile_engine(
    model: ModelPackage,
    engine: str,
    *,
    size: tuple[int, int],
    precision: str = "fp32",
    sm: tuple[int, ...] = (),
    out: Path | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Compiled:
    """Build an engine and put it where a run finds it.

    For frames that the model restores in tiles, the engine is for one tile.

    Parameters
    ----------
    model : ModelPackage
        What to build.
    engine : str
        ``tensorrt-rtx``, for any GPU; or ``tensorrt``, for the one in this machine.
    size : tuple of int
        Height and width of the raw frames.
    precision : str
        ``fp32`` or ``fp16``: which of the package's networks to build.
    sm : tuple of int
        Compute capabilities to build for (TensorRT-RTX); empty for that of this machine's GPU.
    out : Path, optional
        Folder to write to, instead of the cache of this machine.
    on_progress : callable
        Called with 0 to 1.

    Returns
    -------
    Compiled

    Raises
    ------
    UsageError
        The engine is not compiled ahead of time, or not for a list of GPUs.
    EngineError
        The library is missing or refuses, or there is no GPU where one is needed.
    ModelError
        The package has no network for this precision, or it does not take this size.
    StorageError
        The engine cannot be written.
    """
    flavour = _flavour(engine, sm)
    if precision not in PRECISIONS:
        raise UsageError(*flavour.refusal(precision))
    require(flavour)
    shape = _input_shape(model, size)
    network = model.network_for(precision)
    target: Gpu | tuple[int, ...] = sm or _this_gpu(flavour)
    version = str(load(flavour).__version__)
    key = key_for(flavour, version, network, shape, precision, target)
    content, built = build(_request(flavour, key), network, on_progress)
    cache = compiled_engines() if out is None else EngineCache(out)
    path = _keep(cache, model.manifest.name, key, content, built)
    return Compiled(path, key, built, len(network))


def _input_shape(model: ModelPackage, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return what the network is given of frames of a size: a window, or a tile of it."""
    model.check_size(*size)
    height, width = (plan_tiles(model.manifest, side).size for side in size)
    return 1, model.manifest.window_length, height, width


def _request(flavour: Flavour, key: EngineKey) -> Request:
    timings = None if flavour.portable else str(timings_file(compiled_engines(), key))
    return Request(engine=flavour.name, shape=key.shape, sm=key.sm, out="", timing_cache=timings)


def _keep(cache: EngineCache, name: str, key: EngineKey, content: bytes, built: Built) -> Path:
    try:
        return cache.keep(name, key, content, built)
    except OSError as error:
        raise StorageError(
            f"the engine in {cache.folder}", str(error), "choose another folder with --out"
        ) from error


def summary(compiled: Compiled) -> str:
    """Return what was built, for people: a line for each property."""
    key, built = compiled.key, compiled.built
    targets = ", ".join(f"SM {sm}" for sm in key.sm)
    where = f"{key.gpu}, driver {key.driver}, {key.system}" if key.gpu else "any system"
    rows = {
        "engine": f"{FLAVOURS[key.engine].title} {key.version}",
        "built for": f"{targets}; {where}",
        "frames": f"{key.shape[2]}×{key.shape[3]} pixels, {key.shape[1]} at a time",
        "precision": f"{built.precision} (asked: {key.precision})",
        "layers": _layers(built),
        "network": f"{compiled.network_bytes:,} bytes",
        "engine file": f"{built.nbytes:,} bytes",
        "built in": f"{built.build_ms / 1e3:.1f} s",
        "written to": str(compiled.path),
    }
    return "\n".join(f"{name + ':':<14}{value}" for name, value in rows.items())


def _layers(built: Built) -> str:
    """Name the layers that work on pixels; the others work out sizes, once."""
    pixels = [
        f"{count} {name.lower()}" for name, count in built.layers.items() if "INT64" not in name
    ]
    sizes = sum(count for name, count in built.layers.items() if "INT64" in name)
    return f"{', '.join(pixels)}; {sizes} for sizes"


def _flavour(engine: str, sm: tuple[int, ...]) -> Flavour:
    if engine not in FLAVOURS:
        raise UsageError(
            f"--engine {engine}",
            "only TensorRT's engines are compiled ahead of a run",
            f"choose one of {', '.join(FLAVOURS)}",
        )
    flavour = FLAVOURS[engine]
    if sm and not flavour.portable:
        raise UsageError(
            "--sm",
            f"{flavour.title} measures its kernels on the GPU that it builds for",
            "leave it out on that machine, or use --engine tensorrt-rtx",
        )
    return flavour


def _this_gpu(flavour: Flavour) -> Gpu:
    try:
        return find_gpu()
    except EngineError as error:
        if not flavour.portable:
            raise
        raise UsageError(
            f"--engine {flavour.name}",
            f"there is no GPU here to take the compute capability from ({error.why})",
            "say for which GPUs to build, such as --sm 86,89",
        ) from error
