"""The published network with random weights: for timings, which do not depend on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pssr_live.model import Manifest, ModelPackage, read_package
from pssr_live_models.import_weights import MIN_SIZE, TILE, onnx_bytes
from pssr_live_models.package import npz, write_file, write_manifest
from pssr_live_models.paper_network import SCALE, PaperNetwork

__all__ = ["untrained_package"]

_NAME = "pssr_mf_untrained"
_WINDOW_LENGTH = 5
_CARD = "# Untrained\n\nRandom weights, for timings. What it restores means nothing.\n"


def untrained_package(folder: Path) -> ModelPackage:
    """Write a package of PSSR-MF with random weights.

    Parameters
    ----------
    folder : Path
        An empty folder.

    Returns
    -------
    ModelPackage
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PaperNetwork(_WINDOW_LENGTH).eval()
    window = np.full((_WINDOW_LENGTH, MIN_SIZE, MIN_SIZE), 100, np.uint16)
    with torch.inference_mode():
        restored = network(torch.zeros(1, *window.shape))[0, 0].numpy()
    manifest = Manifest(
        format=1,
        name=_NAME,
        version="0",
        description="PSSR-MF, the published network, with random weights",
        licence="BSD-3-Clause",
        network=write_file(folder / f"{_NAME}.onnx", onnx_bytes(network)),
        test_pair=write_file(
            folder / "test_pair.npz",
            npz({"window": window, "restored": np.asarray(restored + 100, np.float32)}),
        ),
        card=write_file(folder / "card.md", _CARD.encode()),
        window_length=_WINDOW_LENGTH,
        centre=network.centre,
        scale=SCALE,
        normalisation="window-zscore",
        min_size=MIN_SIZE,
        max_size=TILE,
        pixel_size_um=None,
        trained_on="nothing",
    )
    write_manifest(folder, manifest)
    return read_package(folder)
