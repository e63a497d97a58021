"""Tests marked ``gpu`` run where there is an NVIDIA GPU: ``pytest -m gpu``."""

from __future__ import annotations

import pytest

from pssr_live.engine.gpu import find_gpu
from pssr_live.errors import EngineError


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        find_gpu()
    except EngineError as error:
        skip = pytest.mark.skip(reason=f"needs a GPU: {error.why}")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)
