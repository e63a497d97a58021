from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from PyQt5 import QtCore, QtWidgets
from pytestqt.qtbot import QtBot

import pssr_live_gui.application
from pssr_live.errors import StorageError, WindowError
from pssr_live.stream.publisher import Publisher
from pssr_live_gui.application import check_windows, run_window
from pssr_live_gui.review import review
from pssr_live_gui.viewer import view
from tests.gui.helpers import raw_frame
from tests.gui.run_folders import write_run

LOCAL = "tcp://127.0.0.1:*"
needs_x11 = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11 and its displays")


def run_viewer(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pssr_live_gui.viewer", *arguments],
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def without_display() -> dict[str, str]:
    chosen = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    return {name: value for name, value in os.environ.items() if name not in chosen}


def test_finding_the_windows_does_not_load_qt() -> None:
    code = (
        "import sys, pssr_live_gui.viewer, pssr_live_gui.review;"
        "print([name for name in ('PyQt5', 'pyqtgraph') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(sys.platform == "win32", reason="a console's Ctrl-C reaches this process too")
def test_ctrl_c_closes_a_viewer_that_runs_as_a_process_of_its_own(qtbot: QtBot) -> None:
    with (
        Publisher(LOCAL) as daemon,
        subprocess.Popen(
            [sys.executable, "-m", "pssr_live_gui.viewer", daemon.endpoint],
            stderr=subprocess.PIPE,
            text=True,
        ) as viewer,
    ):
        try:
            qtbot.waitUntil(lambda: daemon.counters().viewers == 1, timeout=30_000)
            daemon.publish_raw(raw_frame(0))
            viewer.send_signal(signal.SIGINT)
            _, errors = viewer.communicate(timeout=30)
        finally:
            viewer.kill()
        assert viewer.returncode == 0
        assert errors == ""
        qtbot.waitUntil(lambda: daemon.counters().viewers == 0, timeout=10_000)


@needs_x11
def test_without_a_display_the_viewer_says_so_in_one_line() -> None:
    done = run_viewer(env=without_display())
    assert done.returncode == WindowError.exit_code
    assert len(done.stderr.splitlines()) == 1
    for part in ("cannot open a window", "there is no display", "connect with ssh -X"):
        assert part in done.stderr


@needs_x11
def test_a_display_that_does_not_answer_is_an_error_and_not_an_abort() -> None:
    done = run_viewer(env=without_display() | {"DISPLAY": ":987"})
    assert done.returncode == WindowError.exit_code
    assert len(done.stderr.splitlines()) == 1
    assert "a window cannot be shown" in done.stderr


def test_an_endpoint_that_others_can_reach_is_refused() -> None:
    done = run_viewer("tcp://192.0.2.1:5555", env=os.environ)
    assert done.returncode == 7
    assert "tcp://192.0.2.1:5555" in done.stderr


def test_a_missing_extra_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find_spec(name: str) -> ModuleSpec | None:
        return None if name == "PyQt5" else ModuleSpec(name, None)

    monkeypatch.setattr(pssr_live_gui.application, "find_spec", find_spec)
    with pytest.raises(WindowError, match=r'PyQt5 not installed.*pip install "pssr-live\[gui\]"'):
        check_windows()


def test_a_missing_system_library_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pssr_live_gui.qt", None)  # importing it fails
    with pytest.raises(WindowError, match=r"cannot load Qt: .*pssr_live_gui\.qt.*install"):
        run_window("pssr-live", lambda: pytest.fail("no window"))


def test_a_display_is_not_asked_for_where_windows_need_none() -> None:
    check_windows("win32", {})
    check_windows("darwin", {})
    check_windows("linux", {"WAYLAND_DISPLAY": "wayland-0"})
    with pytest.raises(WindowError, match="no display"):
        check_windows("linux", {"DISPLAY": ""})


def when_open(act: object) -> None:
    """Do something once the event loop runs and a window is open."""
    assert callable(act)
    QtCore.QTimer.singleShot(0, act)


def close_windows() -> None:
    for widget in QtWidgets.QApplication.topLevelWidgets():
        widget.close()


def test_view_returns_0_when_its_window_is_closed(qapp: QtWidgets.QApplication) -> None:
    when_open(close_windows)
    assert view(None) == 0


def test_review_returns_0_when_its_window_is_closed(
    qapp: QtWidgets.QApplication, tmp_path: Path
) -> None:
    titles = []

    def note_and_close() -> None:
        titles.extend(window.windowTitle() for window in qapp.topLevelWidgets())
        close_windows()

    path = write_run(tmp_path)
    when_open(note_and_close)
    assert review(path) == 0
    assert f"pssr-live review: {path.name}" in titles


def test_review_of_something_else_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a run folder"):
        review(tmp_path)


def test_an_error_inside_a_window_ends_it_and_comes_out(qapp: QtWidgets.QApplication) -> None:
    def fail() -> None:
        raise StorageError("the disk", "it is gone", "plug it in")

    when_open(fail)
    with pytest.raises(StorageError, match="it is gone"):
        run_window("pssr-live", QtWidgets.QWidget)
