"""What the wire format lets through, and what not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pssr_live.frames import Frame, Restored
from pssr_live.stream.wire import (
    MAX_HEADER_BYTES,
    FrameMessage,
    RawHeader,
    RestoredHeader,
    Status,
    WireError,
    decode,
    encode_raw,
    encode_restored,
    encode_status,
)

DTYPES = ["u1", "u2", "f4"]


def a_frame(pixels: Any = None, **changes: Any) -> Frame:
    if pixels is None:
        pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    fields = {
        "index": 7,
        "t_source_ns": 1_000,
        "t_host_ns": 5,
        "pixel_size_um": 0.17,
        "channel": "488 nm",
    }
    return Frame(pixels, **{**fields, **changes})


def a_restored(pixels: Any, **changes: Any) -> Restored:
    fields: dict[str, Any] = {
        "index": 7,
        "t_source_ns": 1_000,
        "pixel_size_um": 0.0425,
        "channel": "488 nm",
        "model": "neuron_mf",
        "model_sha256": "a" * 64,
        "engine": "openvino fp32 on CPU",
        "engine_ms": 12.5,
        "latency_ms": None,
        "edge": True,
        "complete": False,
        "live": False,
    }
    return Restored(pixels=pixels, **{**fields, **changes})


def a_status(**changes: Any) -> Status:
    fields: dict[str, Any] = {
        "run_id": "run-1",
        "phase": "running",
        "source": "simulated scanner",
        "model": "neuron_mf",
        "model_sha256": None,
        "engine": None,
        "run_folder": "runs/x",
        "frames_received": 3,
        "frames_recorded": 3,
        "frames_restored": 1,
        "frames_skipped_live": 0,
        "frames_lost_at_source": 0,
        "fps_raw": 3.7,
        "fps_restored": None,
        "latency_ms_p50": None,
        "latency_ms_p99": None,
        "uptime_s": 1.5,
        "viewers": 0,
    }
    return Status(**{**fields, **changes})


def changed(parts: Any, **changes: Any) -> list[Any]:
    """Return the message with other values in its header; None takes a field away."""
    header = {**json.loads(bytes(parts[1])), **changes}
    header = {key: value for key, value in header.items() if value is not ...}
    return [parts[0], json.dumps(header).encode(), *parts[2:]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_raw_frame_arrives_as_it_was_sent(dtype: str) -> None:
    pixels = (np.random.default_rng(1).random((5, 9)) * 200).astype(dtype)
    message = decode(encode_raw(a_frame(pixels), "run-1"))
    assert isinstance(message, FrameMessage)
    assert isinstance(message.header, RawHeader)
    np.testing.assert_array_equal(message.pixels, pixels)
    assert message.pixels.dtype == pixels.dtype
    assert not message.pixels.flags.writeable
    assert (message.header.run_id, message.header.index) == ("run-1", 7)
    assert (message.header.pixel_size_um, message.header.channel) == (0.17, "488 nm")
    assert message.header.t_source_ns == 1_000


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_restored_frame_arrives_with_all_that_makes_it_honest(dtype: str) -> None:
    pixels = np.full((8, 4), 3, dtype)
    message = decode(encode_restored(a_restored(pixels), "run-1"))
    assert isinstance(message, FrameMessage)
    header = message.header
    assert isinstance(header, RestoredHeader)
    np.testing.assert_array_equal(message.pixels, pixels)
    assert header.prediction
    assert (header.model, header.model_sha256) == ("neuron_mf", "a" * 64)
    assert (header.engine, header.engine_ms, header.latency_ms) == (
        "openvino fp32 on CPU",
        12.5,
        None,
    )
    assert (header.edge, header.complete, header.live) == (True, False, False)


def test_the_status_arrives_as_it_was_sent() -> None:
    status = a_status(warnings=("one", "two"), final=True)
    assert decode(encode_status(status)) == status


def test_big_endian_and_sliced_pixels_are_sent_little_endian_in_rows() -> None:
    pixels = np.arange(48, dtype=">u2").reshape(6, 8)[::2, ::2]
    parts = encode_raw(a_frame(pixels), "run-1")
    assert json.loads(parts[1])["dtype"] == "<u2"
    assert bytes(parts[2]) == np.ascontiguousarray(pixels, "<u2").tobytes()


def test_the_message_keeps_its_pixels_when_the_frame_memory_is_used_again() -> None:
    memory = np.full((4, 4), 1, np.uint16)
    parts = encode_raw(a_frame(memory), "run-1")
    memory[:] = 2
    message = decode(parts)
    assert isinstance(message, FrameMessage)
    assert (message.pixels == 1).all()


def test_receiving_copies_no_pixels() -> None:
    parts = encode_raw(a_frame(), "run-1")
    message = decode(parts)
    assert isinstance(message, FrameMessage)
    assert np.shares_memory(message.pixels, np.frombuffer(parts[2], np.uint8))


def test_pixels_at_an_odd_address_can_be_used_all_the_same() -> None:
    parts = encode_raw(a_frame(), "run-1")
    odd = memoryview(b"x" + bytes(parts[2]))[1:]
    message = decode([parts[0], parts[1], odd])
    assert isinstance(message, FrameMessage)
    assert message.pixels.flags.aligned
    np.testing.assert_array_equal(message.pixels, a_frame().pixels)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 2), np.float64),
        np.zeros((2, 2), np.int16),
        np.zeros((2, 2, 2), np.uint16),
        np.zeros((0, 2), np.uint16),
        np.zeros((1, 70_000), np.uint8),
    ],
    ids=["float64", "int16", "three axes", "empty", "too long"],
)
def test_what_is_no_frame_is_not_sent(pixels: Any) -> None:
    with pytest.raises(WireError):
        encode_raw(a_frame(pixels), "run-1")


def test_nothing_is_sent_that_every_reader_would_refuse() -> None:
    with pytest.raises(WireError, match="model_sha256"):
        encode_restored(a_restored(np.zeros((2, 2), np.uint8), model_sha256="unknown"), "run-1")
    with pytest.raises(WireError, match="index"):
        encode_raw(a_frame(index=-1), "run-1")
    with pytest.raises(WireError, match="bytes"):
        encode_status(a_status(warnings=("x" * MAX_HEADER_BYTES,)))


def test_numpy_scalars_unknown_sizes_and_odd_text_can_be_sent() -> None:
    frame = a_frame(index=np.int64(3), pixel_size_um=0.0, channel="caf\udce9")
    message = decode(encode_raw(frame, "run-1"))
    assert isinstance(message, FrameMessage)
    assert message.header.index == 3
    assert message.header.pixel_size_um is None
    assert message.header.channel == "caf?"


def test_fields_of_a_later_revision_are_ignored() -> None:
    parts = changed(encode_raw(a_frame(), "run-1"), polarisation={"angle": [1, 2]})
    message = decode(parts)
    assert isinstance(message, FrameMessage)
    assert message.header.index == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": ...},
        {"kind": "restored"},
        {"kind": ...},
        {"run_id": "../../etc"},
        {"run_id": ...},
        {"index": -1},
        {"index": 1.5},
        {"index": 2**80},
        {"shape": [3, 5]},
        {"shape": [3]},
        {"shape": [0, 4]},
        {"shape": [2**40, 2**40]},
        {"shape": [65536, 65536]},
        {"dtype": "|u1"},
        {"dtype": ">u2"},
        {"dtype": "|O"},
        {"dtype": "<f8"},
        {"pixel_size_um": -1},
        {"t_sent_unix_ns": "now"},
        {"channel": None},
    ],
    ids=str,
)
def test_a_header_that_does_not_fit_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        decode(changed(encode_raw(a_frame(), "run-1"), **changes))


def test_a_restored_frame_that_does_not_say_prediction_is_refused() -> None:
    parts = encode_restored(a_restored(np.zeros((2, 2), np.uint8)), "run-1")
    with pytest.raises(WireError, match="prediction"):
        decode(changed(parts, prediction=False))


def test_another_version_is_named() -> None:
    with pytest.raises(WireError, match="wire version 2; this program reads 1"):
        decode(changed(encode_status(a_status()), version=2, phase="dreaming"))


def test_missing_and_surplus_parts_are_refused() -> None:
    raw, status = encode_raw(a_frame(), "run-1"), encode_status(a_status())
    for parts in ([], raw[:1], raw[:2], [*raw, b""], [*status, b""], [b"raw", *status[1:]]):
        with pytest.raises(WireError):
            decode(parts)


def test_deep_nesting_and_long_headers_are_refused() -> None:
    nested = b'{"version":1,"kind":"raw","x":' + b"[" * 60_000
    for header in (nested, b" " * (MAX_HEADER_BYTES + 1)):
        with pytest.raises(WireError):
            decode([b"raw", header, b""])


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_arbitrary_bytes_never_do_more_than_raise(parts: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(parts)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=60)
@given(st.sampled_from(["raw", "restored", "status"]), st.data())
def test_a_header_with_arbitrary_values_decodes_to_valid_or_raises(
    topic: str, data: st.DataObject
) -> None:
    parts = {
        "raw": encode_raw(a_frame(), "run-1"),
        "restored": encode_restored(a_restored(np.zeros((3, 4), np.uint16)), "run-1"),
        "status": encode_status(a_status()),
    }[topic]
    fields = sorted(json.loads(bytes(parts[1])))
    values = data.draw(st.dictionaries(st.sampled_from(fields), json_values, min_size=1))
    try:
        message = decode(changed(parts, **values))
    except WireError:
        return
    if isinstance(message, FrameMessage):
        assert message.pixels.shape == message.header.shape
        assert message.pixels.nbytes == 24
