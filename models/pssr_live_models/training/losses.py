"""What a network is trained to make small."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["LOSSES", "Loss", "charbonnier", "mean_squared", "share_of_variance"]

Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of restored frames and truths (N, 1, H, W), and of the samples' weights (N,): one number."""

_BEND = 0.03
"""Where `charbonnier` turns from a parabola into a line, as a share of the truth's deviation."""


def mean_squared(restored: Tensor, truths: Tensor, weights: Tensor) -> Tensor:
    """Mean squared error of z-scores: the paper's loss. Bright samples count more."""
    del weights
    return (restored - truths).square().mean()


def share_of_variance(restored: Tensor, truths: Tensor, weights: Tensor) -> Tensor:
    """Squared error as a share of the true frames' variance, mean over a batch."""
    weighted: Tensor = (restored - truths).square().mean(dim=(1, 2, 3)) * weights
    return weighted.mean()


def charbonnier(restored: Tensor, truths: Tensor, weights: Tensor) -> Tensor:
    """√(error² + ε²) − ε, errors as a share of the true frames' deviation; outliers count less."""
    errors = (restored - truths).square() * weights[:, None, None, None]
    return torch.sqrt(errors + _BEND**2).mean() - _BEND


LOSSES: dict[str, Loss] = {"charbonnier": charbonnier}
"""Those that ``--loss`` can put in the place of a preset's squared error, by name."""
