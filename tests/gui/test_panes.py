from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyqtgraph as pg
import pytest
from PyQt5 import QtCore, QtGui, QtWidgets
from pytestqt.qtbot import QtBot

from pssr_live.frames import Pixels
from pssr_live_gui import theme
from pssr_live_gui.panes import MEASURED, Pane, Panes, Picture, predicted
from pssr_live_gui.scalebar import nice_length
from tests.gui.helpers import raw_pixels


@pytest.fixture
def panes(qtbot: QtBot, qapp: QtWidgets.QApplication) -> Iterator[Panes]:
    theme.dress(qapp)
    made = Panes([Pane("measured", MEASURED), Pane("prediction", predicted("neuron_mf"))])
    made.resize(811, 450)
    qtbot.addWidget(made)
    with qtbot.waitExposed(made):
        made.show()
    yield made
    made.close()


def show(panes: Panes, raw: Pixels, restored: Pixels, size_um: float | None = 0.2) -> None:
    scale = restored.shape[0] / raw.shape[0]
    smaller = None if size_um is None else size_um / scale
    panes.show_picture(panes.panes[0], Picture(raw, size_um, "frame 1"))
    panes.show_picture(panes.panes[1], Picture(restored, smaller, "frame 1"))


def seen(pane: Pane) -> np.ndarray:
    """The pane's picture area as it is on screen, grey."""
    image = pane.canvas.grab().toImage().convertToFormat(QtGui.QImage.Format.Format_Grayscale8)
    data = image.constBits()
    assert data is not None
    data.setsize(image.sizeInBytes())
    rows = np.frombuffer(bytes(data), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : image.width()]


