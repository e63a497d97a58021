"""The state of a training on disk: whole or not there, and read without executing anything."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import torch

from pssr_live.errors import StorageError, UsageError

__all__ = ["Options", "read_checkpoint", "write_checkpoint"]

Options: TypeAlias = Mapping[str, object]
"""All that decides what comes out of a training, by name; values that JSON has."""


def write_checkpoint(path: Path, state: Mapping[str, Any], options: Options) -> None:
    """Write a state in one piece: the file is the old one until the new one is complete.

    Parameters
    ----------
    path : Path
        Where; folders are made.
    state : mapping
        Tensors, numbers and containers of them.
    options : mapping
        What the training was started with.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    fresh = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            torch.save({**state, "options": json.dumps(options, sort_keys=True)}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        with suppress(OSError):  # what went wrong before is what matters
            fresh.unlink(missing_ok=True)
        raise StorageError(
            f"checkpoint {path}",
            _why(error),
            "free space; the last one is whole"
            if path.exists()
            else "free space, or another --out",
        ) from error


def _why(error: BaseException) -> str:
    """Find what the system said: torch hides it behind a message about positions in a file."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0]


def read_checkpoint(path: Path, options: Options) -> dict[str, Any]:
    """Read the state that a training is to go on from.

    Parameters
    ----------
    path : Path
        Written by `write_checkpoint`.
    options : mapping
        What the training is started with now.

    Returns
    -------
    dict

    Raises
    ------
    StorageError
        The file is damaged, or is no checkpoint.
    UsageError
        The training was started with other options.
    """
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        before = json.loads(state["options"])
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise StorageError(
            f"checkpoint {path}",
            f"it cannot be read ({str(error).splitlines()[0] if str(error) else 'it ends early'})",
            "delete it to start again",
        ) from error
    now = json.loads(json.dumps(options))
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if changed:
        told = ", ".join(_spoken(name, before.get(name), now.get(name)) for name in changed)
        raise UsageError(
            f"checkpoint {path}",
            f"it was written with other options ({told})",
            "give the options it was started with, or another --out",
        )
    return state


def _spoken(name: str, before: object, now: object) -> str:
    """Name an option, with both values where they are short."""
    spoken = name.replace("_", " ")
    short = all(isinstance(value, int | float) for value in (before, now))
    return f"{spoken}: {before}, now {now}" if short else spoken
