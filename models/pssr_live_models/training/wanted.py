"""What is asked of a training: refused, or completed by a preset."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pssr_live.errors import StorageError, UsageError
from pssr_live.model import ModelPackage
from pssr_live_models.networks import LightUNet
from pssr_live_models.paper_network import PaperNetwork
from pssr_live_models.training.losses import LOSSES
from pssr_live_models.training.material import Material
from pssr_live_models.training.presets import PRESETS, Preset, PresetName, fine_tuning

__all__ = ["Wanted", "check", "crops_of", "model_name", "options_of", "recipe"]

_SMALLEST_CROP = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of a training; None leaves a choice to the preset.

    Attributes
    ----------
    out : Path
        Folder of the package; all that belongs to the training goes into ``training`` there.
    movies : sequence of Path
        Movies at full sampling, and folders of them.
    undersampled, truth : sequence of Path
        Or: undersampled recordings with their ground truth, in one order.
    start : str, optional
        Model to start from: name or package folder.
    preset : {"lite", "paper", "em"}, optional
        Network and recipe; by default that of ``start``, else lite.
    frames : int, optional
        Window length, 5 or 1.
    crappifier : str, optional
        Name, or file written by ``pssr-live calibrate``.
    loss : {"mse", "charbonnier"}, optional
        What is made small; "mse", the squared error, is what every preset has.
    steps, batch, crop : int, optional
        Steps of the optimiser, samples per step, height and width of a sample in scanned pixels.
    rate : float, optional
        Largest learning rate.
    seed : int
        Of everything that is drawn.
    name, licence : str, optional
        Of the model; the name is by default that of the folder.
    pixel_size_um : tuple of float, optional
        Range of raw pixel sizes that the model is valid for, µm; by default what the files say.
    """

    out: Path
    movies: Sequence[Path] = ()
    undersampled: Sequence[Path] = ()
    truth: Sequence[Path] = ()
    start: str | None = None
    preset: PresetName | None = None
    frames: int | None = None
    crappifier: str | None = None
    loss: str | None = None
    steps: int | None = None
    batch: int | None = None
    crop: int | None = None
    rate: float | None = None
    seed: int = 0
    name: str | None = None
    licence: str | None = None
    pixel_size_um: tuple[float, float] | None = None


def check(wanted: Wanted) -> None:
    """Refuse what makes no sense before anything is read."""
    real = bool(wanted.undersampled or wanted.truth)
    if real == bool(wanted.movies):
        raise UsageError(
            "train",
            "both movies and recordings with their truth are given"
            if real
            else "no movie is given",
            "give movies at full sampling, or --undersampled FILE with --truth FILE",
        )
    if real and wanted.crappifier is not None:
        raise UsageError(
            f"--crappifier {wanted.crappifier}",
            "the frames are undersampled already",
            "leave it out",
        )
    if wanted.crop is not None and wanted.crop < _SMALLEST_CROP:
        raise UsageError(
            f"--crop {wanted.crop}", "it is too small to learn from", "give 16 or more"
        )
    for option, value in (("steps", wanted.steps), ("batch", wanted.batch), ("rate", wanted.rate)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(
                f"--{option} {value}", "it is no number above 0", "leave it out, or give another"
            )
    pixels_um = wanted.pixel_size_um
    if pixels_um is not None and not 0 < pixels_um[0] <= pixels_um[1] < float("inf"):
        raise UsageError(
            f"pixel sizes {pixels_um[0]} to {pixels_um[1]} µm",
            "they are no range above 0",
            "give the smallest and the largest, such as 0.15 0.20",
        )
    _check_folder(wanted)


def _check_folder(wanted: Wanted) -> None:
    if wanted.out.exists() and not wanted.out.is_dir():
        raise StorageError(f"--out {wanted.out}", "it is a file", "give a folder, or a new name")
    if (wanted.out / "manifest.json").exists() and not (wanted.out / "training").is_dir():
        raise StorageError(
            f"folder {wanted.out}", "it holds a model that was not trained here", "give a new --out"
        )


def model_name(wanted: Wanted) -> str:
    """Take the model's name from what was asked, or from the folder."""
    name = wanted.name or wanted.out.resolve().name
    if re.fullmatch("[a-z0-9_]+", name) is None:
        raise UsageError(
            f"name {name!r}",
            "it has other signs than a-z, 0-9 and _",
            "give --name one like my_mf" if wanted.name is None else "give one like my_mf",
        )
    return name


def recipe(wanted: Wanted, network: LightUNet | PaperNetwork | None) -> tuple[Preset, int]:
    """Choose preset and window length; what is given wins, what does not fit is refused."""
    if network is None:
        preset = PRESETS[wanted.preset or "lite"]
        length = wanted.frames or preset.frames
    else:
        light = isinstance(network, LightUNet)
        preset = PRESETS[wanted.preset or ("lite" if light else "paper")]
        length = network.window_length
        if (preset.network == "light") != light:
            raise UsageError(
                f"--preset {wanted.preset}", f"{wanted.start} has another network", "leave it out"
            )
        if wanted.frames not in (None, length):
            raise UsageError(
                f"--frames {wanted.frames}",
                f"{wanted.start} looks at {length}",
                "leave it out, or start from another model",
            )
        preset = fine_tuning(preset)
    if wanted.loss is not None and wanted.loss != "mse":  # every preset has its own squared error
        preset = replace(preset, loss=LOSSES[wanted.loss])
    return (
        replace(
            preset,
            steps=wanted.steps or preset.steps,
            batch=wanted.batch or preset.batch,
            rate=wanted.rate or preset.rate,
            crappifier=wanted.crappifier or preset.crappifier,
        ),
        length,
    )


def crops_of(preset: Preset, wanted: Wanted, material: Material) -> tuple[int, ...]:
    """Choose heights and widths of the samples, one for each stage of the preset."""
    largest = max(preset.crops)
    crop = wanted.crop or largest
    if crop > material.shortest:
        raise UsageError(
            f"crops of {crop}×{crop} scanned pixels",
            f"the smallest movie gives frames of {material.shortest} pixels",
            f"give --crop {material.shortest} or less, or leave small movies out",
        )
    if (wanted.steps or preset.steps) < len(preset.crops):
        raise UsageError(
            f"--steps {wanted.steps}", "there is a step for each size at least", "give more"
        )
    return tuple(max(_SMALLEST_CROP // 2, one * crop // largest) for one in preset.crops)


def options_of(
    preset: Preset,
    length: int,
    crops: Sequence[int],
    wanted: Wanted,
    start: ModelPackage | None,
) -> dict[str, object]:
    """List what decides about the result, beside the files and what undersamples them."""
    return {
        "network": preset.network,
        "frames": length,
        "steps": preset.steps,
        "batch": preset.batch,
        "crops": list(crops),
        "rate": preset.rate,
        "loss": preset.loss.__name__,
        "seed": wanted.seed,
        "slow_layers": preset.slow_layers and start is not None,
        "from": None if start is None else start.network_sha256,
    }
