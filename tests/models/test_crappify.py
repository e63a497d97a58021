"""Each crappifier has the statistics that its source states, computed here by other means."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from skimage.transform import downscale_local_mean, rescale
from skimage.util import random_noise

from pssr_live.errors import UsageError
from pssr_live_models.crappify import (
    PRESETS,
    Blur,
    Crappifier,
    Detect,
    Digitise,
    GaussianNoise,
    Pair,
    PoissonNoise,
    SaltAndPepper,
    Sample,
    Step,
    Unit,
    find_crappifier,
)
from pssr_live_models.variety import drawn_images

Floats = NDArray[np.float32]


@cache
def movie(size: int = 128) -> NDArray[np.uint8]:
    images = drawn_images(np.random.default_rng(3), 6, size)
    eight_bit = np.asarray(np.rint(255 * images / images.max()), np.uint8)
    eight_bit.flags.writeable = False
    return eight_bit


def applied(step: Step, images: NDArray[np.generic], seed: int = 0) -> Floats:
    floats = images.astype(np.float32)
    return step(Pair(floats, floats), np.random.default_rng(seed)).frames


def same_statistics(frames: NDArray[np.generic], expected: NDArray[np.generic]) -> None:
    """Mean, spread and histogram of two draws of the same noise."""
    assert frames.mean() == pytest.approx(expected.mean(), rel=0.01)
    assert frames.std() == pytest.approx(expected.std(), rel=0.02)
    levels = (1, 10, 25, 50, 75, 90, 99)
    np.testing.assert_allclose(
        np.percentile(frames, levels), np.percentile(expected, levels), atol=2.5
    )


@pytest.mark.parametrize("name", PRESETS)
def test_frames_have_a_quarter_of_the_sampling_and_the_same_seed_gives_the_same(name: str) -> None:
    crappifier, images = find_crappifier(name), movie()
    pair = crappifier.crappify(images, np.random.default_rng(5))
    again = crappifier.crappify(images, np.random.default_rng(5))
    assert pair.frames.shape == (6, 32, 32)
    assert pair.frames.dtype == (np.uint16 if name == "physical" else np.uint8)
    assert pair.truth.shape == images.shape
    assert pair.truth.dtype == np.float32
    np.testing.assert_array_equal(pair.frames, again.frames)
    np.testing.assert_array_equal(pair.truth, again.truth)
    assert not np.array_equal(pair.frames, crappifier.crappify(images).frames)
    np.testing.assert_array_equal(
        crappifier.crappify(images).frames, crappifier.crappify(images)[0]
    )


@pytest.mark.parametrize("name", PRESETS)
def test_every_frame_has_noise_of_its_own(name: str) -> None:
    still = np.repeat(movie(size=256)[:1], 4, axis=0)
    frames = find_crappifier(name).crappify(still).frames.astype(np.float64)
    noise = frames - frames.mean(axis=0)
    correlation = np.corrcoef(noise.reshape(4, -1))[np.triu_indices(4, 1)]
    # Four draws about their own mean are correlated by -1/3.
    np.testing.assert_allclose(correlation, -1 / 3, atol=0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("name", PRESETS)
def test_any_dtype_and_size_is_taken_and_what_fills_no_pixel_is_left_out(
    name: str, dtype: type[np.generic]
) -> None:
    images = movie()
    whole = find_crappifier(name).crappify(images[:, :64, :100])
    cut = find_crappifier(name).crappify(images[:, :64, :100].astype(dtype))
    np.testing.assert_array_equal(whole.frames, cut.frames)
    odd = find_crappifier(name).crappify(images[:, :67, :102].astype(dtype))
    assert odd.frames.shape == (6, 16, 25)
    assert odd.truth.shape == (6, 64, 100)


def test_the_published_code_is_matched_by_scikit_image() -> None:
    rng = np.random.default_rng(1)
    expected, truths = [], []
    images = movie(size=256)
    for image in images:
        local = _published_localvar(image, rng)
        noisy = random_noise(local, mode="salt", amount=0.005, rng=rng)
        noisy = random_noise(noisy, mode="pepper", amount=0.005, rng=rng)
        factor = image.max() / noisy.max()
        expected.append(
            rescale(noisy * factor, 1 / 4, order=1, anti_aliasing=True).astype(np.uint8)
        )
        truths.append(image * (factor / 255))
    pair = find_crappifier("published-code").crappify(images, rng)
    same_statistics(pair.frames, np.stack(expected))
    np.testing.assert_allclose(pair.truth, truths, rtol=1e-4, atol=1e-3)


def _published_localvar(image: NDArray[np.uint8], rng: np.random.Generator) -> Floats:
    from skimage.filters import gaussian

    unit = image.astype(np.float32) / 255
    variance = 0.5 * (gaussian(unit, sigma=5) + 1e-10)
    return np.asarray(random_noise(unit, mode="localvar", local_vars=variance, rng=rng), np.float32)


def test_the_paper_puts_salt_and_pepper_first() -> None:
    from skimage.filters import gaussian

    rng = np.random.default_rng(1)
    images, expected = movie(size=256), []
    for image in images:
        noisy = random_noise(image / 255, mode="s&p", amount=0.005, rng=rng)
        variance = 0.5 * (gaussian(noisy, sigma=5) + 1e-10)
        noisy = random_noise(noisy, mode="localvar", local_vars=variance, rng=rng)
        expected.append(255 * rescale(noisy, 1 / 4, order=1, anti_aliasing=False))
    pair = find_crappifier("paper-fluorescence").crappify(images, rng)
    same_statistics(pair.frames, np.stack(expected))
    np.testing.assert_allclose(pair.truth, images, atol=1e-3)


def test_em_noise_on_an_even_field_has_the_variance_by_hand() -> None:
    images = np.full((1, 1024, 1024), 128, np.uint8)
    images[0, :8, :8] = 255  # the scale: the brightest is 1
    frames = find_crappifier("paper-em").crappify(images).frames[0, 8:, 8:].astype(np.float64)
    assert frames.mean() == pytest.approx(128, abs=0.5)
    # Variance 0.05 of the intensity, of which the mean of 2×2 pixels leaves a quarter.
    assert frames.std() == pytest.approx(255 * np.sqrt(0.05 * 128 / 255 / 4), rel=0.02)


def test_pssr2_reduces_first_and_then_counts() -> None:
    images = movie(size=256)
    pair = find_crappifier("pssr2").crappify(images, np.random.default_rng(0))
    size = (64, 64)
    kind = Pillow.Resampling.BILINEAR
    reduced = np.stack([np.asarray(Pillow.fromarray(image).resize(size, kind)) for image in images])
    noise = pair.frames - reduced.astype(np.float64)
    counts = (reduced > 40) & (reduced < 180)  # away from both ends of 8 bit
    assert noise[counts].mean() == pytest.approx(0, abs=0.2)
    standardised = noise[counts] / np.sqrt(reduced[counts])
    assert standardised.std() == pytest.approx(1, rel=0.02)
    np.testing.assert_allclose(pair.truth, images, atol=1e-3)


def test_the_physical_detector_has_the_mean_and_variance_by_hand() -> None:
    detect = Detect(photons=30, gain=3, offset=50, read_noise=4, background=0.2)
    steps = (Sample(spot="area"), detect, Digitise(maximum=4095))
    pair = Crappifier(name="by hand", steps=steps).crappify(np.full((2, 800, 800), 0.5))
    assert pair.frames.dtype == np.uint16
    np.testing.assert_allclose(pair.truth, 3 * 30 * (0.5 + 0.2) + 50, rtol=1e-6)
    assert pair.frames.mean() == pytest.approx(113, abs=0.2)
    variance = 3**2 * 30 * 0.7 + 4**2 + 1 / 12
    assert pair.frames.var() == pytest.approx(variance, rel=0.02)


def test_photon_rates_of_movies_spread_evenly_over_their_range() -> None:
    detect = Detect(photons=20, gain=1, offset=0, read_noise=0, spread=10)
    crappifier = Crappifier(name="spread", steps=(Sample(spot="area"), detect))
    rng = np.random.default_rng(0)
    rates = [float(crappifier.crappify(np.ones((1, 4, 4)), rng).truth.mean()) for _ in range(200)]
    assert 2 <= min(rates) < 2.3
    assert 170 < max(rates) <= 200
    assert np.median(np.log(rates)) == pytest.approx(np.log(20), abs=0.4)


def test_the_physical_preset_brings_the_brightest_structures_to_the_photon_rate() -> None:
    images = 1000.0 * drawn_images(np.random.default_rng(2), 3, 128) - 250.0
    pair = find_crappifier("physical").crappify(images)
    low, high = np.percentile(pair.truth, (0.1, 99.9))
    photons = (high - low) / 4
    assert 2 <= photons <= 200
    assert low == pytest.approx(100 + 4 * 0.05 * photons, rel=0.01)
    seen = pair.truth.reshape(3, 32, 4, 32, 4).mean(axis=(2, 4))
    assert pair.frames.mean() == pytest.approx(seen.mean(), rel=0.02)
    assert np.corrcoef(pair.frames.ravel(), seen.ravel())[0, 1] > 0.8


def test_sampling_is_registered_as_other_libraries_do_it() -> None:
    images = np.random.default_rng(0).random((2, 64, 96)).astype(np.float32)
    point = [rescale(image, 1 / 4, order=1, anti_aliasing=False) for image in images]
    np.testing.assert_allclose(applied(Sample(spot="point"), images), point, atol=1e-6)
    area = downscale_local_mean(images, (1, 4, 4))
    np.testing.assert_allclose(applied(Sample(spot="area"), images), area, atol=1e-6)
    kind = Pillow.Resampling.BILINEAR
    small = [np.asarray(Pillow.fromarray(image).resize((24, 16), kind)) for image in images]
    np.testing.assert_allclose(applied(Sample(spot="triangle"), images), small, atol=1e-6)
    smooth = applied(Sample(spot="point"), applied(Blur(sigma=1.5), images))
    expected = [rescale(image, 1 / 4, order=1, anti_aliasing=True) for image in images]
    np.testing.assert_allclose(smooth, expected, atol=1e-5)


def test_salt_pepper_and_additive_noise_come_in_the_amounts_asked_for() -> None:
    grey = np.full((2, 500, 500), 0.5)
    noisy = applied(SaltAndPepper(salt=0.03, pepper=0.01), grey)
    assert np.mean(noisy == 1) == pytest.approx(0.03 * 0.99, rel=0.05)
    assert np.mean(noisy == 0) == pytest.approx(0.01, rel=0.05)
    assert applied(GaussianNoise(sigma=3), grey).std() == pytest.approx(3, rel=0.01)
    half = applied(PoissonNoise(intensity=0.5), np.full((2, 500, 500), 100))
    assert half.mean() == pytest.approx(100, abs=0.1)
    assert half.std() == pytest.approx(5, rel=0.01)


def test_frames_without_digitiser_are_float32_and_saturate_with_one() -> None:
    detect = Detect(photons=1000, gain=10, offset=0, read_noise=0)
    images = np.ones((1, 8, 8))
    floats = Crappifier(name="floats", steps=(Sample(spot="area"), detect))
    assert floats.crappify(images).frames.dtype == np.float32
    clipped = Crappifier(
        name="clipped", steps=(Sample(spot="area"), detect, Digitise(maximum=4095))
    )
    pair = clipped.crappify(images)
    assert (pair.frames == 4095).all()
    np.testing.assert_allclose(pair.truth, 10_000)


@pytest.mark.parametrize("name", PRESETS)
def test_an_empty_field_gives_frames_without_structure(name: str) -> None:
    pair = find_crappifier(name).crappify(np.zeros((2, 32, 32), np.uint16))
    assert np.isfinite(pair.truth).all()
    assert np.ptp(pair.truth) == 0


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((8, 8)), r"shape \(8, 8\)"),
        (np.zeros((0, 8, 8)), r"shape \(0, 8, 8\)"),
        (np.zeros((2, 3, 8)), "at least 1×4×4"),
        (np.full((1, 8, 8), np.nan), "not finite"),
        (np.zeros((1, 8, 8), complex), "not finite real"),
    ],
)
def test_what_is_no_movie_is_refused(images: NDArray[np.generic], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_crappifier("physical").crappify(images)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((Unit(),), "0 steps 'sample'"),
        ((Sample(spot="area"), Sample(spot="area")), "2 steps 'sample'"),
        ((Digitise(maximum=255), Sample(spot="area")), "after 'digitise'"),
    ],
)
def test_steps_that_make_no_undersampled_frames_are_refused(
    steps: tuple[Step, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Crappifier(name="wrong", steps=steps)
