"""Libraries that only evaluation needs; the daemon works without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pssr_live.errors import UsageError

__all__ = ["evaluation_libraries"]


@contextmanager
def evaluation_libraries() -> Iterator[None]:
    """Import libraries of the extra ``evaluate`` in this context.

    Raises
    ------
    UsageError
        One of them is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise UsageError(
            "this cannot be evaluated here",
            f"{(error.name or str(error)).partition('.')[0]} is not installed",
            'pip install "pssr-live[evaluate]"',
        ) from error
