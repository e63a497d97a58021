"""Live restoration: always the newest window; what the engine has no time for is skipped.

A frame that comes after lost ones completes more than one window. These are restored one after the
other, oldest first, if the engine is done with all of them before the next window is due;
otherwise only the newest.

Skipped frames are restored later, in the pauses of the engine that are long enough, so that one
hiccup does not leave a gap until the end of a long run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

from pssr_live.engine.restore import Restorer
from pssr_live.errors import EngineError
from pssr_live.frames import Restored, Window

__all__ = ["LiveRestorer"]

log = logging.getLogger(__name__)

_MARGIN = 1.3
"""A pause must be so many times longer than the engine mostly needs before it is used."""
_LOOK_BACK = 8
"""Windows over which the engine's time and the pace of the source are taken."""


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
    on_pause : callable
        Called from the thread when the engine would pause for longer than one restoration takes;
        may restore one frame that was skipped, and returns whether it did.
    clock : callable
        Monotonic time, ns.
    """

    def __init__(
        self,
        restorer: Restorer,
        *,
        on_restored: Callable[[Restored], None],
        on_skipped: Callable[[int], None],
        on_error: Callable[[EngineError], None],
        on_pause: Callable[[], bool],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._restorer = restorer
        self._on_restored = on_restored
        self._on_skipped = on_skipped
        self._on_error = on_error
        self._on_pause = on_pause
        self._clock = clock
        self._offered_ns: deque[int] = deque(maxlen=_LOOK_BACK)
        self._needed_ns: deque[int] = deque(maxlen=_LOOK_BACK)
        self._waiting: deque[Window] = deque()
        self._last: deque[Window] = deque()
        self._changed = threading.Condition()
        self._finishing = False
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="pssr-engine", daemon=True)

    @property
    def failed(self) -> bool:
        """Whether the engine has failed; may be read from any thread."""
        return self._failed

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, windows: Sequence[Window]) -> None:
        """Hand over what one frame completed; what still waits is skipped. Never blocks.

        Parameters
        ----------
        windows : sequence of Window
            Held for the restorer, oldest first, all newer than those before; may be empty.
        """
        if not windows:
            return
        with self._changed:
            self._offered_ns.append(self._clock())
            if self._failed:
                skipped = list(windows)
            else:
                skipped = list(self._waiting)
                self._waiting = deque(windows)
            self._changed.notify()
        for window in skipped:
            self._skip(window)

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
        """Wait for a window, using pauses; None when there will be no more."""
        paused = True
        while True:
            with self._changed:
                # When nothing is left to do in a pause, only a new window changes that.
                if not (paused and self._has_time_for(_MARGIN)):
                    self._changed.wait_for(lambda: self._waiting or self._last or self._finishing)
                if self._waiting:
                    overtaken = self._overtaken()
                    window = self._waiting.popleft()
                    break
                if self._last:
                    return self._last.popleft()
                if self._finishing:
                    return None
            paused = self._on_pause()
        for older in overtaken:
            self._skip(older)
        return window

    def _overtaken(self) -> list[Window]:
        """Take out the windows before the newest, if there is no time for all that wait."""
        # No margin: after a lost frame the next window comes later than the pace says.
        if len(self._waiting) == 1 or self._has_time_for(len(self._waiting)):
            return []
        return [self._waiting.popleft() for _ in range(len(self._waiting) - 1)]

    def _has_time_for(self, restorations: float) -> bool:
        """Whether the next window is further away than so many restorations take."""
        if len(self._offered_ns) < 2 or not self._needed_ns or self._failed:
            return False
        between = median(later - earlier for earlier, later in pairwise(self._offered_ns))
        due_ns = self._offered_ns[-1] + between
        return due_ns - self._clock() > restorations * median(self._needed_ns)

    def _work(self) -> None:
        while (window := self._take()) is not None:
            if self._failed:
                self._skip(window)
                continue
            started_ns = self._clock()
            try:
                restored = self._restorer.restore(window, live=True)
            except Exception as error:  # a runtime's own exceptions share no base class
                self._fail(window.index, error)
                self._skip(window)
            else:
                self._needed_ns.append(self._clock() - started_ns)
                window.release()
                self._on_restored(restored)

    def _fail(self, index: int, error: Exception) -> None:
        self._failed = True
        log.debug("the engine failed", exc_info=error)
        what, why = f"the engine failed at frame {index}", str(error) or repr(error)
        if isinstance(error, EngineError):  # one that the accuracy gate refuses
            what, why = error.what, error.why
        self._on_error(
            EngineError(
                what,
                why,
                "raw frames are still recorded; restore them later with `pssr-live restore`",
            )
        )

    def _skip(self, window: Window) -> None:
        index = window.index
        window.release()
        self._on_skipped(index)
