"""The simulated scanner: a source of frames that needs no hardware."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np

from pssr_live.frames import Frame, Tag, read_only
from pssr_live.settings import RunSettings, SimSettings
from pssr_live.source import FrameSource, StreamInfo
from pssr_live_drivers.simulated.detector import Detector
from pssr_live_drivers.simulated.optics import lateral_sigma_um, section_um
from pssr_live_drivers.simulated.presets import PRESETS
from pssr_live_drivers.simulated.render import Blur, Renderer
from pssr_live_drivers.simulated.scene import Emitters, Floats, Layer, nothing, straight_tube

__all__ = ["Clock", "SimulatedScanner", "SystemClock", "simulated_scanner"]

DUTY = 0.859
"""Share of a line's time in which the laser rests on pixels; the rest is flyback."""

FLOOR = 0.4
"""Signal left in the long run: fresh molecules come as fast as others bleach."""

BRIGHT_SHARE = 0.35
"""The gain is set so that the brightest structures reach this share of the digitiser's range."""

CHANNEL = "mitochondria"

BRIGHT_RADIUS_UM = 0.27
"""Radius of the tube that counts as a brightest structure."""


class Clock(Protocol):
    """Time, so that tests need not wait for it."""

    def now_ns(self) -> int:
        """Give the monotonic time, ns."""

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> None:
        """Return at the deadline, or as soon as ``stop`` is set."""


class SystemClock:
    """The computer's monotonic clock."""

    def now_ns(self) -> int:
        """Give the monotonic time, ns."""
        return time.monotonic_ns()

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> None:
        """Return at the deadline, or as soon as ``stop`` is set."""
        left = deadline_ns - time.monotonic_ns()
        if left > 0:
            stop.wait(left / 1e9)


