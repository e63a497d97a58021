"""What a training shows while it runs: a bar in a terminal, whole lines elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Column

from pssr_live_models.training.loop import Progress

__all__ = ["Display"]

_SMOOTHING = 0.98
_LONGEST_NAME = 36


def _description() -> Column:
    """Cut long names short: the figures beside them say more."""
    return Column(no_wrap=True, overflow="ellipsis", max_width=_LONGEST_NAME)


class Display:
    """The state of a training, for whoever watches; use as a context.

    Parameters
    ----------
    console : Console
        Where to show it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}", table_column=_description()),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            speed_estimate_period=120,
        )
        self._tasks: dict[str, TaskID] = {}
        self._loss: float | None = None
        self._gain = ""
        self._begun: tuple[float, int] | None = None

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def refresh(self) -> None:
        """Draw what is known now, without waiting for the next of ten drawings a second."""
        self._bar.refresh()

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def reading(self, name: str, done: int, total: int) -> None:
        """Show how far a movie has been read."""
        task = self._task(f"reading {name}", total)
        self._bar.update(task, completed=done, visible=done < total)

    def stepped(self, step: int, steps: int, loss: float) -> None:
        """Show a step and its loss, smoothed over about fifty."""
        if self._begun is None:
            self._begun = time.monotonic(), step - 1
        before = loss if self._loss is None else self._loss
        self._loss = _SMOOTHING * before + (1 - _SMOOTHING) * loss
        figures = f"loss {self._loss:.4f}{self._gain}"
        self._bar.update(self._task("training", steps), completed=step, figures=figures)

    def validated(self, progress: Progress) -> None:
        """Show what validation found."""
        gain_db = round(progress.gain_db, 2) + 0.0  # no minus before nothing
        self._gain = f", {gain_db:+.2f} dB over bilinear"
        if not self._console.is_terminal:
            loss = "" if math.isnan(progress.loss) else f"loss {progress.loss:.4f}, "
            self.say(
                f"step {progress.step}/{progress.steps}, {loss}"
                f"validation {progress.validation:.4f} (best {progress.best:.4f})"
                f"{self._gain}{self._left(progress)}"
            )

    def _left(self, progress: Progress) -> str:
        if self._begun is None or progress.step == progress.steps:
            return ""
        since, first = self._begun
        seconds = (time.monotonic() - since) / (progress.step - first)
        return f", {seconds * (progress.steps - progress.step) / 60:.1f} min left"

    def _task(self, name: str, total: int) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total, figures="")
        return self._tasks[name]
