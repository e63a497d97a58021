"""Make a model of a lab's own movies: ``pssr-live train``."""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from rich.console import Console
from torch import nn

from pssr_live.errors import UsageError
from pssr_live.model import ModelPackage, find_model
from pssr_live_models.crappify import find_crappifier
from pssr_live_models.export import Description
from pssr_live_models.networks import LightUNet
from pssr_live_models.paper_network import PaperNetwork
from pssr_live_models.training.display import Display
from pssr_live_models.training.figures import psnr_table
from pssr_live_models.training.loop import Loop, Stage
from pssr_live_models.training.material import Material, material_of_movies, material_of_pairs
from pssr_live_models.training.packages import Made, card, shown_region, write_model
from pssr_live_models.training.presets import Preset, layer_groups, make_network
from pssr_live_models.training.previews import preview_steps, write_preview
from pssr_live_models.training.samples import Samples, Scaling, validation_batches
from pssr_live_models.training.wanted import (
    Wanted,
    check,
    crops_of,
    model_name,
    options_of,
    recipe,
)
from pssr_live_models.training.weights import network_of, scaling_of

__all__ = ["Trained", "train", "train_model"]


@dataclass(frozen=True, slots=True)
class Trained:
    """What came out of a training.

    Attributes
    ----------
    package : ModelPackage
        Written and checked.
    figures : str
        PSNR beside bilinear upsampling, Markdown.
    split : str
        What that was measured on.
    """

    package: ModelPackage
    figures: str
    split: str


def train(console: Console, **asked: Any) -> Trained:
    """Do what ``pssr-live train`` asks: `train_model` with the attributes of `Wanted` by name."""
    return train_model(Wanted(**asked), console)


def train_model(wanted: Wanted, console: Console) -> Trained:
    """Train from the start, or from where the last attempt was interrupted, and write the package.

    Parameters
    ----------
    wanted : Wanted
        What is asked.
    console : Console
        Where to show progress.

    Returns
    -------
    Trained

    Raises
    ------
    PssrLiveError
        Something that is asked makes no sense, a movie cannot be read, the disk is full, the loss
        is no number any more, or the user interrupted the training.
    """
    check(wanted)
    start = None if wanted.start is None else find_model(wanted.start)
    torch.manual_seed(wanted.seed)
    network = None if start is None else network_of(start)
    preset, length = recipe(wanted, network)
    name = model_name(wanted)
    with Display(console) as display:
        material, options = _material(wanted, preset, length, display)
        description = _description(wanted, name, material, start)
        crops = crops_of(preset, wanted, material)
        options |= options_of(preset, length, crops, wanted, start)
        before = None if network is None else copy.deepcopy(network)
        network = network or make_network(preset.network, length)
        scaling = Scaling() if start is None else scaling_of(start)
        loop = _loop(wanted, preset, network, crops, material, scaling, options)
        _run(loop, preset, wanted.out / "training", display)
        best = loop.best_network()
        display.say("writing the package")
        judged = {} if before is None else {"before this training": before.eval()}
        figures = psnr_table({**judged, "**this model**": best}, loop.validation, network.centre)
        made = Made(material, figures, options, start, loop.best_step, loop.steps)
        package = write_model(
            wanted.out,
            network,
            description,
            shown_region(material, network, wanted.seed),
            card(network, description, made),
            start,
        )
    return Trained(package, figures, material.split)


def _material(
    wanted: Wanted, preset: Preset, length: int, display: Display
) -> tuple[Material, dict[str, object]]:
    """Read what is to be learnt from, and say what decides about it."""
    cache = wanted.out / "training" / "movies"
    if wanted.movies:
        crappifier = find_crappifier(preset.crappifier)
        material = material_of_movies(
            wanted.movies,
            cache,
            crappifier,
            length,
            preset.augmentation,
            seed=wanted.seed,
            on_plane=display.reading,
        )
        options: dict[str, object] = {
            "movies": [one.sha256 for one in material.recordings],
            "crappifier": msgspec.to_builtins(crappifier),
        }
        return material, options
    material = material_of_pairs(
        wanted.undersampled, wanted.truth, cache, length, on_plane=display.reading
    )
    hashes = [one.sha256 for one in material.recordings]
    half = len(hashes) // 2
    return material, {"undersampled": hashes[:half], "truth": hashes[half:]}


def _description(
    wanted: Wanted, name: str, material: Material, start: ModelPackage | None
) -> Description:
    pixels_um = wanted.pixel_size_um or material.pixel_size_um
    if pixels_um is None:
        raise UsageError(
            f"movie {material.recordings[0].name} or another one",
            "it does not say its pixel size",
            "give --pixel-size MIN MAX of the undersampled frames, µm",
        )
    rounded = round(pixels_um[0], 5), round(pixels_um[1], 5)
    return Description(
        name=name,
        version="1.0.0",
        description=f"Trained on {material.source}",
        licence=wanted.licence or "not stated",
        pixel_size_um=rounded,
        trained_on=material.source
        + ("" if start is None else f", starting from {start.manifest.name}"),
    )


def _loop(
    wanted: Wanted,
    preset: Preset,
    network: LightUNet | PaperNetwork,
    crops: Sequence[int],
    material: Material,
    scaling: Scaling,
    options: Mapping[str, object],
) -> Loop:
    count, size = preset.windows
    each, rest = divmod(preset.steps, len(crops))
    stages = [
        Stage(
            steps=each + (rest if place == len(crops) - 1 else 0),
            batch=preset.batch,
            rate=preset.rate,
            samples=Samples(material.training, wanted.seed, crop=crop, scaling=scaling),
        )
        for place, crop in enumerate(crops)
    ]
    groups: list[tuple[list[nn.Parameter], float]] | None = None
    if isinstance(network, PaperNetwork):
        groups = layer_groups(network, slow=preset.slow_layers and wanted.start is not None)
    return Loop(
        network,
        stages,
        validation_batches(material.validation, count, size, wanted.seed, scaling),
        wanted.out / "training" / "checkpoint.pt",
        options,
        loss=preset.loss,
        groups=groups,
        averaging=preset.averaging,
        mixed=preset.mixed,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )


def _run(loop: Loop, preset: Preset, folder: Path, display: Display) -> None:
    """Train to the end, validating and writing pictures on the way."""
    pictures = preview_steps(loop.steps)

    def picture() -> None:
        file = folder / "previews" / f"step_{loop.step:06d}.png"
        write_preview(file, loop.network, loop.validation, loop.centre)

    with _ctrl_c() as pressed:

        def on_step(step: int, loss: float) -> bool:
            display.stepped(step, loop.steps, loss)
            if step in pictures:
                picture()
            return not pressed.is_set()

        if loop.step:
            display.say(f"going on from step {loop.step} of {loop.steps}")
        else:
            display.validated(loop.consider())
            picture()
        while loop.step < loop.steps:
            display.validated(loop.advance(preset.every - loop.step % preset.every, on_step))


@contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Note Ctrl-C instead of breaking off in the middle of a step; the second one breaks off."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def note(_signal: int, _frame: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
