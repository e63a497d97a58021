"""The contracts that every source, engine and sink is tested with.

A driver's, engine's or sink's own tests subclass the class for its kind, say how to make one, and
pytest runs the checks:

    class TestMySource(SourceContract):
        def make(self) -> FrameSource:
            return MySource(...)
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from pssr_live.engine.base import Engine
from pssr_live.errors import ModelError
from pssr_live.frames import Frame, Pixels
from pssr_live.model import ModelPackage
from pssr_live.sink import Sink
from pssr_live.source import FrameSource, StreamInfo

__all__ = ["EngineContract", "FrameSinkContract", "SourceContract"]


class SourceContract(ABC):
    """What the daemon relies on in a source."""

    enough = 5
    """Frames that the checks ask for; a source must have as many."""

    @abstractmethod
    def make(self) -> FrameSource:
        """Make a fresh source, not yet opened, that delivers `enough` frames within seconds."""

    def test_frames_are_what_open_announced(self) -> None:
        """Shape, dtype, pixel size and channel of every frame match the announcement."""
        source = self.make()
        info = source.open()
        try:
            for frame in islice(source.frames(), self.enough):
                assert frame.pixels.shape == (info.height, info.width)
                assert frame.pixels.dtype == info.dtype
                assert frame.pixel_size_um == info.pixel_size_um
                assert frame.channel == info.channel
                assert (frame.truth is not None) == info.truth
        finally:
            source.stop()
            source.close()

    def test_indexes_and_times_increase(self) -> None:
        """Indexes increase strictly, the host's clock never runs backwards."""
        source = self.make()
        source.open()
        try:
            frames = [(f.index, f.t_source_ns, f.t_host_ns) for f in self._some(source)]
        finally:
            source.stop()
            source.close()
        assert len(frames) == self.enough
        for earlier, later in pairwise(frames):
            assert later[0] > earlier[0]
            assert later[1] >= earlier[1]
            assert later[2] >= earlier[2]

    def test_stop_from_another_thread_ends_the_frames(self) -> None:
        """After `stop`, iteration ends by itself, without an error."""
        source = self.make()
        source.open()
        started, ended = threading.Event(), threading.Event()

        def consume() -> None:
            for _ in source.frames():
                started.set()
            ended.set()

        thread = threading.Thread(target=consume, daemon=True)
        thread.start()
        try:
            assert started.wait(20), "no frame came"
            source.stop()
            assert ended.wait(20), "frames() went on after stop()"
        finally:
            source.stop()
            thread.join(20)
            source.close()

    def test_stop_before_the_first_frame_ends_the_frames(self) -> None:
        """A run that is stopped while it starts ends, after a frame or two at most."""
        source = self.make()
        source.open()
        source.stop()
        try:
            assert len(list(islice(source.frames(), 3))) < 3
        finally:
            source.close()

    def test_a_source_that_delivered_nothing_can_be_closed(self) -> None:
        """``open`` then ``close``, as after an error elsewhere."""
        source = self.make()
        source.open()
        source.close()

    def _some(self, source: FrameSource) -> list[Frame]:
        return list(islice(source.frames(), self.enough))


