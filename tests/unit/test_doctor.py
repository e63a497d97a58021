"""The doctor explains in one line what is missing or broken, and survives what crashes."""

from __future__ import annotations

import sys

import openvino
import pytest

from pssr_live import doctor
from pssr_live.doctor import engine_line, engine_line_from, examine
from pssr_live.engine.base import Check, EngineReport
from pssr_live.engine.cache import cache_folder
from pssr_live.engine.select import AUTO_ORDER
from pssr_live.errors import EngineError
from pssr_live.model import ModelPackage, find_model


@pytest.fixture(scope="module")
def model() -> ModelPackage:
    return find_model("neuron_mf")


@pytest.fixture
def no_engines(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Leave out the processes that try engines; they take seconds."""
    commands: list[list[str]] = []

    def note(command: list[str], engine: str) -> str:
        commands.append(command)
        return f"--  engine {engine}: not tried"

    monkeypatch.setattr(doctor, "engine_line_from", note)
    return commands


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_an_engine_that_runs_says_what_runs_and_how_near_it_is(model: ModelPackage) -> None:
    line = engine_line("openvino", model)
    assert line.startswith("ok  engine openvino 20")
    assert "fp32 on" in line
    assert "test pair of neuron_mf: " in line
    assert "dB needed" in line


def test_an_engine_that_is_not_installed_says_the_command(
    model: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert engine_line("onnxruntime", model) == (
        '--  engine onnxruntime: ONNX Runtime: it is not installed; '
        'pip install "pssr-live[onnxruntime]"'
    )  # fmt: skip


def test_what_the_engine_s_report_says_is_in_the_line(
    model: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = EngineReport(
        requested="tensorrt", engine="tensorrt", device="a GPU", precision="fp32", version="10.9",
        threads=1, prepare_ms=12_340.0, cached=False,
        checks=(Check("test pair", float("inf"), 90.0),),
    )  # fmt: skip

    class Nothing:
        def close(self) -> None: ...

    monkeypatch.setattr(doctor, "prepare_engine", lambda *_: (Nothing(), report))
    assert engine_line("tensorrt", model) == (
        "ok  engine tensorrt 10.9: fp32 on a GPU; 1 thread, ready in 12.3 s, compiled now; "
        "test pair of neuron_mf: equal, at least 90 dB needed"
    )


def test_an_engine_that_refuses_says_why_and_takes_nothing_with_it(
    model: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise EngineError("no NVIDIA GPU can be used", "there is no driver", "install one")

    monkeypatch.setattr(doctor, "prepare_engine", refuse)
    assert engine_line("tensorrt", model) == (
        "--  engine tensorrt: no NVIDIA GPU can be used: there is no driver; install one"
    )


def test_a_library_that_crashes_is_one_line() -> None:
    code = "import os, sys; print('driver\\nlost', file=sys.stderr, flush=True); os.abort()"
    line = engine_line_from(python(code), "cuda")
    assert line.startswith("!!  engine cuda: its library crashed (exit ")
    assert line.endswith(": lost; reinstall it or choose another --engine")


def test_a_library_that_says_nothing_is_one_line() -> None:
    line = engine_line_from(python("pass"), "cuda")
    assert line.startswith("!!  engine cuda: its library crashed (exit 0): it said nothing")


def test_a_library_that_hangs_is_one_line() -> None:
    line = engine_line_from(python("import threading; threading.Event().wait()"), "cuda", 0.1)
    assert line == "!!  engine cuda: no answer within 0.1 s; choose another --engine"


def test_what_a_library_prints_is_left_out() -> None:
    code = "print('banner of a library\\nok  engine cuda 1.0')"
    assert engine_line_from(python(code), "cuda") == "ok  engine cuda 1.0"


def test_each_engine_is_tried_once_in_a_process_of_its_own(
    no_engines: list[list[str]],
) -> None:
    lines = [line for line in examine() if "engine " in line and "not tried" in line]
    assert [line.split()[2].rstrip(":") for line in lines] == list(AUTO_ORDER)
    assert [command[0] for command in no_engines] == [sys.executable] * len(AUTO_ORDER)


@pytest.mark.usefixtures("no_engines")
def test_the_processor_s_short_arithmetic_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"FULL_DEVICE_NAME": "A Processor ", "OPTIMIZATION_CAPABILITIES": ["FP32", "INT8"]}
    monkeypatch.setattr(openvino.Core, "get_property", lambda _, _device, name: said[name])
    (line,) = (line for line in examine() if "A Processor" in line)
    assert line.startswith("ok  ")
    assert line.endswith("A Processor: instructions for fp32, int8; not for bf16 and fp16")


@pytest.mark.usefixtures("no_engines")
def test_what_is_not_installed_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    there = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "PyQt5" else there(name))
    assert (
        "--  viewer and review windows: PyQt5 not installed; pip install \"pssr-live[gui]\""
        in list(examine())
    )  # fmt: skip


@pytest.mark.usefixtures("no_engines")
@pytest.mark.parametrize("both", [True, False])
def test_two_onnx_runtimes_in_one_place_are_a_fault(
    both: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = "1.31" if both else None
    monkeypatch.setattr(doctor, "_version", lambda name: gpu if name.endswith("-gpu") else "1.0")
    found = [line for line in examine() if line.startswith("!!")]
    if not both:
        assert found == []
        return
    (line,) = found
    assert "onnxruntime and onnxruntime-gpu are both installed" in line
    assert "pip uninstall onnxruntime onnxruntime-gpu" in line


@pytest.mark.usefixtures("no_engines")
def test_where_the_cache_is_and_how_large(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("engines")
    monkeypatch.setenv("PSSR_LIVE_CACHE_DIR", str(folder))
    (folder / "deep").mkdir()
    (folder / "deep" / "engine.bin").write_bytes(bytes(3_000_000))
    assert any(f"{cache_folder()} (3 MB" in line for line in examine())


@pytest.mark.usefixtures("no_engines")
def test_without_a_model_engines_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "shipped_models", lambda: iter(()))
    assert any(line.startswith("!!  engines: there is no model") for line in examine())
