"""Figures of the accuracy gate: what they see, and what they do not mind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from pssr_live.engine.compare import agreement_db, contrast_gain, drop_db, with_mean_of

Plane = NDArray[np.float32]


def noise(seed: int, size: int = 64) -> Plane:
    return np.random.default_rng(seed).standard_normal((size, size)).astype(np.float32)


RAW = noise(0, 16)
EXPECTED = 2 * noise(1)


def test_equal_pixels_agree_without_limit() -> None:
    assert agreement_db(EXPECTED.copy(), EXPECTED, RAW) == math.inf


def test_ten_times_the_error_is_twenty_decibels() -> None:
    near = agreement_db(EXPECTED + 0.001 * noise(2), EXPECTED, RAW)
    far = agreement_db(EXPECTED + 0.01 * noise(2), EXPECTED, RAW)
    assert near - far == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_one_pixel_that_is_no_sensible_number_is_no_agreement(value: float) -> None:
    broken = EXPECTED.copy()
    broken[1, 2] = value
    assert not agreement_db(broken, EXPECTED, RAW) >= 0


def test_a_hot_pixel_does_not_hide_an_error_elsewhere() -> None:
    hot = EXPECTED.copy()
    hot[5, 5] = 1000
    plain = agreement_db(EXPECTED + 0.01 * noise(2), EXPECTED, RAW)
    assert agreement_db(hot + 0.01 * noise(2), hot, RAW) == pytest.approx(plain, abs=0.5)


def test_an_error_far_below_the_noise_of_the_raw_frame_counts_as_little() -> None:
    """A frame of nothing but noise is restored to something flat."""
    flat = 0.01 * noise(1)
    assert agreement_db(flat + 0.002 * noise(2), flat, RAW) > 60


def test_a_window_without_contrast_can_be_compared() -> None:
    nothing = np.zeros((64, 64), np.float32)
    assert agreement_db(nothing + 0.001 * noise(2), nothing, nothing[:16, :16]) > 55
    assert contrast_gain(nothing, nothing) == 1


def test_a_wrong_contrast_is_told_from_noise() -> None:
    assert contrast_gain(1.01 * EXPECTED + 3, EXPECTED) == pytest.approx(1.01, abs=1e-5)
    assert contrast_gain(EXPECTED + 0.01 * noise(2), EXPECTED) == pytest.approx(1, abs=1e-3)


def test_a_drop_is_how_much_nearer_fp32_is_to_the_truth() -> None:
    truth = EXPECTED + 0.1 * noise(3)
    assert drop_db(EXPECTED, EXPECTED, truth) == 0
    assert drop_db(EXPECTED + 0.1 * noise(2), EXPECTED, truth) == pytest.approx(3, abs=0.2)
    assert drop_db(truth, EXPECTED, truth) < -100


def test_what_goes_live_has_the_mean_of_its_raw_frame() -> None:
    shifted = with_mean_of(RAW, EXPECTED)
    assert shifted.dtype == np.float32
    assert shifted.mean() == pytest.approx(RAW.mean(), abs=1e-5)
    assert (shifted - EXPECTED).std() < 1e-6
