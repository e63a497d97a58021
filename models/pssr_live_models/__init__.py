"""Model packages that ship, and the code that trains them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["packages_folder"]


def packages_folder() -> Path:
    """Folder that holds one folder per shipped model package.

    Returns
    -------
    Path
    """
    return Path(__file__).parent
