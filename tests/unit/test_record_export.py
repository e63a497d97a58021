"""The acquisition log as tables that other programs read."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path

import pytest

from pssr_live.errors import StorageError
from pssr_live.record.export import FRAME_COLUMNS, export_csv, export_parquet, export_sqlite
from pssr_live.record.log import Event, FrameRecord, LostEvent, Record, RestoredEvent


def frame(index: int, plane: int, lost_before: int) -> FrameRecord:
    return FrameRecord(
        index=index,
        plane=plane,
        t_source_ns=100 * index,
        t_host_ns=10,
        t_recorded_ns=11,
        crc32=123,
        lost_before=lost_before,
        tags={"Camera": "DCam", "ImageNumber": index},
    )


RECORDS: list[Record] = [
    frame(0, 0, 0),
    Event(event="warning", t_host_ns=12, message="the buffer is almost full"),
    LostEvent(t_host_ns=20, first_index=1, last_index=2),
    frame(3, 1, 2),
    RestoredEvent(
        index=0,
        plane=0,
        t_recorded_ns=30,
        latency_ms=61.5,
        engine_ms=60.0,
        edge=True,
        complete=True,
        live=True,
        crc32=789,
    ),
]


def test_a_frame_s_row_has_its_restoration_beside_it(tmp_path: Path) -> None:
    assert export_csv(RECORDS, tmp_path / "log.csv") == 2
    with (tmp_path / "log.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert tuple(first) == FRAME_COLUMNS
    assert (first["index"], first["latency_ms"], first["edge"]) == ("0", "61.5", "True")
    assert json.loads(first["tags"]) == {"Camera": "DCam", "ImageNumber": 0}
    assert (second["index"], second["lost_before"], second["latency_ms"]) == ("3", "2", "")


def test_sqlite_has_frames_and_events(tmp_path: Path) -> None:
    export_sqlite(RECORDS, tmp_path / "log.sqlite")
    connection = sqlite3.connect(tmp_path / "log.sqlite")
    rows = connection.execute('SELECT "index", latency_ms FROM frames').fetchall()
    events = connection.execute("SELECT event, message FROM events").fetchall()
    connection.close()
    assert rows == [(0, 61.5), (3, None)]
    assert events == [("warning", "the buffer is almost full"), ("lost", "")]


def test_parquet_is_read_back(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    export_parquet(RECORDS, tmp_path / "log.parquet")
    table = parquet.read_table(tmp_path / "log.parquet").to_pydict()
    assert table["index"] == [0, 3]
    assert table["restored_live"] == [True, None]


@pytest.mark.parametrize("export", [export_csv, export_sqlite])
def test_nothing_is_overwritten(tmp_path: Path, export: object) -> None:
    taken = tmp_path / "taken"
    taken.write_text("precious")
    with pytest.raises(StorageError, match="taken"):
        export(RECORDS, taken)  # type: ignore[operator]
    assert taken.read_text() == "precious"
