"""Qt through pyqtgraph: one place that names the binding.

Import this only after `pssr_live_gui.application.check_windows`: it fails without the ``gui``
extra.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# Where several bindings are installed, pyqtgraph would take another one.
os.environ.setdefault("PYQTGRAPH_QT_LIB", "PyQt5")

import pyqtgraph as pg

if TYPE_CHECKING:
    from PyQt5 import QtCore, QtGui, QtWidgets
else:
    from pyqtgraph.Qt import QtCore, QtGui, QtWidgets

__all__ = ["QtCore", "QtGui", "QtWidgets", "pg"]
