"""Run a session in the foreground: progress line, Ctrl-C, viewer, summary."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from pssr_live.display import has_display, has_windows
from pssr_live.errors import WindowError
from pssr_live.session import RunResult, Session
from pssr_live.settings import RunSettings
from pssr_live.stream.wire import Status

__all__ = ["run_daemon"]

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2
_TELL_EVERY = 50
"""Looks between two lines of progress where there is no terminal: about ten seconds."""


@dataclass
class _Interrupts:
    """How often the user has pressed Ctrl-C, or the system has asked us to end."""

    count: int = 0


def run_daemon(settings: RunSettings, console: Console) -> None:
    """Run until the end, Ctrl-C or a request; print the summary to stdout.

    Parameters
    ----------
    settings : RunSettings
        What is asked.
    console : Console
        For the progress line.

    Raises
    ------
    PssrLiveError
        The first thing that went wrong, after everything that could be saved has been.
    """
    show = has_windows() and has_display() if settings.view is None else settings.view
    if show and not has_windows():
        raise WindowError(
            "--view", "the viewer is not installed", 'pip install "pssr-live[gui]", or --no-view'
        )
    if settings.view and not (has_display() or os.environ.get("QT_QPA_PLATFORM")):
        raise WindowError(
            "--view", "there is no display", "run it in a desktop session, or leave it out"
        )
    with _interrupts() as interrupts:
        session = Session(settings)
        session.start()
        status = session.status()
        log.info("%s → %s, %s", session.info.source, status.model, session.engine)
        log.info("recording to %s", status.run_folder)
        if show:
            _open_viewer(session.connection.publish)
        with _progress(console) as progress:
            _watch(session, interrupts, progress, settings.frames or session.info.frames)
            result = _finish(session, interrupts, progress)
    _print_summary(result)
    if result.errors:
        raise result.errors[0]


def _watch(
    session: Session, interrupts: _Interrupts, progress: Progress, total: int | None
) -> None:
    task = progress.add_task("acquiring", total=total)
    looks = 0
    while not session.wait(_LOOK_EVERY_S):
        status = session.status()
        progress.update(task, completed=status.frames_received, description=_line(status))
        looks += 1
        if looks % _TELL_EVERY == 0 and not progress.console.is_terminal:
            log.info("%d frames, %s", status.frames_received, _line(status))
        if interrupts.count:
            session.request_stop("interrupted by the user")
    progress.update(task, completed=session.status().frames_received)


def _finish(session: Session, interrupts: _Interrupts, progress: Progress) -> RunResult:
    before = interrupts.count
    task = progress.add_task("restoring what live skipped", total=None, visible=False)

    def on_plane(done: int, total: int) -> bool:
        progress.update(task, completed=done, total=total, visible=True)
        # Pressing Ctrl-C once more leaves the rest to `pssr-live restore`.
        return interrupts.count == before

    return session.finish(on_plane)


def _line(status: Status) -> str:
    parts = []
    if status.fps_raw is not None:
        parts.append(f"{status.fps_raw:.1f} frames/s")
    if status.latency_ms_p50 is not None:
        parts.append(f"latency {status.latency_ms_p50:.0f} ms")
    parts.append(f"skipped {status.frames_skipped_live}")
    parts.append(f"lost {status.frames_lost_at_source}")
    return ", ".join(parts)


def _print_summary(result: RunResult) -> None:
    summary = result.summary
    latency = summary.latency_ms
    rows = [
        ("run folder", str(result.folder.path)),
        ("ended", result.reason),
        ("frames received", str(summary.frames_received)),
        ("frames recorded", str(summary.frames_recorded)),
        ("frames restored", str(summary.frames_restored)),
        ("skipped live", str(summary.frames_skipped_live)),
        ("lost at source", str(summary.frames_lost_at_source)),
    ]
    if latency.p50 is not None and latency.p99 is not None:
        rows.append(("latency", f"{latency.p50:.0f} ms (median), {latency.p99:.0f} ms (p99)"))
    for name, value in rows:
        sys.stdout.write(f"{name + ':':<18}{value}\n")
    sys.stdout.flush()


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        MofNCompleteColumn(),
        BarColumn(bar_width=20),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def _interrupts() -> Iterator[_Interrupts]:
    """Count Ctrl-C and SIGTERM instead of being torn out of an ordered stop."""
    interrupts = _Interrupts()

    def count(_signum: int, _frame: FrameType | None) -> None:
        interrupts.count += 1

    before = {name: signal.signal(name, count) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _open_viewer(endpoint: str) -> None:
    """Start the viewer as a process of its own, which outlives Ctrl-C and the run."""
    command = [sys.executable, "-m", "pssr_live", "view", endpoint]
    if sys.platform == "win32":
        subprocess.Popen(command, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP)
    else:
        subprocess.Popen(command, start_new_session=True)
