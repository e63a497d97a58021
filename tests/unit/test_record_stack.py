from __future__ import annotations

import errno
import io
import re
import shutil
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pssr_live.errors import StorageError
from pssr_live.record import PlaneInfo, StackDescription, StackReader, StackWriter, raw_stack
from pssr_live.record import stack as stack_module
from pssr_live.source import StreamInfo

HEIGHT, WIDTH = 20, 24
STARTED = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)
MEMORY_PAGE = 4096


def description(dtype: str = "uint16", pixel_size_um: float | None = 0.17) -> StackDescription:
    info = StreamInfo("a scanner", HEIGHT, WIDTH, np.dtype(dtype), 8, pixel_size_um, 250.0, "mito")
    return raw_stack(info, STARTED, {"run_id": "a run"})


def movie(planes: int, dtype: str = "uint16") -> NDArray[Any]:
    values = np.random.default_rng(planes).random((planes, HEIGHT, WIDTH)) * 250
    return values.astype(dtype)


def info(plane: int) -> PlaneInfo:
    return PlaneInfo(index=plane, t_source_ns=plane * 250_000_000)


def seen(path: Path) -> NDArray[Any]:
    """The planes that tifffile sees, page by page and as one OME series."""
    if path.read_bytes()[:16] == stack_module.HEADER:
        return movie(0)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        pages = np.stack([page.asarray() for page in tif.pages])
        series = tif.series[0].asarray().reshape(-1, HEIGHT, WIDTH)
    # SizeT may lag behind the pages by as much as a crash between two writes leaves, never lead.
    assert len(series) <= len(pages)
    assert np.array_equal(pages[: len(series)], series)
    return pages


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_finished_stack_is_an_ome_tiff_of_all_planes(tmp_path: Path, dtype: str) -> None:
    planes = movie(4, dtype)
    path = tmp_path / "raw.ome.tif"
    writer = StackWriter(path, description(dtype))
    for number, plane in enumerate(planes):
        writer.put(number, plane, info(number))
    writer.close(4)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert tif.is_bigtiff
        series = tif.series[0]
        assert (series.axes, series.shape, series.dtype) == ("TYX", planes.shape, planes.dtype)
        assert np.array_equal(series.asarray(), planes)
        page = tif.pages[0]
        assert page.tags["XResolution"].value == (1_000_000, 17)  # per cm: 0.17 µm
        assert page.tags["PageName"].value == '{"index":0,"t_source_ns":0}'
        delta_t = tifffile.xml2dict(tif.ome_metadata or "")["OME"]["Image"]["Pixels"]["Plane"]
        assert [plane["DeltaT"] for plane in delta_t] == [0, 0.25, 0.5, 0.75]


def test_one_plane_is_a_stack_too(tmp_path: Path) -> None:
    path = tmp_path / "raw.ome.tif"
    writer = StackWriter(path, description())
    writer.put(0, movie(1)[0], info(0))
    writer.close(1)
    assert np.array_equal(tifffile.imread(path), movie(1)[0])


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("pixel_size_um", [0.17, 0.0425, 0.002, None])
def test_libtiff_reads_it_without_a_warning(
    tmp_path: Path, finished: bool, pixel_size_um: float | None
) -> None:
    tiffinfo = shutil.which("tiffinfo")
    if tiffinfo is None:
        pytest.skip("tiffinfo is not installed (package libtiff-tools)")
    path = tmp_path / "raw.ome.tif"
    writer = StackWriter(path, description(pixel_size_um=pixel_size_um))
    for number, plane in enumerate(movie(3)):
        writer.put(number, plane, info(number))
    if finished:
        writer.close(3)
    done = subprocess.run([tiffinfo, "-D", path], capture_output=True, text=True, check=True)
    writer.close()
    assert done.stderr == ""
    assert done.stdout.count("=== TIFF directory") == 3
    assert ("Resolution" in done.stdout) == (pixel_size_um in (0.17, 0.0425))


