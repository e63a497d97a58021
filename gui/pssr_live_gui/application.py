"""Opening a window from the command line: checks before, one event loop, errors after.

Imports no Qt before `check_windows` said that there is one.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from pssr_live.errors import PssrLiveError, WindowError

if TYPE_CHECKING:
    from pssr_live_gui.qt import QtWidgets

__all__ = ["check_windows", "command", "run_window"]

logger = logging.getLogger(__name__)

WAKE_MS = 200
"""Python sees Ctrl-C only when Qt lets it run: at least this often."""


def check_windows(platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse to open a window where that would fail or abort.

    Parameters
    ----------
    platform : str
        As ``sys.platform``.
    environ : mapping
        As ``os.environ``.

    Raises
    ------
    WindowError
        The ``gui`` extra is not installed, or there is no display.
    """
    missing = [name for name in ("PyQt5", "pyqtgraph") if find_spec(name) is None]
    if missing:
        raise WindowError(
            "cannot open a window",
            f"{' and '.join(missing)} not installed",
            'install them with pip install "pssr-live[gui]"',
        )
    # Without a display Qt does not raise, it aborts the process.
    chosen = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if platform.startswith("linux") and not any(environ.get(name) for name in chosen):
        raise WindowError(
            "cannot open a window",
            "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)",
            "start it from a desktop session, or connect with ssh -X",
        )


def run_window(name: str, make: Callable[[], QtWidgets.QWidget]) -> int:
    """Open one window and stay until it is closed.

    Parameters
    ----------
    name : str
        Name of the application.
    make : callable
        Makes the window; called once Qt is up.

    Returns
    -------
    int
        0.

    Raises
    ------
    WindowError
        Windows cannot be opened here.
    """
    check_windows()
    try:
        from pssr_live_gui import theme
        from pssr_live_gui.qt import QtCore
    except ImportError as error:  # installed, but a library of the system is not
        raise WindowError("cannot load Qt", str(error), "install the library it names") from error

    before = QtCore.qInstallMessageHandler(_qt_says)
    app = theme.application(name)
    interrupted = threading.Event()
    wake = QtCore.QTimer()
    wake.timeout.connect(lambda: app.quit() if interrupted.is_set() else None)
    wake.start(WAKE_MS)
    failures: list[BaseException] = []
    try:
        with _ends_on_error(app.quit, failures), _on_ctrl_c(interrupted.set):
            window = make()
            window.show()
            app.exec_()
            window.close()
    finally:
        wake.stop()
        QtCore.qInstallMessageHandler(before)
    if failures:
        raise failures[0]
    return 0


def command(main: Callable[[], int]) -> int:
    """Run the main function of ``python -m``: an error is one line and its exit code.

    Parameters
    ----------
    main : callable
        Returns an exit code.

    Returns
    -------
    int
        The exit code.
    """
    try:
        return main()
    except PssrLiveError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


@contextmanager
def _on_ctrl_c(act: Callable[[], None]) -> Iterator[None]:
    """Do something at Ctrl-C in the terminal instead of raising wherever Python happens to be."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        act()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _ends_on_error(leave: Callable[[], None], failures: list[BaseException]) -> Iterator[None]:
    """Carry an exception out of a slot: PyQt aborts the process otherwise."""

    def keep(_kind: type[BaseException], error: BaseException, _at: TracebackType | None) -> None:
        failures.append(error)
        leave()

    before = sys.excepthook
    sys.excepthook = keep
    try:
        yield
    finally:
        sys.excepthook = before


def _qt_says(kind: object, _context: object, message: str | None) -> None:
    from pssr_live_gui.qt import QtCore

    if kind == QtCore.QtMsgType.QtFatalMsg:
        # Qt aborts when this returns: a display that does not answer, or a missing system library.
        error = WindowError(
            "a window cannot be shown",
            " ".join((message or "Qt gave no reason").split()),
            "check the display and that the xcb libraries of Qt are installed",
        )
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(error.exit_code)
    elif kind in (QtCore.QtMsgType.QtWarningMsg, QtCore.QtMsgType.QtCriticalMsg):
        logger.debug("Qt: %s", message)
