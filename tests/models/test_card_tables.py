"""The tables of the model cards say what was measured, recording by recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

pytest.importorskip("skimage")

from pssr_live_models.card_tables import AVERAGE, BILINEAR, Figures, long_table, summary_table
from pssr_live_models.recordings import recorded_movies


def figures(*psnr: float) -> Figures:
    values = np.array(psnr)
    return Figures(values, values / 100, values / 50)


SIMULATED = {
    "cells": {
        BILINEAR: figures(20, 22),
        AVERAGE: figures(24, 25),
        "model": figures(30, 31),
    }
}
RECORDED = {
    "six windows": {
        BILINEAR: figures(*[20] * 6),
        AVERAGE: figures(*[23] * 6),
        "model": figures(*[24] * 6),
    },
    "one window": {BILINEAR: figures(25), AVERAGE: figures(26), "model": figures(30)},
}


def test_the_summary_counts_each_recording_once() -> None:
    table = summary_table({"model": "cells"}, SIMULATED, RECORDED).splitlines()
    assert "2 real recordings" in table[0]
    # Over bilinear: (24 − 20 + 30 − 25) / 2; over the average: (1 + 4) / 2.
    assert table[-1] == "| model | 9.50 ± 0.50 | 6.00 ± 0.00 | 4.50 ± 0.50 | 2.50 ± 1.50 |"


def test_the_summary_says_where_there_were_no_recordings() -> None:
    table = summary_table({"model": "cells"}, SIMULATED, {}).splitlines()
    assert "0 real recordings" in table[0]
    assert table[-1].endswith("| not evaluated | not evaluated |")
    assert table[2].count("|") == table[3].count("|") == table[-1].count("|")


def test_a_single_window_has_no_standard_error() -> None:
    lines = long_table("All", RECORDED).splitlines()
    assert lines[-1] == "| one window | 1 | model | 30.00 | 5.00 | 0.300 | 0.600 |"
    assert "| six windows | 6 | model | 24.00 ± 0.00 | 4.00 ± 0.00 |" in lines[6]


def test_a_channel_of_an_image_stands_still_for_five_frames(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 4000, (3, 64, 72)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "cells.tif", image, photometric="minisblack")
    (movie,) = recorded_movies(tmp_path / "cells.tif", 6, 20.0, channel=2)
    assert movie.frames.shape == (5, 16, 18)
    np.testing.assert_array_equal(movie.truth[0], movie.truth[4])
    assert np.corrcoef(movie.truth[2].ravel(), image[2].ravel())[0, 1] == pytest.approx(1, abs=1e-3)
    assert not np.array_equal(movie.frames[0], movie.frames[1])
