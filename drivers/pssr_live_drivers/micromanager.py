"""The source ``mm``: a camera of a Micro-Manager core inside the daemon."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pssr_live.errors import SourceError, UsageError
from pssr_live.frames import Frame, Pixels, Tag, read_only
from pssr_live.settings import MicroManagerSettings, RunSettings
from pssr_live.source import FrameSource, StreamInfo
from pssr_live_drivers.mm_core import asking, describe, make_core
from pssr_live_drivers.mm_losses import LossDetector, SourceClock

if TYPE_CHECKING:
    from pymmcore import CMMCore, Metadata

__all__ = ["MicroManagerCore", "micromanager_core"]

log = logging.getLogger(__name__)

ENDLESS = 2**31 - 1
"""Images asked for: as many as fit a long of Windows; 24 days at 1,000 frames a second."""

POLL_S = 0.005
"""Adds 2.5 ms on average to a frame's way; each wake-up costs about 0.1 ms of a core."""

NUMERIC_TAGS: Mapping[str, type[int] | type[float]] = {
    "ElapsedTime-ms": float,
    "Height": int,
    "ImageNumber": int,
    "ROI-X-start": int,
    "ROI-Y-start": int,
    "Width": int,
}
CHANNEL_INDEX = "CameraChannelIndex"
CHECK_CAMERA = "check the camera and its cables, then start again"


def micromanager_core(settings: RunSettings) -> FrameSource:
    """Make the source that runs a Micro-Manager core of its own.

    Parameters
    ----------
    settings : RunSettings
        ``settings.mm`` names the configuration.

    Returns
    -------
    FrameSource

    Raises
    ------
    UsageError
        No configuration is named.
    """
    if settings.mm.config is None:
        raise UsageError(
            "--scope mm",
            "no Micro-Manager configuration is named",
            "give one with --mm-config FILE, or --mm-config demo for the simulated camera",
        )
    return MicroManagerCore(settings.mm)


