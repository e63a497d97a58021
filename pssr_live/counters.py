"""What a run counts while it goes: frames, rates, latencies, the last warnings."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pssr_live.errors import StorageError
from pssr_live.frames import Frame, Restored

__all__ = ["Counters", "Counts", "WarningLog"]

_RATE_OVER = 20
"""Frames over which rates are taken."""
_LATENCIES = 4096
"""Latencies kept for percentiles: bounded, so that a long run does not grow."""
_WARNINGS = 5


@dataclass(frozen=True, slots=True)
class Counts:
    """A snapshot of a run's counters.

    Attributes
    ----------
    received : int
        Frames taken from the source.
    lost : int
        Frames that the source counted but did not deliver.
    restored_live : int
        Frames restored live.
    skipped : int
        Frames that live skipped.
    fps_raw, fps_restored : float or None
        Frames per second over the last frames; None before there are two.
    latency_ms_p50, latency_ms_p99 : float or None
        Last needed frame in → restored frame ready, over the last frames.
    """

    received: int
    lost: int
    restored_live: int
    skipped: int
    fps_raw: float | None
    fps_restored: float | None
    latency_ms_p50: float | None
    latency_ms_p99: float | None


class Counters:
    """Counters that several threads write and anybody reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._lost = 0
        self._restored = 0
        self._skipped = 0
        self._last_index: int | None = None
        self._raw_times: deque[float] = deque(maxlen=_RATE_OVER)
        self._restored_times: deque[float] = deque(maxlen=_RATE_OVER)
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)

    def count_received(self, frame: Frame) -> range:
        """Count a frame from the source.

        Returns
        -------
        range
            Indexes of the frames lost between the one before and this one.
        """
        with self._lock:
            expected = frame.index if self._last_index is None else self._last_index + 1
            lost = range(expected, frame.index)
            self._last_index = frame.index
            self._received += 1
            self._lost += len(lost)
            self._raw_times.append(time.monotonic())
        return lost

    def count_restored(self, restored: Restored) -> None:
        """Count a frame that was restored live."""
        with self._lock:
            self._restored += 1
            self._restored_times.append(time.monotonic())
            if restored.latency_ms is not None:
                self._latencies.append(restored.latency_ms)

    def count_skipped(self) -> None:
        """Count a frame that live skipped."""
        with self._lock:
            self._skipped += 1

    def read(self) -> Counts:
        """Take a snapshot."""
        with self._lock:
            latencies = list(self._latencies)
            p50, p99 = np.percentile(latencies, [50, 99]) if latencies else (None, None)
            return Counts(
                received=self._received,
                lost=self._lost,
                restored_live=self._restored,
                skipped=self._skipped,
                fps_raw=_rate(self._raw_times),
                fps_restored=_rate(self._restored_times),
                latency_ms_p50=None if p50 is None else float(p50),
                latency_ms_p99=None if p99 is None else float(p99),
            )


def _rate(times: deque[float]) -> float | None:
    if len(times) < 2 or times[-1] <= times[0]:
        return None
    return (len(times) - 1) / (times[-1] - times[0])


class WarningLog(logging.Handler):
    """Passes warnings of all parts to the acquisition log, and keeps the last few to show.

    Attributes
    ----------
    last : deque of str
        The last few lines, oldest first.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(level=logging.WARNING)
        self._write = write
        self.last: deque[str] = deque(maxlen=_WARNINGS)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line; see `logging.Handler.emit`."""
        line = record.getMessage()
        self.last.append(line)
        # When the log's disk is full, the line is still on the screen and in the status.
        with contextlib.suppress(StorageError):
            self._write(line)
