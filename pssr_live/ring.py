"""Five-frame ring: arriving frames → windows (edges, gaps, leases).

A frame is copied once, from the source's memory into a slot; everything after that reads the slot
and releases it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pssr_live.errors import SourceError
from pssr_live.frames import Frame, Pixels, Window, read_only

__all__ = ["Ring", "Slots", "WindowPlan", "plan_window"]


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Which frames make a window.

    Attributes
    ----------
    indices : tuple of int
        Source index of each frame of the window, oldest first.
    edge : bool
        The window reaches past an end of the run.
    complete : bool
        No frame inside the run is missing.
    """

    indices: tuple[int, ...]
    edge: bool
    complete: bool


def plan_window(
    index: int, available: Sequence[int], *, first: int, last: int, length: int, centre: int
) -> WindowPlan:
    """Choose the frames of the window around one frame.

    A frame that does not exist is replaced by the nearest one inside the window's span; of two
    equally near ones, by the one nearer to the centre.

    Parameters
    ----------
    index : int
        Source index of the frame to restore; must be available.
    available : sequence of int
        Source indexes of frames that exist.
    first, last : int
        Source indexes of the run's first and last frame, as far as known.
    length, centre : int
        Of the model's window.

    Returns
    -------
    WindowPlan
    """
    wanted = range(index - centre, index - centre + length)
    inside = [have for have in available if wanted[0] <= have <= wanted[-1]]
    chosen = tuple(
        min(inside, key=lambda have: (abs(have - want), abs(have - index))) for want in wanted
    )
    missing = [want for want, have in zip(wanted, chosen, strict=True) if want != have]
    return WindowPlan(
        indices=chosen,
        edge=wanted[0] < first or wanted[-1] > last,
        complete=not any(first <= want <= last for want in missing),
    )


class Slots:
    """Preallocated memory for frames, lent out and used again.

    Parameters
    ----------
    count : int
        How many frames fit.
    height, width : int
        Size of a frame, pixels.
    dtype : numpy.dtype
        Of the pixels.
    """

    def __init__(self, count: int, height: int, width: int, dtype: np.dtype[np.generic]) -> None:
        self._memory = np.zeros((count, height, width), dtype)
        self._free = deque(_Slot(self, pixels) for pixels in self._memory)
        self._count = count
        self._returned = threading.Condition()

    @property
    def lent(self) -> int:
        """Number of slots that somebody holds."""
        with self._returned:
            return self._count - len(self._free)

    def keep(self, frame: Frame) -> Frame:
        """Copy a frame out of its source's memory; waits while all slots are lent.

        Parameters
        ----------
        frame : Frame
            As the source delivered it.

        Returns
        -------
        Frame
            The same frame on a slot, held once for the caller.

        Raises
        ------
        SourceError
            Its shape or dtype differ from what the source announced.
        """
        expected = self._memory[0]
        if frame.pixels.shape != expected.shape or frame.pixels.dtype != expected.dtype:
            raise SourceError(
                f"frame {frame.index} is {_kind(frame.pixels)}",
                f"this run records {_kind(expected)}",
                "keep the region of interest and pixel type as they are during a run; "
                "start a new run after changing them",
            )
        with self._returned:
            self._returned.wait_for(lambda: self._free)
            slot = self._free.popleft()
        np.copyto(slot.pixels, frame.pixels)
        slot.hold()
        # Truth is rare (simulated runs only), so it is copied freely.
        truth = None if frame.truth is None else read_only(frame.truth.copy())
        return replace(frame, pixels=read_only(slot.pixels), truth=truth, lease=slot)

    def _give_back(self, slot: _Slot) -> None:
        with self._returned:
            self._free.append(slot)
            self._returned.notify()


class _Slot:
    """One frame's memory with its number of holders."""

    def __init__(self, slots: Slots, pixels: Pixels) -> None:
        self.pixels = pixels
        self._slots = slots
        self._holders = 0
        self._lock = threading.Lock()

    def hold(self) -> None:
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        with self._lock:
            if self._holders == 0:
                raise RuntimeError("a frame was released more often than it was held")
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._slots._give_back(self)


class Ring:
    """The last frames, and the windows they make.

    Parameters
    ----------
    length, centre : int
        Of the model's window.
    """

    def __init__(self, length: int, centre: int) -> None:
        self._length = length
        self._centre = centre
        self._held: deque[Frame] = deque()
        self._pending: deque[int] = deque()
        self._first: int | None = None

    def push(self, frame: Frame) -> list[Window]:
        """Take the next frame.

        Parameters
        ----------
        frame : Frame
            With a higher index than the one before; a jump is a gap. The ring holds it as long as
            it needs it.

        Returns
        -------
        list of Window
            The windows that this frame completes, oldest first, each held once for the caller.

        Raises
        ------
        SourceError
            The index does not increase.
        """
        if self._held and frame.index <= self._held[-1].index:
            raise SourceError(
                f"frame {frame.index} came after frame {self._held[-1].index}",
                "a source must count its frames upwards",
                "report this to the driver's author",
            )
        if self._first is None:
            self._first = frame.index
        frame.hold()
        self._held.append(frame)
        self._pending.append(frame.index)
        ahead = self._length - 1 - self._centre
        return self._windows(frame.index - ahead, last=frame.index, t_ready_ns=frame.t_host_ns)

    def finish(self) -> list[Window]:
        """End of the run: the remaining windows, whose later frames will never come.

        Returns
        -------
        list of Window
            Oldest first, each held once for the caller.
        """
        if not self._held:
            return []
        last = self._held[-1].index
        windows = self._windows(last, last=last, t_ready_ns=time.monotonic_ns())
        while self._held:
            self._held.popleft().release()
        return windows

    def _windows(self, up_to: int, *, last: int, t_ready_ns: int) -> list[Window]:
        windows = []
        while self._pending and self._pending[0] <= up_to:
            windows.append(self._window(self._pending.popleft(), last, t_ready_ns))
        needed_from = (self._pending[0] if self._pending else last) - self._centre
        while self._held and self._held[0].index < needed_from:
            self._held.popleft().release()
        return windows

    def _window(self, index: int, last: int, t_ready_ns: int) -> Window:
        by_index = {frame.index: frame for frame in self._held}
        plan = plan_window(
            index,
            list(by_index),
            first=self._first if self._first is not None else index,
            last=last,
            length=self._length,
            centre=self._centre,
        )
        window = Window(
            frames=tuple(by_index[chosen] for chosen in plan.indices),
            centre=self._centre,
            edge=plan.edge,
            complete=plan.complete,
            t_ready_ns=t_ready_ns,
        )
        window.hold()
        return window


def _kind(pixels: Pixels) -> str:
    height, width = pixels.shape
    return f"{height}×{width} {pixels.dtype}"
