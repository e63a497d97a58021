"""Live is now: the newest window is restored, the ones in between are skipped and counted."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pssr_live.engine.live import LiveRestorer
from pssr_live.errors import EngineError
from pssr_live.frames import Frame, Restored, Window
from pssr_live.ring import Slots


class HeldUp:
    """Stands in for a Restorer whose engine takes as long as the test wants."""

    def __init__(self) -> None:
        self.working = threading.Semaphore(0)
        self.may_finish = threading.Semaphore(0)
        self.fails = False

    def restore(self, window: Window, *, live: bool) -> Restored:
        self.working.release()
        assert self.may_finish.acquire(timeout=10)
        if self.fails:
            raise RuntimeError("out of device memory")
        return Restored(
            pixels=window.frames[0].pixels,
            index=window.index,
            t_source_ns=0,
            pixel_size_um=None,
            channel="",
            model="m",
            model_sha256="",
            engine="held up",
            engine_ms=0.0,
            latency_ms=0.0,
            edge=False,
            complete=True,
            live=live,
        )


class Run:
    def __init__(self) -> None:
        self.engine = HeldUp()
        self.slots = Slots(12, 2, 2, np.dtype(np.uint8))
        self.restored: list[int] = []
        self.skipped: list[int] = []
        self.errors: list[EngineError] = []
        self.now_ns = 0
        self.gaps = 0
        self.paused = threading.Semaphore(0)
        self.live = LiveRestorer(
            self.engine,  # type: ignore[arg-type]
            on_restored=lambda restored: self.restored.append(restored.index),
            on_skipped=self.skipped.append,
            on_error=self.errors.append,
            on_pause=self.pause,
            clock=lambda: self.now_ns,
        )
        self.live.start()

    def pause(self) -> bool:
        self.paused.release()
        self.gaps -= 1
        return self.gaps >= 0

    def window(self, index: int) -> Window:
        pixels = np.zeros((2, 2), np.uint8)
        frame = self.slots.keep(Frame(pixels, index=index, t_source_ns=0, t_host_ns=0))
        return Window((frame,), centre=0, edge=False, complete=True, t_ready_ns=0)

    def offer(self, *indices: int) -> None:
        self.live.offer([self.window(index) for index in indices])

    def let_finish(self, windows: int) -> None:
        self.engine.may_finish.release(windows)


def test_while_the_engine_works_only_the_newest_window_waits() -> None:
    run = Run()
    run.offer(0)
    assert run.engine.working.acquire(timeout=10)
    for index in (1, 2, 3):
        run.offer(index)
    run.let_finish(2)
    run.live.finish([], timeout_s=10)
    assert run.restored == [0, 3]
    assert run.skipped == [1, 2]
    assert run.slots.lent == 0


def test_the_last_windows_of_a_run_are_all_restored() -> None:
    run = Run()
    run.offer(0)
    assert run.engine.working.acquire(timeout=10)
    run.offer(1)
    run.let_finish(4)
    run.live.finish([run.window(2), run.window(3)], timeout_s=10)
    assert run.restored == [0, 1, 2, 3]
    assert run.skipped == []
    assert run.slots.lent == 0


def test_an_engine_that_fails_is_reported_once_and_nobody_waits_for_it() -> None:
    run = Run()
    run.engine.fails = True
    run.offer(0)
    assert run.engine.working.acquire(timeout=10)
    run.offer(1)
    run.let_finish(1)
    run.live.finish([run.window(2)], timeout_s=10)
    assert run.restored == []
    assert run.skipped == [0, 1, 2]
    assert len(run.errors) == 1
    assert "frame 0: out of device memory" in str(run.errors[0])
    assert run.slots.lent == 0


def test_an_engine_that_hangs_is_an_error_at_the_deadline() -> None:
    run = Run()
    run.offer(0)
    assert run.engine.working.acquire(timeout=10)
    with pytest.raises(RuntimeError, match="pssr-engine did not end"):
        run.live.finish([], timeout_s=0.05)
    run.let_finish(1)
    run.live.finish([], timeout_s=10)


def run_at_pace(*, interval_ns: int, engine_ns: int) -> Run:
    """Three windows at a steady pace, each restored before the next one comes."""
    run = Run()
    for index in range(3):
        run.offer(index)
        assert run.engine.working.acquire(timeout=10)
        run.now_ns += engine_ns
        run.let_finish(1)
        while len(run.restored) <= index:
            threading.Event().wait(0.001)
        run.now_ns += interval_ns - engine_ns
    return run


def test_pauses_that_are_long_enough_are_used_for_what_was_skipped() -> None:
    run = run_at_pace(interval_ns=270, engine_ns=100)
    run.gaps = 2
    run.offer(3)
    assert run.engine.working.acquire(timeout=10)
    run.let_finish(1)
    for _ in range(3):  # twice something to do, then nothing left
        assert run.paused.acquire(timeout=10)
    run.live.finish([], timeout_s=10)
    assert run.gaps < 0


def test_pauses_that_are_too_short_are_left_alone() -> None:
    run = run_at_pace(interval_ns=120, engine_ns=100)
    run.live.finish([], timeout_s=10)
    assert run.paused.acquire(blocking=False) is False


def test_windows_that_one_frame_completes_are_all_restored_if_there_is_time() -> None:
    """A frame after a lost one completes two; the engine is done before the next is due."""
    run = run_at_pace(interval_ns=270, engine_ns=100)
    run.offer(3, 4)
    run.let_finish(2)
    run.live.finish([], timeout_s=10)
    assert run.restored == [0, 1, 2, 3, 4]
    assert run.skipped == []
    assert run.slots.lent == 0


def test_where_there_is_no_time_for_both_only_the_newest_is_restored() -> None:
    run = run_at_pace(interval_ns=270, engine_ns=140)
    run.offer(3, 4)
    run.let_finish(1)
    run.live.finish([], timeout_s=10)
    assert run.restored == [0, 1, 2, 4]
    assert run.skipped == [3]
    assert run.slots.lent == 0


def test_before_the_engine_s_time_is_known_only_the_newest_is_restored() -> None:
    run = Run()
    run.offer(0, 1)
    run.let_finish(1)
    run.live.finish([], timeout_s=10)
    assert (run.restored, run.skipped) == ([1], [0])


def test_time_that_the_engine_has_lost_meanwhile_counts() -> None:
    """The two come while the engine is late with the window before them."""
    run = run_at_pace(interval_ns=270, engine_ns=100)
    run.offer(3)
    assert run.engine.working.acquire(timeout=10)
    run.now_ns += 270
    run.offer(4, 5)
    run.now_ns += 80
    run.let_finish(2)
    run.live.finish([], timeout_s=10)
    assert run.restored == [0, 1, 2, 3, 5]
    assert run.skipped == [4]


def test_a_newer_window_overtakes_what_waits_behind_a_lost_frame() -> None:
    run = run_at_pace(interval_ns=270, engine_ns=100)
    run.offer(3, 4)
    assert run.engine.working.acquire(timeout=10)  # with 3
    run.offer(6)
    run.let_finish(2)
    run.live.finish([], timeout_s=10)
    assert run.restored == [0, 1, 2, 3, 6]
    assert run.skipped == [4]
    assert run.slots.lent == 0


def test_nothing_offered_is_no_window_and_no_pace() -> None:
    run = run_at_pace(interval_ns=270, engine_ns=100)
    for _ in range(20):  # windows that frames after a gap do not complete
        run.offer()
    run.offer(3, 4)
    run.let_finish(2)
    run.live.finish([], timeout_s=10)
    assert run.restored == [0, 1, 2, 3, 4]
