"""The page docs/wire.md: its example runs, and its tables name every field."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pssr_live.frames import Restored
from pssr_live.stream.connection import Connection
from pssr_live.stream.publisher import Publisher
from pssr_live.stream.wire import (
    EngineCheck,
    EngineStatus,
    RawHeader,
    RestoredHeader,
    Status,
)

PAGE = Path(__file__).parents[2] / "docs" / "wire.md"


def test_the_example_receives_a_restored_frame_with_nothing_of_ours(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    example = found[1]
    assert "pssr" not in example
    with Publisher("tcp://127.0.0.1:*", "run-1") as publisher:
        publisher.publish_restored(a_restored())
        publisher.publish_status(a_last_status())
        ran = subprocess.run(
            [sys.executable, "-c", example, publisher.endpoint],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert ran.stdout == "restored frame 41 (12, 16) mean 7.0\n"


@pytest.mark.parametrize(
    "message", [RawHeader, RestoredHeader, Status, EngineStatus, EngineCheck, Connection]
)
def test_every_field_is_documented(message: type) -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = "\n".join(line.split("|")[1] for line in page.splitlines() if line.startswith("|"))
    missing = [name for name in message.__struct_fields__ if f"`{name}`" not in rows]
    assert missing == []


def a_restored() -> Restored:
    return Restored(
        pixels=np.full((12, 16), 7, np.uint16),
        index=41,
        t_source_ns=0,
        pixel_size_um=0.0425,
        channel="",
        model="neuron_mf",
        model_sha256="0" * 64,
        engine="openvino fp32 on CPU",
        engine_ms=1.0,
        latency_ms=2.0,
        edge=False,
        complete=True,
        live=True,
    )


def a_last_status() -> Status:
    return Status(
        run_id="run-1",
        phase="finished",
        source="simulated scanner",
        model="neuron_mf",
        model_sha256="0" * 64,
        engine=None,
        run_folder="runs/x",
        frames_received=45,
        frames_recorded=45,
        frames_restored=45,
        frames_skipped_live=0,
        frames_lost_at_source=0,
        fps_raw=None,
        fps_restored=None,
        latency_ms_p50=None,
        latency_ms_p99=None,
        uptime_s=12.0,
        viewers=1,
        final=True,
    )
