"""The run folder: one folder a run, with everything that is known about it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from pssr_live.errors import StorageError

__all__ = ["LatencyMs", "RunFolder", "Summary"]


class LatencyMs(Struct, frozen=True, forbid_unknown_fields=True):
    """Latency of live restored frames, ms; None if there was none.

    Attributes
    ----------
    p50, p99 : float or None
        Median and 99th percentile.
    """

    p50: float | None = None
    p99: float | None = None


class Summary(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A run in numbers.

    Attributes
    ----------
    frames_received : int
        Frames taken from the source.
    frames_recorded : int
        Planes of the raw stack.
    frames_restored : int
        Planes of the restored stack.
    frames_skipped_live : int
        Frames that were not restored live.
    frames_lost_at_source : int
        Frames missing in the source's count.
    latency_ms : LatencyMs
        Last needed frame in the computer → restored frame ready, of frames restored live.
    """

    frames_received: int = 0
    frames_recorded: int = 0
    frames_restored: int = 0
    frames_skipped_live: int = 0
    frames_lost_at_source: int = 0
    latency_ms: LatencyMs = LatencyMs()


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run's files.

    Attributes
    ----------
    path : Path
        The folder.
    """

    path: Path

    @classmethod
    def create(cls, out: Path, scope: str, model: str) -> RunFolder:
        """Make the folder of a new run, ``OUT/<local time>_<scope>_<model>``.

        Parameters
        ----------
        out : Path
            Folder that holds all runs; made if it does not exist.
        scope : str
            Name of the source.
        model : str
            Name of the model, or the path of its package.

        Returns
        -------
        RunFolder
            New and empty; a run that starts within the same second gets a number behind the time.

        Raises
        ------
        StorageError
            The folder cannot be made.
        """
        started = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
        name = f"{_plain(scope)}_{_plain(Path(model).name or Path(model).resolve().name)}"
        try:
            out.mkdir(parents=True, exist_ok=True)
            for attempt in itertools.count(1):
                number = "" if attempt == 1 else f"-{attempt}"
                path = out / f"{started}{number}_{name}"
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return cls(path)
        except OSError as error:
            raise StorageError(
                f"no run folder can be made in {out}",
                error.strerror or str(error),
                "choose a folder that you may write to with --out",
            ) from error
        raise AssertionError("count() does not end")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Take the folder of an earlier run, or one that is still running.

        Parameters
        ----------
        path : Path
            The folder.

        Returns
        -------
        RunFolder

        Raises
        ------
        StorageError
            It is not a run folder.
        """
        folder = cls(path)
        if not folder.log.is_file():
            raise StorageError(
                f"{path} is not a run folder",
                f"there is no {folder.log.name} in it",
                "give a folder that `pssr-live` made",
            )
        return folder

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def raw(self) -> Path:
        """Stack of raw frames."""
        return self.path / "raw.ome.tif"

    @property
    def restored(self) -> Path:
        """Stack of restored frames."""
        return self.path / "restored.ome.tif"

    @property
    def truth(self) -> Path:
        """Stack of ground truth; simulated runs only."""
        return self.path / "truth.ome.tif"

    @property
    def log(self) -> Path:
        """Acquisition log."""
        return self.path / "log.jsonl"

    @property
    def run_json(self) -> Path:
        """Settings asked, what ran, and at the end the summary."""
        return self.path / "run.json"

    @property
    def lock(self) -> Path:
        """Locked while the run goes on; see `RunLock`."""
        return self.path / "running.lock"

    def write_run_json(self, document: Mapping[str, Any]) -> None:
        """Write ``run.json``; a reader sees the old or the new one, never a part.

        Parameters
        ----------
        document : mapping
            Anything that msgspec can encode.

        Raises
        ------
        StorageError
            The disk does not take it; the old one stays.
        """
        content = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
        temporary = self.run_json.with_suffix(".json.new")
        try:
            temporary.write_bytes(content)
            temporary.replace(self.run_json)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StorageError(
                f"{self.run_json} cannot be written",
                error.strerror or str(error),
                "make room on the disk or choose another folder with --out",
            ) from error

    def read_run_json(self) -> dict[str, Any]:
        """Read ``run.json``.

        Raises
        ------
        StorageError
            It is missing or damaged.
        """
        try:
            return msgspec.json.decode(self.run_json.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            raise StorageError(
                f"{self.run_json} cannot be read", str(error), "give a folder that is complete"
            ) from error


def _plain(name: str) -> str:
    """Keep what every file system takes."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("._") or "unnamed"
