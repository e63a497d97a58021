"""Our calls against the names and signatures of the real bindings: none of this needs a GPU.

The recordings say where they are from; ``record_bindings.py`` makes them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pssr_live.engine import gpu as probe
from pssr_live.engine.trt.execution import Execution, ForeignEngineError
from pssr_live.engine.trt.network import Request, build_engine
from pssr_live.errors import EngineError
from tests.gpu.fake_bindings import (
    MAGIC,
    RECORDINGS,
    FakeBindings,
    FakeDriver,
    FakeGpu,
    recording_of,
)
from tests.gpu.record_bindings import recorded

cuda_driver = pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings")

SHAPE = (1, 5, 6, 8)
ENGINE = MAGIC + b"[1, 5, 6, 8]"
TENSORRT_ONLY = [path for path in RECORDINGS if path.stem.startswith("tensorrt-")]
EVERY = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    fake = FakeGpu()
    monkeypatch.setattr("cuda.bindings.driver", FakeDriver(cuda_driver, fake))
    return fake


@pytest.fixture
def trt(gpu: FakeGpu, recording: Path) -> FakeBindings:
    return FakeBindings(recording_of(recording), gpu)


def portable(recording: Path) -> bool:
    return recording.stem.startswith("tensorrt_rtx")


def request_for(recording: Path, folder: Path) -> Request:
    rtx = portable(recording)
    return Request(
        engine="tensorrt-rtx" if rtx else "tensorrt",
        shape=SHAPE,
        sm=(86, 89),
        out=str(folder / "engine"),
        timing_cache=None if rtx else str(folder / "cache" / "timings"),
    )


def execution(trt: Any, recording: Path, content: bytes = ENGINE) -> Execution:
    return Execution(trt, "TensorRT", content, SHAPE, b"" if portable(recording) else None)


def window(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def expected(values: Any) -> Any:
    return values[0, 2].repeat(4, 0).repeat(4, 1)


def test_both_major_versions_and_rtx_are_recorded() -> None:
    versions = {recording_of(path)["from"].split(".")[0] for path in RECORDINGS}
    assert {"tensorrt_cu12_bindings 10", "tensorrt_cu13_bindings 11"} <= versions
    assert any(portable(path) for path in RECORDINGS)


def test_the_recording_is_what_the_installed_library_offers() -> None:
    module = pytest.importorskip("tensorrt_rtx")
    (recording,) = (recording_of(path) for path in RECORDINGS if portable(path))
    if recording["version"] != module.__version__:
        pytest.skip(f"{module.__version__} is installed, {recording['version']} recorded")
    assert recorded(module) == recording["classes"]


@EVERY
def test_a_build_calls_what_is_there(trt: Any, recording: Path, tmp_path: Path) -> None:
    told: list[float] = []
    request = request_for(recording, tmp_path)
    built = build_engine(trt, request, b"network", told.append)
    assert Path(request.out).read_bytes() == ENGINE
    assert (built.version, built.nbytes) == (trt.__version__, len(ENGINE))
    assert (built.precision, built.layers) == ("fp16", {"CONVOLUTION HALF": 3})
    assert told == sorted(told)
    assert told[-1] == 1
    (config,) = trt.configs
    assert config._cleared == [trt.BuilderFlag.TF32]
    assert config.max_aux_streams == 0
    assert config._profiles[0]._fixed
    if portable(recording):
        assert [sm.name for sm in config._sms] == ["SM86", "SM89"]
    else:
        assert Path(str(request.timing_cache)).read_bytes() == b"timed"


@EVERY
def test_what_the_library_says_is_the_reason(trt: Any, recording: Path, tmp_path: Path) -> None:
    request = request_for(recording, tmp_path)
    with pytest.raises(EngineError, match="the fake parser refuses"):
        build_engine(trt, request, b"broken", lambda _: None)
    trt.fails = True
    with pytest.raises(EngineError, match="the fake builder refuses"):
        build_engine(trt, request, b"network", lambda _: None)


@EVERY
def test_a_run_calls_what_is_there_and_gives_all_back(
    trt: Any, gpu: FakeGpu, recording: Path
) -> None:
    running = execution(trt, recording)
    for seed in (1, 2):
        values = window(seed)
        assert np.array_equal(running.run(values), expected(values))
    assert running.graphed
    running.close()
    running.close()
    assert gpu.allocated == {}


@EVERY
def test_one_launch_a_frame(trt: Any, gpu: FakeGpu, recording: Path) -> None:
    running = execution(trt, recording)
    gpu.calls.clear()
    running.run(window(3))
    running.close()
    per_frame = gpu.calls[: gpu.calls.index("cuStreamSynchronize") + 1]
    if portable(recording):  # the library's own graph stands for the kernels
        copies = ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync"]
        (config,) = trt.runtime_configs
        assert config.cuda_graph_strategy == trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        kernels = config.dynamic_shapes_kernel_specialization_strategy
        assert kernels == trt.DynamicShapesKernelSpecializationStrategy.EAGER
    else:
        copies = ["cuGraphLaunch"]
    assert per_frame == ["cuCtxSetCurrent", *copies, "cuStreamSynchronize"]


@EVERY
def test_an_engine_of_another_library_is_refused(trt: Any, gpu: FakeGpu, recording: Path) -> None:
    with pytest.raises(ForeignEngineError, match="not an engine of this library"):
        execution(trt, recording, b"something else")
    assert gpu.allocated == {}


@EVERY
def test_a_gpu_that_does_not_start_is_an_error(trt: Any, gpu: FakeGpu, recording: Path) -> None:
    trt.fails = True
    with pytest.raises(EngineError, match="the GPU does not start it"):
        execution(trt, recording)
    assert gpu.allocated == {}


@pytest.mark.parametrize("recording", TENSORRT_ONLY, ids=lambda path: path.stem)
def test_a_driver_that_records_no_graph_still_runs(
    trt: Any, gpu: FakeGpu, recording: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.refused.add("cuGraphInstantiate")
    with caplog.at_level(logging.WARNING):
        running = execution(trt, recording)
    assert not running.graphed
    assert "runs without a CUDA graph: CUDA_ERROR_NOT_SUPPORTED" in caplog.text
    values = window(4)
    assert np.array_equal(running.run(values), expected(values))
    running.close()
    assert gpu.allocated == {}


@EVERY
def test_the_fake_refuses_what_the_real_one_refuses(trt: Any, recording: Path) -> None:
    config = trt.Builder(type("Log", (trt.ILogger,), {})()).create_builder_config()
    with pytest.raises(AttributeError):
        config.create_calibrator()
    with pytest.raises(AttributeError):
        config.max_workspace_size = 1
    with pytest.raises(TypeError, match="fits none of"):
        config.clear_flag(trt.BuilderFlag.TF32, True)
    with pytest.raises(TypeError, match="fits none of"):
        config.set_timing_cache("cache", ignore_mismatch=False)


@pytest.mark.parametrize("managed", [True, False], ids=["nvml", "without nvml"])
def test_the_probe_calls_what_is_there(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, managed: bool
) -> None:
    from cuda.bindings import nvml

    for name, answer in (
        ("init_v2", None),
        ("system_get_driver_version", "580.95.05"),
        ("shutdown", None),
    ):
        monkeypatch.setattr(nvml, name, lambda answer=answer: answer)
    if not managed:
        monkeypatch.setattr(nvml, "init_v2", no_library)
    found = probe._ask()
    assert (found.name, found.sm, found.memory_bytes) == ("NVIDIA Fake 3060", 86, 12 << 30)
    assert found.driver == ("580.95.05" if managed else "for CUDA 13.2")


def no_library() -> None:
    raise RuntimeError('"nvml" can only be found via system search')


def test_the_probe_says_what_the_driver_says(gpu: FakeGpu) -> None:
    gpu.refused.add("cuInit")
    with pytest.raises(SystemExit, match="CUDA_ERROR_NOT_SUPPORTED"):
        probe._ask()
