from __future__ import annotations

import pytest
from msgspec.structs import replace

from pssr_live.stream.wire import EngineCheck, RefusedEngine, Status
from pssr_live_gui import words
from pssr_live_gui.words import Situation
from tests.gui.helpers import status_of

RUNNING = status_of("run")


def situation(
    *,
    connected: bool = True,
    status: Status | None = RUNNING,
    seen: bool = True,
    frozen: bool = False,
    quiet_s: float = 0.1,
) -> Situation:
    return Situation(connected, status, seen, frozen, quiet_s)


def test_no_banner_while_frames_come_in() -> None:
    assert words.banner(situation()) is None


@pytest.mark.parametrize(
    ("now", "kind", "text"),
    [
        (situation(connected=False, status=None, seen=False), "banner", "waiting for a daemon"),
        (situation(connected=False), "banner-bad", "the daemon went away; showing the last frame"),
        (situation(seen=False), "banner", "waiting for the first frame"),
        (situation(quiet_s=60), "banner-bad", "no new frame for 60 s"),
        (
            situation(connected=False, status=status_of("r", final=True, frames_recorded=1)),
            "banner-good",
            "run finished: 1 frame in /runs/one",
        ),
        (situation(status=status_of("r", phase="stopping")), "banner", "the run is stopping"),
        (situation(frozen=True), "banner", "display frozen, the run goes on"),
        (situation(frozen=True, connected=False), "banner-bad", "the daemon went away"),
    ],
)
def test_the_banner_says_what_a_user_must_know(now: Situation, kind: str, text: str) -> None:
    found = words.banner(now)
    assert found is not None
    assert found.kind == kind
    assert text in found.text


def test_a_slow_time_lapse_is_not_called_quiet() -> None:
    slow = status_of("run", fps_raw=0.1)
    assert words.banner(situation(status=slow, quiet_s=20)) is None
    assert words.banner(situation(status=slow, quiet_s=80)) is not None


def test_the_status_line_names_what_really_runs() -> None:
    line = words.what_runs(RUNNING)
    assert line == (
        "openvino bf16 on Some CPU · raw 3.7, restored 3.6 frames/s · latency 62 ms, p99 81 ms"
    )
    assert words.what_runs(status_of("r", engine=None, fps_raw=None)).startswith("engine not ready")


def test_the_engine_s_report_is_said_in_full() -> None:
    said = words.engine_details(RUNNING).splitlines()
    assert said == [
        "openvino 2025.1 (asked for: auto), bf16, 2 threads",
        "Some CPU",
        "refused engines:",
        "onnxruntime: not installed",
    ]
    assert words.engine_details(status_of("r", engine=None)) == ""


def test_how_near_the_engine_is_to_fp32_is_on_the_line_and_in_the_details() -> None:
    checks = (
        EngineCheck(what="test pair", psnr_db=66.14, floor_db=50.0, drop_db=0.013, cached=True),
        EngineCheck(what="first window", psnr_db=61.5, floor_db=50.0),
        EngineCheck(what="one more", psnr_db=None, floor_db=50.0),
    )
    assert RUNNING.engine is not None
    engine = replace(RUNNING.engine, checks=checks, cached=False, tiles=16)
    line = words.what_runs(status_of("r", engine=engine))
    assert line.startswith("openvino bf16 on Some CPU, 62 dB from fp32 · raw 3.7")
    assert words.engine_details(status_of("r", engine=engine)).splitlines()[2:-2] == [
        "compiled for this run",
        "each frame is restored in 16 parts",
        "test pair: 66.1 dB from fp32, at least 50 needed, 0.01 dB further from the truth"
        " (checked earlier)",
        "first window: 61.5 dB from fp32, at least 50 needed",
        "one more: equal to fp32",
    ]
    loaded = words.engine_details(status_of("r", engine=replace(engine, cached=True)))
    assert "compiled earlier, from the cache" in loaded


def test_long_refusals_are_broken_into_lines() -> None:
    assert RUNNING.engine is not None
    refused = (RefusedEngine("tensorrt", "the driver of this computer's GPU is too old; " * 6),)
    said = words.engine_details(status_of("r", engine=replace(RUNNING.engine, refused=refused)))
    assert max(map(len, said.splitlines())) <= 100


def test_losses_come_before_warnings() -> None:
    assert words.trouble(RUNNING) is None
    found = words.trouble(
        status_of("r", frames_lost_at_source=1, frames_skipped_live=2, warnings=("old", "new"))
    )
    assert found == (
        "lost",
        "⚠ 1 frame lost at the source · 2 frames skipped live (restored later) · new",
    )
    assert words.trouble(status_of("r", warnings=("hot",))) == ("flag", "⚠ hot")


def test_what_holds_for_the_whole_run_stays_when_another_warning_comes() -> None:
    for last in ("hot", "wrong pixels"):
        status = status_of("r", standing=("wrong pixels",), warnings=("wrong pixels", last))
        shown = {"hot": "⚠ wrong pixels · hot", "wrong pixels": "⚠ wrong pixels"}[last]
        assert words.trouble(status) == ("flag", shown)


def test_pixel_sizes_are_written_as_microscopists_do() -> None:
    assert words.pixel_size(0.17) == "170 nm/px"
    assert words.pixel_size(0.0425) == "42.5 nm/px"
    assert words.pixel_size(1.3) == "1.3 µm/px"
    assert words.pixel_size(None) == "pixel size unknown"
