"""The Python in docs/run-folder.md runs, and the fields it names are those that are written."""

from __future__ import annotations

import importlib.util
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pssr_live.frames import Frame
from pssr_live.record import (
    AcquisitionLog,
    Event,
    FrameRecord,
    LostEvent,
    PlaneIndex,
    PlaneInfo,
    RawRecorder,
    RestoredEvent,
    RunFolder,
    SkippedLiveEvent,
    StackWriter,
    StartRecord,
    StopRecord,
    Summary,
    raw_stack,
)
from pssr_live.source import StreamInfo

PAGE = (Path(__file__).parents[2] / "docs" / "run-folder.md").read_text("utf-8")
RUN = Path("runs/2026-03-01T14-30-15_sim_neuron_mf")
INFO = StreamInfo("a scanner", 8, 8, np.dtype("uint16"), 12, 0.17, 250.0)


def make_run(path: Path) -> None:
    path.mkdir(parents=True)
    folder, log, now = RunFolder(path), AcquisitionLog(path / "log.jsonl"), datetime.now(UTC)
    recorder = RawRecorder(folder, log, PlaneIndex(), started=now, annotations={})
    recorder.open(INFO)
    restored = StackWriter(folder.restored, raw_stack(INFO, now, {}))
    for index in range(3):
        recorder.put(Frame(np.full((8, 8), index, np.uint16), index, index, index))
        restored.put(index, np.zeros((8, 8), np.uint16), PlaneInfo(index, index))
        log.write(
            RestoredEvent(
                index=index,
                plane=index,
                t_recorded_ns=1,
                latency_ms=60.0 + index,
                engine_ms=50.0,
                edge=False,
                complete=True,
                live=True,
                crc32=0,
            )
        )
    recorder.close()
    restored.close()
    log.close()


def test_the_python_on_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / RUN)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"(?:<!-- (.*?) -->\n)?```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for remark, block in blocks:
        if remark.startswith("Not run"):
            continue
        if "import pandas" in block and importlib.util.find_spec("pandas") is None:
            continue
        exec(compile(block, "docs/run-folder.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "(3, 8, 8) (3, 8, 8) uint16"
    assert printed[1:4] == ["0 0.0 0.0", "1 1e-09 1.0", "2 2e-09 2.0"]
    frames = names["frames"]
    assert isinstance(frames, list)
    assert [frame["plane"] for frame in frames] == [0, 1, 2]


@pytest.mark.parametrize(
    "record",
    [
        Event,
        FrameRecord,
        LostEvent,
        PlaneInfo,
        RestoredEvent,
        SkippedLiveEvent,
        StartRecord,
        StopRecord,
        Summary,
    ],
)
def test_every_field_is_on_the_page(record: type[msgspec.Struct]) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(record)}
    assert [field for field in fields if f"`{field}`" not in PAGE] == []
