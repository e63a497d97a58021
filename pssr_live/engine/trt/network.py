"""Build one engine, in a process that may crash; `build` starts it and watches.

``python -m pssr_live.engine.trt.network`` reads a request (one line of JSON) and the ONNX network
from stdin, writes the engine to a file, and prints one JSON object a line: progress, then what was
built or why not.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import Any

import msgspec
from msgspec import Struct

from pssr_live.engine.trt.bindings import FLAVOURS, Messages, load
from pssr_live.engine.trt.whole_file import write_file
from pssr_live.errors import EngineError

__all__ = ["FLAGS", "INPUT", "Built", "Failed", "Progress", "Request", "build_engine"]

INPUT, OUTPUT = "window", "restored"
FLAGS = ("strongly-typed", "no-tf32", "one-stream")
"""What every engine is built with; a part of its key in the cache."""

_COMPUTING = {"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"}
_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}


class Request(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to build.

    Attributes
    ----------
    engine : str
        ``tensorrt`` or ``tensorrt-rtx``.
    shape : tuple of int
        Of the one window that the engine takes: 1, frames, H, W.
    sm : tuple of int
        Compute capabilities to build for (TensorRT-RTX); TensorRT builds for the GPU that is there.
    out : str
        File to write the engine to.
    timing_cache : str or None
        File in which TensorRT keeps what it measured, for the next build.
    """

    engine: str
    shape: tuple[int, int, int, int]
    sm: tuple[int, ...]
    out: str
    timing_cache: str | None = None


class Progress(Struct, frozen=True, tag="progress"):
    """How far the build is, 0 to 1."""

    done: float


class Built(Struct, frozen=True, tag="built", kw_only=True):
    """What was built.

    Attributes
    ----------
    version : str
        Version of the library.
    nbytes : int
        Size of the engine.
    build_ms : float
        Time it took, ms.
    precision : str
        Arithmetic of the layers that do the work, by their share, as the network's types say; in a
        strongly typed network the library may not change them.
    layers : dict
        How many layers of each kind and output type, as ``CONVOLUTION HALF``.
    """

    version: str
    nbytes: int
    build_ms: float
    precision: str
    layers: dict[str, int]


class Failed(Struct, frozen=True, tag="failed"):
    """Why nothing was built; the three parts of an error."""

    what: str
    why: str
    do: str


def build_engine(
    trt: Any, request: Request, network: bytes, on_progress: Callable[[float], None]
) -> Built:
    """Parse, inspect and build.

    Parameters
    ----------
    trt : module
        ``tensorrt`` or ``tensorrt_rtx``.
    request : Request
        What to build.
    network : bytes
        ONNX; the precision is in it.
    on_progress : callable
        Called with 0 to 1.

    Returns
    -------
    Built

    Raises
    ------
    EngineError
        The library refuses the network, its types or the compute capabilities.
    """
    title = FLAVOURS[request.engine].title
    messages = Messages(trt)
    builder = trt.Builder(messages.logger)
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    definition = builder.create_network(strongly_typed)
    # The parser works in the network's memory: both live until the build has ended.
    parser = trt.OnnxParser(definition, messages.logger)
    if not parser.parse(network):
        said = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise _refusal(title, said[0] if said else messages.why("it does not say why"))
    _check_ends(trt, definition, title)
    layers = _layers(definition)
    config = _configure(trt, builder, request, title)
    monitor = _monitor(trt, on_progress)
    config.progress_monitor = monitor
    timing = _read_timing_cache(config, request)
    started = time.perf_counter()
    serialized = builder.build_serialized_network(definition, config)
    build_ms = (time.perf_counter() - started) * 1e3
    if serialized is None:
        raise _refusal(title, messages.why("it does not say why"))
    Path(request.out).write_bytes(serialized)
    if request.timing_cache is not None:
        _keep_timings(Path(request.timing_cache), bytes(timing.serialize()))
    return Built(
        version=str(trt.__version__),
        nbytes=int(serialized.nbytes),
        build_ms=build_ms,
        precision=_precision(layers),
        layers={f"{kind} {dtype}": count for (kind, dtype), count in layers.most_common()},
    )


def _configure(trt: Any, builder: Any, request: Request, title: str) -> Any:
    config = builder.create_builder_config()
    # TF32 keeps ten bits of a number's fraction: not what fp32 says.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.max_aux_streams = 0
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, request.shape, request.shape, request.shape)
    config.add_optimization_profile(profile)
    if FLAVOURS[request.engine].portable:
        known = {
            name.removeprefix("SM"): value
            for name, value in trt.ComputeCapability.__members__.items()
            if name.startswith("SM")
        }
        for sm in request.sm:
            if str(sm) not in known:
                raise EngineError(
                    f"{title} {trt.__version__} cannot build for SM {sm}",
                    f"it knows SM {', '.join(known)}",
                    "take your GPU's compute capability without the dot, such as 86 for 8.6",
                )
        config.num_compute_capabilities = len(request.sm)
        for index, sm in enumerate(request.sm):
            config.set_compute_capability(known[str(sm)], index)
    return config


