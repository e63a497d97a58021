"""The lines of the budget that are ratios or counts, so that they hold on any machine.

Run them with ``pytest -m bench`` while the machine has nothing else to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pssr_live.bench.measure import FULL, measure
from pssr_live.bench.results import BenchReport
from pssr_live.settings import RunSettings

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchReport]:
    """Measure once, for all tests."""
    runtime: Path = tmp_path_factory.mktemp("runtime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSSR_LIVE_RUNTIME_DIR", str(runtime))
        yield measure(RunSettings(), FULL, lambda _: None)


def test_the_whole_daemon_sustains_nine_tenths_of_the_bare_engine(report: BenchReport) -> None:
    assert report.daemon.ratio >= 0.9, report.daemon.rounds


def test_the_daemon_adds_5_ms_to_the_engine_s_time_and_seldom_20(report: BenchReport) -> None:
    assert report.latency.added_ms.p50 <= 5, report.latency
    assert report.latency.added_ms.p99 <= 20, report.latency


def test_at_the_neuron_preset_s_pace_nothing_is_skipped_or_lost(report: BenchReport) -> None:
    assert (report.latency.skipped, report.latency.lost) == (0, 0)


def test_cost_grows_no_faster_than_the_number_of_pixels(report: BenchReport) -> None:
    assert report.scaling.slope <= 1.05, report.scaling.costs


def test_memory_is_flat_over_ten_thousand_frames(report: BenchReport) -> None:
    assert report.memory is not None, "memory is measured with psutil (extra bench)"
    assert report.memory.frames == 10_000
    assert report.memory.drift <= 0.01, (report.memory.start_mb, report.memory.end_mb)
