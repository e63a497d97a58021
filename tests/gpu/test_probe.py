"""Asking for the GPU, in a process that may die of it."""

from __future__ import annotations

import importlib.util
import sys
import time

import pytest

from pssr_live.engine import gpu
from pssr_live.engine.gpu import Gpu, find_gpu, gpu_from
from pssr_live.engine.trt import bindings
from pssr_live.engine.trt.engine import TensorRTEngine, TensorRTRTXEngine
from pssr_live.errors import EngineError
from pssr_live.model import find_model

MODEL = find_model("neuron_mf")


@pytest.fixture(autouse=True)
def forget_the_last_answer() -> None:
    gpu._found.cache_clear()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_answer_is_read() -> None:
    answer = '{"name":"NVIDIA RTX A2000","sm":86,"driver":"580.1","memory_bytes":6442450944}'
    found = gpu_from(python(f"print('''{answer}''')"))
    assert found == Gpu(name="NVIDIA RTX A2000", sm=86, driver="580.1", memory_bytes=6 << 30)
    assert str(found) == "NVIDIA RTX A2000 (SM 86, driver 580.1)"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os.abort()", r"asking the driver crashed \(exit -?\d+\)"),
        ("raise SystemExit('CUDA_ERROR_NO_DEVICE')", ": CUDA_ERROR_NO_DEVICE; install"),
        ("print('hello')", "the answer of the driver makes no sense"),
        ("pass", "the answer of the driver makes no sense"),
    ],
)
def test_a_probe_that_dies_or_refuses_is_one_line(code: str, why: str) -> None:
    with pytest.raises(EngineError, match=why) as caught:
        gpu_from(python(code))
    assert "\n" not in str(caught.value)
    assert "choose another --engine" in str(caught.value)


def test_a_driver_that_hangs_is_given_up() -> None:
    with pytest.raises(EngineError, match=r"did not answer within 0\.2 s"):
        gpu_from(python("import threading; threading.Event().wait()"), timeout_s=0.2)


def test_without_cuda_bindings_it_is_said_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_has_bindings", lambda: False)
    with pytest.raises(EngineError, match='pip install "cuda-bindings'):
        find_gpu()


def test_without_a_driver_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_has_bindings", lambda: True)
    monkeypatch.setattr(gpu, "_has_driver", lambda: False)
    monkeypatch.setattr(gpu, "gpu_from", lambda _: pytest.fail("a process was started"))
    with pytest.raises(EngineError, match="this machine has no NVIDIA driver"):
        find_gpu()


def test_the_driver_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(command: list[str]) -> Gpu:
        asked.append(command)
        raise EngineError("no NVIDIA GPU can be used", "CUDA_ERROR_NO_DEVICE", "look")

    monkeypatch.setattr(gpu, "_has_bindings", lambda: True)
    monkeypatch.setattr(gpu, "_has_driver", lambda: True)
    monkeypatch.setattr(gpu, "gpu_from", answer)
    for _ in range(2):
        with pytest.raises(EngineError, match="CUDA_ERROR_NO_DEVICE"):
            find_gpu()
    assert [command[1:] for command in asked] == [["-P", "-m", "pssr_live.engine.gpu"]]


@pytest.mark.skipif(gpu._has_driver(), reason="there is an NVIDIA driver here")
def test_the_real_probe_says_that_there_is_no_driver() -> None:
    pytest.importorskip("cuda.bindings")
    with pytest.raises(EngineError, match=r"no NVIDIA GPU can be used: .*driver"):
        gpu_from([sys.executable, "-P", "-m", "pssr_live.engine.gpu"])


@pytest.mark.parametrize("engine", [TensorRTEngine, TensorRTRTXEngine])
def test_a_library_that_is_missing_is_refused_at_once(
    engine: type[TensorRTEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        bindings.importlib.util,
        "find_spec",
        lambda name: None if name.startswith("tensorrt") else real(name),
    )
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        with pytest.raises(EngineError) as caught:
            engine("fp32").prepare(MODEL, 64, 64)
        taken.append(time.perf_counter() - started)
    name = engine.flavour.name
    assert str(caught.value).endswith(f'it is not installed; pip install "pssr-live[{name}]"')
    assert min(taken) < 0.005


@pytest.mark.skipif(gpu._has_driver(), reason="there is an NVIDIA driver here")
def test_with_the_library_but_without_a_gpu_it_is_refused_in_one_line() -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(EngineError, match=r"no NVIDIA GPU can be used: .*; install") as caught:
        TensorRTRTXEngine("fp32").prepare(MODEL, 64, 64)
    assert "\n" not in str(caught.value)


def test_a_library_of_an_unknown_major_version_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Module:
        __version__ = "12.0.1"

    monkeypatch.setattr(bindings, "require", lambda _: None)
    monkeypatch.setattr(bindings, "import_module", lambda _: Module)
    with pytest.raises(EngineError, match=r"TensorRT 12.0.1: .* written for 10.x to 11.x"):
        bindings.load(bindings.TENSORRT)


def test_a_library_that_cannot_be_loaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr(bindings, "require", lambda _: None)
    monkeypatch.setattr(bindings, "import_module", fail)
    with pytest.raises(EngineError, match=r"it cannot be loaded \(libnvinfer.so.11"):
        bindings.load(bindings.TENSORRT)
