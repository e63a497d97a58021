"""What a TIFF file says about its movie: pixel size, frame interval, times, channel.

Nothing is guessed: what a file does not say, or says in a unit that is none, is None.
"""

from __future__ import annotations

import logging
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

__all__ = ["MovieMetadata", "imagej_metadata", "ome_metadata", "plain_metadata"]

log = logging.getLogger(__name__)

LENGTHS_UM = {
    "pm": 1e-6,
    "å": 1e-4,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "µm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "in": 25_400.0,
    "inch": 25_400.0,
}
"""Units of length as OME-XML and ImageJ write them, in µm."""

TIMES_MS = {
    "ns": 1e-6,
    "µs": 1e-3,
    "us": 1e-3,
    "ms": 1.0,
    "msec": 1.0,
    "s": 1e3,
    "sec": 1e3,
    "second": 1e3,
    "min": 6e4,
    "minute": 6e4,
    "h": 3.6e6,
    "hour": 3.6e6,
    "d": 8.64e7,
}
"""Units of time as OME-XML and ImageJ write them, in ms."""

CENTIMETRE = 3
"""The TIFF tag ResolutionUnit; 2 is inch, which programs write without meaning it (72 dpi)."""

SQUARE = 0.01
"""Relative difference up to which pixels pass as square."""


@dataclass(frozen=True, slots=True)
class MovieMetadata:
    """What a file says about its movie.

    Attributes
    ----------
    pixel_size_um : float or None
        Edge of a pixel, µm.
    interval_ms : float or None
        Time from frame to frame, ms.
    channel : str
        Name of the first channel.
    bits : int or None
        Bits that carry intensity.
    times_ns : mapping of int to int
        Time of each time point, ns since the movie's start; empty if the file does not give all.
    """

    pixel_size_um: float | None = None
    interval_ms: float | None = None
    channel: str = ""
    bits: int | None = None
    times_ns: Mapping[int, int] = field(default_factory=dict)


def ome_metadata(xml: str, axis: str, planes: int) -> MovieMetadata:
    """Read the OME-XML of the first image.

    Parameters
    ----------
    xml : str
        The document.
    axis : {"T", "Z", "C", ...}
        The axis that is the movie's time; its ``The…`` attribute numbers the planes' times.
    planes : int
        Number of time points.

    Returns
    -------
    MovieMetadata
        Empty, with a warning, if the document cannot be read.
    """
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        log.warning("the OME-XML cannot be read (%s): pixel size and interval unknown", error)
        return MovieMetadata()
    pixels = next(_elements(root, "Pixels"), None)
    if pixels is None:
        return MovieMetadata()
    width = _length(pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeXUnit", "µm"))
    height = _length(pixels.get("PhysicalSizeY"), pixels.get("PhysicalSizeYUnit", "µm"))
    times = _plane_times(pixels, axis, planes)
    interval = _time(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    if interval is None and len(times) > 1:
        interval = median(later - earlier for earlier, later in pairwise(times.values())) / 1e6
    channel = next(_elements(pixels, "Channel"), None)
    bits = pixels.get("SignificantBits", "")
    return MovieMetadata(
        pixel_size_um=_square(width, height),
        interval_ms=interval,
        channel="" if channel is None else channel.get("Name", ""),
        bits=int(bits) if bits.isdecimal() else None,
        times_ns=times,
    )


def imagej_metadata(
    entries: Mapping[str, object], x_per_unit: float | None, y_per_unit: float | None
) -> MovieMetadata:
    """Read ImageJ's description.

    Parameters
    ----------
    entries : mapping
        Its entries; ``unit``, ``finterval`` and ``tunit`` count.
    x_per_unit, y_per_unit : float or None
        Pixels per unit, from the resolution tags.

    Returns
    -------
    MovieMetadata
    """
    unit = str(entries.get("unit", ""))
    width = None if not x_per_unit else _length(1 / x_per_unit, unit)
    height = None if not y_per_unit else _length(1 / y_per_unit, unit)
    interval = _time(entries.get("finterval"), str(entries.get("tunit", "s")))
    return MovieMetadata(pixel_size_um=_square(width, height), interval_ms=interval)


def plain_metadata(
    x_per_unit: float | None, y_per_unit: float | None, unit: int | None
) -> MovieMetadata:
    """Read the resolution tags of a file without other metadata.

    Parameters
    ----------
    x_per_unit, y_per_unit : float or None
        Pixels per unit.
    unit : int or None
        The tag ResolutionUnit.

    Returns
    -------
    MovieMetadata
        With a pixel size only if the unit is centimetres.
    """
    if unit != CENTIMETRE or not x_per_unit:
        return MovieMetadata()
    height = None if not y_per_unit else _length(1 / y_per_unit, "cm")
    return MovieMetadata(pixel_size_um=_square(_length(1 / x_per_unit, "cm"), height))


def _elements(parent: ET.Element, name: str) -> Iterator[ET.Element]:
    """All elements below, whatever version of the OME namespace they are in."""
    return (found for found in parent.iter() if found.tag.rpartition("}")[2] == name)


def _plane_times(pixels: ET.Element, axis: str, planes: int) -> dict[int, int]:
    """DeltaT of the first plane of every time point, if all have one and they increase."""
    times: dict[int, int] = {}
    for plane in _elements(pixels, "Plane"):
        number = plane.get(f"The{axis}", "")
        milliseconds = _time(plane.get("DeltaT"), plane.get("DeltaTUnit", "s"), zero=True)
        if milliseconds is not None and number.isdecimal():
            times.setdefault(int(number), round(milliseconds * 1e6))
    times = dict(sorted(times.items()))
    if not times:
        return {}
    complete = list(times) == list(range(planes))
    if not complete or any(later <= earlier for earlier, later in pairwise(times.values())):
        log.warning("the times of the planes (DeltaT) are incomplete or do not increase: not used")
        return {}
    return times


def _square(width: float | None, height: float | None) -> float | None:
    if width is not None and height is not None and abs(height / width - 1) > SQUARE:
        log.warning(
            "pixels are not square (%g × %g µm): the width is taken as pixel size", width, height
        )
    return width


def _length(value: object, unit: str) -> float | None:
    return _quantity(value, unit, LENGTHS_UM, zero=False)


def _time(value: object, unit: str, *, zero: bool = False) -> float | None:
    return _quantity(value, unit, TIMES_MS, zero=zero)


def _quantity(value: object, unit: str, units: Mapping[str, float], *, zero: bool) -> float | None:
    # ImageJ escapes the micro sign; there are two of them in Unicode.
    name = unit.strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("μ", "µ").lower()
    name = name.replace("metre", "meter")
    scale = units.get(name, units.get(name.removesuffix("s")))
    try:
        number = float(str(value))
    except ValueError:
        return None
    if scale is None or not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        return None
    return number * scale
