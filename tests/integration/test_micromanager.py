from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pssr_live.errors import SourceError, UsageError
from pssr_live.frames import Frame
from pssr_live.settings import MicroManagerSettings, RunSettings
from pssr_live.source import FrameSource, make_source
from pssr_live.testing import SourceContract
from pssr_live_drivers import micromanager
from pssr_live_drivers.micromanager import MicroManagerCore, micromanager_core
from pssr_live_drivers.mm_core import _find_libraries

pymmcore = pytest.importorskip("pymmcore", reason="the extra `micromanager` is not installed")
mm_test_adapters = pytest.importorskip("mm_test_adapters")

CONFIG = """\
Property,Core,Initialize,0
Device,Scanner,DemoCamera,DCam
Device,Second,DemoCamera,DCam
Device,Both,Utilities,Multi Camera
Device,Filter,DemoCamera,DWheel
Property,Core,Initialize,1
Label,Filter,0,GFP
Property,Core,Camera,{camera}
ConfigGroup,System,Startup,Scanner,OnCameraCCDXSize,64
ConfigGroup,System,Startup,Scanner,OnCameraCCDYSize,48
ConfigGroup,System,Startup,Scanner,PixelType,{pixel_type}
ConfigGroup,System,Startup,Scanner,BitDepth,{bits}
ConfigGroup,System,Startup,Second,OnCameraCCDXSize,64
ConfigGroup,System,Startup,Second,OnCameraCCDYSize,48
ConfigGroup,System,Startup,Second,PixelType,{pixel_type}
ConfigGroup,System,Startup,Second,BitDepth,{bits}
ConfigGroup,System,Startup,Both,Physical Camera 1,Scanner
ConfigGroup,System,Startup,Both,Physical Camera 2,Second
ConfigGroup,Channel,green,Filter,Label,GFP
ConfigGroup,System,Startup,Core,ChannelGroup,Channel
ConfigPixelSize,Zoom3,Filter,Label,GFP
PixelSize_um,Zoom3,0.17
"""


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def write(camera: str = "Scanner", pixel_type: str = "16bit", bits: int = 12) -> str:
        path = tmp_path / "scope.cfg"
        path.write_text(CONFIG.format(camera=camera, pixel_type=pixel_type, bits=bits))
        return str(path)

    return write


@pytest.fixture
def opened() -> Iterator[Any]:
    """Sources that are closed after the test."""
    sources: list[MicroManagerCore] = []

    def open_source(config: str = "demo", exposure_ms: float | None = 20) -> MicroManagerCore:
        source = MicroManagerCore(MicroManagerSettings(config=config, exposure_ms=exposure_ms))
        sources.append(source)
        source.open()
        return source

    yield open_source
    for source in sources:
        source.close()


def core_of(source: MicroManagerCore) -> Any:
    return source._core


class TestDemoCameraContract(SourceContract):
    def make(self) -> FrameSource:
        return make_source(
            RunSettings(scope="mm", mm=MicroManagerSettings(config="demo", exposure_ms=20))
        )


def test_the_demo_is_the_real_demo_camera_at_a_scanners_size_and_pace() -> None:
    source = micromanager_core(RunSettings(mm=MicroManagerSettings(config="demo")))
    info = source.open()
    source.close()
    assert (info.height, info.width, info.dtype, info.bits) == (440, 440, np.uint16, 16)
    assert info.interval_ms == pytest.approx(270.49)
    assert info.pixel_size_um is None  # the demo camera is not calibrated
    assert "DemoCamera" in info.source


def test_a_frame_carries_the_cores_number_time_and_tags(opened: Any) -> None:
    source = opened()
    for number, frame in enumerate(islice(source.frames(), 10)):
        assert frame.index == frame.tags["ImageNumber"] == number
        assert frame.t_source_ns == round(frame.tags["ElapsedTime-ms"] * 1e6)
        assert frame.tags["Camera"] == "Camera"
        assert frame.tags["TimeReceivedByCore"]
        assert not frame.pixels.flags.writeable


