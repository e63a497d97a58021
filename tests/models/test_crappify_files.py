"""Crappifiers are kept as text that is read strictly."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pssr_live.errors import StorageError, UsageError
from pssr_live_models.crappify import PRESETS, Crappifier, Fit, find_crappifier, load_crappifier

TEXT = """\
name = "mine"
steps = [
    { step = "unit" },
    { step = "multiply", factor = 255 },
    { step = "gaussian-noise", sigma = 3.0 },
    { step = "sample", spot = "point" },
    { step = "digitise", maximum = 255 },
]
"""


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("name", PRESETS)
def test_a_crappifier_that_was_kept_makes_the_same_frames(name: str, tmp_path: Path) -> None:
    preset = find_crappifier(name)
    preset.save(tmp_path / "kept.toml")
    kept = find_crappifier(str(tmp_path / "kept.toml"))
    assert kept == preset
    images = np.random.default_rng(0).random((2, 16, 16))
    np.testing.assert_array_equal(kept.crappify(images).frames, preset.crappify(images).frames)


def test_how_well_it_fits_is_kept_too(tmp_path: Path) -> None:
    fit = Fit(
        frames=10,
        levels=30,
        line_error=0.02,
        gain_error=0.01,
        offset_range=(90.0, 110.5),
        noise_correlation=-0.01,
        noise_distance=0.01,
    )
    steps = PRESETS["physical"].steps
    crappifier = Crappifier(name="fitted", steps=steps, fit=fit, pixel_size_um=0.17, seed=4)
    crappifier.save(tmp_path / "fitted.toml")
    assert load_crappifier(tmp_path / "fitted.toml") == crappifier
    assert "version = 1" in (tmp_path / "fitted.toml").read_text(encoding="utf-8")


def test_a_file_written_by_hand_is_taken(tmp_path: Path) -> None:
    crappifier = find_crappifier(written(tmp_path, TEXT))
    assert crappifier.name == "mine"
    assert crappifier.crappify(np.ones((1, 8, 8))).frames.dtype == np.uint8


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "mine"', 'name = "mine"\ncolour = 1', "unknown field `colour`"),
        ("sigma = 3.0", "sigma = 3.0, mean = 1.0", "unknown field `mean`"),
        ("sigma = 3.0", "sigma = -3.0", ">= 0"),
        ("gaussian-noise", "run-code", "Invalid value 'run-code'"),
        ("maximum = 255", "maximum = 70000", "<= 65535"),
        ('"point"', '"line"', "Invalid enum value 'line'"),
        ('name = "mine"', 'name = "mine"\nversion = 2', "2"),
        ('{ step = "sample", spot = "point" },', "", "0 steps 'sample'"),
        ("steps = [", "steps = [[", "cannot read"),
        ('name = "mine"', "", "missing required field `name`"),
    ],
)
def test_a_file_with_anything_else_is_refused_in_one_line(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    file = written(tmp_path, TEXT.replace(old, new))
    with pytest.raises(UsageError) as caught:
        find_crappifier(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.toml").write_bytes(bytes(range(128, 256)))
    with pytest.raises(UsageError, match=r"cannot read the crappifier .*noise\.toml"):
        find_crappifier(str(tmp_path / "noise.toml"))


def test_an_unknown_name_lists_the_presets() -> None:
    with pytest.raises(UsageError, match="paper-fluorescence, published-code, paper-em, pssr2"):
        find_crappifier("nobody")


def test_a_folder_that_is_missing_is_an_error_of_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        PRESETS["pssr2"].save(tmp_path / "nowhere" / "kept.toml")


def test_without_the_writer_the_way_to_install_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tomli_w", None)
    with pytest.raises(UsageError, match="tomli-w is not installed"):
        PRESETS["pssr2"].save(tmp_path / "kept.toml")
