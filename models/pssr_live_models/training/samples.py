"""Training samples: crops of scenes, normalised as the daemon will, mirrored and turned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pssr_live_models.dataset import Batch, drawn_batches, window_frames

__all__ = ["Region", "Samples", "Scaling", "Scene", "draw_window", "validation_batches"]

Image: TypeAlias = NDArray[Any]

SCALE = 4
_LOSSES = 1 / 8
"""Share of the windows that have lost a frame or two."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a window, with its truth.

    Attributes
    ----------
    frames : ndarray, shape (window_length, H, W)
        Undersampled.
    truth : ndarray, shape (4H, 4W)
        Of the frame to restore, on the frames' intensity scale.
    """

    frames: Image
    truth: Image


class Scene(Protocol):
    """Where regions come from: one movie, or one pair of recordings."""

    def region(self, rng: np.random.Generator, size: int, *, varied: bool) -> Region:
        """Cut a region at random.

        Parameters
        ----------
        rng : numpy.random.Generator
            Same state, same region.
        size : int
            Height and width, scanned pixels.
        varied : bool
            To learn from: other sizes, brightness and lost frames occur.

        Returns
        -------
        Region
            At least ``size`` high and wide; exactly that if not ``varied``.
        """


@dataclass(frozen=True, slots=True)
class Scaling:
    """How a window is normalised: as the model's manifest says.

    Attributes
    ----------
    training_statistics : tuple of float, or None
        None: z-scores by the window's own mean and deviation (``window-zscore``); else the
        window's brightest pixel is 1, then this mean and deviation (``window-maximum``).
    """

    training_statistics: tuple[float, float] | None = None

    def __call__(self, window: Image) -> tuple[float, float]:
        """Find what is subtracted from raw intensities, and what they are then divided by."""
        if self.training_statistics is not None:
            mean, std = self.training_statistics
            brightest = max(float(window.max()), 0.0) or 1.0
            return mean * brightest, std * brightest
        deviation = float(np.std(window, dtype=np.float64)) or 1.0
        return float(np.mean(window, dtype=np.float64)), deviation

    def batch(self, region: Region, reference: Image | None = None) -> Batch:
        """Normalise a region, by the statistics of another part of its window if one is given."""
        mean, std = self(region.frames if reference is None else reference)
        # As a share of the truth's variance, dim and bright scenes count alike; at most 10 times.
        weight = std**2 / max(float(np.var(region.truth, dtype=np.float64)), std**2 / 10)
        return Batch(
            ((region.frames.astype(np.float32) - mean) / std).astype(np.float32)[None],
            ((region.truth - mean) / std).astype(np.float32)[None, None],
            np.array([weight], np.float32),
        )


class Samples:
    """Endless random training samples.

    Half of them are normalised by a larger part of the window than they show, so that the network
    gets to see dense, sparse and empty windows.

    Parameters
    ----------
    scenes : sequence of Scene
        Each is as likely as any other.
    seed : int
        Same seed, same samples.
    crop : int
        Height and width, scanned pixels.
    scaling : Scaling
        How windows are normalised.
    """

    def __init__(
        self, scenes: Sequence[Scene], seed: int, *, crop: int, scaling: Scaling | None = None
    ) -> None:
        self._scenes, self._seed, self._crop = scenes, seed, crop
        self._scaling = scaling or Scaling()

    def batches(self, size: int, first: int = 0) -> Iterator[Batch]:
        """Draw batches.

        Parameters
        ----------
        size : int
            Samples per batch.
        first : int
            Number of the first batch: a resumed training goes on where it was.

        Yields
        ------
        Batch
        """
        return drawn_batches(self.draw, self._seed, size, first)

    def draw(self, rng: np.random.Generator) -> Batch:
        """Draw a batch of one; the same state gives the same sample."""
        scene = self._scenes[int(rng.integers(len(self._scenes)))]
        whole = scene.region(rng, self._crop, varied=True)
        room = whole.frames.shape[1] - self._crop, whole.frames.shape[2] - self._crop
        top, left = (int(rng.integers(space + 1)) for space in room)
        turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
        truth = whole.truth[
            SCALE * top : SCALE * (top + self._crop), SCALE * left : SCALE * (left + self._crop)
        ]
        frames = whole.frames[:, top : top + self._crop, left : left + self._crop]
        region = Region(_turned(frames, turns, mirror), _turned(truth[None], turns, mirror)[0])
        return self._scaling.batch(region, reference=whole.frames)


def validation_batches(
    scenes: Sequence[Scene], count: int, size: int, seed: int, scaling: Scaling | None = None
) -> list[Batch]:
    """Draw the windows that the best weights are chosen by.

    Parameters
    ----------
    scenes : sequence of Scene
        None of them is trained on; in turn.
    count : int
        Windows.
    size : int
        Largest height and width, scanned pixels.
    seed : int
        Same seed, same windows.
    scaling : Scaling, optional
        How windows are normalised.

    Returns
    -------
    list of Batch
        One window each.
    """
    scaling = scaling or Scaling()
    return [
        scaling.batch(
            scenes[number % len(scenes)].region(
                np.random.default_rng((seed, 1, number)), size, varied=False
            )
        )
        for number in range(count)
    ]


def draw_window(
    rng: np.random.Generator,
    count: int,
    length: int,
    *,
    varied: bool,
    usable: Sequence[int] | None = None,
) -> tuple[int, list[int]]:
    """Choose a frame, and the frames of the window around it as the daemon would find them.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the frame and which ones were lost.
    count : int
        Frames of the movie.
    length : int
        Of the window.
    varied : bool
        Take frames at the ends too, and lose a frame or two in one window of eight.
    usable : sequence of int, optional
        Frames that can be restored; all if not given.

    Returns
    -------
    index : int
        The frame to restore.
    chosen : list of int
        As many as the window is long.
    """
    centre = length // 2
    usable = range(count) if usable is None else usable
    inside = [index for index in usable if centre <= index < count - centre]
    index = int(rng.choice(usable if varied or not inside else inside))
    available = list(range(count))
    if varied and length > 1 and rng.random() < _LOSSES:
        near = [step for step in range(-centre, centre + 1) if step]
        lost = rng.choice(near, size=int(rng.integers(1, 3)), replace=False) + index
        available = [have for have in available if have not in lost]
    return index, window_frames(index, available, length=length, centre=centre)


def _turned(planes: Image, turns: int, mirror: bool) -> Image:
    """One of the eight symmetries of the square."""
    planes = np.rot90(planes, turns, axes=(1, 2))
    return planes[:, ::-1] if mirror else planes
