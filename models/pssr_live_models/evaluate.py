"""Recompute the figures of the model cards: ``python -m pssr_live_models.evaluate --card``.

Runs the packages as the daemon does, without torch. Needs scikit-image.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pssr_live.engine.base import Engine
from pssr_live.engine.normalise import keep_mean, normalise
from pssr_live.engine.select import prepare_engine
from pssr_live.errors import PssrLiveError
from pssr_live.evaluate.stacks import upsample
from pssr_live.frames import Frame
from pssr_live.metrics import fidelity
from pssr_live.model import ModelPackage, find_model, shipped_models
from pssr_live.settings import Preset
from pssr_live_models.bioimageio_package import write_rdf
from pssr_live_models.card import PICTURE, card_text
from pssr_live_models.card_tables import (
    AVERAGE,
    BILINEAR,
    Figures,
    Groups,
    long_table,
    share,
    summary_table,
)
from pssr_live_models.dataset import window_frames
from pssr_live_models.failures import failures
from pssr_live_models.movies import FIRST_EVALUATION_SEED, PRESETS, Movie, simulated_movie
from pssr_live_models.package import replace_card
from pssr_live_models.recordings import RECORDINGS, find_recording, recorded_movies

__all__ = ["Figures", "Restorer", "baselines", "evaluate_movies", "main", "noise_figures"]

Image: TypeAlias = NDArray[Any]
Method: TypeAlias = Callable[[Image], Image]

SCALE = 4
PHOTON_RATES: dict[Preset, tuple[float, ...]] = {"neuron": (14, 3, 70), "u2os": (16, 3, 80)}
"""Photons per dwell time of the brightest structures; the preset's own first, then few, then as
many as five frames have together: what a single frame gives there is what five frames of a sample
that stood still could give."""

RECORDED_PHOTONS = (10.0, 100.0)
DIM = f", {RECORDED_PHOTONS[0]:g} photons"
"""How the lines end that the summary is made of."""


class Restorer:
    """Runs a package as the daemon does, for frames of any size.

    Parameters
    ----------
    package : ModelPackage
        What to run.
    precision : str
        Arithmetic, as for a run; the engine is OpenVINO.
    """

    def __init__(self, package: ModelPackage, precision: str = "fp32") -> None:
        self._package = package
        self._precision = precision
        self._prepared: dict[tuple[int, int], Engine] = {}

    def __call__(self, window: Image) -> Image:
        """Restore the middle frame of a window.

        Parameters
        ----------
        window : ndarray, shape (window_length or more, H, W)
            Raw frames.

        Returns
        -------
        ndarray, shape (scale·H, scale·W), float64
            In raw intensities, neither rounded nor clipped.
        """
        manifest = self._package.manifest
        first = len(window) // 2 - manifest.centre
        chosen = window[first : first + manifest.window_length].astype(np.float32)
        height, width = chosen.shape[1:]
        if (height, width) not in self._prepared:
            engine, _ = prepare_engine("openvino", self._precision, self._package, height, width)
            self._prepared[height, width] = engine
        values = np.empty((1, *chosen.shape), np.float32)
        frames = [Frame(plane, index, 0, 0) for index, plane in enumerate(chosen)]
        statistics = normalise(frames, values, manifest.training_statistics)
        prediction = self._prepared[height, width].run(values)
        if manifest.keeps_mean:
            statistics = keep_mean(statistics, values[0, manifest.centre], prediction)
        return prediction.astype(np.float64) * statistics.std + statistics.mean


def baselines() -> dict[str, Method]:
    """Name what costs nothing: from a window to an image with four times the sampling."""
    return {
        BILINEAR: lambda window: upsample(window[len(window) // 2], SCALE),
        AVERAGE: lambda window: upsample(window.mean(axis=0), SCALE),
    }


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


def report(
    packages: Sequence[ModelPackage], data: Sequence[Path], *, movies: int, size: int
) -> str:
    """Compute all figures of the cards.

    Parameters
    ----------
    packages : sequence of ModelPackage
        The models, side by side.
    data : sequence of Path
        Folders with recordings; those that are not there are left out, and this is said.
    movies, size : int
        Number of simulated movies a line, their height and width in scanned pixels.

    Returns
    -------
    str
        Markdown.
    """
    methods = baselines() | {package.manifest.name: Restorer(package) for package in packages}
    simulated = {
        _line(preset, photons): evaluate_movies(
            simulated_movies(preset, movies, size, photons), methods
        )
        for preset in PRESETS
        for photons in PHOTON_RATES[preset]
    }
    unknown, learnt, absent = _recorded(methods, data)
    own = {
        package.manifest.name: _line(preset, PHOTON_RATES[preset][0])
        for package in packages
        for preset in [own_preset(package)]
    }
    seeds = f"seeds {FIRST_EVALUATION_SEED} to {FIRST_EVALUATION_SEED + movies - 1}"
    parts = [
        summary_table(
            own, simulated, {what: of for what, of in unknown.items() if what.endswith(DIM)}
        ),
        long_table(f"Unseen simulated movies of {size}×{size} pixels, {seeds}", simulated),
    ]
    if unknown:
        parts.append(long_table("Real recordings that were not trained on, degraded", unknown))
    if learnt:
        parts.append(long_table("Real recordings that were trained on, with new noise", learnt))
    if absent:
        parts.append(f"Not there, so not evaluated: {'; '.join(absent)}.")
    if quantised := [package for package in packages if "int8" in package.variants]:
        parts.append(_precision_table(quantised, movies, size))
    return "\n\n".join([*parts, _noise_table(methods)])


def own_preset(package: ModelPackage) -> Preset:
    """Tell what a shipped model was made for: it is the first part of its name."""
    return "neuron" if package.manifest.name.startswith("neuron") else "u2os"


def _line(preset: Preset, photons: float) -> str:
    return f"{preset}, {photons:g} photons"


def _recorded(methods: dict[str, Method], data: Sequence[Path]) -> tuple[Groups, Groups, list[str]]:
    """Restore the recordings that are there: unknown ones, known ones; and list the others."""
    found: dict[bool, dict[str, dict[str, Figures]]] = {False: {}, True: {}}
    absent = []
    for recording in RECORDINGS:
        path = find_recording(recording, data)
        if path is None:
            absent.append(f"{recording.file} ({recording.origin})")
            continue
        for photons in RECORDED_PHOTONS:
            made = recorded_movies(path, 6, photons, recording.channel)
            line = f"{recording.what}, {photons:g} photons"
            found[recording.learnt_from][line] = evaluate_movies(made, methods)
    return found[False], found[True], absent


def _precision_table(packages: Sequence[ModelPackage], movies: int, size: int) -> str:
    lines = [
        "**What shorter arithmetic costs: PSNR against truth less that of fp32, dB, on the "
        "simulated movies at the presets' own photon rates**",
        "",
        "| model | precision | neuron | u2os |",
        "|---|---|---|---|",
    ]
    for package in packages:
        methods: dict[str, Method] = {
            precision: Restorer(package, precision) for precision in ("fp32", "bf16", "int8")
        }
        found = [
            evaluate_movies(
                simulated_movies(preset, movies, size, PHOTON_RATES[preset][0]), methods
            )
            for preset in PRESETS
        ]
        for name in [name for name in methods if name != "fp32"]:
            drops = " | ".join(share(of[name].psnr - of["fp32"].psnr, 3) for of in found)
            lines.append(f"| {package.manifest.name} | {name} | {drops} |")
    return "\n".join(lines)


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
    lines += [f"| {name} | {share(dim[name], 3)} | {share(bright[name], 3)} |" for name in methods]
    return "\n".join(lines)


def write_card(package: ModelPackage, figures: str) -> None:
    """Write a shipped package's card and its pictures.

    Parameters
    ----------
    package : ModelPackage
        The model.
    figures : str
        Markdown.
    """
    manifest = package.manifest
    preset = own_preset(package)
    failures(preset, Restorer(package)).save(package.folder / PICTURE, optimize=True)
    replace_card(package.folder, card_text(manifest.name, preset, manifest.window_length, figures))
    write_rdf(package.folder)


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
        description="Recompute the figures of the models' cards.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "models",
        nargs="*",
        help="names or folders of packages; all installed ones if none is given",
    )
    parser.add_argument("--movies", type=int, default=8, help="simulated movies a line")
    parser.add_argument("--size", type=int, default=256, help="their height and width, pixels")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        help="folder with recordings; may be repeated (default: ../shared/data)",
    )
    parser.add_argument(
        "--card", action="store_true", help="write cards with these figures into the packages"
    )
    options = parser.parse_args(arguments)
    try:
        packages = [find_model(str(model)) for model in options.models or shipped_models()]
        folders = options.data or [Path("../shared/data")]
        figures = report(packages, folders, movies=options.movies, size=options.size)
        sys.stdout.write(f"{figures}\n")
        if options.card:
            for package in packages:
                write_card(package, figures)
    except PssrLiveError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
