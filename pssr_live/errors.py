"""Errors a user can meet, each kind with its own exit code.

Every message is one line that says what went wrong, why, and what to do.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AddressError",
    "EngineError",
    "ModelError",
    "PssrLiveError",
    "SourceError",
    "StorageError",
    "UsageError",
    "UserInterruptError",
    "WindowError",
]


class PssrLiveError(Exception):
    """Base of all errors that end a command with one line and an exit code.

    Parameters
    ----------
    what : str
        What could not be done.
    why : str
        The reason, as far as it is known.
    do : str
        What the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, why: str, do: str) -> None:
        super().__init__(what, why, do)
        self.what = what
        self.why = why
        self.do = do

    def __str__(self) -> str:
        why = self.why.strip().rstrip(".")
        line = " ".join(f"{self.what}: {why}; {self.do}".split())
        # Names from files and arguments can hold what a terminal would obey, or cannot encode.
        return "".join(character if character.isprintable() else "?" for character in line)


class UsageError(PssrLiveError):
    """The command line or the settings file asks for something that makes no sense."""

    exit_code = 2


class SourceError(PssrLiveError):
    """The microscope, simulator or recording cannot deliver frames."""

    exit_code = 3


class ModelError(PssrLiveError):
    """A model package is missing, damaged or does not fit the frames."""

    exit_code = 4


class EngineError(PssrLiveError):
    """The engine asked for cannot run the model on this machine."""

    exit_code = 5


class StorageError(PssrLiveError):
    """The run folder, a stack or the log cannot be written or read."""

    exit_code = 6


class AddressError(PssrLiveError):
    """An endpoint cannot be bound, reached, or is refused as unsafe."""

    exit_code = 7


class WindowError(PssrLiveError):
    """A viewer or review window cannot be opened."""

    exit_code = 8


class UserInterruptError(PssrLiveError):
    """Ctrl-C ended work that goes on from there when the same command is given again."""

    exit_code = 130
