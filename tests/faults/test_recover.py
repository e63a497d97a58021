"""A run whose daemon has died is finished, whatever the moment of its death, and of the helper's.

Death is played back: everything that one run writes is kept in order, and a folder is made of the
first so many writes. That gives every state in which a killed process can leave its files.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, TypeGuard

import msgspec
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from pssr_live import offline
from pssr_live import recover as recover_module
from pssr_live.engine.restore import Restorer
from pssr_live.errors import ModelError, StorageError
from pssr_live.model import find_model
from pssr_live.record import (
    AcquisitionLog,
    Event,
    FrameRecord,
    Record,
    RunFolder,
    StopRecord,
    iter_log,
    read_log,
    verify,
)
from pssr_live.record import stack as stack_module
from pssr_live.recover import Recovered, recover
from pssr_live.session import Session
from pssr_live.settings import RunSettings, SimSettings

SIDE, FRAMES = 32, 7
STACKS = ("raw.ome.tif", "truth.ome.tif", "restored.ome.tif")
Write = tuple[str, int | None, bytes]
"""File, where (None: the file as a whole), what."""


class Tape:
    """What is written, in order; from some write on, nothing is."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.dies_at: int | None = None
        self._lock = threading.RLock()

    def write(self, file: str, at: int | None, data: bytes, really: Callable[[bytes], Any]) -> Any:
        with self._lock:
            if self.dies_at is not None and len(self.writes) >= self.dies_at:
                raise Death
            self.writes.append((file, at, data))
            if self.dies_at == len(self.writes) and at is not None:
                data = data[: len(data) // 2] if len(data) > 512 else data
            return really(data)


class Death(BaseException):
    """Nothing of the process happens after this."""


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Tape:
    """All that is written into a run folder in this test."""
    return taped(monkeypatch)


def taped(patch: pytest.MonkeyPatch) -> Tape:
    tape = Tape()

    class TapedFile(FileIO):
        def write(self, data: Any, /) -> int:
            write = super().write
            name, at = Path(str(self.name)).name, self.tell()
            tape.write(name, at, bytes(data), write)
            return len(data)

        def truncate(self, size: int | None = None, /) -> int:
            name, truncate = Path(str(self.name)).name, super().truncate
            tape.write(name, size, b"", lambda _: truncate(size))
            return size or 0

    log, document = AcquisitionLog.write, RunFolder.write_run_json

    def write_line(self: AcquisitionLog, record: Record) -> None:
        line = msgspec.json.encode(record) + b"\n"
        tape.write(self.path.name, 0, line, lambda _: log(self, record))

    def write_document(self: RunFolder, content: Mapping[str, Any]) -> None:
        tape.write(
            "run.json", None, msgspec.json.encode(content), lambda _: document(self, content)
        )

    patch.setattr(stack_module, "create_file", lambda path: TapedFile(path, "xb"))
    patch.setattr(stack_module, "open_file", lambda path: TapedFile(path, "r+b"))
    patch.setattr(AcquisitionLog, "write", write_line)
    patch.setattr(RunFolder, "write_run_json", write_document)
    return tape


class Played:
    """One run that ended in order, and all that it wrote."""

    def __init__(self, folder: RunFolder, writes: list[Write]) -> None:
        self.folder = folder
        self.writes = writes
        self.planes = {name: tifffile.imread(folder.path / name) for name in STACKS}
        # Before that, there is no run folder to speak of.
        self.first = next(n for n, (file, _, _) in enumerate(writes, 1) if file == "log.jsonl")

    def dead_at(self, moment: int, path: Path) -> RunFolder:
        """Make the folder that death leaves after so many writes."""
        path.mkdir()
        contents: dict[str, bytearray] = {}
        for file, at, data in self.writes[:moment]:
            content = contents.setdefault(file, bytearray())
            if at is None:
                content[:] = data
            else:
                at = len(content) if file == "log.jsonl" else at
                content.extend(bytes(max(0, at + len(data) - len(content))))
                content[at : at + len(data)] = data
        for file, content in contents.items():
            (path / file).write_bytes(content)
        return RunFolder.open(path)

    def acknowledged(self, moment: int) -> int:
        return sum(b'"record":"frame"' in data for _, _, data in self.writes[:moment])


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[None]:
    """One model and engine for all, which is not what is tested here."""
    model = find_model("neuron_mf")
    restorer = Restorer(model, "openvino", None, SIDE, SIDE)
    close = restorer.close
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restorer, "close", lambda: None)
        patch.setattr(recover_module, "find_model", lambda _: model)
        patch.setattr(offline, "find_model", lambda _: model)
        patch.setattr(recover_module, "Restorer", lambda *_: restorer)
        patch.setattr(offline, "Restorer", lambda *_: restorer)
        yield
    close()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A run that lost frames at the source and skipped some live."""
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSSR_LIVE_RUNTIME_DIR", str(out / "runtime"))
        tape = taped(patch)
        return Played(run(out / "runs"), tape.writes)


def run(out: Path) -> RunFolder:
    sim = SimSettings(interval_ms=0, size=SIDE, truth=True, drop_rate=0.2)
    session = Session(RunSettings(out=str(out), frames=FRAMES, engine="openvino", sim=sim))
    session.start()
    assert session.wait(60)
    result = session.finish()
    assert result.errors == ()
    return result.folder


@pytest.fixture
def expected(
    played: Played, shared_engine: None, tmp_path: Path
) -> Callable[[int], NDArray[np.uint16]]:
    """What `pssr-live restore` makes of the first so many raw frames."""
    known: dict[int, NDArray[np.uint16]] = {}

    def restored(planes: int) -> NDArray[np.uint16]:
        if planes not in known:
            known[planes] = restored_offline(played, planes, tmp_path / f"first-{planes}")
        return known[planes]

    return restored


def restored_offline(played: Played, planes: int, path: Path) -> NDArray[np.uint16]:
    lines = (n for n, write in enumerate(played.writes, 1) if b'"record":"frame"' in write[2])
    folder = played.dead_at([0, *lines][planes], path)
    offline.restore_file(
        folder.raw, path / "again.tif", model="neuron_mf", engine="openvino", precision=None,
        on_plane=lambda *_: None,
    )  # fmt: skip
    return stack(path / "again.tif")


def stack(path: Path) -> NDArray[Any]:
    """All planes that any reader sees, as one series; none if there is no stack (yet)."""
    if not path.exists() or path.read_bytes()[:16] == stack_module.HEADER:
        return np.zeros((0, SIDE, SIDE), np.uint16)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        series = tif.series[0].asarray()
        pages = np.stack([page.asarray() for page in tif.pages])
    series = series.reshape(-1, *series.shape[-2:])
    assert np.array_equal(series, pages)
    return pages


def check_whole(
    folder: RunFolder, played: Played, expected: Callable[[int], NDArray[np.uint16]], least: int
) -> int:
    """The run is as one that ended in order, with so many frames or more; say how many."""
    raw = stack(folder.raw)
    planes = len(raw)
    assert planes >= least
    assert np.array_equal(raw, played.planes["raw.ome.tif"][:planes])
    if planes:
        assert np.array_equal(stack(folder.truth), played.planes["truth.ome.tif"][:planes])
        assert np.array_equal(stack(folder.restored), expected(planes))
    else:
        assert not folder.truth.exists()
        assert not folder.restored.exists()
    report = verify(folder)
    assert (report.raw_planes, report.restored_planes) == (planes, planes)
    assert (report.ended, report.problems, report.notes) == (True, (), ())
    *_, stop = read_log(folder.log)
    assert isinstance(stop, StopRecord)
    summary = folder.read_run_json()["summary"]
    assert summary == msgspec.to_builtins(stop.summary)
    assert summary["frames_recorded"] == summary["frames_restored"] == planes
    assert sorted(path.name for path in folder.path.iterdir()) == sorted(
        ["log.jsonl", "run.json", *(STACKS if planes else ())]
    )
    return planes


def test_death_at_any_moment_leaves_a_run_that_can_be_finished(
    played: Played, expected: Callable[[int], NDArray[np.uint16]], tmp_path: Path
) -> None:
    for moment in range(played.first, len(played.writes) + 1):
        folder = played.dead_at(moment, tmp_path / str(moment))
        recover(folder)
        check_whole(folder, played, expected, played.acknowledged(moment))
        before = {path: path.read_bytes() for path in folder.path.iterdir()}
        assert recover(folder) is None
        assert before == {path: path.read_bytes() for path in folder.path.iterdir()}
        shutil.rmtree(folder.path)


def test_what_was_restored_live_keeps_its_latency_and_is_not_logged_twice(
    played: Played, shared_engine: None, tmp_path: Path
) -> None:
    folder = played.dead_at(len(played.writes) - 3, tmp_path / "run")
    before = folder.log.read_bytes()
    done = recover(folder)
    assert done is not None
    assert done.planes == FRAMES
    assert folder.log.read_bytes().startswith(before)


def test_death_of_the_recovery_at_any_moment_costs_nothing(
    played: Played,
    expected: Callable[[int], NDArray[np.uint16]],
    tape: Tape,
    tmp_path: Path,
) -> None:
    lines = [n for n, write in enumerate(played.writes, 1) if b'"record":"frame"' in write[2]]
    moment = lines[5] - 1  # five frames have a line, the sixth is whole without one
    writes = 1
    while True:
        folder = played.dead_at(moment, tmp_path / str(writes))
        tape.writes, tape.dies_at = [], writes
        try:
            recover(folder)
        except Death:
            tape.dies_at = None
            for name in ("raw.ome.tif", "truth.ome.tif"):
                with tifffile.TiffFile(folder.path / name) as tif:
                    assert len(tif.pages) >= 5
                    assert tif.is_ome
            recover(folder)
            assert check_whole(folder, played, expected, 5) == 6
        else:
            break
        writes += 1
    assert writes > 20


def test_a_log_torn_at_any_byte_costs_no_frame(
    played: Played, expected: Callable[[int], NDArray[np.uint16]], tmp_path: Path
) -> None:
    dead = played.dead_at(len(played.writes) - 2, tmp_path / "dead")
    first_line = dead.log.read_bytes().index(b"\n") + 1
    for cut in range(first_line, dead.log.stat().st_size, 97):
        folder = RunFolder(shutil.copytree(dead.path, tmp_path / str(cut)))
        os.truncate(folder.log, cut)
        recover(folder)
        assert check_whole(folder, played, expected, FRAMES) == FRAMES
        shutil.rmtree(folder.path)


def test_frames_whose_line_is_lost_say_so(
    played: Played, shared_engine: None, tmp_path: Path
) -> None:
    folder = played.dead_at(len(played.writes) - 2, tmp_path / "dead")
    whole = [record for record in iter_log(folder.log) if isinstance(record, FrameRecord)]
    os.truncate(folder.log, folder.log.read_bytes().index(b"\n") + 1)
    done = recover(folder)
    assert done == Recovered(planes=FRAMES, acknowledged=FRAMES, restored=FRAMES)
    again = [record for record in iter_log(folder.log) if isinstance(record, FrameRecord)]
    kept = ("index", "plane", "t_source_ns", "crc32", "lost_before")
    for one, other in zip(whole, again, strict=True):
        assert [getattr(one, name) for name in kept] == [getattr(other, name) for name in kept]
        assert other.tags == {"recovered": True}


def test_a_restored_stack_cut_at_any_byte_is_made_whole_again(
    played: Played, expected: Callable[[int], NDArray[np.uint16]], tmp_path: Path
) -> None:
    dead = played.dead_at(len(played.writes) - 2, tmp_path / "dead")
    size = dead.restored.stat().st_size
    for cut in [*range(0, 40, 13), *range(40, size, size // 40)]:
        folder = RunFolder(shutil.copytree(dead.path, tmp_path / str(cut)))
        os.truncate(folder.restored, cut)
        recover(folder)
        check_whole(folder, played, expected, FRAMES)
        shutil.rmtree(folder.path)


def test_a_raw_stack_cut_at_any_byte_keeps_what_is_there_and_says_what_is_lost(
    played: Played, expected: Callable[[int], NDArray[np.uint16]], tmp_path: Path
) -> None:
    dead = played.dead_at(len(played.writes) - 2, tmp_path / "dead")
    size = dead.raw.stat().st_size
    with tifffile.TiffFile(dead.raw) as tif:
        pixels_at = [page.dataoffsets[0] for page in tif.pages]
    for cut in range(pixels_at[0] + 1, size, 997):
        folder = RunFolder(shutil.copytree(dead.path, tmp_path / str(cut)))
        os.truncate(folder.raw, cut)
        whole = sum(at + SIDE * SIDE * 2 <= cut for at in pixels_at)
        if whole == FRAMES:
            recover(folder)
        else:
            with pytest.raises(StorageError, match=f"{FRAMES - whole} acknowledged frames"):
                recover(folder)
        raw = stack(folder.raw)
        assert np.array_equal(raw, played.planes["raw.ome.tif"][:whole])
        if whole:
            assert np.array_equal(stack(folder.restored), expected(whole))
        shutil.rmtree(folder.path)


def test_a_raw_stack_without_its_beginning_is_left_alone(
    played: Played, shared_engine: None, tmp_path: Path
) -> None:
    folder = played.dead_at(len(played.writes) - 2, tmp_path / "dead")
    os.truncate(folder.raw, 100)
    with pytest.raises(StorageError, match="its beginning is damaged"):
        recover(folder)
    assert folder.raw.stat().st_size == 100
    assert folder.read_run_json()["summary"] is None


def test_a_plane_restored_live_from_a_frame_that_was_not_recorded_is_restored_again(
    played: Played, expected: Callable[[int], NDArray[np.uint16]], tmp_path: Path
) -> None:
    """Death came with the last two frames in the queue, and their neighbours restored already."""
    folder = played.dead_at(len(played.writes) - 2, tmp_path / "dead")
    lines = [
        line
        for line in folder.log.read_bytes().splitlines(keepends=True)
        if not any(b'"plane":%d,' % plane in line for plane in (FRAMES - 2, FRAMES - 1))
    ]
    folder.log.write_bytes(b"".join(lines))
    with tifffile.TiffFile(folder.raw) as tif:
        cut = tif.pages[FRAMES - 2].dataoffsets[0]
    os.truncate(folder.raw, cut)
    recover(folder)
    assert check_whole(folder, played, expected, 1) == FRAMES - 2


def test_a_run_that_goes_on_is_refused_and_not_touched(tmp_path: Path) -> None:
    sim = SimSettings(interval_ms=20, size=SIDE)
    session = Session(RunSettings(out=str(tmp_path / "runs"), engine="openvino", sim=sim))
    session.start()
    try:
        with pytest.raises(StorageError, match="its run still goes on") as caught:
            recover(session.folder)
        assert caught.value.exit_code == 6
    finally:
        session.request_stop("seen enough")
        result = session.finish()
    assert result.errors == ()
    assert recover(session.folder) is None
    assert not session.folder.lock.exists()


@pytest.mark.parametrize("which", [0, 1, 3])
def test_without_the_model_the_raw_stack_is_finished_and_the_restored_one_kept(
    played: Played,
    expected: Callable[[int], NDArray[np.uint16]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    which: int,
) -> None:
    restored = [n for n, write in enumerate(played.writes, 1) if b'"event":"restored"' in write[2]]
    moment = restored[which]
    folder = played.dead_at(moment, tmp_path / "run")
    logged = played.acknowledged(moment)
    seen = stack(folder.restored)

    def gone(name: str) -> Any:
        raise ModelError(f"model {name}", "it is not installed", "install it")

    with monkeypatch.context() as patch:
        patch.setattr(recover_module, "find_model", gone)
        with pytest.raises(ModelError, match="model neuron_mf: it is not installed; install it"):
            recover(folder)
    assert len(stack(folder.raw)) >= logged
    assert len(stack(folder.truth)) == len(stack(folder.raw))
    assert np.array_equal(stack(folder.restored), seen)
    assert len(seen) < len(stack(folder.raw))
    assert verify(folder).problems == ()
    assert recover(folder) is not None
    check_whole(folder, played, expected, logged)


def test_a_model_that_has_moved_is_taken_from_where_it_is_now(
    played: Played, shared_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = played.dead_at(played.first + 40, tmp_path / "run")
    asked: list[str] = []
    monkeypatch.setattr(
        recover_module, "find_model", lambda name: asked.append(name) or find_model("neuron_mf")
    )
    assert recover(folder, model="elsewhere/my_model") is not None
    assert asked == ["elsewhere/my_model"]


def test_another_version_of_the_engine_is_told_in_the_log(
    played: Played, shared_engine: None, tmp_path: Path
) -> None:
    folder = played.dead_at(played.first + 40, tmp_path / "run")
    document = folder.read_run_json()
    document["engine"]["version"] = "2019.1"
    folder.write_run_json(document)
    assert recover(folder) is not None
    warnings = [record.message for record in iter_log(folder.log) if is_warning(record)]
    assert len(warnings) == 1
    assert "(version 2019.1), these by openvino" in warnings[0]


def is_warning(record: Record) -> TypeGuard[Event]:
    return isinstance(record, Event) and record.event == "warning"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"summary":null,"settings":{"model":1}}'])
def test_a_damaged_run_json_is_said_so_and_nothing_is_touched(
    played: Played, tmp_path: Path, content: bytes
) -> None:
    folder = played.dead_at(played.first + 40, tmp_path / "run")
    folder.run_json.write_bytes(content)
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    with pytest.raises(StorageError, match=r"run\.json cannot be"):
        recover(folder)
    assert before == {path: path.read_bytes() for path in folder.path.iterdir()}


def test_another_network_of_the_same_name_is_refused(
    played: Played, shared_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = played.dead_at(played.first + 40, tmp_path / "run")
    monkeypatch.setattr(recover_module, "find_model", lambda _: find_model("neuron_sf"))
    with pytest.raises(ModelError, match="its network is not that of the run"):
        recover(folder)


def test_a_disk_without_room_is_an_error_before_anything_is_touched(
    played: Played, shared_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = played.dead_at(played.first + 40, tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(recover_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="needs 1 MB of disk, and 0 MB are free"):
        recover(folder)
    assert before == {path: path.read_bytes() for path in folder.path.iterdir()}


def test_progress_is_told(played: Played, shared_engine: None, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    folder = played.dead_at(played.first + 60, tmp_path / "run")
    done = recover(folder, lambda *what: told.append(what))
    assert done is not None
    restoring = [(at, total) for what, at, total in told if what == "restoring"]
    assert restoring == [(n, done.restored) for n in range(1, done.restored + 1)]
    assert any(what == "checking planes" for what, _, _ in told)


DAEMON = (
    "--scope", "sim", "--size", "32", "--interval-ms", "5", "--engine", "openvino", "--no-view",
    "--truth",
)  # fmt: skip


def acknowledged(out: Path) -> int:
    records = [record for log in out.glob("*/log.jsonl") for record in iter_log(log)]
    return sum(isinstance(record, FrameRecord) for record in records)


@pytest.mark.parametrize("frames", [1, 30])
def test_a_killed_daemon_leaves_a_run_that_recover_finishes(tmp_path: Path, frames: int) -> None:
    out = tmp_path / "runs"
    command = [sys.executable, "-m", "pssr_live"]
    with subprocess.Popen(
        [*command, *DAEMON, "--out", str(out)], stderr=subprocess.PIPE, text=True
    ) as daemon:
        try:
            while acknowledged(out) < frames:
                assert daemon.poll() is None, daemon.communicate()[1]
                threading.Event().wait(0.005)
        finally:
            daemon.kill()
    (path,) = out.iterdir()
    helper = subprocess.Popen([*command, "recover", str(path)], stderr=subprocess.DEVNULL)
    with helper:  # dies too, somewhere
        threading.Event().wait(random.Random(frames).random())
        helper.kill()
    done = subprocess.run([*command, "recover", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "is finished" in done.stdout or "ended in order" in done.stdout
    report = verify(RunFolder.open(path))
    assert report.ended
    assert report.problems == ()
    assert report.raw_planes == report.restored_planes >= frames
    undisturbed = run_like_the_daemon(tmp_path / "undisturbed", report.raw_planes)
    for name in STACKS:
        assert np.array_equal(stack(path / name), stack(undisturbed.path / name))


def run_like_the_daemon(out: Path, frames: int) -> RunFolder:
    sim = SimSettings(interval_ms=5, size=SIDE, truth=True)
    session = Session(RunSettings(out=str(out), frames=frames, engine="openvino", sim=sim))
    session.start()
    assert session.wait(60)
    assert session.finish().errors == ()
    return session.folder
