"""The Engine protocol: what every runtime that can run a network looks like to the daemon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pssr_live.model import ModelPackage

__all__ = ["Check", "Engine", "EngineReport", "Refusal"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An engine that was not used, and why.

    Attributes
    ----------
    engine : str
        Its name.
    why : str
        One line.
    """

    engine: str
    why: str


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison of an engine with fp32 on the processor, before it goes live.

    Attributes
    ----------
    what : str
        ``test pair`` or ``first window``.
    psnr_db : float
        Peak signal-to-noise ratio of the engine's pixels, fp32 taken for the truth; infinite if
        they are equal.
    floor_db : float
        What it must reach in this precision.
    drop_db : float or None
        How much nearer fp32 comes to the true image; None where the truth is not known.
    cached : bool
        True if the comparison was made earlier, for the same engine, model and size.
    """

    what: str
    psnr_db: float
    floor_db: float
    drop_db: float | None = None
    cached: bool = False


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What really runs, as read back from the running engine.

    Attributes
    ----------
    requested : str
        What was asked for: an engine's name or ``auto``.
    engine : str
        Name of the engine that runs.
    device : str
        Device, as the runtime names it.
    precision : str
        Arithmetic that the runtime says it executes.
    version : str
        Version of the runtime.
    threads : int
        Threads the runtime uses.
    prepare_ms : float
        Time to compile and warm up, ms.
    refused : tuple of Refusal
        Engines that were tried before this one.
    cached : bool or None
        True: compiled earlier and loaded from the cache; False: built now; None: this engine keeps
        no cache.
    tiles : int
        Parts that a frame is restored in.
    checks : tuple of Check
        What it passed before it went live.
    """

    requested: str
    engine: str
    device: str
    precision: str
    version: str
    threads: int
    prepare_ms: float
    refused: Sequence[Refusal] = field(default=())
    cached: bool | None = None
    tiles: int = 1
    checks: Sequence[Check] = field(default=())

    def __str__(self) -> str:
        return f"{self.engine} {self.precision} on {self.device}"


class Engine(Protocol):
    """A runtime with one network in it, for frames of one size."""

    def prepare(self, model: ModelPackage, height: int, width: int) -> EngineReport:
        """Compile the network for frames of this size and warm it up. Called once.

        Raises
        ------
        EngineError
            This engine cannot run the model here.
        """

    def run(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network once.

        Parameters
        ----------
        window : ndarray, shape (1, window_length, H, W), float32
            Normalised frames.

        Returns
        -------
        ndarray, shape (scale·H, scale·W), float32
            Normalised prediction; valid until the next call.
        """

    def close(self) -> None:
        """Let go of the runtime's memory."""
