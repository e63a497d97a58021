"""Add the networks for shorter arithmetic to a package: fp16 and int8."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from pssr_live.model import ModelPackage, read_package
from pssr_live_models.dataset import normalise, window_frames
from pssr_live_models.half_precision import half_precision
from pssr_live_models.movies import FIRST_VALIDATION_SEED, other_movie, varied_movie
from pssr_live_models.package import write_file, write_manifest
from pssr_live_models.quantise import quantise

__all__ = ["add_variants"]

_MOVIES = 8
_SIZE = 160


def add_variants(folder: Path) -> ModelPackage:
    """Make a shipped package's fp16 and int8 networks from its fp32 one.

    Parameters
    ----------
    folder : Path
        The package; networks for shorter arithmetic that it holds already are replaced.

    Returns
    -------
    ModelPackage
    """
    package = read_package(folder)
    manifest = package.manifest
    windows = _sample_windows(manifest.window_length, manifest.centre)
    networks = {
        "fp16": half_precision(package.network),
        "int8": quantise(package.network, windows),
    }
    variants = {
        name: write_file(folder / f"{manifest.name}.{name}.onnx", content)
        for name, content in networks.items()
    }
    write_manifest(folder, msgspec.structs.replace(manifest, variants=variants))
    return read_package(folder)


def _sample_windows(length: int, centre: int) -> Iterator[NDArray[np.float32]]:
    """Record windows of cells and of other things that are for nothing else, all photon rates."""
    for seed in range(FIRST_VALIDATION_SEED - _MOVIES, FIRST_VALIDATION_SEED):
        cells = varied_movie(seed, size=_SIZE, frames=5)
        chosen = window_frames(2, range(5), length=length, centre=centre)
        for movie in (cells, other_movie(cells, seed)):
            yield normalise(movie.frames[chosen])[0][None]
