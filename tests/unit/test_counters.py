"""What a run counts while it goes."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from pssr_live.counters import Counters, WarningLog
from pssr_live.errors import StorageError
from pssr_live.frames import Frame, Restored

PIXELS = np.zeros((2, 2), np.uint8)


def frame(index: int) -> Frame:
    return Frame(PIXELS, index=index, t_source_ns=0, t_host_ns=0)


def restored(latency_ms: float | None) -> Restored:
    return Restored(
        pixels=PIXELS,
        index=0,
        t_source_ns=0,
        pixel_size_um=None,
        channel="",
        model="m",
        model_sha256="",
        engine="e",
        engine_ms=1.0,
        latency_ms=latency_ms,
        edge=False,
        complete=True,
        live=latency_ms is not None,
    )


def test_a_jump_in_the_index_is_counted_as_lost() -> None:
    counters = Counters()
    lost = [list(counters.count_received(frame(index))) for index in (4, 5, 9)]
    assert lost == [[], [], [6, 7, 8]]
    assert (counters.read().received, counters.read().lost) == (3, 3)


def test_latencies_are_those_of_live_frames() -> None:
    counters = Counters()
    for latency in (10.0, 20.0, 30.0, None):
        counters.count_restored(restored(latency))
    counts = counters.read()
    assert counts.restored_live == 4
    assert counts.latency_ms_p50 == 20.0
    assert counts.latency_ms_p99 == pytest.approx(29.8)


def test_nothing_counted_is_nothing_said() -> None:
    counts = Counters().read()
    assert (counts.fps_raw, counts.fps_restored, counts.latency_ms_p50) == (None, None, None)


def test_warnings_are_kept_and_passed_on_even_when_the_log_is_full() -> None:
    passed: list[str] = []

    def write(line: str) -> None:
        passed.append(line)
        raise StorageError("log.jsonl", "no space left on device", "make room")

    handler = WarningLog(write)
    logger = logging.getLogger("tests.warnings")
    logger.addHandler(handler)
    try:
        logger.info("all is well")
        for number in range(7):
            logger.warning("frame %d lost", number)
    finally:
        logger.removeHandler(handler)
    assert passed == [f"frame {number} lost" for number in range(7)]
    assert list(handler.last) == passed[-5:]
