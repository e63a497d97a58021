"""Check that an engine computes what a model's author computed."""

from __future__ import annotations

from dataclasses import replace

from pssr_live.engine.base import Engine, EngineReport
from pssr_live.engine.gate import run_test_pair
from pssr_live.engine.select import prepare_engine
from pssr_live.model import ModelPackage

__all__ = ["check_test_pair"]


def check_test_pair(
    model: ModelPackage, engine: str, precision: str | None
) -> tuple[float, EngineReport]:
    """Run a package's test pair, at its own size, as the accuracy gate does.

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
        What ran; its one check is the test pair's.

    Raises
    ------
    EngineError
        The engine cannot run the model, or is too far from the expected pixels.
    """
    found: list[float] = []

    def admit(ready: Engine, report: EngineReport) -> EngineReport:
        check, worst = run_test_pair(model, precision or "fp32", ready, report)
        found.append(worst)
        return replace(report, checks=(check,))

    height, width = model.test_pair().window.shape[1:]
    running, report = prepare_engine(engine, precision, model, height, width, admit)
    running.close()
    return found[-1], report
