"""Plots of the log: latency of every frame, and beneath it what went wrong and when."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pssr_live_gui import theme
from pssr_live_gui.qt import QtCore, pg
from pssr_live_gui.recorded import RecordedRun

__all__ = ["LANES", "Timeline"]

LANES = ("edge", "skipped live", "window incomplete", "lost")
"""From the bottom up."""
COLOURS = (theme.MUTED, theme.AMBER, theme.AMBER, theme.RED)


class Timeline(pg.GraphicsLayoutWidget):  # type: ignore[misc]  # pyqtgraph has no types
    """Latency and events against the frame number; a click asks for that frame.

    Parameters
    ----------
    run : RecordedRun
        The run.

    Attributes
    ----------
    clicked : signal of float
        The frame index where the user clicked.
    """

    clicked = QtCore.pyqtSignal(float)

    def __init__(self, run: RecordedRun) -> None:
        super().__init__()
        self.setBackground(theme.GROUND)
        self.setMinimumHeight(200)
        self.latency = self.addPlot(row=0, col=0, enableMenu=False)
        self.events = self.addPlot(row=1, col=0, enableMenu=False)
        self.marks = tuple(self._cursor(plot) for plot in (self.latency, self.events))
        self._show_latency(run)
        self._show_events(run)
        last = run.index(len(run) - 1)
        margin = max(0.5, last * 0.01)
        self.events.setXLink(self.latency)
        self.latency.setXRange(run.index(0) - margin, last + margin, padding=0)
        self.scene().sigMouseClicked.connect(self._click)

    def mark(self, index: int) -> None:
        """Move the cursor.

        Parameters
        ----------
        index : int
            The frame now shown.
        """
        for line in self.marks:
            line.setValue(index)

    def _show_latency(self, run: RecordedRun) -> None:
        self._dress(self.latency)
        self.latency.setLabel("left", "latency, ms")
        self.latency.getAxis("bottom").setStyle(showValues=False)
        indices, latencies = _broken_at_gaps(*run.log.latencies())
        self.curve = self.latency.plot(
            indices,
            latencies,
            pen=pg.mkPen(theme.BLUE, width=1),
            symbol="o" if indices.size <= 500 else None,
            symbolSize=4,
            symbolBrush=theme.BLUE,
            symbolPen=None,
            connect="finite",
        )
        top = float(np.nanmax(latencies)) if latencies.size else 1.0
        self.latency.setYRange(0, top * 1.1, padding=0)
        if not latencies.size:
            self.latency.setTitle("no frame was restored live", color=theme.MUTED, size="9pt")

    def _show_events(self, run: RecordedRun) -> None:
        self._dress(self.events)
        self.events.setLabel("bottom", "frame number")
        self.events.setFixedHeight(104)
        self.events.setYRange(-0.6, len(LANES) - 0.4, padding=0)
        self.events.getAxis("left").setTicks([list(enumerate(LANES))])
        events = sorted(run.log.restored.values(), key=lambda event: event.index)
        rows = [
            np.asarray(row, np.float64)
            for row in (
                [event.index for event in events if event.edge],
                run.log.skipped,
                [event.index for event in events if not event.complete],
                run.log.lost_indices(),
            )
        ]
        self.lanes = tuple(
            self.events.plot(
                row,
                np.full(row.size, float(lane)),
                pen=None,
                symbol="s",
                symbolSize=7,
                symbolBrush=COLOURS[lane],
                symbolPen=None,
            )
            for lane, row in enumerate(rows)
        )

    @staticmethod
    def _dress(plot: Any) -> None:
        plot.setMouseEnabled(x=True, y=False)
        plot.hideButtons()
        plot.showGrid(x=True, y=False, alpha=0.15)
        plot.getViewBox().disableAutoRange()
        for side in ("left", "bottom"):
            axis = plot.getAxis(side)
            axis.setPen(theme.MUTED)
            axis.setTextPen(theme.MUTED)
            axis.setStyle(maxTickLevel=0)
        plot.getAxis("left").setWidth(124)

    @staticmethod
    def _cursor(plot: Any) -> Any:
        line = pg.InfiniteLine(angle=90, pen=pg.mkPen(theme.TEXT, width=1))
        plot.addItem(line, ignoreBounds=True)
        return line

    def _click(self, event: Any) -> None:
        for plot in (self.latency, self.events):
            box = plot.getViewBox()
            if box.sceneBoundingRect().contains(event.scenePos()):
                self.clicked.emit(float(box.mapSceneToView(event.scenePos()).x()))


def _broken_at_gaps(
    indices: NDArray[np.int64], latencies: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Keep the line from running over frames that have no latency."""
    gaps = np.flatnonzero(np.diff(indices) > 1) + 1
    return (
        np.insert(indices.astype(np.float64), gaps, np.nan),
        np.insert(latencies, gaps, np.nan),
    )
