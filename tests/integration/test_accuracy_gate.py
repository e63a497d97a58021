"""Wrong engines in whole runs: refused before the start, or with the first window; never unsaid."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tifffile

from pssr_live import cli
from pssr_live.errors import EngineError
from pssr_live.offline import restore_file
from pssr_live.session import RunResult, Session
from pssr_live.settings import EngineName, RunSettings, SimSettings
from pssr_live.stream.wire import Status
from tests import wrong_engines
from tests.integration.conftest import read_log
from tests.wrong_engines import Right, SwappedRows, WrongLater

FRAMES = 12


@pytest.fixture(autouse=True)
def nothing_judged_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSSR_LIVE_CACHE_DIR", str(tmp_path / "cache"))


def settings(tmp_path: Path, engine: EngineName) -> RunSettings:
    sim = SimSettings(size=48, interval_ms=0)
    return RunSettings(out=str(tmp_path / "runs"), engine=engine, frames=FRAMES, sim=sim)


def run(settings: RunSettings) -> tuple[RunResult, Status]:
    session = Session(settings)
    session.start()
    assert session.wait(60)
    return session.finish(), session.status()


def planes(path: Path) -> int:
    with tifffile.TiffFile(path) as file:
        return len(file.pages)


def engine_of(path: Path) -> str:
    with tifffile.TiffFile(path) as file:
        assert file.ome_metadata is not None
        return file.ome_metadata.split('K="engine">')[1].split("<")[0]


def document(result: RunResult) -> dict[str, Any]:
    return dict(json.loads(result.folder.run_json.read_text()))


def test_a_named_engine_that_misses_the_test_pair_never_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_engines.install(monkeypatch, SwappedRows)
    with pytest.raises(EngineError, match="test pair"):
        Session(settings(tmp_path, "cuda")).start()
    assert not (tmp_path / "runs").exists()


def test_a_named_engine_that_is_wrong_on_the_first_window_stops_restoring_but_not_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_engines.install(monkeypatch, WrongLater)
    result, status = run(settings(tmp_path, "cuda"))
    assert isinstance(result.errors[0], EngineError)
    assert "first window" in str(result.errors[0])
    assert "pssr-live restore" in str(result.errors[0])
    assert planes(result.folder.raw) == result.summary.frames_recorded == FRAMES
    assert result.summary.frames_restored == 0
    assert not result.folder.restored.exists()
    assert any("first window" in line for line in status.warnings)
    assert "first window" in document(result)["errors"][0]


def test_the_command_line_ends_with_the_engine_s_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong_engines.install(monkeypatch, WrongLater)
    command = "pssr-live --scope sim --size 48 --interval-ms 0 --frames 12 --engine cuda --no-view"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 5
    assert "first window" in capsys.readouterr().err


def test_auto_goes_on_with_fp32_and_every_record_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_engines.install(monkeypatch, WrongLater)
    result, status = run(settings(tmp_path, "auto"))
    assert result.errors == ()
    assert planes(result.folder.raw) == planes(result.folder.restored) == FRAMES
    assert status.engine is not None
    assert (status.engine.requested, status.engine.engine) == ("auto", "openvino")
    assert "dB from fp32" in status.engine.refused[0].why
    assert any("goes on instead" in line for line in status.warnings)
    engine = document(result)["engine"]
    assert engine["engine"] == "openvino"
    assert engine["refused"][0]["engine"] == "cuda"
    events = read_log(result.folder.path, "event")
    assert [event["details"]["engine"] for event in events if event["event"] == "engine"] == [
        "openvino"
    ]
    assert any("goes on instead" in event["message"] for event in events if "message" in event)
    assert engine_of(result.folder.restored).startswith("openvino fp32")


def test_what_a_right_engine_passed_is_in_every_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_engines.install(monkeypatch, Right)
    result, status = run(settings(tmp_path, "cuda"))
    assert result.errors == ()
    assert status.engine is not None
    assert [check.what for check in status.engine.checks] == ["test pair", "first window"]
    checks = document(result)["engine"]["checks"]
    assert [check["what"] for check in checks] == ["test pair", "first window"]
    (noted,) = [e for e in read_log(result.folder.path, "event") if e["event"] == "engine"]
    assert noted["details"]["check"] == "first window"
    assert noted["details"]["psnr_db"] == checks[1]["psnr_db"]
    assert engine_of(result.folder.restored) == "cuda fp32 on a test"


def test_a_second_run_need_not_judge_the_test_pair_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_engines.install(monkeypatch, Right)
    first, second = (run(settings(tmp_path, "cuda"))[0] for _ in range(2))
    cached = [
        [check["cached"] for check in document(result)["engine"]["checks"]]
        for result in (first, second)
    ]
    assert cached == [[False, False], [True, False]]


def test_offline_restoration_passes_the_same_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_engines.install(monkeypatch, WrongLater)
    result, _ = run(settings(tmp_path, "openvino"))

    def restore(engine: str, out: Path) -> int:
        return restore_file(
            result.folder.raw,
            out,
            model="neuron_mf",
            engine=engine,
            precision=None,
            on_plane=lambda *_: None,
        )

    with pytest.raises(EngineError, match="first window"):
        restore("cuda", tmp_path / "named.ome.tif")
    assert not (tmp_path / "named.ome.tif").exists()
    monkeypatch.setattr(WrongLater, "version", "1.1")  # judged by the test pair once more
    assert restore("auto", tmp_path / "auto.ome.tif") == FRAMES
    assert engine_of(tmp_path / "auto.ome.tif").startswith("openvino fp32")
    same = tifffile.imread(tmp_path / "auto.ome.tif") == tifffile.imread(result.folder.restored)
    assert same.all()
