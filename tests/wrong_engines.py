"""Engines that are wrong on purpose, each in its own way; all say that they are ``cuda``."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from pssr_live.engine import select
from pssr_live.engine.base import EngineReport
from pssr_live.engine.openvino import OpenVINOEngine
from pssr_live.model import ModelPackage

Plane = NDArray[np.float32]


class Right:
    """OpenVINO in fp32 under another name; the others spoil what it gives."""

    version: ClassVar[str] = "1.0"
    compiled_earlier: ClassVar[bool | None] = None
    runs: ClassVar[int] = 0

    def __init__(self, precision: str) -> None:
        self._inner = OpenVINOEngine("fp32")
        self._precision = precision

    def prepare(self, model: ModelPackage, height: int, width: int) -> EngineReport:
        return replace(
            self._inner.prepare(model, height, width),
            requested="cuda",
            engine="cuda",
            device="a test",
            precision=self._precision,
            version=self.version,
            cached=self.compiled_earlier,
        )

    def run(self, window: Plane) -> Plane:
        type(self).runs += 1
        return self.spoil(self._inner.run(window).copy())

    def close(self) -> None:
        self._inner.close()

    def spoil(self, prediction: Plane) -> Plane:
        return prediction


class WrongSign(Right):
    def spoil(self, prediction: Plane) -> Plane:
        return -prediction


class OnePercentBrighter(Right):
    def spoil(self, prediction: Plane) -> Plane:
        return prediction * np.float32(1.01)


class SwappedRows(Right):
    def spoil(self, prediction: Plane) -> Plane:
        even = prediction[0::2].copy()
        prediction[0::2] = prediction[1::2]
        prediction[1::2] = even
        return prediction


class OnePixelAside(Right):
    def spoil(self, prediction: Plane) -> Plane:
        return np.roll(prediction, 1, axis=1)


class RoundedLikeTF32(Right):
    """Ten bits of mantissa in what is asked to be fp32."""

    def spoil(self, prediction: Plane) -> Plane:
        noise = np.random.default_rng(0).uniform(-1, 1, prediction.shape).astype(np.float32)
        return prediction * (1 + noise * np.float32(2**-11)) + noise * np.float32(2**-11)


class NotFinite(Right):
    def spoil(self, prediction: Plane) -> Plane:
        prediction[3, 4] = np.nan
        return prediction


class WrongShape(Right):
    def spoil(self, prediction: Plane) -> Plane:
        return prediction[:-4]


class Breaks(Right):
    def spoil(self, prediction: Plane) -> Plane:
        raise RuntimeError("device lost")


class Noisy(Right):
    """As far from fp32 as a coarse int8 network."""

    def spoil(self, prediction: Plane) -> Plane:
        noise = np.random.default_rng(0).standard_normal(prediction.shape)
        return prediction + np.float32(0.03) * noise.astype(np.float32)


class WrongLater(Right):
    """Right on the test pair, its first window, and wrong afterwards."""

    def __init__(self, precision: str) -> None:
        super().__init__(precision)
        self._judged = False

    def spoil(self, prediction: Plane) -> Plane:
        judged, self._judged = self._judged, True
        return -prediction if judged else prediction


def install(monkeypatch: pytest.MonkeyPatch, engine: type[Right]) -> None:
    """Make an engine known as ``cuda``, which ``auto`` tries before OpenVINO."""
    engines = {"cuda": (__name__, engine.__name__), "openvino": select._ENGINES["openvino"]}
    monkeypatch.setattr(select, "_ENGINES", engines)
    monkeypatch.setattr(select, "AUTO_ORDER", tuple(engines))
    monkeypatch.setattr(engine, "runs", 0)
