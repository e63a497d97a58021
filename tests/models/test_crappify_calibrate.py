"""Calibration finds the settings of a detector again from its frames, or says why it cannot."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from pssr_live.errors import SourceError, StorageError, UsageError
from pssr_live.record.ome_xml import PREDICTION
from pssr_live.settings import RunSettings, SimSettings
from pssr_live.source import make_source
from pssr_live_models.crappify import (
    Blur,
    Crappifier,
    Detect,
    Digitise,
    Fit,
    Sample,
    Unit,
    calibrate,
    find_crappifier,
)
from pssr_live_models.crappify.command import calibrate_files, figures
from pssr_live_models.movies import simulated_movie
from pssr_live_models.variety import drawn_images

Frames = NDArray[np.generic]

DETECTORS = [
    Detect(photons=20, gain=4, offset=100, read_noise=2, background=0.05),
    Detect(photons=3, gain=10, offset=50, read_noise=5, background=0.05),
    Detect(photons=100, gain=2, offset=200, read_noise=6, background=0.1),
    Detect(photons=16, gain=90, offset=64, read_noise=16, background=0.02),
    Detect(photons=5, gain=1, offset=0, read_noise=0, background=0.1),
    Detect(photons=40, gain=0.5, offset=10, read_noise=1.5, background=0.05),
]


@cache
def sample(seed: int, *, drawn: bool = True) -> NDArray[np.float32]:
    """Draw a still sample of fine points, and of structures of all sizes among them."""
    size = 512
    rng = np.random.default_rng(seed)
    points = np.zeros((size, size), np.float32)
    places = rng.integers(size, size=(2, size * size // 300))
    points[places[0], places[1]] = rng.gamma(1.0, size=places.shape[1])
    points = ndimage.gaussian_filter(points, 2.0) + 0.3 * ndimage.gaussian_filter(points, 12.0)
    points /= np.percentile(points, 99.9)
    return drawn_images(rng, 1, size) + points if drawn else points[None]


@cache
def recorded(
    detect: Detect, seed: int, *, blur: float = 0.0, count: int = 10, drawn: bool = True
) -> Frames:
    """Scan the sample again and again."""
    steps = (Unit(low=0.1, high=99.9), Blur(sigma=blur), Sample(spot="point"), detect)
    crappifier = Crappifier(name="known", steps=(*steps, Digitise(maximum=65535)))
    images = np.repeat(sample(seed, drawn=drawn), count, axis=0)
    return crappifier.crappify(images, np.random.default_rng(seed)).frames


def parts(crappifier: Crappifier) -> tuple[Detect, float, Fit]:
    _, blur, _, detect, *_ = crappifier.steps
    assert isinstance(blur, Blur)
    assert isinstance(detect, Detect)
    assert crappifier.fit is not None
    return detect, blur.sigma, crappifier.fit


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("known", DETECTORS, ids=lambda known: f"{known.photons}-{known.gain}")
def test_the_detector_is_found_again(known: Detect, seed: int) -> None:
    found, _, fit = parts(calibrate([recorded(known, seed)]))
    assert fit.gain_error < 0.12
    assert found.gain == pytest.approx(known.gain, rel=3 * fit.gain_error)
    assert fit.offset_range is not None
    low, high = fit.offset_range
    # The range is as exact as the gain is: a few hundredths of the brightest structures.
    margin = 3 * fit.gain_error * known.gain * known.photons / 10
    assert low - margin <= known.offset <= high + margin
    assert low <= found.offset <= high
    assert found.offset == pytest.approx(
        known.offset, abs=known.gain * (0.3 + 0.07 * known.photons)
    )
    brightest = known.gain * known.photons
    assert found.gain * found.photons == pytest.approx(brightest, rel=0.3)
    assert fit.noise_distance < 0.05
    assert fit.line_error < 0.06
    assert abs(fit.noise_correlation) < 0.05


@pytest.mark.parametrize(("blur", "seed"), [(0.0, 3), (1.5, 4), (3.0, 3)])
def test_blur_and_light_are_found_by_movies_at_full_sampling(blur: float, seed: int) -> None:
    known = Detect(photons=50, gain=4, offset=100, read_noise=3, background=0.05)
    fitted = calibrate([recorded(known, seed, blur=blur, count=8)], [sample(seed)])
    found, width, fit = parts(fitted)
    assert fit.blur_error is not None
    assert fit.blur_error < 0.7
    assert width == pytest.approx(blur, abs=0.7 if blur == 0 else 0.35)
    assert found.gain * found.photons == pytest.approx(200, rel=0.06)
    assert found.background == pytest.approx(0.05, abs=0.04)
    assert fit.spectrum_error_db is not None
    assert fit.spectrum_error_db < 1
    assert fit.histogram_distance is not None
    assert fit.histogram_distance < 0.04
    # What it makes of the sample has the mean and the contrast of the frames.
    made, real = fitted.crappify(sample(seed)).frames, recorded(known, seed, blur=blur, count=8)
    assert made.mean() == pytest.approx(real.mean(), rel=0.02)
    assert made.std() == pytest.approx(real.std(), rel=0.05)


def test_the_places_need_not_be_the_same() -> None:
    known = Detect(photons=50, gain=4, offset=100, read_noise=3, background=0.05)
    frames = recorded(known, 3, blur=2.0, count=8, drawn=False)
    _, width, fit = parts(calibrate([frames], [sample(5, drawn=False)]))
    assert width == pytest.approx(2.0, abs=0.35)
    assert fit.spectrum_error_db is not None
    assert fit.spectrum_error_db < 2


def test_the_blur_is_found_where_the_sample_is_in_the_middle_of_the_field() -> None:
    known = Detect(photons=10, gain=4, offset=100, read_noise=3, background=0.05)
    at = np.linspace(-1, 1, 512)
    cell = sample(3, drawn=False) * np.exp(-np.add.outer(at**2, at**2) / (2 * 0.35**2))
    steps = (Unit(low=0.1, high=99.9), Blur(sigma=1.5), Sample(spot="point"), known)
    crappifier = Crappifier(name="known", steps=(*steps, Digitise(maximum=65535)))
    frames = crappifier.crappify(np.repeat(cell, 8, axis=0).astype(np.float32)).frames
    _, width, _ = parts(calibrate([frames], [cell]))
    assert width == pytest.approx(1.5, abs=0.25)


@pytest.mark.parametrize(
    ("blur", "seed", "other", "drawn"),
    [(0.0, 21, 71, False), (2.0, 20, 20, True), (2.0, 21, 71, False)],
)
def test_the_range_of_the_blur_holds_the_true_one(
    blur: float, seed: int, other: int, drawn: bool
) -> None:
    known = Detect(photons=50, gain=4, offset=100, read_noise=3, background=0.05)
    frames = recorded(known, seed, blur=blur, count=8, drawn=drawn)
    fitted = calibrate([frames], [sample(other, drawn=drawn)])
    said = re.search(r"blur .* pixels \((\S+) to (\S+) are possible\)", figures(fitted))
    assert said is not None
    assert float(said[1]) <= blur <= float(said[2])
    assert float(said[2]) < blur + 1.5


def test_movies_of_another_kind_of_sample_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    known = Detect(photons=50, gain=4, offset=100, read_noise=3, background=0.05)
    frames = recorded(known, 3, blur=2.0, count=8, drawn=False)
    _, _, fit = parts(calibrate([frames], [ndimage.gaussian_filter(sample(5), (0, 9, 9))]))
    assert fit.spectrum_error_db is not None
    assert fit.spectrum_error_db > 3
    assert "show another kind of sample" in caplog.text


@pytest.mark.parametrize(("preset", "photons"), [("neuron", 16.0), ("u2os", 5.0)])
def test_the_simulated_scanner_is_found_though_its_sample_moves(
    preset: Literal["neuron", "u2os"], photons: float
) -> None:
    frames = simulated_movie(preset, 1, size=128, frames=10, photons=photons).frames
    settings = SimSettings(preset=preset, interval_ms=0, size=128, seed=1, photons=photons)
    says = make_source(RunSettings(scope="sim", sim=settings)).open().metadata
    found, _, fit = parts(calibrate([frames], bits=12 if preset == "neuron" else 16))
    # Pulses of random height make the noise of fewer, larger photons.
    gain = float(says["gain_dn_per_photon"]) * float(says["excess_noise"])
    assert found.gain == pytest.approx(gain, rel=0.1)
    assert found.offset == pytest.approx(float(says["offset_dn"]), abs=0.3 * gain)
    assert fit.line_error < 0.08


def test_a_known_offset_gives_the_read_noise() -> None:
    known = DETECTORS[2]
    found, _, fit = parts(calibrate([recorded(known, 1)], offset=200))
    assert found.offset == 200
    assert fit.offset_range is None
    assert found.read_noise == pytest.approx(6, abs=1)
    with pytest.raises(UsageError, match="an offset of 300 counts: the noise of the frames allows"):
        calibrate([recorded(known, 1)], offset=300)


def test_several_movies_give_a_range_of_photon_rates() -> None:
    dim, bright = (
        Detect(photons=photons, gain=4, offset=100, read_noise=3, background=0.05)
        for photons in (10, 40)
    )
    found, _, fit = parts(calibrate([recorded(dim, 1), recorded(bright, 1, count=6)]))
    assert fit.frames == 16
    assert found.spread == pytest.approx(2, rel=0.15)
    assert found.photons == pytest.approx(20, rel=0.2)


def test_a_calibrated_crappifier_is_calibrated_to_itself_again() -> None:
    first = calibrate([recorded(DETECTORS[0], 1)])
    frames = first.crappify(np.repeat(sample(1), 10, axis=0)).frames
    (known, _, _), (found, _, fit) = parts(first), parts(calibrate([frames]))
    assert found.gain == pytest.approx(known.gain, rel=3 * fit.gain_error)
    assert found.gain * found.photons == pytest.approx(known.gain * known.photons, rel=0.2)


def test_frames_of_floats_are_not_digitised_and_12_bits_stay_12() -> None:
    counts = recorded(DETECTORS[0], 1)
    as_floats = calibrate([counts.astype(np.float32)])
    assert as_floats.crappify(sample(1)).frames.dtype == np.float32
    twelve = calibrate([counts], bits=12)
    assert twelve.steps[-1] == Digitise(maximum=4095)
    eight = calibrate([counts.clip(0, 250).astype(np.uint8)])
    assert eight.crappify(sample(1)).frames.dtype == np.uint8
    with pytest.raises(UsageError, match="63 is the most of 6 bits"):
        calibrate([counts], bits=6)


def poisson(mean: float, count: int = 8) -> Frames:
    return np.random.default_rng(0).poisson(mean, (count, 64, 64)).astype(np.uint16)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([], "there are none"),
        ([poisson(50, 4)], "a movie has 4; give at least 5 consecutive ones"),
        ([poisson(50)[0]], "a movie has 1"),
        ([poisson(50)[:, :16]], "they have 16×64 pixels"),
        ([np.full((8, 64, 64), 7, np.uint16)], "all pixels are 7"),
        ([poisson(50).clip(0, 60)], "they are saturated: .* % of the pixels are at 60"),
        ([poisson(50), poisson(50).astype(np.uint8)], "not all of one real dtype"),
        ([np.where(poisson(50) > 70, np.nan, 1.0)], "not finite"),
        ([poisson(50)], "their noise does not grow with brightness"),
    ],
)
def test_frames_that_cannot_be_fitted_are_refused(frames: list[Frames], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        calibrate(frames)
    assert "\n" not in str(caught.value)


def test_repeated_frames_have_no_noise_to_fit() -> None:
    still = np.repeat(recorded(DETECTORS[0], 1)[:1], 8, axis=0)
    with pytest.raises(UsageError, match="consecutive frames are identical"):
        calibrate([still])


def test_noise_that_brightness_does_not_change_is_refused() -> None:
    rng = np.random.default_rng(0)
    still = np.linspace(100, 900, 128 * 128).reshape(128, 128)
    frames = np.rint(still + rng.normal(0, 5, (8, 128, 128))).astype(np.uint16)
    with pytest.raises(UsageError, match="their noise does not grow with brightness"):
        calibrate([frames])


def test_movies_at_full_sampling_that_show_nothing_are_refused() -> None:
    frames = recorded(DETECTORS[0], 1)
    with pytest.raises(UsageError, match="one has 256×256 pixels from 3 to 3"):
        calibrate([frames], [np.full((1, 256, 256), 3.0)])
    with pytest.raises(UsageError, match="give movies of at least 128×128"):
        calibrate([frames], [sample(1)[:, :64]])


def test_frames_that_were_smoothed_are_taken_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    frames = recorded(DETECTORS[0], 1).astype(np.float32)
    smooth = ndimage.uniform_filter(frames, (0, 1, 2))
    fitted = calibrate([np.asarray(smooth)])
    assert fitted.fit is not None
    assert fitted.fit.noise_correlation == pytest.approx(0.5, abs=0.05)
    assert "neighbouring pixels change together" in caplog.text


def test_files_become_a_crappifier_for_training(tmp_path: Path) -> None:
    known = DETECTORS[0]
    tifffile.imwrite(tmp_path / "low.tif", recorded(known, 1), imagej=True)
    tifffile.imwrite(tmp_path / "high.tif", sample(1))
    out = tmp_path / "scope.toml"
    text = calibrate_files(
        [tmp_path / "low.tif"], out, high_resolution=[tmp_path / "high.tif"], pixel_size_um=0.17
    )
    crappifier = find_crappifier(str(out))
    assert (crappifier.name, crappifier.pixel_size_um) == ("scope", 0.17)
    found, _, _ = parts(crappifier)
    assert f"gain                 {found.gain:.4g} counts a photon" in text
    for figure in ("offset", "read noise", "photons", "background", "blur", "power spectrum"):
        assert f"\n{figure}" in text
    with pytest.raises(UsageError, match="it exists"):
        calibrate_files([tmp_path / "low.tif"], out)


def test_without_movies_at_full_sampling_the_blur_is_said_not_to_be_fitted(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "low.tif", recorded(DETECTORS[0], 1), imagej=True)
    text = calibrate_files([tmp_path / "low.tif"], tmp_path / "scope.toml", offset=100)
    assert "not fitted: give --high-resolution" in text
    assert "100 counts (given)" in text
    assert "power spectrum" not in text


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    micron = {"axes": "TYX", "unit": "um"}
    for name, movie, pixel in (("low", recorded(DETECTORS[0], 1), 0.17), ("high", sample(1), 0.1)):
        per_um = (1 / pixel, 1 / pixel)
        tifffile.imwrite(
            tmp_path / f"{name}.tif", movie, imagej=True, resolution=per_um, metadata=micron
        )
    low, high, out = (tmp_path / name for name in ("low.tif", "high.tif", "scope.toml"))
    with pytest.raises(UsageError, match=r"its pixels are 0\.1 µm, those of the frames 0\.17 µm"):
        calibrate_files([low], out, high_resolution=[high])
    with pytest.raises(SourceError):
        calibrate_files([tmp_path / "missing.tif"], out)
    assert not out.exists()


@pytest.mark.parametrize("size", [0.0, -0.1, float("nan"), float("inf")])
def test_a_pixel_size_that_no_file_could_hold_is_refused(tmp_path: Path, size: float) -> None:
    tifffile.imwrite(tmp_path / "low.tif", recorded(DETECTORS[0], 1), imagej=True)
    with pytest.raises(UsageError, match=r"--pixel-size .* is no size above 0"):
        calibrate_files([tmp_path / "low.tif"], tmp_path / "a.toml", pixel_size_um=size)


def test_a_folder_that_is_missing_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="its folder does not exist"):
        calibrate_files([tmp_path / "missing.tif"], tmp_path / "none" / "a.toml")


def test_restored_frames_are_refused(tmp_path: Path) -> None:
    about = {"axes": "TYX", "Description": PREDICTION}
    tifffile.imwrite(
        tmp_path / "restored.ome.tif",
        recorded(DETECTORS[0], 1),
        photometric="minisblack",
        metadata=about,
    )
    with pytest.raises(SourceError, match="its pixels are predictions"):
        calibrate_files([tmp_path / "restored.ome.tif"], tmp_path / "a.toml")


def test_czi_is_taken(tmp_path: Path) -> None:
    pytest.importorskip("czifile")
    ramps = Path(__file__).parent / "data" / "ramps.czi"
    with pytest.raises(UsageError, match="a movie has 3; give at least 5 consecutive ones"):
        calibrate_files([ramps], tmp_path / "a.toml")


def test_real_recordings_are_fitted_or_refused_with_the_reason(shared_data: Path) -> None:
    membrane = tifffile.imread(shared_data / "membrane_2d_timelapse.tif")
    with pytest.raises(UsageError, match=r"saturated: 1\.0 % of the pixels are at 4095"):
        calibrate([membrane])
    golgi = tifffile.imread(shared_data / "xyt_calibrated_16bit__golgi_bfa_sum_projection.tif")
    _, _, fit = parts(calibrate([golgi]))
    assert fit.noise_correlation > 0.4  # a sum of slices, and it moves: the figures say so
