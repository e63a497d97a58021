"""Who may write into a run folder: the daemon while it runs, or one that finishes a dead run."""

from __future__ import annotations

import logging
from contextlib import suppress

from pssr_live.errors import StorageError
from pssr_live.record.run_folder import RunFolder

__all__ = ["RunLock"]

log = logging.getLogger(__name__)


class RunLock:
    """The operating system's lock on a run folder; it goes with the process, however that dies.

    Parameters
    ----------
    folder : RunFolder
        Of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        # Takes 0.1 s to import.
        from filelock import FileLock

        self._folder = folder
        self._lock = FileLock(folder.lock, thread_local=False)

    def take(self) -> None:
        """Lock the folder, at once or not at all.

        Raises
        ------
        StorageError
            Another process has it, or nobody can lock it.
        """
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise StorageError(
                f"{self._folder.path} is in use",
                "its run still goes on, or is being recovered",
                "end it first, with Ctrl-C where it runs",
            ) from error
        except (OSError, NotImplementedError) as error:
            raise StorageError(
                f"{self._folder.path} cannot be locked",
                str(error),
                "copy it to a disk of this computer where you may write",
            ) from error

    def take_if_possible(self) -> None:
        """Lock the folder of a new run, which goes on where no lock is to be had."""
        try:
            self.take()
        except StorageError as error:
            log.warning("%s; `pssr-live recover` cannot tell that this run goes on", error)

    def release(self) -> None:
        """Unlock the folder and take the lock's file away."""
        if not self._lock.is_locked:
            return
        self._lock.release()
        # The next one makes it anew; where somebody has just opened it, it stays.
        with suppress(OSError):
            self._folder.lock.unlink(missing_ok=True)
