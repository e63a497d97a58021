"""Where engines keep what is worth keeping from run to run."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["VARIABLE", "cache_folder"]

VARIABLE = "PSSR_LIVE_CACHE_DIR"


def cache_folder() -> Path:
    """Return the folder of compiled engines and verdicts, which may not exist yet.

    The user's cache folder, or what the environment variable ``PSSR_LIVE_CACHE_DIR`` says. All of
    it can be deleted at any time; it is then made again.

    Returns
    -------
    Path
    """
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("pssr-live", appauthor=False)
