"""How much better than interpolation: on the windows that no step has learnt from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from pssr_live.errors import UsageError
from pssr_live.metrics import match_intensities
from pssr_live_models.dataset import Batch

__all__ = ["Matched", "bilinear", "psnr_table"]

Image: TypeAlias = NDArray[Any]

SCALE = 4
_TINY = 1e-12


def bilinear(frame: Image) -> Image:
    """Upsample a frame four times, around pixel centres.

    Parameters
    ----------
    frame : ndarray, shape (H, W), float32

    Returns
    -------
    ndarray, shape (4H, 4W), float32
    """
    values = torch.from_numpy(np.ascontiguousarray(frame, np.float32))[None, None]
    upsampled = functional.interpolate(values, scale_factor=SCALE, mode="bilinear")
    return np.asarray(upsampled[0, 0].numpy())


class Matched:
    """Judges restorations of one window by their gain over bilinear upsampling.

    Parameters
    ----------
    batch : Batch
        One window.
    centre : int
        Position of the frame that is restored.
    """

    def __init__(self, batch: Batch, centre: int) -> None:
        self._truth = batch.truths[0, 0].astype(np.float64)
        self._truth -= self._truth.mean()
        self._bilinear = self._error(bilinear(batch.windows[0, centre]))

    def gain_db(self, restored: Image) -> float:
        """PSNR above that of bilinear upsampling, dB, both after the published matching.

        Parameters
        ----------
        restored : ndarray, shape (4H, 4W)
            On any scale.
        """
        return float(10 * np.log10(self._bilinear / self._error(restored)))

    def _error(self, image: Image) -> float:
        """Mean squared error once mean and factor fit best; see `match_intensities`."""
        pixels = image.astype(np.float64)
        pixels -= pixels.mean()
        variance = float(np.square(pixels).mean())
        factor = float((pixels * self._truth).mean()) / variance if variance > 0 else 0.0
        return max(float(np.square(factor * pixels - self._truth).mean()), _TINY)


def psnr_table(networks: Mapping[str, nn.Module], batches: Sequence[Batch], centre: int) -> str:
    """Compare networks with what costs nothing, as a Markdown table.

    Parameters
    ----------
    networks : mapping of str to Module
        By what to call them; in evaluation mode, on the CPU.
    batches : sequence of Batch
        One window each.
    centre : int
        Position of the frame that is restored.

    Returns
    -------
    str
        PSNR in dB, mean ± standard error over the windows whose truth is not flat.
    """
    methods: dict[str, Callable[[Batch], Image]] = {
        "bilinear": lambda batch: bilinear(batch.windows[0, centre])
    }
    length = batches[0].windows.shape[1]
    if length > 1:
        methods[f"{length}-frame average, bilinear"] = lambda batch: bilinear(
            batch.windows[0].mean(axis=0)
        )
    methods |= {name: partial(_restored, network) for name, network in networks.items()}
    rows = list(_figures(methods, batches))
    lines = [f"| method | PSNR, dB (n = {len(rows)} windows) |", "|---|---|"]
    for name in methods if rows else ():
        values = np.array([row[name] for row in rows])
        error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else float("nan")
        lines.append(f"| {name} | {values.mean():.2f} ± {error:.2f} |")
    return "\n".join(lines)


def _restored(network: nn.Module, batch: Batch) -> Image:
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(batch.windows))[0, 0].numpy())


def _figures(
    methods: Mapping[str, Callable[[Batch], Image]], batches: Sequence[Batch]
) -> Iterator[dict[str, float]]:
    for batch in batches:
        truth = batch.truths[0, 0]
        try:
            yield {name: _psnr_db(method(batch), truth) for name, method in methods.items()}
        except UsageError:  # a flat truth has no peak
            continue


def _psnr_db(image: Image, truth: Image) -> float:
    matched, target = match_intensities(image, truth)
    return float(-10 * np.log10(max(float(np.square(matched - target).mean()), _TINY)))
