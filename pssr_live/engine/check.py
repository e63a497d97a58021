"""Check that an engine computes what a model's author computed."""

from __future__ import annotations

from dataclasses import replace

from pssr_live.engine.base import Engine, EngineReport
from pssr_live.engine.gate import run_test_pair
from pssr_live.engine.select import prepare_engine
from pssr_live.errors import EngineError, ModelError
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
        The named engine is too far from the expected pixels, or none can run the model.
    ModelError
        With ``auto``: all engines that can run the model are.
    """
    found: list[float] = []
    wrong: list[EngineError] = []

    def admit(ready: Engine, report: EngineReport) -> EngineReport:
        try:
            check, worst = run_test_pair(model, precision or "fp32", ready, report)
        except EngineError as error:
            wrong.append(error)
            raise
        found.append(worst)
        return replace(report, checks=(check,))

    height, width = model.test_pair().window.shape[1:]
    try:
        running, report = prepare_engine(engine, precision, model, height, width, admit)
    except EngineError as error:
        if engine != "auto" or not wrong:
            raise
        # Engines agree that it is not them.
        what = "; ".join(f"{refused.what}: {refused.why}" for refused in wrong)
        raise ModelError(
            f"model {model.manifest.name}",
            f"no engine here makes of its test pair what it should ({what})",
            "do not use this package; get it again from where you trust",
        ) from error
    running.close()
    return found[-1], report
