"""A signal reaches Python whatever engines came and went before."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import signal
from pssr_live.engine.openvino import OpenVINOEngine
from pssr_live.model import find_model

model = find_model("neuron_mf")
older, newer = OpenVINOEngine("fp32"), OpenVINOEngine("fp32")
older.prepare(model, 16, 16)
newer.prepare(model, 20, 16)
older.close()
del older
newer.close()
del newer
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("told")
"""


def test_ctrl_c_is_told_after_engines_have_come_and_gone() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "told"), ended.stderr
