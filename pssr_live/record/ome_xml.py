"""OME-XML of the stacks: what each is named, measured and annotated with (2016-06 schema)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from pssr_live import __version__
from pssr_live.model import Manifest
from pssr_live.source import StreamInfo

__all__ = [
    "StackDescription",
    "described",
    "finished_xml",
    "raw_stack",
    "reserved_xml",
    "restored_stack",
    "size_t_digits",
    "truth_stack",
]

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
TYPES = {"uint8": "uint8", "uint16": "uint16", "float32": "float"}
SIZE_T_DIGITS = 10
RESERVED = 16 * 1024

PREDICTION = (
    "Every pixel is a prediction of the model from undersampled frames, not a measurement. "
    "Intensities are on the scale of the raw frames."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackDescription:
    """What a stack is, before its first plane.

    Attributes
    ----------
    name : str
        Name of the OME image: what the stack is.
    description : str
        One or two sentences for people.
    height, width : int
        Size of a plane, pixels.
    dtype : numpy.dtype
        uint8, uint16 or float32.
    bits : int or None
        Bits that carry intensity; None for all of the dtype's.
    pixel_size_um : float or None
        Edge of a pixel, µm.
    interval_ms : float or None
        Time from plane to plane, ms, as the source announced it.
    channel : str
        Name of the channel.
    acquired : datetime
        When the acquisition started; with a time zone.
    annotations : mapping of str to str
        What else is worth keeping with the pixels: run id, model, engine.
    """

    name: str
    description: str
    height: int
    width: int
    dtype: np.dtype[np.generic]
    bits: int | None
    pixel_size_um: float | None
    interval_ms: float | None
    channel: str
    acquired: datetime
    annotations: Mapping[str, str] = field(default_factory=dict)


def raw_stack(
    info: StreamInfo, acquired: datetime, annotations: Mapping[str, str]
) -> StackDescription:
    """Describe the stack of raw frames that a source delivers."""
    return StackDescription(
        name="raw",
        description=f"Undersampled frames as acquired from {info.source}.",
        height=info.height,
        width=info.width,
        dtype=info.dtype,
        bits=info.bits if np.issubdtype(info.dtype, np.integer) else None,
        pixel_size_um=info.pixel_size_um,
        interval_ms=info.interval_ms,
        channel=info.channel,
        acquired=acquired,
        annotations=annotations,
    )


def restored_stack(
    info: StreamInfo, model: Manifest, acquired: datetime, annotations: Mapping[str, str]
) -> StackDescription:
    """Describe the stack of frames that a model restores from a source's raw frames."""
    return StackDescription(
        name=f"restored by {model.name} {model.version} (a prediction, not a measurement)",
        description=PREDICTION,
        height=info.height * model.scale,
        width=info.width * model.scale,
        dtype=info.dtype,
        bits=None,
        pixel_size_um=None if info.pixel_size_um is None else info.pixel_size_um / model.scale,
        interval_ms=info.interval_ms,
        channel=info.channel,
        acquired=acquired,
        annotations={
            "model": model.name,
            "model_version": model.version,
            "model_sha256": model.network.sha256,
            **annotations,
        },
    )


def truth_stack(
    info: StreamInfo,
    shape: tuple[int, int],
    dtype: np.dtype[np.generic],
    acquired: datetime,
    annotations: Mapping[str, str],
) -> StackDescription:
    """Describe the stack of ground truth that a simulated source delivers."""
    height, width = shape
    scale = height / info.height
    return StackDescription(
        name="ground truth (simulated)",
        description=f"The simulated scene without noise, from {info.source}.",
        height=height,
        width=width,
        dtype=dtype,
        bits=None,
        pixel_size_um=None if info.pixel_size_um is None else info.pixel_size_um / scale,
        interval_ms=info.interval_ms,
        channel=info.channel,
        acquired=acquired,
        annotations=annotations,
    )


