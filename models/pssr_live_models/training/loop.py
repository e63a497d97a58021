"""The training loop: steps, validation, the best weights, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pssr_live.errors import PssrLiveError, UserInterruptError
from pssr_live_models.dataset import Batch
from pssr_live_models.training.checkpoint import Options, read_checkpoint, write_checkpoint
from pssr_live_models.training.figures import Matched
from pssr_live_models.training.losses import Loss, share_of_variance

__all__ = ["Loop", "Progress", "SampleSource", "Stage", "rate_at"]


class SampleSource(Protocol):
    """Endless samples, the same ones for the same number."""

    def batches(self, size: int, first: int = 0) -> Iterator[Batch]:
        """Draw batches of ``size`` samples; the number of the first one says which."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a training with a learning-rate cycle of its own.

    Attributes
    ----------
    steps, batch : int
        Steps of the optimiser, samples per step.
    rate : float
        Largest learning rate of the cycle.
    samples : SampleSource
        What is learnt from.
    """

    steps: int
    batch: int
    rate: float
    samples: SampleSource


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands.

    Attributes
    ----------
    step, steps : int
        Done, of all.
    loss : float
        Mean over the steps since the last validation; not a number before the first step.
    validation : float
        Mean loss on the validation windows.
    best : float
        Lowest so far.
    gain_db : float
        Mean PSNR over bilinear upsampling on the validation windows, intensities matched, dB.
    """

    step: int
    steps: int
    loss: float
    validation: float
    best: float
    gain_db: float


