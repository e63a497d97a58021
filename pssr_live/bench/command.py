"""The command ``pssr-live bench``: progress on stderr, tables on stdout, files where asked."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from rich.console import Console

from pssr_live.bench.measure import FULL, QUICK, measure
from pssr_live.bench.paper import paper_tool
from pssr_live.bench.report import check_plot, plot, show
from pssr_live.errors import StorageError
from pssr_live.settings import RunSettings

__all__ = ["run_bench"]

_WIDTH = 110
"""Of the tables where there is no terminal."""


def run_bench(
    settings: RunSettings,
    *,
    quick: bool,
    out: Path | None,
    picture: Path | None,
    paper: bool = False,
) -> None:
    """Measure, print, and keep the result.

    Parameters
    ----------
    settings : RunSettings
        Model, engine and precision; an engine's name limits the bench to that engine.
    quick : bool
        Less than a minute, coarser; the drift of memory is left out.
    out, picture : Path or None
        JSON and plot (PNG or SVG) to make.
    paper : bool
        Time the published network too.

    Raises
    ------
    PssrLiveError
        The model, the engine, the disk; or there is no matplotlib for the plot, or no torch for
        the published network.
    """
    for path in (out, picture):
        if path is not None and not path.parent.is_dir():
            raise StorageError(
                f"{path} cannot be written", f"there is no folder {path.parent}", "make it first"
            )
    if picture is not None:
        check_plot(picture)
    make_paper = paper_tool() if paper else None
    console = Console(stderr=True)
    with console.status("bench") as status:

        def tell(step: str) -> None:
            status.update(step)
            if not console.is_terminal:
                console.print(step)

        report = measure(settings, QUICK if quick else FULL, tell, make_paper)
    try:
        if out is not None:
            out.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
        if picture is not None:
            plot(report, picture)
    except OSError as error:
        raise StorageError(
            f"{error.filename} cannot be written",
            error.strerror or str(error),
            "choose another file",
        ) from error
    show(report, Console() if sys.stdout.isatty() else Console(width=_WIDTH))
