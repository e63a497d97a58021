"""Real engines, built by TensorRT-RTX on a machine without a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pssr_live.engine.gpu import Gpu
from pssr_live.engine.tile import plan_tiles
from pssr_live.engine.trt import compile as under_test
from pssr_live.engine.trt.bindings import RTX, TENSORRT
from pssr_live.engine.trt.build import build
from pssr_live.engine.trt.cache import EngineCache
from pssr_live.engine.trt.compile import Compiled, compile_engine, parse_size, parse_sm, summary
from pssr_live.engine.trt.network import Request
from pssr_live.engine.trt.prepare import compiled_engines, key_for
from pssr_live.errors import EngineError, ModelError, PssrLiveError, StorageError, UsageError
from pssr_live.model import ModelPackage, Tiling, find_model
from pssr_live_models.half_precision import half_precision

rtx = pytest.importorskip("tensorrt_rtx", reason='needs pip install "pssr-live[tensorrt-rtx]"')

SIZE = (32, 48)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSR_LIVE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model() -> ModelPackage:
    package = find_model("neuron_mf")
    return replace(package, variants={"fp16": half_precision(package.network)})


@pytest.fixture(scope="module")
def carried(model: ModelPackage, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """An engine in a folder of its own, as ``--out`` writes it."""
    folder = tmp_path_factory.mktemp("for the microscope")
    return compile_engine(
        model, "tensorrt-rtx", size=SIZE, sm=(86, 89), precision="fp16", out=folder
    )


def no_gpu() -> Gpu:
    raise EngineError("no NVIDIA GPU can be used", "this machine has no NVIDIA driver", "…")


def request_for(sm: int = 86) -> Request:
    return Request(engine="tensorrt-rtx", shape=(1, 5, *SIZE), sm=(sm,), out="")


def line_of(error: PssrLiveError) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "FLOAT"), ("fp16", "HALF")])
def test_an_engine_computes_in_the_types_of_its_file(
    model: ModelPackage, precision: str, dtype: str
) -> None:
    told: list[float] = []
    compiled = compile_engine(
        model,
        "tensorrt-rtx",
        size=SIZE,
        sm=(86, 89),
        precision=precision,
        on_progress=told.append,
    )
    built = compiled.built
    assert built.precision == precision
    convolutions = {name for name in built.layers if name.startswith("CONVOLUTION")}
    assert convolutions == {f"CONVOLUTION {dtype}"}
    assert compiled.path.stat().st_size == built.nbytes > 100_000
    assert built.version == rtx.__version__
    assert told == sorted(told)
    assert told[-1] == 1
    other = {"FLOAT": "HALF", "HALF": "FLOAT"}[dtype]
    casts = {name for name in built.layers if name.endswith(other)}
    assert casts <= {"CAST FLOAT"}  # at the end, where fp32 is promised


def test_a_run_finds_what_was_carried_into_its_cache(
    model: ModelPackage, carried: Compiled
) -> None:
    folder = carried.path.parent
    assert {path.suffix for path in folder.iterdir()} == {".engine", ".json"}
    for sm, found in ((86, True), (89, True), (120, False)):
        gpu = Gpu(name="any", sm=sm, driver="580.1", memory_bytes=1)
        network = model.network_for("fp16")
        key = key_for(RTX, rtx.__version__, network, carried.key.shape, "fp16", gpu)
        assert (EngineCache(folder).find("neuron_mf", key) is not None) == found
    assert not compiled_engines().folder.exists()


def test_the_table_says_what_was_built(carried: Compiled) -> None:
    lines = dict(line.split(":", 1) for line in summary(carried).splitlines())
    said = {name: value.strip() for name, value in lines.items()}
    assert said["engine"] == f"TensorRT-RTX {rtx.__version__}"
    assert said["built for"] == "SM 86, SM 89; any system"
    assert said["frames"] == "32×48 pixels, 5 at a time"
    assert said["precision"] == "fp16 (asked: fp16)"
    assert "convolution half" in said["layers"]
    assert said["engine file"] == f"{carried.path.stat().st_size:,} bytes"
    assert said["written to"] == str(carried.path)


def test_for_frames_in_tiles_the_engine_is_for_one_tile(model: ModelPackage) -> None:
    tiling = Tiling(size=64, overlap=8)
    tiled = replace(model, manifest=msgspec.structs.replace(model.manifest, tiling=tiling))
    size = plan_tiles(tiled.manifest, 120).size
    compiled = compile_engine(tiled, "tensorrt-rtx", size=(120, 40), sm=(86,))
    assert compiled.key.shape[2:] == (size, 40)
    assert size < 120


@pytest.mark.parametrize("sm", [90, 99])
def test_a_gpu_that_it_cannot_build_for_is_refused(model: ModelPackage, sm: int) -> None:
    with pytest.raises(EngineError, match=f"cannot build for SM {sm}: it knows SM 75") as caught:
        compile_engine(model, "tensorrt-rtx", size=SIZE, sm=(sm,))
    assert "such as 86 for 8.6" in line_of(caught.value)
    assert not list(compiled_engines().folder.glob("*"))


@pytest.mark.parametrize(
    ("content", "why"), [(b"\xff" * 99, ".*ONNX"), (b"", "its input and output are missing")]
)
def test_what_is_no_network_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(EngineError, match=f"cannot build the network: {why}") as caught:
        build(request_for(), content, lambda _: None)
    line_of(caught.value)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; print('warming up'); os.abort()", r"its builder crashed \(exit -?\d+\)"),
        ("import sys; sys.exit('out of memory')", r"crashed \(exit 1\): out of memory"),
        ("pass", r"its builder crashed \(exit 0\)"),
    ],
)
def test_a_builder_that_crashes_is_one_line(model: ModelPackage, code: str, why: str) -> None:
    with pytest.raises(EngineError, match=why) as caught:
        build(request_for(), model.network, lambda _: None, [sys.executable, "-c", code])
    assert "TensorRT-RTX cannot build the network" in line_of(caught.value)


def test_without_a_gpu_it_must_be_said_for_which_to_build(
    model: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "find_gpu", no_gpu)
    with pytest.raises(UsageError, match="such as --sm 86,89") as caught:
        compile_engine(model, "tensorrt-rtx", size=SIZE)
    line_of(caught.value)
    monkeypatch.setattr(under_test, "require", lambda _: None)
    with pytest.raises(EngineError, match="no NVIDIA GPU can be used"):
        compile_engine(model, "tensorrt", size=SIZE)


def test_what_makes_no_sense_is_refused(model: ModelPackage, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--engine openvino: .*tensorrt, tensorrt-rtx"):
        compile_engine(model, "openvino", size=SIZE)
    with pytest.raises(UsageError, match="--sm: TensorRT measures its kernels"):
        compile_engine(model, "tensorrt", size=SIZE, sm=(86,))
    with pytest.raises(UsageError, match="TensorRT-RTX cannot run in int8"):
        compile_engine(model, "tensorrt-rtx", size=SIZE, sm=(86,), precision="int8")
    with pytest.raises(ModelError, match="cannot restore frames of 2×48"):
        compile_engine(model, "tensorrt-rtx", size=(2, 48), sm=(86,))
    bare = replace(model, variants={})
    with pytest.raises(ModelError, match="cannot run in fp16"):
        compile_engine(bare, "tensorrt-rtx", size=SIZE, sm=(86,), precision="fp16")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="choose another folder with --out"):
        compile_engine(model, "tensorrt-rtx", size=SIZE, sm=(86,), out=tmp_path / "file")


@pytest.mark.parametrize("text", ["86,89", "8.6,8.9", " 89, 86 ,86"])
def test_compute_capabilities_are_read(text: str) -> None:
    assert parse_sm(text) == (86, 89)


@pytest.mark.parametrize("text", ["", "RTX", "86;89", "86,", "-86", "0"])
def test_what_is_no_compute_capability_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="such as --sm 86,89"):
        parse_sm(text)


def test_sizes_are_read() -> None:
    assert parse_size("440x512") == parse_size("440X512") == parse_size("440×512") == (440, 512)
    for wrong in ("440", "x440", "440x", "axb", "440x440x5"):
        with pytest.raises(UsageError, match="such as 440x440"):
            parse_size(wrong)


def test_only_rtx_builds_for_gpus_that_are_not_here() -> None:
    assert (RTX.portable, TENSORRT.portable) == (True, False)
