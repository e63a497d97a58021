"""Timed tests are asked for by name: on a machine that others use too, they say nothing."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "bench" in str(config.option.markexpr):
        return
    skip = pytest.mark.skip(reason="timed: `pytest -m bench` on a quiet machine")
    for item in items:
        if item.get_closest_marker("bench"):
            item.add_marker(skip)
