"""Colours, fonts and the style sheet of all windows."""

from __future__ import annotations

from pssr_live_gui.qt import QtGui, QtWidgets, pg

__all__ = ["AMBER", "BLUE", "MUTED", "RED", "TEXT", "VIOLET", "application", "say_kind"]

GROUND = "#16191d"
RAISED = "#1f2329"
EDGE = "#343a42"
PICTURE = "#0b0d0f"
TEXT = "#dfe3e8"
MUTED = "#98a2ad"
BLUE = "#6fb1e8"
VIOLET = "#c3a6f5"
AMBER = "#f0b54a"
RED = "#f2766b"
GREEN = "#79c98d"

STYLE = f"""
QWidget {{ background: {GROUND}; color: {TEXT}; }}
QLabel {{ background: transparent; }}
QLabel[kind="title"] {{ font-weight: 600; }}
QLabel[kind="measured"] {{ font-weight: 600; color: {BLUE}; }}
QLabel[kind="prediction"] {{ font-weight: 600; color: {VIOLET}; }}
QLabel[kind="truth"] {{ font-weight: 600; color: {GREEN}; }}
QLabel[kind="muted"] {{ color: {MUTED}; }}
QLabel[kind="flag"] {{ color: {AMBER}; }}
QLabel[kind="lost"] {{ color: {RED}; font-weight: 600; }}
QLabel[kind="banner"] {{ background: #2c3440; color: {TEXT}; padding: 6px 12px; }}
QLabel[kind="banner-bad"] {{ background: #4a2d12; color: #ffd79a; padding: 6px 12px; }}
QLabel[kind="banner-good"] {{ background: #1d3a28; color: #b9ecc6; padding: 6px 12px; }}
QPushButton {{
    background: {RAISED}; border: 1px solid {EDGE}; border-radius: 3px; padding: 4px 10px;
}}
QPushButton:hover {{ border-color: {MUTED}; }}
QPushButton:checked {{ background: #2b3f54; border-color: {BLUE}; }}
QPushButton:disabled {{ color: {MUTED}; }}
QSlider::groove:horizontal {{ height: 4px; background: {EDGE}; border-radius: 2px; }}
QSlider::sub-page:horizontal {{ background: {BLUE}; border-radius: 2px; }}
QSlider::handle:horizontal {{
    background: {TEXT}; width: 14px; margin: -6px 0; border-radius: 7px;
}}
QToolTip {{ background: {RAISED}; color: {TEXT}; border: 1px solid {EDGE}; padding: 4px; }}
"""


def application(name: str) -> QtWidgets.QApplication:
    """Make the one Qt application of this process, in the dark theme.

    Parameters
    ----------
    name : str
        Name for the window manager.

    Returns
    -------
    QApplication
    """
    existing = QtWidgets.QApplication.instance()
    app = existing if isinstance(existing, QtWidgets.QApplication) else pg.mkQApp(name)
    assert isinstance(app, QtWidgets.QApplication)
    app.setApplicationName(name)
    app.setStyle("Fusion")
    dress(app)
    return app


def dress(app: QtWidgets.QApplication) -> None:
    """Give an application the dark theme.

    Parameters
    ----------
    app : QApplication
        The application.
    """
    app.setStyleSheet(STYLE)
    palette = app.palette()
    palette.setColor(QtGui.QPalette.ColorRole.Window, QtGui.QColor(GROUND))
    palette.setColor(QtGui.QPalette.ColorRole.WindowText, QtGui.QColor(TEXT))
    app.setPalette(palette)


def say_kind(label: QtWidgets.QLabel, kind: str) -> None:
    """Change how a label looks.

    Parameters
    ----------
    label : QLabel
        The label.
    kind : str
        One of the kinds in the style sheet.
    """
    if label.property("kind") != kind:
        label.setProperty("kind", kind)
        style = label.style()
        if style is not None:
            style.unpolish(label)
            style.polish(label)
