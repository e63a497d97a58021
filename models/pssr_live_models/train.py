"""Train the shipped model: ``python -m pssr_live_models.train --out training/neuron_mf``.

Records simulated movies, trains on them and writes the package. Interrupted, the same command goes
on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pssr_live.errors import PssrLiveError
from pssr_live_models.dataset import Batch, Samples, normalise, window_frames
from pssr_live_models.export import Description, write_package
from pssr_live_models.movies import (
    FIRST_VALIDATION_SEED,
    Movie,
    load_movies,
    other_movie,
    refuse_evaluation_seeds,
    save_movie,
    simulated_movie,
    varied_movie,
)
from pssr_live_models.networks import LightUNet
from pssr_live_models.package import card_with

__all__ = ["Progress", "Recipe", "main", "train"]

NEURON_MF = Description(
    name="neuron_mf",
    version="1.0.0",
    description="Five undersampled frames to one with four times the sampling",
    licence="BSD-3-Clause",
    trained_on="simulated confocal movies of mitochondria (neuron, u2os) and drawn images",
    pixel_size_um=(0.15, 0.22),
)

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
    steps, batch, crop : int
        Steps of the optimiser, samples per step, height and width of a sample.
    rate : float
        Largest learning rate of the cycle.
    """

    seed: int = 0
    movies: int = 320
    frames: int = 7
    size: int = 128
    steps: int = 7_500
    batch: int = 8
    crop: int = 48
    rate: float = 1.5e-3


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands.

    Attributes
    ----------
    step, steps : int
        Done, of all.
    loss : float
        Mean over the last steps: squared error as a share of the true frames' variance.
    validation : float
        The same on the validation movies.
    best : float
        Lowest so far.
    """

    step: int
    steps: int
    loss: float
    validation: float
    best: float


def rate_at(step: int, recipe: Recipe) -> float:
    """Learning rate of the one-cycle policy: a short rise, then a half cosine down to nothing."""
    rise = max(1, recipe.steps // 10)
    if step < rise:
        return recipe.rate * (0.04 + 0.96 * step / rise)
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / (recipe.steps - rise)))


def make_movies(folder: Path, recipe: Recipe) -> list[Movie]:
    """Record the movies to train on that are not there yet.

    Parameters
    ----------
    folder : Path
        Where they are kept.
    recipe : Recipe
        Which.

    Returns
    -------
    list of Movie

    Raises
    ------
    UsageError
        Some are kept back for validation or evaluation.
    """
    seeds = range(recipe.seed, recipe.seed + recipe.movies)
    refuse_evaluation_seeds(seeds)
    for done, seed in enumerate(seeds):
        name = f"{seed:07d}_{recipe.frames}x{recipe.size}"
        if not (folder / f"other_{name}_frames.npy").exists():
            movie = varied_movie(seed, size=recipe.size, frames=recipe.frames)
            save_movie(folder, f"cell_{name}", movie)
            save_movie(folder, f"other_{name}", other_movie(movie, seed))
            _show(f"movie {done + 1}/{recipe.movies}")
    return load_movies(folder)


def validation_windows(recipe: Recipe, count: int) -> list[Batch]:
    """Record whole windows that are not trained on: ``count`` of cells, ``count`` of others."""
    movies = []
    for seed in range(FIRST_VALIDATION_SEED, FIRST_VALIDATION_SEED + count):
        cells = varied_movie(seed, size=recipe.size, frames=5)
        movies += [cells, other_movie(cells, seed)]
    return [_middle(movie) for movie in movies]


def _middle(movie: Movie) -> Batch:
    values, mean, std = normalise(movie.frames[window_frames(2, range(5))])
    truth = ((movie.truth[2] - mean) / std).astype(np.float32)
    weight = 1 / max(float(truth.var()), 1 / 10)
    return Batch(values[None], truth[None, None], np.array([weight], np.float32))


def loss_of(network: LightUNet, batch: Batch) -> Tensor:
    """Squared error as a share of the true frames' variance, mean over a batch."""
    windows = torch.from_numpy(batch.windows).to(memory_format=torch.channels_last)
    error = network(windows).float() - torch.from_numpy(batch.truths)
    weighted: Tensor = error.square().mean(dim=(1, 2, 3)) * torch.from_numpy(batch.weights)
    return weighted.mean()