def test_every_acknowledged_plane_can_be_read_while_the_file_is_being_written(
    tmp_path: Path,
) -> None:
    planes = movie(5)
    path = tmp_path / "raw.ome.tif"
    writer = StackWriter(path, description())
    for number, plane in enumerate(planes):
        writer.put(number, plane, info(number))
        assert np.array_equal(seen(path), planes[: number + 1])
        assert np.array_equal(tifffile.imread(path), planes[: number + 1].squeeze())
    writer.close()


def test_planes_that_come_while_a_reader_opens_the_file_do_not_confuse_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    planes = movie(20)
    path = tmp_path / "raw.ome.tif"
    writer = StackWriter(path, description())
    writer.put(0, planes[0], info(0))
    for number in range(1, 17, 4):
        with tifffile.TiffFile(path) as tif:
            for position in range(number, number + 4):
                writer.put(position, planes[position], info(position))
            # tifffile has noted the file's size and SizeT, and follows the chain only now.
            found = tif.series[0].asarray().reshape(-1, HEIGHT, WIDTH)
            assert number <= len(found) <= len(tif.pages) == number + 4
            assert np.array_equal(found, planes[: len(found)])
    writer.close()
    # It says that there are more pages than SizeT, but nothing of damage or missing planes.
    assert all(
        re.fullmatch(r".* OME series expected \d+ frames, got \d+", m) for m in caplog.messages
    )
    with tifffile.TiffFile(path) as tif:
        xml = tif.pages[0].tags["ImageDescription"]
        assert path.stat().st_size == xml.valueoffset + xml.count  # nothing is left behind it


@settings(deadline=None, max_examples=40)
@given(order=st.permutations(range(6)), written=st.integers(0, 6))
def test_planes_in_any_order_make_a_gapless_prefix_in_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], written: int
) -> None:
    planes = movie(6)
    path = tmp_path_factory.mktemp("stack") / "restored.ome.tif"
    writer = StackWriter(path, description())
    have: set[int] = set()
    for position in order[:written]:
        writer.put(position, planes[position], info(position))
        have.add(position)
        prefix = next(number for number in range(7) if number not in have)
        assert writer.committed == prefix
        assert np.array_equal(seen(path), planes[:prefix])
    assert writer.missing(6) == sorted(set(range(6)) - have)
    for position in writer.missing(6):
        writer.put(position, planes[position], info(position))
    writer.close(6)
    assert np.array_equal(tifffile.imread(path), planes)
    with StackReader(path) as reader:
        assert list(reader.indices) == list(range(6))


def test_planes_that_wait_behind_a_gap_cost_a_few_bytes_each(tmp_path: Path) -> None:
    """Else memory grows with the run wherever live skips a frame that it never makes good."""
    writer = StackWriter(tmp_path / "restored.ome.tif", description())
    plane = movie(1)[0]
    kept: list[int] = []
    tracemalloc.start()
    try:
        for number in range(1, 2001):
            writer.put(number, plane, info(number))
            if number % 500 == 0:
                kept.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert writer.committed == 0
    assert (kept[-1] - kept[0]) / 1500 < 64

    writer.put(0, plane, info(0))
    assert writer.committed == 2001
    assert writer.missing(2003) == [2001, 2002]
    writer.close(2001)
    with StackReader(writer.path) as reader:
        assert list(reader.indices) == list(range(2001))


def test_what_is_said_of_a_waiting_plane_is_as_it_was_given(tmp_path: Path) -> None:
    writer = StackWriter(tmp_path / "restored.ome.tif", description())
    said = [
        PlaneInfo(2**40, -5, edge=True),
        PlaneInfo(2**40 + 1, 0, complete=False),
        PlaneInfo(2**40 + 4, 2**62, live=False),
    ]
    for number in (2, 1, 0):
        writer.put(number, movie(3)[number], said[number])
    writer.close(3)
    with StackReader(writer.path) as reader:
        assert list(reader.infos) == said
    with tifffile.TiffFile(writer.path) as tif:
        notes = tifffile.xml2dict(tif.ome_metadata or "")["OME"]["StructuredAnnotations"]
    values = {
        entry["K"]: entry["value"]
        for annotation in notes["MapAnnotation"]
        for entry in np.atleast_1d(annotation["Value"]["M"])
    }
    assert values["edge_planes"] == 0
    assert values["incomplete_planes"] == 1
    assert values["planes_restored_afterwards"] == 2
    assert values["lost_indices"] == f"{2**40 + 2}-{2**40 + 3}"


