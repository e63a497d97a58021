"""Example frames as pictures that stand in the page itself."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pssr_live.frames import Pixels
from pssr_live.report.run_log import RunLog
from pssr_live.report.stacks import Stacks

__all__ = ["Bar", "Example", "Examples", "Picture", "examples", "nice_length"]

WHOLE, LEAST = 600, 256
"""A whole frame is shown with at most, and at least about, so many pixels a side."""
DETAIL = 64
"""Edge of the detail, raw pixels."""
LOW, HIGH = 0.5, 99.8
"""Percentiles shown as black and as white."""
SAMPLE = 256
"""Percentiles are taken from at most about so many pixels a side."""
BAR_SHARE = 0.3
"""A scale bar takes at most this share of a picture's width."""

HEADINGS = {
    "raw": "raw, as measured",
    "restored": "restored, a prediction",
    "truth": "truth, simulated",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A scale bar.

    Attributes
    ----------
    share : float
        Of the picture's width.
    text : str
        Its length.
    """

    share: float
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    Attributes
    ----------
    kind : str
        Of which stack.
    heading : str
        What it is.
    data : str
        A data URI; empty where there is no such plane.
    width, height : int
        Pixels in the picture.
    flags : tuple of str
        What a reader must know before trusting a restored frame.
    """

    kind: str
    heading: str
    data: str
    width: int
    height: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """One frame: whole, and a region of it.

    Attributes
    ----------
    what : str
        Why it is shown.
    index : int
        As the source counts.
    time_s : float or None
        After the first frame, s.
    whole, detail : list of Picture
        One for each stack.
    """

    what: str
    index: int
    time_s: float | None
    whole: list[Picture]
    detail: list[Picture]


@dataclass(frozen=True, slots=True)
class Examples:
    """All example frames.

    Attributes
    ----------
    frames : list of Example
        In the order of time.
    levels : tuple of float
        Intensities shown as black and as white in all of them.
    box : tuple of float
        Left, top, width and height of the detail, as shares of the frame.
    whole_bar, detail_bar : Bar or None
        None where the pixel size is not known.
    """

    frames: list[Example]
    levels: tuple[float, float]
    box: tuple[float, float, float, float]
    whole_bar: Bar | None
    detail_bar: Bar | None


def examples(stacks: Stacks, log: RunLog, pixel_size_um: float | None) -> Examples | None:
    """Make the pictures, one plane in memory at a time; None if there is no raw plane.

    Parameters
    ----------
    stacks : Stacks
        The planes.
    log : RunLog
        What is known about each.
    pixel_size_um : float or None
        Edge of a raw pixel.
    """
    shown = chosen(stacks.planes("raw"), log)
    if not shown:
        return None
    levels = _levels(stacks, shown)
    region = _region(stacks, stacks.planes("raw") // 2)
    frames = []
    for plane, what in shown.items():
        index = log.index(plane)
        whole, detail = [], []
        for kind in stacks.kinds:
            pixels = stacks.read(kind, plane)
            part = None if pixels is None else pixels[region.slices(stacks.scale(kind))]
            flags = log.flags(index) if kind == "restored" and pixels is not None else ()
            whole.append(_picture(kind, pixels, levels, flags))
            detail.append(_picture(kind, part, levels))
        frames.append(Example(what, index, log.time_s(plane), whole, detail))
    height, width = stacks.size
    return Examples(
        frames=frames,
        levels=levels,
        box=(
            region.left / width,
            region.top / height,
            region.width / width,
            region.height / height,
        ),
        whole_bar=_bar(width, pixel_size_um),
        detail_bar=_bar(region.width, pixel_size_um),
    )


def chosen(planes: int, log: RunLog) -> dict[int, str]:
    """Choose the planes to show: start, middle, end, and on both sides of the first gap.

    Parameters
    ----------
    planes : int
        Raw planes there are.
    log : RunLog
        Knows the gaps.

    Returns
    -------
    dict of int to str
        By plane, ascending, what it is.
    """
    found: dict[int, list[str]] = {}
    wanted = [(0, "start"), (planes // 2, "middle"), (planes - 1, "end")]
    if log.lost:
        after = log.plane_from(log.lost[0].last_index + 1)
        wanted += [(after - 1, "before the first gap"), (after, "after the first gap")]
    for plane, what in wanted:
        if 0 <= plane < planes:
            found.setdefault(plane, []).append(what)
    return {plane: ", ".join(found[plane]) for plane in sorted(found)}


def nice_length(longest: float) -> float:
    """Choose the longest round length: 1, 2 or 5 times a power of ten; `longest` > 0."""
    decade = 10.0 ** math.floor(math.log10(longest))
    # The tolerance keeps 0.1 + 0.2 and its like from losing a step.
    fitting = (step for step in (5, 2) if step * decade <= longest * (1 + 1e-9))
    return next(fitting, 1) * decade


@dataclass(frozen=True, slots=True)
class _Region:
    """A rectangle in raw pixels."""

    top: int
    left: int
    height: int
    width: int

    def slices(self, scale: float) -> tuple[slice, slice]:
        """Rows and columns of a stack with so many pixels per raw pixel."""
        return (
            slice(round(self.top * scale), round((self.top + self.height) * scale)),
            slice(round(self.left * scale), round((self.left + self.width) * scale)),
        )


def _clearest(stacks: Stacks, plane: int) -> tuple[str, Pixels] | None:
    """Read a plane of the stack with least noise that has it."""
    for kind in reversed(stacks.kinds):
        pixels = stacks.read(kind, plane)
        if pixels is not None:
            return kind, pixels
    return None


def _levels(stacks: Stacks, planes: Iterable[int]) -> tuple[float, float]:
    """Find black and white for all pictures, from those with least noise."""
    samples = [np.zeros(0)]
    for plane in planes:
        found = _clearest(stacks, plane)
        if found is not None:
            rows, columns = (max(1, -(-side // SAMPLE)) for side in found[1].shape)
            samples.append(found[1][::rows, ::columns].astype(np.float64).ravel())
    sample = np.concatenate(samples)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return (0.0, 1.0)
    low, high = np.percentile(sample, (LOW, HIGH)).tolist()
    return (low, high) if high > low else (low, low + 1.0)


def _region(stacks: Stacks, plane: int) -> _Region:
    """Find the square with most contrast, among those that overlap by half.

    Large frames are not searched at their rim, where restoration lacks neighbours.
    """
    height, width = stacks.size
    edges = min(DETAIL, height), min(DETAIL, width)
    rows, columns = (
        range(rim, side - edge - rim + 1, DETAIL // 2)
        for side, edge in zip((height, width), edges, strict=True)
        for rim in [DETAIL // 2 if side >= 2 * DETAIL else 0]
    )
    regions = [_Region(row, column, *edges) for row in rows for column in columns]
    found = _clearest(stacks, plane)
    if found is None:
        return regions[len(regions) // 2]
    kind, pixels = found
    scale = stacks.scale(kind)

    def contrast(region: _Region) -> float:
        return float(np.nan_to_num(pixels[region.slices(scale)].std(dtype=np.float64)))

    with np.errstate(invalid="ignore"):  # pixels of recordings need not be finite
        return max(regions, key=contrast)


def _picture(
    kind: str,
    pixels: Pixels | None,
    levels: tuple[float, float],
    flags: tuple[str, ...] = (),
) -> Picture:
    from PIL import Image

    if pixels is None:
        return Picture(kind, HEADINGS[kind], "", 1, 1)
    image = Image.fromarray(_grey(pixels, levels))
    longest = max(image.size)
    if longest > WHOLE:
        image = image.reduce(-(-longest // WHOLE))
    elif longest < LEAST:
        # Each pixel becomes a square: nothing between the pixels is made up.
        times = -(-LEAST // longest)
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    uri = f"data:image/png;base64,{data}"
    return Picture(kind, HEADINGS[kind], uri, image.width, image.height, flags)


def _grey(pixels: Pixels, levels: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = levels
    # A scale that is smaller than any float32 shows black and white, and no warning.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        shares: NDArray[np.float32] = (pixels.astype(np.float32) - low) / (high - low)
    return np.asarray(np.clip(np.nan_to_num(shares), 0, 1) * 255 + 0.5, np.uint8)


def _bar(width: int, pixel_size_um: float | None) -> Bar | None:
    if pixel_size_um is None:
        return None
    width_um = width * pixel_size_um
    length = nice_length(width_um * BAR_SHARE)
    text = f"{length:g} µm" if length >= 0.1 else f"{1000 * length:g} nm"
    return Bar(length / width_um, text)
