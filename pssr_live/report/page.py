"""The page: everything that is known about a run, in one file that needs no other."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pssr_live import __version__
from pssr_live.errors import StorageError, UsageError
from pssr_live.evaluate.report import METRICS, Evaluation, Mean
from pssr_live.record.run_folder import RunFolder, Summary
from pssr_live.report.facts import RECOVERED, RunFacts, flattened
from pssr_live.report.pictures import examples
from pssr_live.report.plots import plot_psnr, plot_run
from pssr_live.report.run_log import EventRow, RunLog, frames_of
from pssr_live.report.stacks import Intensities, Stacks

__all__ = ["write_report"]

LIBRARIES = {"Jinja2": "jinja2", "matplotlib": "matplotlib", "Pillow": "PIL"}
"""Of the extra ``report``, with the names of their packages."""
WARNINGS = 10
"""Different warnings at the top of the page, at most."""
OTHER_SECTIONS = ("sim", "replay", "mm")
"""Tables of the settings that belong to one source each."""


def write_report(
    run: Path,
    out: Path,
    *,
    on_plane: Callable[[int, int], object] = lambda _done, _total: None,
) -> None:
    """Write a run's report: one HTML file that needs no other file, no script and no network.

    The run may have been killed, or may still go on: the report then says so, and what there is.
    Only the planes that are shown, and a limited number for the curve of intensities, are read,
    one at a time.

    Parameters
    ----------
    run : Path
        The run folder.
    out : Path
        The file to write; one that is there is replaced.
    on_plane : callable
        Called with (done, to do) after each plane that is measured.

    Raises
    ------
    StorageError
        It is no run folder, or `out` cannot be written.
    UsageError
        `out` does not end in ``.html``, or the extra ``report`` is not installed.
    """
    _check(out)
    folder = RunFolder.open(run)
    facts = RunFacts(folder)
    with Stacks(folder) as stacks:
        summary = facts.summary(stacks.planes("raw"), stacks.planes("restored"))
        intensities = stacks.intensities(on_plane)
        content = _page(
            run=folder.path.resolve().name,
            facts=facts,
            log=facts.log,
            summary=summary,
            rows=_summary_rows(summary, facts),
            pictures=examples(stacks, facts.log, facts.pixel_size_um),
            kinds=stacks.kinds,
            plot=plot_run(facts.log, summary.latency_ms, intensities),
            measured=_measured(intensities),
            notes=list(dict.fromkeys([*facts.notes, *stacks.notes])),
            **_evaluated(facts.evaluation),
        )
    _write(out, content)


def _check(out: Path) -> None:
    """Refuse what cannot work before anything is read."""
    if out.suffix.lower() not in (".html", ".htm"):
        # Also keeps a slip of the hand from replacing a stack.
        raise UsageError(
            f"--html {out}", "a report is an HTML file", "end the file's name in .html"
        )
    missing = [name for name, package in LIBRARIES.items() if find_spec(package) is None]
    if missing:
        raise UsageError(
            f"--html {out}",
            f"{' and '.join(missing)} not installed",
            'pip install "pssr-live[report]"',
        )
    if not out.parent.is_dir():
        raise _unwritable(out, "there is no such folder")


def _page(*, facts: RunFacts, log: RunLog, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pssr_live.report"),
        autoescape=True,  # names come from files, and are text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "when": _when,
        "number": _number,
        "seconds": _seconds,
        "mean": _mean,
        "decibels": _decibels,
        "pixel": _pixel,
    }
    scope = facts.settings.get("scope")
    settings = {
        name: value
        for name, value in facts.settings.items()
        if name not in OTHER_SECTIONS or name == scope
    }
    source = {name: value for name, value in facts.source.items() if name != "metadata"}
    return environment.get_template("report.html").render(
        facts=facts,
        log=log,
        program=__version__,
        written=datetime.now().astimezone(),
        warnings=log.warnings.most_common()[:WARNINGS],
        more_warnings=max(0, len(log.warnings) - WARNINGS),
        events=[_event(row, facts) for row in log.rows],
        settings=list(flattened(settings)),
        source=list(flattened(source)),
        metadata=_metadata(facts),
        **values,
    )


def _metadata(facts: RunFacts) -> list[tuple[str, str]]:
    found = facts.source.get("metadata")
    return list(flattened(found)) if isinstance(found, dict) else []


def _summary_rows(summary: Summary, facts: RunFacts) -> list[tuple[str, str, str]]:
    """Say the run in numbers: what, how many, and a remark."""
    log, latency = facts.log, summary.latency_ms
    gaps = [(gap.first_index, gap.last_index) for gap in log.lost]
    least = "at least: counted from what is in the folder"
    if facts.ended and not facts.recovered:
        least = ""
    whole = summary.frames_restored == summary.frames_recorded
    behind = summary.frames_recorded - summary.frames_restored
    live, _ = log.latencies()
    return [
        ("Frames received", _number(summary.frames_received), least),
        ("Frames recorded", _number(summary.frames_recorded), "raw, as measured"),
        (
            "Frames restored",
            _number(summary.frames_restored),
            "one for each raw frame" if whole else f"missing for {_frames(behind)}",
        ),
        ("Restored live", _number(live.size), ""),
        (
            "Skipped live",
            _number(summary.frames_skipped_live),
            "restored afterwards, from the raw stack"
            if summary.frames_skipped_live and whole
            else "",
        ),
        ("Lost at the source", _number(summary.frames_lost_at_source), ""),
        ("Gaps", _number(len(gaps)), frames_of(gaps) if gaps else ""),
        (
            "Latency, median (p50)",
            _milliseconds(latency.p50),
            "last needed frame in the computer → restored frame ready",
        ),
        ("Latency, p99", _milliseconds(latency.p99), "99 of 100 frames were ready sooner"),
    ]


def _event(row: EventRow, facts: RunFacts) -> tuple[str, str, str]:
    after = facts.log.after_start_s(row.t_host_ns)
    if facts.recovered and row.kind in (RECOVERED, "stop"):
        after = None  # by the clock of the computer that recovered it
    times = f" ({_number(row.count)} times)" if row.count > 1 else ""
    return ("" if after is None else f"{after:.2f}", row.kind, row.text + times)


def _measured(intensities: Intensities) -> str:
    count = len(intensities.planes)
    if count == intensities.of:
        return f"from all {_number(count)} planes"
    return f"from {_number(count)} of {_number(intensities.of)} planes, at equal distances"


def _evaluated(evaluation: Evaluation | None) -> dict[str, Any]:
    shown = {"metrics": METRICS, "evaluation": evaluation, "psnr": ""}
    if evaluation is not None:
        shown["psnr"] = plot_psnr(evaluation)
    return shown


def _write(out: Path, content: str) -> None:
    """Replace the file; a reader sees the old or the new one, never a part."""
    temporary = out.with_name(f"{out.name}.{os.getpid()}.new")
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(out, error.strerror or str(error)) from error


def _unwritable(out: Path, why: str) -> StorageError:
    return StorageError(
        f"the report cannot be written to {out}",
        why,
        "choose a file in a folder that you may write to",
    )


def _when(time: datetime) -> str:
    text = time.isoformat(" ", "seconds")
    # Apart, the hours that the zone is ahead are not read as part of the time.
    return text if time.tzinfo is None else f"{text[:19]} {text[19:]}"


def _number(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _frames(count: int) -> str:
    return f"{_number(count)} raw frame{'' if count == 1 else 's'}"


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g} ms"


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.4g} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _mean(value: Mean | None, digits: int) -> str:
    if value is None or value.mean is None:
        return "–"
    return f"{value.mean:.{digits}f}" + ("" if value.sem is None else f" ± {value.sem:.{digits}f}")


def _decibels(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f} dB"


def _pixel(um: float | None) -> str:
    if um is None:
        return "unknown"
    return f"{um * 1000:.4g} nm" if um < 1 else f"{um:.4g} µm"
