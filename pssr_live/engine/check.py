"""Check that an engine computes what a model's author computed."""

from __future__ import annotations

import numpy as np

from pssr_live.engine.base import EngineReport
from pssr_live.engine.normalise import normalise
from pssr_live.engine.select import prepare_engine
from pssr_live.frames import Frame
from pssr_live.model import ModelPackage

__all__ = ["check_test_pair"]


def check_test_pair(
    model: ModelPackage, engine: str, precision: str | None
) -> tuple[float, EngineReport]:
    """Run a package's test pair.

    Parameters
    ----------
    model : ModelPackage
        Package to check.
    engine : str
        Engine to run it on, or ``auto``.
    precision : str or None
        Arithmetic; None for the most exact.

    Returns
    -------
    worst : float
        Largest difference from the expected pixels, in standard deviations of the window.
    report : EngineReport
        What ran.

    Raises
    ------
    EngineError
        The engine cannot run the model.
    """
    pair = model.test_pair()
    scored = np.empty((1, *pair.window.shape), np.float32)
    frames = [
        Frame(pixels=plane, index=index, t_source_ns=0, t_host_ns=0)
        for index, plane in enumerate(pair.window)
    ]
    statistics = normalise(frames, scored, model.manifest.training_statistics)
    running, report = prepare_engine(engine, precision, model, *pair.window.shape[1:])
    try:
        difference = running.run(scored) - (pair.restored - statistics.mean) / statistics.std
    finally:
        running.close()
    return float(np.abs(difference).max()), report