class Training:
    """One training: network, optimiser, and how far they are.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    movies : sequence of Movie
        To train on.
    validation : sequence of Batch
        To choose the best network by.
    checkpoint : Path
        File that holds the state; read if it is there.
    """

    def __init__(
        self,
        recipe: Recipe,
        movies: Sequence[Movie],
        validation: Sequence[Batch],
        checkpoint: Path,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self._recipe = recipe
        self._samples = Samples(movies, recipe.seed, crop=recipe.crop)
        self._validation = validation
        self._checkpoint = checkpoint
        self.network = LightUNet()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.rate, weight_decay=1e-4
        )
        self.step = 0
        self.best = math.inf
        self.best_weights = self._weights()
        if checkpoint.exists():
            self._resume()

    def advance(self, steps: int) -> Progress:
        """Train for so many steps, validate, and write a checkpoint.

        Parameters
        ----------
        steps : int
            How many, at most as many as are left.

        Returns
        -------
        Progress
        """
        recipe = self._recipe
        losses = []
        self.network.train()
        last = min(recipe.steps, self.step + steps)
        batches = self._samples.batches(recipe.batch, first=self.step)
        while self.step < last:
            for group in self._optimiser.param_groups:
                group["lr"] = rate_at(self.step, recipe)
            # Half the time of fp32 on processors that have bf16; weights and validation are fp32.
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(self.network, next(batches))
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self._optimiser.step()
            losses.append(loss.item())
            self.step += 1
        validation = self.validate()
        if validation < self.best:
            self.best, self.best_weights = validation, self._weights()
        self._save()
        return Progress(self.step, recipe.steps, float(np.mean(losses)), validation, self.best)

    def validate(self) -> float:
        """Mean loss on the validation windows."""
        self.network.eval()
        with torch.inference_mode():
            return float(np.mean([loss_of(self.network, one).item() for one in self._validation]))

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "best_weights": self.best_weights,
            "best": torch.tensor(self.best, dtype=torch.float64),
            "step": torch.tensor(self.step),
            "recipe": torch.tensor(_numbers(self._recipe), dtype=torch.float64),
        }
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._checkpoint.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self._checkpoint)

    def _resume(self) -> None:
        state: dict[str, Any] = torch.load(self._checkpoint, weights_only=True)
        if state["recipe"].tolist() != _numbers(self._recipe):
            raise PssrLiveError(
                f"checkpoint {self._checkpoint}",
                "it was written with other options",
                "give the options it was started with, or another --out",
            )
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.best_weights = state["best_weights"]
        self.best = float(state["best"])
        self.step = int(state["step"])


def _numbers(recipe: Recipe) -> list[float]:
    return [float(getattr(recipe, field.name)) for field in fields(recipe)]


def train(out: Path, recipe: Recipe, data: Path, every: int = 250) -> LightUNet:
    """Train from the start, or from where the last attempt was interrupted, to the end.

    Parameters
    ----------
    out : Path
        Folder of the package; checkpoints go into ``checkpoints`` there.
    recipe : Recipe
        What to do.
    data : Path
        Folder for the movies.
    every : int
        Steps between validations and checkpoints.

    Returns
    -------
    LightUNet
        The best network by validation.
    """
    movies = make_movies(data, recipe)
    checkpoint = out / "checkpoints" / "last.pt"
    validation = validation_windows(recipe, VALIDATION_MOVIES)
    training = Training(recipe, movies, validation, checkpoint)
    begun, first = time.monotonic(), training.step
    while training.step < recipe.steps:
        now = training.advance(every)
        seconds = (time.monotonic() - begun) / (now.step - first) * (now.steps - now.step)
        _show(
            f"step {now.step}/{now.steps}  loss {now.loss:.4f}  validation {now.validation:.4f}  "
            f"best {now.best:.4f}  {seconds / 60:.1f} min left"
        )
    training.network.load_state_dict(training.best_weights)
    return training.network


def _show(line: str) -> None:
    end = "\r" if sys.stderr.isatty() else "\n"
    sys.stderr.write(f"\x1b[K{line}{end}" if sys.stderr.isatty() else f"{line}{end}")
    sys.stderr.flush()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pssr_live_models.train",
        description="Train the shipped model on simulated movies and write its package.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the package")
    parser.add_argument(
        "--data", type=Path, help="folder for the movies (default: OUT/movies)", default=None
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
        network = train(options.out, recipe, options.data or options.out / "movies")
        height, width = TEST_WINDOW_SIZE
        shown = simulated_movie("neuron", FIRST_VALIDATION_SEED, size=128, frames=5)
        window = np.ascontiguousarray(shown.frames[:, :height, :width])
        card = card_with("Not measured yet: run `python -m pssr_live_models.evaluate`.")
        package = write_package(options.out, network, NEURON_MF, window, card)
    except PssrLiveError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stderr.write(f"wrote {package.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
