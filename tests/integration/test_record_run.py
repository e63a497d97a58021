from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tifffile

from pssr_live.errors import SourceError, StorageError
from pssr_live.frames import Frame, Restored
from pssr_live.model import Manifest
from pssr_live.record import (
    AcquisitionLog,
    FrameRecord,
    LostEvent,
    PlaneIndex,
    RawRecorder,
    RestoredEvent,
    RestoredRecorder,
    RunFolder,
    SkippedLiveEvent,
    StackReader,
    StopRecord,
    Summary,
    read_log,
    verify,
)
from pssr_live.source import StreamInfo

FILE = {"file": "n.onnx", "sha256": "ab" * 32}
MODEL = msgspec.convert(
    {
        "format": 1,
        "name": "neuron_mf",
        "version": "1.0",
        "description": "",
        "licence": "",
        "network": FILE,
        "test_pair": FILE,
        "card": FILE,
        "window_length": 5,
        "centre": 2,
        "scale": 4,
        "normalisation": "window-zscore",
        "min_size": 8,
        "max_size": 4096,
        "pixel_size_um": (0.1, 0.3),
        "trained_on": "",
    },
    Manifest,
)
INFO = StreamInfo("a scanner", 12, 16, np.dtype("uint16"), 12, 0.17, 250.0, "mito")
INDICES = [0, 1, 2, 5, 6, 7]  # the source lost 3 and 4


def raw_frame(index: int, /, *, truth: bool = False, **changes: Any) -> Frame:
    pixels = np.random.default_rng(index).integers(0, 4096, (12, 16)).astype("uint16")
    values: dict[str, Any] = {
        "pixels": pixels,
        "index": index,
        "t_source_ns": index * 250_000_000,
        "t_host_ns": 1000 + index,
        "pixel_size_um": 0.17,
        "channel": "mito",
        "tags": {"ImageNumber": index},
        "truth": np.kron(pixels, np.ones((4, 4), np.uint16)).astype("float32") if truth else None,
    }
    return Frame(**(values | changes))


def restored_frame(index: int, *, live: bool = True) -> Restored:
    return Restored(
        pixels=np.random.default_rng(100 + index).integers(0, 4096, (48, 64)).astype("uint16"),
        index=index,
        t_source_ns=index * 250_000_000,
        pixel_size_um=0.0425,
        channel="mito",
        model="neuron_mf",
        model_sha256="ab" * 32,
        engine="openvino fp32 on CPU",
        engine_ms=50.12345,
        latency_ms=61.98765 if live else None,
        edge=index in (0, 1, 6, 7),
        complete=index not in (1, 2, 5, 6),
        live=live,
    )


class Run:
    """The recording end of a run: a folder, a log and two recorders."""

    def __init__(self, out: Path) -> None:
        self.folder = RunFolder.create(out, "sim", "neuron_mf")
        self.log = AcquisitionLog(self.folder.log)
        self.planes = PlaneIndex()
        started = datetime.now(UTC)
        kept = {"run_id": self.folder.name}
        self.raw = RawRecorder(
            self.folder, self.log, self.planes, started=started, annotations=kept
        )
        self.restored = RestoredRecorder(
            self.folder, self.log, self.planes, model=MODEL, started=started, annotations=kept
        )
        self.raw.open(INFO)
        self.restored.open(INFO)

    def record(self, raw: list[int], restored: list[int]) -> None:
        for index in raw:
            self.raw.put(raw_frame(index))
        for index in restored:
            self.restored.put(restored_frame(index))

    def stop(self) -> None:
        self.log.write(
            StopRecord(stopped=datetime.now(UTC), t_host_ns=1, reason="done", summary=Summary())
        )

    def close(self) -> None:
        self.raw.close()
        self.restored.close()
        self.log.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    started = Run(tmp_path)
    yield started
    # Closing is idempotent, so that a test may have closed in its own way.
    started.raw.close()
    with contextlib.suppress(StorageError):
        started.restored.close()
    started.log.close()


def test_a_run_leaves_two_stacks_of_equal_length_and_a_log_that_agree(run: Run) -> None:
    run.record(INDICES, [0, 1, 2])
    run.restored.skip([5, 6], "the engine is behind")
    run.record([], [7])
    assert (run.raw.recorded, run.restored.restored, run.restored.committed) == (6, 4, 3)
    events = read_log(run.folder.log)
    lost = [e for e in events if isinstance(e, LostEvent)]
    assert sum(event.last_index - event.first_index + 1 for event in lost) == 2
    assert [e.indices for e in events if isinstance(e, SkippedLiveEvent)] == [[5, 6]]
    assert run.restored.missing() == [3, 4]
    for plane in run.restored.missing():
        run.restored.put(restored_frame(INDICES[plane], live=False))
    run.stop()
    run.close()

    raw, restored = tifffile.imread(run.folder.raw), tifffile.imread(run.folder.restored)
    assert np.array_equal(raw, [raw_frame(index).pixels for index in INDICES])
    assert np.array_equal(restored, [restored_frame(index).pixels for index in INDICES])
    for path in (run.folder.raw, run.folder.restored):
        with StackReader(path) as stack:
            assert list(stack.indices) == INDICES
            assert list(stack.times_ns) == [index * 250_000_000 for index in INDICES]
    with StackReader(run.folder.restored) as stack:
        assert stack.pixel_size_um == 0.0425
        assert [info.live for info in stack.infos if info] == [True] * 3 + [False] * 2 + [True]

    report = verify(run.folder)
    assert (report.raw_planes, report.restored_planes, report.ended) == (6, 6, True)
    assert report.problems == ()
    assert report.notes == ()


