"""Windows without a display, real sockets and real files; nothing may be left over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PyQt5 import QtCore, QtWidgets


@pytest.fixture(scope="session")
def qapp_args() -> list[str]:
    # Said to Qt and not in the environment, which other tests look at.
    return ["pssr-live-tests", "-platform", "offscreen"]


@pytest.fixture(autouse=True)
def _without_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")


@pytest.fixture(autouse=True)
def _nothing_left(qapp: QtWidgets.QApplication) -> Iterator[None]:
    yield
    qapp.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
    assert [widget for widget in qapp.topLevelWidgets() if widget.isVisible()] == []
