"""The wire format, version 1: what travels over ZeroMQ, as ``docs/wire.md`` defines it.

A message is ``[topic, JSON header, pixels]``, or ``[topic, JSON]`` for the status. Readers ignore
fields that they do not know, so that fields can be added within a version; a known field that is
missing, or of another type or range, makes the message invalid. Nothing in a message is trusted:
the size of the pixel part must be what the header's shape and dtype say.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from pssr_live.frames import Frame, Pixels, Restored, read_only
from pssr_live.stream.headers import (
    MAX_HEADER_BYTES,
    MAX_PIXEL_BYTES,
    MAX_SIDE,
    RUN_ID,
    TOPICS,
    WIRE_VERSION,
    EngineCheck,
    EngineStatus,
    FrameHeader,
    RawHeader,
    RefusedEngine,
    RestoredHeader,
    Status,
    Topic,
)

__all__ = [
    "MAX_HEADER_BYTES",
    "MAX_PIXEL_BYTES",
    "TOPICS",
    "WIRE_VERSION",
    "EngineCheck",
    "EngineStatus",
    "FrameHeader",
    "FrameMessage",
    "Message",
    "RawHeader",
    "RefusedEngine",
    "RestoredHeader",
    "Status",
    "Topic",
    "WireError",
    "check_run_id",
    "decode",
    "encode_raw",
    "encode_restored",
    "encode_status",
]

Part: TypeAlias = bytes | memoryview
Parts: TypeAlias = tuple[Part, ...]


class WireError(ValueError):
    """A message is not what the wire format says.

    Not an error that ends a command (so none of `pssr_live.errors`): who receives such a message
    counts it and drops it.
    """


H_co = TypeVar("H_co", bound=FrameHeader, covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class FrameMessage(Generic[H_co]):
    """A frame as it arrived.

    Attributes
    ----------
    header : RawHeader or RestoredHeader
        What the daemon says about it.
    pixels : ndarray, shape ``header.shape``, uint8, uint16 or float32
        Read-only; the memory of the message itself.
    """

    header: H_co
    pixels: Pixels


Message: TypeAlias = FrameMessage[RawHeader] | FrameMessage[RestoredHeader] | Status


class _Envelope(Struct, frozen=True):
    """What must be there in every version, so that a reader can say which one it met."""

    version: int
    kind: str


def check_run_id(run_id: str) -> str:
    """Return ``run_id`` if it can name a run (and a file), else raise WireError."""
    if re.match(RUN_ID, run_id) is None or run_id.endswith("\n"):
        raise WireError(f"run id {run_id!r} is not 1 to 128 letters, digits, '_', '.' or '-'")
    return run_id


def encode_raw(frame: Frame, run_id: str) -> Parts:
    """Make the message of a raw frame.

    Parameters
    ----------
    frame : Frame
        Its pixels are copied; it may be released afterwards.
    run_id : str
        The run it belongs to.

    Returns
    -------
    tuple of bytes or memoryview
        Topic, header, pixels.

    Raises
    ------
    WireError
        The frame cannot be sent: not 2-D, of another dtype, or too large.
    """
    pixels = _copied(frame.pixels)
    header = RawHeader(
        run_id=run_id,
        index=int(frame.index),
        shape=(pixels.shape[0], pixels.shape[1]),
        dtype=pixels.dtype.str,  # type: ignore[arg-type]  # _copied lets no others through
        t_source_ns=int(frame.t_source_ns),
        t_sent_unix_ns=time.time_ns(),
        pixel_size_um=_size(frame.pixel_size_um),
        channel=_text(frame.channel),
    )
    return b"raw", _header_json(header), pixels.data.cast("B")


def encode_restored(restored: Restored, run_id: str) -> Parts:
    """Make the message of a restored frame; as `encode_raw`."""
    pixels = _copied(restored.pixels)
    header = RestoredHeader(
        run_id=run_id,
        index=int(restored.index),
        shape=(pixels.shape[0], pixels.shape[1]),
        dtype=pixels.dtype.str,  # type: ignore[arg-type]
        t_source_ns=int(restored.t_source_ns),
        t_sent_unix_ns=time.time_ns(),
        pixel_size_um=_size(restored.pixel_size_um),
        channel=_text(restored.channel),
        model=restored.model,
        model_sha256=restored.model_sha256,
        engine=_text(restored.engine),
        engine_ms=float(restored.engine_ms),
        latency_ms=_number(restored.latency_ms),
        edge=bool(restored.edge),
        complete=bool(restored.complete),
        live=bool(restored.live),
    )
    return b"restored", _header_json(header), pixels.data.cast("B")


def encode_status(status: Status) -> Parts:
    """Make the message of a status.

    Parameters
    ----------
    status : Status
        What to say.

    Returns
    -------
    tuple of bytes
        Topic, JSON.

    Raises
    ------
    WireError
        It is too long.
    """
    return b"status", _header_json(status)


def decode(parts: Sequence[Part]) -> Message:
    """Read a message, checking everything it says.

    Parameters
    ----------
    parts : sequence of bytes or memoryview
        The parts of the message, as ZeroMQ delivered them.

    Returns
    -------
    FrameMessage or Status
        Pixels are a read-only view of the last part (a copy only if that is not aligned).

    Raises
    ------
    WireError
        It is not a valid message of this version.
    """
    if not 2 <= len(parts) <= 3:
        raise WireError(f"{len(parts)} parts instead of 2 or 3")
    header = parts[1]
    if memoryview(header).nbytes > MAX_HEADER_BYTES:
        raise WireError(f"a header of {memoryview(header).nbytes} bytes")
    topic = bytes(parts[0][:16])
    try:
        envelope = msgspec.json.decode(header, type=_Envelope)
        if envelope.version != WIRE_VERSION:
            raise WireError(f"wire version {envelope.version}; this program reads {WIRE_VERSION}")
        if envelope.kind.encode() != topic:
            raise WireError(f"kind {envelope.kind!r} under topic {topic!r}")
        if topic == b"status" and len(parts) == 2:
            return msgspec.json.decode(header, type=Status)
        if topic == b"raw" and len(parts) == 3:
            raw = msgspec.json.decode(header, type=RawHeader)
            return FrameMessage(raw, _pixels(raw, parts[2]))
        if topic == b"restored" and len(parts) == 3:
            restored = msgspec.json.decode(header, type=RestoredHeader)
            return FrameMessage(restored, _pixels(restored, parts[2]))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise WireError(f"header: {error}") from error
    raise WireError(f"topic {topic!r} with {len(parts)} parts")


def _pixels(header: FrameHeader, part: Part) -> Pixels:
    size = memoryview(part).nbytes
    if header.nbytes > MAX_PIXEL_BYTES or size != header.nbytes:
        rows, columns = header.shape
        raise WireError(f"{size} bytes of pixels for {rows}×{columns} of {header.dtype}")
    pixels = np.frombuffer(part, dtype=header.dtype).reshape(header.shape)
    # ZeroMQ may put small messages at odd addresses.
    return read_only(pixels if pixels.flags.aligned else pixels.copy())


def _copied(pixels: Pixels) -> Pixels:
    """Copy to little-endian, C order."""
    dtype = pixels.dtype.newbyteorder("<")
    if dtype.str not in ("|u1", "<u2", "<f4"):
        raise WireError(f"pixels of dtype {pixels.dtype}; u1, u2 and f4 can be sent")
    if pixels.ndim != 2 or not all(1 <= side <= MAX_SIDE for side in pixels.shape):
        raise WireError(f"pixels of shape {pixels.shape}")
    if pixels.nbytes > MAX_PIXEL_BYTES:
        raise WireError(f"{pixels.nbytes} bytes of pixels; {MAX_PIXEL_BYTES} can be sent")
    return np.array(pixels, dtype=dtype, order="C", copy=True)


def _header_json(header: RawHeader | RestoredHeader | Status) -> bytes:
    try:
        encoded = msgspec.json.encode(header)
        # Nothing is sent that every reader would refuse (3 µs).
        msgspec.json.decode(encoded, type=type(header))
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise WireError(f"header: {error}") from error
    if len(encoded) > MAX_HEADER_BYTES:
        raise WireError(f"a header of {len(encoded)} bytes; {MAX_HEADER_BYTES} can be sent")
    return encoded


def _text(text: str) -> str:
    """Replace what UTF-8 cannot say, such as a device name in another encoding."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _size(value: float | None) -> float | None:
    """Say None for the 0 that some devices report when they are not calibrated."""
    return float(value) if value is not None and value > 0 else None
