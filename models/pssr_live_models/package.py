"""Write the files of a model package; needs neither torch nor ONNX."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pssr_live.model import Manifest, PackagedFile, read_package

__all__ = ["npz", "replace_card", "write_file", "write_manifest"]


def write_file(path: Path, content: bytes) -> PackagedFile:
    """Write one file of a package.

    Parameters
    ----------
    path : Path
        Where.
    content : bytes
        What.

    Returns
    -------
    PackagedFile
        Its entry in the manifest.
    """
    path.write_bytes(content)
    return PackagedFile(file=path.name, sha256=hashlib.sha256(content).hexdigest())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, indented for people.

    Parameters
    ----------
    folder : Path
        The package.
    manifest : Manifest
        What it says.
    """
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / "manifest.json").write_bytes(encoded + b"\n")


def replace_card(folder: Path, card: str) -> None:
    """Replace a package's card, and its hash in the manifest.

    Parameters
    ----------
    folder : Path
        A package that is in order.
    card : str
        Model card, Markdown.
    """
    manifest = read_package(folder).manifest
    packaged = write_file(folder / manifest.card.file, card.encode())
    write_manifest(folder, msgspec.structs.replace(manifest, card=packaged))


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Pack arrays as `numpy.savez_compressed` does, but with the same bytes at any time of day.

    Parameters
    ----------
    arrays : mapping
        Arrays by name.

    Returns
    -------
    bytes
        The archive.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy")
            archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