class MicroManagerCore:
    """A camera of a Micro-Manager core as a source; see `pssr_live.source.FrameSource`.

    Frames are numbered by Micro-Manager's ImageNumber, plus the frames that were lost without it
    (see `mm_losses`). Their time is that of the camera, in most adapters when the core got the
    image: the end of the frame. Of several channels, the first is taken.

    The core stops when its buffer overflows, instead of dropping images silently; what is in the
    buffer is delivered, then the acquisition is started again, and the gap is numbered.

    Parameters
    ----------
    settings : MicroManagerSettings
        ``settings.config`` is not None.
    """

    def __init__(self, settings: MicroManagerSettings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._core: CMMCore | None = None
        self._info: StreamInfo | None = None
        self._channels = 1
        self._losses = LossDetector()
        self._clock = SourceClock()

    def open(self) -> StreamInfo:
        """Load the devices and read what the camera gives.

        Raises
        ------
        SourceError
            Micro-Manager or the camera cannot be used.
        """
        self._core = make_core(self._settings)
        self._info = describe(self._core, self._settings)
        self._channels = self._core.getNumberOfCameraChannels()
        interval_ms = self._info.interval_ms
        self._losses = LossDetector(None if interval_ms is None else round(interval_ms * 1e6))
        return self._info

    def frames(self) -> Iterator[Frame]:
        """Deliver images as the camera acquires them.

        Raises
        ------
        SourceError
            The camera stopped by itself.
        """
        core = self._opened()
        if self._stopping.is_set():
            return
        self._start(core)
        try:
            while not self._stopping.is_set():
                if core.getRemainingImageCount() > 0:
                    frame = self._take(core)
                    if frame is not None:
                        yield frame
                elif not self._goes_on(core):
                    self._start_again(core)
                else:
                    self._stopping.wait(POLL_S)
        finally:
            self._halt()

    def stop(self) -> None:
        """Make `frames` end; images still in the core's buffer are not delivered."""
        self._stopping.set()

    def close(self) -> None:
        """Stop the camera and unload all devices."""
        self._halt()
        core, self._core = self._core, None
        if core is not None:
            with _ending("the devices could not be unloaded"):
                core.unloadAllDevices()

    def _opened(self) -> CMMCore:
        assert self._core is not None, "frames() before open()"
        return self._core

    def _start(self, core: CMMCore) -> None:
        with asking(f"camera {core.getCameraDevice()} cannot start", CHECK_CAMERA):
            core.startSequenceAcquisition(ENDLESS, 0, True)

    def _halt(self) -> None:
        if self._core is not None and self._core.isSequenceRunning():
            with _ending("the camera could not be stopped"):
                self._core.stopSequenceAcquisition()

    def _take(self, core: CMMCore) -> Frame | None:
        """Take the oldest image from the buffer; None if it is of another channel."""
        import pymmcore

        found = pymmcore.Metadata()
        with asking("an image cannot be taken from Micro-Manager", CHECK_CAMERA):
            pixels = core.popNextImageMD(found)
        t_host_ns = time.monotonic_ns()
        tags = read_tags(found)
        if self._channels > 1 and not self._of_first_channel(core, tags):
            return None
        return self._numbered(pixels, tags, t_host_ns)

    def _numbered(self, pixels: Pixels, tags: Mapping[str, Tag], t_host_ns: int) -> Frame:
        number, elapsed_ms = tags.get("ImageNumber"), tags.get("ElapsedTime-ms")
        t_source_ns = self._clock.time_ns(
            elapsed_ms if isinstance(elapsed_ms, float) else None, t_host_ns
        )
        placed = self._losses.place(number if isinstance(number, int) else None, t_source_ns)
        if placed.lost:
            log.warning(
                "frames lost before frame %d: about %d (%s)", placed.index, placed.lost, placed.seen
            )
        assert self._info is not None
        return Frame(
            pixels=read_only(pixels),
            index=placed.index,
            t_source_ns=t_source_ns,
            t_host_ns=t_host_ns,
            pixel_size_um=self._info.pixel_size_um,
            channel=self._info.channel,
            tags=tags,
        )

    def _of_first_channel(self, core: CMMCore, tags: Mapping[str, Tag]) -> bool:
        # The core puts the name of the camera that merges the channels before the tag's.
        for name, value in tags.items():
            if name.endswith(CHANNEL_INDEX):
                return value == "0"
        return tags.get("Camera") in {core.getCameraChannelName(0), core.getCameraDevice()}

    def _goes_on(self, core: CMMCore) -> bool:
        """Tell whether images will come; False after an overflow, once the buffer is empty."""
        with asking("Micro-Manager does not answer", CHECK_CAMERA):
            overflowed, running = core.isBufferOverflowed(), core.isSequenceRunning()
            if overflowed and running:
                core.stopSequenceAcquisition()
            if core.getRemainingImageCount() > 0:
                return True
        if not overflowed and not running:
            raise SourceError(
                f"camera {core.getCameraDevice()} stopped by itself",
                "Micro-Manager acquires no more images, without an overflow",
                CHECK_CAMERA,
            )
        return not overflowed

    def _start_again(self, core: CMMCore) -> None:
        log.warning(
            "Micro-Manager's image buffer overflowed: frames were not taken fast enough; "
            "those in it (at most %d) were delivered, the acquisition is started again",
            core.getBufferTotalCapacity(),
        )
        self._losses.restarted()
        self._clock.restarted()
        self._start(core)


@contextmanager
def _ending(what: str) -> Iterator[None]:
    """Report what goes wrong while all is let go of; the rest is let go of nevertheless."""
    try:
        yield
    except RuntimeError as error:
        log.warning("%s: %s", what, error)


def read_tags(found: Metadata) -> dict[str, Tag]:
    """Read the tags of one image.

    Parameters
    ----------
    found : pymmcore.Metadata
        As the core filled it; all values are text.

    Returns
    -------
    dict
        Those that count or measure as numbers, the others as text.
    """
    tags: dict[str, Tag] = {}
    for name in found.GetKeys():
        text = found.GetSingleTag(name).GetValue()
        try:
            tags[name] = NUMERIC_TAGS.get(name, str)(text)
        except ValueError:
            tags[name] = text
    return tags