def test_a_configuration_file_sets_size_calibration_channel_and_bits(
    opened: Any, config: Any
) -> None:
    source = opened(config(), exposure_ms=None)
    info = source._info
    assert (info.height, info.width, info.dtype, info.bits) == (48, 64, np.uint16, 12)
    assert info.pixel_size_um == pytest.approx(0.17)
    assert info.channel == "green"
    assert info.interval_ms == 10  # the camera's own exposure
    frame = next(source.frames())
    assert (frame.pixel_size_um, frame.channel) == (info.pixel_size_um, "green")


def test_an_eight_bit_camera_gives_uint8(opened: Any, config: Any) -> None:
    source = opened(config(pixel_type="8bit", bits=8))
    assert source._info.bits == 8
    assert next(source.frames()).pixels.dtype == np.uint8


def test_of_two_cameras_the_first_is_taken(
    opened: Any, config: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source = opened(config(camera="Both"))
    assert "2 channels; only the first, Scanner, is taken" in caplog.text
    frames = list(islice(source.frames(), 6))
    assert {frame.tags["Camera"] for frame in frames} == {"Scanner"}
    assert {frame.channel for frame in frames} == {"Scanner"}
    assert [frame.index for frame in frames] == list(range(6))


def test_an_overflow_is_reported_what_was_in_the_buffer_comes_and_the_gap_is_numbered(
    opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source = opened()
    core, pause = core_of(source), threading.Event()
    core.setCircularBufferMemoryFootprint(4)  # ten frames
    frames = source.frames()
    taken: list[Frame] = list(islice(frames, 6))
    while not core.isBufferOverflowed():
        pause.wait(0.005)
    pause.wait(0.2)  # the microscope goes on while nobody looks
    in_buffer = core.getRemainingImageCount()
    assert in_buffer >= 8
    with caplog.at_level(logging.WARNING):
        taken.extend(islice(frames, in_buffer))
        assert "overflowed" not in caplog.text
        first_after = next(frames)
    assert [frame.index for frame in taken] == list(range(6 + in_buffer))
    assert "image buffer overflowed" in caplog.text
    lost = first_after.index - taken[-1].index - 1
    assert f"frames lost before frame {first_after.index}: about {lost}" in caplog.text
    assert first_after.tags["ImageNumber"] == 0
    gap_ms = (first_after.t_source_ns - taken[-1].t_source_ns) / 1e6
    assert 1 <= lost <= gap_ms / 20
    following = list(islice(frames, 3))
    assert [frame.index - first_after.index for frame in following] == [1, 2, 3]
    for earlier, later in pairwise([*taken, first_after, *following]):
        assert later.t_source_ns > earlier.t_source_ns


def test_a_camera_that_stops_by_itself_ends_the_run_with_an_error(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micromanager, "ENDLESS", 4)
    source = opened()
    frames = source.frames()
    assert [frame.index for frame in islice(frames, 4)] == [0, 1, 2, 3]
    with pytest.raises(SourceError, match="camera Camera stopped by itself"):
        next(frames)


def test_a_camera_that_is_gone_is_an_error(opened: Any) -> None:
    source = opened()
    frames = source.frames()
    next(frames)
    core_of(source).stopSequenceAcquisition()
    core_of(source).unloadAllDevices()
    with pytest.raises(SourceError):
        list(frames)


def test_a_camera_that_will_not_stop_does_not_keep_the_source_from_closing(
    opened: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = opened()
    frames = source.frames()
    next(frames)
    core = core_of(source)

    def refuse() -> None:
        raise RuntimeError("the shutter is stuck")

    with monkeypatch.context() as stuck:
        stuck.setattr(core, "stopSequenceAcquisition", refuse)
        source.close()
    assert "the shutter is stuck" in caplog.text
    core.stopSequenceAcquisition()
    core.unloadAllDevices()


def test_stop_ends_a_wait_for_an_image(opened: Any) -> None:
    source = opened(exposure_ms=400)
    ended: list[float] = []

    def consume() -> None:
        assert list(source.frames()) == []
        ended.append(time.monotonic())

    consumer = threading.Thread(target=consume)
    consumer.start()
    while not core_of(source).isSequenceRunning():
        source._stopping.wait(0.005)
    source.stop()
    consumer.join(5)
    assert ended


def test_an_exposure_that_the_camera_does_not_take_is_said(
    opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source = opened(exposure_ms=99_999_999)
    assert "not the 1e+08 ms asked for" in caplog.text
    assert source._info.interval_ms == pytest.approx(270.49)


def test_without_a_configuration_the_user_is_told_what_to_give() -> None:
    with pytest.raises(UsageError, match="--mm-config demo"):
        micromanager_core(RunSettings())


def refused(**settings: Any) -> str:
    source = MicroManagerCore(MicroManagerSettings(**settings))
    with pytest.raises(SourceError) as caught:
        source.open()
    source.close()
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "there is no such file"),
        ("Device,X,NoSuchAdapter,Y\n", "NoSuchAdapter"),
        ("Device,X,DemoCamera,NoSuchDevice\n", "NoSuchDevice"),
        ("Property,Core,Initialize,1\n", "sets no default camera"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_line(
    tmp_path: Path, text: str | None, why: str
) -> None:
    path = tmp_path / "bad.cfg"
    if text is not None:
        path.write_text(text)
    assert why in refused(config=str(path))


@pytest.mark.parametrize("pixel_type", ["32bitRGB", "64bitRGB", "32bit"])
def test_a_camera_without_grey_frames_of_8_or_16_bits_is_refused(
    config: Any, pixel_type: str
) -> None:
    bits = 32 if pixel_type == "32bit" else 8
    line = refused(config=config(pixel_type=pixel_type, bits=bits))
    assert "frames are grey with 8 or 16 bits" in line


def test_a_folder_without_adapters_is_refused(tmp_path: Path) -> None:
    assert "there is no such folder" in refused(config="demo", adapter_dir=str(tmp_path / "none"))
    assert "DemoCamera" in refused(config="demo", adapter_dir=str(tmp_path))


def test_the_folder_of_adapters_can_be_given() -> None:
    folder = mm_test_adapters.device_adapter_path()
    source = MicroManagerCore(MicroManagerSettings(config="demo", adapter_dir=folder))
    assert source.open().width == 440
    source.close()


def test_on_windows_the_vendors_libraries_beside_the_adapters_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as windows:
        windows.setenv("PATH", "elsewhere")
        windows.setattr(os, "name", "nt")
        for _ in range(2):
            _find_libraries(tmp_path)
        path = os.environ["PATH"]
    assert path == f"{tmp_path}{os.pathsep}elsewhere"


def test_adapters_of_another_device_interface_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mm_test_adapters, "__version__", "74.20250101")
    line = refused(config="demo")
    assert "its device interface is 74, that of pymmcore is 75" in line
    assert 'pip install "pssr-live[micromanager]"' in line


@pytest.mark.parametrize("missing", ["pymmcore", "mm_test_adapters"])
def test_without_the_extra_the_user_is_told_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert 'pip install "pssr-live[micromanager]"' in refused(config="demo")


ENDINGS = {
    "after a run": "print(len(list(islice(source.frames(), 3)))); source.stop(); source.close()",
    "with frames still asked for": (
        "frames = source.frames(); next(frames); print(3); source.stop(); source.close()"
    ),
    "after an error": (
        "list(islice(source.frames(), 1)); source._core.unloadAllDevices()\n"
        "try: next(source.frames())\n"
        "except Exception: print(3)\n"
        "source.close()"
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_exits_cleanly(ending: str) -> None:
    script = (
        "import sys, pssr_live_drivers.micromanager as mm\n"
        "assert 'pymmcore' not in sys.modules, 'imported too early'\n"
        "from itertools import islice\n"
        "from pssr_live.settings import MicroManagerSettings\n"
        "source = mm.MicroManagerCore(MicroManagerSettings(config='demo', exposure_ms=10))\n"
        "source.open()\n" + ENDINGS[ending]
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "3", "")
