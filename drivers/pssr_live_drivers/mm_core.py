"""A Micro-Manager core, set up: adapters found, configuration loaded, camera checked.

pymmcore is imported only here and only when a core is made; without it all else works.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pssr_live.errors import SourceError
from pssr_live.frames import Tag
from pssr_live.settings import MicroManagerSettings
from pssr_live.source import StreamInfo

if TYPE_CHECKING:
    from pymmcore import CMMCore

__all__ = ["DEMO", "asking", "describe", "make_core"]

log = logging.getLogger(__name__)

DEMO = "demo"
DEMO_CAMERA = "Camera"
DEMO_EXPOSURE_MS = 270.49
"""The paper's interval for neurons: a scanner's pace, and one the network keeps up with."""

DEMO_PROPERTIES = {
    "PixelType": "16bit",
    "OnCameraCCDXSize": "440",
    "OnCameraCCDYSize": "440",
    # The default waves saturate at this exposure.
    "Mode": "Fluorescent Beads",
}

DTYPES: Mapping[int, np.dtype[np.generic]] = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16)}
"""dtypes of grey images, by bytes per pixel."""

INSTALL = 'pip install "pssr-live[micromanager]"'


@contextmanager
def asking(what: str, do: str) -> Iterator[None]:
    """Turn what the core raises into one line.

    Parameters
    ----------
    what : str
        What is being asked of the core.
    do : str
        What the user can do if it refuses.

    Raises
    ------
    SourceError
        In place of the core's own errors, with their text.
    """
    try:
        yield
    # A SystemError is what pymmcore makes of an image whose camera is gone.
    except (RuntimeError, OSError, ValueError, LookupError, SystemError) as error:
        raise SourceError(what, " ".join(str(error).split()), do) from error


def make_core(settings: MicroManagerSettings) -> CMMCore:
    """Make a core with devices loaded and a camera that gives grey images.

    Parameters
    ----------
    settings : MicroManagerSettings
        ``settings.config`` is not None.

    Returns
    -------
    CMMCore
        The caller must call its ``unloadAllDevices`` at the end.

    Raises
    ------
    SourceError
        pymmcore or the adapters are missing or do not match, or the configuration cannot be
        loaded, or it has no camera that can be used.
    """
    try:
        import pymmcore
    except ImportError as error:
        raise SourceError(
            "--scope mm cannot run", f"pymmcore cannot be imported ({error})", f"Run {INSTALL}"
        ) from error
    core = pymmcore.CMMCore()
    try:
        _find_adapters(core, settings)
        if settings.config == DEMO:
            _load_demo(core)
        else:
            _load_configuration(core, Path(settings.config or ""))
        _check_camera(core)
        _set_exposure(core, settings)
    except BaseException:
        core.unloadAllDevices()
        raise
    return core


def describe(core: CMMCore, settings: MicroManagerSettings) -> StreamInfo:
    """Read from the core what the frames will be.

    Parameters
    ----------
    core : CMMCore
        Set up by `make_core`.
    settings : MicroManagerSettings
        What it was set up with.

    Returns
    -------
    StreamInfo
        The interval is the exposure, where the camera says one: a camera that reads out slower
        than it exposes delivers slower. The pixel size is the core's, None if it is not calibrated.
    """
    camera = core.getCameraDevice()
    with asking(f"camera {camera} cannot be described", "check it in Micro-Manager"):
        dtype = DTYPES[core.getBytesPerPixel()]
        exposure_ms = core.getExposure()
        adapter = f"{core.getDeviceLibrary(camera)} {core.getDeviceName(camera)}"
        version = core.getVersionInfo().removeprefix("MMCore version ")
        metadata: dict[str, Tag] = {
            "mm_config": settings.config or "",
            "mm_core": version,
            "mm_device_api": core.getAPIVersionInfo(),
            "camera": camera,
            "camera_adapter": adapter,
            "exposure_ms": exposure_ms,
        }
        return StreamInfo(
            source=f"Micro-Manager {version}, camera {camera} ({adapter})",
            height=core.getImageHeight(),
            width=core.getImageWidth(),
            dtype=dtype,
            bits=min(core.getImageBitDepth(), dtype.itemsize * 8),
            pixel_size_um=core.getPixelSizeUm() or None,
            interval_ms=exposure_ms if exposure_ms > 0 else None,
            channel=_channel(core),
            metadata=metadata,
        )


def _find_adapters(core: CMMCore, settings: MicroManagerSettings) -> None:
    if settings.adapter_dir is not None:
        folder = Path(settings.adapter_dir).absolute()
        if not folder.is_dir():
            raise SourceError(
                f"adapter folder {folder}",
                "there is no such folder",
                "give the folder of the Micro-Manager installation",
            )
        _find_libraries(folder)
        core.setDeviceAdapterSearchPaths([str(folder)])
        return
    try:
        import mm_test_adapters
    except ImportError as error:
        raise SourceError(
            "no device adapters",
            f"mm-test-adapters cannot be imported ({error}) and no other folder is given",
            f"Run {INSTALL}, or set adapter_dir to the folder of the Micro-Manager installation",
        ) from error
    needed = core.getAPIVersionInfo().removeprefix("Device API version ").partition(",")[0]
    given = mm_test_adapters.__version__.partition(".")[0]
    if given != needed:
        raise SourceError(
            f"mm-test-adapters {mm_test_adapters.__version__} cannot be loaded",
            f"its device interface is {given}, that of pymmcore is {needed}",
            f"Run {INSTALL}, which installs versions that match",
        )
    core.setDeviceAdapterSearchPaths([mm_test_adapters.device_adapter_path()])


def _find_libraries(folder: Path) -> None:
    """Let Windows find the vendors' libraries that lie beside the adapters."""
    paths = os.environ.get("PATH", "").split(os.pathsep)
    if os.name == "nt" and str(folder) not in paths:
        os.environ["PATH"] = os.pathsep.join([str(folder), *paths])


