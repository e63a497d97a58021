from __future__ import annotations

import json
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from pssr_live.errors import SourceError, UsageError
from pssr_live.frames import Frame
from pssr_live.record.ome_xml import raw_stack
from pssr_live.record.stack import PlaneInfo, StackWriter
from pssr_live.settings import ReplaySettings, RunSettings
from pssr_live.source import FrameSource, StreamInfo, make_source
from pssr_live.testing import SourceContract
from pssr_live_drivers.replay import MonotonicClock, RecordedMovie, recorded_movie

MS = 1_000_000
MOVIE: NDArray[np.uint16] = np.random.default_rng(7).integers(0, 65536, (6, 16, 20), np.uint16)


def replayed(path: Path, **settings: Any) -> tuple[StreamInfo, list[Frame]]:
    source = RecordedMovie(ReplaySettings(input=str(path), **{"fast": True, **settings}))
    try:
        return source.open(), list(source.frames())
    finally:
        source.close()


def refused(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        replayed(path)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line
    return line


def assert_movie(frames: Sequence[Frame], movie: NDArray[Any]) -> None:
    assert [frame.index for frame in frames] == list(range(len(movie)))
    for frame, plane in zip(frames, movie, strict=True):
        assert np.array_equal(frame.pixels, plane)
        assert not frame.pixels.flags.writeable


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_tiff(movie: NDArray[Any] = MOVIE, **options: Any) -> Path:
        path = tmp_path / "movie.tif"
        tifffile.imwrite(path, movie, **options)
        return path

    return write_tiff


def times_ms(frames: Sequence[Frame]) -> list[float]:
    return [frame.t_source_ns / MS for frame in frames]


class TestReplayContract(SourceContract):
    @pytest.fixture(autouse=True)
    def movie(self, tmp_path: Path) -> None:
        self.path = tmp_path / "movie.tif"
        tifffile.imwrite(self.path, MOVIE, imagej=True, metadata={"axes": "TYX"})

    def make(self) -> FrameSource:
        return make_source(
            RunSettings(
                scope="replay", replay=ReplaySettings(input=str(self.path), interval_ms=5.0)
            )
        )


# What files say


def test_an_ome_tiff_gives_size_interval_and_times(write: Callable[..., Path]) -> None:
    path = write(
        ome=True,
        metadata={
            "axes": "TYX",
            "PhysicalSizeX": 170,
            "PhysicalSizeXUnit": "nm",
            "TimeIncrement": 250.0,
            "TimeIncrementUnit": "ms",
            "SignificantBits": 12,
            "Channel": {"Name": ["GFP"]},
            "Plane": {"DeltaT": [0.1, 0.3, 0.6, 0.9, 1.2, 1.5]},
        },
    )
    info, frames = replayed(path)
    assert info.source == "OME-TIFF movie.tif"
    assert (info.height, info.width, info.dtype, info.bits) == (16, 20, np.uint16, 12)
    assert (info.frames, info.channel) == (6, "GFP")
    assert info.pixel_size_um == pytest.approx(0.17)
    assert info.interval_ms == 250
    assert times_ms(frames) == [100, 300, 600, 900, 1200, 1500]
    assert frames[0].pixel_size_um == info.pixel_size_um
    assert_movie(frames, MOVIE)


def test_the_interval_is_that_of_the_times_where_only_they_are_given(
    write: Callable[..., Path],
) -> None:
    times = [0.0, 400.0, 800.0, 1200.0, 2000.0, 2400.0]
    plane = {"DeltaT": times, "DeltaTUnit": ["ms"] * 6}
    info, frames = replayed(write(ome=True, metadata={"axes": "TYX", "Plane": plane}))
    assert info.interval_ms == 400
    assert times_ms(frames) == times


def test_times_that_do_not_increase_are_not_used(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    metadata = {"axes": "TYX", "TimeIncrement": 2.0, "Plane": {"DeltaT": [0.0] * 6}}
    _, frames = replayed(write(ome=True, metadata=metadata))
    assert times_ms(frames)[:3] == [0, 2000, 4000]
    assert "DeltaT" in caplog.text


@pytest.mark.parametrize(
    ("unit", "per_unit", "size_um"),
    [
        ("micron", 2.0, 0.5),
        ("um", 2.0, 0.5),
        (r"\u00B5m", 2.0, 0.5),
        ("nm", 0.01, 0.1),
        ("mm", 1000.0, 1.0),
        ("cm", 10_000.0, 1.0),
        ("inch", 25_400.0, 1.0),
        ("pixel", 2.0, None),
    ],
)
def test_an_imagej_tiff_gives_size_and_interval(
    write: Callable[..., Path], unit: str, per_unit: float, size_um: float | None
) -> None:
    metadata = {"axes": "TYX", "finterval": 0.5, "unit": unit}
    info, frames = replayed(write(imagej=True, metadata=metadata, resolution=(per_unit, per_unit)))
    assert info.source == "ImageJ TIFF movie.tif"
    assert info.pixel_size_um == (None if size_um is None else pytest.approx(size_um, rel=1e-4))
    assert info.interval_ms == 500
    assert times_ms(frames)[:3] == [0, 500, 1000]
    assert_movie(frames, MOVIE)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_imagej_s_micro_sign_is_read_in_both_encodings(
    write: Callable[..., Path], encoding: str
) -> None:
    path = write(imagej=True, metadata={"axes": "TYX", "unit": "??m"}, resolution=(2, 2))
    unit = "µm".encode(encoding).ljust(3, b"\n")
    path.write_bytes(path.read_bytes().replace(b"??m", unit))
    assert replayed(path)[0].pixel_size_um == 0.5


def test_an_imagej_interval_in_another_unit_is_converted(write: Callable[..., Path]) -> None:
    info, _ = replayed(write(imagej=True, metadata={"axes": "TYX", "finterval": 2, "tunit": "min"}))
    assert info.interval_ms == 120_000


def test_pixels_that_are_not_square_are_said(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    metadata = {"axes": "TYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.2}
    info, _ = replayed(write(ome=True, metadata=metadata))
    assert info.pixel_size_um == 0.1
    assert "not square" in caplog.text


def test_a_plain_tiff_gives_its_size_if_that_is_in_centimetres(write: Callable[..., Path]) -> None:
    info, frames = replayed(
        write(metadata=None, resolution=(50_000, 50_000), resolutionunit="CENTIMETER")
    )
    assert info.pixel_size_um == pytest.approx(0.2)
    assert info.source == "TIFF movie.tif"
    assert_movie(frames, MOVIE)
    info, _ = replayed(write(metadata=None, resolution=(72, 72), resolutionunit="INCH"))
    assert info.pixel_size_um is None


def test_damaged_ome_xml_still_gives_the_planes(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(ome=True, metadata={"axes": "TYX", "PhysicalSizeX": 0.1})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"<Pixels", b"<Pix<ls"))
    info, frames = replayed(path)
    assert info.pixel_size_um is None
    assert_movie(frames, MOVIE)


# Which planes are the movie


@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"metadata": {"axes": "ZYX"}},
        {},
        {"metadata": None},
        {"metadata": None, "byteorder": ">"},
        {"imagej": True, "metadata": {"axes": "TYX"}, "truncate": True},
        {"metadata": None, "bigtiff": True},
        {"metadata": None, "rowsperstrip": 3},
        {"compression": "zlib", "predictor": True},
        {"ome": True, "metadata": {"axes": "TYX"}, "tile": (16, 16)},
    ],
    ids=str,
)
def test_the_only_long_axis_is_time_however_the_file_is_written(
    write: Callable[..., Path], options: dict[str, Any]
) -> None:
    assert_movie(replayed(write(**options))[1], MOVIE)


