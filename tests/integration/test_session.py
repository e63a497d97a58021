"""A run whose parts misbehave: raw frames come first, nothing is lost silently, stop is orderly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from pssr_live import session as session_module
from pssr_live.engine.live import LiveRestorer
from pssr_live.engine.openvino import OpenVINOEngine
from pssr_live.errors import EngineError, SourceError, StorageError
from pssr_live.frames import Frame, Restored
from pssr_live.record import RestoredEvent, read_log
from pssr_live.record.recorder import RestoredRecorder
from pssr_live.record.stack import PlaneInfo, StackWriter
from pssr_live.session import LEGAL, Phase, RunResult, Session
from pssr_live.settings import RunSettings
from pssr_live.source import StreamInfo

SIZE = 48


class Scripted:
    """A source that delivers what the test wants, when it wants."""

    def __init__(self, frames: int) -> None:
        self.frames_to_give = frames
        self.stopped = threading.Event()
        self.closed = False
        self.pixel_size_um = 0.17
        self.before: Callable[[int], object] = lambda _: None
        self.pixels: Callable[[int], NDArray[np.generic]] = self._noise
        self.index: Callable[[int], int] = lambda number: number

    def open(self) -> StreamInfo:
        return StreamInfo(
            source="a script",
            height=SIZE,
            width=SIZE,
            dtype=np.dtype(np.uint16),
            bits=16,
            pixel_size_um=self.pixel_size_um,
            interval_ms=None,
        )

    def frames(self) -> Iterator[Frame]:
        for number in range(self.frames_to_give):
            if self.stopped.is_set():
                return
            self.before(number)
            yield Frame(
                pixels=self.pixels(number),
                index=self.index(number),
                t_source_ns=number * 1000,
                t_host_ns=time.monotonic_ns(),
                pixel_size_um=self.pixel_size_um,
            )

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        self.closed = True

    def _noise(self, number: int) -> NDArray[np.uint16]:
        return np.random.default_rng(number).integers(0, 4000, (SIZE, SIZE), np.uint16)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    source = Scripted(20)
    monkeypatch.setattr(session_module, "make_source", lambda _: source)
    return source


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    return RunSettings(out=str(tmp_path / "runs"), engine="openvino")


def run(settings: RunSettings) -> RunResult:
    session = Session(settings)
    session.start()
    assert session.wait(60)
    return session.finish()


def planes(path: Path) -> int:
    with tifffile.TiffFile(path) as file:
        return len(file.pages)


def test_the_source_is_closed_and_both_stacks_are_complete(
    scripted: Scripted, settings: RunSettings
) -> None:
    result = run(settings)
    assert result.errors == ()
    assert result.reason == "the source has no more frames"
    assert scripted.closed
    assert planes(result.folder.raw) == planes(result.folder.restored) == 20


def test_a_frame_that_changes_its_kind_ends_the_run_with_what_came_before_saved(
    scripted: Scripted, settings: RunSettings
) -> None:
    scripted.pixels = lambda number: np.zeros((SIZE, SIZE + (number == 7)), np.uint16)
    result = run(settings)
    assert isinstance(result.errors[0], SourceError)
    assert "frame 7 is 48×49 uint16" in str(result.errors[0])
    assert planes(result.folder.raw) == planes(result.folder.restored) == 7


def test_a_source_that_breaks_is_an_error_and_loses_nothing(
    scripted: Scripted, settings: RunSettings
) -> None:
    def unplug(number: int) -> None:
        if number == 5:
            raise OSError("the cable is out")

    scripted.before = unplug
    result = run(settings)
    assert "the cable is out" in str(result.errors[0])
    assert planes(result.folder.raw) == planes(result.folder.restored) == 5


@pytest.mark.parametrize(("size_um", "warned"), [(0.17, False), (0.22, False), (0.1, True)])
def test_pixels_of_another_size_than_the_model_s_are_warned_of_visibly(
    scripted: Scripted, settings: RunSettings, size_um: float, warned: bool
) -> None:
    scripted.pixel_size_um = size_um
    session = Session(settings)
    session.start()
    said = any("neuron_mf is for" in line for line in session.status().standing)
    result = session.finish()
    assert said == warned
    assert ("neuron_mf is for" in result.folder.log.read_text()) == warned


def test_a_source_that_delivers_nothing_ends_in_order(
    scripted: Scripted, settings: RunSettings
) -> None:
    scripted.frames_to_give = 0
    result = run(settings)
    assert result.errors == ()
    assert result.summary.frames_recorded == result.summary.frames_restored == 0


def test_lost_frames_are_counted_numbered_and_reported(
    scripted: Scripted, settings: RunSettings
) -> None:
    scripted.index = lambda number: number if number < 9 else number + 3
    result = run(settings)
    assert result.summary.frames_lost_at_source == 3
    assert result.summary.frames_recorded == result.summary.frames_restored == 20
    assert '"first_index":9,"last_index":11' in result.folder.log.read_text()


def test_a_lost_frame_costs_no_live_restoration_where_the_engine_has_time(
    scripted: Scripted, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame after it completes two windows at once: both are restored live, in order."""
    now_ns = 0
    indices = [*range(9), *range(10, 21)]

    def pace(number: int) -> None:
        """Give the next frame, a second later, once the engine is done with all there was."""
        nonlocal now_ns
        last = indices[number - 1] if number else 0
        complete = sum(index <= last - 2 for index in indices)
        while (status := session.status()).frames_restored + status.frames_skipped_live < complete:
            assert not session.wait(0.001)
        now_ns += 1_000_000_000

    monkeypatch.setattr(session_module, "LiveRestorer", partial(LiveRestorer, clock=lambda: now_ns))
    scripted.before = pace
    scripted.index = lambda number: indices[number]
    session = Session(settings)
    session.start()
    assert session.wait(60)
    result = session.finish()
    assert result.summary.frames_lost_at_source == 1
    assert result.summary.frames_skipped_live == 0
    events = [one for one in read_log(result.folder.log) if isinstance(one, RestoredEvent)]
    assert [event.index for event in events] == indices
    assert all(event.live for event in events)


