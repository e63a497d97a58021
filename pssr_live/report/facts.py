"""What a report says in words and figures, put together from ``run.json`` and the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import numpy as np

from pssr_live.errors import StorageError
from pssr_live.evaluate.report import Evaluation
from pssr_live.record.run_folder import LatencyMs, RunFolder, Summary
from pssr_live.report.run_log import RunLog

__all__ = [
    "RECOVERED",
    "Check",
    "EnginePart",
    "ModelPart",
    "Refused",
    "RunFacts",
    "flattened",
]

T = TypeVar("T")

RECOVERED = "recovered"
"""What ``pssr-live recover`` gives as the reason why a run ended."""


class ModelPart(msgspec.Struct):
    """The model, as ``run.json`` names it."""

    name: str
    version: str
    sha256: str
    trained_on: str = ""


class Check(msgspec.Struct):
    """One comparison with fp32 that the engine passed; see ``docs/run-folder.md``."""

    what: str
    floor_db: float
    psnr_db: float | None = None
    drop_db: float | None = None
    cached: bool = False


class Refused(msgspec.Struct):
    """An engine that was tried before, and why it does not run."""

    engine: str
    why: str


class EnginePart(msgspec.Struct):
    """What really ran, read back from it; see ``docs/run-folder.md``."""

    engine: str
    device: str
    precision: str
    requested: str = ""
    version: str = ""
    threads: int | None = None
    tiles: int = 1
    checks: list[Check] = []
    refused: list[Refused] = []


class _Document(msgspec.Struct):
    """``run.json``, as far as a report shows it."""

    model: ModelPart
    engine: EnginePart
    run_id: str = ""
    started: datetime | None = None
    stopped: datetime | None = None
    reason: str = ""
    errors: list[str] = []
    settings: dict[str, Any] = {}
    source: dict[str, Any] = {}
    versions: dict[str, str] = {}
    summary: Summary | None = None


class RunFacts:
    """A run in words and figures; of an unfinished or damaged one, as much as there is.

    Parameters
    ----------
    folder : RunFolder
        The run.

    Attributes
    ----------
    log : RunLog
        Its log.
    notes : list of str
        What could not be read, and why.
    model : ModelPart or None
        None if neither ``run.json`` nor the log says it; so are the others.
    engine : EnginePart or None
        What really ran.
    started, stopped : datetime or None
        With time zone; `stopped` only of a run that has an end.
    reason : str
        Why the run ended.
    errors : list of str
        What went wrong.
    settings, source, versions : dict
        As in ``run.json``.
    pixel_size_um, interval_ms : float or None
        Edge of a raw pixel, µm; the interval that the source announced, ms.
    evaluation : Evaluation or None
        The comparison with ground truth, if somebody has made it.

    Raises
    ------
    StorageError
        The log cannot be read at all.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.notes: list[str] = []
        self.log = RunLog(folder.log)
        if self.log.damage:
            self.notes.append(f"the log is damaged and was read up to there: {self.log.damage}")
        start, stop = self.log.start, self.log.stop
        document = self._document(folder)
        self.model: ModelPart | None = None
        self.engine: EnginePart | None = None
        self.settings: dict[str, Any] = {}
        self.source: dict[str, Any] = {}
        self.versions: dict[str, str] = {}
        self.errors: list[str] = []
        self.started = None if start is None else start.started
        self.stopped = None if stop is None else stop.stopped
        self.reason = "" if stop is None else stop.reason
        self._summary = None if stop is None else stop.summary
        if document is not None:
            self.model, self.engine = document.model, document.engine
            self.settings, self.source = document.settings, document.source
            self.versions, self.errors = document.versions, document.errors
            self.started = document.started or self.started
            self.stopped = document.stopped or self.stopped
            self.reason = document.reason or self.reason
            self._summary = document.summary or self._summary
        elif start is not None:
            self.model = ModelPart(start.model, start.model_version, start.model_sha256)
            if start.engine_report:
                self.engine = self._converted(start.engine_report, EnginePart, folder.log.name)
            kept = ("source", "height", "width", "dtype", "bits", "pixel_size_um", "interval_ms",
                    "channel")  # fmt: skip
            self.source = {name: getattr(start, name) for name in kept}
            self.source["metadata"] = dict(start.metadata)
        self.pixel_size_um = _positive(self.source.get("pixel_size_um"))
        self.interval_ms = _positive(self.source.get("interval_ms"))
        self.evaluation = self._evaluation(folder)

    @property
    def ended(self) -> bool:
        """The run has an end: it stopped in order, or was recovered afterwards."""
        return self._summary is not None

    @property
    def recovered(self) -> bool:
        """The daemon died, and ``pssr-live recover`` finished the run."""
        return self.ended and self.reason == RECOVERED

    def summary(self, raw_planes: int, restored_planes: int) -> Summary:
        """Return the run in numbers; those of an unfinished run are counted from what is there.

        Parameters
        ----------
        raw_planes, restored_planes : int
            How many the stacks have.
        """
        if self._summary is not None:
            return self._summary
        _, latencies = self.log.latencies()
        p50, p99 = np.percentile(latencies, [50, 99]).tolist() if latencies.size else (None, None)
        return Summary(
            frames_received=max(raw_planes, len(self.log)),
            frames_recorded=raw_planes,
            frames_restored=restored_planes,
            frames_skipped_live=len(self.log.skipped),
            frames_lost_at_source=self.log.frames_lost(),
            latency_ms=LatencyMs(p50, p99),
        )

    def _document(self, folder: RunFolder) -> _Document | None:
        try:
            return self._converted(folder.read_run_json(), _Document, folder.run_json.name)
        except StorageError as error:
            # Without the path: a report is mailed.
            why = f"cannot be read: {error.why}" if folder.run_json.exists() else "is missing"
            self.notes.append(f"{folder.run_json.name} {why}")
            return None

    def _evaluation(self, folder: RunFolder) -> Evaluation | None:
        path = folder.path / "evaluation" / "evaluation.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Evaluation)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            self.notes.append(f"{path.name} cannot be read: {error}")
            return None

    def _converted(self, plain: Any, kind: type[T], name: str) -> T | None:
        try:
            return msgspec.convert(plain, kind)
        except msgspec.ValidationError as error:
            self.notes.append(f"{name} is not as expected: {error}")
            return None


def flattened(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Write nested values as names with dots; those that are null are left out.

    Parameters
    ----------
    values : mapping
        Plain values.
    before : str
        What all names start with.

    Yields
    ------
    tuple of str
        Name and value.
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{before}{name}.")
        elif isinstance(value, bool):
            yield f"{before}{name}", "yes" if value else "no"
        elif isinstance(value, float):
            yield f"{before}{name}", f"{value:.6g}"
        elif value is not None:
            yield f"{before}{name}", str(value)


def _positive(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value > 0 else None
