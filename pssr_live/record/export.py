"""The acquisition log as tables, for other tools: CSV, SQLite, Parquet."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from pssr_live.errors import StorageError, UsageError
from pssr_live.record.log import FrameRecord, Record, RestoredEvent, StartRecord

__all__ = ["EVENT_COLUMNS", "FRAME_COLUMNS", "export_csv", "export_parquet", "export_sqlite"]

Value: TypeAlias = str | int | float | bool | None
Row: TypeAlias = dict[str, Value]

FRAME_COLUMNS = (
    "index",
    "plane",
    "t_source_ns",
    "t_host_ns",
    "t_recorded_ns",
    "lost_before",
    "crc32",
    "tags",
    "restored_live",
    "latency_ms",
    "engine_ms",
    "edge",
    "complete",
    "t_restored_ns",
    "restored_crc32",
)
"""One row per raw frame; the columns from ``restored_live`` on are empty until it is restored."""

EVENT_COLUMNS = ("event", "t_host_ns", "message", "details")
"""One row for everything else that happened; ``details`` is JSON."""


def export_csv(records: Iterable[Record], out: Path) -> int:
    """Write the frames as CSV (UTF-8, comma, header line).

    Parameters
    ----------
    records : iterable of Record
        The log, from its beginning.
    out : Path
        File to make; it must not exist.

    Returns
    -------
    int
        Rows.

    Raises
    ------
    StorageError
        The file exists, or the disk does not take it.
    """
    frames, _ = _tables(records)
    try:
        with out.open("x", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FRAME_COLUMNS)
            writer.writeheader()
            writer.writerows(frames)
    except OSError as error:
        raise _refused(out, error) from error
    return len(frames)


def export_sqlite(records: Iterable[Record], out: Path) -> int:
    """Write tables ``frames`` and ``events`` of a SQLite database; as `export_csv`."""
    frames, events = _tables(records)
    try:
        out.touch(exist_ok=False)
        connection = sqlite3.connect(out)
        try:
            with connection:
                _fill(connection, "frames", FRAME_COLUMNS, frames)
                _fill(connection, "events", EVENT_COLUMNS, events)
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        raise _refused(out, error) from error
    return len(frames)


def export_parquet(records: Iterable[Record], out: Path) -> int:
    """Write the frames as Parquet; as `export_csv`.

    Raises
    ------
    UsageError
        pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "--parquet", "pyarrow is not installed", 'pip install "pssr-live[parquet]"'
        ) from error
    frames, _ = _tables(records)
    columns = {name: [row.get(name) for row in frames] for name in FRAME_COLUMNS}
    try:
        with out.open("xb") as file:
            parquet.write_table(pyarrow.table(columns), file)
    except OSError as error:
        raise _refused(out, error) from error
    return len(frames)


def _tables(records: Iterable[Record]) -> tuple[list[Row], list[Row]]:
    """Join each frame with its restoration; the rest are events."""
    frames: list[Row] = []
    events: list[Row] = []
    restored: dict[int, RestoredEvent] = {}
    for record in records:
        match record:
            case FrameRecord():
                frames.append(_frame(record))
            case RestoredEvent():
                restored[record.plane] = record
            case StartRecord():
                events.append(_event("start", record))
            case _:
                events.append(_event(getattr(record, "event", "stop"), record))
    for row in frames:
        found = restored.get(int(row["plane"] or 0))
        if found is not None:
            row |= {
                "restored_live": found.live,
                "latency_ms": found.latency_ms,
                "engine_ms": found.engine_ms,
                "edge": found.edge,
                "complete": found.complete,
                "t_restored_ns": found.t_recorded_ns,
                "restored_crc32": found.crc32,
            }
    return frames, events


def _frame(record: FrameRecord) -> Row:
    row: Row = {name: getattr(record, name, None) for name in FRAME_COLUMNS}
    return row | {"tags": _json(record.tags)}


def _event(kind: str, record: Record) -> Row:
    details = msgspec.to_builtins(record)
    return {
        "event": kind,
        "t_host_ns": details.pop("t_host_ns", None),
        "message": str(details.pop("message", "")),
        "details": _json(details),
    }


def _fill(
    connection: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: list[Row]
) -> None:
    names = ", ".join(f'"{column}"' for column in columns)
    places = ", ".join(f":{column}" for column in columns)
    connection.execute(f"CREATE TABLE {table} ({names})")
    connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)


def _json(value: Mapping[str, object]) -> str:
    return msgspec.json.encode(value).decode()


def _refused(out: Path, error: Exception) -> StorageError:
    return StorageError(
        f"{out} cannot be written",
        getattr(error, "strerror", None) or str(error),
        "choose a file that does not exist yet, in a folder that you may write to",
    )
