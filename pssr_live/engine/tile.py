"""Large frames in parts: overlapping tiles of one size, joined so that no seam shows.

A tile's borders lack the surroundings that the network looks at. Of two neighbours that overlap,
each is therefore used up to the middle of the overlap only; there, over a few pixels, one passes
into the other. Where the overlap exceeds twice the network's reach by those pixels, both hold there
what the whole frame in one piece gives. For a network that looks at all of its input no overlap is
enough, and the passage is what keeps a step from showing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pssr_live.engine.base import Engine, EngineReport
from pssr_live.errors import ModelError
from pssr_live.model import Manifest, ModelPackage

__all__ = ["BLEND", "GRID", "Piece", "TiledEngine", "Tiles", "fits", "plan_tiles"]

GRID = 8
"""Tiles begin at multiples of so many raw pixels, and end as the frame ends: there, a network that
halves its sampling has the same positions in a tile as in the frame in one piece."""

BLEND = 8
"""Raw pixels over which a tile passes into the next."""

_SEAM = 10
"""Restored pixels that the published code blurs at each seam."""
_SIGMA = 1.0
_RADIUS = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """What one tile gives along one axis, raw pixels.

    Attributes
    ----------
    origin : int
        Where the tile begins.
    start, stop : int
        The part of the frame that is taken from it.
    blend : int
        Over so many pixels from ``start`` the tile before passes into this one.
    """

    origin: int
    start: int
    stop: int
    blend: int


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles along one axis of a frame.

    Attributes
    ----------
    size : int
        Raw pixels of each.
    pieces : tuple of Piece
        What each gives, in order.
    """

    size: int
    pieces: tuple[Piece, ...]


def fits(manifest: Manifest, height: int, width: int) -> bool:
    """Tell whether a model restores frames of this size in one piece.

    Parameters
    ----------
    manifest : Manifest
        The model's.
    height, width : int
        Size of the raw frames, pixels.

    Returns
    -------
    bool
    """
    return manifest.tiling is None or max(height, width) <= manifest.tiling.size


