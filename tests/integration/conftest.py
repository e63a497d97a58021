"""Running the program as its user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class CommandLine:
    """``pssr-live`` in a folder of its own."""

    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pssr_live", *arguments],
            cwd=self.folder,
            env={**os.environ, "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, timeout_s: float = 90) -> Ended:
        process = self.start(*arguments)
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return Ended(process.returncode, stdout, stderr)

    def run_folder(self) -> Path:
        (folder,) = (self.folder / "runs").iterdir()
        return folder


@pytest.fixture
def pssr_live(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


def read_log(folder: Path, record: str) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["record"] == record]
