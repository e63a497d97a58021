"""Connection files: found by viewers, private, and no trouble when stale."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pssr_live.errors import StorageError
from pssr_live.stream import connection as module
from pssr_live.stream.connection import (
    Connection,
    DaemonFinder,
    connections,
    newest_connection,
    remove_connection,
    runtime_folder,
    write_connection,
)

needs_modes = pytest.mark.skipif(sys.platform == "win32", reason="files have no modes on Windows")


@pytest.fixture
def folder(runtime_folder: Path) -> Path:
    return runtime_folder


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


def a_connection(run_id: str, started: int = 1, **changes: Any) -> Connection:
    fields: dict[str, Any] = {
        "version": 1,
        "run_id": run_id,
        "publish": "tcp://127.0.0.1:9",
        "control": "tcp://127.0.0.1:10",
        "pid": 1,
        "started_unix_ns": started,
        "run_folder": "runs/x",
    }
    return Connection(**{**fields, **changes})


def plant(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / name).write_bytes(content)


def test_a_daemon_is_found_while_it_runs_and_not_afterwards(folder: Path) -> None:
    assert newest_connection() is None
    written = a_connection("run-1")
    path = write_connection(written)
    assert path == folder / "run-1.json"
    assert newest_connection() == written
    remove_connection(written)
    assert newest_connection() is None
    assert list(folder.iterdir()) == []
    remove_connection(written)  # gone already: not an error


def test_the_run_that_began_last_comes_first(folder: Path, listening: str) -> None:
    for run_id, started in (("b", 20), ("c", 30), ("a", 10)):
        write_connection(a_connection(run_id, started, publish=listening))
    assert [one.run_id for one in connections()] == ["c", "b", "a"]


@needs_modes
def test_folder_and_file_are_for_this_user_only(folder: Path) -> None:
    path = write_connection(a_connection("run-1"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@needs_modes
def test_a_folder_that_others_can_write_into_is_not_used(folder: Path) -> None:
    plant(folder, "run-1.json", msgspec.json.encode(a_connection("run-1")))
    folder.chmod(0o777)
    assert newest_connection() is None
    with pytest.raises(StorageError, match="others own it or can write"):
        write_connection(a_connection("run-2"))


def test_a_system_without_owners_and_modes_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "getuid", raising=False)
    write_connection(a_connection("run-1"))
    folder.chmod(0o777)
    assert newest_connection() == a_connection("run-1")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 60_000,
        b"{}",
        msgspec.json.encode(a_connection("another-name")),
        msgspec.json.encode(a_connection("bad", publish="tcp://192.168.1.7:5555")),
        msgspec.json.encode(a_connection("bad", control="tcp://127.0.0.1:*")),
        msgspec.json.encode(a_connection("bad")).replace(b'"version":1', b'"version":2'),
    ],
    ids=["empty", "torn", "no text", "deep", "no fields", "name", "address", "port", "version"],
)
def test_unreadable_files_are_left_out(folder: Path, content: bytes) -> None:
    good = a_connection("good")
    write_connection(good)
    plant(folder, "bad.json", content)
    plant(folder, ".half.tmp", msgspec.json.encode(a_connection(".half", 99)))
    assert connections() == [good]


def test_fields_of_a_later_revision_are_ignored(folder: Path) -> None:
    encoded = msgspec.json.encode(a_connection("run-1"))
    plant(folder, "run-1.json", encoded[:-1] + b',"host":"here"}')
    assert newest_connection() == a_connection("run-1")


def test_the_next_daemon_removes_files_of_killed_ones_only(folder: Path, listening: str) -> None:
    alive = a_connection("alive", 1, publish=listening)
    with socket.create_server(("127.0.0.1", 0)) as killed:
        port = killed.getsockname()[1]
        write_connection(a_connection("killed", 2, publish=f"tcp://127.0.0.1:{port}"))
        write_connection(alive)
    write_connection(a_connection("next", 3))
    assert {path.name for path in folder.iterdir()} == {"alive.json", "next.json"}


def test_a_folder_that_cannot_be_made_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PSSR_LIVE_RUNTIME_DIR", str(tmp_path / "file" / "runtime"))
    assert connections() == []
    with pytest.raises(StorageError, match="PSSR_LIVE_RUNTIME_DIR"):
        write_connection(a_connection("run-1"))
    assert connections() == []


def test_without_the_variable_it_is_the_user_s_runtime_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PSSR_LIVE_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    module._default_folder.cache_clear()
    assert runtime_folder().name == "pssr-live"


def test_a_viewer_tries_one_after_the_other_until_it_hears_something(
    folder: Path, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.0)
    for run_id, started in (("old", 1), ("newer", 2), ("newest", 3)):
        write_connection(a_connection(run_id, started, publish=listening))
    finder = DaemonFinder()

    def another(silent_s: float = float("inf"), final: bool = False) -> str | None:
        found = finder.another(final=final, silent_s=silent_s)
        return found and found.run_id

    assert [another() for _ in range(6)] == ["newest", "newer", "old", "newest", "newer", "old"]


def test_a_viewer_stays_with_a_daemon_it_hears(folder: Path, listening: str) -> None:
    finder = DaemonFinder()
    write_connection(a_connection("first", 1, publish=listening))
    assert finder.another(final=False, silent_s=float("inf")) is not None
    finder.heard()
    write_connection(a_connection("second", 2, publish=listening))
    assert finder.another(final=False, silent_s=0.4) is None
    after_the_end = finder.another(final=True, silent_s=0.4)
    assert after_the_end is not None
    assert after_the_end.run_id == "second"


def test_after_the_end_of_a_run_an_older_one_is_not_shown(folder: Path, listening: str) -> None:
    finder = DaemonFinder()
    write_connection(a_connection("older", 1, publish=listening))
    write_connection(a_connection("newer", 2, publish=listening))
    first = finder.another(final=False, silent_s=float("inf"))
    assert first is not None
    assert first.run_id == "newer"
    assert finder.another(final=True, silent_s=9.0) is None


def test_a_daemon_that_starts_while_a_silent_one_is_tried_is_taken_at_once(
    folder: Path, listening: str
) -> None:
    finder = DaemonFinder()
    write_connection(a_connection("stale", 1, publish=listening))
    assert finder.another(final=False, silent_s=float("inf")) is not None
    assert finder.another(final=False, silent_s=float("inf")) is None
    write_connection(a_connection("fresh", 2, publish=listening))
    found = finder.another(final=False, silent_s=float("inf"))
    assert found is not None
    assert found.run_id == "fresh"