def _load_demo(core: CMMCore) -> None:
    with asking(
        "Micro-Manager's demo camera cannot be loaded",
        f"Run {INSTALL}, or leave adapter_dir out of the settings",
    ):
        core.loadDevice(DEMO_CAMERA, "DemoCamera", "DCam")
        core.initializeDevice(DEMO_CAMERA)
        core.setCameraDevice(DEMO_CAMERA)
        for name, value in DEMO_PROPERTIES.items():
            core.setProperty(DEMO_CAMERA, name, value)
        core.setExposure(DEMO_EXPOSURE_MS)


def _load_configuration(core: CMMCore, path: Path) -> None:
    if not path.is_file():
        raise SourceError(
            f"Micro-Manager configuration {path}",
            "there is no such file",
            "give the path of a .cfg file, or `demo`, with --mm-config",
        )
    with asking(
        f"Micro-Manager configuration {path} cannot be loaded",
        "switch its devices on, close Micro-Manager, and see that the adapters in adapter_dir are "
        f"made for {core.getAPIVersionInfo()}",
    ):
        core.loadSystemConfiguration(str(path.absolute()))
        core.waitForSystem()


def _check_camera(core: CMMCore) -> None:
    camera = core.getCameraDevice()
    if not camera:
        raise SourceError(
            "Micro-Manager has no camera",
            "the configuration sets no default camera",
            "set one in Micro-Manager's hardware configuration wizard and save it",
        )
    with asking(f"camera {camera} cannot be used", "check it in Micro-Manager"):
        size, components = core.getBytesPerPixel(), core.getNumberOfComponents()
    if components != 1 or size not in DTYPES:
        raise SourceError(
            f"camera {camera} cannot be used",
            f"it gives {components} colour components in {size} bytes per pixel, "
            "frames are grey with 8 or 16 bits",
            "choose such a pixel type in the configuration",
        )
    channels = core.getNumberOfCameraChannels()
    if channels > 1:
        log.warning(
            "camera %s gives %d channels; only the first, %s, is taken",
            camera,
            channels,
            core.getCameraChannelName(0),
        )


def _set_exposure(core: CMMCore, settings: MicroManagerSettings) -> None:
    asked_ms = settings.exposure_ms
    if asked_ms is None:
        return
    with asking(f"exposure of {asked_ms:g} ms", "choose one that the camera can do"):
        core.setExposure(asked_ms)
    real_ms = core.getExposure()
    if abs(real_ms - asked_ms) > 0.01 * asked_ms:
        log.warning("the camera exposes for %g ms, not the %g ms asked for", real_ms, asked_ms)


def _channel(core: CMMCore) -> str:
    if core.getNumberOfCameraChannels() > 1:
        return core.getCameraChannelName(0)
    group = core.getChannelGroup()
    return core.getCurrentConfig(group) if group else ""
