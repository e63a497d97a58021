"""Recording: raw and restored stacks, the acquisition log, the run folder."""

from __future__ import annotations

from pssr_live.record.log import (
    AcquisitionLog,
    Event,
    FrameRecord,
    LostEvent,
    Record,
    RestoredEvent,
    SkippedLiveEvent,
    StartRecord,
    StopRecord,
    iter_log,
    read_log,
)
from pssr_live.record.ome_xml import StackDescription, raw_stack, restored_stack, truth_stack
from pssr_live.record.plane_table import PlaneInfo
from pssr_live.record.planes import PlaneIndex, RawPlane, RawPlanes
from pssr_live.record.reader import StackReader
from pssr_live.record.recorder import RawRecorder, RestoredRecorder
from pssr_live.record.run_folder import LatencyMs, RunFolder, Summary
from pssr_live.record.stack import StackWriter
from pssr_live.record.verify import Problem, VerifyReport, verify

__all__ = [
    "AcquisitionLog",
    "Event",
    "FrameRecord",
    "LatencyMs",
    "LostEvent",
    "PlaneIndex",
    "PlaneInfo",
    "Problem",
    "RawPlane",
    "RawPlanes",
    "RawRecorder",
    "Record",
    "RestoredEvent",
    "RestoredRecorder",
    "RunFolder",
    "SkippedLiveEvent",
    "StackDescription",
    "StackReader",
    "StackWriter",
    "StartRecord",
    "StopRecord",
    "Summary",
    "VerifyReport",
    "iter_log",
    "raw_stack",
    "read_log",
    "restored_stack",
    "truth_stack",
    "verify",
]
