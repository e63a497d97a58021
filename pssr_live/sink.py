"""Where frames go: the Sink protocol, and the bounded queue in front of every sink."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pssr_live.errors import PssrLiveError
from pssr_live.source import StreamInfo

__all__ = ["Sink", "SinkQueue", "SinkStatistics"]

log = logging.getLogger(__name__)

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Sink(Protocol[T_contra]):
    """Something that keeps or shows frames. All calls come from one thread."""

    def open(self, info: StreamInfo) -> None:
        """Get ready. Called once, before the first item."""

    def put(self, item: T_contra) -> None:
        """Take one item; its pixels are valid until this returns."""

    def skip(self, indices: Sequence[int], reason: str) -> None:
        """Learn that frames with these indexes will not come now, and why."""

    def close(self) -> None:
        """Finish. Called once, after the last item."""


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """Counters of one queue, readable at any time.

    Attributes
    ----------
    taken : int
        Items that the sink has finished with.
    refused : int
        Items that found the queue full and did not wait, or came after the sink had failed.
    waiting : int
        Items in the queue now.
    most_waiting : int
        The most there ever were.
    """

    taken: int
    refused: int
    waiting: int
    most_waiting: int


class SinkQueue(Generic[T]):
    """A bounded queue with one thread that feeds one sink.

    Parameters
    ----------
    name : str
        Name of the thread.
    sink : Sink
        What to feed.
    bound : int
        The most items that wait.
    release : callable
        Called with each item once the sink, or nobody, needs its pixels.
    on_error : callable
        Called once, from the thread, when the sink has failed; later items are refused.
    """

    def __init__(
        self,
        name: str,
        sink: Sink[T],
        *,
        bound: int,
        release: Callable[[T], None],
        on_error: Callable[[PssrLiveError], None],
    ) -> None:
        self._sink = sink
        self._bound = bound
        self._release = release
        self._on_error = on_error
        self._queue: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failed = False
        self._taken = 0
        self._refused = 0
        self._waiting = 0
        self._most_waiting = 0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def open(self, info: StreamInfo) -> None:
        """Open the sink (in the caller's thread, so that errors are raised) and start feeding."""
        self._sink.open(info)
        self._thread.start()

    def put(self, item: T, *, wait: bool) -> bool:
        """Hand over an item.

        Parameters
        ----------
        item
            Held for the queue by the caller; the queue releases it.
        wait : bool
            Wait for a free place, or be refused at once.

        Returns
        -------
        bool
            False if the item was refused (and released).
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._waiting < self._bound or self._failed)
            if self._failed or self._closing or self._waiting >= self._bound:
                self._refused += 1
                accepted = False
            else:
                self._queue.append(lambda: self._feed(item))
                self._waiting += 1
                self._most_waiting = max(self._most_waiting, self._waiting)
                self._changed.notify_all()
                accepted = True
        if not accepted:
            self._release(item)
        return accepted

    def skip(self, indices: Sequence[int], reason: str) -> None:
        """Tell the sink, in order with the items, that frames will not come now."""
        with self._changed:
            if not self._failed:
                self._queue.append(lambda: self._sink.skip(indices, reason))
                self._changed.notify_all()

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until the sink has finished with all that was handed over.

        Returns
        -------
        bool
            False if that took longer than ``timeout_s``.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._waiting, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Feed what waits, close the sink, end the thread. A second call does nothing.

        Raises
        ------
        PssrLiveError
            The sink could not be closed.
        RuntimeError
            The thread did not end in time.
        """
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise RuntimeError(f"thread {self._thread.name} did not end within {timeout_s} s")
        self._sink.close()

    def statistics(self) -> SinkStatistics:
        """Read the counters."""
        with self._changed:
            return SinkStatistics(self._taken, self._refused, self._waiting, self._most_waiting)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                # Stays in the queue until done, so that flush() covers the one in work too.
                work = self._queue[0]
            try:
                work()
            except Exception as error:
                self._fail(error)
            finally:
                with self._changed:
                    self._queue.popleft()
                    self._changed.notify_all()

    def _feed(self, item: T) -> None:
        taken = False
        try:
            if not self._failed:
                self._sink.put(item)
                taken = True
        finally:
            self._release(item)
            with self._changed:
                self._waiting -= 1
                self._taken += taken
                self._refused += not taken

    def _fail(self, error: Exception) -> None:
        first = not self._failed
        self._failed = True
        log.debug("%s failed", self._thread.name, exc_info=error)
        if not isinstance(error, PssrLiveError):
            error = PssrLiveError(
                f"{self._thread.name} failed", repr(error), "run again with --debug and report this"
            )
        if first:
            self._on_error(error)
