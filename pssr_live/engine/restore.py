"""Restore one window: a pure function of its frames, live and offline."""

from __future__ import annotations

import time

import numpy as np

from pssr_live.engine.base import Engine, EngineReport
from pssr_live.engine.normalise import denormalise, keep_mean, normalise
from pssr_live.engine.select import prepare_engine
from pssr_live.frames import Restored, Window, read_only
from pssr_live.model import ModelPackage

__all__ = ["Restorer"]


class Restorer:
    """A model on a prepared engine.

    Parameters
    ----------
    model : ModelPackage
        What to run.
    engine : str
        Engine to run it with, or ``auto``.
    precision : str or None
        Arithmetic; None for the most exact.
    height, width : int
        Size of the raw frames, pixels.

    Attributes
    ----------
    report : EngineReport
        What really runs.

    Raises
    ------
    EngineError, ModelError
        As `prepare_engine`.
    """

    report: EngineReport

    def __init__(
        self, model: ModelPackage, engine: str, precision: str | None, height: int, width: int
    ) -> None:
        self._engine: Engine
        self._engine, self.report = prepare_engine(engine, precision, model, height, width)
        self._model = model
        self._input = np.empty((1, model.manifest.window_length, height, width), np.float32)

    def restore(self, window: Window, *, live: bool) -> Restored:
        """Restore a window's centre frame.

        Parameters
        ----------
        window : Window
            Frames of the size the engine was prepared for.
        live : bool
            False when live had skipped this frame; then there is no latency to speak of.

        Returns
        -------
        Restored
            In the raw dtype and intensity scale. Depends on the window's pixels alone.
        """
        started = time.perf_counter()
        statistics = normalise(window.frames, self._input, self._model.manifest.training_statistics)
        prediction = self._engine.run(self._input)
        if self._model.manifest.keeps_mean:
            statistics = keep_mean(statistics, self._input[0, window.centre], prediction)
        centre = window.frames[window.centre]
        pixels = denormalise(prediction, statistics, centre.pixels.dtype)
        finished = time.perf_counter()
        latency_ms = (time.monotonic_ns() - window.t_ready_ns) / 1e6 if live else None
        size = centre.pixel_size_um
        return Restored(
            pixels=read_only(pixels),
            index=centre.index,
            t_source_ns=centre.t_source_ns,
            pixel_size_um=None if size is None else size / self._model.manifest.scale,
            channel=centre.channel,
            model=self._model.manifest.name,
            model_sha256=self._model.network_sha256,
            engine=str(self.report),
            engine_ms=(finished - started) * 1e3,
            latency_ms=latency_ms,
            edge=window.edge,
            complete=window.complete,
            live=live,
        )

    def close(self) -> None:
        """Let go of the engine."""
        self._engine.close()
