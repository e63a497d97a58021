"""Stacks whose process has died: what their files hold, and going on with them."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pssr_live.errors import StorageError
from pssr_live.record import (
    AcquisitionLog,
    PlaneInfo,
    RestoredEvent,
    RunFolder,
    StackDescription,
    StackReader,
    StackWriter,
    StartRecord,
    read_log,
)
from pssr_live.record.mend_log import cut_torn_line, read_logged, replace_superseded
from pssr_live.record.ome_xml import described, reserved_xml
from pssr_live.record.run_lock import RunLock
from pssr_live.record.stored import StoredStack

PLANES = np.random.default_rng(0).integers(0, 4096, (5, 20, 24)).astype("uint16")
STACK = StackDescription(
    name="raw",
    description="Undersampled frames.",
    height=20,
    width=24,
    dtype=np.dtype("uint16"),
    bits=12,
    pixel_size_um=0.17,
    interval_ms=270.49,
    channel="mito",
    acquired=datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC),
    annotations={"run_id": "a run"},
)


def info(plane: int) -> PlaneInfo:
    return PlaneInfo(plane + 10, plane * 250_000_000, complete=plane != 2)


def seen(path: Path) -> NDArray[Any]:
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert len(tif.series[0].asarray().reshape(-1, 20, 24)) == len(tif.pages)
        return np.stack([page.asarray() for page in tif.pages])


@pytest.mark.parametrize("order", list(itertools.permutations([0, 1, 3]))[::2])
def test_planes_that_waited_for_a_link_are_found_and_the_stack_goes_on(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    path = tmp_path / "restored.ome.tif"
    dead = StackWriter(path, STACK)
    for plane in order:
        dead.put(plane, PLANES[plane], info(plane))
    dead._file.close()
    with StoredStack(path) as stored:
        slots = [stored.slot(number) for number in range(len(stored))]
        assert [slot.info for slot in slots[:3]] == [info(plane) for plane in order]
        assert all(slot.info is None for slot in slots[3:])
        kept = dict(zip(order, slots, strict=False))
        writer = StackWriter.resume(stored, kept)
    assert writer.committed == 2
    assert writer.missing(5) == [2, 4]
    for plane in (4, 2):
        writer.put(plane, PLANES[plane], info(plane))
    writer.close(5)
    assert np.array_equal(seen(path), PLANES)
    with StackReader(path) as stack:
        assert list(stack.indices) == [10, 11, 12, 13, 14]
        assert stack.interval_ms == 270.49
        assert stack.pixel_size_um == 0.17
    with tifffile.TiffFile(path) as tif:
        assert "incomplete_planes" in (tif.ome_metadata or "")
        assert "a run" in (tif.ome_metadata or "")


def test_a_stack_is_the_same_whether_its_process_died_or_not(tmp_path: Path) -> None:
    paths = tmp_path / "undisturbed.ome.tif", tmp_path / "died.ome.tif"
    for path in paths:
        writer = StackWriter(path, STACK)
        for plane in range(5):
            writer.put(plane, PLANES[plane], info(plane))
            if path == paths[1] and plane in (1, 3):
                writer._file.close()
                with StoredStack(path) as stored:
                    kept = {number: stored.slot(number) for number in range(plane + 1)}
                    writer = StackWriter.resume(stored, kept)
        writer.close(5)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_closed_stack_can_be_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "restored.ome.tif"
    writer = StackWriter(path, STACK)
    for plane in (0, 1):
        writer.put(plane, PLANES[plane], info(plane))
    writer.close()
    with StoredStack(path) as stored:
        writer = StackWriter.resume(stored, {0: stored.slot(0), 1: stored.slot(1)})
    for plane in (2, 3, 4):
        writer.put(plane, PLANES[plane], info(plane))
    assert np.array_equal(seen(path), PLANES)
    writer.close(5)
    assert np.array_equal(seen(path), PLANES)


def test_planes_that_are_not_kept_are_let_go(tmp_path: Path) -> None:
    path = tmp_path / "restored.ome.tif"
    writer = StackWriter(path, STACK)
    for plane in range(4):
        writer.put(plane, PLANES[plane], info(plane))
    writer.close()
    with StoredStack(path) as stored:
        writer = StackWriter.resume(stored, {0: stored.slot(0), 1: stored.slot(1)})
    assert np.array_equal(seen(path), PLANES[:2])
    writer.close()
    assert np.array_equal(seen(path), PLANES[:2])


def test_a_directory_that_was_lost_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "raw.ome.tif"
    writer = StackWriter(path, STACK)
    for plane in range(3):
        writer.put(plane, PLANES[plane], info(plane))
    writer._file.close()
    with StoredStack(path) as stored:
        slots = [stored.slot(number) for number in range(3)]
    content = bytearray(path.read_bytes())
    for lost in (0, 1):
        content[slots[lost].directory_at : slots[lost].directory_at + 512] = bytes(512)
    path.write_bytes(content)
    with StoredStack(path) as stored:
        assert stored.slot(1).info is None
        kept = {n: replace(slots[n], whole=n == 2) for n in range(3)}
        writer = StackWriter.resume(stored, kept)
    writer.close(3)
    assert np.array_equal(seen(path), PLANES[:3])


@pytest.mark.parametrize("content", [b"", b"II", b"II+\0\x08\0\0\0" + bytes(8), bytes(40_000)])
def test_a_file_that_did_not_become_a_stack_is_told_from_one(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "raw.ome.tif"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not that of a stack"):
        StoredStack(path)


TEXT = st.text(max_size=30).map(
    lambda text: "".join(c for c in text if c >= " " and not 0xD800 <= ord(c) < 0xE000)
)


@settings(max_examples=60)
@given(
    name=TEXT,
    channel=TEXT,
    note=TEXT,
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    bits=st.none() | st.integers(1, 16),
    size=st.none() | st.floats(1e-3, 100),
    interval=st.none() | st.floats(1e-3, 1e6),
)
def test_what_a_stack_is_is_read_back_from_its_file(
    name: str, channel: str, note: str, dtype: str, bits: int | None, size: float | None,
    interval: float | None,
) -> None:  # fmt: skip
    stack = replace(
        STACK, name=name, channel=channel, annotations={"run_id": note}, dtype=np.dtype(dtype),
        bits=bits, pixel_size_um=size, interval_ms=interval,
    )  # fmt: skip
    xml, _ = reserved_xml(stack)
    assert reserved_xml(described(xml))[0] == xml


START = StartRecord(
    run_id="a", started=datetime(2026, 3, 1, tzinfo=UTC), t_host_ns=0, source="a scanner",
    height=20, width=24, dtype="uint16", bits=12, pixel_size_um=None, interval_ms=None, channel="",
    model="m", model_version="1", model_sha256="", scale=4, engine="e",
)  # fmt: skip


def restored_event(plane: int, crc32: int) -> RestoredEvent:
    return RestoredEvent(
        index=plane, plane=plane, t_recorded_ns=0, latency_ms=None, engine_ms=1.0, edge=False,
        complete=True, live=True, crc32=crc32,
    )  # fmt: skip


def test_only_the_last_line_of_a_restored_plane_stays(tmp_path: Path) -> None:
    log = AcquisitionLog(tmp_path / "log.jsonl")
    written = [START, *(restored_event(plane, crc) for plane, crc in [(0, 1), (1, 2), (0, 3)])]
    for record in written:
        log.write(record)
    log.close()
    replace_superseded(log.path)
    assert read_log(log.path) == [written[0], *written[2:]]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("torn", [b"", b'{"record":"fr', bytes(5000), b"{}" + bytes(9)])
def test_a_torn_line_is_cut_and_no_other(tmp_path: Path, torn: bytes) -> None:
    log = AcquisitionLog(tmp_path / "log.jsonl")
    log.write(START)
    log.event("warning", "a line")
    log.close()
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + torn)
    assert read_logged(log.path).start == START
    cut_torn_line(log.path)
    assert log.path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"", b'{"record":"sta', b'{"record":"event","event":"x"'])
def test_a_log_without_its_first_line_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="its first line is missing"):
        read_logged(path)


def test_a_folder_is_locked_once(tmp_path: Path) -> None:
    first, second = RunLock(RunFolder(tmp_path)), RunLock(RunFolder(tmp_path))
    first.take()
    with pytest.raises(StorageError, match="is in use"):
        second.take()
    second.release()
    assert RunFolder(tmp_path).lock.exists()
    first.release()
    first.release()
    assert list(tmp_path.iterdir()) == []
    second.take()
    second.release()


def test_a_disk_without_locks_does_not_keep_a_run_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: filelock.FileLock, **_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    lock = RunLock(RunFolder(tmp_path))
    with caplog.at_level(logging.WARNING):
        lock.take_if_possible()
    assert "No locks available" in caplog.text
    assert "cannot tell that this run goes on" in caplog.text
    lock.release()
    with pytest.raises(StorageError, match="No locks available"):
        lock.take()
