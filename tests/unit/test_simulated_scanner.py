"""The simulated scanner as the daemon sees it: a source of frames with a pace."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest

from pssr_live.frames import Frame
from pssr_live.settings import RunSettings, SimSettings
from pssr_live.source import StreamInfo, make_source
from pssr_live_drivers.simulated.scanner import SimulatedScanner, simulated_scanner

MS = 1_000_000


class FakeClock:
    """Time that passes only in waiting, or when a test says so."""

    def __init__(self) -> None:
        self.now = 5_000 * MS
        self.waits: list[int] = []

    def now_ns(self) -> int:
        return self.now

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> None:
        self.waits.append(max(0, deadline_ns - self.now))
        self.now = max(self.now, deadline_ns)


def movie(count: int, **settings: object) -> tuple[StreamInfo, list[Frame]]:
    asked = {"size": 48, "interval_ms": 0, "seed": 3, **settings}
    source = SimulatedScanner(SimSettings(**asked))  # type: ignore[arg-type]
    info = source.open()
    frames = list(itertools.islice(source.frames(), count))
    source.close()
    return info, frames


@pytest.mark.parametrize("preset", ["neuron", "u2os"])
def test_the_same_seed_gives_the_same_bytes(preset: str) -> None:
    first, second = (movie(6, preset=preset, truth=True)[1] for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.pixels.tobytes() == b.pixels.tobytes()
        assert a.truth is not None
        assert b.truth is not None
        assert a.truth.tobytes() == b.truth.tobytes()
        assert dict(a.tags) == dict(b.tags)


@pytest.mark.parametrize("preset", ["neuron", "u2os"])
def test_another_seed_is_another_scene(preset: str) -> None:
    pictures = [movie(1, preset=preset, seed=seed, photons=1e4)[1][0].pixels for seed in range(3)]
    for a, b in itertools.combinations(pictures, 2):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] < 0.7


def test_ground_truth_does_not_change_the_raw_frames() -> None:
    _, plain = movie(4)
    _, both = movie(4, truth=True)
    assert [f.pixels.tobytes() for f in plain] == [f.pixels.tobytes() for f in both]
    assert all(frame.truth is None for frame in plain)


def test_frames_are_what_the_stream_info_says() -> None:
    info, frames = movie(3, truth=True)
    assert info.source == "simulated confocal, neuron preset, seed 3"
    assert (info.height, info.width, info.bits) == (48, 48, 12)
    assert info.dtype == np.uint16
    assert info.interval_ms is None
    assert info.truth
    assert info.metadata["photons"] == 16.0
    for number, frame in enumerate(frames):
        assert frame.index == number
        assert frame.t_source_ns == pytest.approx(number * 270.49 * MS, abs=2)
        assert frame.pixels.shape == (48, 48)
        assert frame.pixels.dtype == np.uint16
        assert frame.pixels.max() < 2**12
        assert frame.pixel_size_um == info.pixel_size_um == 0.170
        assert frame.truth is not None
        assert frame.truth.shape == (192, 192)
        assert frame.truth.dtype == np.uint16
        assert not frame.pixels.flags.writeable
        assert not frame.truth.flags.writeable


def test_the_entry_point_finds_the_scanner_with_the_papers_settings() -> None:
    source = make_source(RunSettings(sim=SimSettings(preset="u2os")))
    assert isinstance(source, SimulatedScanner)
    info = source.open()
    assert (info.height, info.width) == (440, 440)
    assert (info.pixel_size_um, info.interval_ms, info.bits) == (0.196, 2000.0, 16)
    info = simulated_scanner(RunSettings()).open()
    assert (info.height, info.pixel_size_um, info.interval_ms) == (440, 0.170, 270.49)
    assert info.metadata["dwell_us"] == 1.2
    assert info.metadata["pinhole_au"] == 2.5


def test_a_frame_too_large_for_its_interval_is_scanned_faster() -> None:
    info = SimulatedScanner(SimSettings(size=64, interval_ms=1.0)).open()
    line_ms = info.metadata["line_ms"]
    assert isinstance(line_ms, float)
    assert 64 * line_ms == pytest.approx(1.0)


def test_small_fields_are_not_empty() -> None:
    for preset, seed in itertools.product(("neuron", "u2os"), range(3)):
        info, frames = movie(1, preset=preset, seed=seed, size=32, truth=True)
        truth, gain = frames[0].truth, info.metadata["gain_dn_per_photon"]
        assert truth is not None
        assert isinstance(gain, float)
        assert np.ptp(truth.astype(float)) > 0.2 * gain  # photons


def test_a_lost_frame_leaves_a_gap_and_changes_no_other() -> None:
    _, whole = movie(12)
    _, gappy = movie(8, drop_rate=0.4)
    indexes = [frame.index for frame in gappy]
    assert indexes == sorted(set(indexes))
    assert indexes != list(range(8))
    for frame in gappy:
        if frame.index < len(whole):
            assert frame.pixels.tobytes() == whole[frame.index].pixels.tobytes()
    assert indexes == [frame.index for frame in movie(8, drop_rate=0.4)[1]]


def test_frames_come_when_their_scan_ends_and_the_pace_does_not_drift() -> None:
    clock = FakeClock()
    source = SimulatedScanner(SimSettings(size=48, interval_ms=100.0), clock)
    start = clock.now
    info = source.open()
    assert info.interval_ms == 100.0
    line_ms = info.metadata["line_ms"]
    assert isinstance(line_ms, float)
    scan_ns = 48 * line_ms * MS
    for frame in itertools.islice(source.frames(), 20):
        assert frame.t_host_ns - start == pytest.approx(frame.index * 100 * MS + scan_ns, abs=2)
        clock.now += 7 * MS  # the consumer takes its time, but less than an interval


def test_after_a_delay_frames_catch_up_without_waiting_and_are_the_same() -> None:
    clock = FakeClock()
    source = SimulatedScanner(SimSettings(size=48, interval_ms=100.0, seed=3), clock)
    source.open()
    start, frames = clock.now, []
    for frame in itertools.islice(source.frames(), 10):
        frames.append(frame)
        if frame.index == 2:
            clock.now += 450 * MS
    late = [wait == 0 for wait in clock.waits]
    assert late == [False] * 3 + [True] * 4 + [False] * 3
    assert frames[9].t_host_ns - start < 1000 * MS
    source = SimulatedScanner(SimSettings(size=48, interval_ms=100.0, seed=3), FakeClock())
    source.open()
    punctual = itertools.islice(source.frames(), 10)
    assert [f.pixels.tobytes() for f in frames] == [f.pixels.tobytes() for f in punctual]


def test_as_fast_as_it_goes_never_waits() -> None:
    clock = FakeClock()
    source = SimulatedScanner(SimSettings(size=32, interval_ms=0), clock)
    source.open()
    assert len(list(itertools.islice(source.frames(), 5))) == 5
    assert clock.waits == []


def test_stop_ends_a_wait_at_once() -> None:
    source = SimulatedScanner(SimSettings(size=32, interval_ms=600_000.0))
    source.open()
    got, first = [], threading.Event()

    def consume() -> None:
        for frame in source.frames():
            got.append(frame.index)
            first.set()

    thread = threading.Thread(target=consume, name="consumer")
    thread.start()
    assert first.wait(30)
    before = time.monotonic()
    source.stop()
    source.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert time.monotonic() - before < 5
    assert got == [0]
    source.close()
