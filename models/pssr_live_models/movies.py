"""Movies with known truth: simulated, or known images scanned with a quarter of the sampling.

Simulated movies come through the same contract as the daemon's frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import UsageError
from pssr_live.settings import Preset, RunSettings, SimSettings
from pssr_live.source import make_source
from pssr_live_models.structures import moving_structures
from pssr_live_models.variety import altered_images, drawn_images

__all__ = [
    "FIRST_EVALUATION_SEED",
    "FIRST_VALIDATION_SEED",
    "PRESETS",
    "Movie",
    "degraded_movie",
    "load_movies",
    "other_movie",
    "refuse_evaluation_seeds",
    "save_movie",
    "simulated_movie",
    "varied_movie",
]

FIRST_EVALUATION_SEED = 1_000_000
"""Seeds from here on are for evaluation only; training refuses them."""

FIRST_VALIDATION_SEED = 900_000
"""Seeds from here up to those for evaluation choose the best network; none is trained on."""

PHOTONS = (2.0, 200.0)
"""Range of photon rates to train on: photons per dwell time of the brightest structures."""

PRESETS: tuple[Preset, ...] = ("neuron", "u2os")

Image: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Movie:
    """Undersampled frames with what a noise-free scan at restored sampling would have shown.

    Attributes
    ----------
    frames : ndarray, shape (T, H, W), uint16
        Raw frames.
    truth : ndarray, shape (T, 4H, 4W), uint16 or float32
        On the frames' intensity scale.
    """

    frames: Image
    truth: Image


def refuse_evaluation_seeds(seeds: Sequence[int]) -> None:
    """Make sure that no movie for validation or evaluation is trained on.

    Parameters
    ----------
    seeds : sequence of int
        Seeds of movies to train on.

    Raises
    ------
    UsageError
        One of them is `FIRST_VALIDATION_SEED` or more.
    """
    if max(seeds) >= FIRST_VALIDATION_SEED:
        raise UsageError(
            f"training on the simulated movie with seed {max(seeds)}",
            f"seeds from {FIRST_VALIDATION_SEED} on are kept back for validation and evaluation",
            "choose smaller seeds",
        )


def simulated_movie(
    preset: Preset, seed: int, *, size: int, frames: int, photons: float | None = None
) -> Movie:
    """Record a movie of the simulated scanner, with truth.

    Parameters
    ----------
    preset : {"neuron", "u2os"}
        Scene and acquisition settings.
    seed : int
        Same seed, same movie.
    size : int
        Height and width of a frame, pixels.
    frames : int
        How many.
    photons : float, optional
        Photons per dwell time of the brightest structures; the preset's if not given.

    Returns
    -------
    Movie
    """
    settings = RunSettings(
        scope="sim",
        sim=SimSettings(
            preset=preset, interval_ms=0, size=size, seed=seed, truth=True, photons=photons
        ),
    )
    raw: list[Image] = []
    truth: list[Image] = []
    with closing(make_source(settings)) as source:
        source.open()
        for frame in source.frames():
            if frame.truth is None:
                raise ValueError(f"frame {frame.index} of the simulated scanner has no truth")
            raw.append(frame.pixels.copy())
            truth.append(frame.truth.copy())
            if len(raw) == frames:
                source.stop()
                break
    return Movie(np.stack(raw), np.stack(truth))


def varied_movie(seed: int, *, size: int, frames: int) -> Movie:
    """Record a movie whose preset and photon rate are drawn by the seed.

    Parameters
    ----------
    seed : int
        Even seeds give neurons, odd ones U2OS cells.
    size, frames : int
        As for `simulated_movie`.

    Returns
    -------
    Movie
        With a photon rate of `PHOTONS`, evenly distributed on a logarithmic scale.
    """
    photons = _photons(np.random.default_rng(seed))
    return simulated_movie(
        PRESETS[seed % len(PRESETS)], seed, size=size, frames=frames, photons=photons
    )


def _photons(rng: np.random.Generator) -> float:
    return float(PHOTONS[0] * (PHOTONS[1] / PHOTONS[0]) ** rng.random())


def degraded_movie(
    images: Image,
    rng: np.random.Generator,
    *,
    photons: float,
    background: float = 0.0,
    spot: int = 4,
) -> Movie:
    """Scan images with a quarter of their sampling and few photons.

    Parameters
    ----------
    images : ndarray, shape (T, 4H, 4W)
        What is taken for the truth; any intensity scale.
    rng : numpy.random.Generator
        Source of the noise.
    photons : float
        Mean photons per pixel where the images reach their 99.9th percentile.
    background : float
        Light that does not come from the images, as a share of ``photons``.
    spot : {4, 2}
        A scanned pixel is the mean of so many pixels of the images per axis, around its centre.

    Returns
    -------
    Movie
        Frames have Poisson noise, four counts a photon and an offset of 100 counts.
    """
    images = images.astype(np.float64)
    low, high = np.percentile(images, (0.1, 99.9))
    light = np.clip((images - low) / max(high - low, 1e-9), 0, None) + background
    light *= photons
    count, height, width = light.shape
    inner = slice((4 - spot) // 2, (4 + spot) // 2)
    blocks = light.reshape(count, height // 4, 4, width // 4, 4)[:, :, inner, :, inner]
    scanned = blocks.mean(axis=(2, 4))
    counts = 4.0 * rng.poisson(scanned) + 100.0 + rng.normal(0.0, 2.0, scanned.shape)
    frames = np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
    return Movie(frames, (4.0 * light + 100.0).astype(np.float32))


def other_movie(simulated: Movie, seed: int) -> Movie:
    """Make a movie of something else, scanned by something else.

    Parameters
    ----------
    simulated : Movie
        One movie in three is made of this one's truth, the others are drawn.
    seed : int
        Same seed, same movie.

    Returns
    -------
    Movie
        As many frames as ``simulated``, of the same or half the height and width.
    """
    rng = np.random.default_rng((seed, 1))
    count, height, _ = simulated.truth.shape
    kind = seed // len(PRESETS) % 3
    if kind == 0:
        images = altered_images(simulated.truth, rng)
    elif kind == 1:
        images = drawn_images(rng, count, height)
    else:
        images = moving_structures(rng, count, height)
    background = rng.uniform(0, 0.7) ** 2
    spot = int(rng.choice([2, 4]))
    return degraded_movie(images, rng, photons=_photons(rng), background=background, spot=spot)


def save_movie(folder: Path, name: str, movie: Movie) -> None:
    """Keep a movie for training as two ``.npy`` files.

    Parameters
    ----------
    folder : Path
        Made if missing.
    name : str
        Of the movie; same name, same movie.
    movie : Movie
        What to keep.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}_truth.npy", movie.truth)
    np.save(folder / f"{name}_frames.npy", movie.frames)


def load_movies(folder: Path, pattern: str = "*") -> list[Movie]:
    """Open movies of a folder, in the order of their names, without reading them.

    Parameters
    ----------
    folder : Path
        Written by `save_movie`.
    pattern : str
        Of the movies' names.

    Returns
    -------
    list of Movie
    """
    return [
        Movie(
            np.load(path, mmap_mode="r", allow_pickle=False),
            np.load(
                path.with_name(path.name.replace("_frames", "_truth")),
                mmap_mode="r",
                allow_pickle=False,
            ),
        )
        for path in sorted(folder.glob(f"{pattern}_frames.npy"))
    ]
