from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import numpy as np
import ome_types
import pytest
import tifffile

from pssr_live.model import Manifest
from pssr_live.record import (
    PlaneInfo,
    StackDescription,
    StackReader,
    StackWriter,
    raw_stack,
    restored_stack,
    truth_stack,
)
from pssr_live.source import StreamInfo

STARTED = datetime(2026, 3, 1, 14, 30, 15, tzinfo=timezone(timedelta(hours=2)))
FILE = {"file": "n.onnx", "sha256": "ab" * 32}
MODEL = msgspec.convert(
    {
        "format": 1,
        "name": "neuron_mf",
        "version": "1.0",
        "description": "",
        "licence": "",
        "network": FILE,
        "test_pair": FILE,
        "card": FILE,
        "window_length": 5,
        "centre": 2,
        "scale": 4,
        "normalisation": "window-zscore",
        "min_size": 8,
        "max_size": 4096,
        "pixel_size_um": (0.1, 0.3),
        "trained_on": "",
    },
    Manifest,
)


def stream(channel: str = "mito", source: str = "a scanner") -> StreamInfo:
    return StreamInfo(source, 12, 16, np.dtype("uint16"), 12, 0.17, 270.49, channel)


def written(path: Path, stack: StackDescription, infos: list[PlaneInfo], *, close: bool) -> str:
    """The OME-XML that a reader finds in a file with these planes."""
    writer = StackWriter(path, stack)
    for number, info in enumerate(infos):
        writer.put(number, np.zeros((stack.height, stack.width), stack.dtype), info)
    if close:
        writer.close(len(infos))
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata
    writer.close()
    assert xml is not None
    return xml


def planes(count: int) -> list[PlaneInfo]:
    return [PlaneInfo(number, number * 270_490_000) for number in range(count)]


def annotations(ome: ome_types.OME) -> list[dict[str | None, str]]:
    maps = ome.structured_annotations.map_annotations
    return [{entry.k: entry.value for entry in found.value.ms} for found in maps]


def test_the_raw_stack_says_what_was_measured_and_how(tmp_path: Path) -> None:
    stack = raw_stack(stream(), STARTED, {"run_id": "my run"})
    ome = ome_types.from_xml(written(tmp_path / "raw.ome.tif", stack, planes(3), close=True))
    assert ome.creator is not None
    assert ome.creator.startswith("pssr-live ")
    image = ome.images[0]
    assert image.name == "raw"
    assert image.description is not None
    assert "as acquired from a scanner" in image.description
    assert image.acquisition_date == datetime(2026, 3, 1, 12, 30, 15)  # UTC
    pixels = image.pixels
    assert (pixels.size_x, pixels.size_y, pixels.size_t) == (16, 12, 3)
    assert pixels.type.value == "uint16"
    assert pixels.significant_bits == 12
    assert (pixels.physical_size_x, pixels.physical_size_y) == (0.17, 0.17)
    assert pixels.physical_size_x_unit.value == "µm"
    assert pixels.time_increment == 0.27049
    assert pixels.channels[0].name == "mito"
    assert [plane.delta_t for plane in pixels.planes] == [0, 0.27049, 0.54098]
    assert annotations(ome) == [{"run_id": "my run"}]


def test_the_restored_stack_says_that_it_is_a_prediction_and_whose(tmp_path: Path) -> None:
    stack = restored_stack(stream(), MODEL, STARTED, {"engine": "openvino fp32 on CPU"})
    infos = [
        PlaneInfo(0, 0, edge=True),
        PlaneInfo(1, 1, edge=True),
        PlaneInfo(2, 2),
        PlaneInfo(6, 6, complete=False),
        PlaneInfo(7, 7, live=False),
        PlaneInfo(8, 8, live=False, edge=True),
    ]
    ome = ome_types.from_xml(written(tmp_path / "restored.ome.tif", stack, infos, close=True))
    image = ome.images[0]
    assert image.name == "restored by neuron_mf 1.0 (a prediction, not a measurement)"
    assert image.description is not None
    assert "prediction" in image.description
    assert (image.pixels.size_x, image.pixels.size_y) == (64, 48)
    assert image.pixels.physical_size_x == 0.0425
    run, about = annotations(ome)
    assert run == {
        "model": "neuron_mf",
        "model_version": "1.0",
        "model_sha256": "ab" * 32,
        "engine": "openvino fp32 on CPU",
    }
    assert about == {
        "edge_planes": "0-1 5",
        "incomplete_planes": "3",
        "planes_restored_afterwards": "4-5",
        "lost_indices": "3-5",
    }


