"""Choose the engine: a named one or an error; ``auto`` takes the first that can, and says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import TypeAlias, cast

from pssr_live.engine.base import Engine, EngineReport, Refusal
from pssr_live.engine.tile import TiledEngine, fits
from pssr_live.errors import EngineError
from pssr_live.model import ModelPackage

__all__ = ["AUTO_ORDER", "Admit", "prepare_engine"]

_ENGINES = {
    "tensorrt": ("pssr_live.engine.trt.engine", "TensorRTEngine"),
    "tensorrt-rtx": ("pssr_live.engine.trt.engine", "TensorRTRTXEngine"),
    "cuda": ("pssr_live.engine.cuda", "CUDAEngine"),
    "openvino": ("pssr_live.engine.openvino", "OpenVINOEngine"),
    "onnxruntime": ("pssr_live.engine.onnxruntime", "ONNXRuntimeEngine"),
    "torch": ("pssr_live.engine.torch", "TorchEngine"),
}

AUTO_ORDER = tuple(_ENGINES)
"""The order in which ``auto`` tries."""

Admit: TypeAlias = Callable[[Engine, EngineReport], EngineReport]
"""Judges an engine that is ready: its report with what it passed, or an EngineError."""


def prepare_engine(
    name: str,
    precision: str | None,
    model: ModelPackage,
    height: int,
    width: int,
    admit: Admit = lambda _, report: report,
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
    admit : callable
        Judges each engine that could be prepared; one that it refuses is closed. By default, all
        are admitted.

    Returns
    -------
    engine : Engine
        Warmed up.
    report : EngineReport
        What runs, and which engines were refused before it.

    Raises
    ------
    EngineError
        The named engine cannot run the model or is refused, or, with ``auto``, all are.
    ModelError
        The model does not take frames of this size.
    """
    model.check_size(height, width)
    refused: list[Refusal] = []
    for candidate in AUTO_ORDER if name == "auto" else (name,):
        try:
            engine = _make(candidate, precision or "fp32")
            if not fits(model.manifest, height, width):
                engine = TiledEngine(engine)
            report = _admitted(engine, model, height, width, admit)
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


def _admitted(
    engine: Engine, model: ModelPackage, height: int, width: int, admit: Admit
) -> EngineReport:
    try:
        return admit(engine, engine.prepare(model, height, width))
    except BaseException:
        engine.close()
        raise


def _make(name: str, precision: str) -> Engine:
    module, cls = _ENGINES[name]
    try:
        return cast(Engine, getattr(import_module(module), cls)(precision))
    except ImportError as error:
        raise EngineError(name, str(error), "reinstall pssr-live") from error
