"""Live restoration: always the newest window; what the engine has no time for is skipped."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from pssr_live.engine.restore import Restorer
from pssr_live.errors import EngineError
from pssr_live.frames import Restored, Window

__all__ = ["LiveRestorer"]

log = logging.getLogger(__name__)


class LiveRestorer:
    """One thread that restores the newest window there is.

    Parameters
    ----------
    restorer : Restorer
        Does the work.
    on_restored : callable
        Called from the thread with each restored frame; must not block.
    on_skipped : callable
        Called with the index of a frame that a newer one overtook.
    on_error : callable
        Called once when the engine has failed; nothing is restored after that.
    """

    def __init__(
        self,
        restorer: Restorer,
        *,
        on_restored: Callable[[Restored], None],
        on_skipped: Callable[[int], None],
        on_error: Callable[[EngineError], None],
    ) -> None:
        self._restorer = restorer
        self._on_restored = on_restored
        self._on_skipped = on_skipped
        self._on_error = on_error
        self._newest: Window | None = None
        self._last: deque[Window] = deque()
        self._changed = threading.Condition()
        self._finishing = False
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="pssr-engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, window: Window) -> None:
        """Hand over a window, held for the restorer; one that still waits is skipped. Never blocks.

        Parameters
        ----------
        window : Window
            Newer than all before.
        """
        with self._changed:
            skipped, self._newest = self._newest, window
            if self._failed:
                skipped, self._newest = window, None
            self._changed.notify()
        if skipped is not None:
            self._skip(skipped)

    def finish(self, windows: Sequence[Window], timeout_s: float) -> None:
        """Restore the run's last windows, all of them, and end the thread.

        Parameters
        ----------
        windows : sequence of Window
            Held for the restorer, oldest first.
        timeout_s : float
            How long to wait.

        Raises
        ------
        RuntimeError
            The thread did not end in time.
        """
        with self._changed:
            self._last.extend(windows)
            self._finishing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise RuntimeError(f"thread {self._thread.name} did not end within {timeout_s} s")

    def _take(self) -> Window | None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._last or self._finishing)
            if self._newest is not None:
                window, self._newest = self._newest, None
                return window
            return self._last.popleft() if self._last else None

    def _work(self) -> None:
        while (window := self._take()) is not None:
            if self._failed:
                self._skip(window)
                continue
            try:
                restored = self._restorer.restore(window, live=True)
            except Exception as error:  # a runtime's own exceptions share no base class
                self._fail(window.index, error)
                self._skip(window)
            else:
                window.release()
                self._on_restored(restored)

    def _fail(self, index: int, error: Exception) -> None:
        self._failed = True
        log.debug("the engine failed", exc_info=error)
        self._on_error(
            EngineError(
                f"the engine failed at frame {index}",
                str(error) or repr(error),
                "raw frames are still recorded; restore them later with `pssr-live restore`",
            )
        )

    def _skip(self, window: Window) -> None:
        index = window.index
        window.release()
        self._on_skipped(index)
