"""What both windows have around their panes: buttons with a key each, and a banner."""

from __future__ import annotations

from collections.abc import Callable

from pssr_live_gui import theme
from pssr_live_gui.qt import QtCore, QtGui, QtWidgets

__all__ = ["BannerLabel", "button", "on_keys", "switch"]


def button(
    window: QtWidgets.QWidget, text: str, key: str, tip: str, act: Callable[[], None]
) -> QtWidgets.QPushButton:
    """Make a button that a key presses too.

    Parameters
    ----------
    window : QWidget
        The window in which the key works.
    text : str
        On the button.
    key : str
        As Qt names it (``F``, ``Space``).
    tip : str
        What it does.
    act : callable
        Does it.

    Returns
    -------
    QPushButton
    """
    made = _plain_button(text, key, tip)
    made.clicked.connect(lambda: act())
    on_keys(window, (key,), made.click)
    return made


def switch(
    window: QtWidgets.QWidget, text: str, key: str, tip: str, act: Callable[[bool], None]
) -> QtWidgets.QPushButton:
    """Make a button that stays pressed; as `button`, but ``act`` gets the new state."""
    made = _plain_button(text, key, tip)
    made.setCheckable(True)
    made.toggled.connect(act)
    on_keys(window, (key,), made.toggle)
    return made


def on_keys(window: QtWidgets.QWidget, keys: tuple[str, ...], act: Callable[[], object]) -> None:
    """Do something when one of the keys is pressed anywhere in the window.

    Parameters
    ----------
    window : QWidget
        The window.
    keys : tuple of str
        As Qt names them.
    act : callable
        Does it.
    """

    def pressed() -> None:
        act()

    for key in keys:
        QtWidgets.QShortcut(QtGui.QKeySequence(key), window).activated.connect(pressed)


def _plain_button(text: str, key: str, tip: str) -> QtWidgets.QPushButton:
    made = QtWidgets.QPushButton(f"{text}  ({key})")
    made.setToolTip(tip)
    # Without the focus, keys belong to the window: space must not press the last button again.
    made.setFocusPolicy(QtCore.Qt.FocusPolicy.NoFocus)
    return made


class BannerLabel(QtWidgets.QLabel):
    """One line across the window, hidden while there is nothing to say."""

    def __init__(self) -> None:
        super().__init__("")
        self.setWordWrap(True)
        self.setTextInteractionFlags(QtCore.Qt.TextInteractionFlag.TextSelectableByMouse)
        self.hide()

    def say(self, kind: str, text: str) -> None:
        """Show a line.

        Parameters
        ----------
        kind : {"banner", "banner-bad", "banner-good"}
            How it looks.
        text : str
            What it says; nothing hides the banner.
        """
        theme.say_kind(self, kind)
        if text != self.text():
            self.setText(text)
        self.setVisible(bool(text))
