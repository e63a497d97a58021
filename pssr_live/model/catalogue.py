"""Show models to people: ``pssr-live models list`` and ``show``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pssr_live.errors import ModelError
from pssr_live.model.find import read_package
from pssr_live.model.package import Manifest, ModelPackage

__all__ = ["print_model", "print_models"]

_HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""In a card, what would command a terminal."""

_COLUMNS = ("name", "version", "frames", "scale", "raw pixel, µm", "precisions", "trained on")
_GAP = 2
_NARROWEST = 40
"""Columns that a sentence needs in order to be read."""


def print_models(folders: Iterable[Path], console: Console) -> None:
    """Print a line for each model; one that is damaged gets a line that says so.

    Parameters
    ----------
    folders : iterable of Path
        Packages.
    console : Console
        Where; in a terminal, columns are folded to fit.
    """
    rows = [_row(folder) for folder in folders]
    if not rows:
        console.print("no model is installed", soft_wrap=True)
        return
    _print_list([_COLUMNS, *rows], console)


def print_model(model: ModelPackage, console: Console) -> None:
    """Print what a model is for, and its card.

    Parameters
    ----------
    model : ModelPackage
        The model.
    console : Console
        Where; in a terminal the card is laid out, elsewhere it is the Markdown as it is.
    """
    said = model.manifest
    sizes = f"from {said.min_size} to {said.max_size} pixels per side"
    if said.min_size == said.max_size:
        sizes = f"{said.min_size} pixels per side only"
    if said.tiling is not None:
        sizes += f", in tiles of {said.tiling.size} where larger"
    facts = [
        ("model", f"{said.name} {said.version}: {said.description}"),
        ("frames", f"{_frames(said)}, {sizes}"),
        ("scale", f"{said.scale} restored pixels per raw pixel and axis"),
        ("raw pixel", _micrometres(said)),
        ("precisions", _precisions(said)),
        ("trained on", said.trained_on),
        ("licence", said.licence),
        ("sha256", model.network_sha256),
        ("package", str(model.folder)),
    ]
    _print_columns(facts, console)
    console.print()
    card = _HARMFUL.sub(" ", model.card())
    if console.is_terminal:
        console.print(Markdown(card))
    else:
        console.file.write(card)


def _row(folder: Path) -> tuple[str, ...]:
    try:
        said = read_package(folder).manifest
    except ModelError as error:
        return folder.name, "damaged", "", "", "", "", error.why
    return (
        said.name,
        said.version,
        str(said.window_length),
        f"{said.scale}×",
        _micrometres(said).removesuffix(" µm"),
        _precisions(said),
        said.trained_on,
    )


def _print_list(rows: Sequence[tuple[str, ...]], console: Console) -> None:
    """Print rows whose last cell is long: below the others where they would leave it little room.

    What no terminal shows, but a file or another program takes, stays one line a row.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    taken = sum(widths[:-1]) + _GAP * (len(widths) - 1)
    if not console.is_terminal or console.width - taken >= min(_NARROWEST, widths[-1]):
        _print_columns(rows, console)
        return
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False))
        console.print(Text(line.rstrip()), overflow="fold")
        console.print(Padding(Text(row[-1]), (0, 0, 0, _GAP)), overflow="fold")


def _print_columns(rows: Sequence[tuple[str, ...]], console: Console) -> None:
    if console.is_terminal:
        table = Table.grid(padding=(0, _GAP))
        for column in range(len(rows[0])):
            # Only the last one may be folded: the others are short, or belong together.
            table.add_column(no_wrap=column < len(rows[0]) - 1, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.file.write(f"{line.rstrip()}\n")


def _frames(said: Manifest) -> str:
    if said.window_length == 1:
        return "one at a time"
    return f"{said.window_length} at a time, number {said.centre + 1} is restored"


def _micrometres(said: Manifest) -> str:
    if said.pixel_size_um is None:
        return "not stated"
    low, high = said.pixel_size_um
    return f"{low:g} µm" if low == high else f"{low:g} to {high:g} µm"


def _precisions(said: Manifest) -> str:
    return ", ".join(("fp32", "bf16", *said.variants))
