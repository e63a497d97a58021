from __future__ import annotations

import numpy as np
import pytest

from pssr_live_gui.contrast import AutoContrast, levels_of


def test_contrast_spans_the_picture_but_for_its_extremes() -> None:
    ramp = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    low, high = levels_of(ramp)
    assert 0 < low < 200
    assert 9_800 < high < 9_999


def test_one_hot_pixel_does_not_darken_the_picture() -> None:
    pixels = np.random.default_rng(0).integers(90, 110, (440, 440)).astype(np.uint16)
    pixels[200, 200] = 65_535
    assert levels_of(pixels)[1] < 120


@pytest.mark.parametrize("value", [0, 7, 65_535])
def test_an_even_picture_has_a_contrast_too(value: int) -> None:
    low, high = levels_of(np.full((32, 32), value, np.uint16))
    assert low == value
    assert high > low


def test_pixels_that_are_not_numbers_are_left_out() -> None:
    pixels = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    pixels[:8] = np.nan
    pixels[8] = np.inf
    assert 0 < levels_of(pixels)[1] <= 1
    assert levels_of(np.full((8, 8), np.nan, np.float32)) == (0.0, 1.0)


def test_contrast_follows_a_change_slowly_and_gets_there() -> None:
    pixels = np.linspace(100, 1000, 64 * 64).reshape(64, 64)
    contrast = AutoContrast(settle_s=1.0)
    first = contrast.update(pixels, 0.0)
    brighter = [contrast.update(pixels * 1.5, 0.25 * step)[1] for step in range(1, 41)]
    assert first[1] < brighter[0] < first[1] * 1.2
    assert brighter == sorted(brighter)
    assert brighter[-1] == pytest.approx(first[1] * 1.5, rel=0.01)


def test_another_scene_gets_its_contrast_at_once() -> None:
    contrast = AutoContrast()
    contrast.update(np.linspace(0, 100, 4096).reshape(64, 64), 0.0)
    scene = np.linspace(5_000, 9_000, 4096).reshape(64, 64)
    assert contrast.update(scene, 0.03) == levels_of(scene)
