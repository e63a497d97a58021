"""Find and read model packages.

Nothing in a package is executed: the manifest is JSON with a strict schema, the test pair is an
``.npz`` read without pickle, the network is ONNX that is looked through, and every file's hash is
checked first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from pssr_live.errors import ModelError
from pssr_live.model.bioimageio import is_bioimageio, read_bioimageio
from pssr_live.model.bioimageio_description import DESCRIPTIONS
from pssr_live.model.files import (
    check_hash,
    files_of_folder,
    files_of_zip,
    one_line,
    read_npz,
    refused,
    zip_holds,
)
from pssr_live.model.network import check_network
from pssr_live.model.package import Manifest, ModelPackage, PackagedFile, TestPair

__all__ = ["find_model", "read_package", "shipped_models"]

ENTRY_POINTS = "pssr_live.models"
MANIFEST = "manifest.json"
_LONGEST = 200


def read_package(folder: Path) -> ModelPackage:
    """Read and check a model package.

    Parameters
    ----------
    folder : Path
        The folder that holds ``manifest.json``, or a ``.zip`` of it.

    Returns
    -------
    ModelPackage

    Raises
    ------
    ModelError
        Something is missing, too large, lies elsewhere, has unknown fields, does not match its
        hash, or does not fit the manifest.
    """
    read = files_of_zip(folder) if folder.is_file() else files_of_folder(folder)
    try:
        manifest = msgspec.json.decode(read(MANIFEST, "description"), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(
            f"model package {folder}",
            one_line(str(error)),
            f"give a folder with a valid {MANIFEST}",
        ) from error
    wrong = _contradiction(manifest)
    if wrong is not None:
        raise ModelError(f"model package {folder}", wrong, "correct the manifest")

    def checked(packaged: PackagedFile, kind: str) -> bytes:
        content = read(packaged.file, kind)
        check_hash(folder, packaged.file, content, packaged.sha256)
        return content

    network = checked(manifest.network, "network")
    variants = {
        str(precision): checked(file, "network") for precision, file in manifest.variants.items()
    }
    pair = _test_pair(folder, checked(manifest.test_pair, "arrays"), manifest)
    try:
        card = checked(manifest.card, "card").decode("utf-8")
    except UnicodeDecodeError as error:
        raise refused(folder, f"{manifest.card.file} is no text in UTF-8") from error
    for precision, content in {"fp32": network, **variants}.items():
        check_network(content, manifest, precision)
    return ModelPackage(folder, manifest, network, variants, pair, card)


def _contradiction(manifest: Manifest) -> str | None:
    """Find what makes no sense, if anything."""
    if manifest.centre >= manifest.window_length:
        return f"centre {manifest.centre} lies outside a window of {manifest.window_length}"
    if (manifest.normalisation == "window-maximum") != (manifest.training_statistics is not None):
        return "training_statistics belong to the normalisation window-maximum, and only to it"
    if manifest.min_size > manifest.max_size:
        return f"min_size {manifest.min_size} is above max_size {manifest.max_size}"
    tiling = manifest.tiling
    if tiling is not None and tiling.overlap >= tiling.size:
        return f"tiles of {tiling.size} pixels cannot share {tiling.overlap}"
    sizes = manifest.pixel_size_um
    if sizes is not None and not 0 < sizes[0] <= sizes[1]:
        return f"pixel_size_um {sizes[0]} to {sizes[1]} is no range above 0"
    return None


def _test_pair(folder: Path, content: bytes, manifest: Manifest) -> TestPair:
    name = manifest.test_pair.file
    try:
        arrays = read_npz(content)
    except ValueError as error:
        raise refused(folder, f"{name}: {error}") from error
    if not {"window", "restored"} <= arrays.keys() <= {"window", "restored", "truth"}:
        raise refused(folder, f"{name} holds {', '.join(arrays)}, not a window and what it becomes")
    window, restored, truth = arrays["window"], arrays["restored"], arrays.get("truth")
    if window.dtype != np.uint16 or window.ndim != 3 or len(window) != manifest.window_length:
        raise refused(
            folder,
            f"the window in {name} is {window.dtype} {window.shape}, not {manifest.window_length} "
            "frames of uint16",
        )
    low, high = manifest.min_size, manifest.max_size
    if not all(low <= length <= high for length in window.shape[1:]):
        raise refused(
            folder,
            f"the window in {name} has frames of {window.shape[1]}×{window.shape[2]} pixels, not "
            f"{low} to {high} as its manifest says",
        )
    expected = tuple(manifest.scale * length for length in window.shape[1:])
    for what, array in (("restored", restored), ("truth", truth)):
        if array is not None and (array.dtype != np.float32 or array.shape != expected):
            raise refused(
                folder,
                f"{what} in {name} is {array.dtype} {array.shape}, not float32 {expected}",
            )
        if array is not None and not np.isfinite(array).all():
            raise refused(folder, f"{what} in {name} holds values that are no finite numbers")
    return TestPair(window, restored, truth)


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
        Name of an installed model, or the path of a package or of a bioimage.io package: the
        folder, a ``.zip`` of it, or the description in it.

    Returns
    -------
    ModelPackage

    Raises
    ------
    ModelError
        There is no such model, or its package is damaged.
    """
    path = Path(name_or_path)
    try:
        if path.name in (MANIFEST, *DESCRIPTIONS) and path.is_file():
            path = path.parent
        if (path / MANIFEST).is_file() or zip_holds(path, MANIFEST):
            return read_package(path)
        if is_bioimageio(path):
            return read_bioimageio(path)
    except OSError as error:  # a name that cannot be one, or a folder that may not be looked into
        raise ModelError(
            f"model {name_or_path[:_LONGEST]}",
            error.strerror or str(error),
            "give the name of an installed model, or a folder",
        ) from error
    installed = {found.name: found for found in shipped_models()}
    if name_or_path in installed:
        return read_package(installed[name_or_path])
    raise ModelError(
        f"model {name_or_path}",
        "no installed model has this name and there is no model package at this path",
        f"choose one of {', '.join(installed) or '(none installed)'}, or give a folder",
    )
