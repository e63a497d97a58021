"""Restoring a window is a pure function of its pixels, and keeps the raw intensity scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pssr_live.engine.normalise import Statistics, denormalise, normalise
from pssr_live.engine.restore import Restorer
from pssr_live.frames import Frame, Window
from pssr_live.model import find_model

HEIGHT, WIDTH = 48, 61


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer(find_model("neuron_mf"), "openvino", None, HEIGHT, WIDTH)


def window(pixels: NDArray[np.generic], pixel_size_um: float | None = None) -> Window:
    frames = tuple(
        Frame(
            pixels=plane,
            index=10 + k,
            t_source_ns=k,
            t_host_ns=k,
            pixel_size_um=pixel_size_um,
            channel="GFP",
        )
        for k, plane in enumerate(pixels)
    )
    return Window(frames, centre=2, edge=False, complete=True, t_ready_ns=0)


def movie(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.float64]:
    """Five frames of blobs with noise, intensities about 0 to 100."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    blobs = sum(
        np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 12)
        for cy, cx in rng.uniform(5, min(height, width) - 5, (8, 2))
    )
    return rng.poisson(60 * np.broadcast_to(blobs, (5, height, width)) + 4).astype(np.float64)


def test_16_bit_in_16_bit_out_at_four_times_the_sampling(restorer: Restorer) -> None:
    raw = (movie() * 300).astype(np.uint16)
    restored = restorer.restore(window(raw, pixel_size_um=0.17), live=True)
    assert restored.pixels.dtype == np.uint16
    assert restored.pixels.shape == (4 * HEIGHT, 4 * WIDTH)
    assert restored.pixel_size_um == pytest.approx(0.0425)
    assert restored.index == 12
    assert restored.channel == "GFP"
    # The raw intensity scale is kept: a restored frame has the mean of its raw frame.
    assert restored.pixels.mean() == pytest.approx(raw[2].mean(), rel=0.005)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_raw_dtype_comes_back(restorer: Restorer, dtype: type[np.generic]) -> None:
    restored = restorer.restore(window(movie().astype(dtype)), live=True)
    assert restored.pixels.dtype == dtype
    with pytest.raises(ValueError, match="read-only"):
        restored.pixels[0, 0] = 0


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(0.01, 500), offset=st.floats(-1000, 50_000), seed=st.integers(0, 3))
def test_scaling_and_offsetting_the_input_scales_and_offsets_the_output(
    restorer: Restorer, gain: float, offset: float, seed: int
) -> None:
    raw = movie(seed)
    plain = restorer.restore(window(raw.astype(np.float32)), live=True).pixels
    changed_raw = (raw * gain + offset).astype(np.float32)
    changed = restorer.restore(window(changed_raw), live=True).pixels
    contrast = gain * raw.std()
    # float32 pixels carry the offset with a relative rounding error of 6e-8.
    allowed = 2e-3 * contrast + 2e-5 * abs(offset)
    assert np.abs(changed - (plain * gain + offset)).max() <= allowed


def test_a_window_without_contrast_stays_as_it_is(restorer: Restorer) -> None:
    raw = np.full((5, HEIGHT, WIDTH), 1234, np.uint16)
    restored = restorer.restore(window(raw), live=True)
    assert np.abs(restored.pixels.astype(int) - 1234).max() <= 1


def test_the_same_window_gives_the_same_bytes_whatever_came_before(restorer: Restorer) -> None:
    raw = (movie(1) * 300).astype(np.uint16)
    first = restorer.restore(window(raw), live=True).pixels
    restorer.restore(window((movie(2) * 100).astype(np.uint16)), live=True)
    afterwards = restorer.restore(window(raw), live=False)
    assert afterwards.pixels.tobytes() == first.tobytes()
    assert afterwards.latency_ms is None


def test_normalised_windows_have_mean_0_and_deviation_1() -> None:
    raw = window((movie() * 300).astype(np.uint16))
    out = np.empty((1, 5, HEIGHT, WIDTH), np.float32)
    statistics = normalise(raw.frames, out)
    assert out.mean(dtype=np.float64) == pytest.approx(0, abs=1e-5)
    assert out.std(dtype=np.float64) == pytest.approx(1, abs=1e-5)
    stacked = np.stack([frame.pixels for frame in raw.frames])
    assert statistics.mean == pytest.approx(stacked.mean(), rel=1e-6)
    assert statistics.std == pytest.approx(stacked.std(), rel=1e-5)


@given(rows=st.integers(1, 40), columns=st.integers(1, 9_000), dtype=st.sampled_from(["u1", "u2"]))
@settings(max_examples=20, deadline=None)
def test_integers_are_rounded_and_clipped_to_their_range_not_wrapped(
    rows: int, columns: int, dtype: str
) -> None:
    scores = np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float32)
    out = denormalise(scores, Statistics(mean=120.0, std=90.0), np.dtype(dtype))
    top = np.iinfo(dtype).max
    expected = np.clip(np.rint(scores * np.float32(90) + np.float32(120)), 0, top).astype(dtype)
    assert np.array_equal(out, expected)
