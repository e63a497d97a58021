"""The CUDA engine without a GPU: refused in one line, and never quietly on the CPU."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from pssr_live.engine import cuda
from pssr_live.engine.cuda import CUDAEngine
from pssr_live.engine.gpu import Gpu
from pssr_live.engine.select import prepare_engine
from pssr_live.errors import EngineError
from pssr_live.model import find_model

MODEL = find_model("neuron_mf")
GPU = Gpu(name="A card", sm=86, driver="600.0", memory_bytes=1 << 33)
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def install(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    monkeypatch.setattr(cuda, "has_package", lambda name: name in packages)


@pytest.mark.parametrize(
    ("packages", "why"),
    [
        ((), r"onnxruntime-gpu is not installed; pip install .*cuda"),
        (("onnxruntime",), r"the one without CUDA; pip uninstall .*pip install"),
        (("onnxruntime", "onnxruntime-gpu"), r"both installed, .*pip uninstall .*pip install"),
    ],
)
def test_missing_or_clashing_packages_are_explained(
    monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...], why: str
) -> None:
    install(monkeypatch, *packages)
    with pytest.raises(EngineError, match=why) as refused:
        CUDAEngine("fp32").prepare(MODEL, 64, 64)
    assert "\n" not in str(refused.value)


def test_without_a_gpu_it_is_refused_before_onnxruntime_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_gpu() -> Gpu:
        raise EngineError("no NVIDIA GPU can be used", "this is a test", "go on")

    install(monkeypatch, "onnxruntime-gpu")
    monkeypatch.setattr(cuda, "find_gpu", no_gpu)
    monkeypatch.setattr(cuda, "_import", lambda: pytest.fail("loaded"))
    with pytest.raises(EngineError, match="this is a test"):
        CUDAEngine("fp32").prepare(MODEL, 64, 64)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_other_precisions_are_refused(precision: str) -> None:
    with pytest.raises(EngineError, match=f"cannot run in {precision}: this engine has fp32 and"):
        CUDAEngine(precision)


def test_named_it_is_an_error_and_never_another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(EngineError, match="onnxruntime-gpu is not installed"):
        prepare_engine("cuda", None, MODEL, 64, 64)


RealSession = onnxruntime.InferenceSession


class Session(RealSession):  # type: ignore[misc]
    """Runs on the CPU and says that it is CUDA."""

    asked: ClassVar[list[Any]] = []
    says = CUDA

    def __init__(self, content: bytes, options: Any, providers: Any, enable_fallback: int) -> None:
        self.asked[:] = [providers, enable_fallback, options]
        assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
        super().__init__(content, options, providers=[CPU])

    def get_providers(self) -> list[str]:
        return [self.says, CPU]


def on_the_cpu(window: NDArray[np.float32]) -> NDArray[np.float32]:
    session = RealSession(MODEL.network, providers=[CPU])
    found: NDArray[np.float32] = session.run(None, {"window": window})[0][0, 0]
    return found


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    """A GPU, as far as the engine can see; memory of the GPU is the processor's."""
    place = onnxruntime.OrtValue.ortvalue_from_shape_and_type
    install(monkeypatch, "onnxruntime-gpu")
    monkeypatch.setattr(cuda, "find_gpu", lambda: GPU)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(Session, "says", CUDA)
    monkeypatch.setattr(
        onnxruntime.OrtValue,
        "ortvalue_from_shape_and_type",
        lambda shape, element, _device, number: place(shape, element, "cpu", number),
    )
    return Session


def test_what_it_asks_of_onnxruntime(pretend: type[Session]) -> None:
    engine = CUDAEngine("fp32")
    report = engine.prepare(MODEL, 37, 53)
    window = np.random.default_rng(0).standard_normal((1, 5, 37, 53)).astype(np.float32)
    found = engine.run(window).copy()
    engine.run(np.zeros_like(window))
    again = engine.run(window).copy()
    engine.close()
    assert pretend.asked[:2] == [[(CUDA, {"device_id": "0", "use_tf32": "0"})], 0]
    assert (report.engine, report.precision) == ("cuda", "fp32")
    assert report.device == "A card (SM 86, driver 600.0)"
    assert found.tobytes() == again.tobytes()
    assert np.abs(found - on_the_cpu(window)).max() < 1e-3


def test_a_session_that_went_to_the_cpu_is_refused(
    pretend: type[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretend, "says", CPU)
    with pytest.raises(EngineError, match="do not load; it would run on CPUExecutionProvider"):
        CUDAEngine("fp32").prepare(MODEL, 64, 64)
