"""Arriving frames become windows; the memory behind them is lent and comes back."""

from __future__ import annotations

import threading
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pssr_live.errors import SourceError
from pssr_live.frames import Frame, Window
from pssr_live.ring import Ring, Slots, plan_window

LENGTH, CENTRE = 5, 2


def frame(index: int, value: int | None = None, shape: tuple[int, int] = (2, 3)) -> Frame:
    pixels = np.full(shape, index if value is None else value, np.uint16)
    return Frame(pixels=pixels, index=index, t_source_ns=index, t_host_ns=index)


def run(indices: list[int]) -> list[Window]:
    """All windows of a run, in the order in which they come out."""
    ring = Ring(LENGTH, CENTRE)
    windows = [window for index in indices for window in ring.push(frame(index))]
    return windows + ring.finish()


def contents(window: Window) -> list[int]:
    return [held.index for held in window.frames]


arrivals = st.tuples(
    st.integers(0, 1000), st.lists(st.sampled_from([1, 1, 1, 2, 3, 4, 7, 50]), max_size=30)
).map(lambda start_and_steps: list(accumulate(start_and_steps[1], initial=start_and_steps[0])))


def test_the_middle_frame_of_five_is_restored() -> None:
    windows = run(list(range(8)))
    assert [window.index for window in windows] == list(range(8))
    assert contents(windows[4]) == [2, 3, 4, 5, 6]
    assert not windows[4].edge
    assert windows[4].complete


def test_edge_windows_repeat_the_nearest_frame_and_are_marked() -> None:
    windows = run(list(range(6)))
    assert [contents(windows[k]) for k in (0, 1, 4, 5)] == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [2, 3, 4, 5, 5],
        [3, 4, 5, 5, 5],
    ]
    assert [window.edge for window in windows] == [True, True, False, False, True, True]
    assert all(window.complete for window in windows)


def test_a_gap_is_filled_by_the_nearest_frame_and_marked_incomplete() -> None:
    by_index = {window.index: window for window in run([0, 1, 2, 3, 5, 6, 7, 8])}
    assert contents(by_index[3]) == [1, 2, 3, 3, 5]
    assert contents(by_index[5]) == [3, 5, 5, 6, 7]
    assert [index for index, window in by_index.items() if not window.complete] == [2, 3, 5, 6]


def test_a_window_is_ready_as_soon_as_its_last_frame_is_there() -> None:
    ring = Ring(LENGTH, CENTRE)
    ready = [[window.index for window in ring.push(frame(index))] for index in range(5)]
    assert ready == [[], [], [0], [1], [2]]


@given(arrivals)
def test_after_windows_that_come_together_the_next_one_is_as_many_frames_away(
    indices: list[int],
) -> None:
    """Live counts on this when it restores them one after the other."""
    ring = Ring(LENGTH, CENTRE)
    free_from = 0
    for index in indices:
        windows = ring.push(frame(index))
        if windows:
            assert index >= free_from
            free_from = index + len(windows)


def test_a_frame_past_the_window_makes_it_ready_too() -> None:
    ring = Ring(LENGTH, CENTRE)
    for index in (0, 1):
        assert ring.push(frame(index)) == []
    assert [window.index for window in ring.push(frame(9))] == [0, 1]


def test_the_ready_time_is_that_of_the_frame_that_completed_the_window() -> None:
    ring = Ring(LENGTH, CENTRE)
    windows = [window for index in range(3) for window in ring.push(frame(index))]
    assert windows[0].t_ready_ns == 2


@given(arrivals)
def test_every_frame_gets_exactly_one_window_in_order(indices: list[int]) -> None:
    assert [window.index for window in run(indices)] == indices


@given(arrivals)
def test_windows_contain_only_near_frames_and_flags_tell_the_truth(indices: list[int]) -> None:
    have = set(indices)
    for window in run(indices):
        wanted = range(window.index - CENTRE, window.index - CENTRE + LENGTH)
        for want, got in zip(wanted, contents(window), strict=True):
            distance = min(abs(other - want) for other in have if other in wanted)
            assert abs(got - want) == distance
        inside = [want for want in wanted if indices[0] <= want <= indices[-1]]
        assert window.complete == all(want in have for want in inside)
        assert window.edge == (len(inside) < LENGTH)


@given(arrivals)
def test_live_and_offline_choose_the_same_frames(indices: list[int]) -> None:
    for window in run(indices):
        plan = plan_window(
            window.index,
            indices,
            first=indices[0],
            last=indices[-1],
            length=LENGTH,
            centre=CENTRE,
        )
        assert list(plan.indices) == contents(window)
        assert (plan.edge, plan.complete) == (window.edge, window.complete)


@given(arrivals)
def test_all_memory_comes_back_and_no_more_is_needed_than_a_window(indices: list[int]) -> None:
    slots = Slots(LENGTH + 2, 2, 3, np.dtype(np.uint16))
    ring = Ring(LENGTH, CENTRE)
    for index in indices:
        kept = slots.keep(frame(index, value=index % 60_000))
        windows = ring.push(kept)
        kept.release()
        for window in windows:
            assert all(held.pixels[0, 0] == held.index % 60_000 for held in window.frames)
            window.release()
    for window in ring.finish():
        window.release()
    assert slots.lent == 0


def test_a_single_frame_model_sees_each_frame_alone() -> None:
    ring = Ring(1, 0)
    windows = [window for index in (0, 1, 5) for window in ring.push(frame(index))]
    assert [contents(window) for window in windows] == [[0], [1], [5]]
    assert all(window.complete and not window.edge for window in windows)


def test_an_index_that_does_not_increase_is_refused() -> None:
    ring = Ring(LENGTH, CENTRE)
    ring.push(frame(3))
    with pytest.raises(SourceError, match="frame 3 came after frame 3"):
        ring.push(frame(3))


@pytest.mark.parametrize(
    "changed", [np.zeros((2, 4), np.uint16), np.zeros((2, 3), np.uint8)], ids=["shape", "dtype"]
)
def test_a_frame_that_changes_its_kind_is_refused(changed: np.ndarray) -> None:
    slots = Slots(2, 2, 3, np.dtype(np.uint16))
    odd = Frame(pixels=changed, index=7, t_source_ns=0, t_host_ns=0)
    with pytest.raises(SourceError, match=r"frame 7 is .* this run records 2×3 uint16"):
        slots.keep(odd)
    assert slots.lent == 0


def test_kept_pixels_are_a_copy_that_cannot_be_written() -> None:
    slots = Slots(1, 2, 3, np.dtype(np.uint16))
    delivered = frame(4)
    kept = slots.keep(delivered)
    delivered.pixels[...] = 0
    assert (kept.pixels == 4).all()
    with pytest.raises(ValueError, match="read-only"):
        kept.pixels[0, 0] = 1
    kept.release()


def test_keeping_waits_until_a_slot_comes_back() -> None:
    slots = Slots(1, 2, 3, np.dtype(np.uint16))
    first = slots.keep(frame(0))
    kept: list[Frame] = []
    waiting = threading.Thread(target=lambda: kept.append(slots.keep(frame(1))))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    first.release()
    waiting.join(5)
    assert kept[0].index == 1
    kept[0].release()


def test_releasing_too_often_is_an_error() -> None:
    kept = Slots(1, 2, 3, np.dtype(np.uint16)).keep(frame(0))
    kept.release()
    with pytest.raises(RuntimeError, match="more often"):
        kept.release()
