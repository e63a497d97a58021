"""Raw planes are read back from the file that is being written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pssr_live.errors import StorageError
from pssr_live.frames import Frame
from pssr_live.record.log import AcquisitionLog
from pssr_live.record.planes import PlaneIndex, RawPlanes
from pssr_live.record.recorder import RawRecorder
from pssr_live.record.run_folder import RunFolder
from pssr_live.source import StreamInfo


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_plane_can_be_read_as_soon_as_it_is_committed(
    tmp_path: Path, dtype: type[np.generic]
) -> None:
    folder = RunFolder.create(tmp_path, "sim", "neuron_mf")
    info = StreamInfo(
        source="a test",
        height=7,
        width=9,
        dtype=np.dtype(dtype),
        bits=8,
        pixel_size_um=None,
        interval_ms=None,
    )
    index = PlaneIndex()
    log = AcquisitionLog(folder.log)
    started = datetime(2026, 1, 1, tzinfo=UTC)
    recorder = RawRecorder(folder, log, index, started=started, annotations={})
    recorder.open(info)
    planes = RawPlanes(folder.raw, info, index)
    for position, number in enumerate((3, 4, 9)):
        pixels = np.random.default_rng(number).integers(0, 200, (7, 9)).astype(dtype)
        recorder.put(Frame(pixels, index=number, t_source_ns=number * 10, t_host_ns=0))
        read = planes.read(position)
        assert read.dtype == dtype
        assert np.array_equal(read, pixels)
        assert (index[position].index, index[position].t_source_ns) == (number, number * 10)
    recorder.close()
    log.close()
    assert index.position(9) == 2
    with pytest.raises(StorageError, match="frame 5 cannot be recorded"):
        index.position(5)
