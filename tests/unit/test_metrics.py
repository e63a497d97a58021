"""Every metric against an independent implementation or a case that can be calculated.

Figures "by NanoPyx" and "by CSBDeep" are those of NanoPyx 2.1.5 and CSBDeep 0.8.2, run once on the
images made here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift
from scipy.signal.windows import tukey
from skimage.measure import profile_line
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pssr_live.errors import UsageError
from pssr_live.metrics import (
    bleaching_curve,
    fidelity,
    fourier,
    fourier_ring_correlation,
    kymograph,
    match_intensities,
    resolution_scaled_error,
    signal_and_background,
    signal_to_noise,
)

Image = NDArray[np.float64]


def tubes(size: int) -> Image:
    """Eight wavy tubes of different width and brightness."""
    y, x = np.mgrid[:size, :size] / size
    image = np.zeros((size, size))
    for number in range(1, 9):
        centre = 0.5 + 0.42 * np.sin(2 * np.pi * (x * (0.4 + 0.13 * number) + 0.37 * number))
        width = 0.008 + 0.002 * number
        image += (0.4 + 0.1 * number) * np.exp(-0.5 * ((y - centre) / width) ** 2)
    return 1000 * image + 100


def speckle(shape: tuple[int, int], seed: int) -> Image:
    """Noise of variance 1 that is the same with every version of every library."""
    n = np.arange(np.prod(shape), dtype=float).reshape(shape) + 1000.0 * seed
    u = np.modf(np.abs(np.sin(n * 12.9898 + seed) * 43758.5453))[0]
    v = np.modf(np.abs(np.sin(n * 78.233 + 2 * seed) * 12345.6789))[0]
    return np.asarray(np.sqrt(-2 * np.log(u + 1e-12)) * np.cos(2 * np.pi * v))


def field(size: int, transfer: Callable[[Image], Image]) -> Image:
    """Structure whose amplitude by spatial frequency (cycles per pixel) is known."""
    spectrum = np.fft.rfft2(speckle((size, size), 11))
    q = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    return np.fft.irfft2(spectrum * transfer(q), s=(size, size))


TRUTH = tubes(128)
NOISY = TRUTH + 60 * speckle(TRUTH.shape, 1)


# --- PSNR and SSIM


def test_intensities_are_matched_as_least_squares_would() -> None:
    matched, target = match_intensities(NOISY, TRUTH)
    low, high = np.percentile(TRUTH, [0.1, 99.9])
    normalised = (TRUTH - low) / (high - low)
    slope, offset = np.polyfit(NOISY.ravel(), normalised.ravel(), 1)
    assert np.allclose(matched, slope * NOISY + offset - normalised.mean())
    assert np.allclose(target, normalised - normalised.mean())


def test_psnr_and_ssim_are_those_of_the_published_matching_by_csbdeep() -> None:
    found = fidelity(NOISY, TRUTH)
    assert found.psnr_db == pytest.approx(33.433115, abs=1e-4)
    assert found.ssim == pytest.approx(0.909315, abs=1e-5)


def test_psnr_and_ssim_agree_with_scikit_image_on_matched_images() -> None:
    matched, target = match_intensities(NOISY, TRUTH)
    found = fidelity(NOISY, TRUTH)
    assert found.psnr_db == peak_signal_noise_ratio(target, matched, data_range=1)
    assert found.ssim == structural_similarity(target, matched, data_range=1)


def test_psnr_of_a_known_error() -> None:
    truth = np.zeros((64, 64))
    truth[:, 32:] = 50
    chequers = np.where(np.indices(truth.shape).sum(axis=0) % 2, 1.0, -1.0)
    # The error is 1/100 of the range, without mean and correlation with the truth, whose variance
    # is ¼; the best factor shrinks it slightly.
    error, variance = 1e-4, 0.25
    expected = -10 * np.log10(error * variance / (variance + error))
    assert fidelity(truth + 0.5 * chequers, truth).psnr_db == pytest.approx(expected)


@pytest.mark.parametrize(("factor", "offset"), [(0.01, 0), (3, 500), (1, -90)])
def test_brightness_and_offset_of_an_image_do_not_count(factor: float, offset: float) -> None:
    found, expected = fidelity(factor * NOISY + offset, TRUTH), fidelity(NOISY, TRUTH)
    assert found.psnr_db == pytest.approx(expected.psnr_db)
    assert found.ssim == pytest.approx(expected.ssim)


def test_the_truth_itself_is_perfect() -> None:
    found = fidelity(TRUTH, TRUTH)
    assert (found.psnr_db > 200, found.ssim) == (True, pytest.approx(1))


def test_an_image_without_structure_is_as_good_as_the_truths_mean() -> None:
    _, target = match_intensities(TRUTH, TRUTH)
    expected = -10 * np.log10(np.square(target).mean())
    assert fidelity(np.full_like(TRUTH, 7), TRUTH).psnr_db == pytest.approx(expected)


@pytest.mark.parametrize(
    ("image", "truth", "why"),
    [
        (TRUTH, np.ones_like(TRUTH), "it is flat"),
        (TRUTH[:-1], TRUTH, "their shapes are"),
        (np.full_like(TRUTH, np.nan), TRUTH, "not finite"),
        (TRUTH[:6, :6], TRUTH[:6, :6], "smaller than its window"),
        (TRUTH[0], TRUTH[0], "window|shape"),
        (TRUTH + 1j, TRUTH, "its pixels are complex128"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(image: Image, truth: Image, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        fidelity(image, truth)


# --- SNR


def test_snr_is_contrast_over_the_backgrounds_noise() -> None:
    image = np.tile([98.0, 102.0], (8, 8))
    image[:, 8:] += 300
    signal = np.zeros(image.shape, bool)
    signal[:, 8:] = True
    noise = 2 * np.sqrt(64 / 63)  # sample standard deviation of ±2
    assert signal_to_noise(image, signal, ~signal) == pytest.approx(300 / noise)
    assert signal_to_noise(5 * image + 9, signal, ~signal) == pytest.approx(300 / noise)


def test_snr_of_a_background_without_any_noise_is_infinite() -> None:
    image = np.zeros((8, 8))
    image[:2] = 1
    assert signal_to_noise(image, image > 0, image == 0) == np.inf


def test_snr_of_an_image_without_contrast_or_noise_is_no_number() -> None:
    signal, background = TRUTH > 300, TRUTH < 150
    assert np.isnan(signal_to_noise(np.full_like(TRUTH, 5), signal, background))
    assert signal_to_noise(np.where(signal, 0.0, 5.0), signal, background) == -np.inf


def test_masks_of_0_and_255_are_taken_as_regions_not_as_indices() -> None:
    signal, background = TRUTH > 300, TRUTH < 150
    masks = [(255 * region).astype(np.uint8) for region in (signal, background)]
    assert signal_to_noise(NOISY, *masks) == signal_to_noise(NOISY, signal, background)
    curve = bleaching_curve([TRUTH, TRUTH / 2], background=0, first=1, region=masks[0])
    assert curve == pytest.approx([1, 0.5])


def test_signal_and_background_are_found_in_the_truth() -> None:
    signal, background = signal_and_background(TRUTH)
    assert TRUTH[signal].min() > 300
    assert TRUTH[background].max() < 102
    assert background.mean() == pytest.approx(0.25, abs=0.01)
    assert not (signal & background).any()


def test_a_region_without_pixels_is_refused() -> None:
    nothing = np.zeros(TRUTH.shape, bool)
    with pytest.raises(UsageError, match="the signal has 0 pixels"):
        signal_to_noise(TRUTH, nothing, ~nothing)
    with pytest.raises(UsageError, match="flat"):
        signal_and_background(np.ones((8, 8)))


# --- Fourier ring correlation


@pytest.mark.parametrize(
    ("width", "noise", "by_nanopyx"),
    [(0.08, 0.05, 179.836), (0.15, 0.05, 95.263), (0.08, 0.2, 225.984)],
)
def test_frc_finds_where_the_signal_drowns(width: float, noise: float, by_nanopyx: float) -> None:
    # Signal power exp(−q²/width²) and noise power noise²: their correlation is 1/7 where the
    # signal is a sixth of the noise.
    pixel_nm = 40
    expected = pixel_nm / (width * np.sqrt(np.log(6 / noise**2)))
    structure = field(256, lambda q: np.exp(-0.5 * (q / width) ** 2))
    one, two = (structure + noise * speckle(structure.shape, seed) for seed in (12, 13))
    found = fourier_ring_correlation(one, two, pixel_nm).resolution_nm
    assert found == pytest.approx(expected, rel=0.02)
    assert found == pytest.approx(by_nanopyx, rel=0.02)


def test_frc_with_the_truth_and_one_half_is_the_frc_of_two_noisy_images() -> None:
    structure = field(256, lambda q: np.exp(-0.5 * (q / 0.08) ** 2))
    noisy = structure + 0.05 * speckle(structure.shape, 12)
    found = fourier_ring_correlation(noisy, structure, 40, threshold="1/2").resolution_nm
    # A correlation of ½ with the truth: the signal is a third of the noise.
    assert found == pytest.approx(40 / (0.08 * np.sqrt(np.log(3 / 0.05**2))), rel=0.02)


@pytest.mark.parametrize("limit", [0.1, 0.2, 0.3])
def test_frc_finds_a_band_limit(limit: float) -> None:
    structure = field(256, lambda q: np.where(q <= limit, 1.0, 0.0))
    one, two = (structure + 0.3 * speckle(structure.shape, seed) for seed in (12, 13))
    found = fourier_ring_correlation(one, two, 40)
    # The taper and the smoothing widen the edge by two to three rings.
    rings = 256 * 40 / found.resolution_nm - 256 * limit
    assert 0 < rings < 3
    inside = found.frequency < 0.9 * limit / 40
    assert found.correlation[inside].mean() == pytest.approx(1 / (1 + 0.3**2), abs=0.02)
    assert abs(found.correlation[found.frequency > 1.1 * limit / 40].mean()) < 0.03


def test_frc_sums_over_rings_as_the_full_spectra_would() -> None:
    one, two = speckle((48, 64), 1), speckle((48, 64), 2) + speckle((48, 64), 1)
    spectra = [
        np.fft.fft2((image - image.mean()) * np.outer(tukey(48, 0.25), tukey(64, 0.25)))
        for image in (one, two)
    ]
    q = np.hypot(np.fft.fftfreq(48)[:, None], np.fft.fftfreq(64)[None, :])
    expected = []
    for ring in range(1, 25):
        a, b = (spectrum[np.rint(q * 48) == ring] for spectrum in spectra)
        powers = np.square(np.abs(a)).sum() * np.square(np.abs(b)).sum()
        expected.append((a * b.conj()).sum().real / np.sqrt(powers))
    smooth = np.convolve(np.pad(expected, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    found = fourier_ring_correlation(one, two, 100)
    assert np.allclose(found.correlation, smooth)
    assert found.frequency[[0, -1]] == pytest.approx([1 / 4800, 1 / 200])


def test_frc_is_limited_by_the_sampling_and_can_find_no_agreement() -> None:
    assert fourier_ring_correlation(NOISY, NOISY, 42).resolution_nm == 84
    assert fourier_ring_correlation(NOISY, -NOISY, 42).resolution_nm == np.inf


def test_the_half_bit_threshold_falls_with_the_number_of_pixels_in_a_ring() -> None:
    limit = fourier_ring_correlation(NOISY, NOISY, 42, threshold="half-bit").threshold
    # The first ring has eight pixels, four of them independent; with endless pixels the limit is
    # 0.2071 / 1.2071 = 0.1716.
    assert limit[0] == pytest.approx((0.2071 + 1.9102 / 2) / (1.2071 + 0.9102 / 2))
    assert (limit > 0.1716).all()
    assert limit[-1] < 0.27 < limit[30] < limit[10] < limit[0]


@pytest.mark.parametrize("length", [64, 65])
def test_the_taper_is_that_of_scipy(length: int) -> None:
    assert np.allclose(fourier._tukey(length), tukey(length, fourier.TAPER))


def test_frc_refuses_small_images_and_impossible_pixels() -> None:
    with pytest.raises(UsageError, match="at least 32×32"):
        fourier_ring_correlation(TRUTH[:16], TRUTH[:16], 42)
    with pytest.raises(UsageError, match="pixel size above 0"):
        fourier_ring_correlation(TRUTH, TRUTH, 0)
    with pytest.raises(UsageError, match="pixel size above 0"):
        fourier_ring_correlation(TRUTH, TRUTH, float("inf"))


# --- resolution-scaled error


def test_rse_and_rsp_are_those_of_nanopyx() -> None:
    reference = 0.5 * gaussian_filter(TRUTH, 2.5) + 40 + 5 * speckle(TRUTH.shape, 2)
    found = resolution_scaled_error(NOISY, reference)
    assert found.rse == pytest.approx(6.125123, rel=1e-4)
    assert found.rsp == pytest.approx(0.999185, abs=1e-5)
    assert found.sigma_px == pytest.approx(2.501350, abs=2e-3)
    assert found.error_map.max() == pytest.approx(27.946, rel=2e-3)
    assert np.sqrt(np.square(found.error_map).mean()) == pytest.approx(found.rse)


def test_a_known_scale_offset_and_blur_are_found() -> None:
    found = resolution_scaled_error(TRUTH, 0.5 * gaussian_filter(TRUTH, 3.2) + 40)
    assert found.sigma_px == pytest.approx(3.2, abs=2e-3)
    assert found.factor == pytest.approx(0.5, rel=1e-3)
    assert found.offset == pytest.approx(40, rel=1e-2)
    assert found.rse < 0.05
    assert found.rsp == pytest.approx(1, abs=1e-6)


def test_no_blur_is_found_where_none_is() -> None:
    found = resolution_scaled_error(2 * TRUTH + 1, TRUTH)
    assert (found.sigma_px, found.factor) == (0, pytest.approx(0.5))
    assert found.rse == pytest.approx(0, abs=1e-9)


def test_a_coarser_reference_is_registered_by_pixel_centres() -> None:
    fine = gaussian_filter(tubes(256), 4)
    coarse = fine.reshape(64, 4, 64, 4).mean(axis=(1, 3))
    found = resolution_scaled_error(fine, coarse)
    moved = [resolution_scaled_error(shift(fine, by, mode="nearest"), coarse) for by in (0.5, -0.5)]
    assert found.rse < 0.3 * min(other.rse for other in moved)
    assert found.error_map.shape == (256, 256)


def test_the_error_map_shows_where_something_was_invented() -> None:
    invented = TRUTH.copy()
    invented[20:30, 60:70] += 800
    error = resolution_scaled_error(invented, gaussian_filter(TRUTH, 2)).error_map
    row, column = np.unravel_index(error.argmax(), error.shape)
    assert (20 <= row < 30, 60 <= column < 70) == (True, True)


def test_a_reference_of_another_size_or_without_structure_is_refused() -> None:
    with pytest.raises(UsageError, match="no whole multiple"):
        resolution_scaled_error(TRUTH, TRUTH[:100])
    with pytest.raises(UsageError, match="flat"):
        resolution_scaled_error(TRUTH, np.ones_like(TRUTH))


def test_an_image_without_structure_is_as_wrong_as_the_reference_varies() -> None:
    found = resolution_scaled_error(np.full_like(TRUTH, 7), TRUTH)
    assert found.rse == pytest.approx(TRUTH.std())
    assert found.rsp == 0


# --- over time


def decaying(frames: int) -> Iterator[Image]:
    for frame in range(frames):
        yield 64 + 100 * np.exp(-frame / 10) * np.ones((4, 6))


def test_a_bleaching_curve_is_the_fluorescence_over_that_of_the_first_frames() -> None:
    curve = bleaching_curve(decaying(30), background=64, first=1)
    assert curve == pytest.approx(np.exp(-np.arange(30) / 10))
    three = bleaching_curve(decaying(30), background=64)
    assert three[:3].mean() == pytest.approx(1)
    assert three / three[0] == pytest.approx(curve)


def test_an_offset_left_in_makes_bleaching_look_weaker() -> None:
    assert bleaching_curve(decaying(30), background=0, first=1)[-1] > 0.4


def test_a_bleaching_curve_of_a_region() -> None:
    planes = np.ones((3, 4, 6))
    planes[:, :2] = np.array([8, 4, 2])[:, None, None]
    region = np.zeros((4, 6), bool)
    region[:2] = True
    curve = bleaching_curve(planes, background=0, first=1, region=region)
    assert curve.tolist() == [1, 0.5, 0.25]
    with pytest.raises(UsageError, match="empty or not of shape"):
        bleaching_curve(planes, background=0, region=~np.ones((4, 6), bool))


@pytest.mark.parametrize(
    "arguments",
    [{"background": 500}, {"background": 0, "first": 9}, {"background": float("nan")}],
)
def test_a_bleaching_curve_that_cannot_be_normalised_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="not brighter than"):
        bleaching_curve(decaying(5), **arguments)


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize(
    ("start", "end"), [((10, 12), (90, 100)), ((100.5, 20.25), (30.1, 31.7)), ((40, 5), (40, 120))]
)
def test_a_kymograph_is_the_line_profile_of_each_frame(
    start: tuple[float, float], end: tuple[float, float], width: int
) -> None:
    planes = [NOISY, TRUTH]
    found = kymograph(planes, start, end, width=width)
    expected = [profile_line(plane, start, end, linewidth=width, order=1) for plane in planes]
    assert np.allclose(found, expected)


def test_a_kymograph_shows_the_speed_of_a_moving_spot() -> None:
    rows, columns = np.mgrid[:40, :80]
    spots = (
        np.exp(-((rows - 20) ** 2 + (columns - 20 - 1.5 * frame) ** 2) / 8) for frame in range(24)
    )
    found = kymograph(spots, (20, 5), (20, 75), width=3)
    assert found.shape == (24, 71)
    positions = (found * np.arange(71)).sum(axis=1) / found.sum(axis=1)
    assert np.diff(positions) == pytest.approx(1.5, abs=0.01)


def test_a_line_outside_the_frames_or_without_length_is_refused() -> None:
    with pytest.raises(UsageError, match="inside the frames"):
        kymograph([TRUTH], (10, 10), (10, 128))
    with pytest.raises(UsageError, match="two different points"):
        kymograph([TRUTH], (10, 10), (10, 10))
    with pytest.raises(UsageError, match="nan pixels long"):
        kymograph([TRUTH], (10, 10), (10, float("nan")))


def test_a_kymograph_of_no_frames_has_the_lines_length() -> None:
    assert kymograph([], (10, 10), (10, 20)).shape == (0, 11)


# --- the daemon stays small


def test_importing_metrics_and_evaluation_loads_no_scientific_libraries() -> None:
    report = (
        "import pssr_live.metrics, pssr_live.evaluate, sys\n"
        "print(*({'scipy', 'skimage', 'matplotlib'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.strip() == ""


@pytest.mark.parametrize(
    ("library", "use"),
    [
        ("skimage", lambda: fidelity(NOISY, TRUTH)),
        ("skimage", lambda: signal_and_background(TRUTH)),
        ("scipy.ndimage", lambda: resolution_scaled_error(NOISY, TRUTH)),
    ],
)
def test_a_missing_library_is_one_line_that_names_the_extra(
    library: str, use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError) as refused:
        use()
    assert f"{library.partition('.')[0]} is not installed" in str(refused.value)
    assert 'pip install "pssr-live[evaluate]"' in str(refused.value)
    assert "\n" not in str(refused.value)
