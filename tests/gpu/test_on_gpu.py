"""The engines on a real GPU: ``pytest -m gpu``. What is compiled once is kept for all tests."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pssr_live.engine import select
from pssr_live.engine.base import Engine
from pssr_live.engine.gate import FLOORS_DB
from pssr_live.engine.gpu import find_gpu
from pssr_live.engine.openvino import OpenVINOEngine
from pssr_live.errors import EngineError
from pssr_live.model import ModelPackage, find_model
from pssr_live.testing import EngineContract
from pssr_live_models.half_precision import half_precision

pytestmark = pytest.mark.gpu

LIBRARIES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx", "cuda": "onnxruntime"}
HEIGHT, WIDTH = 440, 440


def make(name: str, precision: str = "fp32") -> Any:
    pytest.importorskip(LIBRARIES[name])
    if name not in select.AUTO_ORDER:
        pytest.skip(f"there is no engine {name}")
    try:
        return select._make(name, precision)
    except EngineError as error:
        pytest.skip(str(error))


def shipped() -> ModelPackage:
    model = find_model("neuron_mf")
    return replace(model, variants={**model.variants, "fp16": half_precision(model.network)})


class OnGpu(EngineContract):
    name: str

    def make(self) -> Engine:
        engine: Engine = make(self.name)
        return engine

    def model(self) -> ModelPackage:
        return shipped()


class TestTensorRT(OnGpu):
    name = "tensorrt"


class TestTensorRTRTX(OnGpu):
    name = "tensorrt-rtx"


class TestCUDA(OnGpu):
    name = "cuda"


def window(model: ModelPackage, seed: int = 0) -> Any:
    shape = (1, model.manifest.window_length, HEIGHT, WIDTH)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def on_processor(values: Any) -> Any:
    engine = OpenVINOEngine("fp32")
    engine.prepare(shipped(), HEIGHT, WIDTH)
    restored = engine.run(values).copy()
    engine.close()
    return restored


COMPILED = pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])


@COMPILED
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_agrees_with_the_processor(name: str, precision: str) -> None:
    model = shipped()
    engine = make(name, precision)
    try:
        report = engine.prepare(model, HEIGHT, WIDTH)
        values = window(model)
        restored = engine.run(values).copy()
    finally:
        engine.close()
    exact = on_processor(values)
    psnr = 10 * np.log10(np.ptp(exact) ** 2 / np.mean((restored - exact) ** 2))
    assert psnr > FLOORS_DB[precision]
    assert report.precision == precision
    assert find_gpu().name in report.device


@COMPILED
def test_the_second_start_finds_what_the_first_compiled(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSSR_LIVE_CACHE_DIR", str(tmp_path))
    reports = []
    for _ in range(2):
        engine = make(name)
        reports.append(engine.prepare(shipped(), 64, 64))
        engine.close()
    assert [report.cached for report in reports] == [False, True]
    assert reports[1].prepare_ms < reports[0].prepare_ms


@COMPILED
def test_a_damaged_engine_is_compiled_anew(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSSR_LIVE_CACHE_DIR", str(tmp_path))
    for cached in (False, False, True):
        engine = make(name)
        assert engine.prepare(shipped(), 64, 64).cached is cached
        engine.close()
        if not (tmp_path / "damaged").exists():
            (path,) = (tmp_path / "engines").glob("*.engine")
            path.write_bytes(path.read_bytes()[:-1])
            (tmp_path / "damaged").touch()


@COMPILED
def test_a_cuda_graph_runs_also_from_another_thread(name: str) -> None:
    model, engine = shipped(), make(name)
    restored: list[Any] = []
    try:
        engine.prepare(model, HEIGHT, WIDTH)
        assert engine.graphed
        values = window(model)
        restored.append(engine.run(values).copy())
        thread = threading.Thread(target=lambda: restored.append(engine.run(values).copy()))
        thread.start()
        thread.join()
    finally:
        engine.close()
    assert restored[0].tobytes() == restored[1].tobytes()


@COMPILED
def test_memory_is_given_back(name: str) -> None:
    from cuda.bindings import driver

    free = []
    for _ in range(4):
        engine = make(name)
        engine.prepare(shipped(), HEIGHT, WIDTH)
        engine.run(window(shipped()))
        _, now, _ = driver.cuMemGetInfo()
        free.append(int(now))
        engine.close()
    # The first start also loads the library's own code.
    assert free[-1] >= free[1] - (16 << 20)


def test_rtx_runs_what_was_built_ahead_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pssr_live.engine.trt.compile import compile_engine

    monkeypatch.setenv("PSSR_LIVE_CACHE_DIR", str(tmp_path))
    engine = make("tensorrt-rtx")
    compile_engine(shipped(), "tensorrt-rtx", size=(64, 64), sm=(find_gpu().sm,))
    try:
        assert engine.prepare(shipped(), 64, 64).cached
    finally:
        engine.close()