def plan_tiles(manifest: Manifest, length: int) -> Tiles:
    """Divide one axis of a frame: as few tiles as possible, and those as small as possible.

    Parameters
    ----------
    manifest : Manifest
        The model's.
    length : int
        H or W of the raw frames, pixels.

    Returns
    -------
    Tiles
        One tile of the whole length where that fits.

    Raises
    ------
    ModelError
        The manifest's tiles overlap so much that they do not get anywhere, or are too small for
        the network.
    """
    tiling = manifest.tiling
    if tiling is None or length <= tiling.size:
        return Tiles(length, (Piece(0, 0, length, 0),))
    smallest = max(tiling.overlap + GRID, manifest.min_size)
    if tiling.size - GRID + 1 < smallest:
        raise ModelError(
            f"model {manifest.name} cannot restore frames in tiles of {tiling.size} pixels",
            f"with an overlap of {tiling.overlap} and a smallest size of {manifest.min_size}, "
            f"tiles need {smallest + GRID - 1}",
            "correct the tiling in its manifest",
        )
    # All counted in steps of the grid, from the last tile that would begin at the frame's start.
    ending = length % GRID
    overlap = -(-(tiling.overlap - ending) // GRID)
    steps = length // GRID
    count = -(-(steps - overlap) // ((tiling.size - ending) // GRID - overlap))
    size = max(-(-(steps - overlap) // count) + overlap, -(-(smallest - ending) // GRID))
    origins = [GRID * (place * (steps - size) // (count - 1)) for place in range(count)]
    return _joined(origins, GRID * size + ending, length, blend=0 if tiling.seam_blur else BLEND)


def _joined(origins: list[int], size: int, length: int, *, blend: int) -> Tiles:
    """Cut tiles in the middle of what they share."""
    seams = [(before + after + size) // 2 for before, after in pairwise(origins)]
    halves = [min(blend, before + size - after) // 2 for before, after in pairwise(origins)]
    pieces = tuple(
        Piece(
            origin=origin,
            start=seams[place - 1] - halves[place - 1] if place else 0,
            stop=seams[place] + halves[place] if place < len(seams) else length,
            blend=2 * halves[place - 1] if place else 0,
        )
        for place, origin in enumerate(origins)
    )
    return Tiles(size, pieces)


class TiledEngine:
    """Restores large frames in tiles, with an engine for frames of the tiles' size.

    What goes in is normalised already, by what the whole window holds; so tiles agree.

    Parameters
    ----------
    engine : Engine
        Restores the tiles.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._scale = 1
        self._seam_blur = False
        self._rows = self._columns = Tiles(0, ())
        self._input: NDArray[np.float32] = np.empty(0, np.float32)
        self._output: NDArray[np.float32] = np.empty(0, np.float32)
        self._band: NDArray[np.float32] = np.empty(0, np.float32)

    def prepare(self, model: ModelPackage, height: int, width: int) -> EngineReport:
        """Plan the tiles and compile for their size; see `Engine`."""
        model.check_size(height, width)
        manifest = model.manifest
        self._scale = manifest.scale
        self._seam_blur = manifest.tiling is not None and manifest.tiling.seam_blur
        self._rows, self._columns = (plan_tiles(manifest, side) for side in (height, width))
        size = self._rows.size, self._columns.size
        report = self._engine.prepare(model, *size)
        self._input = np.empty((1, manifest.window_length, *size), np.float32)
        self._output = np.empty((self._scale * height, self._scale * width), np.float32)
        self._band = np.empty((self._scale * BLEND, self._scale * width), np.float32)
        return replace(report, tiles=len(self._rows.pieces) * len(self._columns.pieces))

    def run(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Restore all tiles and join them; see `Engine`."""
        for row in self._rows.pieces:
            top = slice(row.origin, row.origin + self._rows.size)
            for column in self._columns.pieces:
                left = slice(column.origin, column.origin + self._columns.size)
                np.copyto(self._input, window[..., top, left])
                self._join(self._engine.run(self._input), row, column)
            self._join_band(row)
        if self._seam_blur:
            self._blur_seams()
        return self._output

    def close(self) -> None:
        """Let go of the engine and of the joined frame; see `Engine`."""
        self._engine.close()
        self._input = self._output = self._band = np.empty(0, np.float32)

    def _join(self, tile: NDArray[np.float32], row: Piece, column: Piece) -> None:
        """Write a tile's part of the frame, next to what is there already.

        Rows in which the tiles above pass into this one wait in the band until all of them are
        there; only then does every pixel get its share of each neighbour, at the corners too.
        """
        scale = self._scale
        tile = tile[
            scale * (row.start - row.origin) : scale * (row.stop - row.origin),
            scale * (column.start - column.origin) : scale * (column.stop - column.origin),
        ]
        band = scale * row.blend
        below = slice(scale * row.start + band, scale * row.stop)
        columns = slice(scale * column.start, scale * column.stop)
        across = _ramp(scale * column.blend)
        _pass_into(self._band[:band, columns], tile[:band], across)
        _pass_into(self._output[below, columns], tile[band:], across)

    def _join_band(self, row: Piece) -> None:
        """Let the tiles above pass into those of this row."""
        down = _ramp(self._scale * row.blend)[:, None]
        top = self._scale * row.start
        above = self._output[top : top + len(down)]
        above += down * (self._band[: len(down)] - above)

    def _blur_seams(self) -> None:
        """Blur the seams as the published code does: first those across, then those down."""
        half = _SEAM // 2
        for column in self._columns.pieces[1:]:
            seam = self._scale * column.start
            _blur(self._output[:, seam - half : seam + half])
        for row in self._rows.pieces[1:]:
            seam = self._scale * row.start
            _blur(self._output[seam - half : seam + half])


def _ramp(length: int) -> NDArray[np.float32]:
    """Rise from 0 to 1, both left out."""
    return (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(max(length, 1))


def _pass_into(
    target: NDArray[np.float32], tile: NDArray[np.float32], across: NDArray[np.float32]
) -> None:
    """Write a tile; over its first columns, what is there already passes into it."""
    seam = target[:, : len(across)]
    seam += across * (tile[:, : len(across)] - seam)
    target[:, len(across) :] = tile[:, len(across) :]


def _blur(strip: NDArray[np.float32]) -> None:
    """Blur by a Gaussian in place; beyond its borders a strip goes on as it ends."""
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    kernel = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (_RADIUS, _RADIUS)
        padded = np.pad(strip, padding, mode="edge")
        along = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=axis)
        strip[...] = along @ kernel
