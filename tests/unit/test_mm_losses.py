from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pssr_live_drivers.mm_losses import ENOUGH, REMEMBERED, LossDetector, SourceClock

MS = 1_000_000
CADENCE = 270 * MS

steps = st.integers(min_value=0, max_value=10_000 * MS)
numbers = st.one_of(st.none(), st.integers(min_value=0, max_value=1000))


def settled(cadence_ns: int = CADENCE) -> tuple[LossDetector, int, int]:
    """A detector that knows its cadence, and the number and time of its last image."""
    detector = LossDetector()
    for number in range(ENOUGH + 1):
        detector.place(number, number * cadence_ns)
    return detector, ENOUGH, ENOUGH * cadence_ns


@given(
    kept=st.sets(st.integers(min_value=0, max_value=99), min_size=1),
    jitter=st.lists(st.integers(min_value=-20, max_value=20), min_size=100, max_size=100),
)
def test_whatever_numbers_are_lost_the_index_is_the_cores_number(
    kept: set[int], jitter: list[int]
) -> None:
    detector = LossDetector()
    order = sorted(kept)
    placed = [detector.place(n, n * CADENCE + jitter[n] * MS) for n in order]
    assert [one.index for one in placed] == order
    lost = [later - earlier - 1 for earlier, later in pairwise(order)]
    assert [one.lost for one in placed[1:]] == lost
    assert all((one.lost > 0) == (one.seen != "") for one in placed)


@given(images=st.lists(st.tuples(numbers, steps, st.booleans()), min_size=1))
def test_whatever_arrives_indexes_increase_by_what_is_reported(
    images: list[tuple[int | None, int, bool]],
) -> None:
    detector = LossDetector()
    time_ns, last = 0, None
    for number, step, restarted in images:
        if restarted:
            detector.restarted()
        time_ns += step
        placed = detector.place(number, time_ns)
        assert (placed.lost > 0) == (placed.seen != "")
        if last is not None:
            assert placed.index == last + 1 + placed.lost
            if restarted:
                assert placed.lost >= 1
        last = placed.index


@given(
    cadence=st.integers(min_value=1 * MS, max_value=5_000 * MS),
    jitter=st.lists(st.integers(min_value=0, max_value=49 * MS), min_size=60, max_size=60),
)
def test_a_camera_that_loses_nothing_is_never_accused(cadence: int, jitter: list[int]) -> None:
    detector = LossDetector()
    time_ns = 0
    for number in range(60):
        time_ns = max(time_ns, number * cadence + jitter[number])
        assert detector.place(number, time_ns).lost == 0


@pytest.mark.parametrize("lost", [1, 2, 10])
def test_frames_missing_under_consecutive_numbers_are_seen_by_the_time(lost: int) -> None:
    detector, number, time_ns = settled()
    placed = detector.place(number + 1, time_ns + (lost + 1) * CADENCE)
    assert placed.lost == lost
    assert placed.index == number + 1 + lost
    assert "no image came for" in placed.seen


def test_frames_missing_beside_a_jump_of_the_number_are_added() -> None:
    detector, number, time_ns = settled()
    placed = detector.place(number + 3, time_ns + 7 * CADENCE)
    assert placed.lost == 6
    assert "jumped from 4 to 7 and no image came" in placed.seen


def test_a_number_that_starts_again_counts_the_frames_that_fit_into_the_time() -> None:
    detector, number, time_ns = settled()
    placed = detector.place(0, time_ns + 4 * CADENCE)
    assert (placed.index, placed.lost) == (number + 4, 3)
    assert "fell from 4 to 0" in placed.seen
    following = detector.place(1, time_ns + 5 * CADENCE)
    assert (following.index, following.lost) == (number + 5, 0)


def test_a_restart_loses_at_least_one_frame_even_if_it_was_quick() -> None:
    detector, _, time_ns = settled()
    detector.restarted()
    assert detector.place(0, time_ns + CADENCE // 2).lost == 1
    assert detector.place(1, time_ns + CADENCE).lost == 0


def test_before_the_cadence_is_measured_a_restart_is_judged_by_the_announced_one() -> None:
    detector = LossDetector(nominal_ns=CADENCE)
    detector.place(0, 0)
    detector.restarted()
    assert detector.place(0, 6 * CADENCE).lost == 5


def test_a_camera_slower_than_announced_is_not_accused() -> None:
    detector = LossDetector(nominal_ns=10 * MS)
    assert all(detector.place(n, n * CADENCE).lost == 0 for n in range(20))


def test_a_lasting_change_of_pace_is_learnt() -> None:
    detector, number, time_ns = settled()
    placed = [detector.place(number + n, time_ns + n * 3 * CADENCE) for n in range(1, 40)]
    assert sum(one.lost > 0 for one in placed) <= REMEMBERED // 2 + 1
    assert all(one.lost == 0 for one in placed[-20:])


def test_images_without_numbers_are_counted() -> None:
    detector = LossDetector()
    assert [detector.place(None, n * CADENCE).index for n in range(10)] == list(range(10))


def test_the_clock_gives_the_cameras_times() -> None:
    clock = SourceClock()
    assert [clock.time_ns(ms, 0) for ms in (21.23, 42.5, 63.0)] == [21_230_000, 42_500_000, 63 * MS]


@pytest.mark.parametrize("announced", [True, False])
def test_the_clock_goes_on_when_the_cameras_starts_again(announced: bool) -> None:
    clock = SourceClock()
    host_ns, delay_ns = 5_000 * MS, 2 * MS
    for n in range(1, 4):
        clock.time_ns(n * 100.0, host_ns + n * 100 * MS + delay_ns)
    if announced:
        clock.restarted()
    again_ns = host_ns + 900 * MS + delay_ns
    assert clock.time_ns(100.0, again_ns) == 900 * MS
    assert clock.time_ns(200.0, again_ns + 100 * MS) == 1000 * MS


def test_the_host_counts_where_the_camera_gives_no_time() -> None:
    clock = SourceClock()
    assert [clock.time_ns(None, 700 + n) for n in (0, 5, 9)] == [0, 5, 9]


@given(images=st.lists(st.tuples(st.none() | st.floats(0, 1e6), steps, st.booleans())))
def test_whatever_the_camera_says_times_never_decrease(
    images: list[tuple[float | None, int, bool]],
) -> None:
    clock = SourceClock()
    host_ns, last_ns = 0, None
    for elapsed_ms, step, restarted in images:
        if restarted:
            clock.restarted()
        host_ns += step
        time_ns = clock.time_ns(elapsed_ms, host_ns)
        assert last_ns is None or time_ns >= last_ns
        last_ns = time_ns
