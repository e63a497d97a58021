"""Which planes of a TIFF file are the frames of a movie."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import SourceError

__all__ = ["TimeAxis", "find_time_axis"]

MOST_CHANNELS = 7
"""ImageJ shows no more channels; a longer channel axis is a time series wrongly labelled."""


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Which planes of a file make the movie.

    Attributes
    ----------
    axis : str
        Letter of the axis that is time; "" for a single image.
    planes : ndarray, shape (time points,), int
        Numbers of the movie's planes among all planes of the file, in order.
    notes : tuple of str
        What was taken for granted, one line each.
    """

    axis: str
    planes: NDArray[np.intp]
    notes: tuple[str, ...] = ()


def find_time_axis(name: str, axes: str, shape: tuple[int, ...]) -> TimeAxis:
    """Decide which axis of a file is time.

    Parameters
    ----------
    name : str
        The file's name, for messages.
    axes : str
        One letter an axis, as tifffile gives them: T, Z, C, Y, X, S (colour samples), Q and I
        (unnamed), others.
    shape : tuple of int
        Lengths of the axes.

    Returns
    -------
    TimeAxis

    Raises
    ------
    SourceError
        There are colours, several planes per time point, or channels only.
    """
    stack = [(axis, length) for axis, length in zip(axes, shape, strict=True) if axis not in "YX"]
    colours = math.prod(length for axis, length in stack if axis == "S")
    if not axes.rstrip("S").endswith("YX") or colours > 1:
        raise SourceError(
            f"{name} cannot be replayed",
            f"its planes are not grey images (axes {axes})",
            "save it with grey planes, one channel (Fiji: Image > Type > 16-bit)",
        )
    long = [place for place, (_, length) in enumerate(stack) if length > 1]
    channels = math.prod(length for axis, length in stack if axis == "C")
    time = _time_among(name, stack, long)
    letter = "" if time is None else stack[time][0]
    notes = []
    if letter in {"Z", "C"}:
        notes.append(f"{name} labels its only long axis {letter}; it is taken as time")
    if channels > 1 and letter != "C":
        notes.append(f"{name} has {channels} channels; only the first is replayed")
    numbers = np.arange(math.prod(length for _, length in stack))
    numbers = numbers.reshape([length for _, length in stack])
    pick = tuple(slice(None) if place == time else 0 for place in range(len(stack)))
    return TimeAxis(letter, np.atleast_1d(numbers[pick]), tuple(notes))


def _time_among(name: str, stack: list[tuple[str, int]], long: list[int]) -> int | None:
    """Place of the axis that is time, the only long one but channels; None for a single image."""
    candidates = [place for place in long if stack[place][0] != "C"]
    if len(candidates) > 1:
        raise SourceError(
            f"{name} cannot be replayed",
            "it has several planes per time point (long axes "
            f"{', '.join(stack[place][0] for place in long)})",
            "save one plane or a projection per time point (Fiji: Image > Stacks > Z Project)",
        )
    if candidates or not long:
        return candidates[0] if candidates else None
    if stack[long[0]][1] > MOST_CHANNELS:
        return long[0]
    raise SourceError(
        f"{name} cannot be replayed",
        "the file says that its planes are channels of one image, not time points",
        "save it as a time series (Fiji: Image > Properties, Frames)",
    )
