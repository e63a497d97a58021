"""What is used of a bioimage.io description (``rdf.yaml``, format 0.5); the rest is left alone."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct

from pssr_live.errors import ModelError
from pssr_live.model.files import ReadFile
from pssr_live.model.package import MAX_SIDE

__all__ = [
    "DESCRIPTIONS",
    "Axis",
    "Description",
    "File",
    "OnnxFile",
    "Size",
    "Step",
    "Tensor",
    "UnfitError",
    "read_description",
]

DESCRIPTIONS = ("bioimageio.yaml", "rdf.yaml")


_DEEPEST = 50
"""Brackets within brackets; the time to read them grows with the square."""

_Pixels = Annotated[int, Meta(ge=1, le=MAX_SIDE)]


class UnfitError(Exception):
    """Why a package cannot be used here, in one line."""


class Size(Struct, frozen=True):
    """A range of sizes (``min``, ``step``), or that of another axis."""

    min: _Pixels | None = None
    step: _Pixels | None = None
    tensor_id: str = ""
    axis_id: str = ""
    offset: int = 0


class Axis(Struct, frozen=True):
    """An axis of an array; ``scale`` in ``unit`` per pixel where there is one."""

    type: str
    id: str = ""
    size: _Pixels | Size | None = None
    scale: Annotated[float, Meta(gt=0)] = 1.0
    unit: str | None = None
    channel_names: Annotated[list[str], Meta(max_length=4096)] = []


class File(Struct, frozen=True):
    """A file of the package."""

    source: str
    sha256: str | None = None


class Step(Struct, frozen=True):
    """Something that is done to an array before or after the network."""

    id: str
    kwargs: dict[str, Any] = {}


class OnnxFile(File, frozen=True):
    """Weights, which may be split over files."""

    external_data: dict[str, Any] | None = None


Steps = Annotated[list[Step], Meta(max_length=100)]


class Tensor(Struct, frozen=True):
    """What goes in or comes out."""

    axes: Annotated[list[Axis], Meta(min_length=1, max_length=10)]
    id: str = ""
    test_tensor: File | None = None
    preprocessing: Steps = []
    postprocessing: Steps = []


class Description(Struct, frozen=True):
    """What is used of ``rdf.yaml``; everything else is left alone."""

    type: str
    format_version: str
    name: str
    inputs: Annotated[list[Tensor], Meta(max_length=100)]
    outputs: Annotated[list[Tensor], Meta(max_length=100)]
    weights: dict[str, Any]
    description: str = ""
    version: str | int | float | None = None
    license: str | None = None
    documentation: File | str | None = None


def read_description(read: ReadFile) -> Description:
    """Read what a package says about itself.

    Parameters
    ----------
    read : callable
        Gives its files.

    Returns
    -------
    Description

    Raises
    ------
    UnfitError
        It is no model of format 0.5.
    ModelError
        It has no description, or one that is too large.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    for name in DESCRIPTIONS:
        try:
            content = read(name, "description")
            break
        except ModelError:
            if name == DESCRIPTIONS[-1]:
                raise
    try:
        if _depth(content) > _DEEPEST:
            raise UnfitError(f"{name} is no model description (too deep)")
        found = YAML(typ="safe", pure=True).load(content)
        if isinstance(found, dict):
            _check_format(found)
        return msgspec.convert(found, Description)
    except (YAMLError, RecursionError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UnfitError(f"{name} is no model description ({reason})") from error


def _check_format(found: dict[Any, Any]) -> None:
    """Refuse what has other fields, before they are missed."""
    kind, version = found.get("type"), found.get("format_version")
    if kind is not None and kind != "model":
        raise UnfitError(f"it is a {kind}, no model")
    if version is not None and not str(version).startswith("0.5."):
        raise UnfitError(
            f"it has the format {version}; models of format 0.5 are read, such as 0.5.4 "
            "(bioimageio.core brings others to it: `bioimageio update-format`)"
        )


def _depth(content: bytes) -> int:
    """Count how deep brackets go; too many if they stand in texts, but those balance."""
    found = np.frombuffer(content, np.uint8)
    steps = np.isin(found, list(b"[{")).astype(np.int64) - np.isin(found, list(b"]}"))
    return int(steps.cumsum().max(initial=0))