def test_the_truth_stack_says_that_it_is_simulated(tmp_path: Path) -> None:
    stack = truth_stack(stream(), (48, 64), np.dtype("float32"), STARTED, {})
    ome = ome_types.from_xml(written(tmp_path / "truth.ome.tif", stack, planes(1), close=True))
    assert ome.images[0].name == "ground truth (simulated)"
    assert ome.images[0].pixels.physical_size_x == 0.0425
    assert ome.images[0].pixels.type.value == "float"


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("channel", ["", 'Kanal <1> & "µ" \'SizeT="9"\' -->', "bell \x07 \ud800"])
def test_any_text_from_a_device_gives_valid_xml(tmp_path: Path, channel: str, close: bool) -> None:
    stack = raw_stack(stream(channel, source=channel), STARTED, {channel: channel, "n": "1"})
    ome = ome_types.from_xml(written(tmp_path / "raw.ome.tif", stack, planes(2), close=close))
    assert ome.images[0].pixels.size_t == 2
    expected = channel.replace("\x07", "?").replace("\ud800", "?")
    assert (ome.images[0].pixels.channels[0].name or "") == expected


@pytest.mark.skipif(
    importlib.util.find_spec("xmlschema") is None, reason="the package xmlschema is not installed"
)
@pytest.mark.parametrize("close", [False, True])
def test_the_xml_follows_the_schema(tmp_path: Path, close: bool) -> None:
    stack = restored_stack(stream(), MODEL, STARTED, {"run_id": "my run"})
    xml = written(tmp_path / "restored.ome.tif", stack, planes(3), close=close)
    ome_types.from_xml(xml, validate=True)
    with pytest.raises(Exception, match="Pixels"):
        ome_types.from_xml(xml.replace(' Type="uint16"', ""), validate=True)


def test_an_unknown_pixel_size_and_interval_are_left_out(tmp_path: Path) -> None:
    info = StreamInfo("a movie", 12, 16, np.dtype("float32"), 32, None, None)
    path = tmp_path / "raw.ome.tif"
    pixels = (
        ome_types.from_xml(written(path, raw_stack(info, STARTED, {}), planes(2), close=True))
        .images[0]
        .pixels
    )
    assert pixels.physical_size_x is None
    assert pixels.time_increment is None
    assert pixels.significant_bits is None
    with StackReader(path) as reader:
        assert reader.pixel_size_um is None
        assert reader.interval_ms is None


@pytest.mark.parametrize("length", [*range(3300, 3700, 16), 40_000])
def test_long_texts_move_the_plane_count_but_never_across_a_memory_page(
    tmp_path: Path, length: int
) -> None:
    path = tmp_path / "raw.ome.tif"
    stack = raw_stack(stream(source="x" * length), STARTED, {"run_id": "y" * length})
    xml = written(path, stack, planes(2), close=False)
    assert ome_types.from_xml(xml).images[0].pixels.size_t == 2
    at = path.read_bytes().index(b"0000000002")
    assert at // 4096 == (at + 9) // 4096


def test_times_are_kept_to_the_nanosecond(tmp_path: Path) -> None:
    day_ns = 24 * 3600 * 10**9
    infos = [PlaneInfo(0, day_ns + 1), PlaneInfo(1, day_ns + 123_456_789)]
    stack = raw_stack(stream(), datetime.now(UTC), {})
    xml = written(tmp_path / "raw.ome.tif", stack, infos, close=True)
    assert 'DeltaT="86400.000000001"' in xml
    assert 'DeltaT="86400.123456789"' in xml
