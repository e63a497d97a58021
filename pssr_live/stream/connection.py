"""Connection files: how a viewer finds a daemon whose ports nobody chose.

A daemon writes ``<run_id>.json`` into the user's runtime folder when its sockets are bound and
removes it at the end. One that was killed leaves its file behind: readers take the newest first
and move on if they hear nothing, and the next daemon removes files at whose address nobody
listens.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import platformdirs
from msgspec import Struct

from pssr_live.errors import AddressError, StorageError
from pssr_live.stream.headers import RunId
from pssr_live.stream.sockets import check_loopback

__all__ = [
    "Connection",
    "DaemonFinder",
    "connections",
    "newest_connection",
    "remove_connection",
    "runtime_folder",
    "write_connection",
]

_log = logging.getLogger(__name__)

VARIABLE = "PSSR_LIVE_RUNTIME_DIR"
MAX_FILE_BYTES = 64 * 1024
LISTENS_TIMEOUT_S = 0.2
# The status comes every 0.5 s.
SILENT_S = 1.0


class Connection(Struct, frozen=True, kw_only=True):
    """Where to reach a running daemon.

    Attributes
    ----------
    version : int
        Version of the wire format.
    run_id : str
        The run; also the name of the file.
    publish, control : str
        Endpoints, with real ports.
    pid : int
        Process id of the daemon; for people.
    started_unix_ns : int
        When the run began, ns since 1970 (UTC).
    run_folder : str
        Absolute path of the run folder.
    """

    version: Literal[1]
    run_id: RunId
    publish: str
    control: str
    pid: int
    started_unix_ns: int
    run_folder: str


def runtime_folder() -> Path:
    """Return the folder of the connection files, which may not exist yet.

    The user's runtime folder, or what the environment variable ``PSSR_LIVE_RUNTIME_DIR`` says.

    Returns
    -------
    Path

    Raises
    ------
    StorageError
        The system's runtime folder belongs to somebody else.
    """
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else _default_folder()


def write_connection(connection: Connection) -> Path:
    """Announce a daemon whose sockets are bound.

    Parameters
    ----------
    connection : Connection
        Where to reach it.

    Returns
    -------
    Path
        The file, readable by this user only.

    Raises
    ------
    StorageError
        The folder cannot be used, or the file not be written.
    """
    folder = runtime_folder()
    path = folder / f"{connection.run_id}.json"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(folder):
            raise StorageError(
                f"runtime folder {folder}",
                "others own it or can write into it, and could send viewers elsewhere",
                f"let {VARIABLE} name a folder that only you can write",
            )
        _remove_stale(folder)
        _write_at_once(path, msgspec.json.encode(connection))
    except OSError as error:
        raise StorageError(
            f"cannot write connection file {path}",
            str(error),
            f"make room there, or let {VARIABLE} name another folder",
        ) from error
    return path


def remove_connection(connection: Connection) -> None:
    """Remove a daemon's file; not an error if it is gone already.

    Parameters
    ----------
    connection : Connection
        As it was written.
    """
    path = runtime_folder() / f"{connection.run_id}.json"
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # open in a scanner, on Windows; readers cope with stale files
        _log.warning("cannot remove connection file %s: %s", path, error)


def connections() -> list[Connection]:
    """Read all connection files, leaving out those that are unreadable or not the user's own.

    Returns
    -------
    list of Connection
        Newest first, by the time their runs began. Not all need to be alive.
    """
    try:
        folder = runtime_folder()
    except StorageError as error:
        _log.debug("no runtime folder: %s", error)
        return []
    found = [connection for _, connection in _read_folder(folder)]
    return sorted(found, key=lambda one: one.started_unix_ns, reverse=True)


def newest_connection() -> Connection | None:
    """Return the connection whose run began last, or None if there is none.

    It may be stale, if its daemon was killed: who hears nothing there tries the next of
    `connections`.
    """
    found = connections()
    return found[0] if found else None


class DaemonFinder:
    """Decides from the connection files which daemon to listen to; for one thread."""

    def __init__(self) -> None:
        self._current: Connection | None = None
        self._tried: set[str] = set()
        self._since = float("-inf")

    def heard(self) -> None:
        """Note that the current daemon is alive."""
        self._tried.clear()

    def another(self, *, final: bool, silent_s: float) -> Connection | None:
        """Return a connection to change to, or None to stay.

        Parameters
        ----------
        final : bool
            The current run has said that it is over: only a newer one is of interest.
        silent_s : float
            Time since the current daemon was heard, s; infinite if it was not heard yet.
        """
        if silent_s < SILENT_S and not final:
            return None
        now = time.monotonic()
        current = self._current
        found = [one for one in connections() if current is None or one.run_id != current.run_id]
        untried = [one for one in found if one.run_id not in self._tried]
        if current is not None and final:
            chosen = [one for one in found if one.started_unix_ns > current.started_unix_ns]
        elif current is not None and now - self._since < SILENT_S:
            # Not heard yet, but it was given little time: only a daemon that is newer still wins.
            chosen = [one for one in untried if one.started_unix_ns > current.started_unix_ns]
        else:
            # If all were silent: from the newest again, in case it was only slow to start.
            chosen = untried or found
        if not chosen:
            return None
        if chosen[0] not in untried:
            self._tried.clear()
        self._current = chosen[0]
        self._tried.add(chosen[0].run_id)
        self._since = now
        return chosen[0]


def _write_at_once(path: Path, content: bytes) -> None:
    """Write a file that no reader ever sees half of, for this user only (mkstemp: mode 0600)."""
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read_folder(folder: Path) -> Iterator[tuple[Path, Connection]]:
    try:
        paths = sorted(folder.glob("*.json")) if _is_ours(folder) else []
    except OSError as error:
        _log.debug("cannot read %s: %s", folder, error)
        return
    for path in paths:
        try:
            yield path, _read(path)
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError, AddressError) as error:
            _log.debug("connection file %s left out: %s", path, error)


def _read(path: Path) -> Connection:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES)
    connection = msgspec.json.decode(content, type=Connection)
    if path.stem != connection.run_id:
        raise ValueError(f"holds run {connection.run_id}")
    for endpoint in (connection.publish, connection.control):
        check_loopback(endpoint, any_port=False)
    return connection


def _remove_stale(folder: Path) -> None:
    for path, connection in _read_folder(folder):
        if not _listens(connection.publish):
            _log.info("removing %s, left behind by a daemon that is gone", path)
            path.unlink(missing_ok=True)


def _listens(endpoint: str) -> bool:
    """Say whether anybody accepts connections there.

    Unlike asking for the process id, this works the same on every system and is not fooled by a
    number that was given to another process.
    """
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    try:
        socket.create_connection((host.strip("[]"), int(port)), LISTENS_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _is_ours(folder: Path) -> bool:
    """Say whether the folder exists and only this user can write into it.

    Where files have no owner id and no mode (Windows), the user's folders are private by default.
    """
    if not folder.is_dir():
        return False
    getuid: Any = getattr(os, "getuid", None)
    about = folder.stat()
    return getuid is None or (about.st_uid == getuid() and not about.st_mode & 0o022)


@functools.cache
def _default_folder() -> Path:
    with warnings.catch_warnings():
        # That the folder lies in the temporary folder when the system has no better is fine.
        warnings.filterwarnings("ignore", message=".*XDG_RUNTIME_DIR")
        try:
            return platformdirs.user_runtime_path("pssr-live", appauthor=False)
        except OSError as error:
            raise StorageError("the runtime folder", str(error), f"set {VARIABLE}") from error
