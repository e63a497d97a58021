"""Write what was trained as a model package."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from pssr_live.engine.check import check_test_pair
from pssr_live.errors import ModelError, StorageError
from pssr_live.model import Manifest, ModelPackage, Tiling, read_package
from pssr_live_models.export import Description, write_package
from pssr_live_models.import_weights import (
    MAX_SIZE,
    MIN_SIZE,
    TILE,
    TILE_OVERLAP,
    onnx_bytes,
)
from pssr_live_models.networks import LightUNet
from pssr_live_models.package import npz, write_file, write_manifest
from pssr_live_models.paper_network import SCALE, PaperNetwork
from pssr_live_models.training.material import Material
from pssr_live_models.training.samples import Region, Scaling

__all__ = ["Made", "card", "shown_region", "write_model"]

Image: TypeAlias = NDArray[Any]

_TOLERANCE = 1e-2
"""Largest difference of an engine from torch, in standard deviations; as ``verify``."""

_TEST_SIZES = {"light": (61, 83), "paper": (21, 17)}
"""Of the package's test pair; odd, so that padding and cropping are tested as well."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a card says, beside what the package itself does.

    Attributes
    ----------
    material : Material
        What was learnt from.
    figures : str
        Markdown table.
    options : mapping
        All that the training was started with.
    start : ModelPackage or None
        What it started from.
    best_step, steps : int
        Of the weights that were kept, and in all.
    """

    material: Material
    figures: str
    options: Mapping[str, object]
    start: ModelPackage | None
    best_step: int
    steps: int


def shown_region(material: Material, network: LightUNet | PaperNetwork, seed: int) -> Region:
    """Choose what the package's test pair shows: a part of a scene that was not trained on."""
    height, width = _TEST_SIZES["light" if isinstance(network, LightUNet) else "paper"]
    rng = np.random.default_rng((seed, 2))
    region = material.validation[0].region(rng, max(height, width), varied=False)
    window = region.frames[:, :height, :width].astype(np.float64)
    window = np.clip(np.rint(window), 0, 65535).astype(np.uint16)
    truth = region.truth[: SCALE * height, : SCALE * width].astype(np.float32)
    return Region(np.ascontiguousarray(window), np.ascontiguousarray(truth))


def write_model(
    folder: Path,
    network: LightUNet | PaperNetwork,
    description: Description,
    shown: Region,
    text: str,
    start: ModelPackage | None,
) -> ModelPackage:
    """Write a package, read it back, and check that an engine restores as torch does.

    Parameters
    ----------
    folder : Path
        Made if missing.
    network : LightUNet or PaperNetwork
        Trained, in evaluation mode, on the CPU. The published network's kernels are replaced by
        what they amount to.
    description : Description
        What to say about it.
    shown : Region
        uint16 frames and truth for the test pair.
    text : str
        Model card, Markdown.
    start : ModelPackage or None
        What the training started from; windows are normalised in the same way.

    Returns
    -------
    ModelPackage

    Raises
    ------
    ModelError
        The package restores differently.
    StorageError
        It cannot be written.
    """
    try:
        with _quiet_exporter():
            if isinstance(network, LightUNet):
                package = write_package(
                    folder, network, description, shown.frames, text, shown.truth
                )
            else:
                package = _write_paper(folder, network, description, shown, text, start)
    except OSError as error:
        raise StorageError(
            f"package {folder}",
            error.strerror or str(error),
            "free space; the same command goes on from the last checkpoint",
        ) from error
    worst, report = check_test_pair(package, "auto", None)
    if not worst <= _TOLERANCE:
        raise ModelError(
            f"model {package.manifest.name} on {report}",
            f"it differs from torch by {worst:.3g} standard deviations",
            "report this, with the training folder",
        )
    return package


def _write_paper(
    folder: Path,
    network: PaperNetwork,
    description: Description,
    shown: Region,
    text: str,
    start: ModelPackage | None,
) -> ModelPackage:
    folder.mkdir(parents=True, exist_ok=True)
    statistics = start.manifest.training_statistics if start else None
    mean, std = Scaling(statistics)(shown.frames)
    window = torch.from_numpy(((shown.frames - mean) / std).astype(np.float32)[None])
    with torch.inference_mode():
        restored = network(window)[0, 0].numpy() * np.float32(std) + np.float32(mean)
    pair = npz({"window": shown.frames, "restored": restored, "truth": shown.truth})
    name = description.name
    manifest = Manifest(
        format=1,
        name=name,
        version=description.version,
        description=description.description,
        licence=description.licence,
        network=write_file(folder / f"{name}.onnx", onnx_bytes(network)),
        test_pair=write_file(folder / "test_pair.npz", pair),
        card=write_file(folder / "card.md", text.encode()),
        window_length=network.window_length,
        centre=network.centre,
        scale=SCALE,
        normalisation="window-zscore" if statistics is None else "window-maximum",
        training_statistics=statistics,
        keeps_mean=start.manifest.keeps_mean if start else True,
        min_size=MIN_SIZE,
        max_size=MAX_SIZE,
        tiling=start.manifest.tiling if start else Tiling(size=TILE, overlap=TILE_OVERLAP),
        pixel_size_um=description.pixel_size_um,
        trained_on=description.trained_on,
    )
    write_manifest(folder, manifest)
    return read_package(folder)


def card(network: LightUNet | PaperNetwork, description: Description, made: Made) -> str:
    """Write the model card.

    Parameters
    ----------
    network : LightUNet or PaperNetwork
        What was trained.
    description : Description
        As of the package.
    made : Made
        How it was made.

    Returns
    -------
    str
        Markdown.
    """
    real = "truth" in made.options
    light = isinstance(network, LightUNet)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    kind = "LightUNet" if light else "the published PSSR network (Fang et al., 2021)"
    statistics = made.start.manifest.training_statistics if made.start else None
    template = Path(__file__).with_name("card_template.md").read_text(encoding="utf-8")
    low, high = description.pixel_size_um
    return Template(template).substitute(
        name=description.name,
        source=made.material.source,
        never="" if real else "It has never seen a frame that was really scanned undersampled.",
        frames="one" if network.window_length == 1 else f"{network.window_length} in a row",
        low=f"{low:.4g}",
        high=f"{high:.4g}",
        network=f"{kind}, {parameters:,} parameters",
        start="nothing" if made.start is None else _spoken(made.start),
        normalisation="by the window's own mean and standard deviation"
        if statistics is None
        else f"window divided by its brightest pixel, then mean {statistics[0]:.6g}, standard "
        f"deviation {statistics[1]:.6g}",
        licence=description.licence,
        figures=made.figures,
        split=made.material.split,
        undersampled=""
        if real
        else "\nThe crappifier made these windows too: the figures say how well the model undoes "
        "it, not how well it\nrestores frames of a microscope. Measure that with "
        "`pssr-live evaluate`.",
        best_step=made.best_step,
        steps=made.steps,
        options=json.dumps(made.options, indent=2, sort_keys=True),
        recordings=", ".join(one.name for one in made.material.recordings),
    )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep to itself what the exporter says about packages that it could use."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        yield
    finally:
        exporter.setLevel(level)


def _spoken(package: ModelPackage) -> str:
    manifest = package.manifest
    return f"{manifest.name} {manifest.version} (sha256 {manifest.network.sha256[:16]}…)"
