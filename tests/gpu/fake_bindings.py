"""TensorRT and the CUDA driver, faked: what is real is every name, signature and type.

`FakeBindings` offers exactly the classes, methods, properties and enum members that were recorded
from the real bindings of one version; a call with a wrong name, number or type of arguments fails
as it would there. Behind it stands no compiler and no GPU, but a network that repeats the middle
frame four times along each axis. `FakeDriver` takes names and arguments from the installed
``cuda.bindings.driver``; its GPU is memory of this process.
"""

# ruff: noqa: ARG005, N802, N815
from __future__ import annotations

import ctypes
import enum
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RECORDINGS = sorted((Path(__file__).parent / "bindings").glob("*.json"))
MAGIC = b"fake engine "
SCALE = 4


def recording_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


class _Parameter:
    def __init__(self, text: str) -> None:
        text, _, default = text.partition(" = ")
        self.name, _, self.type = text.partition(": ")
        self.optional = bool(default)


def _parameters(signature: str) -> list[_Parameter]:
    inside = signature[signature.index("(") + 1 : signature.rindex(") -> ")]
    parts, depth, start = [], 0, 0
    for index, character in enumerate(inside):
        depth += {"[": 1, "(": 1, "<": 1, "]": -1, ")": -1, ">": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append(inside[start:index])
            start = index + 1
    parts.append(inside[start:])
    return [_Parameter(part.strip()) for part in parts][1:]


class FakeBindings:
    """One version of ``tensorrt`` or ``tensorrt_rtx``."""

    def __init__(self, recording: dict[str, Any], gpu: FakeGpu) -> None:
        self.__version__ = str(recording["version"])
        self.gpu = gpu
        self.configs: list[Any] = []
        self.runtime_configs: list[Any] = []
        self.contexts: list[Any] = []
        self.fails = False
        self._behaviour = _behaviours(self)
        for name, record in recording["classes"].items():
            setattr(self, name, self._make(name, record))

    def _make(self, name: str, record: dict[str, Any]) -> Any:
        if "members" in record:
            return enum.IntEnum(name, {member: i for i, member in enumerate(record["members"])})
        bases: tuple[type, ...] = (bytes,) if name == "IHostMemory" else (object,)
        namespace: dict[str, Any] = {
            method: self._method(name, method, signatures)
            for method, signatures in record["methods"].items()
        }
        for known in record["properties"]:
            namespace[known] = self._property(name, known)
        for inner, members in record.get("enums", {}).items():
            namespace[inner] = enum.IntEnum(inner, {m: i for i, m in enumerate(members)})

        def set_known(it: Any, attribute: str, value: object) -> None:
            if not attribute.startswith("_") and attribute not in record["properties"]:
                raise AttributeError(f"{name} has no property {attribute}")
            object.__setattr__(it, attribute, value)

        namespace["__setattr__"] = set_known
        if name == "Dims":
            return tuple
        return type(name, bases, namespace)

    def _method(self, cls: str, method: str, signatures: list[str]) -> Callable[..., Any]:
        overloads = [_parameters(signature) for signature in signatures]

        def call(it: Any, *args: Any, **kwargs: Any) -> Any:
            if not any(self._fits(overload, args, kwargs) for overload in overloads):
                raise TypeError(f"{cls}.{method}{args}{kwargs} fits none of {signatures}")
            behave = self._behaviour.get(f"{cls}.{method}")
            if behave is None:
                raise AssertionError(f"the fake does not know what {cls}.{method} does")
            return behave(it, *args, **kwargs)

        return call

    def _property(self, cls: str, name: str) -> property:
        def read(it: Any) -> Any:
            default = self._behaviour.get(f"{cls}.{name}")
            return it.__dict__.get(f"_{name}", default(it) if default else None)

        return property(read, lambda it, value: it.__dict__.__setitem__(f"_{name}", value))

    def _fits(self, parameters: list[_Parameter], args: Any, kwargs: dict[str, Any]) -> bool:
        names = [parameter.name for parameter in parameters]
        if len(args) > len(names) or any(key not in names[len(args) :] for key in kwargs):
            return False
        given = dict(zip(names, args, strict=False)) | kwargs
        return all(
            self._is_a(given[parameter.name], parameter.type)
            if parameter.name in given
            else parameter.optional
            for parameter in parameters
        )

    def _is_a(self, value: Any, kind: str) -> bool:
        simple: dict[str, Any] = {
            "str": str,
            "bool": bool,
            "tuple": tuple,
            "list": list,
            "Dims": (tuple, list),
            "int": int,
            "typing.SupportsInt": int,
            "buffer": (bytes, bytearray, memoryview),
            "typing_extensions.Buffer": (bytes, bytearray, memoryview),
        }
        expected = simple.get(kind) or getattr(self, kind, None)
        if kind == "ILogger.Severity":
            expected = self.ILogger.Severity  # type: ignore[attr-defined]
        # A type that was not recorded is one that we do not use.
        return expected is not None and isinstance(value, expected)


class FakeGpu:
    """Memory, one stream and graphs, without a GPU."""

    def __init__(self) -> None:
        self.allocated: dict[int, Any] = {}
        self.calls: list[str] = []
        self.refused: set[str] = set()
        self.current = False
        self.recording: list[Callable[[], None]] | None = None
        self._next = 4096

    def allocate(self, thing: Any, address: int | None = None) -> int:
        if address is None:
            address = self._next
            self._next += 4096
        self.allocated[address] = thing
        return address

    def memory(self, address: int) -> Any:
        assert address in self.allocated, "memory that was given back, or never allocated"
        return self.allocated[address]

    def put(self, work: Callable[[], None]) -> None:
        """Execute at once, or record while a graph is being captured."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)


class FakeDriver:
    """``cuda.bindings.driver`` on a `FakeGpu`."""

    def __init__(self, real: Any, gpu: FakeGpu) -> None:
        self._real, self._gpu = real, gpu

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name.startswith("CU"):
            return real
        signature = real.__doc__.splitlines()[0]
        wanted = len(re.findall(r"[^,()]+", signature)) - 1

        def call(*args: Any) -> tuple[Any, ...]:
            if len(args) != wanted:
                raise TypeError(f"{signature} got {args}")
            self._gpu.calls.append(name)
            result = self._real.CUresult
            if name in self._gpu.refused:
                return (result.CUDA_ERROR_NOT_SUPPORTED, None)
            answer = getattr(self, f"_{name}")(*args)
            return (result.CUDA_SUCCESS, *(() if answer is None else (answer,)))

        return call

    def _cuInit(self, flags: int) -> None: ...

    def _cuDeviceGet(self, ordinal: int) -> int:
        return ordinal

    def _cuDeviceGetName(self, length: int, device: int) -> bytes:
        return b"NVIDIA Fake 3060".ljust(length, b"\0")

    def _cuDeviceGetAttribute(self, attribute: Any, device: int) -> int:
        return 8 if attribute.name.endswith("_MAJOR") else 6

    def _cuDeviceTotalMem(self, device: int) -> int:
        return 12 << 30

    def _cuDriverGetVersion(self) -> int:
        return 13020

    def _cuDevicePrimaryCtxRetain(self, device: int) -> int:
        return self._gpu.allocate("context")

    def _cuDevicePrimaryCtxRelease(self, device: int) -> None:
        (context,) = (at for at, what in self._gpu.allocated.items() if what == "context")
        del self._gpu.allocated[context]

    def _cuCtxSetCurrent(self, context: int) -> None:
        self._gpu.current = self._gpu.memory(context) == "context"

    def _cuStreamCreate(self, flags: int) -> int:
        return self._gpu.allocate("stream")

    def _free(self, address: int) -> None:
        self._gpu.memory(address)
        del self._gpu.allocated[address]

    _cuStreamDestroy = _cuMemFree = _cuGraphExecDestroy = _cuGraphDestroy = _free

    def _cuMemHostAlloc(self, nbytes: int, flags: int) -> int:
        buffer = ctypes.create_string_buffer(nbytes)
        return self._gpu.allocate(buffer, ctypes.addressof(buffer))

    _cuMemFreeHost = _free

    def _cuMemAlloc(self, nbytes: int) -> int:
        return self._gpu.allocate(bytearray(nbytes))

    def _cuMemcpyHtoDAsync(self, target: int, source: int, nbytes: int, stream: int) -> None:
        def work() -> None:
            self._gpu.memory(source)
            self._gpu.memory(target)[:] = ctypes.string_at(source, nbytes)

        self._in_stream(work, stream)

    def _cuMemcpyDtoHAsync(self, target: int, source: int, nbytes: int, stream: int) -> None:
        def work() -> None:
            self._gpu.memory(target)
            ctypes.memmove(target, bytes(self._gpu.memory(source)), nbytes)

        self._in_stream(work, stream)

    def _in_stream(self, work: Callable[[], None], stream: int) -> None:
        assert self._gpu.memory(stream) == "stream"
        self._gpu.put(work)

    def _cuStreamSynchronize(self, stream: int) -> None:
        assert self._gpu.recording is None, "waiting is not allowed while a graph is captured"

    def _cuStreamBeginCapture(self, stream: int, mode: object) -> None:
        self._gpu.recording = []

    def _cuStreamEndCapture(self, stream: int) -> int:
        recorded, self._gpu.recording = self._gpu.recording, None
        return self._gpu.allocate(recorded)

    def _cuGraphInstantiate(self, graph: int, flags: int) -> int:
        return self._gpu.allocate(self._gpu.memory(graph))

    def _cuGraphLaunch(self, graph: int, stream: int) -> None:
        for work in self._gpu.memory(graph):
            work()


def _behaviours(fake: Any) -> dict[str, Callable[..., Any]]:
    """What the calls that we make do; any other call fails."""

    def new(name: str, **values: Any) -> Any:
        cls = getattr(fake, name)
        it = cls.__new__(cls)
        it.__dict__.update(values)
        return it

    def create_network(it: Any, flags: int = 0) -> Any:
        return new("INetworkDefinition", _flags=flags, _parsed=False)

    def parse(it: Any, model: bytes, path: str | None = None) -> bool:
        it._network._parsed = model != b"broken"
        it._errors = [] if it._network._parsed else ["the fake parser refuses"]
        return bool(it._network._parsed)

    def tensor(name: str) -> Any:
        return new("ITensor", _name=name, _dtype=fake.DataType.FLOAT)

    def layer(it: Any, index: int) -> Any:
        return new("ILayer", _type=fake.LayerType.CONVOLUTION)

    def create_config(it: Any) -> Any:
        fake.configs.append(new("IBuilderConfig", _cleared=[], _profiles=[], _sms=[]))
        return fake.configs[-1]

    def set_compute_capability(it: Any, compute_capability: Any, index: int) -> bool:
        assert index < it.num_compute_capabilities
        it._sms.append(compute_capability)
        return True

    def build(it: Any, network: Any, config: Any) -> Any:
        monitor = config.progress_monitor
        monitor.phase_start("all", None, 2)
        monitor.phase_start("a part", "all", 4)
        for step in range(4):
            assert monitor.step_complete("a part", step)
        monitor.phase_finish("a part")
        assert monitor.step_complete("all", 0)
        monitor.phase_finish("all")
        if fake.fails:
            it._logger.log(fake.ILogger.Severity.ERROR, "the fake builder\nrefuses")
            return None
        memory = fake.IHostMemory(MAGIC + json.dumps(config._profiles[0]._shape).encode())
        memory._nbytes = len(memory)
        return memory

    def deserialize(it: Any, serialized_engine: bytes) -> Any:
        if not serialized_engine.startswith(MAGIC):
            it._logger.log(fake.ILogger.Severity.ERROR, "not an engine of this library")
            return None
        shape = tuple(json.loads(serialized_engine.removeprefix(MAGIC)))
        return new("ICudaEngine", _shape=shape, _num_io_tensors=2)

    def create_context(it: Any, *args: Any, **kwargs: Any) -> Any:
        fake.contexts.append(new("IExecutionContext", _shape=it._shape, _at={}))
        return fake.contexts[-1]

    def create_runtime_config(it: Any) -> Any:
        fake.runtime_configs.append(new("IRuntimeConfig"))
        return fake.runtime_configs[-1]

    def set_cache(it: Any, cache: Any = None) -> bool:
        it.__dict__["_set"] = cache
        return True

    def output_shape(it: Any, name: str) -> tuple[int, ...]:
        height, width = it._shape[2:]
        return (1, 1, SCALE * height, SCALE * width) if name == "restored" else it._shape

    def execute(it: Any, stream_handle: int) -> bool:
        if fake.fails:
            return False

        def work() -> None:
            window = np.frombuffer(fake.gpu.memory(it._at["window"]), np.float32)
            middle = window.reshape(it._shape)[0, it._shape[1] // 2]
            restored = middle.repeat(SCALE, 0).repeat(SCALE, 1)
            fake.gpu.memory(it._at["restored"])[:] = restored.tobytes()

        assert fake.gpu.current, "no CUDA context in this thread"
        assert fake.gpu.memory(stream_handle) == "stream"
        fake.gpu.put(work)
        return True

    def remember(name: str) -> Callable[..., None]:
        return lambda it, value: it.__dict__.__setitem__(name, value)

    io_names = ("window", "restored")
    return {
        "ILogger.__init__": lambda it: None,
        "IProgressMonitor.__init__": lambda it: None,
        "Builder.__init__": remember("_logger"),
        "Builder.create_network": create_network,
        "Builder.create_builder_config": create_config,
        "Builder.create_optimization_profile": lambda it: new("IOptimizationProfile"),
        "Builder.build_serialized_network": build,
        "INetworkDefinition.num_inputs": lambda it: 1,
        "INetworkDefinition.num_outputs": lambda it: 1,
        "INetworkDefinition.num_layers": lambda it: 3,
        "INetworkDefinition.get_input": lambda it, index: tensor("window"),
        "INetworkDefinition.get_output": lambda it, index: tensor("restored"),
        "INetworkDefinition.get_layer": layer,
        "ILayer.get_output_type": lambda it, index: fake.DataType.HALF,
        "OnnxParser.__init__": lambda it, network, logger: it.__dict__.update(_network=network),
        "OnnxParser.parse": parse,
        "OnnxParser.num_errors": lambda it: len(it._errors),
        "OnnxParser.get_error": lambda it, index: new("ParserError", _text=it._errors[index]),
        "ParserError.desc": lambda it: it._text,
        "IBuilderConfig.clear_flag": lambda it, flag: it._cleared.append(flag),
        "IBuilderConfig.add_optimization_profile": lambda it, p: it._profiles.append(p) or 0,
        "IBuilderConfig.set_compute_capability": set_compute_capability,
        "IBuilderConfig.create_timing_cache": lambda it, kept: new("ITimingCache", _kept=kept),
        "IBuilderConfig.set_timing_cache": lambda it, c, ignore: c._kept in (b"", b"timed"),
        "ITimingCache.serialize": lambda it: fake.IHostMemory(b"timed"),
        "IOptimizationProfile.set_shape": lambda it, name, low, best, high: it.__dict__.update(
            _shape=list(best), _fixed=low == best == high
        ),
        "Runtime.__init__": remember("_logger"),
        "Runtime.deserialize_cuda_engine": deserialize,
        "ICudaEngine.create_execution_context": create_context,
        "ICudaEngine.create_runtime_config": create_runtime_config,
        "ICudaEngine.get_tensor_name": lambda it, index: io_names[index],
        "ICudaEngine.get_tensor_mode": lambda it, name: (
            fake.TensorIOMode.INPUT if name == "window" else fake.TensorIOMode.OUTPUT
        ),
        "ICudaEngine.get_tensor_dtype": lambda it, name: fake.DataType.FLOAT,
        "IRuntimeConfig.create_runtime_cache": lambda it: new("IRuntimeCache", _kernels=b"new"),
        "IRuntimeConfig.set_runtime_cache": set_cache,
        "IRuntimeCache.deserialize": lambda it, blob: bool(it.__dict__.update(_kernels=blob)),
        "IRuntimeCache.serialize": lambda it: fake.IHostMemory(it._kernels),
        "IExecutionContext.set_input_shape": lambda it, name, shape: tuple(shape) == it._shape,
        "IExecutionContext.get_tensor_shape": output_shape,
        "IExecutionContext.set_tensor_address": lambda it, name, memory: (
            not it._at.update({name: memory})
        ),
        "IExecutionContext.execute_async_v3": execute,
    }
