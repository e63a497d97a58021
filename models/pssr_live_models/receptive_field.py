"""How far a network looks: what a tile must overlap its neighbour by.

Measured, not added up from a list of layers, so that it stays right when the network changes. One
pixel of a window is replaced by NaN, and the restored pixels that become NaN are those that depend
on it: convolutions, rectifiers, pooling and resizing all pass it on, whatever the weights are.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor

from pssr_live.engine.tile import BLEND
from pssr_live.model import Tiling
from pssr_live_models.networks import STEP, LightUNet

__all__ = ["TILE", "light_tiling", "reach"]

TILE = 1024
"""Largest height or width that the light network restores in one piece, raw pixels.

Frames of 1024×1024 stay whole; what the engine needs beside the frames themselves stays bounded."""

_LARGEST = 512
"""Raw pixels per side; a network that looks further is taken to look at all of its input."""


def light_tiling(network: LightUNet) -> Tiling:
    """Say how large frames are cut so that they come out as in one piece.

    Parameters
    ----------
    network : LightUNet
        Trained or not.

    Returns
    -------
    Tiling
        For the manifest.
    """
    exact = deepcopy(network).double().eval()
    furthest = reach(exact.predict, network.window_length, scale=network.scale, step=STEP)
    if furthest is None:
        raise ValueError("the network looks at all of its input: no tiles restore as one piece")
    return Tiling(size=TILE, overlap=2 * furthest + BLEND)


def reach(
    network: Callable[[Tensor], Tensor], window_length: int, *, scale: int, step: int
) -> int | None:
    """Measure how far a network looks.

    Parameters
    ----------
    network : callable
        Takes a window, float64 ``(N, window_length, H, W)``, and gives what it restores,
        ``(N, 1, scale·H, scale·W)``. In float64, since fast convolutions of float32 may compute
        pixels in blocks, and spread a NaN over the block.
    window_length : int
        Frames that the network looks at.
    scale : int
        Restored pixels per raw pixel and axis.
    step : int
        Raw pixels per position of the network's coarsest level: a pixel's influence depends on
        where it lies in that grid.

    Returns
    -------
    int or None
        Raw pixels: the largest distance, along an axis, between a raw pixel and another one whose
        restored pixels depend on it. None if the network looks at all of its input, however large.
    """
    side = 16 * step
    while side <= _LARGEST:
        furthest = max(
            _influence(network, (window_length, side), position, scale)
            for position in range(side // 2, side // 2 + step)
        )
        # Nearer than a step to the border, padding could hide a part of the influence.
        if furthest < side // 2 - step:
            return furthest
        side *= 2
    return None


def _influence(
    network: Callable[[Tensor], Tensor], size: tuple[int, int], position: int, scale: int
) -> int:
    """Find how far from a pixel on the diagonal restored pixels depend on it, raw pixels."""
    length, side = size
    window = torch.zeros(1, length, side, side, dtype=torch.float64)
    window[..., position, position] = torch.nan
    with torch.inference_mode():
        touched = torch.nonzero(network(window)[0, 0].isnan())
    return int((touched // scale - position).abs().max())
