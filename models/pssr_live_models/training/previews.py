"""Pictures of how far a training is: raw, restored and truth side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import nn

from pssr_live.errors import StorageError
from pssr_live_models.dataset import Batch
from pssr_live_models.training.figures import SCALE

__all__ = ["preview_steps", "write_preview"]

Picture: TypeAlias = NDArray[Any]

_FIRST = 50
_ROWS = 3
_LARGEST = 384
_GAP = 4
_CAPTION = 14


def preview_steps(steps: int) -> list[int]:
    """Say after which steps a picture is worth looking at: 50, 100, 200 and so on, and the last.

    Parameters
    ----------
    steps : int
        Of the whole training.
    """
    doubling = (_FIRST << turn for turn in range(steps.bit_length()))
    return [*(step for step in doubling if step < steps), steps]


def write_preview(file: Path, network: nn.Module, batches: Sequence[Batch], centre: int) -> None:
    """Write a picture (PNG) of up to three windows.

    Parameters
    ----------
    file : Path
        Where; its folder is made.
    network : Module
        Restores the windows as it is now.
    batches : sequence of Batch
        One window each.
    centre : int
        Position of the frame that is restored.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    training = network.training
    device = next(network.parameters()).device
    rows = []
    network.eval()
    with torch.inference_mode():
        for batch in batches[:_ROWS]:
            restored = network(torch.from_numpy(batch.windows).to(device)).float().cpu().numpy()
            raw = batch.windows[0, centre].repeat(SCALE, axis=0).repeat(SCALE, axis=1)
            rows.append(_greys([raw, restored[0, 0], batch.truths[0, 0]]))
    network.train(training)
    picture = _captioned(rows)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file, format="PNG")
    except OSError as error:
        raise StorageError(f"picture {file}", str(error), "free space") from error


def _greys(pictures: Sequence[Picture]) -> list[NDArray[np.uint8]]:
    """Show all on the grey scale of the last one, from its top left."""
    low, high = np.percentile(pictures[-1], (0.1, 99.9))
    span = max(float(high - low), 1e-6)
    return [
        (255 * np.clip((picture[:_LARGEST, :_LARGEST] - low) / span, 0, 1)).astype(np.uint8)
        for picture in pictures
    ]


def _captioned(rows: Sequence[Sequence[NDArray[np.uint8]]]) -> Image.Image:
    widths = [max(row[column].shape[1] for row in rows) for column in range(3)]
    heights = [row[0].shape[0] for row in rows]
    size = sum(widths) + 2 * _GAP, sum(heights) + (len(rows) - 1) * _GAP + _CAPTION
    picture = Image.new("L", size, 0)
    draw = ImageDraw.Draw(picture)
    top = _CAPTION
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for grey, width in zip(row, widths, strict=True):
            picture.paste(Image.fromarray(grey), (left, top))
            left += width + _GAP
        top += height + _GAP
    left = 0
    for caption, width in zip(("raw", "restored", "truth"), widths, strict=True):
        draw.text((left + 2, 1), caption, fill=255)
        left += width + _GAP
    return picture
