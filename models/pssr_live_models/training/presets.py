"""Networks with the recipes that train them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from torch import nn

from pssr_live_models.networks import LightUNet
from pssr_live_models.paper_network import PaperNetwork
from pssr_live_models.training.losses import Loss, mean_squared, share_of_variance
from pssr_live_models.training.scenes import Augmentation

__all__ = [
    "PRESETS",
    "Kind",
    "Preset",
    "PresetName",
    "fine_tuning",
    "layer_groups",
    "make_network",
]

Kind = Literal["light", "paper"]
PresetName = Literal["lite", "paper", "em"]


@dataclass(frozen=True, slots=True)
class Preset:
    """What is trained, and how.

    Attributes
    ----------
    network : {"light", "paper"}
        `LightUNet`, which keeps up with a microscope on two CPU cores, or `PaperNetwork`.
    frames : int
        Window length unless asked otherwise.
    steps, batch : int
        Steps of the optimiser in all, samples per step.
    crops : tuple of int
        Height and width of the samples, scanned pixels: one after the other, for equal shares of
        the steps, each with a learning-rate cycle of its own.
    rate : float
        Largest learning rate.
    loss : callable
        What is made small.
    crappifier : str
        Which one, unless asked otherwise.
    augmentation : Augmentation
        How movies are varied.
    averaging : float, optional
        Decay of the running average of the weights that is kept; None keeps the last weights.
    mixed : bool
        bf16 arithmetic.
    every : int
        Steps between validations.
    windows : tuple of int
        To validate on: how many, and their largest height and width, scanned pixels.
    slow_layers : bool
        Starting from a trained network, its encoder learns at a tenth of the rate, its middle at
        a third (discriminative learning rates).
    """

    network: Kind
    frames: int
    steps: int
    batch: int
    crops: tuple[int, ...]
    rate: float
    loss: Loss
    crappifier: str
    augmentation: Augmentation = field(default_factory=Augmentation)
    averaging: float | None = None
    mixed: bool = False
    every: int = 250
    windows: tuple[int, int] = (8, 64)
    slow_layers: bool = False


PRESETS: dict[PresetName, Preset] = {
    # The network of the models that ship, for as long as an afternoon has; they learnt for longer.
    "lite": Preset(
        network="light",
        frames=5,
        steps=22_000,
        batch=8,
        crops=(48,),
        rate=1.5e-3,
        loss=share_of_variance,
        crappifier="physical",
        averaging=0.999,
        mixed=True,
        windows=(16, 96),
    ),
    # Fang et al., Nat. Methods 18, 406 (2021), neurons: 50 epochs of 3,000 pairs in batches of 8.
    "paper": Preset(
        network="paper",
        frames=5,
        steps=50 * 3_000 // 8,
        batch=8,
        crops=(128,),
        rate=4e-4,
        loss=mean_squared,
        crappifier="paper-fluorescence",
    ),
    # The same paper, electron microscopy: one pass over 80,000 pairs in batches of 8.
    "em": Preset(
        network="paper",
        frames=1,
        steps=80_000 // 8,
        batch=8,
        crops=(32, 64, 128),
        rate=4e-4,
        loss=mean_squared,
        crappifier="paper-em",
        slow_layers=True,
    ),
}


def fine_tuning(preset: Preset) -> Preset:
    """Change a preset for a network that has learnt already: few steps, at a low rate."""
    return replace(preset, steps=600, rate=preset.rate / 7, averaging=0.999, every=50)


def layer_groups(network: PaperNetwork, slow: bool) -> list[tuple[list[nn.Parameter], float]]:
    """Group the published network's layers by how fast they learn.

    Parameters
    ----------
    network : PaperNetwork
        To train.
    slow : bool
        Early layers learn more slowly; otherwise all learn alike.

    Returns
    -------
    list of (list of Parameter, float)
        With the factor of their learning rate: a tenth for the encoder, a third for the layers
        between, 1 for the decoder.
    """
    encoder, norm, _, middle, *decoder = network.model.layers
    parts = [([encoder], 1 / 10), ([norm, middle], 1 / 3), (decoder, 1.0)]
    return [
        ([parameter for layer in layers for parameter in layer.parameters()], factor if slow else 1)
        for layers, factor in parts
    ]


def make_network(kind: Kind, window_length: int) -> LightUNet | PaperNetwork:
    """Make a network that has learnt nothing."""
    if kind == "light":
        return LightUNet(window_length, window_length // 2)
    return PaperNetwork(window_length)
