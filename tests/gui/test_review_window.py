from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PyQt5 import QtCore, QtWidgets
from pytestqt.qtbot import QtBot

from pssr_live.errors import StorageError
from pssr_live_gui import theme
from pssr_live_gui.recorded import RecordedRun
from pssr_live_gui.review_window import ReviewWindow
from pssr_live_gui.timeline import LANES
from tests.gui.helpers import raw_frame, restored_frame
from tests.gui.run_folders import write_run

Open = Callable[[Path], ReviewWindow]
Key = QtCore.Qt.Key


@pytest.fixture
def open_run(qtbot: QtBot, qapp: QtWidgets.QApplication) -> Iterator[Open]:
    theme.dress(qapp)
    with ExitStack() as runs:

        def open_one(path: Path) -> ReviewWindow:
            window = ReviewWindow(runs.enter_context(RecordedRun(path)))
            runs.callback(window.close)
            qtbot.addWidget(window)
            with qtbot.waitExposed(window):
                window.show()
            return window

        yield open_one


def press(window: ReviewWindow, key: QtCore.Qt.Key, qtbot: QtBot) -> None:
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    qtbot.keyClick(window, key)


def test_the_header_says_what_ran_and_the_run_in_numbers(tmp_path: Path, open_run: Open) -> None:
    window = open_run(write_run(tmp_path))
    assert window.header.text() == (
        "neuron_mf 1.0 · openvino bf16 on Some CPU · simulated confocal"
    )
    assert window.numbers.text().startswith(
        "received 14 · recorded 14 · restored 14 · skipped live 1 · lost at the source 2"
        " · latency 62 ms, p99 81 ms · started 2026-03-01"
    )
    assert "2 frames lost at the source" in window.banner.text()
    assert "did not end" not in window.banner.text()


def test_raw_and_restored_are_scrubbed_together(
    tmp_path: Path, open_run: Open, qtbot: QtBot
) -> None:
    window = open_run(write_run(tmp_path))
    window.slider.setValue(7)  # its index is 9: the source lost 6 and 7
    np.testing.assert_array_equal(window.raw.image.image, raw_frame(9).pixels)
    np.testing.assert_array_equal(window.restored.image.image, restored_frame(9).pixels)
    assert window.where.text() == "frame 9 · 8 of 14 · 2.43 s"
    assert "frame 9 · 48 × 48 · 170 nm/px" in window.raw.details.text()
    assert "frame 9 · 192 × 192 · 42.5 nm/px · latency 62 ms" in window.restored.details.text()
    press(window, Key.Key_Right, qtbot)
    assert "frame 10 ·" in window.raw.details.text()
    press(window, Key.Key_Left, qtbot)
    press(window, Key.Key_Left, qtbot)
    assert "frame 8 ·" in window.raw.details.text()
    press(window, Key.Key_End, qtbot)
    assert "frame 15 ·" in window.restored.details.text()
    press(window, Key.Key_Home, qtbot)
    assert "frame 0 ·" in window.restored.details.text()
    assert window.timeline.marks[0].value() == 0


@pytest.mark.parametrize(
    ("plane", "flags"),
    [
        (0, "edge of the run"),
        (3, ""),
        (5, "window incomplete"),
        (8, "restored afterwards"),
    ],
)
def test_flags_of_every_frame_are_shown(
    tmp_path: Path, open_run: Open, plane: int, flags: str
) -> None:
    window = open_run(write_run(tmp_path))
    window.go_to(plane)
    assert window.restored.flags.text() == flags


def test_the_plots_show_latency_and_what_went_wrong(tmp_path: Path, open_run: Open) -> None:
    window = open_run(write_run(tmp_path))
    indices, latencies = window.timeline.curve.getData()
    plotted = indices[np.isfinite(indices)].astype(int).tolist()
    assert plotted == [0, 1, 2, 3, 4, 5, 8, 9, 11, 12, 13, 14, 15]
    assert np.nanmax(latencies) == 62
    lanes = {
        name: lane.getData()[0].tolist() if lane.getData()[0] is not None else []
        for name, lane in zip(LANES, window.timeline.lanes, strict=True)
    }
    assert lanes == {
        "edge": [0, 1],
        "skipped live": [10],
        "window incomplete": [4, 5, 8, 9],
        "lost": [6, 7],
    }