def wheel(pane: Pane, at: QtCore.QPoint, notches: int) -> None:
    viewport = pane.canvas.viewport()
    event = QtGui.QWheelEvent(
        QtCore.QPointF(at),
        QtCore.QPointF(viewport.mapToGlobal(at)),
        QtCore.QPoint(),
        QtCore.QPoint(0, 120 * notches),
        QtCore.Qt.MouseButton.NoButton,
        QtCore.Qt.KeyboardModifier.NoModifier,
        QtCore.Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QtWidgets.QApplication.sendEvent(viewport, event)


def same_field(panes: Panes) -> bool:
    one, other = (pane.view for pane in panes.panes)
    a, b = one.viewRect(), other.viewRect()
    return (
        a.center().x() == pytest.approx(b.center().x(), abs=1e-6)
        and a.center().y() == pytest.approx(b.center().y(), abs=1e-6)
        and a.width() / one.width() == pytest.approx(b.width() / other.width(), rel=1e-6)
    )


def test_titles_say_what_is_measured_and_what_is_predicted(panes: Panes) -> None:
    assert [pane.title.text() for pane in panes.panes] == [
        "raw, undersampled — measured",
        "restored by neuron_mf — prediction",
    ]


def test_both_panes_show_the_same_field_with_square_pixels(panes: Panes) -> None:
    show(panes, raw_pixels(1, 50), raw_pixels(2, 200))
    assert same_field(panes)
    shown = panes.panes[0].view.viewRect()
    assert shown.contains(QtCore.QRectF(0.01, 0.01, 9.98, 9.98))
    for pane in panes.panes:
        across, down = pane.view.viewPixelSize()
        assert across == pytest.approx(down, rel=0.01)


def test_zooming_one_pane_zooms_the_other(panes: Panes) -> None:
    show(panes, raw_pixels(1, 50), raw_pixels(2, 200))
    before = panes.panes[0].view.viewRect().width()
    wheel(panes.panes[1], QtCore.QPoint(120, 90), 3)
    assert panes.panes[0].view.viewRect().width() < 0.8 * before
    assert same_field(panes)
    wheel(panes.panes[0], QtCore.QPoint(200, 200), 2)
    assert same_field(panes)
    panes.fit()
    assert panes.panes[0].view.viewRect().width() == pytest.approx(before)


def test_panning_one_pane_pans_the_other(panes: Panes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pg.CONFIG_OPTIONS, "mouseRateLimit", -1)  # no hand moves so fast
    show(panes, raw_pixels(1, 50), raw_pixels(2, 200))
    panes.grab()  # pyqtgraph maps mouse movements as last painted
    before = panes.panes[1].view.viewRect().center()
    drag(panes.panes[0], QtCore.QPoint(200, 200), QtCore.QPoint(140, 170))
    after = panes.panes[1].view.viewRect().center()
    assert after.x() > before.x() + 1
    assert after.y() > before.y() + 0.5
    assert same_field(panes)


def drag(pane: Pane, start: QtCore.QPoint, end: QtCore.QPoint) -> None:
    viewport = pane.canvas.viewport()
    left, none = QtCore.Qt.MouseButton.LeftButton, QtCore.Qt.MouseButton.NoButton
    kinds = QtCore.QEvent.Type
    steps = [
        (kinds.MouseButtonPress, start, left, left),
        *((kinds.MouseMove, start + (end - start) * step / 8, none, left) for step in range(1, 9)),
        (kinds.MouseButtonRelease, end, left, none),
    ]
    for kind, at, button, buttons in steps:
        event = QtGui.QMouseEvent(
            kind,
            QtCore.QPointF(at),
            QtCore.QPointF(viewport.mapToGlobal(at)),
            button,
            buttons,
            QtCore.Qt.KeyboardModifier.NoModifier,
        )
        QtWidgets.QApplication.sendEvent(viewport, event)


def test_a_zoomed_view_keeps_its_field_when_the_window_is_resized(
    panes: Panes, qtbot: QtBot
) -> None:
    show(panes, raw_pixels(1, 50), raw_pixels(2, 200))
    wheel(panes.panes[0], QtCore.QPoint(120, 90), 4)
    panes.resize(1002, 520)
    qtbot.waitUntil(lambda: panes.panes[1].view.height() > 440)
    assert same_field(panes)


def test_a_fitted_view_stays_fitted_when_the_window_is_resized(panes: Panes, qtbot: QtBot) -> None:
    show(panes, raw_pixels(1, 50), raw_pixels(2, 200))
    panes.resize(1200, 640)
    qtbot.waitUntil(lambda: panes.panes[1].view.height() > 560)
    for pane in panes.panes:
        assert min(pane.view.viewRect().width(), pane.view.viewRect().height()) == pytest.approx(
            10, rel=0.01
        )


def test_row_0_is_on_top_and_nothing_is_transposed(panes: Panes) -> None:
    pixels = np.full((40, 40), 100, np.uint16)
    pixels[0:8, 20:40] = 1000  # upper right, wider than high
    show(panes, pixels, np.kron(pixels, np.ones((4, 4), np.uint16)))
    for pane in panes.panes:
        bright = seen(pane) > 200
        # The scale bar is bright too; it lies in the lower right corner.
        bright[bright.shape[0] // 2 :] = False
        rows, columns = np.nonzero(bright)
        assert rows.size
        assert np.ptp(columns) > 1.8 * np.ptp(rows)
        assert columns.mean() > bright.shape[1] / 2


def test_the_scale_bar_is_round_and_in_micrometres(panes: Panes) -> None:
    show(panes, raw_pixels(1, 50), raw_pixels(2, 200))  # a field of 10 µm
    assert [pane.scale_bar.text for pane in panes.panes] == ["2 µm", "2 µm"]
    wheel(panes.panes[0], QtCore.QPoint(120, 90), 10)
    number, unit = panes.panes[1].scale_bar.text.split()
    assert unit == "µm"
    assert float(number) < 2
    assert panes.panes[0].scale_bar.text == panes.panes[1].scale_bar.text


def test_without_a_pixel_size_the_scale_bar_counts_raw_pixels(panes: Panes) -> None:
    show(panes, raw_pixels(1, 50), raw_pixels(2, 200), size_um=None)
    assert [pane.scale_bar.text for pane in panes.panes] == ["10 px", "10 px"]
    assert same_field(panes)


@pytest.mark.parametrize(
    ("longest", "length"),
    [(1.0, 1), (1.99, 1), (2.0, 2), (4.9, 2), (5.0, 5), (9.99, 5), (18.7, 10), (0.07, 0.05)],
)
def test_scale_bars_have_round_lengths(longest: float, length: float) -> None:
    assert nice_length(longest) == pytest.approx(length)


def test_frames_of_another_size_are_fitted(panes: Panes) -> None:
    show(panes, raw_pixels(1, 50), raw_pixels(2, 200))
    show(panes, raw_pixels(1, 100), raw_pixels(2, 400))
    assert panes.panes[0].view.viewRect().contains(QtCore.QRectF(0.01, 0.01, 19.98, 19.98))
    assert same_field(panes)


def test_held_contrast_does_not_follow_the_frames(panes: Panes) -> None:
    show(panes, raw_pixels(1, 50), raw_pixels(2, 200))
    panes.auto_contrast = False
    before = seen(panes.panes[0]).mean()
    show(panes, raw_pixels(1, 50) // 2, raw_pixels(2, 200))
    assert seen(panes.panes[0]).mean() < 0.8 * before


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_kind_of_pixel_is_shown(panes: Panes, dtype: str) -> None:
    raw = (raw_pixels(3, 50) / 10).astype(dtype)
    if dtype == "float32":
        raw[:5] = np.nan
    show(panes, raw, np.kron(raw, np.ones((4, 4), dtype)).astype(dtype))
    for pane in panes.panes:
        assert np.ptp(seen(pane)[:300]) > 150


def test_a_long_title_keeps_its_last_word(qtbot: QtBot, qapp: QtWidgets.QApplication) -> None:
    theme.dress(qapp)
    pane = Pane("prediction", predicted("a_model_with_a_very_long_name_" * 5))
    qtbot.addWidget(pane)
    pane.resize(320, 320)
    with qtbot.waitExposed(pane):
        pane.show()
    assert pane.width() <= 330
    assert pane.title.shown.endswith("prediction")
    assert "…" in pane.title.shown
    pane.close()
