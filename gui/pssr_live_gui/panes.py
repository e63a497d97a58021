"""Pictures side by side that show the same field: raw, restored and, where known, the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pssr_live.frames import Pixels
from pssr_live_gui import theme
from pssr_live_gui.contrast import AutoContrast, Levels
from pssr_live_gui.qt import QtCore, QtGui, QtWidgets, pg
from pssr_live_gui.scalebar import ScaleBar

__all__ = ["MEASURED", "TRUTH", "ElidedLabel", "Field", "Pane", "Panes", "Picture", "predicted"]

MEASURED = "raw, undersampled — measured"
TRUTH = "ground truth of the simulation"


def predicted(model: str) -> str:
    """Title of a pane that shows restored frames.

    Parameters
    ----------
    model : str
        Name of the model; empty if not yet known.
    """
    return f"restored by {model} — prediction" if model else "restored — prediction"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What a pane shows.

    Attributes
    ----------
    pixels : ndarray, shape (H, W)
        Not changed while shown.
    pixel_size_um : float or None
        Edge of one pixel, µm.
    details : str
        One short line: frame number and the like.
    flags : tuple of str
        What a reader must know before trusting the picture (edge, gap).
    """

    pixels: Pixels
    pixel_size_um: float | None
    details: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """The part of the sample that a picture covers, with its origin in the upper left corner.

    Attributes
    ----------
    width, height : float
        In ``unit``.
    unit : str
        ``µm``, or ``px`` (raw pixels) where the pixel size is unknown.
    """

    width: float
    height: float
    unit: str

    @classmethod
    def of(cls, picture: Picture, reference: Field | None = None) -> Field:
        """Find a picture's field.

        Parameters
        ----------
        picture : Picture
            The picture.
        reference : Field or None
            Field of the raw frame; a picture without its own pixel size covers the same.
        """
        height, width = picture.pixels.shape
        size = picture.pixel_size_um
        if size is not None and (reference is None or reference.unit == "µm"):
            return cls(width * size, height * size, "µm")
        return reference or cls(float(width), float(height), "px")

    def same_as(self, other: Field | None) -> bool:
        """Say whether it is the same field, but for rounding."""
        return (
            other is not None
            and self.unit == other.unit
            and math.isclose(self.width, other.width, rel_tol=1e-6)
            and math.isclose(self.height, other.height, rel_tol=1e-6)
        )


class ElidedLabel(QtWidgets.QLabel):
    """A line that is cut (…) where it does not fit, with the whole text as its tool tip.

    Parameters
    ----------
    text : str
        The line.
    keep_end : bool
        Cut in the middle instead of at the end.
    """

    def __init__(self, text: str = "", *, keep_end: bool = False) -> None:
        super().__init__()
        self._cut = (
            QtCore.Qt.TextElideMode.ElideMiddle if keep_end else QtCore.Qt.TextElideMode.ElideRight
        )
        self.setText(text)

    @property
    def shown(self) -> str:
        """The text as it is drawn."""
        return self.fontMetrics().elidedText(self.text(), self._cut, self.contentsRect().width())

    def setText(self, text: str | None) -> None:  # noqa: N802
        """Show other text."""
        super().setText(text)
        self.setToolTip(text)

    def minimumSizeHint(self) -> QtCore.QSize:  # noqa: N802
        """Allow any width."""
        return QtCore.QSize(0, super().minimumSizeHint().height())

    def paintEvent(self, event: QtGui.QPaintEvent | None) -> None:  # noqa: ARG002, N802
        """Draw what fits."""
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOption()
        option.initFrom(self)
        painter.drawItemText(
            self.contentsRect(),
            int(self.alignment()),
            option.palette,
            True,
            self.shown,
            self.foregroundRole(),
        )