def test_a_click_into_a_plot_shows_that_frame(tmp_path: Path, open_run: Open, qtbot: QtBot) -> None:
    window = open_run(write_run(tmp_path))
    window.timeline.grab()
    box = window.timeline.latency.getViewBox()
    scene = box.mapViewToScene(QtCore.QPointF(12.2, 30.0))
    at = window.timeline.mapFromScene(scene)
    qtbot.mouseClick(window.timeline.viewport(), QtCore.Qt.MouseButton.LeftButton, pos=at)
    assert "frame 12 ·" in window.raw.details.text()
    assert window.slider.value() == 10


def test_the_same_contrast_for_the_whole_run_unless_asked_otherwise(
    tmp_path: Path, open_run: Open, qtbot: QtBot
) -> None:
    window = open_run(write_run(tmp_path))
    first = tuple(window.raw.image.levels)
    window.go_to(9)
    assert tuple(window.raw.image.levels) == first
    press(window, Key.Key_C, qtbot)
    assert tuple(window.raw.image.levels) != first
    press(window, Key.Key_C, qtbot)
    assert tuple(window.raw.image.levels) == first


def test_ground_truth_is_the_third_picture(tmp_path: Path, open_run: Open) -> None:
    window = open_run(write_run(tmp_path, truth=True))
    window.go_to(4)
    assert window.truth.isVisible()
    assert window.truth.title.text() == "ground truth of the simulation"
    np.testing.assert_array_equal(window.truth.image.image, restored_frame(4).pixels)
    centres = {pane.view.viewRect().center().x() for pane in window.panes.panes}
    assert len(centres) == 1


def test_a_run_without_truth_has_two_pictures(tmp_path: Path, open_run: Open) -> None:
    window = open_run(write_run(tmp_path))
    assert len(window.panes.panes) == 2
    assert not window.truth.isVisible()


def test_a_run_that_was_killed_shows_what_is_there(tmp_path: Path, open_run: Open) -> None:
    window = open_run(write_run(tmp_path, restored=5, ended=False))
    assert "did not end in order" in window.banner.text()
    assert "14 raw frames and 5 restored are there" in window.banner.text()
    assert "recorded 14 · restored 5 · skipped live 0 · lost at the source 2" in (
        window.numbers.text()
    )
    window.go_to(4)
    assert window.restored.image.image is not None
    window.restored.view.scaleBy((0.5, 0.5))
    zoomed = window.restored.view.viewRect().width()
    window.go_to(13)
    assert window.restored.image.image is None
    assert window.restored.details.text() == "frame 15 · not restored"
    np.testing.assert_array_equal(window.raw.image.image, raw_frame(15).pixels)
    window.go_to(3)
    assert "frame 3 ·" in window.restored.details.text()
    assert window.restored.view.viewRect().width() == pytest.approx(zoomed)


def test_a_run_without_a_restored_frame_shows_the_raw_ones(tmp_path: Path, open_run: Open) -> None:
    window = open_run(write_run(tmp_path, restored=0, ended=False))
    assert window.restored.details.text() == "frame 0 · not restored"
    np.testing.assert_array_equal(window.raw.image.image, raw_frame(0).pixels)
    assert "14 raw frames and 0 restored are there" in window.banner.text()


def test_a_torn_last_line_of_the_log_does_not_matter(tmp_path: Path, open_run: Open) -> None:
    path = write_run(tmp_path, ended=False)
    with (path / "log.jsonl").open("ab") as log:
        log.write(b'{"record":"frame","ind')
    assert "recorded 14" in open_run(path).numbers.text()


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a run folder"):
        RecordedRun(tmp_path)


@pytest.mark.parametrize("key", [Key.Key_Escape, Key.Key_Q])
def test_escape_and_q_close_the_review(
    tmp_path: Path, open_run: Open, qtbot: QtBot, key: QtCore.Qt.Key
) -> None:
    window = open_run(write_run(tmp_path))
    press(window, key, qtbot)
    assert not window.isVisible()
