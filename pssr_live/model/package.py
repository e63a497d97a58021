"""What a model package is: its manifest, its network, a test pair and a model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from pssr_live.errors import ModelError

__all__ = ["MAX_SIDE", "Manifest", "ModelPackage", "PackagedFile", "TestPair", "Tiling", "Variant"]

MAX_SIDE = 1 << 16
"""Nobody scans more pixels along a side."""

# Ends in "\Z", as "$" would let a line break follow.
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\Z", max_length=100)]

Line = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z", max_length=10_000)]
"""Text for people, without what commands a terminal."""

_Statistics = tuple[
    Annotated[float, Meta(ge=-1e6, le=1e6)], Annotated[float, Meta(gt=1e-6, le=1e6)]
]
"""Mean and standard deviation, of a size that float32 can calculate with."""


class PackagedFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the package: its name (no folders) and its hash."""

    file: FileName
    sha256: Sha256


Variant = Literal["fp16", "int8"]
"""Arithmetic that needs a network file of its own; fp32 and bf16 run the fp32 file."""


class Tiling(Struct, frozen=True, forbid_unknown_fields=True):
    """How frames that do not fit are restored in parts.

    Attributes
    ----------
    size : int
        Largest H or W that is restored in one piece, raw pixels; larger frames are cut into tiles
        of at most this size.
    overlap : int
        Raw pixels that neighbouring tiles share; at least twice the reach of the network's
        receptive field where seams must not show at all.
    seam_blur : bool
        Blur the seams as the published code does (10 restored pixels, Gaussian σ = 1).
    """

    size: Annotated[int, Meta(ge=16)]
    overlap: Annotated[int, Meta(ge=0)]
    seam_blur: bool = False


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What a model package says about itself (``manifest.json``).

    Attributes
    ----------
    format : int
        Version of this manifest.
    name, version, description, licence : str
        For people.
    network : PackagedFile
        ONNX with one input ``window``, float32 ``(1, window_length, H, W)``, and one output
        ``restored``, float32 ``(1, 1, scale·H, scale·W)``, both normalised; any H, W from
        ``min_size`` up: what the network must pad, it pads and crops inside.
    variants : dict, optional
        The same network for other arithmetic, by precision: ``fp16`` (casts inside; input and
        output stay float32) and ``int8`` (quantised after training, QDQ).
    test_pair : PackagedFile
        ``.npz`` with ``window`` (uint16 ``(window_length, H, W)``) and ``restored`` (float32
        ``(scale·H, scale·W)``: what the network gives in fp32, in raw intensities, before the mean
        is kept); also ``truth`` (float32, like ``restored``) where there is one.
    card : PackagedFile
        Model card, Markdown.
    window_length, centre : int
        Frames the network looks at, and the position of the one it restores.
    scale : int
        Restored pixels per raw pixel and axis.
    normalisation : str
        ``window-zscore``: mean and standard deviation (scalars) of the whole window.
        ``window-maximum``: the window is divided by its brightest pixel, then z-scored with
        ``training_statistics``, as imported PSSR models were trained.
    training_statistics : tuple of float, optional
        Mean and standard deviation of the training images (brightest pixel 1); given if and only
        if the normalisation is ``window-maximum``.
    keeps_mean : bool
        A restored frame is shifted so that its mean is that of the raw frame it restores.
    min_size, max_size : int
        Smallest and largest H or W.
    tiling : Tiling, optional
        How frames are restored in parts; without it, all are restored in one piece.
    pixel_size_um : tuple of float or None
        Range of raw pixel sizes that the model is valid for, µm; None (null) where nobody says.
    trained_on : str
        One line.
    """

    format: Literal[1]
    name: Annotated[str, Meta(pattern=r"^[a-z0-9_]+\Z", max_length=100)]
    version: Line
    description: Line
    licence: Line
    network: PackagedFile
    test_pair: PackagedFile
    card: PackagedFile
    variants: dict[Variant, PackagedFile] = {}
    window_length: Annotated[int, Meta(ge=1, le=15)]
    centre: Annotated[int, Meta(ge=0)]
    scale: Annotated[int, Meta(ge=1, le=8)]
    normalisation: Literal["window-zscore", "window-maximum"]
    training_statistics: _Statistics | None = None
    keeps_mean: bool = False
    min_size: Annotated[int, Meta(ge=1, le=MAX_SIDE)]
    max_size: Annotated[int, Meta(ge=1, le=MAX_SIDE)]
    tiling: Tiling | None = None
    pixel_size_um: tuple[float, float] | None
    trained_on: Line


@dataclass(frozen=True, slots=True)
class TestPair:
    """What an engine must reproduce.

    Attributes
    ----------
    window : ndarray, shape (window_length, H, W), uint16
        Raw frames.
    restored : ndarray, shape (scale·H, scale·W), float32
        What the network gives in fp32, in raw intensities, before the mean is kept.
    truth : ndarray, shape (scale·H, scale·W), float32, or None
        What should have been restored, in raw intensities, where it is known.
    """

    __test__ = False

    window: NDArray[np.uint16]
    restored: NDArray[np.float32]
    truth: NDArray[np.float32] | None


_PIXEL_SIZE_SLACK = 1.15
"""A source's pixels may be so much smaller or larger than those a model is for."""


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A package whose files are all there, match their hashes and fit the manifest.

    Attributes
    ----------
    folder : Path
        Where it lies.
    manifest : Manifest
        What it says.
    network : bytes
        The ONNX file's bytes, the very ones that were hashed and looked through.
    variants : dict
        The same for other arithmetic, by precision.
    pair : TestPair
        What an engine must reproduce.
    card_text : str
        Model card, Markdown.
    """

    folder: Path
    manifest: Manifest
    network: bytes
    variants: Mapping[str, bytes]
    pair: TestPair
    card_text: str

    @property
    def network_sha256(self) -> str:
        """Hash of the network, hexadecimal."""
        return self.manifest.network.sha256

    def network_for(self, precision: str) -> bytes:
        """Choose the ONNX file for an engine's arithmetic.

        Parameters
        ----------
        precision : str
            ``fp32``, ``bf16``, ``fp16`` or ``int8``.

        Returns
        -------
        bytes

        Raises
        ------
        ModelError
            The package holds no network for this precision.
        """
        if precision in ("fp32", "bf16"):
            return self.network
        try:
            return self.variants[precision]
        except KeyError:
            raise ModelError(
                f"model {self.manifest.name} cannot run in {precision}",
                f"its package holds {', '.join(['fp32', *self.variants])} only",
                "choose another --precision, or another model",
            ) from None

    def test_pair(self) -> TestPair:
        """What an engine must reproduce."""
        return self.pair

    def card(self) -> str:
        """Model card (Markdown)."""
        return self.card_text

    def doubt_about_pixel_size(self, pixel_size_um: float | None) -> str | None:
        """Say why frames with such pixels may be restored wrongly.

        Parameters
        ----------
        pixel_size_um : float or None
            Of the raw frames, µm; None where the source does not know.

        Returns
        -------
        str or None
            One line; None if the pixels are within 15 % of what the model is for, or unknown.
        """
        if pixel_size_um is None:
            return None
        name, sizes = self.manifest.name, self.manifest.pixel_size_um
        trust = "do not trust what it restores without a finely sampled scan"
        if sizes is None:
            return f"{name} does not say which pixel sizes it is for: {trust}"
        low, high = sizes
        if low / _PIXEL_SIZE_SLACK <= pixel_size_um <= high * _PIXEL_SIZE_SLACK:
            return None
        return (
            f"frames have pixels of {pixel_size_um:.3g} µm but {name} is for {low:.3g} to "
            f"{high:.3g} µm: {trust}"
        )

    def check_size(self, height: int, width: int) -> None:
        """Refuse frames that the network cannot take.

        Parameters
        ----------
        height, width : int
            Size of the raw frames, pixels.

        Raises
        ------
        ModelError
            Too small or too large.
        """
        low, high = self.manifest.min_size, self.manifest.max_size
        if not (low <= height <= high and low <= width <= high):
            raise ModelError(
                f"model {self.manifest.name} cannot restore frames of {height}×{width} pixels",
                f"it takes {low} to {high} pixels per side",
                "change the region of interest at the source, or choose another model",
            )
