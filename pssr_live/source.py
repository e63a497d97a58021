"""Where frames come from: the FrameSource protocol, and drivers found by entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Protocol, cast

import numpy as np

from pssr_live.errors import UsageError
from pssr_live.frames import DTYPES, Frame, Tag
from pssr_live.settings import RunSettings

__all__ = ["FrameSource", "StreamInfo", "make_source", "source_names"]

ENTRY_POINTS = "pssr_live.sources"


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a source says about its frames before the first one.

    Attributes
    ----------
    source : str
        One line for people: what delivers the frames.
    height, width : int
        Size of a frame, pixels.
    dtype : numpy.dtype
        uint8, uint16 or float32.
    bits : int
        Bits that carry intensity (12 for a 12-bit detector in uint16).
    pixel_size_um : float or None
        Edge of a pixel, µm; None if unknown.
    interval_ms : float or None
        Time from frame to frame, ms; None if unknown.
    channel : str
        Name of the channel.
    frames : int or None
        How many frames will come; None if that is open.
    truth : bool
        Every frame carries ground truth.
    metadata : mapping
        What else is worth keeping: preset, seed, device names, versions.
    """

    source: str
    height: int
    width: int
    dtype: np.dtype[np.generic]
    bits: int
    pixel_size_um: float | None
    interval_ms: float | None
    channel: str = ""
    frames: int | None = None
    truth: bool = False
    metadata: Mapping[str, Tag] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(
                f"{self.source} delivers {self.dtype} pixels",
                "frames are uint8, uint16 or float32",
                "choose another pixel type at the source",
            )


class FrameSource(Protocol):
    """A microscope, a simulated one, or a recording.

    A source is used once: ``open``, then ``frames`` in one thread, ``stop`` from any thread, at
    the end ``close``. What goes wrong without ending the run (a restart after an overflow, a tag
    that cannot be read) is reported with ``logging`` at level WARNING; the session keeps such
    lines in the acquisition log.
    """

    def open(self) -> StreamInfo:
        """Connect and say what will come. Called once, before all else.

        Raises
        ------
        SourceError
            The source cannot be used.
        """

    def frames(self) -> Iterator[Frame]:
        """Deliver frames in order at the source's own pace.

        The pixels of a frame are valid until the next one is asked for. Indexes increase; a jump
        says how many frames were lost. Ends when the source has no more, or soon after `stop`.

        Raises
        ------
        SourceError
            The source broke while running.
        """

    def stop(self) -> None:
        """Make `frames` end soon. May be called from any thread, more than once."""

    def close(self) -> None:
        """Let go of devices and files. Called once, also after an error."""


def source_names() -> list[str]:
    """List the names that ``--scope`` takes, sorted."""
    return sorted(entry_points(group=ENTRY_POINTS).names)


def make_source(settings: RunSettings) -> FrameSource:
    """Make the source that the settings name, not yet opened.

    Parameters
    ----------
    settings : RunSettings
        ``settings.scope`` names the entry point in the group ``pssr_live.sources``; the driver
        reads its own part of the settings.

    Returns
    -------
    FrameSource

    Raises
    ------
    UsageError
        No driver has that name.
    SourceError
        The driver's packages are not installed.
    """
    found = entry_points(group=ENTRY_POINTS, name=settings.scope)
    if not found:
        raise UsageError(
            f"--scope {settings.scope}",
            f"no source has this name; there are {', '.join(source_names())}",
            "choose one of these",
        )
    factory = cast(Callable[[RunSettings], FrameSource], next(iter(found)).load())
    return factory(settings)