def test_a_long_channel_axis_is_time_a_short_one_is_not(write: Callable[..., Path]) -> None:
    movie = np.concatenate([MOVIE, MOVIE])
    path = write(movie, imagej=True, metadata={"axes": "CYX"})
    assert_movie(replayed(path)[1], movie)
    assert "channels of one image" in refused(write(imagej=True, metadata={"axes": "CYX"}))


@pytest.mark.parametrize("options", [{"ome": True}, {"imagej": True}], ids=str)
def test_of_several_channels_the_first_is_taken_and_that_is_said(
    write: Callable[..., Path], options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    two = np.stack([MOVIE, MOVIE[::-1]], axis=1)
    _, frames = replayed(write(two, metadata={"axes": "TCYX"}, **options))
    assert_movie(frames, MOVIE)
    assert "has 2 channels; only the first is replayed" in caplog.text


def test_several_planes_per_time_point_are_refused(write: Callable[..., Path]) -> None:
    volumes = np.stack([MOVIE, MOVIE], axis=1)
    line = refused(write(volumes, ome=True, metadata={"axes": "TZYX"}))
    assert "several planes per time point" in line
    assert "projection" in line
    assert "several planes per time point" in refused(write(volumes))


def test_colour_is_refused(write: Callable[..., Path]) -> None:
    for shape in ((16, 20, 3), (6, 16, 20, 3)):
        path = write(np.zeros(shape, np.uint8), photometric="rgb")
        assert "not grey" in refused(path)


def test_a_single_image_is_a_movie_of_one_frame(write: Callable[..., Path]) -> None:
    info, frames = replayed(write(MOVIE[0]))
    assert info.frames == 1
    assert_movie(frames, MOVIE[:1])


@pytest.mark.parametrize("metadata", [{}, None])
def test_images_written_one_by_one_are_a_movie(tmp_path: Path, metadata: Any) -> None:
    path = tmp_path / "one_by_one.tif"
    with tifffile.TiffWriter(path) as file:
        for plane in MOVIE:
            file.write(plane, metadata=metadata)
    assert_movie(replayed(path)[1], MOVIE)


def test_of_images_of_different_sizes_the_first_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mixed.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(MOVIE)
        file.write(MOVIE[0, :8, :8])
    assert_movie(replayed(path)[1], MOVIE)
    assert "2 images; only the first" in caplog.text


# pssr-live's own stacks

OME_XML = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
    '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="20" SizeY="16" SizeZ="1" '
    'SizeC="1" SizeT="{size_t:010d}" PhysicalSizeX="0.17" TimeIncrement="0.27049">'
    '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
)


