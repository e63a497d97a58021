from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pssr_live.errors import StorageError
from pssr_live.record import (
    AcquisitionLog,
    Event,
    FrameRecord,
    LatencyMs,
    LostEvent,
    Record,
    RestoredEvent,
    SkippedLiveEvent,
    StartRecord,
    StopRecord,
    Summary,
    iter_log,
    read_log,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FRAME = FrameRecord(
    index=7,
    plane=5,
    t_source_ns=1,
    t_host_ns=2,
    t_recorded_ns=3,
    crc32=4,
    lost_before=2,
    tags={"Camera": "µ", "gain": 1.5, "ok": True},
)
RECORDS: list[Record] = [
    StartRecord(
        run_id="a run",
        started=NOON,
        t_host_ns=1,
        source="a scanner",
        height=440,
        width=440,
        dtype="uint16",
        bits=12,
        pixel_size_um=0.17,
        interval_ms=None,
        channel="mito",
        model="neuron_mf",
        model_version="1.0",
        model_sha256="ab" * 32,
        scale=4,
        engine="openvino fp32 on CPU",
        metadata={"seed": 3},
    ),
    LostEvent(t_host_ns=2, first_index=5, last_index=6),
    FRAME,
    RestoredEvent(
        index=7,
        plane=5,
        t_recorded_ns=9,
        latency_ms=None,
        engine_ms=54.2,
        edge=True,
        complete=False,
        live=False,
        crc32=11,
    ),
    SkippedLiveEvent(t_host_ns=2, indices=[8, 9], reason="the engine is behind"),
    Event(event="warning", t_host_ns=2, message="slow", details={"behind": 2, "why": None}),
    StopRecord(
        stopped=NOON,
        t_host_ns=5,
        reason="all frames",
        summary=Summary(frames_received=1, latency_ms=LatencyMs(p50=60.1, p99=70.0)),
    ),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def write(path: Path, records: list[Record]) -> None:
    log = AcquisitionLog(path)
    for record in records:
        log.write(record)
    log.close()


def test_what_was_written_is_read_back(path: Path) -> None:
    write(path, RECORDS)
    assert read_log(path) == RECORDS


def test_every_line_is_a_json_object_that_names_its_kind(path: Path) -> None:
    write(path, RECORDS)
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in path.read_text("utf-8").splitlines()
    ]
    kinds = [(line["record"], line.get("event")) for line in lines]
    assert kinds == [
        ("start", None),
        ("event", "lost"),
        ("frame", None),
        ("event", "restored"),
        ("event", "skipped_live"),
        ("event", "warning"),
        ("stop", None),
    ]
    assert lines[2]["tags"] == {"Camera": "µ", "gain": 1.5, "ok": True}
    assert lines[3]["latency_ms"] is None
    assert lines[-1]["summary"]["latency_ms"] == {"p50": 60.1, "p99": 70.0}


@pytest.mark.parametrize("kept", range(0, 120, 7))
def test_a_torn_last_line_is_left_out(path: Path, kept: int) -> None:
    write(path, [FRAME, FRAME])
    line = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(line + line[:kept])
    assert read_log(path) == [FRAME]


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"{}",
        b'{"record":"coffee"}',
        b'{"record":"event","event":"lost","t_host_ns":1,"first_index":1}',
        b'{"record":"event","event":"warning","t_host_ns":1,"colour":1}',
        b'{"record":"frame","index":"7"}',
    ],
)
def test_a_damaged_line_is_named(path: Path, line: bytes) -> None:
    write(path, [FRAME, FRAME])
    with path.open("ab") as file:
        file.write(line + b"\n")
    records = iter_log(path)
    assert [next(records), next(records)] == [FRAME, FRAME]
    with pytest.raises(StorageError, match=r"log\.jsonl, line 3"):
        next(records)


def test_many_threads_write_whole_lines(path: Path) -> None:
    log = AcquisitionLog(path)

    def write_events(thread: int) -> None:
        for number in range(100):
            log.event("state", "x" * 50, thread=thread, number=number)

    threads = [threading.Thread(target=write_events, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    found = [record.details for record in read_log(path) if isinstance(record, Event)]
    for thread_number in range(8):
        mine = [details["number"] for details in found if details["thread"] == thread_number]
        assert mine == list(range(100))


def test_a_log_is_continued_not_overwritten(path: Path) -> None:
    write(path, [FRAME])
    write(path, [FRAME])
    assert read_log(path) == [FRAME, FRAME]


class SmallDisk:
    """A file on a disk with room for some bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file = file
        self.room = room

    def write(self, data: bytes) -> int:
        if self.room == 0:
            raise OSError(28, "No space left on device")
        taken: int = self._file.write(data[: self.room])
        self.room -= taken
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk_is_an_error_and_leaves_whole_lines(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AcquisitionLog(path)
    log.write(FRAME)
    disk = SmallDisk(log._file, room=20)
    monkeypatch.setattr(log, "_file", disk)
    for _attempt in range(2):
        with pytest.raises(StorageError, match=r"log\.jsonl cannot be written"):
            log.write(FRAME)
        assert path.read_bytes().endswith(b"}\n")
    disk.room = 10_000
    log.write(FRAME)
    log.close()
    assert read_log(path) == [FRAME, FRAME]


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        AcquisitionLog(tmp_path / "absent" / "log.jsonl")
    with pytest.raises(StorageError, match="cannot be read"):
        read_log(tmp_path / "log.jsonl")
