"""Train a shipped model: ``python -m pssr_live_models.train neuron_mf --out training/neuron_mf``.

Records simulated movies, trains on them and writes the package: first on cells of both presets
alike, then mostly on those of the model's own, and on a few real recordings. Models that look at as
many frames can share the first part (``--general``). Interrupted, the same command goes on from the
last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pssr_live.errors import PssrLiveError
from pssr_live.settings import Preset
from pssr_live_models.bioimageio_package import write_rdf
from pssr_live_models.card import UNMEASURED, card_text
from pssr_live_models.dataset import Batch, Mixture, MovieSamples, normalise, window_frames
from pssr_live_models.export import Description, write_package
from pssr_live_models.movies import (
    FIRST_VALIDATION_SEED,
    PRESETS,
    Movie,
    load_movies,
    other_movie,
    refuse_evaluation_seeds,
    save_movie,
    simulated_movie,
    varied_movie,
)
from pssr_live_models.networks import LightUNet
from pssr_live_models.rescans import recorded, rescans
from pssr_live_models.training.loop import Loop, SampleSource, Stage
from pssr_live_models.variants import add_variants

__all__ = ["Recipe", "Training", "main", "train"]

SHARES = {"own": 0.45, "other": 0.1, "drawn": 0.2, "rescanned": 0.25}
"""Of the simulated samples: cells of the model's own preset, cells of the other one, anything else,
and all of these scanned afresh. In the general part the two presets count alike."""

_RECORDED = 1 / 8
"""Of all samples of the second part: real recordings."""

_PIXEL_SIZE_UM: dict[Preset, tuple[float, float]] = {"neuron": (0.15, 0.2), "u2os": (0.17, 0.23)}
_AVERAGED = 0.999
"""The weights that are kept are a running average over the steps, with this decay."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """One of the models that come with the program.

    Attributes
    ----------
    preset : {"neuron", "u2os"}
        Of the simulator; half of what the model is trained on.
    window_length : int
        Frames it looks at.
    """

    preset: Preset
    window_length: int

    def description(self, name: str) -> Description:
        """Say what the package says about the model called `name`."""
        frames = "Five undersampled frames" if self.window_length > 1 else "One undersampled frame"
        return Description(
            name=name,
            version="2.1.0",
            description=f"{frames} to one with four times the sampling",
            licence="BSD-3-Clause",
            trained_on=f"simulated confocal movies of mitochondria ({self.preset} first) and drawn "
            "images; last, one sample in eight from three real recordings",
            pixel_size_um=_PIXEL_SIZE_UM[self.preset],
        )


MODELS = {
    "neuron_mf": Shipped("neuron", 5),
    "u2os_mf": Shipped("u2os", 5),
    "neuron_sf": Shipped("neuron", 1),
    "u2os_sf": Shipped("u2os", 1),
}

VALIDATION_MOVIES = 8
TEST_WINDOW_SIZE = 61, 83
"""Of the package's test pair; odd, so that padding and cropping are tested as well."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides what comes out of a training.

    Attributes
    ----------
    seed : int
        Of the first movie, the samples and the network's first weights.
    movies, frames, size : int
        How many movies, their length, and their height and width in scanned pixels.
    first, steps : int
        Steps of the optimiser in the general part, and after it.
    batch, crop : int
        Samples per step, height and width of a sample.
    rate : float
        Largest learning rate of the first part's cycle; that of the second is half as large.
    """

    seed: int = 0
    movies: int = 960
    frames: int = 7
    size: int = 128
    first: int = 44_000
    steps: int = 20_000
    batch: int = 8
    crop: int = 48
    rate: float = 1.5e-3


def make_movies(folder: Path, recipe: Recipe) -> None:
    """Record the movies to train on that are not there yet; all models train on the same ones.

    Parameters
    ----------
    folder : Path
        Where they are kept.
    recipe : Recipe
        Which.

    Raises
    ------
    UsageError
        Some are kept back for validation or evaluation.
    """
    seeds = range(recipe.seed, recipe.seed + recipe.movies)
    refuse_evaluation_seeds(seeds)
    for done, seed in enumerate(seeds):
        name = f"{seed:07d}_{recipe.frames}x{recipe.size}"
        if not (folder / f"drawn_{name}_frames.npy").exists():
            movie = varied_movie(seed, size=recipe.size, frames=recipe.frames)
            save_movie(folder, f"{PRESETS[seed % len(PRESETS)]}_{name}", movie)
            save_movie(folder, f"drawn_{name}", other_movie(movie, seed))
            _show(f"movie {done + 1}/{recipe.movies}")


def training_samples(
    folder: Path, recipe: Recipe, window_length: int, preset: Preset | None
) -> Mixture:
    """Open the movies to train on, mixed as `SHARES` says.

    Parameters
    ----------
    folder : Path
        Written by `make_movies`.
    recipe : Recipe
        Seed and crop.
    window_length : int
        Frames of a window.
    preset : {"neuron", "u2os"}, optional
        The model's own; both alike if not given.

    Returns
    -------
    Mixture
    """
    movies = {kind: load_movies(folder, f"{kind}_*") for kind in (*PRESETS, "drawn")}
    cells = SHARES["own"], SHARES["other"]
    shares: dict[str, float] = {"drawn": SHARES["drawn"]}
    shares |= {kind: cells[kind != preset] if preset else sum(cells) / 2 for kind in PRESETS}
    centre = window_length // 2
    recorded = [
        (share, MovieSamples(movies[kind], crop=recipe.crop, length=window_length, centre=centre))
        for kind, share in shares.items()
    ]
    again = rescans(list(chain(*movies.values())), window_length, recipe.crop, recipe.seed)
    return Mixture([*recorded, (SHARES["rescanned"], again)], recipe.seed)


def validation_windows(recipe: Recipe, model: Shipped, count: int) -> list[Batch]:
    """Record whole windows that are not trained on: ``count`` of cells, ``count`` of others."""
    movies = []
    first = FIRST_VALIDATION_SEED + PRESETS.index(model.preset)
    for seed in range(first, first + len(PRESETS) * count, len(PRESETS)):
        cells = varied_movie(seed, size=recipe.size, frames=5)
        movies += [cells, other_movie(cells, seed)]
    return [_middle(movie, model.window_length) for movie in movies]


def _middle(movie: Movie, length: int) -> Batch:
    chosen = window_frames(2, range(5), length=length, centre=length // 2)
    values, mean, std = normalise(movie.frames[chosen])
    truth = ((movie.truth[2] - mean) / std).astype(np.float32)
    weight = 1 / max(float(truth.var()), 1 / 10)
    return Batch(values[None], truth[None, None], np.array([weight], np.float32))


class Training(Loop):
    """One part of the training of a shipped model.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    window_length : int
        Frames the network looks at.
    samples : SampleSource
        What is learnt from.
    validation : sequence of Batch
        To choose the best network by.
    checkpoint : Path
        File that holds the state; read if it is there.
    start : Module, optional
        What the general part has made; this is the general part if not given.
    """

    def __init__(
        self,
        recipe: Recipe,
        window_length: int,
        samples: SampleSource,
        validation: Sequence[Batch],
        checkpoint: Path,
        start: nn.Module | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        options = asdict(recipe)
        if start is None:
            del options["steps"]  # the general part is the same for any number of steps after it
            start = LightUNet(window_length, window_length // 2)
            stage = Stage(recipe.first, recipe.batch, recipe.rate, samples)
        else:
            stage = Stage(recipe.steps, recipe.batch, recipe.rate / 2, samples)
        super().__init__(start, [stage], validation, checkpoint, options, averaging=_AVERAGED)

    def run(self, title: str, every: int = 250) -> LightUNet:
        """Train to the end, showing how far it is.

        Parameters
        ----------
        title : str
            Ahead of each line.
        every : int
            Steps between validations and checkpoints.

        Returns
        -------
        LightUNet
            The best network by validation.
        """
        begun, first = time.monotonic(), self.step
        while self.step < self.steps:
            now = self.advance(every)
            seconds = (time.monotonic() - begun) / (now.step - first) * (now.steps - now.step)
            _show(
                f"{title}: step {now.step}/{now.steps}  loss {now.loss:.4f}  validation "
                f"{now.validation:.4f}  best {now.best:.4f}  {now.gain_db:+.2f} dB over bilinear  "
                f"{seconds / 60:.1f} min left"
            )
        return cast(LightUNet, self.best_network())


def train(
    model: Shipped, out: Path, recipe: Recipe, data: Path, general: Path, recordings: Path
) -> LightUNet:
    """Train from the start, or from where the last attempt was interrupted, to the end.

    Parameters
    ----------
    model : Shipped
        Which.
    out : Path
        Folder of the package; the checkpoint goes into ``checkpoints`` there.
    recipe : Recipe
        What to do.
    data : Path
        Folder for the movies.
    general : Path
        File for the checkpoint of the general part.
    recordings : Path
        Folder with the real recordings.

    Returns
    -------
    LightUNet
        The best network by validation.
    """
    length = model.window_length
    real = recorded(recordings, length, recipe.crop, recipe.seed)
    make_movies(data, recipe)
    both = [
        window
        for preset in PRESETS
        for window in validation_windows(recipe, Shipped(preset, length), VALIDATION_MOVIES // 2)
    ]
    samples = training_samples(data, recipe, length, None)
    start = Training(recipe, length, samples, both, general).run("both presets")
    simulated = training_samples(data, recipe, length, model.preset)
    samples = Mixture([(1 - _RECORDED, simulated), (_RECORDED, real)], recipe.seed)
    own = validation_windows(recipe, model, VALIDATION_MOVIES)
    checkpoint = out / "checkpoints" / "last.pt"
    return Training(recipe, length, samples, own, checkpoint, start).run(model.preset)


def _show(line: str) -> None:
    end = "\r" if sys.stderr.isatty() else "\n"
    sys.stderr.write(f"\x1b[K{line}{end}" if sys.stderr.isatty() else f"{line}{end}")
    sys.stderr.flush()


def _test_pair(model: Shipped) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Record the window of the package's test pair, and what should be restored from it."""
    height, width = TEST_WINDOW_SIZE
    shown = simulated_movie(model.preset, FIRST_VALIDATION_SEED, size=128, frames=5)
    chosen = window_frames(2, range(5), length=model.window_length, centre=model.window_length // 2)
    window = np.ascontiguousarray(shown.frames[chosen, :height, :width])
    truth = shown.truth[2, : 4 * height, : 4 * width]
    return window, np.ascontiguousarray(truth, np.float32)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pssr_live_models.train",
        description="Train a shipped model on simulated movies and write its package.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", choices=MODELS, help="which")
    parser.add_argument("--out", type=Path, required=True, help="folder of the package")
    parser.add_argument(
        "--data", type=Path, help="folder for the movies (default: OUT/movies)", default=None
    )
    parser.add_argument(
        "--general",
        type=Path,
        help="checkpoint of the general part, for models that share it (default: inside OUT)",
        default=None,
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        help="folder with the real recordings",
        default=Path("../shared/data"),
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    for field in fields(Recipe):
        kind = float if field.name == "rate" else int
        parser.add_argument(f"--{field.name}", type=kind, default=field.default, help=" ")
    return parser.parse_args(arguments)


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
    options = _options(arguments)
    recipe = Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})
    torch.set_num_threads(options.threads)
    try:
        model = MODELS[options.model]
        data = options.data or options.out / "movies"
        general = options.general or options.out / "checkpoints" / "general.pt"
        network = train(model, options.out, recipe, data, general, options.recordings)
        window, truth = _test_pair(model)
        card = card_text(options.model, model.preset, model.window_length, UNMEASURED)
        description = model.description(options.model)
        write_package(options.out, network, description, window, card, truth)
        package = add_variants(options.out)
        write_rdf(options.out)
    except PssrLiveError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stderr.write(f"wrote {package.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
