"""The recorder of raw frames, against the contract of all sinks that keep frames."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tifffile

from pssr_live.frames import Frame, Pixels
from pssr_live.record.log import AcquisitionLog
from pssr_live.record.planes import PlaneIndex
from pssr_live.record.recorder import RawRecorder
from pssr_live.record.run_folder import RunFolder
from pssr_live.sink import Sink
from pssr_live.testing import FrameSinkContract


class TestRawRecorder(FrameSinkContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> Iterator[None]:
        self.folder = RunFolder.create(tmp_path, "sim", "neuron_mf")
        self.log = AcquisitionLog(self.folder.log)
        yield
        self.log.close()

    def make(self) -> Sink[Frame]:
        started = datetime(2026, 1, 1, tzinfo=UTC)
        return RawRecorder(self.folder, self.log, PlaneIndex(), started=started, annotations={})

    def kept(self) -> list[Pixels]:
        if not self.folder.raw.exists():  # made with the first plane
            return []
        with tifffile.TiffFile(self.folder.raw) as file:
            return [page.asarray() for page in file.pages]
