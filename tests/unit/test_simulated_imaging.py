"""What the simulated confocal does to light: blur, scan, noise, bleaching."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pssr_live.frames import Frame
from pssr_live.settings import SimSettings
from pssr_live.source import StreamInfo
from pssr_live_drivers.simulated.optics import Objective, lateral_sigma_um, section_um
from pssr_live_drivers.simulated.presets import PRESETS
from pssr_live_drivers.simulated.scanner import SimulatedScanner
from pssr_live_drivers.simulated.scene import Emitters, Layer, nothing, resting

FWHM = np.sqrt(8 * np.log(2))
NEURON = PRESETS["neuron"]
PIXEL_UM = NEURON.pixel_um


class Stage:
    """A scene of given emitters that moves as a whole, or rests."""

    def __init__(self, emitters: Emitters, world_um: float) -> None:
        self.world_um = world_um
        self._rests = not (emitters.vx.any() or emitters.vy.any())
        self._emitters = emitters

    def advance(self, seconds: float) -> None:
        e = self._emitters
        self._emitters = replace(e, x=e.x + e.vx * seconds, y=e.y + e.vy * seconds)

    def still(self) -> Layer:
        return Layer(self._emitters if self._rests else nothing(), nothing())

    def moving(self) -> Layer:
        return Layer(nothing() if self._rests else self._emitters, nothing())


def points(
    x: list[float], y: list[float], weight: float = 1.0, vx: float = 0.0, vy: float = 0.0
) -> Emitters:
    still = resting(np.array(x), np.array(y), np.full(len(x), weight))
    return replace(still, vx=still.vx + np.float32(vx), vy=still.vy + np.float32(vy))


def scan(
    monkeypatch: pytest.MonkeyPatch,
    emitters: Emitters,
    count: int = 1,
    fade: float = 0.0,
    pinhole_au: float = 2.5,
    **settings: object,
) -> tuple[StreamInfo, list[Frame]]:
    """Scan given emitters in a world with margins of 8 µm; no bleaching unless asked for."""

    def stage(_: np.random.Generator, field_um: float) -> Stage:
        return Stage(emitters, field_um + 16.0)

    preset = replace(NEURON, scene=stage, fade=fade, pinhole_au=pinhole_au)
    monkeypatch.setitem(PRESETS, "neuron", preset)
    asked = {"size": 64, "interval_ms": 0, "photons": 1e6, **settings}
    source = SimulatedScanner(SimSettings(**asked))  # type: ignore[arg-type]
    info = source.open()
    return info, list(itertools.islice(source.frames(), count))


def number(info: StreamInfo, name: str) -> float:
    value = info.metadata[name]
    assert isinstance(value, float)
    return value


def spot(pixels: NDArray[np.uint16], pixel_um: float) -> NDArray[np.float64]:
    """x and y of the brightest spot's centre of mass, µm."""
    reach = round(0.5 / pixel_um)
    row, column = np.unravel_index(np.argmax(pixels), pixels.shape)
    part = pixels[row - reach : row + reach + 1, column - reach : column + reach + 1]
    part = np.clip(part.astype(np.float64) - np.median(part[[0, -1]]) - 40, 0, None)
    away = np.arange(-reach, reach + 1)
    x = column + 0.5 + (part * away).sum() / part.sum()
    y = row + 0.5 + (part * away[:, None]).sum() / part.sum()
    return np.array([x, y]) * pixel_um