class EngineContract(ABC):
    """What the daemon relies on in an engine."""

    tolerance = 1e-3
    """Largest difference from the package's own expected output, in standard deviations."""

    @abstractmethod
    def make(self) -> Engine:
        """Make a fresh engine, not yet prepared."""

    @abstractmethod
    def model(self) -> ModelPackage:
        """Read the package to run."""

    def test_the_package_s_test_pair_is_reproduced(self) -> None:
        """The engine computes what the network's author computed."""
        pair = self.model().test_pair()
        window, expected = pair.window, pair.restored
        mean, std = window.mean(dtype=np.float64), window.std(dtype=np.float64)
        scored = ((window - mean) / std).astype(np.float32)[None]
        engine = self.make()
        try:
            engine.prepare(self.model(), *window.shape[1:])
            found = engine.run(scored)
            assert found.dtype == np.float32
            assert found.shape == expected.shape
            assert np.abs(found - (expected - mean) / std).max() <= self.tolerance
        finally:
            engine.close()

    def test_the_report_is_read_back_and_complete(self) -> None:
        """Nothing in the report is left open."""
        engine = self.make()
        try:
            report = engine.prepare(self.model(), 64, 48)
        finally:
            engine.close()
        assert report.engine == report.requested
        assert report.device
        assert report.version
        assert report.precision in {"fp32", "bf16", "fp16", "int8"}
        assert report.threads >= 1
        assert report.prepare_ms > 0

    def test_the_same_window_gives_the_same_bytes(self) -> None:
        """Restoration is a function of the window: nothing is left over from other windows."""
        engine = self.make()
        try:
            engine.prepare(self.model(), 61, 47)
            first, other = self._window(61, 47, seed=1), self._window(61, 47, seed=2)
            before = engine.run(first).copy()
            changed = engine.run(other).copy()
            again = engine.run(first).copy()
        finally:
            engine.close()
        assert before.tobytes() == again.tobytes()
        assert before.tobytes() != changed.tobytes()

    def test_sizes_the_network_must_pad_come_out_whole(self) -> None:
        """Odd sizes are padded and cropped inside the graph."""
        scale = self.model().manifest.scale
        for height, width in ((64, 64), (37, 53), (50, 44)):
            engine = self.make()
            try:
                engine.prepare(self.model(), height, width)
                out = engine.run(self._window(height, width, seed=3))
                assert out.shape == (scale * height, scale * width)
                assert np.isfinite(out).all()
            finally:
                engine.close()

    def test_a_size_the_network_cannot_take_is_refused(self) -> None:
        """Before the runtime sees it: some of them crash."""
        engine = self.make()
        too_small = self.model().manifest.min_size - 1
        try:
            engine.prepare(self.model(), too_small, 64)
        except ModelError as error:
            assert f"{too_small}×64" in str(error)
        else:
            raise AssertionError("frames too small for the network were accepted")
        finally:
            engine.close()

    def _window(self, height: int, width: int, *, seed: int) -> NDArray[np.float32]:
        length = self.model().manifest.window_length
        noise = np.random.default_rng(seed).standard_normal((1, length, height, width))
        return noise.astype(np.float32)


class FrameSinkContract(ABC):
    """What the daemon relies on in a sink that keeps frames."""

    info = StreamInfo(
        source="the sink contract",
        height=24,
        width=32,
        dtype=np.dtype(np.uint16),
        bits=16,
        pixel_size_um=0.17,
        interval_ms=270.49,
        channel="GFP",
    )

    @abstractmethod
    def make(self) -> Sink[Frame]:
        """Make a fresh sink, not yet opened."""

    @abstractmethod
    def kept(self) -> list[Pixels]:
        """Read the planes that the closed sink has kept, not through the sink's own code."""

    def test_planes_come_back_in_order_and_unchanged(self) -> None:
        """Also when the frame's memory is used again as soon as ``put`` has returned."""
        sink = self.make()
        sink.open(self.info)
        slot = np.empty((self.info.height, self.info.width), np.uint16)
        for index in (0, 1, 3):
            slot[...] = self._plane(index)
            sink.put(self._frame(slot, index))
            slot[...] = 0
        sink.skip([2], "lost at the source")
        sink.close()
        planes = self.kept()
        assert len(planes) == 3
        for index, plane in zip((0, 1, 3), planes, strict=True):
            assert np.array_equal(plane, self._plane(index))

    def test_a_sink_that_got_nothing_can_be_closed(self) -> None:
        """As after an error elsewhere."""
        sink = self.make()
        sink.open(self.info)
        sink.close()
        assert self.kept() == []

    def _plane(self, index: int) -> NDArray[np.uint16]:
        rng = np.random.default_rng(index)
        return rng.integers(0, 65536, (self.info.height, self.info.width), np.uint16)

    def _frame(self, pixels: Pixels, index: int) -> Frame:
        return Frame(
            pixels=pixels,
            index=index,
            t_source_ns=index * 270_490_000,
            t_host_ns=index * 270_490_000,
            pixel_size_um=self.info.pixel_size_um,
            channel=self.info.channel,
        )
