from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pssr_live.errors import StorageError
from pssr_live.record import AcquisitionLog, LatencyMs, RunFolder, Summary


def test_a_run_folder_is_named_for_time_scope_and_model(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "runs" / "today", "sim", "neuron_mf")
    assert folder.path.parent == tmp_path / "runs" / "today"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d_sim_neuron_mf", folder.name)
    assert list(folder.path.iterdir()) == []
    assert [path.name for path in (folder.raw, folder.restored, folder.truth)] == [
        "raw.ome.tif",
        "restored.ome.tif",
        "truth.ome.tif",
    ]
    assert (folder.log.name, folder.run_json.name) == ("log.jsonl", "run.json")


def test_runs_within_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    names = {RunFolder.create(tmp_path, "sim", "neuron_mf").name for _ in range(5)}
    assert len(names) == 5


@pytest.mark.parametrize(
    ("model", "name"),
    [("models/my_net", "my_net"), ("models/my net: 2/", "my_net_2"), ("µ", "unnamed")],
)
def test_a_model_given_as_a_path_lends_its_name(tmp_path: Path, model: str, name: str) -> None:
    assert RunFolder.create(tmp_path, "mm", model).name.endswith(f"_mm_{name}")


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"no run folder can be made in .*--out"):
        RunFolder.create(tmp_path / "file", "sim", "neuron_mf")


def test_only_run_folders_can_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StorageError, match="is not a run folder"):
            RunFolder.open(path)
    folder = RunFolder.create(tmp_path, "sim", "neuron_mf")
    AcquisitionLog(folder.log).close()
    assert RunFolder.open(folder.path) == folder


def test_run_json_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path, "sim", "neuron_mf")
    folder.write_run_json({"versions": {"pssr-live": "0.1.0"}})
    summary = Summary(frames_received=3, latency_ms=LatencyMs(p50=1.5))
    folder.write_run_json({"versions": {"pssr-live": "0.1.0"}, "summary": summary})
    expected = {
        "frames_received": 3,
        "frames_recorded": 0,
        "frames_restored": 0,
        "frames_skipped_live": 0,
        "frames_lost_at_source": 0,
        "latency_ms": {"p50": 1.5, "p99": None},
    }
    assert json.loads(folder.run_json.read_text())["summary"] == expected
    assert folder.read_run_json()["summary"] == expected

    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left"):
        folder.write_run_json({})
    assert folder.read_run_json()["summary"] == expected
    assert [path.name for path in folder.path.iterdir()] == ["run.json"]


def test_a_missing_or_damaged_run_json_is_an_error(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "sim", "neuron_mf")
    with pytest.raises(StorageError, match=r"run\.json cannot be read"):
        folder.read_run_json()
    folder.run_json.write_text("{")
    with pytest.raises(StorageError, match=r"run\.json cannot be read"):
        folder.read_run_json()
