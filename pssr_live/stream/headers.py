"""The headers of wire format version 1, as ``docs/wire.md`` defines them field by field."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

__all__ = [
    "MAX_HEADER_BYTES",
    "MAX_PIXEL_BYTES",
    "MAX_SIDE",
    "RUN_ID",
    "TOPICS",
    "WIRE_VERSION",
    "EngineCheck",
    "EngineStatus",
    "FrameHeader",
    "Phase",
    "RawHeader",
    "RefusedEngine",
    "RestoredHeader",
    "RunId",
    "Status",
    "Topic",
]

WIRE_VERSION: Final = 1
MAX_HEADER_BYTES = 64 * 1024
MAX_PIXEL_BYTES = 2**30
MAX_SIDE = 65536

Topic: TypeAlias = Literal["raw", "restored", "status"]
TOPICS: tuple[Topic, ...] = ("raw", "restored", "status")
Phase: TypeAlias = Literal["starting", "running", "stopping", "finished"]

RUN_ID = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"

RunId = Annotated[str, Meta(pattern=RUN_ID)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Time = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class FrameHeader(Struct, frozen=True, kw_only=True):
    """What the headers of raw and restored frames have in common.

    Attributes
    ----------
    version : int
        Version of the wire format.
    run_id : str
        The run that the frame belongs to.
    index : int
        The source's number of the raw frame; for a restored frame, of the raw one it restores.
    shape : tuple of int
        Rows and columns.
    dtype : {"|u1", "<u2", "<f4"}
        Type of a pixel, little-endian.
    t_source_ns : int
        The source's time of the raw frame's start, ns since the start of its acquisition.
    t_sent_unix_ns : int
        When the daemon published it, ns since 1970 (UTC); kept when it is sent again to somebody
        who subscribes late.
    pixel_size_um : float or None
        Edge of one pixel of this very image, µm.
    channel : str
        Name of the channel.
    """

    version: Literal[1] = WIRE_VERSION
    run_id: RunId
    index: Count
    shape: tuple[Side, Side]
    dtype: Literal["|u1", "<u2", "<f4"]
    t_source_ns: Time
    t_sent_unix_ns: Time
    pixel_size_um: Annotated[float, Meta(gt=0)] | None
    channel: str

    @property
    def nbytes(self) -> int:
        """Size of the pixel part, bytes."""
        return self.shape[0] * self.shape[1] * int(self.dtype[-1])


class RawHeader(FrameHeader, frozen=True, kw_only=True):
    """Header of a raw (undersampled) frame."""

    kind: Literal["raw"] = "raw"


class RestoredHeader(FrameHeader, frozen=True, kw_only=True):
    """Header of a restored frame: a prediction of the model, not a measurement.

    Attributes
    ----------
    model, model_sha256 : str
        Name of the model and hash of its network.
    engine : str
        What really ran: engine, precision and device.
    engine_ms : float
        Time inside the engine, ms.
    latency_ms : float or None
        Last needed raw frame in the computer → restored frame ready, ms; None if not live.
    edge : bool
        The window reaches past the first or last frame of the run.
    complete : bool
        False if a frame is missing from the window.
    live : bool
        False if live had skipped it and it was restored afterwards.
    prediction : bool
        Always true.
    """

    kind: Literal["restored"] = "restored"
    model: str
    model_sha256: Sha256
    engine: str
    engine_ms: float
    latency_ms: float | None
    edge: bool
    complete: bool
    live: bool
    prediction: bool = True

    def __post_init__(self) -> None:
        if not self.prediction:
            raise ValueError("a restored frame must say that it is a prediction")


class RefusedEngine(Struct, frozen=True):
    """An engine that was tried and not used, and why (one line)."""

    engine: str
    why: str


class EngineCheck(Struct, frozen=True, kw_only=True):
    """A comparison with fp32 on the processor that the engine passed before it went live.

    Attributes
    ----------
    what : str
        ``test pair`` or ``first window``.
    psnr_db : float or None
        Peak signal-to-noise ratio, fp32 taken for the truth, dB; None if the pixels are equal.
    floor_db : float
        What it had to reach, dB.
    drop_db : float or None
        How much nearer fp32 comes to the true image, dB; None where the truth is not known.
    cached : bool
        The comparison was made earlier, for the same engine, model and size.
    """

    what: str
    psnr_db: float | None
    floor_db: float
    drop_db: float | None = None
    cached: bool = False


class EngineStatus(Struct, frozen=True, kw_only=True):
    """What really runs, as read back from the running engine.

    Attributes
    ----------
    requested : str
        What was asked for: an engine's name or ``auto``.
    engine, device, precision, version : str
        What runs, in the runtime's own words.
    threads : int
        Threads of the runtime.
    refused : tuple of RefusedEngine
        Engines that were tried before.
    cached : bool or None
        Compiled earlier and loaded from the cache; None: this engine keeps no cache.
    tiles : int
        Parts that a frame is restored in.
    checks : tuple of EngineCheck
        What it passed before it went live.
    """

    requested: str
    engine: str
    device: str
    precision: str
    version: str
    threads: Count
    refused: tuple[RefusedEngine, ...] = ()
    cached: bool | None = None
    tiles: Annotated[int, Meta(ge=1)] = 1
    checks: tuple[EngineCheck, ...] = ()


class Status(Struct, frozen=True, kw_only=True):
    """How the run is doing; published twice a second.

    Attributes
    ----------
    version : int
        Version of the wire format.
    kind : str
        ``status``.
    run_id : str
        The run.
    phase : {"starting", "running", "stopping", "finished"}
        Where the run is in its life.
    source : str
        One line for people: what delivers the frames.
    model : str
        Name of the model.
    model_sha256 : str or None
        Hash of its network; None before the model is read.
    engine : EngineStatus or None
        None before the engine is ready.
    run_folder : str
        Absolute path of the run folder.
    frames_received, frames_recorded, frames_restored : int
        Taken from the source; safe in the raw stack; in the restored stack.
    frames_skipped_live, frames_lost_at_source : int
        Not restored live because the engine was behind; never delivered by the source.
    fps_raw, fps_restored : float or None
        Frames per second over the last seconds.
    latency_ms_p50, latency_ms_p99 : float or None
        Last needed frame in → restored frame ready, ms, over the last frames.
    uptime_s : float
        Time since the run began, s.
    viewers : int
        Viewers connected.
    warnings : tuple of str
        The last few warnings, oldest first.
    standing : tuple of str
        Warnings that hold for the whole run, such as pixels of a size that the model is not for.
    final : bool
        Last status of this run: nothing comes after it.
    """

    version: Literal[1] = WIRE_VERSION
    kind: Literal["status"] = "status"
    run_id: RunId
    phase: Phase
    source: str
    model: str
    model_sha256: Sha256 | None
    engine: EngineStatus | None
    run_folder: str
    frames_received: Count
    frames_recorded: Count
    frames_restored: Count
    frames_skipped_live: Count
    frames_lost_at_source: Count
    fps_raw: float | None
    fps_restored: float | None
    latency_ms_p50: float | None
    latency_ms_p99: float | None
    uptime_s: float
    viewers: Count
    warnings: tuple[str, ...] = ()
    standing: tuple[str, ...] = ()
    final: bool = False
