"""Read the files of a package that nobody vouches for: only its own, none too large, no pickle."""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Sequence
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
    "one_line",
    "read_npy",
    "read_npz",
    "refused",
    "zip_holds",
]

_MIB = 1 << 20
LIMITS = {"description": _MIB, "card": 4 * _MIB, "arrays": 256 * _MIB, "network": 1024 * _MIB}
"""Largest files of each kind, bytes. The published network takes 190 MB."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
"""What moves a terminal's cursor, recolours it, or cannot be written at all."""

_DAMAGED_ARCHIVE = (
    *(OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(struct.error, OverflowError),
)
"""RuntimeError: encrypted; NotImplementedError, one of them: compressed in another way."""

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
        one_line(why),
        "do not use this package; get it again from where you trust",
    )


def one_line(text: str) -> str:
    """Make text from a file fit to be shown: on one line, and in command of nothing.

    Parameters
    ----------
    text : str
        Anything.

    Returns
    -------
    str
    """
    return " ".join(_CONTROL.sub(" ", text).split())


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
    """Read from a ``.zip``, in memory: what lies at its top or, where it has one folder, in that.

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
    names = _try_zip(path, zipfile.ZipFile.namelist)
    for name in names:
        if _leads_out(name):
            raise refused(path, f"{name} leads out of the package")
    folder = _only_folder(names)

    def read(name: str, kind: str) -> bytes:
        def content(archive: zipfile.ZipFile) -> bytes:
            _check_size(path, name, archive.getinfo(folder + name).file_size, kind)
            return archive.read(folder + name)

        return _try_zip(path, content)

    return read


def zip_holds(path: Path, name: str) -> bool:
    """Whether this is a ``.zip`` with such a file, at its top or in its only folder.

    Parameters
    ----------
    path : Path
        Anything.
    name : str
        Of the file.

    Returns
    -------
    bool
        Also False where it cannot be read.
    """
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return False
    try:
        names = _try_zip(path, zipfile.ZipFile.namelist)
    except ModelError:
        return False
    return _only_folder(names) + name in names


def _only_folder(names: Sequence[str]) -> str:
    """Find the folder that all files lie in, if it was the folder that was packed."""
    own = [name for name in names if not name.startswith("__MACOSX/")]  # Finder's notes
    first = {name.partition("/")[0] for name in own}
    return f"{first.pop()}/" if len(first) == 1 and all("/" in name for name in own) else ""


def _try_zip(path: Path, look: Callable[[zipfile.ZipFile], _Found]) -> _Found:
    try:
        with zipfile.ZipFile(path) as archive:
            return look(archive)
    except KeyError as error:
        raise refused(path, str(error.args[0])) from error
    except (*_DAMAGED_ARCHIVE, ValueError) as error:
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
    try:
        return _read_npy(content)
    # What a header may say that is no shape and no dtype, NumPy answers in many ways.
    except (OverflowError, MemoryError, RecursionError, tokenize.TokenError) as error:
        raise ValueError(f"its header cannot be read ({error})") from error


def _read_npy(content: bytes) -> NDArray[Any]:
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
    except _DAMAGED_ARCHIVE as error:
        raise ValueError(f"it is no archive that can be read ({error})") from error
