"""Zip archives as PyTorch writes them, or nearly, for tests to read."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from pssr_live_models.fastai_file import read_saved

MEMBERS: dict[str, bytes] = {"version": b"3\n", "byteorder": b"little"}


def write_zip(path: Path, members: Mapping[str, Any], folder: str = "archive") -> Path:
    """Store members in a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(f"{folder}/{name}", content)
    return path


def in_zip_form(legacy: Path, path: Path) -> Path:
    """Save a file of before PyTorch 1.6 as later ones would have, without its classes.

    What differs in the pickle are the persistent ids: a storage has no view, and a module is its
    class alone, without its source text.
    """
    with legacy.open("rb") as file:
        for _ in range(3):
            list(pickletools.genops(file))
        start = file.tell()
        list(pickletools.genops(file))
        size = file.tell() - start
        file.seek(start)
        pickled = file.read(size)
    storages = read_saved(legacy)._storages
    members: dict[str, Any] = {"data.pkl": _without_views_and_sources(pickled), **MEMBERS}
    members |= {f"data/{key}": values.view("u1").data for key, values in storages.items()}
    return write_zip(path, members, path.stem)


def _without_views_and_sources(pickled: bytes) -> bytes:
    starts = [(code.name, arg, place) for code, arg, place in pickletools.genops(pickled)]
    places = [place or 0 for *_, place in starts] + [len(pickled)]
    kept = [pickled[here:end] for here, end in pairwise(places)]
    texts: dict[int, object] = {}
    mark = 0
    for number, (name, arg, _) in enumerate(starts):
        if name == "MARK":
            mark = number
        elif name in ("BINPUT", "LONG_BINPUT") and starts[number - 1][0] == "BINUNICODE":
            texts[arg] = starts[number - 1][1]
        elif name == "BINPERSID":
            first, kind, _ = starts[mark + 1]
            kind = kind if first == "BINUNICODE" else texts[kind]
            drop = list(range(mark, number + 1))
            if kind == "storage":
                drop = [number - 3]
                assert starts[number - 3][0] == "NONE"
            else:
                the_class = mark + (3 if first == "BINUNICODE" else 2)
                drop.remove(the_class)
                if starts[the_class][0] == "GLOBAL":
                    drop.remove(the_class + 1)  # it is remembered
            for unwanted in drop:
                kept[unwanted] = b""
    return b"".join(kept)
