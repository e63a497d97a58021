"""Restored movies compared with ground truth: ``pssr-live evaluate``."""

from pssr_live.evaluate.compare import evaluate
from pssr_live.evaluate.report import Evaluation, tables
from pssr_live.evaluate.stacks import MovieFiles

__all__ = ["Evaluation", "MovieFiles", "evaluate", "tables"]