def reserved_xml(stack: StackDescription) -> tuple[bytes, int]:
    """Make the OME-XML that stands in the file while planes are still coming.

    Parameters
    ----------
    stack : StackDescription
        What the stack is.

    Returns
    -------
    xml : bytes
        ASCII, padded to `RESERVED` bytes (or a multiple of 4 KiB above), NUL at the end. One image
        of one plane so far.
    digits_at : int
        Where in it the ten digits of SizeT stand, to be overwritten as planes come.
    """
    pixels = ET.Element("TiffData")
    text = _document(stack, f"{1:0{SIZE_T_DIGITS}d}", pixels, {})
    # tifffile knows OME-XML by its last characters, so that the padding goes before the end tag.
    body, end = text.removesuffix("</OME>"), "</OME>\0"
    size = max(RESERVED, -(-(len(body) + len(end)) // 4096) * 4096)
    xml = (body + end.rjust(size - len(body))).encode("ascii")
    return xml, size_t_digits(xml)


def size_t_digits(xml: bytes) -> int:
    """Find where the ten digits of SizeT stand in what `reserved_xml` made.

    Raises
    ------
    ValueError
        They are not there.
    """
    found = re.search(rb'<Pixels [^>]*?SizeT="(\d{%d})"' % SIZE_T_DIGITS, xml)
    if found is None:
        raise ValueError("its OME-XML does not count planes")
    return found.start(1)


def finished_xml(
    stack: StackDescription, times_ns: Sequence[int], notes: Mapping[str, str]
) -> bytes:
    """Make the OME-XML of a finished stack.

    Parameters
    ----------
    stack : StackDescription
        What the stack is.
    times_ns : sequence of int
        The source's time of every plane, ns.
    notes : mapping of str to str
        What is known about planes only at the end: which are edges, which were lost.

    Returns
    -------
    bytes
        ASCII, NUL at the end.
    """
    data = ET.Element("TiffData", IFD="0", PlaneCount=str(len(times_ns)))
    text = _document(stack, str(len(times_ns)), data, notes)
    # Put in as text: an element for each plane of a long run would take half a gigabyte.
    planes = "".join(
        f'<Plane TheC="0" TheZ="0" TheT="{plane}" DeltaT="{time_ns / 1e9:.9f}"/>'
        for plane, time_ns in enumerate(times_ns)
    )
    return text.replace("<!--planes-->", planes, 1).encode("ascii") + b"\0"


def described(xml: bytes) -> StackDescription:
    """Read back what a stack is from what `reserved_xml` made.

    Parameters
    ----------
    xml : bytes
        As it stands in the file.

    Returns
    -------
    StackDescription
        From which the same OME-XML is made again.

    Raises
    ------
    ValueError
        It is no OME-XML of this program.
    """
    space = {"ome": NAMESPACE}
    try:
        root = ET.fromstring(xml.rstrip(b"\0"))
    except ET.ParseError as error:
        raise ValueError(f"its OME-XML is damaged ({error})") from error
    pixels = root.find("ome:Image/ome:Pixels", space)
    channel = root.find("ome:Image/ome:Pixels/ome:Channel", space)
    if pixels is None or channel is None:
        raise ValueError("its OME-XML has no pixels")
    said = pixels.attrib
    dtypes = {word: dtype for dtype, word in TYPES.items()}
    try:
        bits, size, seconds = (
            said.get(key) for key in ("SignificantBits", "PhysicalSizeX", "TimeIncrement")
        )
        acquired = datetime.fromisoformat(
            root.findtext("ome:Image/ome:AcquisitionDate", "", space)
        ).replace(tzinfo=UTC)
        return StackDescription(
            name=root.findall("ome:Image", space)[0].attrib["Name"],
            description=root.findtext("ome:Image/ome:Description", "", space),
            height=int(said["SizeY"]),
            width=int(said["SizeX"]),
            dtype=np.dtype(dtypes[said["Type"]]),
            bits=None if bits is None else int(bits),
            pixel_size_um=None if size is None else float(size),
            interval_ms=None if seconds is None else float(seconds) * 1e3,
            channel=channel.get("Name", ""),
            acquired=acquired,
            annotations={
                entry.attrib["K"]: entry.text or ""
                for entry in root.iterfind(
                    ".//ome:MapAnnotation[@Namespace='pssr-live/run']/ome:Value/ome:M", space
                )
            },
        )
    except KeyError as error:
        raise ValueError(f"its OME-XML lacks {error}") from error


def _document(
    stack: StackDescription, size_t: str, tiff_data: ET.Element, notes: Mapping[str, str]
) -> str:
    root = ET.Element(
        "OME",
        {
            "xmlns": NAMESPACE,
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:schemaLocation": f"{NAMESPACE} {NAMESPACE}/ome.xsd",
            "Creator": f"pssr-live {__version__}",
        },
    )
    image = ET.SubElement(root, "Image", ID="Image:0", Name=_clean(stack.name))
    acquired = stack.acquired.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    ET.SubElement(image, "AcquisitionDate").text = acquired
    ET.SubElement(image, "Description").text = _clean(stack.description)
    pixels = ET.SubElement(image, "Pixels", _pixels_attributes(stack, size_t))
    channel = ET.SubElement(pixels, "Channel", ID="Channel:0:0", SamplesPerPixel="1")
    if stack.channel:
        channel.set("Name", _clean(stack.channel))
    pixels.append(tiff_data)
    pixels.append(ET.Comment("planes"))
    annotations = {"pssr-live/run": stack.annotations, "pssr-live/planes": notes}
    structured = ET.Element("StructuredAnnotations")
    for number, (namespace, entries) in enumerate(annotations.items()):
        if entries:
            name = f"Annotation:{number}"
            ET.SubElement(image, "AnnotationRef", ID=name)
            added = ET.SubElement(structured, "MapAnnotation", ID=name, Namespace=namespace)
            value = ET.SubElement(added, "Value")
            for key, entry in entries.items():
                ET.SubElement(value, "M", K=_clean(key)).text = _clean(entry)
    if len(structured):
        root.append(structured)
    body = ET.tostring(root, encoding="us-ascii", xml_declaration=False).decode("ascii")
    return f'<?xml version="1.0" encoding="UTF-8"?>{body}'


def _pixels_attributes(stack: StackDescription, size_t: str) -> dict[str, str]:
    attributes = {
        "ID": "Pixels:0",
        "DimensionOrder": "XYZCT",
        "Type": TYPES[stack.dtype.name],
        "SizeX": str(stack.width),
        "SizeY": str(stack.height),
        "SizeZ": "1",
        "SizeC": "1",
        "SizeT": size_t,
        "BigEndian": "false",
    }
    if stack.bits is not None:
        attributes["SignificantBits"] = str(stack.bits)
    if stack.pixel_size_um is not None and stack.pixel_size_um > 0:
        attributes["PhysicalSizeX"] = attributes["PhysicalSizeY"] = f"{stack.pixel_size_um:.12g}"
    if stack.interval_ms is not None:
        attributes["TimeIncrement"] = f"{stack.interval_ms / 1e3:.12g}"
    return attributes


def _clean(text: str) -> str:
    """Take out what no XML may contain, which names read from a device might."""
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "?", text)
