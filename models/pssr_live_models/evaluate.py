"""Recompute a model card's figures: ``python -m pssr_live_models.evaluate neuron_mf``.

Runs the package with OpenVINO, without torch. Needs scikit-image.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import openvino
import tifffile
from numpy.typing import NDArray

from pssr_live.errors import PssrLiveError
from pssr_live.evaluate.stacks import upsample
from pssr_live.metrics import fidelity
from pssr_live.model import ModelPackage, find_model
from pssr_live.settings import Preset
from pssr_live_models.dataset import normalise, window_frames
from pssr_live_models.movies import (
    FIRST_EVALUATION_SEED,
    PRESETS,
    Movie,
    degraded_movie,
    simulated_movie,
)
from pssr_live_models.package import card_with, replace_card

__all__ = ["Figures", "Restorer", "baselines", "evaluate_movies", "main", "noise_figures"]

Image: TypeAlias = NDArray[Any]
Method: TypeAlias = Callable[[Image], Image]

SCALE = 4
PHOTON_RATES: dict[Preset, tuple[float, ...]] = {"neuron": (14, 3, 100), "u2os": (16, 3, 100)}
"""Photons per dwell time of the brightest structures; the preset's own first."""

RECORDINGS = {
    "mitochondria (BPAE, fixed)": "BPAE_mito.tif",
    "cell membranes (live)": "membrane_2d_timelapse.tif",
    "Golgi under BFA (live)": "xyt_calibrated_16bit__golgi_bfa_sum_projection.tif",
}


class Restorer:
    """Runs a package with OpenVINO in fp32, for frames of any size.

    Parameters
    ----------
    package : ModelPackage
        What to run.
    threads : int
        CPU threads.
    """

    def __init__(self, package: ModelPackage, threads: int = 2) -> None:
        self._package = package
        self._settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        self._core = openvino.Core()
        self._compiled: dict[tuple[int, ...], Any] = {}

    def __call__(self, window: Image) -> Image:
        """Restore the middle frame of a window.

        Parameters
        ----------
        window : ndarray, shape (window_length, H, W)
            Raw frames.

        Returns
        -------
        ndarray, shape (scale·H, scale·W), float64
            In raw intensities, neither rounded nor clipped.
        """
        if window.shape not in self._compiled:
            self._package.check_size(*window.shape[1:])
            network = self._core.read_model(self._package.network)
            network.reshape([1, *window.shape])
            self._compiled[window.shape] = self._core.compile_model(network, "CPU", self._settings)
        values, mean, std = normalise(window)
        prediction = self._compiled[window.shape](values[None])[0][0, 0]
        return np.asarray(prediction, np.float64) * std + mean


