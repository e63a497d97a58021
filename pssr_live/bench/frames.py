"""Frames rendered ahead and delivered from memory, so that the simulator costs nothing later."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from pssr_live.frames import Frame, Window, read_only
from pssr_live.settings import RunSettings, SimSettings
from pssr_live.source import StreamInfo, make_source

__all__ = ["MemorySource", "noise_window", "preset_info", "render"]


def preset_info() -> StreamInfo:
    """Ask the simulated scanner what the neuron preset is: size, pixel size, pace."""
    source = make_source(RunSettings(sim=SimSettings(preset="neuron")))
    try:
        return source.open()
    finally:
        source.close()


def render(count: int, size: int | None = None) -> list[Frame]:
    """Render frames of the neuron preset.

    Parameters
    ----------
    count : int
        How many.
    size : int or None
        Height and width, pixels; None for the preset's.

    Returns
    -------
    list of Frame
        With memory of their own.
    """
    sim = SimSettings(preset="neuron", interval_ms=0, size=size)
    source = make_source(RunSettings(sim=sim))
    source.open()
    try:
        return [
            replace(frame, pixels=read_only(frame.pixels.copy()))
            for frame in islice(source.frames(), count)
        ]
    finally:
        source.stop()
        source.close()


def noise_window(length: int, centre: int, size: int) -> Window:
    """Make a window of noise, for timings that do not depend on what is in the picture."""
    draw = np.random.default_rng(size)
    frames = tuple(
        Frame(
            pixels=read_only(draw.integers(0, 4096, (size, size), np.uint16)),
            index=index,
            t_source_ns=0,
            t_host_ns=0,
        )
        for index in range(length)
    )
    return Window(frames, centre, edge=False, complete=True, t_ready_ns=time.monotonic_ns())


class MemorySource:
    """A source that repeats a few frames at a given pace.

    Parameters
    ----------
    info : StreamInfo
        What it announces.
    frames : sequence of Frame
        To repeat.
    count : int
        How many to deliver.
    interval_ms : float
        Time from frame to frame; 0 for as fast as they are taken.

    Attributes
    ----------
    delivered : int
        Frames so far.
    """

    def __init__(
        self, info: StreamInfo, frames: Sequence[Frame], *, count: int, interval_ms: float
    ) -> None:
        self._info = replace(info, source="frames in memory", interval_ms=interval_ms or None)
        self._frames = frames
        self._count = count
        self._interval_ns = round(interval_ms * 1e6)
        self._go = threading.Event()
        self._stopped = threading.Event()
        self.delivered = 0

    def go(self) -> None:
        """Let the first frame come: everybody who wants to see it is there."""
        self._go.set()

    def open(self) -> StreamInfo:
        """Announce the frames; see `FrameSource`."""
        return replace(self._info, frames=self._count)

    def frames(self) -> Iterator[Frame]:
        """Deliver the frames once `go` was called; deadlines are absolute; see `FrameSource`."""
        self._go.wait()
        start_ns = time.monotonic_ns()
        for index in range(self._count):
            left_ns = start_ns + index * self._interval_ns - time.monotonic_ns()
            if left_ns > 0:
                self._stopped.wait(left_ns / 1e9)
            if self._stopped.is_set():
                return
            self.delivered = index + 1
            yield replace(
                self._frames[index % len(self._frames)],
                index=index,
                t_source_ns=index * self._interval_ns,
                t_host_ns=time.monotonic_ns(),
            )

    def stop(self) -> None:
        """End the frames; see `FrameSource`."""
        self._stopped.set()
        self._go.set()

    def close(self) -> None:
        """Nothing is held open; see `FrameSource`."""
