"""Frames, status and run folders for the tests of the windows."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from pssr_live.frames import Frame, Pixels, Restored
from pssr_live.stream.wire import EngineStatus, RefusedEngine, Status

PIXEL_UM = 0.17
SCALE = 4
STARTED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def raw_pixels(number: int, side: int = 48, dtype: str = "uint16") -> Pixels:
    """Some tubules and noise, another picture for every number."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:side, :side]
    lines = np.sin((rows + 2 * columns + 5 * number) / 6.0) ** 8
    return (100 + 900 * lines + rng.normal(0, 20, (side, side))).astype(dtype)


def raw_frame(index: int, side: int = 48, pixel_size_um: float | None = PIXEL_UM) -> Frame:
    pixels = raw_pixels(index, side)
    return Frame(pixels, index, index * 270_490_000, index, pixel_size_um, "mitochondria")


def restored_frame(
    index: int,
    side: int = 48,
    *,
    pixel_size_um: float | None = PIXEL_UM,
    edge: bool = False,
    complete: bool = True,
    live: bool = True,
) -> Restored:
    pixels = np.kron(raw_pixels(index, side), np.ones((SCALE, SCALE), np.uint16))
    return Restored(
        pixels=pixels,
        index=index,
        t_source_ns=index * 270_490_000,
        pixel_size_um=None if pixel_size_um is None else pixel_size_um / SCALE,
        channel="mitochondria",
        model="neuron_mf",
        model_sha256="0" * 64,
        engine="openvino fp32 on CPU",
        engine_ms=50.0,
        latency_ms=62.0 if live else None,
        edge=edge,
        complete=complete,
        live=live,
    )


def status_of(run_id: str, **changes: object) -> Status:
    values: dict[str, object] = {
        "run_id": run_id,
        "phase": "running",
        "source": "simulated confocal",
        "model": "neuron_mf",
        "model_sha256": "0" * 64,
        "engine": EngineStatus(
            requested="auto",
            engine="openvino",
            device="Some CPU",
            precision="bf16",
            version="2025.1",
            threads=2,
            refused=(RefusedEngine("onnxruntime", "not installed"),),
        ),
        "run_folder": "/runs/one",
        "frames_received": 12,
        "frames_recorded": 11,
        "frames_restored": 9,
        "frames_skipped_live": 0,
        "frames_lost_at_source": 0,
        "fps_raw": 3.7,
        "fps_restored": 3.6,
        "latency_ms_p50": 62.0,
        "latency_ms_p99": 81.0,
        "uptime_s": 3.0,
        "viewers": 1,
    }
    return Status(**(values | changes))  # type: ignore[arg-type]