def shift_px(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares shift from b to a (rows, columns), pixels."""
    slopes = np.stack([part.ravel() for part in np.gradient(b)], axis=1)
    return np.linalg.lstsq(slopes, (b - a).ravel(), rcond=None)[0]


# -- optics ---------------------------------------------------------------------------------


def test_an_open_pinhole_shows_the_laser_spot() -> None:
    objective = Objective(na=1.4, excitation_nm=561, emission_nm=605)
    fwhm = FWHM * lateral_sigma_um(objective, 10.0)
    assert fwhm == pytest.approx(0.51 * 0.561 / 1.4, rel=0.03)


def test_a_closed_pinhole_sharpens_by_almost_the_root_of_two() -> None:
    objective = Objective(na=1.4, excitation_nm=600, emission_nm=600)
    ratio = lateral_sigma_um(objective, 10.0) / lateral_sigma_um(objective, 0.05)
    assert ratio == pytest.approx(1.39, abs=0.04)


def test_a_wider_pinhole_shows_a_thicker_slice() -> None:
    objective = Objective(na=1.4, excitation_nm=561, emission_nm=605)
    thin, thick = section_um(objective, 1.0), section_um(objective, 2.5)
    assert 0.8 < thin < 1.1
    assert 1.9 < thick < 2.2


# -- sampling and registration --------------------------------------------------------------


def test_a_point_is_where_it_is_in_raw_and_in_ground_truth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = (21.5 * PIXEL_UM, 40.5 * PIXEL_UM)  # the centre of a scanner pixel
    _, (frame,) = scan(monkeypatch, points([at[0]], [at[1]], 0.01), truth=True)
    assert frame.truth is not None
    assert np.unravel_index(np.argmax(frame.pixels), frame.pixels.shape) == (40, 21)
    assert spot(frame.pixels, PIXEL_UM) == pytest.approx(at, abs=0.004)
    assert spot(frame.truth, PIXEL_UM / 4) == pytest.approx(at, abs=0.03)
    # Pixels 4i..4i+3 of ground truth lie symmetrically around the centre of scanner pixel i.
    block = frame.truth[160:164, 84:88].astype(np.float64)
    assert block == pytest.approx(block[::-1, ::-1], rel=0.01)
    assert block.max() == frame.truth.max()


def test_a_scanner_pixel_sees_a_spot_and_not_the_mean_of_its_area(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = 32.5 * PIXEL_UM
    info, (frame,) = scan(monkeypatch, points([x], [x], 0.01))
    light = frame.pixels - number(info, "offset_dn")
    sigma = number(info, "psf_fwhm_nm") / 1000 / FWHM / PIXEL_UM
    assert light[32, 33] / light[32, 32] == pytest.approx(np.exp(-1 / (2 * sigma**2)), abs=0.03)


@pytest.mark.parametrize("preset", ["neuron", "u2os"])
@pytest.mark.parametrize("seed", [5, 6])
def test_raw_and_ground_truth_of_a_living_scene_are_registered(preset: str, seed: int) -> None:
    asked = SimSettings(
        preset=preset,  # type: ignore[arg-type]
        size=128,
        interval_ms=0,
        photons=1e6,
        truth=True,
        seed=seed,
    )
    source = SimulatedScanner(asked)
    source.open()
    frame = next(source.frames())
    assert frame.truth is not None
    raw = frame.pixels.astype(np.float64)
    blocks = frame.truth.astype(np.float64).reshape(128, 4, 128, 4).mean(axis=(1, 3))
    assert shift_px(raw, blocks) == pytest.approx([0, 0], abs=0.015)
    assert np.corrcoef(raw.ravel(), blocks.ravel())[0, 1] > 0.99
    assert raw.mean() == pytest.approx(blocks.mean(), rel=0.01)


def test_what_moves_is_sheared_by_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = 40.0  # µm/s
    y = np.arange(-1, 13, 0.05)
    emitters = points([2.0] * y.size, list(y), 0.001, vx=speed)
    info, (frame,) = scan(monkeypatch, emitters, truth=True)
    assert frame.truth is not None
    line_s = number(info, "line_ms") / 1000
    for pixels, step in ((frame.pixels, PIXEL_UM), (frame.truth, PIXEL_UM / 4)):
        image = pixels - np.median(pixels, axis=1)[:, None]
        away = np.arange(image.shape[1]) - np.argmax(image, axis=1)[:, None]
        image[np.abs(away) > 0.6 / step] = 0
        x = (image * (np.arange(len(image)) + 0.5)).sum(axis=1) / image.sum(axis=1) * step
        lines = (np.arange(len(image)) + 0.5) * step / PIXEL_UM
        slope, start = np.polyfit(lines * line_s, x, 1)
        assert slope == pytest.approx(speed, rel=0.02)
        assert start == pytest.approx(2.0, abs=0.02)
        # From line to line, not in steps of many lines.
        assert np.abs(x - start - slope * lines * line_s).max() < 0.03


def test_what_moves_with_the_scan_is_met_later(monkeypatch: pytest.MonkeyPatch) -> None:
    info, _ = scan(monkeypatch, points([5.0], [5.0]))
    scan_speed = PIXEL_UM / number(info, "line_ms") * 1000  # µm/s
    for y in (2.0, 5.0):
        emitters = points([5.0], [y], 0.01, vy=0.2 * scan_speed)
        _, (frame,) = scan(monkeypatch, emitters)
        assert spot(frame.pixels, PIXEL_UM)[1] == pytest.approx(y / 0.8, abs=0.02)


def test_drift_carries_the_sample_away_and_back_in_at_the_other_edge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = points([5.4], [5.4], 0.01)
    _, frames = scan(monkeypatch, here, 41, drift_um_per_min=60.0, interval_ms=10.0)
    start, end = (spot(frame.pixels, PIXEL_UM) for frame in frames[::40])
    assert np.hypot(*(end - start)) == pytest.approx(0.4, abs=0.02)
    lines = points(
        list(np.arange(0.0, 26.0, 0.1)) * 9, list(np.repeat(np.arange(0, 26, 3), 260)), 0.005
    )
    _, frames = scan(monkeypatch, lines, 30, drift_um_per_min=60 * 90.0, interval_ms=100.0)
    # 270 µm, ten times around the world of 27 µm: the field is never without a line.
    assert min(int(np.ptp(frame.pixels)) for frame in frames) > 500


WEDGE = 5e-5

# -- detector -------------------------------------------------------------------------------


def ramp() -> Emitters:
    """An even wedge of light along x."""
    axis = np.arange(-2, 14, 0.08)
    x, y = np.meshgrid(axis, axis)
    return resting(x, y, WEDGE * np.clip(x, 0, None))


def test_variance_over_mean_gives_the_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    info, frames = scan(monkeypatch, ramp(), 150, photons=2.0)
    stack = np.stack([frame.pixels for frame in frames]).astype(np.float64)
    mean, variance = stack.mean(axis=0).ravel(), stack.var(axis=0, ddof=1).ravel()
    assert mean.max() < 0.3 * 4095
    slope, ground = np.polyfit(mean, variance, 1, w=1 / mean)
    gain, offset = number(info, "gain_dn_per_photon"), number(info, "offset_dn")
    noise, excess = number(info, "read_noise_dn"), number(info, "excess_noise")
    assert slope == pytest.approx(gain * excess, rel=0.05)
    assert ground == pytest.approx(noise**2 - slope * offset, rel=0.15)


def test_ground_truth_is_the_mean_of_the_noisy_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    _, frames = scan(monkeypatch, ramp(), 60, pinhole_au=1.0, photons=20.0, truth=True)
    mean = np.stack([frame.pixels for frame in frames]).mean(axis=0)[4:-4, 4:-4]
    truth = np.stack([frame.truth for frame in frames if frame.truth is not None]).mean(axis=0)
    blocks = truth.reshape(64, 4, 64, 4).mean(axis=(1, 3))[4:-4, 4:-4]
    assert mean.mean() == pytest.approx(blocks.mean(), rel=0.01)
    assert np.corrcoef(mean.ravel(), blocks.ravel())[0, 1] > 0.95


def test_the_brightest_structures_give_the_photons_asked_for() -> None:
    for preset, seed in itertools.product(("neuron", "u2os"), range(2)):
        source = SimulatedScanner(
            SimSettings(preset=preset, seed=seed, size=256, interval_ms=0, photons=1e5)  # type: ignore[arg-type]
        )
        info = source.open()
        frame = next(source.frames())
        light = np.percentile(frame.pixels, 99.9) - number(info, "offset_dn")
        assert 0.5e5 < light / number(info, "gain_dn_per_photon") < 2e5


def test_values_are_clipped_to_the_bits_of_the_digitiser(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (frame,) = scan(monkeypatch, points([5.4], [5.4], 1e3), photons=10.0, truth=True)
    assert frame.truth is not None
    assert frame.pixels.max() == frame.truth.max() == 4095


def test_bleaching_follows_the_dose(monkeypatch: pytest.MonkeyPatch) -> None:
    fade, usual = NEURON.fade, NEURON.photons

    def lost(photons: float, frames: int) -> float:
        info, movie = scan(
            monkeypatch, ramp(), frames + 1, fade, photons=photons, truth=True, size=32
        )
        dark = number(info, "dark_photons") * number(info, "gain_dn_per_photon")
        ground = number(info, "offset_dn") + dark
        first, last = movie[0].truth, movie[-1].truth
        assert first is not None
        assert last is not None
        return 1 - float((last.mean() - ground) / (first.mean() - ground))

    assert lost(usual, 100) == pytest.approx(fade, rel=0.02)
    assert lost(4 * usual, 25) == pytest.approx(fade, rel=0.02)
    assert lost(4 * usual, 50) == pytest.approx(2 * fade, rel=0.1)
