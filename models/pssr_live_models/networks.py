"""The light network: a U-Net that works below the sampling of the scanned frames."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["STEP", "LightUNet"]

STEP = 4
"""Height and width that the levels can take are multiples of this; the rest is padded."""

_FOLD = 2
"""The first convolution takes each block of ``_FOLD × _FOLD`` pixels to one position."""


def _bilinear_kernel(scale: int) -> Tensor:
    """Bilinear upsampling (``align_corners=False``) as a convolution ahead of a pixel shuffle.

    Returns
    -------
    Tensor, shape ((_FOLD · scale)², 1, 3 · _FOLD, 3 · _FOLD)
        For a stride of `_FOLD`, on frames padded by as much.
    """
    size = 3 * _FOLD
    impulses = torch.eye(size * size).reshape(size * size, 1, size, size)
    upsampled = functional.interpolate(impulses, scale_factor=scale, mode="bilinear")
    edge = _FOLD * scale
    middle = upsampled[:, 0, edge : 2 * edge, edge : 2 * edge]
    return middle.reshape(size, size, -1).permute(2, 0, 1)[:, None].contiguous()


def _convolutions(*channels: int) -> nn.Sequential:
    """3×3 convolutions from each number of channels to the next, each followed by a rectifier."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class LightUNet(nn.Module):
    """Restore the middle one of a few undersampled frames.

    The first convolution has a stride of two, so that all others run at half the sampling of the
    scanned frames or at a quarter of it; one pixel shuffle at the end reaches the restored
    sampling. What the network computes is added to the middle frame, upsampled
    bilinearly: untrained, it is bilinear interpolation.

    Parameters
    ----------
    window_length : int
        Frames the network looks at.
    centre : int
        Position of the one it restores.
    scale : int
        Restored pixels per raw pixel and axis.
    widths : tuple of int
        Channels at half and at quarter sampling.
    """

    def __init__(
        self,
        window_length: int = 5,
        centre: int = 2,
        scale: int = 4,
        widths: tuple[int, int] = (64, 128),
    ) -> None:
        super().__init__()
        self.window_length = window_length
        self.centre = centre
        self.scale = scale
        half, quarter = widths
        outputs = (_FOLD * scale) ** 2
        self.fold = nn.Conv2d(window_length, half, 3 * _FOLD, stride=_FOLD, padding=_FOLD)
        self.enter = _convolutions(half, half)
        self.context = _convolutions(half, quarter, quarter, quarter)
        self.up = nn.Conv2d(quarter, 4 * half, 1)
        self.join = _convolutions(half, half)
        self.head = nn.Conv2d(half, outputs, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.bilinear: Tensor
        self.register_buffer("bilinear", _bilinear_kernel(scale), persistent=False)

    def levels(self, window: Tensor) -> Tensor:
        """Restore frames whose height and width are multiples of `STEP`.

        Parameters
        ----------
        window : Tensor, shape (N, window_length, H, W), float32
            Frames, normalised by the mean and standard deviation of their window.

        Returns
        -------
        Tensor, shape (N, 1, scale·H, scale·W), float32
            On the same scale.
        """
        half = self.enter(functional.relu(self.fold(window)))
        quarter = self.context(functional.max_pool2d(half, 2))
        half = self.join(half + functional.pixel_shuffle(self.up(quarter), 2))
        middle = window[:, self.centre : self.centre + 1]
        middle = functional.pad(middle, (_FOLD,) * 4, mode="replicate")
        # Upsampling as one more convolution costs a tenth of a resize to full size and an addition.
        upsampled = functional.conv2d(middle, self.bilinear, stride=_FOLD)
        return functional.pixel_shuffle(self.head(half) + upsampled, _FOLD * self.scale)

    def predict(self, window: Tensor) -> Tensor:
        """Restore frames of any size: pad at the far edges, restore, crop.

        Parameters
        ----------
        window : Tensor, shape (N, window_length, H, W), float32
            Normalised frames.

        Returns
        -------
        Tensor, shape (N, 1, scale·H, scale·W), float32
        """
        height, width = window.shape[-2:]
        padding = (0, -width % STEP, 0, -height % STEP)
        restored = self.levels(functional.pad(window, padding, mode="replicate"))
        return restored[..., : self.scale * height, : self.scale * width]

    def forward(self, window: Tensor) -> Tensor:
        """Restore frames as the daemon does: with the mean of the raw frame that is restored.

        Parameters
        ----------
        window : Tensor, shape (N, window_length, H, W), float32
            Normalised frames.

        Returns
        -------
        Tensor, shape (N, 1, scale·H, scale·W), float32
        """
        restored = self.predict(window)
        middle = window[:, self.centre : self.centre + 1]
        means = (frame.float().mean(dim=(-2, -1), keepdim=True) for frame in (middle, restored))
        return restored + (next(means) - next(means))
