"""Model packages: a folder with a manifest, an ONNX network, a test pair and a model card.

Nothing in a package is executed: the manifest is JSON with a strict schema, the test pair is an
``.npz`` read without pickle, the network is ONNX, and every file's hash is checked first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Literal, cast

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from pssr_live.errors import ModelError

__all__ = [
    "Manifest",
    "ModelPackage",
    "PackagedFile",
    "TestPair",
    "Tiling",
    "Variant",
    "find_model",
    "read_package",
    "shipped_models",
]

ENTRY_POINTS = "pssr_live.models"
MANIFEST = "manifest.json"

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


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
    pixel_size_um : tuple of float
        Range of raw pixel sizes that the model is valid for, µm.
    trained_on : str
        One line.
    """

    format: Literal[1]
    name: Annotated[str, Meta(pattern="^[a-z0-9_]+$")]
    version: str
    description: str
    licence: str
    network: PackagedFile
    test_pair: PackagedFile
    card: PackagedFile
    variants: dict[Variant, PackagedFile] = {}
    window_length: Annotated[int, Meta(ge=1, le=15)]
    centre: Annotated[int, Meta(ge=0)]
    scale: Annotated[int, Meta(ge=1, le=8)]
    normalisation: Literal["window-zscore", "window-maximum"]
    training_statistics: tuple[float, Annotated[float, Meta(gt=0)]] | None = None
    keeps_mean: bool = False
    min_size: Annotated[int, Meta(ge=1)]
    max_size: Annotated[int, Meta(ge=1)]
    tiling: Tiling | None = None
    pixel_size_um: tuple[float, float]
    trained_on: str


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


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A package whose files are all there and match their hashes.

    Attributes
    ----------
    folder : Path
        Where it lies.
    manifest : Manifest
        What it says.
    network : bytes
        The ONNX file's bytes, the very ones that were hashed.
    variants : dict
        The same for other arithmetic, by precision.
    """

    folder: Path
    manifest: Manifest
    network: bytes
    variants: Mapping[str, bytes]

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
        """Read the test pair."""
        with np.load(self.folder / self.manifest.test_pair.file, allow_pickle=False) as pair:
            return TestPair(pair["window"], pair["restored"], pair.get("truth"))

    def card(self) -> str:
        """Read the model card (Markdown)."""
        return (self.folder / self.manifest.card.file).read_text(encoding="utf-8")

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


def read_package(folder: Path) -> ModelPackage:
    """Read and check a model package.

    Parameters
    ----------
    folder : Path
        The folder that holds ``manifest.json``.

    Returns
    -------
    ModelPackage

    Raises
    ------
    ModelError
        Something is missing, has unknown fields, or does not match its hash.
    """
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(
            f"model package {folder}", str(error), f"give a folder with a valid {MANIFEST}"
        ) from error
    if manifest.centre >= manifest.window_length:
        raise ModelError(
            f"model package {folder}",
            f"centre {manifest.centre} lies outside a window of {manifest.window_length}",
            "correct the manifest",
        )
    if (manifest.normalisation == "window-maximum") != (manifest.training_statistics is not None):
        raise ModelError(
            f"model package {folder}",
            "training_statistics belong to the normalisation window-maximum, and only to it",
            "correct the manifest",
        )
    network = _checked(folder, manifest.network)
    variants = {str(name): _checked(folder, file) for name, file in manifest.variants.items()}
    _checked(folder, manifest.test_pair)
    _checked(folder, manifest.card)
    return ModelPackage(folder=folder, manifest=manifest, network=network, variants=variants)


def _checked(folder: Path, packaged: PackagedFile) -> bytes:
    try:
        content = (folder / packaged.file).read_bytes()
    except OSError as error:
        raise ModelError(
            f"model package {folder}", str(error), "restore the file or reinstall the package"
        ) from error
    if hashlib.sha256(content).hexdigest() != packaged.sha256:
        raise ModelError(
            f"model package {folder}",
            f"{packaged.file} does not match its sha256 in the manifest",
            "do not use this package; reinstall it from where you trust",
        )
    return content


def shipped_models() -> Iterator[Path]:
    """Find the folders of all installed model packages, by the entry points ``pssr_live.models``.

    Yields
    ------
    Path
        A folder with a manifest.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        packages = cast(Callable[[], Path], entry.load())()
        yield from sorted(found.parent for found in packages.glob(f"*/{MANIFEST}"))


def find_model(name_or_path: str) -> ModelPackage:
    """Read the package that ``--model`` names.

    Parameters
    ----------
    name_or_path : str
        Name of an installed model, or the path of a package folder.

    Returns
    -------
    ModelPackage

    Raises
    ------
    ModelError
        There is no such model, or its package is damaged.
    """
    folder = Path(name_or_path)
    if (folder / MANIFEST).is_file():
        return read_package(folder)
    installed = {found.name: found for found in shipped_models()}
    if name_or_path in installed:
        return read_package(installed[name_or_path])
    raise ModelError(
        f"model {name_or_path}",
        "no installed model has this name and there is no package folder at this path",
        f"choose one of {', '.join(installed) or '(none installed)'}, or give a folder",
    )