class Pane(QtWidgets.QWidget):
    """One picture with its title, details, flags and scale bar.

    Parameters
    ----------
    kind : str
        ``measured``, ``prediction`` or ``truth``: colour of the title.
    title : str
        What the picture is.
    """

    def __init__(self, kind: str, title: str) -> None:
        super().__init__()
        # The end says whether it is measured or predicted.
        self.title = ElidedLabel(title, keep_end=True)
        theme.say_kind(self.title, kind)
        self.flags = QtWidgets.QLabel("")
        theme.say_kind(self.flags, "flag")
        self.details = ElidedLabel("no frame yet")
        theme.say_kind(self.details, "muted")
        self.canvas = pg.GraphicsView(background=theme.PICTURE)
        self.canvas.setMinimumSize(300, 220)
        self.view = pg.ViewBox(lockAspect=True, invertY=True, enableMenu=False, border=None)
        self.view.disableAutoRange()
        self.canvas.setCentralItem(self.view)
        self.image = pg.ImageItem(axisOrder="row-major")
        self.view.addItem(self.image)
        self.scale_bar = ScaleBar(self.view)
        self.picture: Picture | None = None
        self.field: Field | None = None

        head = QtWidgets.QHBoxLayout()
        head.addWidget(self.title, 1)
        head.addWidget(self.flags)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addLayout(head)
        layout.addWidget(self.details)
        layout.addWidget(self.canvas, 1)
        self.view.sigRangeChanged.connect(self._sharpen)

    def show_picture(self, picture: Picture, field: Field, levels: Levels) -> None:
        """Show another picture.

        Parameters
        ----------
        picture : Picture
            The picture.
        field : Field
            What it covers.
        levels : tuple of float
            Intensities shown as black and as white.
        """
        self.image.setImage(picture.pixels, autoLevels=False, levels=levels)
        if field != self.field or self._shape() != picture.pixels.shape:
            self.image.setRect(0.0, 0.0, field.width, field.height)
            self.scale_bar.show(field.width, field.height, field.unit)
        self.picture, self.field = picture, field
        black, white = map(_grey, levels)
        self.details.setText(f"{picture.details} · grey {black}–{white}")
        self.flags.setText(" · ".join(picture.flags))
        self._sharpen()

    def clear(self, details: str) -> None:
        """Show no picture.

        Parameters
        ----------
        details : str
            Why not.
        """
        self.image.clear()
        self.scale_bar.hide()
        self.picture = self.field = None
        self.details.setText(details)
        self.flags.setText("")

    def _shape(self) -> tuple[int, ...] | None:
        return None if self.picture is None else self.picture.pixels.shape

    def _sharpen(self, *_: object) -> None:
        """Smooth where the screen has fewer pixels than the picture; else show the true pixels."""
        if self.picture is None or self.field is None:
            return
        span = self.view.viewRect().width()
        on_screen = self.view.width() / span * self.field.width
        self.canvas.setRenderHint(
            QtGui.QPainter.RenderHint.SmoothPixmapTransform,
            on_screen < self.picture.pixels.shape[1],
        )


class Panes(QtWidgets.QWidget):
    """Panes in a row that always show the same part of the field, at the same magnification.

    Parameters
    ----------
    panes : sequence of Pane
        Left to right; the first one's pictures (raw) say what the field is.
    """

    def __init__(self, panes: Sequence[Pane]) -> None:
        super().__init__()
        self.panes = tuple(panes)
        self.auto_contrast = True
        self._contrast = {pane: AutoContrast() for pane in panes}
        self._levels: dict[Pane, Levels] = {}
        self._field: Field | None = None
        self._fitted = True
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        for pane in panes:
            layout.addWidget(pane, 1)
            pane.view.sigRangeChangedManually.connect(lambda *_, pane=pane: self._follow(pane))
            pane.view.sigResized.connect(lambda *_: self._resized())

    def show_picture(self, pane: Pane, picture: Picture) -> None:
        """Show a picture in one of the panes.

        Parameters
        ----------
        pane : Pane
            The pane.
        picture : Picture
            The picture.
        """
        reference = self.panes[0].field if pane is not self.panes[0] else None
        field = Field.of(picture, reference)
        levels = self._levels.get(pane)
        if levels is None or self.auto_contrast:
            levels = self._contrast[pane].update(picture.pixels, time.monotonic())
            self._levels[pane] = levels
        pane.show_picture(picture, field, levels)
        leads = pane is self.panes[0] or self.panes[0].field is None
        if leads and not field.same_as(self._field):
            self._field = field
            self.fit()

    def clear(self, details: str) -> None:
        """Empty all panes and forget their contrast.

        Parameters
        ----------
        details : str
            Why they are empty.
        """
        for pane in self.panes:
            pane.clear(details)
            self._contrast[pane].restart()
        self._levels.clear()

    def set_levels(self, pane: Pane, levels: Levels) -> None:
        """Give a pane a contrast that holds while `auto_contrast` is off.

        Parameters
        ----------
        pane : Pane
            The pane.
        levels : tuple of float
            Intensities shown as black and as white.
        """
        self._levels[pane] = levels

    def fit(self) -> None:
        """Show the whole field."""
        self._fitted = True
        if self._field is not None:
            whole = QtCore.QRectF(0, 0, self._field.width, self._field.height)
            self.panes[0].view.setRange(whole, padding=0)
            self._align(self.panes[0])

    def _follow(self, leader: Pane) -> None:
        self._fitted = False
        self._align(leader)

    def _resized(self) -> None:
        if self._fitted:
            self.fit()
        else:
            self._align(self.panes[0])

    def _align(self, leader: Pane) -> None:
        for pane in self.panes:
            if pane is not leader:
                self._look_like(pane, leader)

    def _look_like(self, pane: Pane, leader: Pane) -> None:
        """Take over centre and magnification, not the range: panes can differ by a pixel."""
        if leader.view.width() < 2 or pane.view.width() < 2:
            return
        shown = leader.view.viewRect()
        unit = shown.width() / leader.view.width()
        wanted = QtCore.QRectF(0, 0, unit * pane.view.width(), unit * pane.view.height())
        wanted.moveCenter(shown.center())
        pane.view.setRange(wanted, padding=0, disableAutoRange=True)


def _grey(level: float) -> str:
    return f"{level:.0f}" if abs(level) >= 100 else f"{level:.3g}"