def rate_at(step: int, steps: int, rate: float) -> float:
    """Learning rate of the one-cycle policy: a short rise, then a half cosine down to nothing.

    Parameters
    ----------
    step, steps : int
        Which step, of how many.
    rate : float
        The largest.
    """
    rise = max(1, steps // 10)
    if step < rise:
        return rate * (0.04 + 0.96 * step / rise)
    return rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


class Loop:
    """One training: network, optimiser, and how far they are.

    Interrupted at any step and made again with the same arguments, it goes on from its checkpoint
    and ends with the same weights, bit by bit, as if it had not been interrupted (on the same
    machine, with as many threads).

    Parameters
    ----------
    network : Module
        To train; has ``centre``, the position of the frame that it restores.
    stages : sequence of Stage
        One after the other.
    validation : sequence of Batch
        To choose the best weights by; one window each.
    checkpoint : Path
        File that holds the state; read if it is there.
    options : mapping
        What the training is started with; a checkpoint of another training is refused.
    loss : callable
        Of `pssr_live_models.training.losses`.
    groups : sequence of (list of Parameter, float), optional
        Parameters, and what their learning rate is multiplied by; all by 1 if not given.
    averaging : float, optional
        Validate and keep a running average of the weights, with this decay per step (less in the
        first steps).
    mixed : bool
        Compute steps in bf16 (half the time on processors that have it); weights and validation
        are fp32 in any case.
    device : torch.device
        Where to compute.

    Raises
    ------
    StorageError
        The checkpoint is damaged.
    PssrLiveError
        It was written with other options.
    """

    def __init__(
        self,
        network: nn.Module,
        stages: Sequence[Stage],
        validation: Sequence[Batch],
        checkpoint: Path,
        options: Options,
        *,
        loss: Loss = share_of_variance,
        groups: Sequence[tuple[list[nn.Parameter], float]] | None = None,
        averaging: float | None = None,
        mixed: bool = True,
        device: torch.device | None = None,
    ) -> None:
        self._device = device or torch.device("cpu")
        self.network = network.to(self._device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._stages, self._loss, self._mixed = stages, loss, mixed
        self.validation = validation
        self.centre = cast(int, network.centre)
        self._matched = [Matched(one, self.centre) for one in validation]
        self._checkpoint, self._options = checkpoint, options
        self._average = _average(self.network, averaging)
        self._optimiser = torch.optim.AdamW(
            [
                {"params": parameters, "factor": factor}
                for parameters, factor in groups or [(list(network.parameters()), 1.0)]
            ],
            lr=stages[0].rate,
            weight_decay=1e-4,
        )
        self.step = 0
        self.steps = sum(stage.steps for stage in stages)
        self.best = math.inf
        self.best_step = 0
        self.best_weights = self._weights()
        if checkpoint.exists():
            self._resume()

    def advance(
        self, steps: int, on_step: Callable[[int, float], bool] = lambda _step, _loss: True
    ) -> Progress:
        """Train for so many steps, validate, and write a checkpoint.

        Parameters
        ----------
        steps : int
            How many, at most as many as are left.
        on_step : callable
            Called after each with its number and loss; False interrupts the training.

        Returns
        -------
        Progress

        Raises
        ------
        PssrLiveError
            The loss is no longer a number.
        UserInterruptError
            The training was interrupted; the checkpoint holds the last step.
        StorageError
            The checkpoint cannot be written.
        """
        losses: list[float] = []
        self.network.train()
        last = min(self.steps, self.step + steps)
        while self.step < last:
            stage, first = self._stage()
            end = min(last, first + stage.steps)
            with closing(_ahead(stage.samples.batches(stage.batch, first=self.step))) as batches:
                while self.step < end:
                    rate = rate_at(self.step - first, stage.steps, stage.rate)
                    losses.append(self._train_on(next(batches), rate))
                    self.step += 1
                    if not on_step(self.step, losses[-1]):
                        self._save()
                        raise UserInterruptError(
                            f"training interrupted at step {self.step} of {self.steps}",
                            "Ctrl-C was pressed",
                            "the same command goes on from there",
                        )
        return self.consider(float(np.mean(losses)) if losses else math.nan)

    def consider(self, loss: float = math.nan) -> Progress:
        """Validate the weights as they are, keep them if they are the best, write a checkpoint.

        Parameters
        ----------
        loss : float
            To be reported.

        Returns
        -------
        Progress
        """
        validation, gain_db = self._judge()
        if validation < self.best:
            self.best, self.best_step = validation, self.step
            self.best_weights = self._weights()
        self._save()
        return Progress(self.step, self.steps, loss, validation, self.best, gain_db)

    def validate(self) -> float:
        """Mean loss on the validation windows."""
        return self._judge()[0]

    def best_network(self) -> nn.Module:
        """Put the best weights into the network, in evaluation mode on the CPU."""
        self.network.load_state_dict(self.best_weights)
        return self.network.to("cpu").eval()

    def _stage(self) -> tuple[Stage, int]:
        """Find the stage of the next step, and the number of its first one."""
        first = 0
        for stage in self._stages:
            if self.step < first + stage.steps:
                return stage, first
            first += stage.steps
        raise IndexError(f"step {self.step} of {self.steps}")

    def _train_on(self, batch: Batch, rate: float) -> float:
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        windows, truths, weights = self._tensors(batch)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed):
            restored = self.network(windows)
        loss = self._loss(restored.float(), truths, weights)
        value = loss.item()
        if not math.isfinite(value):
            raise PssrLiveError(
                f"training stopped at step {self.step + 1}",
                "the loss is no longer a number",
                "give a smaller --rate and another --out",
            )
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimiser.step()
        if self._average is not None:
            self._average.update_parameters(self.network)
        return value

    def _judge(self) -> tuple[float, float]:
        network = self._kept().eval()
        losses, gains = [], []
        with torch.inference_mode():
            for batch, matched in zip(self.validation, self._matched, strict=True):
                windows, truths, weights = self._tensors(batch)
                restored = network(windows).float()
                losses.append(self._loss(restored, truths, weights).item())
                gains.append(matched.gain_db(restored.cpu().numpy()[0, 0]))
        return float(np.mean(losses)), float(np.mean(gains))

    def _tensors(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        windows = torch.from_numpy(batch.windows).to(self._device)
        return (
            windows.to(memory_format=torch.channels_last),
            torch.from_numpy(batch.truths).to(self._device),
            torch.from_numpy(batch.weights).to(self._device),
        )

    def _kept(self) -> nn.Module:
        return self.network if self._average is None else self._average.module

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._kept().state_dict().items()}

    def _save(self) -> None:
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "best_weights": self.best_weights,
            "best": self.best,
            "best_step": self.best_step,
            "step": self.step,
        }
        if self._average is not None:
            state["average"] = self._average.state_dict()
        write_checkpoint(self._checkpoint, state, self._options)

    def _resume(self) -> None:
        state = read_checkpoint(self._checkpoint, self._options)
        self.network.load_state_dict(state["network"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.best_weights = state["best_weights"]
        self.best, self.best_step = state["best"], state["best_step"]
        self.step = state["step"]


def _average(network: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None

    def averaged(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """Forget faster in the first steps."""
        if not average.is_floating_point():  # batches counted by a normalisation
            return current
        return average.lerp(current, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

    return AveragedModel(network, avg_fn=averaged, use_buffers=True)


def _ahead(batches: Iterator[Batch]) -> Generator[Batch]:
    """Make the next batch while the network learns from this one."""
    with ThreadPoolExecutor(1, "pssr-batches") as pool:
        coming = pool.submit(next, batches)
        while True:
            batch = coming.result()
            coming = pool.submit(next, batches)
            yield batch
