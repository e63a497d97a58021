"""What the daemon sees of the engines, on faked libraries and a faked GPU; see `fake_bindings`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pssr_live.engine import gpu as probe
from pssr_live.engine.gpu import Gpu
from pssr_live.engine.trt import compile as ahead
from pssr_live.engine.trt import engine, prepare
from pssr_live.engine.trt.cache import EngineKey
from pssr_live.engine.trt.engine import TensorRTEngine, TensorRTRTXEngine
from pssr_live.engine.trt.network import Built, Request, build_engine
from pssr_live.engine.trt.prepare import compiled_engines
from pssr_live.errors import EngineError
from pssr_live.model import find_model
from tests.gpu.fake_bindings import RECORDINGS, FakeBindings, FakeDriver, FakeGpu, recording_of

cuda_driver = pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings")

MODEL = find_model("neuron_mf")
GPU = Gpu(name="NVIDIA Fake 3060", sm=86, driver="580.1", memory_bytes=12 << 30)
HEIGHT, WIDTH = 16, 20
ENGINES = {"tensorrt": TensorRTEngine, "tensorrt-rtx": TensorRTRTXEngine}


class Bench:
    """A machine with a GPU, and how often it had to compile."""

    def __init__(self, trt: Any, name: str, folder: Path) -> None:
        self.trt, self.name, self.folder = trt, name, folder
        self.gpu = GPU
        self.builds: list[Request] = []

    def build(
        self, request: Request, network: bytes, on_progress: Callable[[float], None]
    ) -> tuple[bytes, Built]:
        self.builds.append(request)
        asked = msgspec.structs.replace(request, out=str(self.folder / "out"))
        built = build_engine(self.trt, asked, network, on_progress)
        return Path(asked.out).read_bytes(), built

    def prepare(self, model: Any = MODEL, precision: str = "fp32") -> Any:
        running = ENGINES[self.name](precision)
        try:
            report = running.prepare(model, HEIGHT, WIDTH)
            frame = np.arange(HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
            restored = running.run(np.stack([frame] * model.manifest.window_length)[None])
            assert np.array_equal(restored, frame.repeat(4, 0).repeat(4, 1))
            assert running.graphed
        finally:
            running.close()
        return report

    def kept(self, suffix: str = ".engine") -> list[Path]:
        return sorted((self.folder / "engines").glob(f"*{suffix}"))


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    prefix = {"tensorrt": "tensorrt-11.4", "tensorrt-rtx": "tensorrt_rtx"}[request.param]
    (recording,) = (path for path in RECORDINGS if path.stem.startswith(prefix))
    fake_gpu = FakeGpu()
    bench = Bench(FakeBindings(recording_of(recording), fake_gpu), request.param, tmp_path)
    monkeypatch.setenv("PSSR_LIVE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("cuda.bindings.driver", FakeDriver(cuda_driver, fake_gpu))
    monkeypatch.setattr(probe, "find_gpu", lambda: bench.gpu)
    monkeypatch.setattr(engine, "require", lambda _: None)
    monkeypatch.setattr(prepare, "load", lambda _: bench.trt)
    monkeypatch.setattr(prepare, "build", bench.build)
    return bench


def test_the_first_time_it_is_compiled_then_it_is_found(bench: Bench) -> None:
    first, second = bench.prepare(), bench.prepare()
    assert (first.cached, second.cached) == (False, True)
    assert len(bench.builds) == 1
    assert second.engine == second.requested == bench.name
    assert second.device == "NVIDIA Fake 3060 (SM 86, driver 580.1)"
    assert (second.version, second.threads) == (bench.trt.__version__, 1)
    assert second.precision == "fp16"  # what the fake network's layers are, not what was asked


def test_progress_and_the_reason_for_the_wait_are_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        bench.prepare()
    told = [record.getMessage() for record in caplog.records]
    assert "compiling neuron_mf for NVIDIA Fake 3060" in told[0]
    assert told[-1] == "compiled: 100 %"


@pytest.mark.parametrize(
    "change",
    [{"name": "NVIDIA Fake 4090"}, {"driver": "581.0"}, {"sm": 89}],
    ids=lambda change: next(iter(change)),
)
def test_another_gpu_or_driver_compiles_anew(bench: Bench, change: dict[str, Any]) -> None:
    bench.prepare()
    bench.gpu = msgspec.structs.replace(GPU, **change)
    assert not bench.prepare().cached
    assert len(bench.kept()) == 2


def test_another_version_of_the_library_compiles_anew(bench: Bench) -> None:
    bench.prepare()
    bench.trt.__version__ += ".1"
    assert not bench.prepare().cached


def test_another_precision_takes_the_package_s_other_network(bench: Bench) -> None:
    with pytest.raises(EngineError, match="cannot run in fp16"):
        bench.prepare(replace(MODEL, variants={}), "fp16")
    model = replace(MODEL, variants={"fp16": b"the network in fp16"})
    bench.prepare(model)
    assert not bench.prepare(model, "fp16").cached


def test_a_damaged_engine_is_deleted_and_compiled_anew(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.prepare()
    (path,) = bench.kept()
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert not bench.prepare().cached
    assert "its bytes are not those that were written" in caplog.text
    assert bench.prepare().cached


def test_an_engine_that_the_library_does_not_take_is_compiled_anew(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.prepare()
    (sidecar,) = bench.kept(".json")
    said = msgspec.json.decode(sidecar.read_bytes())
    cache = compiled_engines()
    key = msgspec.convert(said["key"], EngineKey)
    cache.keep("neuron_mf", key, b"foreign", msgspec.convert(said["built"], Built))
    with caplog.at_level(logging.WARNING):
        assert not bench.prepare().cached
    assert "not an engine of this library" in caplog.text
    assert bench.prepare().cached


def test_a_cache_that_cannot_be_written_costs_time_only(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    (bench.folder / "engines").write_bytes(b"a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert not bench.prepare().cached
    assert "cannot be kept for the next run" in caplog.text


def test_tensorrt_keeps_its_timings_and_rtx_its_kernels(bench: Bench) -> None:
    bench.prepare()
    suffix, content = {
        "tensorrt": (".timings", b"timed"),
        "tensorrt-rtx": (".kernels", b"new"),
    }[bench.name]
    (path,) = bench.kept(suffix)
    assert path.read_bytes() == content
    # A file that is there is handed over at the next start.
    path.write_bytes(b"timed" if bench.name == "tensorrt" else b"finished earlier")
    bench.gpu = msgspec.structs.replace(GPU)
    bench.prepare()
    if bench.name == "tensorrt-rtx":
        assert bench.trt.runtime_configs[-1]._set._kernels == b"finished earlier"
    else:
        assert bench.builds[-1].timing_cache == str(path)


def test_a_precision_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(
        EngineError, match=r"TensorRT-RTX cannot run in int8: .*use --precision fp32 or fp16"
    ):
        TensorRTRTXEngine("int8")
    with pytest.raises(EngineError, match="TensorRT cannot run in bf16"):
        TensorRTEngine("bf16")


def test_an_engine_that_gives_frames_of_another_size_is_refused(bench: Bench) -> None:
    manifest = msgspec.structs.replace(MODEL.manifest, scale=2)
    with pytest.raises(EngineError, match=r"its output is \(64, 80\) for frames of 16×20"):
        bench.prepare(replace(MODEL, manifest=manifest))
    assert bench.trt.gpu.allocated == {}


def test_what_was_compiled_for_this_gpu_is_found_by_the_next_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "find_gpu", lambda: bench.gpu)
    monkeypatch.setattr(ahead, "require", lambda _: None)
    monkeypatch.setattr(ahead, "load", lambda _: bench.trt)
    monkeypatch.setattr(ahead, "build", bench.build)
    compiled = ahead.compile_engine(MODEL, bench.name, size=(HEIGHT, WIDTH))
    assert "SM 86; NVIDIA Fake 3060, driver 580.1, " in ahead.summary(compiled)
    assert bench.prepare().cached
    assert len(bench.builds) == 1
