"""Restore one window: a pure function of its frames, live and offline."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pssr_live.engine.base import Engine, EngineReport, Refusal
from pssr_live.engine.gate import Gate
from pssr_live.engine.normalise import denormalise, keep_mean, normalise
from pssr_live.engine.select import prepare_engine
from pssr_live.errors import EngineError
from pssr_live.frames import Restored, Window, read_only
from pssr_live.model import ModelPackage

__all__ = ["Restorer"]

log = logging.getLogger(__name__)


class Restorer:
    """A model on an engine that is ready and has passed the accuracy gate; see `Gate`.

    The gate's last part is the first window that is restored. An engine that fails there is an
    error, for this window and all others, unless the engine asked for was ``auto``: then fp32 on
    the processor goes on, and `report` says so.

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
    on_judged : callable
        Called with the report once the first window has been judged, from the thread that restores
        it; not called where fp32 on the processor itself runs, with which it would be compared.

    Attributes
    ----------
    report : EngineReport
        What really runs; changes once, with the first window.

    Raises
    ------
    EngineError, ModelError
        As `prepare_engine`.
    """

    report: EngineReport

    def __init__(
        self,
        model: ModelPackage,
        engine: str,
        precision: str | None,
        height: int,
        width: int,
        on_judged: Callable[[EngineReport], None] = lambda _: None,
    ) -> None:
        self._engine: Engine
        self._gate = Gate(model, precision, height, width)
        self._refused: EngineError | None = None
        self._on_judged = on_judged
        try:
            self._engine, self.report = prepare_engine(
                engine, precision, model, height, width, self._gate.admit
            )
        except BaseException:
            self._gate.close()
            raise
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

        Raises
        ------
        EngineError
            This is the session's first window, or a later one, and the engine is refused.
        """
        if self._refused is not None:
            raise self._refused
        started = time.perf_counter()
        statistics = normalise(window.frames, self._input, self._model.manifest.training_statistics)
        prediction = self._first() if self._gate.waits else self._engine.run(self._input)
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
        self._gate.close()

    def _first(self) -> NDArray[np.float32]:
        """Restore the session's first window, and compare the engine with fp32 there."""
        try:
            prediction, self.report = self._gate.run_first_window(
                self._engine, self.report, self._input
            )
        except EngineError as error:
            if self.report.requested != "auto":
                self._refused = error
                self._gate.close()
                raise
            self._fall_back(error)
            prediction = self._engine.run(self._input)
        else:
            self._gate.close()
        self._on_judged(self.report)
        return prediction

    def _fall_back(self, error: EngineError) -> None:
        """Go on with the reference, and say so."""
        refused, before = self.report, self._engine
        self._engine, itself = self._gate.take_reference()
        self.report = replace(
            itself,
            requested=refused.requested,
            refused=(*refused.refused, Refusal(refused.engine, str(error))),
        )
        before.close()
        log.warning("%s; %s goes on instead", error, self.report)