def _check_ends(trt: Any, definition: Any, title: str) -> None:
    ends = [
        (tensor.name, tensor.dtype)
        for tensor in (
            *(definition.get_input(index) for index in range(definition.num_inputs)),
            *(definition.get_output(index) for index in range(definition.num_outputs)),
        )
    ]
    if ends != [(INPUT, trt.DataType.FLOAT), (OUTPUT, trt.DataType.FLOAT)]:
        found = ", ".join(f"{name} {dtype}" for name, dtype in ends)
        raise _refusal(title, f"its input and output are {found or 'missing'}")


def _layers(definition: Any) -> Counter[tuple[str, str]]:
    """Count the layers by kind and by the type of what they give."""
    layers = (definition.get_layer(index) for index in range(definition.num_layers))
    return Counter((layer.type.name, layer.get_output_type(0).name) for layer in layers)


def _precision(layers: Counter[tuple[str, str]]) -> str:
    computing: Counter[str] = Counter()
    for (kind, dtype), count in layers.items():
        if kind in _COMPUTING:
            computing[_NAMES.get(dtype, dtype.lower())] += count
    return "+".join(name for name, _ in computing.most_common()) or "unknown"


def _read_timing_cache(config: Any, request: Request) -> Any:
    if request.timing_cache is None:
        return None
    try:
        kept = Path(request.timing_cache).read_bytes()
    except OSError:
        kept = b""
    timing = config.create_timing_cache(kept)
    # A cache of another GPU or version is not taken; the build then measures for itself.
    if not config.set_timing_cache(timing, False):
        timing = config.create_timing_cache(b"")
        config.set_timing_cache(timing, False)
    return timing


def _keep_timings(path: Path, content: bytes) -> None:
    try:
        write_file(path, content)
    except OSError as error:  # the next build measures again
        sys.stderr.write(f"timings cannot be kept: {error}\n")


def _monitor(trt: Any, on_progress: Callable[[float], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases = Phases(on_progress)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._phases.step(phase_name, step + 1)
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._phases.finish(phase_name)

    return Monitor()


class Phases:
    """One number out of the library's nested phases.

    Parameters
    ----------
    on_progress : callable
        Called with 0 to 1, each time it has grown by a hundredth.
    """

    def __init__(self, on_progress: Callable[[float], None]) -> None:
        self._on_progress = on_progress
        self._steps: dict[str, tuple[str | None, int, int]] = {}
        self._told = -1
        # The library builds in several threads, and reports from each.
        self._lock = threading.RLock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Note that a phase begins, inside the current step of its parent."""
        with self._lock:
            self._steps[name] = (parent, 0, max(int(steps), 1))

    def step(self, name: str, done: int) -> None:
        """Note that so many steps of a phase are done."""
        with self._lock:
            if name in self._steps:
                parent, _, steps = self._steps[name]
                self._steps[name] = (parent, min(done, steps), steps)
                self._tell()

    def finish(self, name: str) -> None:
        """Note that a phase ends."""
        with self._lock:
            if name in self._steps and self._steps[name][0] is None:
                self.step(name, self._steps[name][2])
            self._steps.pop(name, None)

    def _tell(self) -> None:
        roots = [name for name, (parent, _, _) in self._steps.items() if parent is None]
        done = int(100 * max((self._done(name) for name in roots), default=0.0))
        if done > self._told:
            self._told = done
            self._on_progress(done / 100)

    def _done(self, name: str) -> float:
        _, done, steps = self._steps[name]
        inside = [self._done(child) for child, (up, _, _) in self._steps.items() if up == name]
        return min(1.0, (done + max(inside, default=0.0)) / steps)


def _refusal(title: str, why: str) -> EngineError:
    return EngineError(
        f"{title} cannot build the network",
        shorten(why, 300),
        "choose another engine or precision, or report this",
    )


def _main() -> int:
    def say(message: Progress | Built | Failed) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
        sys.stdout.buffer.flush()

    try:
        request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
        trt = load(FLAVOURS[request.engine])
        network = sys.stdin.buffer.read()
        say(build_engine(trt, request, network, lambda done: say(Progress(done))))
    except EngineError as error:
        say(Failed(error.what, error.why, error.do))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
