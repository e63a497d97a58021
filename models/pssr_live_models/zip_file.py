"""Read PyTorch's zip archives (1.6 and later) without unpacking or executing anything.

An archive is one folder of members stored as they are: ``data.pkl``, which
`pssr_live_models.inert_pickle` reads, and ``data/<key>``, the values of one storage each. Of a
member nothing is believed but its bytes, which are views of the mapped file; whatever PyTorch
does not write (compression, gaps, two directories) is refused rather than interpreted.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import ModelError
from pssr_live_models.inert_pickle import Interpreter, Source, refuse

__all__ = ["read_zip"]

_LONGEST_DIRECTORY = 1 << 20
"""Bytes, of which the published learner takes 20,000."""

_LARGEST_FILE = 1 << 32
"""Bytes; beyond it zip needs 64-bit fields. The published learner has 0.4 GB."""

_SIZES_AFTER, _UTF_8 = 0x8, 0x800
"""The flags that PyTorch sets: a member's sizes follow it, and names are in UTF-8."""

_LONGEST_DESCRIPTOR = 24
_END = struct.Struct("<4s4H2LH")
_END_64 = 76
_HEADER = struct.Struct("<4sxx2H8x2L2H")


class _Directory(io.FileIO):
    """The file as `zipfile` sees it: a directory whose length lies reserves no memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read what `zipfile` asks for: ends of the file, and the directory in one piece."""
        if size is not None and size > _LONGEST_DIRECTORY:
            raise zipfile.BadZipFile(f"a directory of {size} bytes")
        return super().read(size)


def read_zip(path: Path, content: NDArray[np.uint8]) -> tuple[object, dict[str, NDArray[Any]]]:
    """Read an archive's pickle and storages.

    Parameters
    ----------
    path : Path
        The file.
    content : ndarray
        Its bytes, uint8, shape (size of the file,).

    Returns
    -------
    root : object
        What the pickle leaves, as `Interpreter.run`.
    storages : dict
        Read-only views of the file by the storages' keys, one-dimensional.

    Raises
    ------
    ModelError
        It is damaged, is another kind of archive, or names what no learner needs.
    """
    members = _members(path, content)
    if bytes(members.get("byteorder", np.empty(0, np.uint8))) not in (b"", b"little"):
        refuse(path, "it was not written on a little-endian computer")
    interpreter = Interpreter(path)
    root = interpreter.run(Source(members["data.pkl"]))
    storages = {}
    for key, storage in interpreter.storages.items():
        values = members.get(f"data/{key}")
        if values is None:
            refuse(path, f"it has no values for the tensors of storage {key[:40]!r}")
        if len(values) != storage.count * storage.dtype.itemsize:
            refuse(
                path, f"its storage {key[:40]!r} has {len(values)} bytes, not those of its values"
            )
        storages[key] = values.view(storage.dtype)
    return root, storages


def _members(path: Path, content: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Cut the file into its members, by their names within the archive's folder."""
    if len(content) >= _LARGEST_FILE:
        refuse(path, f"it has {len(content)} bytes, more than any learner")
    try:
        with _Directory(path) as file, zipfile.ZipFile(file) as archive:
            infos, directory = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        refuse(path, f"it is a damaged zip archive, or was cut short ({str(error)[:100]})")
    folder = _folder(path, [info.orig_filename for info in infos])
    end = content[-_END.size :].tobytes()
    size = _END.unpack(end)[5]
    said = (b"PK\5\6", 0, 0, len(infos), len(infos), size, directory, 0)
    after = len(content) - directory - size - _END.size
    if end != _END.pack(*said) or after not in (0, _END_64):
        refuse(path, "its end does not say what its directory says")
    members, place = {}, 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        start = _start(path, content, info, place)
        place = start + info.file_size
        member = content[start:place]
        if place > directory or zlib.crc32(member.data) != info.CRC:
            refuse(path, f"its {info.orig_filename[:60]!r} is damaged")
        members[info.orig_filename.removeprefix(folder)] = member
    if not 0 <= directory - place <= _LONGEST_DESCRIPTOR:
        refuse(path, "it holds bytes that belong to none of its members")
    return members


def _folder(path: Path, names: list[str]) -> str:
    """Find the folder that all is in, with its slash."""
    roots = [name for name in names if name.partition("/")[2] == "data.pkl"]
    if len(roots) != 1:
        refuse(path, f"it is a zip archive, but none of PyTorch (it holds {len(roots)} data.pkl)")
    folder = roots[0].removesuffix("data.pkl")
    for name in names:
        parts = name.split("/")
        if not name.startswith(folder) or not {"", ".", ".."}.isdisjoint(parts) or "\\" in name:
            refuse(path, f"it holds {name[:60]!r}, outside its folder {folder[:60]!r}")
    if len(set(names)) < len(names):
        refuse(path, "it holds two members with one name")
    if any(name.removeprefix(folder).startswith(("constants.pkl", "code/")) for name in names):
        raise ModelError(
            f"weights {path}",
            "it is a TorchScript program, code that would have to be run, and no learner",
            "give the learner that it was made from: Learner.export() or learn.save()",
        )
    return folder


def _start(path: Path, content: NDArray[np.uint8], info: zipfile.ZipInfo, place: int) -> int:
    """Find where a member's bytes begin, once its own header agrees with the directory."""
    name, size, header = info.orig_filename, info.file_size, info.header_offset
    if info.flag_bits & ~(_SIZES_AFTER | _UTF_8):
        refuse(path, f"its {name[:60]!r} is encrypted, or has other flags than PyTorch sets")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != size:
        refuse(path, f"its {name[:60]!r} is compressed, and PyTorch stores a learner as it is")
    if not 0 <= header - place <= (_LONGEST_DESCRIPTOR if place else 0):
        refuse(path, f"its {name[:60]!r} overlaps another part, or does not follow the one before")
    raw = name.encode("utf-8" if info.flag_bits & _UTF_8 else "cp437")
    start = header + _HEADER.size + len(raw)
    said = content[header:start].tobytes()
    *kind, packed, unpacked, length, extra = _HEADER.unpack(
        said[: _HEADER.size].ljust(_HEADER.size, b"\0")
    )
    sizes = [size, 0] if info.flag_bits & _SIZES_AFTER else [size]
    if (
        [*kind, length] != [b"PK\3\4", info.flag_bits, info.compress_type, len(raw)]
        or packed not in sizes
        or unpacked != packed
        or said[_HEADER.size :] != raw
    ):
        refuse(path, f"the header of its {name[:60]!r} does not say what its directory says")
    return start + int(extra)
