"""Read the files of a package that nobody vouches for: only its own, none too large, no pickle."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import ModelError

__all__ = [
    "LIMITS",
    "ReadFile",
    "check_hash",
    "files_of_folder",
    "files_of_zip",
    "read_npy",
    "read_npz",
    "refused",
]

_MIB = 1 << 20
LIMITS = {"description": _MIB, "card": 4 * _MIB, "arrays": 256 * _MIB, "network": 1024 * _MIB}
"""Largest files of each kind, bytes. The published network takes 190 MB."""

_Found = TypeVar("_Found")

ReadFile = Callable[[str, str], bytes]
"""Gives the content of a file, by its name in the package and its kind (a key of `LIMITS`)."""


def refused(package: Path, why: str) -> ModelError:
    """Make the error that says why a package is not used.

    Parameters
    ----------
    package : Path
        Folder or file.
    why : str
        One line.

    Returns
    -------
    ModelError
    """
    return ModelError(
        f"model package {package}",
        why,
        "do not use this package; get it again from where you trust",
    )


def check_hash(package: Path, name: str, content: bytes, sha256: str) -> None:
    """Refuse a file that is not the one its package was made with.

    Parameters
    ----------
    package : Path
        Folder or file.
    name : str
        Of the file.
    content : bytes
        Of the file.
    sha256 : str
        What the package says, hexadecimal.

    Raises
    ------
    ModelError
    """
    if hashlib.sha256(content).hexdigest() != sha256:
        raise refused(package, f"{name} does not match its sha256")


def files_of_folder(folder: Path) -> ReadFile:
    """Read from a folder.

    Parameters
    ----------
    folder : Path
        The package; may itself be a link.

    Returns
    -------
    callable
        Raises ModelError where a file is missing, too large, or lies elsewhere.
    """

    def read(name: str, kind: str) -> bytes:
        try:
            path = (folder / name).resolve(strict=True)
            if not path.is_relative_to(folder.resolve()):
                raise refused(folder, f"{name} leads out of the package")
            if not path.is_file():
                raise refused(folder, f"{name} is no ordinary file")
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                _check_size(folder, name, size, kind)
                return file.read(size)
        except (OSError, RuntimeError) as error:  # RuntimeError: links that go round in circles
            raise ModelError(
                f"model package {folder}", str(error), "restore the file or reinstall the package"
            ) from error

    return read


def files_of_zip(path: Path) -> ReadFile:
    """Read from a ``.zip``, in memory.

    Parameters
    ----------
    path : Path
        The package.

    Returns
    -------
    callable
        Raises ModelError where a file is missing, too large or damaged.

    Raises
    ------
    ModelError
        It is no archive, or a name in it leads out of it.
    """
    for name in _try_zip(path, zipfile.ZipFile.namelist):
        if _leads_out(name):
            raise refused(path, f"{name} leads out of the package")

    def read(name: str, kind: str) -> bytes:
        def content(archive: zipfile.ZipFile) -> bytes:
            _check_size(path, name, archive.getinfo(name).file_size, kind)
            return archive.read(name)

        return _try_zip(path, content)

    return read


def _try_zip(path: Path, look: Callable[[zipfile.ZipFile], _Found]) -> _Found:
    try:
        with zipfile.ZipFile(path) as archive:
            return look(archive)
    except KeyError as error:
        raise refused(path, str(error.args[0])) from error
    # RuntimeError: encrypted; NotImplementedError, one of them: compressed in another way.
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise refused(path, f"it is no archive that can be read ({error})") from error


def _leads_out(name: str) -> bool:
    """Whether a name is more than a path below the package, on any system."""
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    return ".." in parts or name.startswith(("/", "\\")) or bool(PureWindowsPath(name).drive)


def _check_size(package: Path, name: str, size: int, kind: str) -> None:
    if size > LIMITS[kind]:
        raise refused(
            package, f"{name} takes {size / _MIB:.0f} MiB, more than {LIMITS[kind] // _MIB}"
        )


def read_npy(content: bytes) -> NDArray[Any]:
    """Read an array as `numpy.save` writes it.

    Parameters
    ----------
    content : bytes
        Of the file.

    Returns
    -------
    ndarray
        Read-only.

    Raises
    ------
    ValueError
        It is no such file, is cut short, or holds Python objects.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"arrays of format {version} are not read")
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    # Before anything of the size that the header claims is made.
    if any(length < 0 for length in shape) or len(content) - file.tell() != (
        dtype.itemsize * int(np.prod(shape, dtype=object))
    ):
        raise ValueError(f"it does not hold the {shape} values that it claims")
    file.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    array.setflags(write=False)
    return array


def read_npz(content: bytes) -> dict[str, NDArray[Any]]:
    """Read arrays as `numpy.savez` writes them.

    Parameters
    ----------
    content : bytes
        Of the file.

    Returns
    -------
    dict
        Read-only arrays by name.

    Raises
    ------
    ValueError
        As `read_npy`; or it is no archive, or unpacks to more than is allowed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > LIMITS["arrays"]:
                raise ValueError(f"it unpacks to more than {LIMITS['arrays'] // _MIB} MiB")
            return {
                member.filename.removesuffix(".npy"): read_npy(archive.read(member))
                for member in members
            }
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"it is no archive that can be read ({error})") from error