def test_a_slow_engine_makes_nobody_wait_and_what_it_skips_is_restored_later(
    scripted: Scripted, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All frames are acquired and recorded while the engine still works on its first window."""
    may_go_on = threading.Event()
    run_network = OpenVINOEngine.run
    warm_up = threading.Event()

    def held_up(self: OpenVINOEngine, window: NDArray[np.float32]) -> NDArray[np.float32]:
        if window.shape[2:] == (SIZE, SIZE):  # not the test pair, before the run
            if warm_up.is_set():
                assert may_go_on.wait(60)
            warm_up.set()
        return run_network(self, window)

    monkeypatch.setattr(OpenVINOEngine, "run", held_up)
    session = Session(settings)
    session.start()
    assert session.wait(60)
    while session.status().frames_recorded < 20:
        threading.Event().wait(0.01)
    assert session.status().frames_restored == 0
    may_go_on.set()
    result = session.finish()
    assert result.summary.frames_skipped_live > 0
    assert result.summary.frames_restored == 20


def test_after_a_hiccup_the_restored_stack_catches_up_while_the_run_goes_on(
    scripted: Scripted, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_network = OpenVINOEngine.run
    hiccup, over, caught_up = threading.Event(), threading.Event(), threading.Event()

    def stumbles(self: OpenVINOEngine, window: NDArray[np.float32]) -> NDArray[np.float32]:
        if hiccup.is_set() and not over.is_set():
            assert over.wait(60)
        return run_network(self, window)

    def pace(number: int) -> None:
        if number == 8:
            hiccup.set()
        if number == 14:
            over.set()
        scripted.stopped.wait(0.06)

    monkeypatch.setattr(OpenVINOEngine, "run", stumbles)
    scripted.before = pace
    scripted.frames_to_give = 100_000
    session = Session(settings)
    session.start()
    while not caught_up.is_set():
        assert not session.wait(0.02)
        status = session.status()
        if status.frames_skipped_live and status.frames_received > 14:
            with tifffile.TiffFile(session.folder.restored) as file:
                if len(file.pages) > 14:
                    caught_up.set()
    session.request_stop("caught up")
    result = session.finish()
    assert result.errors == ()
    assert result.summary.frames_skipped_live > 0
    assert planes(result.folder.restored) == planes(result.folder.raw)


def test_an_engine_that_breaks_leaves_the_raw_stack_whole(
    scripted: Scripted, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_network = OpenVINOEngine.run
    calls = 0

    def breaks(self: OpenVINOEngine, window: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal calls
        calls += window.shape[2:] == (SIZE, SIZE)  # not the test pair, before the run
        if calls > 3:
            raise RuntimeError("device lost")
        return run_network(self, window)

    monkeypatch.setattr(OpenVINOEngine, "run", breaks)
    result = run(settings)
    assert isinstance(result.errors[0], EngineError)
    assert "device lost" in str(result.errors[0])
    assert planes(result.folder.raw) == 20
    assert result.summary.frames_restored < 20
    assert "device lost" in result.folder.run_json.read_text()


def test_a_full_disk_for_the_restored_stack_does_not_touch_the_raw_one(
    scripted: Scripted, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RestoredRecorder, item: Restored) -> None:
        raise StorageError("restored.ome.tif", "no space left on device", "make room")

    monkeypatch.setattr(RestoredRecorder, "put", full)
    result = run(settings)
    assert isinstance(result.errors[0], StorageError)
    assert planes(result.folder.raw) == result.summary.frames_recorded == 20


def test_a_full_disk_for_the_raw_stack_ends_the_run(
    scripted: Scripted, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = StackWriter.put

    def full(self: StackWriter, position: int, pixels: NDArray[np.generic], info: PlaneInfo) -> int:
        if self.path.name == "raw.ome.tif" and position == 6:
            raise StorageError("raw.ome.tif", "no space left on device", "make room")
        return put(self, position, pixels, info)

    monkeypatch.setattr(StackWriter, "put", full)
    scripted.frames_to_give = 100_000
    result = run(settings)
    assert isinstance(result.errors[0], StorageError)
    assert result.summary.frames_received < 100_000
    assert planes(result.folder.raw) == 6


def test_a_run_ends_after_the_time_asked_for(scripted: Scripted, settings: RunSettings) -> None:
    scripted.frames_to_give = 1_000_000
    scripted.before = lambda _: scripted.stopped.wait(0.01)
    result = run(RunSettings(out=settings.out, duration_s=0.2))
    assert result.reason == "0.2 s have passed"
    assert result.summary.frames_recorded == result.summary.frames_restored > 0


def test_the_work_left_at_the_end_can_be_left_undone(
    scripted: Scripted, settings: RunSettings
) -> None:
    scripted.frames_to_give = 60
    session = Session(settings)
    session.start()
    assert session.wait(60)
    result = session.finish(lambda *_: False)
    assert planes(result.folder.raw) == 60
    assert planes(result.folder.restored) == result.summary.frames_restored < 60
    assert "pssr-live restore" in result.folder.log.read_text()


def test_a_run_that_cannot_start_closes_what_it_opened(scripted: Scripted, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(StorageError, match="a-file"):
        Session(RunSettings(out=str(tmp_path / "a-file" / "runs"))).start()
    assert scripted.closed


def test_phases_follow_the_table(settings: RunSettings, scripted: Scripted) -> None:
    session = Session(settings)
    with pytest.raises(RuntimeError, match="from new to stopping"):
        session.finish()
    session.start()
    with pytest.raises(RuntimeError, match="from running to starting"):
        session.start()
    session.finish()
    assert LEGAL[Phase.FINISHED] == set()
