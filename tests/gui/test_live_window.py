from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PyQt5 import QtCore, QtWidgets
from pytestqt.qtbot import QtBot

from pssr_live.stream.client import StreamClient
from pssr_live.stream.publisher import Publisher
from pssr_live_gui import theme
from pssr_live_gui.live_window import LiveWindow
from tests.gui.helpers import raw_frame, restored_frame, status_of

LOCAL = "tcp://127.0.0.1:*"
WAIT_MS = 10_000


@pytest.fixture
def daemon() -> Iterator[Publisher]:
    """The publishing side of a daemon."""
    with Publisher(LOCAL) as publisher:
        yield publisher


@pytest.fixture
def open_window(
    qtbot: QtBot, qapp: QtWidgets.QApplication
) -> Iterator[Callable[[str | None], LiveWindow]]:
    theme.dress(qapp)
    opened: list[LiveWindow] = []

    def open_one(endpoint: str | None) -> LiveWindow:
        window = LiveWindow(StreamClient(endpoint))
        opened.append(window)
        qtbot.addWidget(window)
        with qtbot.waitExposed(window):
            window.show()
        return window

    yield open_one
    for window in opened:
        window.close()


@pytest.fixture
def window(daemon: Publisher, open_window: Callable[[str | None], LiveWindow]) -> LiveWindow:
    return open_window(daemon.endpoint)


def publish(daemon: Publisher, index: int, side: int = 48) -> None:
    daemon.publish_raw(raw_frame(index + 2, side))
    daemon.publish_restored(restored_frame(index, side))


def shows(window: LiveWindow, index: int) -> Callable[[], bool]:
    return lambda: (
        f"frame {index + 2} ·" in window.raw.details.text()
        and f"frame {index} ·" in window.restored.details.text()
    )


def test_a_window_without_a_daemon_says_that_it_waits(
    open_window: Callable[[str | None], LiveWindow],
) -> None:
    window = open_window(None)
    assert "waiting for a daemon" in window.banner.text()
    assert window.banner.isVisible()
    assert window.raw.details.text() == "no frame yet"
    assert window.raw.scale_bar.text == ""


def test_the_newest_raw_and_restored_frames_are_shown_and_named_for_what_they_are(
    daemon: Publisher, window: LiveWindow, qtbot: QtBot
) -> None:
    for index in range(5):
        publish(daemon, index)
    qtbot.waitUntil(shows(window, 4), timeout=WAIT_MS)
    np.testing.assert_array_equal(window.raw.image.image, raw_frame(6).pixels)
    np.testing.assert_array_equal(window.restored.image.image, restored_frame(4).pixels)
    assert window.raw.title.text() == "raw, undersampled — measured"
    assert window.restored.title.text() == "restored by neuron_mf — prediction"
    assert "48 × 48 · 170 nm/px" in window.raw.details.text()
    assert "192 × 192 · 42.5 nm/px · latency 62 ms" in window.restored.details.text()
    assert window.raw.scale_bar.text == window.restored.scale_bar.text == "2 µm"
    assert not window.banner.isVisible()
    picture = window.grab().toImage()
    assert len({picture.pixel(x, 200) for x in range(0, picture.width(), 3)}) > 20


def test_flags_of_a_restored_frame_are_shown_with_it(
    daemon: Publisher, window: LiveWindow, qtbot: QtBot
) -> None:
    daemon.publish_restored(restored_frame(0, edge=True, complete=False))
    qtbot.waitUntil(
        lambda: window.restored.flags.text() == "edge of the run · window incomplete",
        timeout=WAIT_MS,
    )
    daemon.publish_restored(restored_frame(2))
    qtbot.waitUntil(lambda: window.restored.flags.text() == "", timeout=WAIT_MS)


def test_the_status_says_what_really_runs_and_what_was_lost(
    daemon: Publisher, window: LiveWindow, qtbot: QtBot
) -> None:
    daemon.publish_status(status_of(daemon.run_id))
    qtbot.waitUntil(lambda: "openvino bf16 on Some CPU" in window.engine.text(), timeout=WAIT_MS)
    assert "onnxruntime: not installed" in window.engine.toolTip()
    assert "skipped live 0 · lost at the source 0" in window.counts.text()
    assert window.trouble.text() == ""
    assert window.windowTitle() == "pssr-live: simulated confocal · neuron_mf"
    daemon.publish_status(
        status_of(daemon.run_id, frames_lost_at_source=3, warnings=("buffer overflow",))
    )
    qtbot.waitUntil(lambda: "3 frames lost" in window.trouble.text(), timeout=WAIT_MS)
    assert "buffer overflow" in window.trouble.text()
    colour = window.trouble.palette().color(window.trouble.foregroundRole())
    assert colour.name() == theme.RED