def test_the_log_has_a_line_for_every_frame_and_every_event(run: Run) -> None:
    run.record([4, 5, 8], [5, 4])
    run.restored.skip([8], "the engine is behind")
    records = read_log(run.folder.log)
    assert [(type(record).__name__, getattr(record, "index", None)) for record in records] == [
        ("FrameRecord", 4),
        ("FrameRecord", 5),
        ("LostEvent", None),
        ("FrameRecord", 8),
        ("RestoredEvent", 5),
        ("RestoredEvent", 4),
        ("SkippedLiveEvent", None),
    ]
    _, _, lost, frame, restored, _, skipped = records
    assert isinstance(lost, LostEvent)
    assert (lost.first_index, lost.last_index) == (6, 7)
    assert isinstance(frame, FrameRecord)
    assert (frame.plane, frame.lost_before, frame.t_source_ns) == (2, 2, 2_000_000_000)
    assert frame.tags == {"ImageNumber": 8}
    assert isinstance(restored, RestoredEvent)
    assert (restored.plane, restored.latency_ms, restored.engine_ms) == (1, 61.988, 50.123)
    assert (restored.edge, restored.complete, restored.live) == (False, False, True)
    assert isinstance(skipped, SkippedLiveEvent)
    assert (skipped.indices, skipped.reason) == ([8], "the engine is behind")


def test_ground_truth_is_recorded_beside_the_raw_frames(run: Run) -> None:
    for index in INDICES:
        run.raw.put(raw_frame(index, truth=True))
    run.raw.close()
    truth = tifffile.imread(run.folder.truth)
    assert truth.dtype == np.float32
    assert np.array_equal(truth[:, ::4, ::4], tifffile.imread(run.folder.raw))
    with StackReader(run.folder.truth) as stack:
        assert stack.name == "ground truth (simulated)"
        assert list(stack.indices) == INDICES
        assert stack.pixel_size_um == 0.0425


def test_without_ground_truth_there_is_no_truth_file(run: Run) -> None:
    run.record([0], [0])
    run.close()
    names = sorted(path.name for path in run.folder.path.iterdir())
    assert names == ["log.jsonl", "raw.ome.tif", "restored.ome.tif"]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"pixels": np.zeros((12, 17), "uint16")}, "frame 1 is"),
        ({"pixels": np.zeros((12, 16), "uint8")}, "frame 1 is"),
        ({"index": 0}, "frame 0 came after frame 0"),
    ],
)
def test_a_frame_that_does_not_follow_is_an_error_and_nothing_is_lost(
    run: Run, changed: dict[str, Any], what: str
) -> None:
    run.record([0], [0])
    with pytest.raises(SourceError, match=what):
        run.raw.put(raw_frame(1, **changed))
    run.close()
    report = verify(run.folder)
    assert (report.raw_planes, report.restored_planes, report.problems) == (1, 1, ())


def test_a_restored_frame_waits_for_its_raw_frame(run: Run) -> None:
    waiting = threading.Thread(target=run.restored.put, args=(restored_frame(1),))
    waiting.start()
    run.raw.put(raw_frame(0))
    assert run.restored.restored == 0
    run.raw.put(raw_frame(1))
    waiting.join()
    assert run.restored.restored == 1
    records = read_log(run.folder.log)
    assert [type(record) for record in records] == [FrameRecord, FrameRecord, RestoredEvent]


def test_nobody_waits_for_a_raw_frame_that_cannot_be_recorded(run: Run) -> None:
    failures: list[StorageError] = []

    def restore() -> None:
        try:
            run.restored.put(restored_frame(1))
        except StorageError as error:
            failures.append(error)

    waiting = threading.Thread(target=restore)
    waiting.start()
    with pytest.raises(SourceError):
        run.raw.put(raw_frame(1, pixels=np.zeros((3, 3), "uint16")))
    waiting.join()
    assert "raw frame is not in the raw stack" in str(failures[0])


def test_a_restored_stack_that_lacks_planes_says_so_when_closed(run: Run) -> None:
    run.record(INDICES, [0, 1, 5])
    run.raw.close()
    with pytest.raises(StorageError, match=r"restored\.ome\.tif has 2 of 6 planes"):
        run.restored.close()
    assert len(tifffile.imread(run.folder.restored)) == 2
    run.stop()
    report = verify(run.folder)
    assert [str(problem) for problem in report.problems] == [
        "restored.ome.tif: has 2 planes, the raw stack has 6"
    ]
    assert "wait for plane 2" in report.notes[0]


