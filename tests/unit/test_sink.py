"""The bounded queue in front of every sink."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from pssr_live.errors import PssrLiveError, StorageError
from pssr_live.sink import SinkQueue
from pssr_live.source import StreamInfo

INFO = StreamInfo(
    source="a test",
    height=2,
    width=2,
    dtype=np.dtype(np.uint16),
    bits=16,
    pixel_size_um=None,
    interval_ms=None,
)


class Notebook:
    """A sink that writes down its calls and can be held up or made to fail."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.in_put = threading.Event()
        self.fails_with: Exception | None = None

    def open(self, info: StreamInfo) -> None:
        self.calls.append("open")

    def put(self, item: int) -> None:
        self.in_put.set()
        assert self.may_go_on.wait(10)
        if self.fails_with is not None:
            raise self.fails_with
        self.calls.append(item)

    def skip(self, indices: Sequence[int], reason: str) -> None:
        self.calls.append((tuple(indices), reason))

    def close(self) -> None:
        self.calls.append("close")


class Setup:
    def __init__(self, bound: int) -> None:
        self.sink = Notebook()
        self.released: list[int] = []
        self.errors: list[PssrLiveError] = []
        self.queue = SinkQueue[int](
            "pssr-test",
            self.sink,
            bound=bound,
            release=self.released.append,
            on_error=self.errors.append,
        )


@contextmanager
def opened(bound: int) -> Iterator[Setup]:
    setup = Setup(bound)
    setup.queue.open(INFO)
    try:
        yield setup
    finally:
        setup.sink.may_go_on.set()
        setup.queue.close(10)


def test_items_and_skips_reach_the_sink_in_order_and_are_released() -> None:
    with opened(bound=4) as setup:
        setup.queue.put(1, wait=True)
        setup.queue.skip([2, 3], "engine behind")
        setup.queue.put(4, wait=True)
    assert setup.sink.calls == ["open", 1, ((2, 3), "engine behind"), 4, "close"]
    assert setup.released == [1, 4]


def test_a_full_queue_refuses_who_does_not_wait() -> None:
    with opened(bound=2) as setup:
        setup.sink.may_go_on.clear()
        accepted = [setup.queue.put(item, wait=False) for item in range(3)]
        assert accepted == [True, True, False]
        assert setup.released == [2]
        assert setup.queue.statistics().refused == 1
        assert setup.queue.statistics().most_waiting == 2


def test_who_waits_gets_a_place_once_the_sink_goes_on() -> None:
    with opened(bound=1) as setup:
        setup.sink.may_go_on.clear()
        setup.queue.put(0, wait=True)
        waiting = threading.Thread(target=setup.queue.put, args=(1,), kwargs={"wait": True})
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        setup.sink.may_go_on.set()
        waiting.join(10)
        assert not waiting.is_alive()
    assert setup.sink.calls == ["open", 0, 1, "close"]


def test_flush_waits_for_the_item_in_work() -> None:
    with opened(bound=4) as setup:
        setup.sink.may_go_on.clear()
        setup.queue.put(1, wait=True)
        assert setup.sink.in_put.wait(10)
        assert not setup.queue.flush(timeout_s=0.05)
        setup.sink.may_go_on.set()
        assert setup.queue.flush(timeout_s=10)
        assert setup.sink.calls == ["open", 1]


@pytest.mark.parametrize(
    ("failure", "message"),
    [(StorageError("raw.ome.tif", "disk full", "free some space"), "disk full"),
     (ValueError("surprise"), "surprise")],
)  # fmt: skip
def test_a_failing_sink_is_reported_once_and_later_items_are_refused(
    failure: Exception, message: str
) -> None:
    with opened(bound=4) as setup:
        setup.sink.fails_with = failure
        for item in range(3):
            setup.queue.put(item, wait=True)
        assert setup.queue.flush(10)
        assert not setup.queue.put(3, wait=True)
        assert len(setup.errors) == 1
        assert message in str(setup.errors[0])
        assert setup.released == [0, 1, 2, 3]
        assert setup.queue.statistics().taken == 0
        assert setup.queue.statistics().refused == 4


def test_a_failing_sink_does_not_leave_anybody_waiting() -> None:
    with opened(bound=1) as setup:
        setup.sink.may_go_on.clear()
        setup.sink.fails_with = StorageError("raw.ome.tif", "disk full", "free some space")
        setup.queue.put(0, wait=True)
        waiting = threading.Thread(target=setup.queue.put, args=(1,), kwargs={"wait": True})
        waiting.start()
        setup.sink.may_go_on.set()
        waiting.join(10)
        assert not waiting.is_alive()
