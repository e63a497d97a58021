"""SIGKILL of a recording process: what it acknowledged is there, for any reader."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pssr_live.record import RunFolder, StackReader, verify

PLANE_SIDE = 200

RECORDING = """
import random, sys
from datetime import UTC, datetime
from pathlib import Path
import numpy as np
from pssr_live.frames import Frame
from pssr_live.record import (
    AcquisitionLog, PlaneIndex, PlaneInfo, RawRecorder, RunFolder, StackWriter, raw_stack
)
from pssr_live.source import StreamInfo

what, out, seed, side = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
info = StreamInfo("a scanner", side, side, np.dtype("uint16"), 16, 0.17, 1.0)
started = datetime.now(UTC)

def pixels(number):
    return np.full((side, side), number, np.uint16)

if what == "stack":
    # Planes come in random order inside blocks of five.
    writer = StackWriter(out, raw_stack(info, started, {}))
    shuffle = random.Random(seed).shuffle
    block = 0
    while True:
        order = list(range(block, block + 5))
        shuffle(order)
        for number in order:
            writer.put(number, pixels(number), PlaneInfo(number, number))
            print(writer.committed, flush=True)
        block += 5
else:
    folder = RunFolder.create(out, "sim", "neuron_mf")
    recorder = RawRecorder(
        folder, AcquisitionLog(folder.log), PlaneIndex(), started=started, annotations={}
    )
    recorder.open(info)
    number = 0
    while True:
        recorder.put(Frame(pixels(number), number, number, number, truth=pixels(number)))
        number += 1
        print(number, flush=True)
"""


def acknowledged_before_death(what: str, out: Path, seed: int) -> int:
    """Let a process record, kill it without warning, and return how many planes it promised."""
    chance = random.Random(seed)
    recording = subprocess.Popen(
        [sys.executable, "-c", RECORDING, what, str(out), str(seed), str(PLANE_SIDE)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with recording:
        assert recording.stdout is not None
        promised = [recording.stdout.readline() for _ in range(chance.randrange(10, 200))]
        for _ in range(chance.randrange(20_000)):
            pass  # somewhere inside the next plane
        recording.kill()
        promised += recording.stdout.readlines()
    return int(promised[-1])


def check_stack(path: Path, promised: int) -> None:
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        for number, page in enumerate(tif.pages):
            assert np.all(page.asarray() == number)
        series = tif.series[0].asarray().reshape(-1, PLANE_SIDE, PLANE_SIDE)
        # SizeT may lag behind the pages if death came between the two, never lead.
        assert promised <= len(series) <= len(tif.pages)
        assert np.array_equal(series[:, 0, 0], np.arange(len(series)))
    with StackReader(path) as stack:
        assert list(stack.indices) == list(range(len(stack)))


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_stack_has_every_acknowledged_plane(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "restored.ome.tif"
    promised = acknowledged_before_death("stack", path, seed)
    assert promised > 0
    check_stack(path, promised)


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_recorder_leaves_every_acknowledged_frame_in_stack_and_log(
    tmp_path: Path, seed: int
) -> None:
    promised = acknowledged_before_death("run", tmp_path / "runs", seed)
    (path,) = (tmp_path / "runs").iterdir()
    folder = RunFolder.open(path)
    check_stack(folder.raw, promised)
    check_stack(folder.truth, promised)
    report = verify(folder)
    assert report.problems == ()
    assert not report.ended
    assert report.raw_planes >= promised > 0