def test_a_stack_that_lacks_planes_is_finished_as_far_as_it_goes_and_says_so(
    tmp_path: Path,
) -> None:
    path = tmp_path / "restored.ome.tif"
    writer = StackWriter(path, description())
    for number in (0, 1, 3):
        writer.put(number, movie(4)[number], info(number))
    with pytest.raises(StorageError, match="has 2 of 4 planes: plane 2 was not written"):
        writer.close(4)
    assert np.array_equal(seen(path), movie(4)[:2])


def test_a_plane_is_written_once_and_must_fit(tmp_path: Path) -> None:
    writer = StackWriter(tmp_path / "raw.ome.tif", description())
    plane = movie(1)[0]
    writer.put(0, plane, info(0))
    writer.put(2, plane, info(2))
    for position in (0, 2):
        with pytest.raises(ValueError, match="was written before"):
            writer.put(position, plane, info(position))
    for wrong in (plane[:-1], plane.astype("uint8"), plane.astype(">u2")):
        with pytest.raises(ValueError, match="holds"):
            writer.put(1, wrong, info(1))
    writer.close()
    assert np.array_equal(seen(writer.path), movie(1))


def test_a_part_of_a_larger_array_is_written_as_it_looks(tmp_path: Path) -> None:
    whole = movie(1)[0].repeat(2, axis=0).repeat(2, axis=1)
    writer = StackWriter(tmp_path / "raw.ome.tif", description())
    writer.put(0, whole[::2, ::2], info(0))
    writer.close(1)
    assert np.array_equal(seen(writer.path), movie(1))


def test_without_planes_no_file_is_left(tmp_path: Path) -> None:
    writer = StackWriter(tmp_path / "restored.ome.tif", description())
    with pytest.raises(StorageError, match="no plane yet"):
        StackReader(writer.path)
    writer.close()
    assert not writer.path.exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "raw.ome.tif"
    path.write_text("somebody's data")
    with pytest.raises(StorageError, match="exists"):
        StackWriter(path, description())
    assert path.read_text() == "somebody's data"


@pytest.mark.skipif(sys.platform == "win32", reason="files are not sparse by themselves there")
def test_planes_beyond_4_gib_can_be_read(tmp_path: Path) -> None:
    planes = movie(3)
    writer = StackWriter(tmp_path / "raw.ome.tif", description())
    writer.put(0, planes[0], info(0))
    for number, offset in ((1, 2**32 - 700), (2, 2**33)):
        writer._end = offset  # as if so much had been written
        writer.put(number, planes[number], info(number))
    assert np.array_equal(seen_sparse(writer.path), planes)
    writer.close(3)
    assert np.array_equal(seen_sparse(writer.path), planes)
    assert writer.path.stat().st_size > 2**33


def seen_sparse(path: Path) -> NDArray[Any]:
    found: NDArray[Any] = tifffile.imread(path)
    return found


