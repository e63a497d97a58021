from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pssr_live.errors import StorageError
from pssr_live.record import PlaneInfo, StackReader, StackWriter, raw_stack
from pssr_live.source import StreamInfo

PLANES = np.random.default_rng(1).integers(0, 4096, (5, 12, 16)).astype("uint16")
INFO = StreamInfo("a scanner", 12, 16, np.dtype("uint16"), 12, 0.17, 270.49, "mito")
INDICES = [0, 1, 4, 5, 6]


def infos() -> list[PlaneInfo]:
    return [PlaneInfo(index, index * 1000, edge=index < 2) for index in INDICES]


def writer(path: Path, planes: int) -> StackWriter:
    stack = StackWriter(path, raw_stack(INFO, datetime.now(UTC), {}))
    for number in range(planes):
        stack.put(number, PLANES[number], infos()[number])
    return stack


def test_a_stack_is_read_as_it_was_written(tmp_path: Path) -> None:
    writer(tmp_path / "raw.ome.tif", 5).close(5)
    with StackReader(tmp_path / "raw.ome.tif") as stack:
        assert (len(stack), stack.shape, stack.dtype) == (5, (5, 12, 16), np.uint16)
        assert np.array_equal([stack.read(number) for number in range(5)], PLANES)
        assert np.array_equal(stack.read(-1), PLANES[-1])
        assert stack.pixel_size_um == 0.17
        assert stack.interval_ms == pytest.approx(270.49)
        assert stack.name == "raw"
        assert list(stack.infos) == infos()
        assert list(stack.indices) == INDICES
        assert stack.indices[-1] == 6
        assert stack.times_ns[1:3] == [1000, 4000]
        with pytest.raises(IndexError):
            stack.indices[5]


def test_a_stack_can_be_followed_while_it_grows(tmp_path: Path) -> None:
    stack = writer(tmp_path / "raw.ome.tif", 2)
    with StackReader(stack.path) as reader:
        assert len(reader) == 2
        stack.put(2, PLANES[2], infos()[2])
        assert list(reader.indices) == [0, 1]
        assert reader.refresh() == 3
        assert list(reader.indices) == [0, 1, 4]
        assert np.array_equal(reader.read(2), PLANES[2])
        stack.close()
        assert reader.refresh() == 3


def test_another_programs_movie_counts_its_own_planes(tmp_path: Path) -> None:
    path = tmp_path / "movie.ome.tif"
    tifffile.imwrite(path, PLANES, metadata={"axes": "TYX", "TimeIncrement": 0.5})
    with StackReader(path) as stack:
        assert list(stack.infos) == [None] * 5
        assert list(stack.indices) == [0, 1, 2, 3, 4]
        assert list(stack.times_ns) == [0, 500_000_000, 1_000_000_000, 1_500_000_000, 2_000_000_000]
        assert np.array_equal(stack.read(3), PLANES[3])


def test_a_pixel_size_in_another_unit_is_not_taken_for_micrometres(tmp_path: Path) -> None:
    path = tmp_path / "movie.ome.tif"
    metadata = {"axes": "TYX", "PhysicalSizeX": 170.0, "PhysicalSizeXUnit": "nm"}
    tifffile.imwrite(path, PLANES, metadata=metadata)
    with StackReader(path) as stack:
        assert stack.pixel_size_um is None


def test_page_names_of_other_programs_are_no_plane_infos(tmp_path: Path) -> None:
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, PLANES[0], extratags=[(285, 2, 0, "DAPI", True)], metadata=None)
    with StackReader(path) as stack:
        assert list(stack.infos) == [None]
        assert list(stack.times_ns) == [0]


def test_a_real_recording_can_be_read(shared_data: Path) -> None:
    with StackReader(shared_data / "membrane_2d_timelapse.tif") as stack:
        assert stack.shape == (5, 256, 256)
        assert stack.read(4).dtype == np.uint16


@pytest.mark.parametrize("content", [None, b"", b"not a picture", b"II+\0"])
def test_a_file_that_is_no_stack_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "raw.ome.tif"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StorageError, match=r"raw\.ome\.tif cannot be read as a stack"):
        StackReader(path)


@pytest.mark.parametrize("size", [17, 300, 9000])
def test_a_stack_cut_before_its_first_page_is_an_error(tmp_path: Path, size: int) -> None:
    path = tmp_path / "raw.ome.tif"
    writer(path, 5).close(5)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(StorageError, match=r"cannot be read as a stack: it is cut before"):
        StackReader(path)


def test_colours_and_stacks_without_pages_are_refused(tmp_path: Path) -> None:
    colour = tmp_path / "colour.tif"
    tifffile.imwrite(colour, np.zeros((8, 8, 3), "uint8"), photometric="rgb")
    with pytest.raises(StorageError, match="shape"):
        StackReader(colour)
    pageless = tmp_path / "pageless.tif"
    tifffile.imwrite(pageless, PLANES, imagej=True)
    content = pageless.read_bytes()
    with tifffile.TiffFile(pageless) as tif:
        end_of_first = tif.pages[0].offset + 2 + 12 * len(tif.pages[0].tags)
    pageless.write_bytes(content[:end_of_first] + bytes(4) + content[end_of_first + 4 :])
    with pytest.raises(StorageError, match="ImageJ"):
        StackReader(pageless)


def test_pages_of_another_size_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mixed.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(PLANES[0], metadata=None)
        tif.write(PLANES[0, :4], metadata=None)
    with StackReader(path) as stack, pytest.raises(StorageError, match="plane 1 has another shape"):
        stack.read(1)


def test_a_cut_file_is_an_error_that_names_the_plane(tmp_path: Path) -> None:
    path = tmp_path / "movie.tif"
    with tifffile.TiffWriter(path) as tif:
        for plane in PLANES:
            tif.write(plane, contiguous=False, metadata=None)
    path.write_bytes(path.read_bytes()[:-100])
    with StackReader(path) as stack:
        assert np.array_equal(stack.read(3), PLANES[3])
        with pytest.raises(StorageError, match="plane 4"):
            stack.read(4)
