"""The review window: a recorded run, scrubbed frame by frame."""

from __future__ import annotations

from functools import partial

import numpy as np

from pssr_live.record import RestoredEvent, StackReader
from pssr_live_gui import theme
from pssr_live_gui.contrast import levels_of
from pssr_live_gui.controls import BannerLabel, button, on_keys, switch
from pssr_live_gui.panes import MEASURED, TRUTH, ElidedLabel, Pane, Panes, Picture, predicted
from pssr_live_gui.qt import QtCore, QtWidgets
from pssr_live_gui.recorded import RecordedRun
from pssr_live_gui.timeline import Timeline
from pssr_live_gui.words import count_of, pixel_size, restored_flags

__all__ = ["ReviewWindow"]

SAMPLED = 5
"""Planes that the contrast of a whole run is taken from."""


class ReviewWindow(QtWidgets.QWidget):
    """Raw, restored and, where recorded, true frames of one run, with its log plotted.

    Parameters
    ----------
    run : RecordedRun
        Closed by whoever opened it, after the window.
    """

    def __init__(self, run: RecordedRun) -> None:
        super().__init__()
        self.run = run
        self.setWindowTitle(f"pssr-live review: {run.folder.name}")
        self.setMinimumSize(900, 640)
        start = run.log.start
        self.raw = Pane("measured", MEASURED)
        self.restored = Pane("prediction", predicted("" if start is None else start.model))
        self.truth = Pane("truth", TRUTH)
        shown = [self.raw, self.restored, *([self.truth] if run.truth is not None else [])]
        self.panes = Panes(shown)
        self.resize(max(1280, 480 * len(shown)), 900)
        self._stacks: dict[Pane, StackReader | None] = {
            self.raw: run.raw,
            self.restored: run.restored,
            self.truth: run.truth,
        }
        self.header = ElidedLabel(self._what_ran())
        theme.say_kind(self.header, "title")
        self.numbers = ElidedLabel(self._in_numbers())
        theme.say_kind(self.numbers, "muted")
        self.banner = BannerLabel()
        self.banner.say("banner-bad", self._troubles())
        self.timeline = Timeline(run)
        self.timeline.clicked.connect(lambda index: self.go_to(run.plane_near(index)))
        self.slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self.slider.setRange(0, len(run) - 1)
        self.slider.setFocusPolicy(QtCore.Qt.FocusPolicy.NoFocus)
        self.slider.valueChanged.connect(self._show)
        self.where = QtWidgets.QLabel("")
        self._lay_out()
        self._keys()
        self.use_contrast_of_run()
        self._show(0)

    @property
    def plane(self) -> int:
        """Number of the raw plane that is shown."""
        return self.slider.value()

    def go_to(self, plane: int) -> None:
        """Show another frame.

        Parameters
        ----------
        plane : int
            Number of its raw plane; the nearest there is.
        """
        self.slider.setValue(plane)

    def step(self, by: int) -> None:
        """Go so many frames forward, or back if negative."""
        self.go_to(self.plane + by)

    def use_contrast_of_run(self) -> None:
        """Show every frame with the same contrast, so that bleaching is seen."""
        for pane in self.panes.panes:
            stack = self._stacks[pane]
            if stack is not None:
                planes = np.unique(np.linspace(0, len(stack) - 1, SAMPLED).astype(int))
                self.panes.set_levels(pane, levels_of(*(stack.read(int(one)) for one in planes)))

    def _lay_out(self) -> None:
        self.per_frame = switch(
            self, "Contrast of each frame", "C", "otherwise that of the whole run", self._contrast
        )
        self.panes.auto_contrast = False
        fit = button(self, "Fit", "F", "show the whole field", self.panes.fit)
        scrub = QtWidgets.QHBoxLayout()
        scrub.setSpacing(10)
        for widget, stretch in ((self.slider, 1), (self.where, 0), (self.per_frame, 0), (fit, 0)):
            scrub.addWidget(widget, stretch)
        split = QtWidgets.QSplitter(QtCore.Qt.Orientation.Vertical)
        split.addWidget(self.panes)
        split.addWidget(self.timeline)
        split.setStretchFactor(0, 1)
        split.setSizes([620, 220])
        split.setChildrenCollapsible(False)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(12, 10, 12, 10)
        layout.setSpacing(4)
        layout.addWidget(self.banner)
        layout.addWidget(self.header)
        layout.addWidget(self.numbers)
        layout.addWidget(split, 1)
        layout.addLayout(scrub)

    def _keys(self) -> None:
        steps = {("Left", ","): -1, ("Right", "."): 1, ("PgUp",): -10, ("PgDown",): 10}
        for keys, step in steps.items():
            on_keys(self, keys, partial(self.step, step))
        on_keys(self, ("Home",), lambda: self.go_to(0))
        on_keys(self, ("End",), lambda: self.go_to(len(self.run) - 1))
        on_keys(self, ("Esc", "Q"), self.close)

    def _contrast(self, per_frame: bool) -> None:
        self.panes.auto_contrast = per_frame
        if not per_frame:
            self.use_contrast_of_run()
        self._show(self.plane)

    def _show(self, plane: int) -> None:
        index = self.run.index(plane)
        event = self.run.log.restored.get(plane)
        self._show_plane(self.raw, plane, index, "")
        self._show_plane(self.restored, plane, index, _timing(event), event)
        if self.run.truth is not None:
            self._show_plane(self.truth, plane, index, "")
        when = self.run.time_s(plane)
        parts = [f"frame {index}", f"{plane + 1} of {len(self.run)}"]
        self.where.setText(" · ".join(parts if when is None else [*parts, f"{when:.2f} s"]))
        self.timeline.mark(index)

    def _show_plane(
        self, pane: Pane, plane: int, index: int, more: str, event: RestoredEvent | None = None
    ) -> None:
        stack = self._stacks[pane]
        pixels = self.run.read(stack, plane)
        if stack is None or pixels is None:
            pane.clear(f"frame {index} · not restored" if pane is self.restored else "not recorded")
            return
        rows, columns = pixels.shape
        words = [f"frame {index}", f"{columns} × {rows}", pixel_size(stack.pixel_size_um), more]
        flags = (
            ()
            if event is None
            else restored_flags(edge=event.edge, complete=event.complete, live=event.live)
        )
        details = " · ".join(word for word in words if word)
        self.panes.show_picture(pane, Picture(pixels, stack.pixel_size_um, details, flags))

    def _what_ran(self) -> str:
        start = self.run.log.start
        if start is None:
            return "the log does not say what ran"
        return f"{start.model} {start.model_version} · {start.engine} · {start.source}"

    def _in_numbers(self) -> str:
        run = self.run.summary()
        text = (
            f"received {run.frames_received} · recorded {run.frames_recorded}"
            f" · restored {run.frames_restored} · skipped live {run.frames_skipped_live}"
            f" · lost at the source {run.frames_lost_at_source}"
        )
        p50, p99 = run.latency_ms.p50, run.latency_ms.p99
        if p50 is not None and p99 is not None:
            text += f" · latency {p50:.0f} ms, p99 {p99:.0f} ms"
        start = self.run.log.start
        if start is not None:
            text += f" · started {start.started:%Y-%m-%d %H:%M:%S}"
        return text

    def _troubles(self) -> str:
        """Say what is wrong with this run, if anything."""
        run = self.run
        found = []
        if run.log.stop is None:
            restored = 0 if run.restored is None else len(run.restored)
            found.append(
                f"this run did not end in order (or still runs): {count_of(len(run), 'raw frame')}"
                f" and {restored} restored are there"
            )
        lost = run.log.lost_indices().size
        if lost:
            found.append(f"⚠ {count_of(lost, 'frame')} lost at the source")
        return " · ".join([*found, *run.notes, *run.log.warnings[-1:]])


def _timing(event: RestoredEvent | None) -> str:
    if event is None:
        return ""
    if event.latency_ms is None:
        return f"engine {event.engine_ms:.0f} ms"
    return f"latency {event.latency_ms:.0f} ms"