def baselines() -> dict[str, Method]:
    """Name what costs nothing: from a window to an image with four times the sampling."""
    return {
        "bilinear": lambda window: upsample(window[len(window) // 2], SCALE),
        "five-frame average, bilinear": lambda window: upsample(window.mean(axis=0), SCALE),
    }


@dataclass(frozen=True, slots=True)
class Figures:
    """How close a method comes to the truth, one value per window.

    Attributes
    ----------
    psnr : ndarray
        Peak signal-to-noise ratio, dB.
    ssim : ndarray
        Structural similarity.
    brightness : ndarray
        Summed intensity over background before any matching, as a share of the truth's.
    """

    psnr: NDArray[np.float64]
    ssim: NDArray[np.float64]
    brightness: NDArray[np.float64]


def evaluate_movies(movies: Iterator[Movie], methods: dict[str, Method]) -> dict[str, Figures]:
    """Restore the middle frame of each movie and compare it with the truth.

    PSNR and SSIM are those of `pssr_live.metrics.fidelity`: intensities matched first.

    Parameters
    ----------
    movies : iterator of Movie
        At least one.
    methods : dict
        Method by name.

    Returns
    -------
    dict
        Figures by the method's name.
    """
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
    for movie in movies:
        count = len(movie.frames)
        window = movie.frames[window_frames(count // 2, range(count))]
        truth = movie.truth[count // 2].astype(np.float64)
        background = np.percentile(truth, 5)
        for name, method in methods.items():
            restored = method(window)
            close = fidelity(restored, truth)
            found[name].append(
                (
                    close.psnr_db,
                    close.ssim,
                    float((restored - background).sum() / (truth - background).sum()),
                )
            )
    return {name: Figures(*np.array(rows).T) for name, rows in found.items()}


def noise_figures(methods: dict[str, Method], level: float, seeds: Sequence[int]) -> dict[str, Any]:
    """Restore windows that hold nothing but shot noise.

    Parameters
    ----------
    methods : dict
        Method by name.
    level : float
        Mean photons per pixel.
    seeds : sequence of int
        One window each.

    Returns
    -------
    dict
        By the method's name, for each seed the standard deviation of the result as a share of the
        noise's.
    """
    shares: dict[str, list[float]] = {name: [] for name in methods}
    for seed in seeds:
        counts = np.random.default_rng(seed).poisson(level, (5, 128, 128))
        window = (4 * counts + 100).astype(np.uint16)
        noise = 4 * np.sqrt(level)
        for name, method in methods.items():
            shares[name].append(float(method(window).std() / noise))
    return {name: np.array(values) for name, values in shares.items()}


def simulated_movies(preset: Preset, count: int, size: int, photons: float) -> Iterator[Movie]:
    """Record movies that no training has seen.

    Parameters
    ----------
    preset : {"neuron", "u2os"}
    count : int
        Seeds are `FIRST_EVALUATION_SEED` and up.
    size : int
        Height and width, scanned pixels.
    photons : float
        Photons per dwell time of the brightest structures.
    """
    for seed in range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + count):
        yield simulated_movie(preset, seed, size=size, frames=5, photons=photons)


def recorded_movies(path: Path, count: int, photons: float) -> Iterator[Movie]:
    """Degrade a recording: the recording is the truth, with four times the movie's sampling.

    Parameters
    ----------
    path : Path
        TIFF, ``(T, H, W)``, or one image, which stands still for five frames.
    count : int
        Movies, at equal distances in the recording; the seed of a movie's noise is
        `FIRST_EVALUATION_SEED` plus its number.
    photons : float
        Mean photons per pixel of the brightest structures.
    """
    images = np.atleast_3d(tifffile.imread(path))
    if images.shape[2] == 1:
        images = np.repeat(np.moveaxis(images, 2, 0), 5, axis=0)
    images = images[:, : images.shape[1] // 4 * 4, : images.shape[2] // 4 * 4]
    starts = np.linspace(0, len(images) - 5, count if len(images) > 5 else 1).astype(int)
    for number, start in enumerate(starts):
        rng = np.random.default_rng(FIRST_EVALUATION_SEED + number)
        yield degraded_movie(images[start : start + 5], rng, photons=photons)


def _share(values: NDArray[np.float64], digits: int) -> str:
    """Write mean ± standard error."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def _table(title: str, groups: dict[str, dict[str, Figures]]) -> str:
    lines = [
        f"**{title}**",
        "",
        "| what | n | method | PSNR, dB | SSIM | brightness |",
        "|---|---|---|---|---|---|",
    ]
    for what, methods in groups.items():
        for name, of in methods.items():
            figures = f"{_share(of.psnr, 2)} | {_share(of.ssim, 3)} | {_share(of.brightness, 3)}"
            lines.append(f"| {what} | {len(of.psnr)} | {name} | {figures} |")
    return "\n".join(lines)


def report(package: ModelPackage, data: Path, *, movies: int, size: int, threads: int = 2) -> str:
    """Compute all figures of a card.

    Parameters
    ----------
    package : ModelPackage
        The model.
    data : Path
        Folder with recordings; those that are not there are left out, and this is said.
    movies, size : int
        Number of simulated movies a line, their height and width in scanned pixels.
    threads : int
        CPU threads.

    Returns
    -------
    str
        Markdown.
    """
    methods: dict[str, Method] = {**baselines(), package.manifest.name: Restorer(package, threads)}
    groups: dict[str, dict[str, Figures]] = {}
    for preset in PRESETS:
        for photons in PHOTON_RATES[preset]:
            made = simulated_movies(preset, movies, size, photons)
            groups[f"{preset}, {photons:g} photons"] = evaluate_movies(made, methods)
    last = FIRST_EVALUATION_SEED + movies - 1
    parts = [
        _table(
            f"Unseen simulated movies of {size}×{size} pixels, "
            f"seeds {FIRST_EVALUATION_SEED} to {last}",
            groups,
        )
    ]
    groups, absent = {}, []
    for name, file in RECORDINGS.items():
        if not (data / file).is_file():
            absent.append(file)
            continue
        for photons in (10.0, 100.0):
            made = recorded_movies(data / file, 6, photons)
            groups[f"{name}, {photons:g} photons"] = evaluate_movies(made, methods)
    if groups:
        parts.append(_table("Recordings of other laboratories, degraded", groups))
    if absent:
        parts.append(f"Not there, so not evaluated: {', '.join(absent)}.")
    parts.append(_noise_table(methods))
    return "\n\n".join(parts)


def _noise_table(methods: dict[str, Method]) -> str:
    seeds = range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + 6)
    lines = [
        f"**Windows of shot noise alone, 128×128 pixels, n = 6, seeds {seeds[0]} to {seeds[-1]}: "
        "standard deviation of the result as a share of the noise's (0 would be right)**",
        "",
        "| method | 3 photons | 30 photons |",
        "|---|---|---|",
    ]
    dim, bright = (noise_figures(methods, level, seeds) for level in (3.0, 30.0))
    lines += [
        f"| {name} | {_share(dim[name], 3)} | {_share(bright[name], 3)} |" for name in methods
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        In place of the process's own.

    Returns
    -------
    int
        Exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pssr_live_models.evaluate",
        description="Recompute the figures of a model's card.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", help="name of an installed model, or a package's folder")
    parser.add_argument("--movies", type=int, default=8, help="simulated movies a line")
    parser.add_argument("--size", type=int, default=256, help="their height and width, pixels")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="recordings")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument(
        "--card", action="store_true", help="write the card with these figures into the package"
    )
    options = parser.parse_args(arguments)
    try:
        package = find_model(options.model)
        figures = report(
            package, options.data, movies=options.movies, size=options.size, threads=options.threads
        )
    except PssrLiveError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{figures}\n")
    if options.card:
        replace_card(package.folder, card_with(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