class RecordedFile(io.FileIO):
    """A file that remembers how it came about."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "xb")
        self.writes: list[tuple[int, bytes]] = []

    def write(self, data: Any) -> int:
        self.writes.append((self.tell(), bytes(data)))
        return super().write(data)


def torn(offset: int, data: bytes) -> list[bytes]:
    """What can be on disk of one write when the process dies: whole memory pages from its start."""
    first_cut = MEMORY_PAGE - offset % MEMORY_PAGE
    return [data[:cut] for cut in (0, *range(first_cut, len(data), MEMORY_PAGE), len(data))]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 3, 2, 0)])
def test_death_at_any_moment_leaves_every_acknowledged_plane_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]
) -> None:
    monkeypatch.setattr(stack_module, "create_file", RecordedFile)
    planes = movie(4)
    writer = StackWriter(tmp_path / "raw.ome.tif", description())
    file = writer._file
    assert isinstance(file, RecordedFile)
    acknowledged = [0] * len(file.writes)  # planes that count when write n begins
    for position in order:
        before = writer.committed
        writer.put(position, planes[position], info(position))
        acknowledged += [before] * (len(file.writes) - len(acknowledged))
    writer.close(4)
    acknowledged += [4] * (len(file.writes) - len(acknowledged))

    crashed = tmp_path / "crashed.ome.tif"
    content = bytearray()
    for count, (offset, data) in zip(acknowledged, file.writes, strict=True):
        for part in torn(offset, data):
            after = bytearray(content)
            after.extend(bytes(max(0, offset + len(part) - len(after))))
            after[offset : offset + len(part)] = part
            crashed.write_bytes(after)
            if len(after) > MEMORY_PAGE * 4:  # before that, no plane can have come
                found = seen(crashed)
                assert len(found) >= count
                assert np.array_equal(found, planes[: len(found)])
        content = after
    assert acknowledged[-1] == 4


@pytest.mark.parametrize("width", range(1300, 1340, 2))
def test_what_is_changed_in_place_cannot_be_cut_by_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(stack_module, "create_file", RecordedFile)
    stream = StreamInfo("a scanner", 3, width, np.dtype("uint8"), 8, 0.17, 250.0)
    writer = StackWriter(tmp_path / "raw.ome.tif", raw_stack(stream, STARTED, {}))
    file = writer._file
    assert isinstance(file, RecordedFile)
    for number in range(3):
        writer.put(number, np.zeros((3, width), np.uint8), info(number))
    writer.close()
    end, in_place = 0, 0
    for offset, data in file.writes:
        if offset < end:
            assert offset // MEMORY_PAGE == (offset + len(data) - 1) // MEMORY_PAGE
            in_place += 1
        end = max(end, offset + len(data))
    assert in_place == 3 + 3 + 1  # links, SizeT, and at the end the OME-XML's place


class SmallDisk(io.FileIO):
    """A file on a disk that gets full: it takes a part of the last write, then refuses."""

    room = 0

    def __init__(self, path: Path) -> None:
        super().__init__(path, "xb")

    def write(self, data: Any) -> int:
        at = self.tell()
        fits = max(self.room, self.seek(0, io.SEEK_END)) - at
        self.seek(at)
        if fits <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(memoryview(data)[:fits])

    def truncate(self, size: int | None = None) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("room", range(17_000, 26_000, 331))
def test_a_full_disk_is_an_error_and_costs_no_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(stack_module, "create_file", SmallDisk)
    monkeypatch.setattr(SmallDisk, "room", room)
    planes = movie(8)
    path = tmp_path / "raw.ome.tif"
    writer = StackWriter(path, description())
    with pytest.raises(StorageError, match=r"No space left .*are safe.*make room") as refused:  # noqa: PT012
        for number, plane in enumerate(planes):
            writer.put(number, plane, info(number))
    assert refused.value.exit_code == 6
    assert np.array_equal(seen(path), planes[: writer.committed])

    monkeypatch.setattr(SmallDisk, "room", 2**20)
    for number in writer.missing(8):
        writer.put(number, planes[number], info(number))
    writer.close(8)
    assert np.array_equal(seen(path), planes)


def test_a_disk_that_is_full_at_the_end_leaves_a_stack_that_only_lacks_its_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_module, "create_file", SmallDisk)
    monkeypatch.setattr(SmallDisk, "room", 2**20)
    path = tmp_path / "raw.ome.tif"
    writer = StackWriter(path, description())
    for number, plane in enumerate(movie(3)):
        writer.put(number, plane, info(number))
    monkeypatch.setattr(SmallDisk, "room", 0)
    with pytest.raises(StorageError, match="3 planes are safe"):
        writer.close(3)
    assert np.array_equal(seen(path), movie(3))
    with StackReader(path) as reader:
        assert list(reader.times_ns) == [0, 250_000_000, 500_000_000]


def test_a_disk_that_is_full_at_the_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_module, "create_file", SmallDisk)
    with pytest.raises(StorageError, match="No space left"):
        StackWriter(tmp_path / "raw.ome.tif", description())
