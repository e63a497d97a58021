"""From emitters to the expected image, at scanner sampling and at four times that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pssr_live_drivers.simulated.scene import Emitters, Floats, Layer

__all__ = ["SCALE", "Blur", "Renderer"]

SCALE = 4
"""Ground truth has this many pixels per scanner pixel and axis."""

STRIP = 32
"""Scanner lines rendered at a time: bounds the memory, and fits the cache."""

CELL = 4
"""Edge of a haze cell, scanner pixels."""

MARGIN = 8
"""Haze cells beyond each edge of the field."""

BILINEAR = 1 / 6
"""Mean variance that sharing a point among its four neighbours adds, pixels²."""


@dataclass(frozen=True, slots=True)
class Blur:
    """How the microscope blurs.

    Attributes
    ----------
    sigma_um : float
        Standard deviation of the spot, µm.
    haze : float
        Light from outside the focus, as a share of the light in focus.
    """

    sigma_um: float
    haze: float


def _gauss(distance: NDArray[np.float64], sigma: float) -> list[float]:
    sigma = np.sqrt(sigma**2 - BILINEAR)
    weights = np.exp(-(distance**2) / (2 * sigma**2))
    return [float(value) for value in weights / weights.sum()]


def _smooth(cells: Floats, sigma: float) -> Floats:
    """Blur a small image in both axes."""
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        pad = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.moveaxis(np.pad(cells, pad), axis, 0)
        size = cells.shape[axis]
        total = sum(weight * padded[k : k + size] for k, weight in enumerate(kernel))
        cells = np.moveaxis(np.asarray(total, np.float32), 0, axis)
    return cells


def _interpolate(cells: Floats, rows: range, columns: int, per_cell: int) -> Floats:
    """Read haze cells at the centres of finer pixels, bilinearly."""

    def places(first: int, count: int) -> tuple[NDArray[np.intp], Floats]:
        centre = (np.arange(first, first + count) + 0.5) / per_cell - 0.5 + MARGIN
        low = np.floor(centre).astype(np.intp)
        return low, (centre - low).astype(np.float32)

    low, part = places(0, columns)
    wide = cells[:, low] * (1 - part) + cells[:, low + 1] * part
    low, part = places(rows.start, len(rows))
    fine = wide[low] * (1 - part[:, None]) + wide[low + 1] * part[:, None]
    return np.asarray(fine, np.float32)


def _gather_rows(grid: Floats, taps: list[float], start: int, count: int, step: int) -> Floats:
    """Weigh shifted rows: ``out[i] = sum(taps[k] * grid[start + k + step i])``."""
    out = np.zeros((count, grid.shape[1]), np.float32)
    part = np.empty_like(out)
    for k, weight in enumerate(taps):
        np.multiply(grid[start + k : start + k + step * count : step], weight, out=part)
        out += part
    return out


def _gather_columns(grid: Floats, taps: list[float], start: int, count: int, step: int) -> Floats:
    """Weigh shifted columns."""
    out = np.zeros((grid.shape[0], count), np.float32)
    part = np.empty_like(out)
    for k, weight in enumerate(taps):
        np.multiply(grid[:, start + k : start + k + step * count : step], weight, out=part)
        out += part
    return out


class Renderer:
    """Draws emitters as a confocal sees them, without noise.

    Emitters are shared out bilinearly onto a grid with four times the scanner's sampling; the
    scanner's image is that grid blurred and read at the centres of its pixels (the laser rests on
    one spot per pixel: the spot is not smeared over the coarse pixel, which is what
    undersampling means), ground truth is the same grid blurred and read everywhere. So both are
    registered: scanner pixel ``(i, j)`` has its centre at ``((i + 0.5) p, (j + 0.5) p)`` for a
    pixel size ``p``, the centre of the ground truth's pixels ``4i..4i+3, 4j..4j+3``.

    Parameters
    ----------
    size : int
        Scanner pixels per line, and lines.
    pixel_um : float
        Edge of a scanner pixel, µm.
    blur : Blur
        Imaging, the same for the scanner's frame and the ground truth.
    haze_um : float
        Standard deviation of the haze, µm.
    """

    def __init__(self, size: int, pixel_um: float, blur: Blur, haze_um: float = 1.6) -> None:
        self.size = size
        self._per_um = SCALE / pixel_um
        self._haze_share = blur.haze
        self._haze_cells = haze_um / pixel_um / CELL
        sigma = blur.sigma_um * self._per_um
        self._reach = int(np.ceil(3.3 * sigma))
        self._pad = self._reach + 1
        taps = np.arange(-self._reach, self._reach + 1.0)
        self._scan_taps = _gauss(taps[:-1] + 0.5, sigma)
        self._fine_taps = _gauss(taps, sigma)

    def render(self, layer: Layer, truth: bool) -> tuple[Floats, Floats | None]:
        """Draw one layer; layers add up.

        Parameters
        ----------
        layer : Layer
            Velocities are not looked at.
        truth : bool
            Draw the ground truth as well.

        Returns
        -------
        raw : ndarray, shape (size, size), float32
            Expected brightness at the scanner's pixels.
        fine : ndarray, shape (4 size, 4 size), float32, or None
            The same at the ground truth's pixels.
        """
        size = self.size
        haze = self._haze(layer)
        raw = self._haze_share * _interpolate(haze, range(size), size, CELL)
        fine = np.empty((SCALE * size, SCALE * size), np.float32) if truth else None
        for first, last, grid in self._strips(layer.sharp):
            raw[first:last] += self._sampled(grid, last - first)
            if fine is not None:
                rows = range(SCALE * first, SCALE * last)
                part = fine[rows.start : rows.stop]
                part[:] = _interpolate(haze, rows, SCALE * size, SCALE * CELL)
                part *= self._haze_share
                part += self._blurred(grid, len(rows))
        return raw, fine

    def _strips(self, points: Emitters) -> Iterator[tuple[int, int, Floats]]:
        """Share the emitters out onto the fine grid, some lines at a time."""
        pad, columns = self._pad, SCALE * self.size + 2 * self._pad
        x = points.x * np.float32(self._per_um) + np.float32(pad - 0.5)
        y = points.y * np.float32(self._per_um) + np.float32(pad - 0.5)
        end = columns - 1
        inside = np.flatnonzero((x >= 0) & (x < end) & (y >= 0) & (y < end))
        # A radix sort: the rows are short integers.
        inside = inside[np.argsort(y[inside].astype(np.int16), kind="stable")]
        x, y, weight = x[inside], y[inside], points.weight[inside]
        column, row = x.astype(np.int32), y.astype(np.int32)
        right, down = x - column, y - row
        place = row * columns + column
        low_share, high_share = weight * down, weight * (1 - down)
        shares = np.empty((4, place.size))
        np.multiply(high_share, 1 - right, out=shares[0])
        np.multiply(high_share, right, out=shares[1])
        np.multiply(low_share, 1 - right, out=shares[2])
        np.multiply(low_share, right, out=shares[3])
        steps = np.array([0, 1, columns, columns + 1])[:, None]
        for first in range(0, self.size, STRIP):
            last = min(first + STRIP, self.size)
            top, rows = SCALE * first, SCALE * (last - first) + 2 * pad
            low, high = np.searchsorted(row, (top, top + rows - 1))
            places = place[low:high] + (steps - top * columns)
            weights = shares[:, low:high]
            grid = np.bincount(places.ravel(), weights.ravel(), minlength=rows * columns)
            yield first, last, grid.astype(np.float32).reshape(rows, columns)

    def _sampled(self, grid: Floats, lines: int) -> Floats:
        """Blur and read at the centres of the scanner's pixels."""
        start = self._pad + SCALE // 2 - self._reach
        high = _gather_rows(grid, self._scan_taps, start, lines, SCALE)
        return _gather_columns(high, self._scan_taps, start, self.size, SCALE)

    def _blurred(self, grid: Floats, rows: int) -> Floats:
        """Blur at full sampling."""
        start = self._pad - self._reach
        high = _gather_rows(grid, self._fine_taps, start, rows, 1)
        return _gather_columns(high, self._fine_taps, start, SCALE * self.size, 1)

    def _haze(self, layer: Layer) -> Floats:
        """Sum everything that glows into coarse cells and smear it."""
        cells = -(-self.size // CELL) + 2 * MARGIN
        per_um = np.float32(self._per_um / SCALE / CELL)
        total = np.zeros(cells * cells)
        for points in (layer.sharp, layer.haze):
            column = np.floor(points.x * per_um).astype(np.intp) + MARGIN
            row = np.floor(points.y * per_um).astype(np.intp) + MARGIN
            inside = (column >= 0) & (column < cells) & (row >= 0) & (row < cells)
            place = (row * cells + column)[inside]
            total += np.bincount(place, points.weight[inside], minlength=cells * cells)
        density = (total / (SCALE * CELL) ** 2).astype(np.float32).reshape(cells, cells)
        return _smooth(density, self._haze_cells)
