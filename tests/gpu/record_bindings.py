"""Record the names and signatures of TensorRT's Python bindings, without a GPU or its libraries.

    python tests/gpu/record_bindings.py tensorrt_cu13_bindings-11.4.0.106-cp311-….whl > FILE.json
    python tests/gpu/record_bindings.py tensorrt_rtx > FILE.json

The wheels (``pip download --no-deps tensorrt-cu13-bindings==11.4.0.106``) hold one extension module
that needs NVIDIA's libraries to be loaded, not to be read: empty libraries with the same nine
symbols stand in for them. Linux with a C compiler; the wheel must be for the running Python.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

CLASSES = (
    "Builder",
    "BuilderFlag",
    "ComputeCapability",
    "CudaGraphStrategy",
    "DataType",
    "Dims",
    "DynamicShapesKernelSpecializationStrategy",
    "EngineInspector",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "IRuntimeCache",
    "IRuntimeConfig",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "LayerType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "Runtime",
    "TensorIOMode",
)
"""What an engine of ours has to do with; also what only newer versions have."""

SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


def recorded(module: Any) -> dict[str, dict[str, Any]]:
    """Read classes, methods with their signatures, properties and enum members."""
    return {name: _class(getattr(module, name)) for name in CLASSES if hasattr(module, name)}


def _class(cls: Any) -> dict[str, Any]:
    if hasattr(cls, "__members__"):
        return {"members": sorted(cls.__members__)}
    found: dict[str, Any] = {"methods": {}, "properties": []}
    for name in sorted(dir(cls)):
        # Networks are parsed here, not put together layer by layer.
        if (name.startswith("_") and name != "__init__") or name.startswith("add_plugin"):
            continue
        if cls.__name__ == "INetworkDefinition" and name.startswith("add_"):
            continue
        member = getattr(cls, name)
        if isinstance(member, property):
            found["properties"].append(name)
        elif isinstance(member, type) and hasattr(member, "__members__"):
            found.setdefault("enums", {})[name] = sorted(member.__members__)
        elif callable(member) and (signatures := _signatures(member.__doc__ or "", name)):
            found["methods"][name] = signatures
    return found


def _signatures(doc: str, name: str) -> list[str]:
    """Find the lines that pybind11 puts first into a docstring; one for each overload."""
    lines = [re.sub(r"^\d+\. ", "", line.strip()) for line in doc.splitlines()]
    lines = [line for line in lines if line.startswith(f"{name}(") and " -> " in line]
    without_modules = [re.sub(r"\b(tensorrt\w*\.)+", "", line) for line in lines]
    return [re.sub(r"\bnvinfer1::|\bnvonnxparser::", "", line) for line in without_modules]


def _from_wheel(wheel: Path, folder: Path) -> ModuleType:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    extension = next(folder.rglob("tensorrt.so"))
    needed = subprocess.run(
        ["readelf", "-d", extension], capture_output=True, text=True, check=True
    )
    source = folder / "empty.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    for name in re.findall(r"\[(libnv[^\]]+)\]", needed.stdout):
        out = folder / name
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", out, f"-Wl,-soname,{name}", source], check=True
        )
        ctypes.CDLL(str(out), mode=ctypes.RTLD_GLOBAL)
    spec = importlib.util.spec_from_file_location("tensorrt", extension)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{extension} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(source: str) -> None:
    """Print what one wheel, or one installed module, offers."""
    if source.endswith(".whl"):
        name, version = Path(source).name.split("-")[:2]
        with tempfile.TemporaryDirectory() as folder:
            found = recorded(_from_wheel(Path(source), Path(folder)))
    else:
        module = importlib.import_module(source)
        name, version = source, module.__version__
        found = recorded(module)
    answer = {"from": f"{name} {version} (PyPI)", "version": version, "classes": found}
    sys.stdout.write(json.dumps(answer, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
