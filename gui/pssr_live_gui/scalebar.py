"""A scale bar of a round length, drawn over a picture."""

from __future__ import annotations

import math
from typing import Any

from pssr_live_gui.qt import QtCore, QtGui, QtWidgets

__all__ = ["ScaleBar", "nice_length"]

SHARE = 0.25
"""The bar takes at most this share of the visible picture's width."""
MARGIN, PADDING, THICKNESS = 12.0, 6.0, 4.0


def nice_length(longest: float) -> float:
    """Choose the longest round length: 1, 2 or 5 times a power of ten.

    Parameters
    ----------
    longest : float
        Upper bound, > 0, in any unit.

    Returns
    -------
    float
        In the same unit.
    """
    decade = 10.0 ** math.floor(math.log10(longest))
    # The tolerance keeps 0.1 + 0.2 and its like from losing a step.
    fitting = (step for step in (5, 2) if step * decade <= longest * (1 + 1e-9))
    return next(fitting, 1) * decade


class ScaleBar:
    """A white bar with its length, in the lower right corner of a view.

    Parameters
    ----------
    view : pyqtgraph.ViewBox
        The view that it belongs to.
    """

    def __init__(self, view: Any) -> None:
        self._view = view
        self._unit = "px"
        self._width = self._height = 0.0
        self._back = QtWidgets.QGraphicsRectItem(view)
        self._bar = QtWidgets.QGraphicsRectItem(self._back)
        self._text = QtWidgets.QGraphicsSimpleTextItem(self._back)
        nothing = QtGui.QPen(QtCore.Qt.PenStyle.NoPen)
        self._back.setPen(nothing)
        self._back.setBrush(QtGui.QColor(0, 0, 0, 150))
        self._back.setZValue(1e6)
        self._bar.setPen(nothing)
        self._bar.setBrush(QtGui.QColor("white"))
        self._text.setBrush(QtGui.QColor("white"))
        font = self._text.font()
        font.setBold(True)
        self._text.setFont(font)
        self._back.hide()
        view.sigRangeChanged.connect(self.update)
        view.sigResized.connect(self.update)

    @property
    def text(self) -> str:
        """The length as shown, or nothing while hidden."""
        return self._text.text() if self._back.isVisible() else ""

    def show(self, width: float, height: float, unit: str) -> None:
        """Show the bar.

        Parameters
        ----------
        width, height : float
            Lower right corner of the picture, in the view's coordinates.
        unit : str
            Their unit.
        """
        self._width, self._height, self._unit = width, height, unit
        self._back.show()
        self.update()

    def hide(self) -> None:
        """Hide the bar: there is no picture."""
        self._back.hide()

    def update(self, *_: object) -> None:
        """Fit length and place to the visible part of the picture."""
        shown = self._view.viewRect()
        if not self._back.isVisible() or self._view.width() < 2 or shown.width() <= 0:
            return
        visible = shown.intersected(QtCore.QRectF(0, 0, self._width, self._height))
        if visible.isEmpty():
            visible = shown
        per_unit = self._view.width() / shown.width()
        length = nice_length(visible.width() * SHARE)
        self._text.setText(f"{length:g} {self._unit}")
        words = self._text.boundingRect()
        bar = length * per_unit
        width = max(bar, words.width()) + 2 * PADDING
        height = words.height() + THICKNESS + 2 * PADDING
        right = (visible.right() - shown.left()) * per_unit
        bottom = (visible.bottom() - shown.top()) * per_unit
        self._back.setRect(0, 0, width, height)
        self._back.setPos(right - width - MARGIN, bottom - height - MARGIN)
        self._text.setPos((width - words.width()) / 2, PADDING - 1)
        self._bar.setRect((width - bar) / 2, height - PADDING - THICKNESS, bar, THICKNESS)