def test_space_holds_the_display_and_lets_it_go_again(
    daemon: Publisher, window: LiveWindow, qtbot: QtBot
) -> None:
    publish(daemon, 0)
    qtbot.waitUntil(shows(window, 0), timeout=WAIT_MS)
    press(window, QtCore.Qt.Key.Key_Space, qtbot)
    assert window.freeze.isChecked()
    publish(daemon, 7)
    daemon.publish_status(status_of(daemon.run_id, frames_received=77))
    qtbot.waitUntil(lambda: "received 77" in window.counts.text(), timeout=WAIT_MS)
    assert shows(window, 0)()
    assert "display frozen" in window.banner.text()
    press(window, QtCore.Qt.Key.Key_Space, qtbot)
    qtbot.waitUntil(shows(window, 7), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not window.banner.isVisible(), timeout=WAIT_MS)


def press(window: LiveWindow, key: QtCore.Qt.Key, qtbot: QtBot) -> None:
    """Press a key as a user does: in the window that has the focus."""
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow, timeout=WAIT_MS)
    qtbot.keyClick(window, key)


def test_f_fits_the_field_and_c_holds_the_contrast(
    daemon: Publisher, window: LiveWindow, qtbot: QtBot
) -> None:
    publish(daemon, 0)
    qtbot.waitUntil(shows(window, 0), timeout=WAIT_MS)
    whole = window.restored.view.viewRect()
    window.restored.view.scaleBy((0.3, 0.3))
    press(window, QtCore.Qt.Key.Key_F, qtbot)
    assert window.restored.view.viewRect().width() == pytest.approx(whole.width())
    press(window, QtCore.Qt.Key.Key_C, qtbot)
    assert not window.panes.auto_contrast
    levels = tuple(window.raw.image.levels)
    publish(daemon, 9)
    qtbot.waitUntil(shows(window, 9), timeout=WAIT_MS)
    assert tuple(window.raw.image.levels) == levels


@pytest.mark.parametrize("key", [QtCore.Qt.Key.Key_Escape, QtCore.Qt.Key.Key_Q])
def test_escape_and_q_close_the_window_and_leave_the_stream(
    daemon: Publisher, window: LiveWindow, qtbot: QtBot, key: QtCore.Qt.Key
) -> None:
    qtbot.waitUntil(lambda: daemon.counters().viewers == 1, timeout=WAIT_MS)
    press(window, key, qtbot)
    assert not window.isVisible()
    qtbot.waitUntil(lambda: daemon.counters().viewers == 0, timeout=WAIT_MS)


def test_a_window_can_be_closed_and_opened_again_during_a_run(
    daemon: Publisher, open_window: Callable[[str | None], LiveWindow], qtbot: QtBot
) -> None:
    first = open_window(daemon.endpoint)
    publish(daemon, 0)
    qtbot.waitUntil(shows(first, 0), timeout=WAIT_MS)
    first.close()
    second = open_window(daemon.endpoint)
    qtbot.waitUntil(shows(second, 0), timeout=WAIT_MS)  # the last frames are sent again
    publish(daemon, 1)
    qtbot.waitUntil(shows(second, 1), timeout=WAIT_MS)


def test_the_end_of_a_run_is_said_with_its_folder(
    daemon: Publisher, window: LiveWindow, qtbot: QtBot
) -> None:
    publish(daemon, 0)
    final = status_of(daemon.run_id, phase="finished", final=True, frames_recorded=100)
    daemon.publish_status(final)
    qtbot.waitUntil(
        lambda: window.banner.text() == "run finished: 100 frames in /runs/one", timeout=WAIT_MS
    )
    qtbot.waitUntil(shows(window, 0), timeout=WAIT_MS)


def test_a_daemon_that_goes_away_is_said_and_the_next_one_is_found(
    open_window: Callable[[str | None], LiveWindow], qtbot: QtBot
) -> None:
    with Publisher(LOCAL) as daemon:
        endpoint = daemon.endpoint
        window = open_window(endpoint)
        publish(daemon, 5)
        daemon.publish_status(status_of(daemon.run_id))
        qtbot.waitUntil(shows(window, 5), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: "the daemon went away" in window.banner.text(), timeout=WAIT_MS)
    assert shows(window, 5)()  # the last frame stays
    with Publisher(endpoint) as daemon:
        publish(daemon, 0, side=64)  # another run, another size
        qtbot.waitUntil(shows(window, 0), timeout=WAIT_MS)
        assert window.raw.image.image.shape == (64, 64)
        qtbot.waitUntil(lambda: not window.banner.isVisible(), timeout=WAIT_MS)
        field = QtCore.QRectF(0.01, 0.01, 64 * 0.17 - 0.02, 64 * 0.17 - 0.02)
        assert window.raw.view.viewRect().contains(field)
        window.close()


def test_nothing_of_the_run_before_stands_beside_a_new_run(
    open_window: Callable[[str | None], LiveWindow], qtbot: QtBot
) -> None:
    with Publisher(LOCAL) as daemon:
        endpoint = daemon.endpoint
        window = open_window(endpoint)
        publish(daemon, 5)
        qtbot.waitUntil(shows(window, 5), timeout=WAIT_MS)
    with Publisher(endpoint) as daemon:
        daemon.publish_raw(raw_frame(0))
        qtbot.waitUntil(lambda: "frame 0 ·" in window.raw.details.text(), timeout=WAIT_MS)
        assert window.restored.details.text() == "no frame yet"
        assert window.restored.image.image is None
        window.close()
