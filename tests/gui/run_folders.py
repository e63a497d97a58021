"""Run folders for the tests of the review, written by the real recorders."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
from pathlib import Path

import numpy as np

from pssr_live.errors import StorageError
from pssr_live.frames import Frame
from pssr_live.model import Manifest, PackagedFile
from pssr_live.record import (
    AcquisitionLog,
    LatencyMs,
    PlaneIndex,
    RawRecorder,
    RestoredRecorder,
    RunFolder,
    StartRecord,
    StopRecord,
    Summary,
)
from pssr_live.record.log import LostEvent, SkippedLiveEvent, read_log
from pssr_live.source import StreamInfo
from tests.gui.helpers import PIXEL_UM, SCALE, STARTED, raw_frame, restored_frame

FILE = PackagedFile(file="file", sha256=hashlib.sha256(b"").hexdigest())
MODEL = Manifest(
    format=1,
    name="neuron_mf",
    version="1.0",
    description="",
    licence="",
    network=FILE,
    test_pair=FILE,
    card=FILE,
    window_length=5,
    centre=2,
    scale=SCALE,
    normalisation="window-zscore",
    min_size=16,
    max_size=4096,
    pixel_size_um=(0.1, 0.3),
    trained_on="",
)
LOST = (6, 7)
SKIPPED = (10,)
"""Indexes that the source loses, and that live skips."""


def write_run(
    out: Path, *, frames: int = 14, restored: int = 14, truth: bool = False, ended: bool = True
) -> Path:
    """Write a run of 14 recorded frames (indexes 0 to 15, two lost), as far as asked.

    ``ended=False`` gives the folder as it was before the end: what a killed daemon leaves.
    """
    folder = RunFolder.create(out, "sim", "neuron_mf")
    log, planes = AcquisitionLog(folder.log), PlaneIndex()
    raw = RawRecorder(folder, log, planes, started=STARTED, annotations={})
    predicted = RestoredRecorder(folder, log, planes, model=MODEL, started=STARTED, annotations={})
    info = stream_info(truth)
    log.write(start_record(info))
    raw.open(info)
    predicted.open(info)
    indices = [index for index in range(frames + len(LOST)) if index not in LOST][:frames]
    for index in indices:
        raw.put(frame_with_truth(index) if truth else raw_frame(index))
    for index in indices[:restored]:
        live = index not in SKIPPED
        if not live:
            predicted.skip([index], "the engine was behind")
        complete = not any(abs(index - lost) <= 2 for lost in LOST)
        predicted.put(restored_frame(index, edge=index < 2, complete=complete, live=live))
    killed = out / "killed"
    if not ended:
        shutil.copytree(folder.path, killed)
    events = read_log(folder.log)
    skipped = [index for e in events if isinstance(e, SkippedLiveEvent) for index in e.indices]
    lost = sum(e.last_index - e.first_index + 1 for e in events if isinstance(e, LostEvent))
    summary = Summary(
        frames_received=frames,
        frames_recorded=frames,
        frames_restored=restored,
        frames_skipped_live=len(skipped),
        frames_lost_at_source=lost,
        latency_ms=LatencyMs(p50=62.0, p99=81.0),
    )
    log.write(StopRecord(stopped=STARTED, t_host_ns=0, reason="frames", summary=summary))
    raw.close()
    with contextlib.suppress(StorageError):  # where fewer planes than raw ones were asked for
        predicted.close()
    log.close()
    return folder.path if ended else killed


def frame_with_truth(index: int) -> Frame:
    return dataclasses.replace(raw_frame(index), truth=restored_frame(index).pixels)


def stream_info(truth: bool) -> StreamInfo:
    return StreamInfo(
        source="simulated confocal",
        height=48,
        width=48,
        dtype=np.dtype(np.uint16),
        bits=12,
        pixel_size_um=PIXEL_UM,
        interval_ms=270.49,
        channel="mitochondria",
        truth=truth,
    )


def start_record(info: StreamInfo) -> StartRecord:
    return StartRecord(
        run_id="run",
        started=STARTED,
        t_host_ns=0,
        source=info.source,
        height=info.height,
        width=info.width,
        dtype=info.dtype.name,
        bits=info.bits,
        pixel_size_um=info.pixel_size_um,
        interval_ms=info.interval_ms,
        channel=info.channel,
        model=MODEL.name,
        model_version=MODEL.version,
        model_sha256=MODEL.network.sha256,
        scale=SCALE,
        engine="openvino bf16 on Some CPU",
    )
