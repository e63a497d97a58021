"""Frames that a Micro-Manager camera lost, seen in the numbers and times of its images.

Micro-Manager says nothing when a frame is lost on its way. What shows it: the image number jumps,
it starts again from a lower one (older cores empty a full buffer and carry on), or far more time
passes than a frame takes. Nothing here knows of devices: numbers and times in, indexes out.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

__all__ = ["LossDetector", "Placed", "SourceClock"]

REMEMBERED = 15
"""Steps from image to image that the cadence is the median of."""

ENOUGH = 4
"""Steps after which the cadence counts as known."""

LATE_SHARE = 0.6
"""A step must be longer than expected by this share of the cadence to show a loss."""

LATE_SPREADS = 8
"""... and by this many times the median deviation of the steps."""

LATE_NS = 100_000_000
"""... and by more than a busy computer is late with an image that it did receive."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an image belongs in the series.

    Attributes
    ----------
    index : int
        Its frame number.
    lost : int
        Frames lost between it and the one before.
    seen : str
        How the loss was seen, for people; empty if nothing was lost.
    """

    index: int
    lost: int = 0
    seen: str = ""


class LossDetector:
    """Numbers the images of one camera so that lost ones leave gaps.

    Parameters
    ----------
    nominal_ns : int or None
        Time from image to image as the camera announces it, ns; stands in only until the cadence
        has been measured, and never suffices to call an image late.
    """

    def __init__(self, nominal_ns: int | None = None) -> None:
        self._nominal_ns = nominal_ns
        self._steps: deque[float] = deque(maxlen=REMEMBERED)
        self._index: int | None = None
        self._number: int | None = None
        self._t_ns = 0
        self._restarted = False

    def restarted(self) -> None:
        """Learn that the acquisition was started again: at least one frame is missing."""
        self._restarted = True

    def place(self, number: int | None, t_ns: int) -> Placed:
        """Give one image its frame number.

        Parameters
        ----------
        number : int or None
            The image number that came with it, counting up by one a frame; None if none came.
        t_ns : int
            Its time, ns; times go on over a restart and never decrease.

        Returns
        -------
        Placed
            The index goes up by one, and by one more for each frame lost. The first index is the
            image number.
        """
        if self._index is None:
            placed = Placed(number or 0)
        else:
            placed = self._after(self._index, number, t_ns - self._t_ns)
        self._index, self._number, self._t_ns = placed.index, number, t_ns
        self._restarted = False
        return placed

    def _after(self, index: int, number: int | None, step_ns: int) -> Placed:
        before = self._number
        if self._restarted:
            lost, seen = self._lost_in(step_ns), "the acquisition was started again"
        elif number is not None and before is not None and number <= before:
            lost, seen = self._lost_in(step_ns), f"the image number fell from {before} to {number}"
        else:
            jump = 1 if number is None or before is None else number - before
            late = self._late(step_ns, jump)
            self._steps.append(step_ns / jump)
            lost, seen = jump - 1 + late, ""
            if jump > 1:
                seen = f"the image number jumped from {before} to {number}"
            if late:
                seen += f"{' and ' if seen else ''}no image came for {step_ns / 1e6:.0f} ms"
        return Placed(index + 1 + lost, lost, seen)

    def _late(self, step_ns: int, jump: int) -> int:
        """Estimate how many frames are missing although the numbers do not show it."""
        cadence = self._cadence()
        if cadence is None:
            return 0
        spread = median(abs(step - cadence) for step in self._steps)
        excess = step_ns - jump * cadence
        if excess <= max(LATE_SHARE * cadence, LATE_SPREADS * spread, LATE_NS):
            return 0
        return max(1, round(excess / cadence))

    def _lost_in(self, step_ns: int) -> int:
        """Estimate the frames lost in a step that surely lost some."""
        cadence = self._cadence() or self._nominal_ns
        return max(1, round(step_ns / cadence) - 1) if cadence else 1

    def _cadence(self) -> float | None:
        """Time from image to image, ns, as measured; None if not yet known."""
        return (median(self._steps) or None) if len(self._steps) >= ENOUGH else None


class SourceClock:
    """Times of images, going on where the camera's own clock starts again.

    Times are those that the camera gives in its first acquisition. After a restart they are
    continued by this computer's clock.
    """

    def __init__(self) -> None:
        self._offset_ns = 0
        self._origin_ns: int | None = None
        self._delay_ns = 0
        self._last_ns: int | None = None
        self._restarted = False

    def restarted(self) -> None:
        """Learn that the camera's clock starts again."""
        self._restarted = True

    def time_ns(self, elapsed_ms: float | None, t_host_ns: int) -> int:
        """Tell the time of one image.

        Parameters
        ----------
        elapsed_ms : float or None
            Time that came with the image, ms since the acquisition's start; None if none came:
            then this computer's clock counts, from the first image.
        t_host_ns : int
            When this computer had the image, ns.

        Returns
        -------
        int
            ns; never earlier than the image before.
        """
        if self._origin_ns is None:
            self._origin_ns = t_host_ns
        elapsed_ns = t_host_ns - self._origin_ns if elapsed_ms is None else round(elapsed_ms * 1e6)
        t_ns = elapsed_ns + self._offset_ns
        if self._last_ns is None:
            self._delay_ns = t_host_ns - t_ns
        else:
            if self._restarted or t_ns < self._last_ns:
                t_ns = max(t_host_ns - self._delay_ns, self._last_ns)
                self._offset_ns = t_ns - elapsed_ns
            self._delay_ns = min(self._delay_ns, t_host_ns - t_ns)
        self._restarted = False
        self._last_ns = t_ns
        return t_ns
