"""run.json, the log and the status say the same of the engine, in JSON that every reader takes."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from pssr_live.document import engine_status, run_document, start_record
from pssr_live.engine.base import Check, EngineReport, Refusal
from pssr_live.model import find_model
from pssr_live.record.log import StartRecord
from pssr_live.settings import RunSettings
from pssr_live.source import StreamInfo
from pssr_live.stream.wire import EngineStatus

REPORT = EngineReport(
    requested="auto",
    engine="openvino",
    device="Some CPU",
    precision="bf16",
    version="2026.4",
    threads=2,
    prepare_ms=812.5,
    refused=(Refusal("tensorrt", "no GPU"),),
    cached=False,
    tiles=4,
    checks=(
        Check("test pair", math.inf, 50.0, 0.01, cached=True),
        Check("first window", 61.5, 50.0),
    ),
)
INFO = StreamInfo("a scanner", 48, 64, np.dtype(np.uint16), 12, 0.17, 270.49)
STARTED = datetime(2026, 3, 1, 14, 30, 15, tzinfo=UTC)


def strictly(content: bytes) -> Any:
    """Decode as a reader does that takes only numbers that JSON has."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(content, parse_constant=refuse)


@pytest.fixture(scope="module")
def in_run_json() -> dict[str, Any]:
    document = run_document("r", STARTED, RunSettings(), INFO, find_model("neuron_mf"), REPORT)
    engine: dict[str, Any] = strictly(msgspec.json.encode(document))["engine"]
    return engine


def test_run_json_holds_the_whole_report(in_run_json: dict[str, Any]) -> None:
    assert in_run_json == {
        "requested": "auto",
        "engine": "openvino",
        "device": "Some CPU",
        "precision": "bf16",
        "version": "2026.4",
        "threads": 2,
        "prepare_ms": 812.5,
        "refused": [{"engine": "tensorrt", "why": "no GPU"}],
        "cached": False,
        "tiles": 4,
        "checks": [
            {
                "what": "test pair",
                "psnr_db": None,
                "floor_db": 50.0,
                "drop_db": 0.01,
                "cached": True,
            },
            {
                "what": "first window",
                "psnr_db": 61.5,
                "floor_db": 50.0,
                "drop_db": None,
                "cached": False,
            },
        ],
    }


def test_the_log_s_first_line_holds_the_same(in_run_json: dict[str, Any]) -> None:
    record = start_record("r", STARTED, INFO, find_model("neuron_mf"), REPORT)
    line = msgspec.json.encode(record)
    assert strictly(line)["engine_report"] == in_run_json
    assert msgspec.json.decode(line, type=StartRecord).engine == "openvino bf16 on Some CPU"


def test_the_status_says_the_same(in_run_json: dict[str, Any]) -> None:
    content = msgspec.json.encode(engine_status(REPORT))
    assert strictly(content) == {
        name: value for name, value in in_run_json.items() if name != "prepare_ms"
    }
    assert msgspec.json.decode(content, type=EngineStatus) == engine_status(REPORT)


def test_a_log_and_a_status_from_before_there_were_checks_are_read() -> None:
    record = start_record("r", STARTED, INFO, find_model("neuron_mf"), REPORT)
    old = strictly(msgspec.json.encode(record))
    del old["engine_report"]
    assert msgspec.convert(old, StartRecord, strict=False).engine_report == {}
    status = strictly(msgspec.json.encode(engine_status(REPORT)))
    for name in ("cached", "tiles", "checks"):
        del status[name]
    read = msgspec.convert(status, EngineStatus)
    assert (read.cached, read.tiles, read.checks) == (None, 1, ())