def write_stack(path: Path, names: Sequence[str], size_t: int | None = None) -> Path:
    xml = OME_XML.format(size_t=len(names) if size_t is None else size_t)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for position, name in enumerate(names):
            file.write(
                MOVIE[position],
                metadata=None,
                contiguous=False,
                description=xml if position == 0 else None,
                extratags=[(285, "s", 0, name, True)],
            )
    return path


def stamps(*indices: int) -> list[str]:
    return [json.dumps({"index": i, "t_source_ns": i * 200 * MS, "live": True}) for i in indices]


def test_gaps_of_a_stack_of_our_own_are_gaps_again(tmp_path: Path) -> None:
    info, frames = replayed(write_stack(tmp_path / "raw.ome.tif", stamps(3, 4, 7, 9)))
    assert [frame.index for frame in frames] == [3, 4, 7, 9]
    assert times_ms(frames) == [600, 800, 1400, 1800]
    assert [frame.tags["plane"] for frame in frames] == [0, 1, 2, 3]
    assert (info.pixel_size_um, info.interval_ms) == (0.17, pytest.approx(270.49))
    for frame, plane in zip(frames, MOVIE, strict=False):
        assert np.array_equal(frame.pixels, plane)


@pytest.mark.parametrize("finished", [True, False])
def test_what_the_recorder_writes_is_replayed_as_it_came(tmp_path: Path, finished: bool) -> None:
    came = StreamInfo(
        source="a scanner",
        height=16,
        width=20,
        dtype=np.dtype(np.uint16),
        bits=12,
        pixel_size_um=0.17,
        interval_ms=270.49,
        channel="GFP",
    )
    path = tmp_path / "raw.ome.tif"
    writer = StackWriter(path, raw_stack(came, datetime.now(UTC), {}))
    for position, index in enumerate((0, 1, 5)):
        writer.put(position, MOVIE[position], PlaneInfo(index=index, t_source_ns=index * 300 * MS))
    if finished:
        writer.close()
    info, frames = replayed(path)
    writer.close()
    assert [frame.index for frame in frames] == [0, 1, 5]
    assert times_ms(frames) == [0, 300, 1500]
    for frame, plane in zip(frames, MOVIE, strict=False):
        assert np.array_equal(frame.pixels, plane)
    for field in ("height", "width", "dtype", "bits", "pixel_size_um", "interval_ms", "channel"):
        assert getattr(info, field) == getattr(came, field)


def test_a_stack_that_is_still_being_written_is_replayed_as_far_as_it_says(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "raw.ome.tif", stamps(0, 1, 2), size_t=2)
    assert [frame.index for frame in replayed(path)[1]] == [0, 1]


def test_planes_that_an_ome_tiff_lacks_are_gaps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_stack(tmp_path / "short.ome.tif", ["other software"] * 3, size_t=5)
    info, frames = replayed(path)
    assert info.frames == 3
    assert_movie(frames, MOVIE[:3])
    assert "lacks 2 of its 5 time points" in caplog.text


