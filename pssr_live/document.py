"""What a run says about itself: ``run.json``, the log's first line, the status."""

from __future__ import annotations

import math
import platform
import time
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from pssr_live import __version__
from pssr_live.engine.base import EngineReport
from pssr_live.errors import StorageError
from pssr_live.frames import Tag
from pssr_live.model import ModelPackage
from pssr_live.record.log import StartRecord
from pssr_live.settings import RunSettings
from pssr_live.source import StreamInfo
from pssr_live.stream.wire import EngineCheck, EngineStatus, RefusedEngine

__all__ = [
    "WhatRan",
    "engine_event",
    "engine_report",
    "engine_status",
    "run_document",
    "start_record",
    "stream_info",
    "what_ran",
]

_LIBRARIES = ("numpy", "openvino", "pyzmq", "tifffile", "msgspec")


def run_document(
    run_id: str,
    started: datetime,
    settings: RunSettings,
    info: StreamInfo,
    model: ModelPackage,
    engine: EngineReport,
) -> dict[str, Any]:
    """Put together ``run.json`` as it is at the start of a run.

    Parameters
    ----------
    run_id : str
        Identifies the run.
    started : datetime
        With time zone.
    settings : RunSettings
        What was asked.
    info : StreamInfo
        What the source announced.
    model : ModelPackage
        What restores.
    engine : EngineReport
        What really runs.

    Returns
    -------
    dict
        Plain values; ``summary``, ``reason`` and ``errors`` are filled at the end.
    """
    manifest = model.manifest
    return {
        "version": 1,
        "run_id": run_id,
        "started": started,
        "settings": msgspec.to_builtins(settings),
        "source": {**asdict(info), "dtype": str(info.dtype), "metadata": dict(info.metadata)},
        "model": {
            "name": manifest.name,
            "version": manifest.version,
            "sha256": model.network_sha256,
            "window_length": manifest.window_length,
            "scale": manifest.scale,
            "normalisation": manifest.normalisation,
            "training_statistics": manifest.training_statistics,
            "trained_on": manifest.trained_on,
        },
        "engine": engine_report(engine),
        "versions": {
            "pssr-live": __version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            **{name: version(name) for name in _LIBRARIES},
        },
        "summary": None,
    }


class _Asked(Struct, frozen=True):
    """The part of ``settings`` that says what restores."""

    model: str
    precision: str | None = None


class _EngineRan(Struct, frozen=True):
    """The part of ``engine`` that makes the same engine again."""

    engine: str
    device: str
    precision: str
    version: str


class WhatRan(Struct, frozen=True):
    """What restored in a run, as its ``run.json`` says.

    Attributes
    ----------
    settings : struct
        ``model`` and ``precision`` as they were asked for.
    engine : struct
        ``engine``, ``device``, ``precision`` and ``version`` of what really ran.
    """

    settings: _Asked
    engine: _EngineRan


def what_ran(document: dict[str, Any]) -> WhatRan:
    """Read from ``run.json`` what restored in that run.

    Raises
    ------
    StorageError
        It does not say so.
    """
    try:
        return msgspec.convert(document, WhatRan)
    except msgspec.ValidationError as error:
        raise _no_document(str(error)) from error


def stream_info(document: dict[str, Any]) -> StreamInfo:
    """Read from ``run.json`` what the source announced; raises as `what_ran`."""
    try:
        source = document["source"]
        return StreamInfo(**{**source, "dtype": np.dtype(source["dtype"])})
    except (KeyError, TypeError) as error:
        raise _no_document(f"its source is not described ({error})") from error


def _no_document(why: str) -> StorageError:
    return StorageError("run.json cannot be used", why, "use one that nobody has edited")


def start_record(
    run_id: str, started: datetime, info: StreamInfo, model: ModelPackage, engine: EngineReport
) -> StartRecord:
    """Put together the log's first line; parameters as `run_document`."""
    return StartRecord(
        run_id=run_id,
        started=started,
        t_host_ns=time.monotonic_ns(),
        source=info.source,
        height=info.height,
        width=info.width,
        dtype=str(info.dtype),
        bits=info.bits,
        pixel_size_um=info.pixel_size_um,
        interval_ms=info.interval_ms,
        channel=info.channel,
        model=model.manifest.name,
        model_version=model.manifest.version,
        model_sha256=model.network_sha256,
        scale=model.manifest.scale,
        engine=str(engine),
        engine_report=engine_report(engine),
        metadata=dict(info.metadata),
    )


def engine_report(report: EngineReport) -> dict[str, Any]:
    """Bring the engine's report into plain values.

    Parameters
    ----------
    report : EngineReport
        What really runs.

    Returns
    -------
    dict
        Its fields; ``psnr_db`` is None where the pixels are equal: JSON has no infinity.
    """
    plain = asdict(report)
    plain["checks"] = [{**check, "psnr_db": _finite(check["psnr_db"])} for check in plain["checks"]]
    return plain


def engine_event(report: EngineReport) -> dict[str, Tag | None]:
    """Say in plain values what restores and what it passed last, for the log."""
    check = report.checks[-1]
    return {
        "engine": report.engine,
        "device": report.device,
        "precision": report.precision,
        "check": check.what,
        "psnr_db": _finite(check.psnr_db),
        "floor_db": check.floor_db,
    }


def engine_status(report: EngineReport) -> EngineStatus:
    """Bring the engine's report into the form of the status topic."""
    return EngineStatus(
        requested=report.requested,
        engine=report.engine,
        device=report.device,
        precision=report.precision,
        version=report.version,
        threads=report.threads,
        refused=tuple(RefusedEngine(refusal.engine, refusal.why) for refusal in report.refused),
        cached=report.cached,
        tiles=report.tiles,
        checks=tuple(
            EngineCheck(
                what=check.what,
                psnr_db=_finite(check.psnr_db),
                floor_db=check.floor_db,
                drop_db=check.drop_db,
                cached=check.cached,
            )
            for check in report.checks
        ),
    )


def _finite(decibels: float) -> float | None:
    return decibels if math.isfinite(decibels) else None
