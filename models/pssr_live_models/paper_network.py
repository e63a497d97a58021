"""The published PSSR network (Fang et al., Nature Methods 2021), with every quirk that counts.

The frames are upsampled first (bilinear, 4 times); a U-Net with a ResNet34-like encoder works at
the restored size. What its published code does, as opposed to what one would expect:

- The encoder ends in a global average: the bottleneck is one position, whatever the frames' size.
- Each decoder block is resized (nearest) to its skip connection, so any height and width works and
  nothing must be padded; padding would change the global average.
- Every pixel shuffle is followed by a blur over 2×2 pixels.
- There is one self-attention layer, in the third decoder block; its memory grows with the square
  of the number of pixels.

Module names follow the published files, so that their state dicts load as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SCALE", "PaperNetwork", "frozen"]

SCALE = 4
"""Restored pixels per raw pixel and axis."""

_STEM = (32, 32, 64)
_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
_SKIPS = (7, 6, 5, 4, 2)
"""Parts of the encoder whose outputs the decoder takes, in its order."""
_SKIP_CHANNELS = (512, 256, 128, 64, 64)
_ATTENTION_BLOCK = 2


class _WeightNormConv(nn.Module):
    """A convolution whose kernels are directions (``weight_v``) times lengths (``weight_g``)."""

    def __init__(
        self, before: int, after: int, size: int, *, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, size // 2
        kernels = nn.init.kaiming_normal_(torch.empty(after, before, size, size))
        self.bias = nn.Parameter(torch.zeros(after)) if bias else None
        self.weight_g = nn.Parameter(_lengths(kernels))
        self.weight_v = nn.Parameter(kernels)

    def weight(self) -> Tensor:
        return self.weight_v * (self.weight_g / _lengths(self.weight_v))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight(), self.bias, self.stride, self.padding)

    def plain(self) -> nn.Conv2d:
        after, before, size, _ = self.weight_v.shape
        conv = nn.Conv2d(before, after, size, self.stride, self.padding, bias=self.bias is not None)
        with torch.no_grad():
            conv.weight.copy_(self.weight())
            if conv.bias is not None and self.bias is not None:
                conv.bias.copy_(self.bias)
        return conv


class _SpectralNormConv(nn.Module):
    """A 1×1 convolution over a row of positions, divided by its largest singular value.

    ``weight_u`` and ``weight_v`` estimate that value; training improves them one step at a time,
    restoring uses them as they are.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(nn.init.kaiming_normal_(torch.empty(after, before, 1)))
        self.weight_u: Tensor
        self.weight_v: Tensor
        self.register_buffer("weight_u", functional.normalize(torch.randn(after), dim=0))
        self.register_buffer("weight_v", functional.normalize(torch.randn(before), dim=0))

    def weight(self) -> Tensor:
        matrix = self.weight_orig[..., 0]
        if self.training:
            with torch.no_grad():
                self.weight_v.copy_(functional.normalize(matrix.T @ self.weight_u, dim=0))
                self.weight_u.copy_(functional.normalize(matrix @ self.weight_v, dim=0))
        u, v = self.weight_u.clone(), self.weight_v.clone()
        return self.weight_orig / torch.dot(u, matrix @ v)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv1d(x, self.weight())

    def plain(self) -> nn.Conv1d:
        after, before, _ = self.weight_orig.shape
        conv = nn.Conv1d(before, after, 1, bias=False)
        with torch.no_grad():
            conv.weight.copy_(self.weight())
        return conv


