"""Choose the engine: a named one or an error; ``auto`` takes the first that can, and says why."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import cast

from pssr_live.engine.base import Engine, EngineReport, Refusal
from pssr_live.errors import EngineError
from pssr_live.model import ModelPackage

__all__ = ["AUTO_ORDER", "prepare_engine"]

_ENGINES = {
    "openvino": ("pssr_live.engine.openvino", "OpenVINOEngine"),
    "onnxruntime": ("pssr_live.engine.onnxruntime", "ONNXRuntimeEngine"),
}

AUTO_ORDER = tuple(_ENGINES)
"""The order in which ``auto`` tries."""


def prepare_engine(
    name: str, precision: str | None, model: ModelPackage, height: int, width: int
) -> tuple[Engine, EngineReport]:
    """Make an engine ready for frames of one size.

    Parameters
    ----------
    name : str
        An engine, or ``auto``.
    precision : str or None
        Arithmetic; None for the most exact (fp32).
    model : ModelPackage
        What to run.
    height, width : int
        Size of the raw frames, pixels.

    Returns
    -------
    engine : Engine
        Warmed up.
    report : EngineReport
        What runs, and which engines were refused before it.

    Raises
    ------
    EngineError
        The named engine cannot run the model, or, with ``auto``, none can.
    ModelError
        The model does not take frames of this size.
    """
    model.check_size(height, width)
    refused: list[Refusal] = []
    for candidate in AUTO_ORDER if name == "auto" else (name,):
        try:
            engine = _make(candidate, precision or "fp32")
            report = engine.prepare(model, height, width)
        except EngineError as error:
            if name != "auto":
                raise
            refused.append(Refusal(candidate, str(error)))
        else:
            return engine, replace(report, requested=name, refused=tuple(refused))
    raise EngineError(
        f"no engine can run model {model.manifest.name}",
        "; ".join(f"{refusal.engine}: {refusal.why}" for refusal in refused),
        "see `pssr-live doctor`",
    )


def _make(name: str, precision: str) -> Engine:
    module, cls = _ENGINES[name]
    try:
        return cast(Engine, getattr(import_module(module), cls)(precision))
    except ImportError as error:
        raise EngineError(name, str(error), "reinstall pssr-live") from error
