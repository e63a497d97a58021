"""The things that travel: Frame, Window, Restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Frame", "Lease", "Pixels", "Restored", "Tag", "Window"]

Pixels: TypeAlias = NDArray[Any]
"""Pixels ``(H, W)``: uint8, uint16 or, for recordings, float32."""

Tag: TypeAlias = str | int | float | bool


class Lease(Protocol):
    """Memory that is lent out and used again once every holder has released it."""

    def hold(self) -> None:
        """Count one more holder."""

    def release(self) -> None:
        """Count one holder less; the last one gives the memory back."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One undersampled frame, as the microscope delivered it.

    Attributes
    ----------
    pixels : ndarray, shape (H, W), uint8, uint16 or float32
        Read-only. Valid until released, or, straight from a source, until the next frame is asked
        for.
    index : int
        The source's own frame number, from 0 where the source counts from its start. A jump is a
        gap: frames that the source lost.
    t_source_ns : int
        The source's time of the frame's start, ns since the start of its acquisition.
    t_host_ns : int
        ``time.monotonic_ns()`` when this computer had the whole frame.
    pixel_size_um : float or None
        Edge of one (undersampled) pixel, µm.
    channel : str
        Name of the channel.
    tags : mapping
        What else the source says about this frame; values are plain scalars.
    truth : ndarray, shape (4H, 4W), or None
        Ground truth at restored sampling; simulated sources only, and only if asked for.
    lease : Lease or None
        Owner of the memory of ``pixels``; None for memory that nobody reuses.
    """

    pixels: Pixels
    index: int
    t_source_ns: int
    t_host_ns: int
    pixel_size_um: float | None = None
    channel: str = ""
    tags: Mapping[str, Tag] = field(default_factory=dict)
    truth: Pixels | None = None
    lease: Lease | None = None

    def hold(self) -> None:
        """Keep the pixels valid until `release` is called once more."""
        if self.lease is not None:
            self.lease.hold()

    def release(self) -> None:
        """Say that this holder no longer reads the pixels."""
        if self.lease is not None:
            self.lease.release()


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Consecutive frames around the one to restore.

    Attributes
    ----------
    frames : tuple of Frame
        As many as the model looks at (5, or 1), oldest first. Where a frame does not exist, its
        nearest neighbour inside the window stands in.
    centre : int
        Position of the frame to restore.
    edge : bool
        The window reaches before the first or past the last frame of the run.
    complete : bool
        False if a frame inside the run is missing from the window (a gap).
    t_ready_ns : int
        ``time.monotonic_ns()`` when the last needed frame was in the computer.
    """

    frames: tuple[Frame, ...]
    centre: int
    edge: bool
    complete: bool
    t_ready_ns: int

    @property
    def index(self) -> int:
        """The index of the frame to restore."""
        return self.frames[self.centre].index

    def hold(self) -> None:
        """Keep all pixels of the window valid."""
        for frame in self.frames:
            frame.hold()

    def release(self) -> None:
        """Release all pixels of the window."""
        for frame in self.frames:
            frame.release()


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """One restored frame: a prediction of the model, not a measurement.

    Attributes
    ----------
    pixels : ndarray, shape (scale·H, scale·W)
        In the raw frames' dtype and intensity scale. Read-only.
    index : int
        Index of the raw frame that was restored (the window's centre).
    t_source_ns : int
        The source's time of that raw frame, ns.
    pixel_size_um : float or None
        Edge of one restored pixel, µm.
    channel : str
        Name of the channel.
    model : str
        Name of the model.
    model_sha256 : str
        Hash of the network that ran.
    engine : str
        What really ran, as read back from the engine: name, device and precision.
    engine_ms : float
        Time inside the engine, ms.
    latency_ms : float or None
        Last needed frame in the computer → restored frame ready, ms; None when restored afterwards
        from the raw stack.
    edge, complete : bool
        As of the window.
    live : bool
        False when live had skipped the frame and it was restored afterwards from the raw stack.
    """

    pixels: Pixels
    index: int
    t_source_ns: int
    pixel_size_um: float | None
    channel: str
    model: str
    model_sha256: str
    engine: str
    engine_ms: float
    latency_ms: float | None
    edge: bool
    complete: bool
    live: bool


def read_only(pixels: Pixels) -> Pixels:
    """Return a view of ``pixels`` that cannot be written through.

    Parameters
    ----------
    pixels : ndarray
        Any array.

    Returns
    -------
    ndarray
        The same memory, not writable.
    """
    view = pixels.view()
    view.flags.writeable = False
    return view


DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
"""The dtypes that frames can have."""