@pytest.mark.parametrize(
    ("names", "why"),
    [(stamps(0, 2, 1), "frame number 1 follows 2"), ([*stamps(0, 1), ""], "lost its frame number")],
)
def test_a_stack_of_our_own_with_damaged_numbers_is_refused(
    tmp_path: Path, names: list[str], why: str
) -> None:
    assert why in refused(write_stack(tmp_path / "raw.ome.tif", names))


# Pixels


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("stored", "delivered"),
    [
        ("u1", "u1"),
        ("u2", "u2"),
        ("f4", "f4"),
        ("i1", "u1"),
        ("i2", "u2"),
        ("i4", "u2"),
        ("u4", "u2"),
        ("f2", "f4"),
        ("f8", "f4"),
    ],
)
def test_pixels_keep_their_values(
    write: Callable[..., Path], stored: str, delivered: str, byteorder: str
) -> None:
    movie = (MOVIE % 128).astype(stored)
    info, frames = replayed(write(movie, metadata=None, byteorder=byteorder))
    assert info.dtype == np.dtype(delivered)
    assert info.dtype.isnative
    assert info.bits == info.dtype.itemsize * 8
    assert {frame.pixels.dtype for frame in frames} == {info.dtype}
    assert_movie(frames, movie)


def test_rounding_to_float32_is_said(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    replayed(write(MOVIE.astype("f8")))
    assert "float64 pixels; they are rounded to float32" in caplog.text


@pytest.mark.parametrize(
    ("dtype", "value", "why"),
    [
        ("f4", np.nan, "not a number"),
        ("f4", np.inf, "infinite"),
        ("f8", 1e300, "too large for float32"),
        ("i2", -1, "do not fit uint16"),
        ("i4", 65_536, "do not fit uint16"),
        ("i1", -5, "do not fit uint8"),
    ],
)
def test_a_value_that_no_frame_can_hold_ends_the_movie_at_its_frame(
    write: Callable[..., Path], dtype: str, value: float, why: str
) -> None:
    movie = (MOVIE % 100).astype(dtype)
    movie[4, 3, 2] = value
    line = refused(write(movie))
    assert why in line
    assert "movie.tif, frame 4" in line


def test_complex_pixels_are_refused(write: Callable[..., Path]) -> None:
    assert "its pixels are complex64" in refused(write(MOVIE.astype("c8")))


# Pace


class FakeClock:
    """Time that passes only while somebody waits, or by a slow consumer."""

    def __init__(self) -> None:
        self.time_ns = 1_000_000_000

    def now_ns(self) -> int:
        return self.time_ns

    def wait_until(self, deadline_ns: int, stopping: threading.Event) -> None:
        self.time_ns = max(self.time_ns, deadline_ns)


def paced(path: Path, slow_ms: Sequence[float] = (), **settings: Any) -> list[float]:
    """When frames came, ms after the first."""
    clock = FakeClock()
    source = RecordedMovie(ReplaySettings(input=str(path), **settings), clock)
    source.open()
    came = []
    for position, frame in enumerate(source.frames()):
        came.append(frame.t_host_ns / MS)
        if position < len(slow_ms):
            clock.time_ns += round(slow_ms[position] * MS)
    source.close()
    return [time - came[0] for time in came]


def test_frames_come_at_the_movies_own_pace(write: Callable[..., Path]) -> None:
    path = write(imagej=True, metadata={"axes": "TYX", "finterval": 0.3})
    assert paced(path) == [0, 300, 600, 900, 1200, 1500]
    assert paced(path, interval_ms=20.0) == [0, 20, 40, 60, 80, 100]
    assert paced(path, fast=True) == [0] * 6


def test_a_slow_consumer_does_not_shift_the_pace(write: Callable[..., Path]) -> None:
    path = write(imagej=True, metadata={"axes": "TYX", "finterval": 0.3})
    assert paced(path, slow_ms=[0, 700, 10]) == [0, 300, 1000, 1010, 1200, 1500]


def test_gaps_take_their_time(tmp_path: Path) -> None:
    path = write_stack(tmp_path / "raw.ome.tif", stamps(3, 4, 7))
    assert paced(path) == [0, 200, 800]
    assert paced(path, interval_ms=10.0) == [0, 10, 40]


def test_a_movie_without_an_interval_has_the_papers_and_that_is_said(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = write()
    assert paced(path)[:3] == pytest.approx([0, 270.49, 540.98])
    assert "does not say its frame interval" in caplog.text
    assert replayed(path)[0].interval_ms is None
    caplog.clear()
    info, frames = replayed(path, interval_ms=100.0)
    assert info.interval_ms == 100
    assert times_ms(frames)[1] == 100
    assert not caplog.records


def test_stop_ends_a_long_wait_at_once(write: Callable[..., Path]) -> None:
    waiting = threading.Event()

    class Clock(MonotonicClock):
        def wait_until(self, deadline_ns: int, stopping: threading.Event) -> None:
            if deadline_ns > self.now_ns():
                waiting.set()
            super().wait_until(deadline_ns, stopping)

    path = write(imagej=True, metadata={"axes": "TYX", "finterval": 3600})
    source = RecordedMovie(ReplaySettings(input=str(path)), Clock())
    source.open()
    delivered: list[Frame] = []
    consumer = threading.Thread(target=lambda: delivered.extend(source.frames()))
    consumer.start()
    assert waiting.wait(10)
    source.stop()
    consumer.join(10)
    assert not consumer.is_alive()
    assert len(delivered) == 1
    source.close()


# Files that are none


def test_without_a_file_the_user_is_told_what_to_give() -> None:
    with pytest.raises(UsageError, match="--input"):
        recorded_movie(RunSettings())


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.tif")
    assert "cannot be opened" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello, this is no TIFF", b"II*\0", b"II*\0\x08\0\0\0"])
def test_a_file_that_is_no_tiff_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "movie.tif"
    path.write_bytes(content)
    assert refused(path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metadata": None},
        {"ome": True, "metadata": {"axes": "TYX"}},
        {"imagej": True, "metadata": {"axes": "TYX"}},
        {"imagej": True, "metadata": {"axes": "TYX"}, "truncate": True},
        {"compression": "zlib"},
        {"bigtiff": True},
    ],
    ids=str,
)
def test_wherever_a_file_is_cut_off_it_is_refused_or_whole(
    write: Callable[..., Path], options: dict[str, Any]
) -> None:
    path = write(**options)
    content = path.read_bytes()
    refusals = 0
    for length in range(8, len(content), 61):
        path.write_bytes(content[:length])
        try:
            _, frames = replayed(path)
        except SourceError:
            refusals += 1
        else:
            assert_movie(frames, MOVIE)
    assert refusals > 10


def test_a_plane_that_cannot_be_decompressed_ends_the_movie_at_its_frame(
    write: Callable[..., Path],
) -> None:
    path = write(compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[3].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 20] = bytes(20)
    path.write_bytes(content)
    assert "frame 3" in refused(path)


# Scale, and real recordings


def test_the_movie_is_never_in_memory_at_once(tmp_path: Path) -> None:
    path = tmp_path / "long.tif"
    plane = np.zeros((512, 512), np.uint16)
    with tifffile.TiffWriter(path) as file:
        for _ in range(64):
            file.write(plane, metadata=None)
    source = RecordedMovie(ReplaySettings(input=str(path), fast=True))
    source.open()
    tracemalloc.start()
    try:
        assert sum(1 for _ in source.frames()) == 64
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        source.close()
    assert peak < 8 * plane.nbytes


def test_the_golgi_recording(shared_data: Path) -> None:
    path = shared_data / "xyt_calibrated_16bit__golgi_bfa_sum_projection.tif"
    info, frames = replayed(path)
    assert (info.height, info.width, info.dtype) == (137, 147, np.float32)
    assert info.pixel_size_um == pytest.approx(0.3514, abs=1e-4)
    assert info.interval_ms == pytest.approx(59_860)
    assert_movie(frames, tifffile.imread(path))
    assert len(frames) == 30


def test_the_membrane_recording(shared_data: Path) -> None:
    path = shared_data / "membrane_2d_timelapse.tif"
    info, frames = replayed(path)
    assert (info.frames, info.dtype) == (5, np.uint16)
    assert_movie(frames, tifffile.imread(path))


def test_the_mitochondria_image(shared_data: Path) -> None:
    path = shared_data / "BPAE_mito.tif"
    info, frames = replayed(path)
    assert (info.height, info.width, info.frames) == (680, 1100, 1)
    assert_movie(frames, tifffile.imread(path)[np.newaxis])
