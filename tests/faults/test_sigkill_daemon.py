"""SIGKILL of a whole daemon: what its log has is in its files, for any reader, without repair."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pssr_live.offline import restore_file
from pssr_live.record import FrameRecord, RunFolder, StackReader, iter_log, verify

FRAMES = 25
DAEMON = (
    "--scope", "sim", "--size", "32", "--interval-ms", "5", "--engine", "openvino", "--no-view",
)  # fmt: skip


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """What a daemon leaves that is killed in the middle of its run."""
    out, runtime = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("runtime")
    daemon = subprocess.Popen(
        [sys.executable, "-m", "pssr_live", *DAEMON, "--out", str(out)],
        env={**os.environ, "PSSR_LIVE_RUNTIME_DIR": str(runtime)},
        stderr=subprocess.PIPE,
        text=True,
    )
    with daemon:
        try:
            while not acknowledged(out) >= FRAMES:
                assert daemon.poll() is None, daemon.communicate()[1]
                threading.Event().wait(0.005)
        finally:
            daemon.kill()
    (path,) = out.iterdir()
    return RunFolder.open(path)


def acknowledged(out: Path) -> int:
    """Frames that the run's log has by now."""
    records = [record for log in out.glob("*/log.jsonl") for record in iter_log(log)]
    return sum(isinstance(record, FrameRecord) for record in records)


def test_every_frame_in_the_log_is_in_the_raw_stack(killed: RunFolder) -> None:
    report = verify(killed)
    assert report.problems == ()
    assert not report.ended
    assert report.raw_planes >= FRAMES
    with tifffile.TiffFile(killed.raw) as tif:
        assert tif.is_ome
        assert len(tif.series[0].asarray()) >= FRAMES


def test_restored_frames_are_a_gapless_prefix_and_the_rest_can_be_made_from_the_raw_ones(
    killed: RunFolder, tmp_path: Path
) -> None:
    again = tmp_path / "again.ome.tif"
    planes = restore_file(
        killed.raw,
        again,
        model="neuron_mf",
        engine="openvino",
        precision=None,
        on_plane=lambda *_: None,
    )
    with (
        StackReader(killed.raw) as raw,
        StackReader(killed.restored) as live,
        StackReader(again) as whole,
    ):
        assert planes == len(whole) == len(raw) >= len(live) > 0
        assert list(live.indices) == list(raw.indices)[: len(live)]
        # Death may have come before the last frames of a restored one's window were recorded.
        for plane in range(min(len(live), len(raw) - 2)):
            np.testing.assert_array_equal(live.read(plane), whole.read(plane))