class SimulatedScanner:
    """A laser-scanning confocal with a living sample.

    Lines are scanned one after another in one direction, and everything is where it is when its
    line is scanned, to a fraction of a line (the time within a line, half a millisecond, is not
    looked at). Frame ``k`` depends on the settings and on ``k`` only, however late it is
    delivered. A frame that the scanner loses has been scanned: it bleaches, and its index is
    missing.

    Ground truth is what the same scan would have given with four times the sampling and without
    noise: same spot, same pinhole, same haze, in the raw frame's digital numbers. What is left
    between raw and truth is sampling and noise, and their means agree. It is registered with the
    raw frame: pixels ``4i..4i+3, 4j..4j+3`` of ground truth lie around the centre of raw pixel
    ``(i, j)``.

    The sample, its brightness, background and haze and the focus (spot up to 15 % wider than the
    diffraction limit) are drawn by the seed.

    Parameters
    ----------
    settings : SimSettings
        What to simulate.
    clock : Clock
        Paces the frames.
    """

    def __init__(self, settings: SimSettings, clock: Clock | None = None) -> None:
        preset = PRESETS[settings.preset]
        self._settings, self._preset = settings, preset
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._stop = threading.Event()
        self._still: tuple[Floats, Floats | None] | None = None
        self._size = settings.size if settings.size is not None else preset.size
        self._photons = settings.photons if settings.photons is not None else preset.photons
        self._paced = settings.interval_ms != 0
        self._interval_ms = settings.interval_ms or preset.interval_ms
        # A frame that is too large for its interval is scanned faster.
        quickest = DUTY * self._interval_ms * 1000 / self._size**2
        self._dwell_us = min(preset.dwell_us, quickest)
        self._line_s = self._dwell_us * 1e-6 * self._size / DUTY

    def open(self) -> StreamInfo:
        """Make the sample and say what will come."""
        settings, preset = self._settings, self._preset
        draw = np.random.default_rng([settings.seed, 0])
        focus = draw.uniform(1.0, 1.15)
        haze = draw.uniform(0.04, 0.2)  # per µm of optical section
        blur = Blur(
            focus * lateral_sigma_um(preset.objective, preset.pinhole_au),
            haze * section_um(preset.objective, preset.pinhole_au),
        )
        self._heading = draw.uniform(0, 2 * np.pi)
        full = 2.0**preset.bits
        self._detector = Detector(
            bits=preset.bits,
            gain=BRIGHT_SHARE * full / self._photons,
            offset=full / 64,
            read_noise=full / 256,
            pulse_spread=0.35,
            dark=float(draw.uniform(0.03, 0.5)),
        )
        self._renderer = Renderer(self._size, preset.pixel_um, blur)
        self._per_glow = self._photons / self._brightest(blur)
        field_um = self._size * preset.pixel_um
        self._scene = preset.scene(np.random.default_rng([settings.seed, 1]), field_um)
        return StreamInfo(
            source=f"simulated confocal, {settings.preset} preset, seed {settings.seed}",
            height=self._size,
            width=self._size,
            dtype=np.dtype(np.uint16),
            bits=preset.bits,
            pixel_size_um=preset.pixel_um,
            interval_ms=self._interval_ms if self._paced else None,
            channel=CHANNEL,
            truth=settings.truth,
            metadata=self._metadata(blur),
        )

    def _brightest(self, blur: Blur) -> float:
        """Image the brightest structure there is, alone."""
        pixel_um = self._preset.pixel_um
        tube = straight_tube(6.0, BRIGHT_RADIUS_UM, 16 * pixel_um, 15.5 * pixel_um)
        layer = Layer(tube, nothing())
        alone, _ = Renderer(32, pixel_um, blur).render(layer, truth=False)
        return float(alone.max())

    def _metadata(self, blur: Blur) -> dict[str, Tag]:
        settings, preset, detector = self._settings, self._preset, self._detector
        fwhm = 1000 * np.sqrt(8 * np.log(2))
        return {
            "preset": settings.preset,
            "seed": settings.seed,
            "na": preset.objective.na,
            "excitation_nm": preset.objective.excitation_nm,
            "emission_nm": preset.objective.emission_nm,
            "pinhole_au": preset.pinhole_au,
            "psf_fwhm_nm": round(float(fwhm * blur.sigma_um), 1),
            "dwell_us": self._dwell_us,
            "line_ms": 1000 * self._line_s,
            "photons": self._photons,
            "gain_dn_per_photon": detector.gain,
            "offset_dn": detector.offset,
            "read_noise_dn": detector.read_noise,
            "excess_noise": detector.excess_noise,
            "dark_photons": detector.dark,
            "drift_um_per_min": settings.drift_um_per_min,
            "drop_rate": settings.drop_rate,
        }

    def frames(self) -> Iterator[Frame]:
        """Deliver frames, each when its last line has been scanned, until `stop`.

        A frame is drawn ahead of its time. Deadlines are absolute: after a delay, frames come
        without waiting until the pace is met again.
        """
        settings, clock = self._settings, self._clock
        step_ns = round(self._interval_ms * 1e6)
        scan_ns = round(self._size * self._line_s * 1e9)
        drops = np.random.default_rng([settings.seed, 2])
        start_ns = clock.now_ns()
        for index in itertools.count():
            if drops.random() >= settings.drop_rate:
                frame = self._frame(index, index * step_ns)
                if self._paced:
                    clock.wait_until(start_ns + frame.t_source_ns + scan_ns, self._stop)
                if self._stop.is_set():
                    return
                yield replace(frame, t_host_ns=clock.now_ns())
            if self._stop.is_set():
                return
            self._scene.advance(self._interval_ms / 1000)

    def stop(self) -> None:
        """End the frames, and any waiting, at once."""
        self._stop.set()

    def close(self) -> None:
        """Nothing is held open."""

    def _unbleached(self, index: int) -> float:
        """Share of the signal that is left when a frame is scanned; falls with the dose before."""
        dose = index * self._photons / self._preset.photons
        kept = 1 - self._preset.fade / (1 - FLOOR)
        return FLOOR + (1 - FLOOR) * float(kept ** (dose / 100))

    def _frame(self, index: int, t_source_ns: int) -> Frame:
        """Scan a frame; the time of its delivery is still open."""
        settings, detector = self._settings, self._detector
        raw, fine = self._image(t_source_ns / 1e9)
        unbleached = self._unbleached(index)
        level = np.float32(self._per_glow * unbleached)
        noise = np.random.default_rng([settings.seed, 3, index])
        pixels = detector.detect(raw * level, noise)
        truth = None if fine is None else read_only(detector.ideal(fine * level))
        return Frame(
            pixels=read_only(pixels),
            index=index,
            t_source_ns=t_source_ns,
            t_host_ns=0,
            pixel_size_um=self._preset.pixel_um,
            channel=CHANNEL,
            tags={
                "dwell_us": self._dwell_us,
                "line_ms": 1000 * self._line_s,
                "expected_photons": self._photons * unbleached,
                "unbleached": unbleached,
            },
            truth=truth,
        )

    def _image(self, seconds: float) -> tuple[Floats, Floats | None]:
        """Image the sample without noise; what is still is drawn only once, if it does not drift.

        Returns
        -------
        raw, truth : ndarray
            In the scene's unit of brightness.
        """
        truth, drawn = self._settings.truth, self._still
        if drawn is None or self._settings.drift_um_per_min:
            still = self._scene.still()
            layer = Layer(self._scanned(still.sharp, seconds), self._scanned(still.haze, seconds))
            self._still = drawn = self._renderer.render(layer, truth)
        moving = self._scene.moving()
        layer = Layer(self._scanned(moving.sharp, seconds), self._scanned(moving.haze, seconds))
        raw, fine = self._renderer.render(layer, truth)
        raw += drawn[0]
        if fine is not None and drawn[1] is not None:
            fine += drawn[1]
        return raw, fine

    def _scanned(self, points: Emitters, seconds: float) -> Emitters:
        """Put every emitter where it is when its line is scanned."""
        preset, world = self._preset, self._scene.world_um
        drift = self._settings.drift_um_per_min / 60
        drift_x, drift_y = drift * np.cos(self._heading), drift * np.sin(self._heading)
        margin = (world - self._size * preset.pixel_um) / 2
        # In two steps, so that a long run does not eat up the digits of float32.
        shift_x, shift_y = drift_x * seconds % world, drift_y * seconds % world
        x = _wrapped(points.x + np.float32(shift_x), margin, world)
        y = _wrapped(points.y + np.float32(shift_y), margin, world)
        # The line reached when the emitter is there: y + vy t = t * pixel / line.
        vx, vy = points.vx + np.float32(drift_x), points.vy + np.float32(drift_y)
        later = np.maximum(y, 0) / (np.float32(preset.pixel_um / self._line_s) - vy)
        return Emitters(x + vx * later, y + vy * later, vx, vy, points.weight)


def _wrapped(place: Floats, margin: float, world: float) -> Floats:
    """Bring places back into the world, which starts a margin before the field."""
    turns = np.floor((place + np.float32(margin)) * np.float32(1 / world))
    return np.asarray(place - turns * np.float32(world))


def simulated_scanner(settings: RunSettings) -> FrameSource:
    """Make the source that ``--scope sim`` names.

    Parameters
    ----------
    settings : RunSettings
        Its part ``sim`` is read.

    Returns
    -------
    FrameSource
    """
    return SimulatedScanner(settings.sim)