def _lengths(kernels: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(kernels, dim=(1, 2, 3), keepdim=True)
    return lengths


def _convolution(
    before: int,
    after: int,
    size: int = 3,
    *,
    stride: int = 1,
    bias: bool = True,
    rectified: bool = True,
) -> nn.Sequential:
    conv = _WeightNormConv(before, after, size, stride=stride, bias=bias)
    return nn.Sequential(conv, nn.ReLU()) if rectified else nn.Sequential(conv)


class _ResidualBlock(nn.Module):
    """1×1 and 3×3 convolution, added to the input."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            _convolution(before, after, 1, bias=False),
            _convolution(after, after, stride=stride, bias=False, rectified=False),
        )
        self.pool = nn.Identity() if stride == 1 else nn.AvgPool2d(2, ceil_mode=True)
        self.idconv: nn.Module = nn.Identity()
        if before != after:
            self.idconv = _convolution(before, after, 1, bias=False, rectified=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.convs(x) + self.idconv(self.pool(x)))


def _encoder(window_length: int) -> nn.Sequential:
    stem = [
        _convolution(before, after, stride=2 if part == 0 else 1, bias=False)
        for part, (before, after) in enumerate(pairwise((window_length, *_STEM)))
    ]
    stages, before = [], _STEM[-1]
    for stage, (after, blocks) in enumerate(_STAGES):
        strides = (2 if stage else 1, *(1,) * (blocks - 1))
        widths = pairwise((before, *(after,) * blocks))
        stages.append(
            nn.Sequential(
                *(_ResidualBlock(*pair, s) for pair, s in zip(widths, strides, strict=True))
            )
        )
        before = after
    return nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1), *stages, nn.AdaptiveAvgPool2d(1))


class _Shuffle(nn.Module):
    """Twice the sampling: 1×1 convolution, rectifier, pixel shuffle, blur over 2×2 pixels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = _convolution(before, 4 * after, 1, rectified=False)
        conv = self.conv[0]
        assert isinstance(conv, _WeightNormConv)
        with torch.no_grad():  # the four pixels of a position start alike: no checkerboard
            conv.weight_v.copy_(conv.weight_v[::4].repeat_interleave(4, dim=0))
            conv.weight_g.copy_(_lengths(conv.weight_v))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pixel_shuffle(functional.relu(self.conv(x)), 2)
        return functional.avg_pool2d(functional.pad(x, (1, 0, 1, 0), mode="replicate"), 2, 1)


class _SelfAttention(nn.Module):
    """Each position adds what the others hold, by likeness; as in SAGAN.

    The likenesses sum to one over the positions that look, not over those looked at.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = _SpectralNormConv(channels, channels // 8)
        self.key = _SpectralNormConv(channels, channels // 8)
        self.value = _SpectralNormConv(channels, channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        row = x.flatten(2)
        query, key, value = self.query(row), self.key(row), self.value(row)
        likeness = functional.softmax(torch.bmm(query.transpose(1, 2), key), dim=1)
        return (self.gamma * torch.bmm(value, likeness) + row).reshape(x.shape)


class _DecoderBlock(nn.Module):
    def __init__(self, before: int, skip: int, *, last: bool, attention: bool) -> None:
        super().__init__()
        joined = before // 2 + skip
        self.channels = joined // 2 if last else joined
        self.shuf = _Shuffle(before, before // 2)
        self.bn = nn.BatchNorm2d(skip)
        self.conv1 = _convolution(joined, self.channels)
        self.conv2 = _convolution(self.channels, self.channels)
        if attention:
            self.conv2.append(_SelfAttention(self.channels))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = functional.interpolate(self.shuf(x), skip.shape[-2:], mode="nearest")
        joined = functional.relu(torch.cat([x, self.bn(skip)], dim=1))
        decoded: Tensor = self.conv2(self.conv1(joined))
        return decoded


class _Residual(nn.Module):
    """Two 3×3 convolutions, by way of half as many channels, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.layers = nn.ModuleList([_convolution(channels, inner), _convolution(inner, channels)])

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        for layer in self.layers:
            residual = layer(residual)
        return x + residual


class _UNet(nn.Module):
    def __init__(self, window_length: int) -> None:
        super().__init__()
        deepest = _SKIP_CHANNELS[0]
        middle = nn.Sequential(
            _convolution(deepest, 2 * deepest), _convolution(2 * deepest, deepest)
        )
        decoder: list[nn.Module] = []
        before = deepest
        for number, skip in enumerate(_SKIP_CHANNELS):
            last = number == len(_SKIP_CHANNELS) - 1
            block = _DecoderBlock(before, skip, last=last, attention=number == _ATTENTION_BLOCK)
            decoder.append(block)
            before = block.channels
        joined = before + window_length
        self.layers = nn.ModuleList(
            [
                _encoder(window_length),
                nn.BatchNorm2d(deepest),
                nn.ReLU(),
                middle,
                *decoder,
                _Shuffle(before, before),
                nn.Identity(),  # where the upsampled frames join
                _Residual(joined),
                _convolution(joined, 1, 1, rectified=False),
            ]
        )

    def forward(self, frames: Tensor) -> Tensor:
        encoder, norm, rectifier, middle, *decoder, shuffle, join, residual, final = self.layers
        assert isinstance(encoder, nn.Sequential)
        outputs = [frames]
        for part in encoder:
            outputs.append(part(outputs[-1]))
        x = middle(rectifier(norm(outputs[-1])))
        for block, skip in zip(decoder, _SKIPS, strict=True):
            x = block(x, outputs[skip + 1])
        x = join(torch.cat([shuffle(x), frames], dim=1))
        prediction: Tensor = final(residual(x))
        return prediction


class PaperNetwork(nn.Module):
    """PSSR-MF (five frames) or PSSR-SF (one frame), as published.

    Parameters
    ----------
    window_length : int
        Frames the network looks at: 5 or 1 in the paper.
    """

    scale = SCALE

    def __init__(self, window_length: int = 5) -> None:
        super().__init__()
        self.window_length = window_length
        self.model = _UNet(window_length)

    @property
    def centre(self) -> int:
        """Position of the frame that is restored."""
        return self.window_length // 2

    def forward(self, window: Tensor) -> Tensor:
        """Restore frames of any size.

        Parameters
        ----------
        window : Tensor, shape (N, window_length, H, W), float32
            Frames, normalised as in training.

        Returns
        -------
        Tensor, shape (N, 1, 4·H, 4·W), float32
            On the same scale.
        """
        upsampled = functional.interpolate(
            window, scale_factor=float(SCALE), mode="bilinear", align_corners=False
        )
        restored: Tensor = self.model(upsampled)
        return restored

    def scale_output(self, factor: float, offset: float) -> None:
        """Change the last layer so that ``factor · y + offset`` comes out instead of ``y``.

        Parameters
        ----------
        factor : float
            Positive.
        offset : float
        """
        *_, final = self.modules()
        assert isinstance(final, _WeightNormConv)
        assert final.bias is not None
        with torch.no_grad():
            final.weight_g.mul_(factor)
            final.bias.mul_(factor).add_(offset)


def frozen(network: nn.Module) -> nn.Module:
    """Replace normalised kernels by what they amount to, in place.

    Parameters
    ----------
    network : Module
        Trained; afterwards it restores as before but has another state dict and can no longer be
        trained on.

    Returns
    -------
    Module
        The network, in evaluation mode, without gradients.
    """
    network.eval().requires_grad_(False)
    for parent, name, conv in list(_normalised(network)):
        setattr(parent, name, conv.plain().requires_grad_(False))
    return network


def _normalised(
    network: nn.Module,
) -> Iterator[tuple[nn.Module, str, _WeightNormConv | _SpectralNormConv]]:
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, _WeightNormConv | _SpectralNormConv):
                yield parent, name, child