def test_an_empty_run_leaves_only_its_log(run: Run) -> None:
    run.stop()
    run.close()
    assert [path.name for path in run.folder.path.iterdir()] == ["log.jsonl"]
    report = verify(run.folder)
    assert (report.raw_planes, report.restored_planes, report.problems) == (0, 0, ())


def test_verify_of_a_run_that_goes_on_finds_no_problem(run: Run) -> None:
    run.record(INDICES, [0, 1, 5])
    report = verify(run.folder)
    assert (report.raw_planes, report.restored_planes, report.problems) == (6, 2, ())
    waiting, not_ended = report.notes
    assert "1 restored planes wait for plane 2" in waiting
    assert "still running" in not_ended


@pytest.fixture
def ended(run: Run) -> Run:
    run.record(INDICES, INDICES)
    run.stop()
    run.close()
    return run


def test_verify_shows_its_progress(ended: Run) -> None:
    seen: list[tuple[int, int]] = []
    verify(ended.folder, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in range(1, 13)]


def test_verify_finds_a_changed_pixel(ended: Run) -> None:
    for path, plane in ((ended.folder.raw, 3), (ended.folder.restored, 5)):
        with tifffile.TiffFile(path) as tif:
            offset = tif.pages[plane].dataoffsets[0]
        content = bytearray(path.read_bytes())
        content[offset + 17] ^= 1
        path.write_bytes(content)
    assert [str(problem) for problem in verify(ended.folder).problems] == [
        "raw.ome.tif, plane 3: its pixels are not those that were logged",
        "restored.ome.tif, plane 5: its pixels are not those that were logged",
    ]


def edit_log(folder: RunFolder, *, drop: int) -> None:
    lines = folder.log.read_bytes().splitlines(keepends=True)
    del lines[drop]
    folder.log.write_bytes(b"".join(lines))


def test_verify_finds_a_missing_file(ended: Run) -> None:
    ended.folder.restored.unlink()
    problems = [str(problem) for problem in verify(ended.folder).problems]
    assert any("No such file" in problem for problem in problems)
    assert "restored.ome.tif: has 0 planes, the raw stack has 6" in problems


def test_verify_finds_stacks_that_are_not_of_this_run(ended: Run, tmp_path: Path) -> None:
    other = Run(tmp_path)
    other.record([0, 1, 2], [0, 1, 2])
    other.close()
    shutil.copy(other.folder.raw, ended.folder.raw)
    problems = [str(problem) for problem in verify(ended.folder).problems]
    assert problems == [
        *(f"raw.ome.tif, plane {plane}: is in the log but not in the file" for plane in (3, 4, 5)),
        "restored.ome.tif: has 6 planes, the raw stack has 3",
    ]


def test_verify_finds_planes_that_the_log_does_not_know(ended: Run) -> None:
    edit_log(ended.folder, drop=-2)  # the last restored event
    problems = [str(problem) for problem in verify(ended.folder).problems]
    assert problems == ["restored.ome.tif, plane 5: is in the file but not in the log"]
    edit_log(ended.folder, drop=1)  # the second frame
    problems = [str(problem) for problem in verify(ended.folder).problems]
    assert "raw.ome.tif, plane 1: the log has plane 2 in its place" in problems


def test_verify_finds_planes_of_other_frames(ended: Run) -> None:
    log = AcquisitionLog(ended.folder.log)
    for record in read_log(ended.folder.log):
        if isinstance(record, RestoredEvent) and record.plane == 3:
            log.write(msgspec.structs.replace(record, index=4))
    log.close()
    assert [str(problem) for problem in verify(ended.folder).problems] == [
        "restored.ome.tif: the log has a plane twice",
        "restored.ome.tif, plane 3: is not the plane of raw frame 4",
        "restored.ome.tif, plane 3: holds frame 5, the log says frame 4",
    ]


def test_verify_finds_a_stack_that_was_cut(ended: Run) -> None:
    path = ended.folder.restored
    with tifffile.TiffFile(path) as tif:
        strip = tif.pages[4].tags["StripOffsets"]
        size = path.stat().st_size
    content = bytearray(path.read_bytes())
    content[strip.valueoffset : strip.valueoffset + 8] = size.to_bytes(8, "little")
    path.write_bytes(content)
    (problem,) = verify(ended.folder).problems
    assert (problem.file, problem.plane) == ("restored.ome.tif", 4)


def test_verify_takes_a_torn_last_line_for_what_it_is(ended: Run) -> None:
    content = ended.folder.log.read_bytes().splitlines(keepends=True)
    ended.folder.log.write_bytes(b"".join(content[:-2]) + content[-2][:30])
    report = verify(ended.folder)
    assert report.problems == ()
    assert report.notes[0] == "restored.ome.tif: plane 5 was written but not acknowledged"
