"""The command ``pssr-live``: the root command runs the daemon, the rest are subcommands.

What takes time to import is imported by the command that needs it, so that ``--help`` is fast.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler

from pssr_live import __version__
from pssr_live.commands import add_commands
from pssr_live.errors import PssrLiveError, UsageError
from pssr_live.model_commands import add_model_commands
from pssr_live.settings import EngineName, Precision

__all__ = ["app", "main"]

EXIT_CODES = (
    "Exit codes: 0 done; 1 anything else; 2 usage; 3 source; 4 model; 5 engine; 6 storage; "
    "7 address; 8 window; 130 interrupted."
)
HELP = (
    "Restore undersampled confocal frames while the microscope runs.\n\n"
    "Takes frames scanned with 16 times fewer pixels, restores each from itself and its "
    "neighbours in time to 4 times the sampling, shows both side by side and records both. "
    "Ctrl-C ends a run in order. A restored frame is a prediction of the model, not a "
    "measurement.\n\n"
    "    pssr-live --scope sim --model neuron_mf --frames 100\n\n"
    "    pssr-live --scope mm --mm-config MyMicroscope.cfg --model neuron_mf\n\n"
    "    pssr-live --scope replay --input movie.tif --fast"
)
SOURCE = "What delivers the frames"
SIM = "Simulated scanner (--scope sim)"
REPLAY = "Recorded movie (--scope replay)"
MM = "Micro-Manager (--scope mm)"
ENGINE = "Restoration"
OUT = "Recording and stream"

app = typer.Typer(
    name="pssr-live",
    add_completion=False,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"pssr-live {__version__}")
        raise typer.Exit


@app.callback(help=HELP, epilog=EXIT_CODES)
def run(
    context: typer.Context,
    scope: Annotated[
        str | None,
        typer.Option(
            help="sim: a simulated confocal; mm: Micro-Manager; replay: a recorded movie.",
            metavar="sim|mm|replay",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Stop after so many frames.", rich_help_panel=SOURCE)
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(help="Stop after so many seconds.", metavar="SECONDS", rich_help_panel=SOURCE),
    ] = None,
    interval_ms: Annotated[
        float | None,
        typer.Option(
            help="Time from frame to frame, instead of the preset's or the recording's; "
            "0 with sim: as fast as it goes.",
            metavar="MS",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of an installed model (see `pssr-live models list`) or a package folder.",
            show_default="neuron_mf",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    engine: Annotated[
        EngineName | None,
        typer.Option(
            help="auto takes the first that can and says which; a named one runs or is an error.",
            show_default="auto",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Arithmetic of the engine; the shorter, the faster and the less exact.",
            show_default="fp32",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which each run makes its own.",
            show_default="./runs",
            rich_help_panel=OUT,
        ),
    ] = None,
    view: Annotated[
        bool | None,
        typer.Option(
            "--view/--no-view",
            help="Open the viewer; by default, where it is installed and there is a display.",
            rich_help_panel=OUT,
        ),
    ] = None,
    publish: Annotated[
        str | None,
        typer.Option(
            help="Where to stream frames; on this computer only.",
            metavar="tcp://127.0.0.1:PORT",
            show_default="any free port",
            rich_help_panel=OUT,
        ),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            help="Where to take requests (status, stop).",
            metavar="tcp://127.0.0.1:PORT",
            show_default="any free port",
            rich_help_panel=OUT,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Settings file (TOML); what the command line says wins.",
            metavar="FILE.toml",
            rich_help_panel=OUT,
        ),
    ] = None,
    preset: Annotated[
        Literal["neuron", "u2os"] | None,
        typer.Option(
            help="The paper's settings: axons at 3.7 frames/s, or a U2OS cell every 2 s.",
            show_default="neuron",
            rich_help_panel=SIM,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            help="Height and width of a frame, pixels.",
            show_default="440",
            metavar="PIXELS",
            rich_help_panel=SIM,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Same seed, same movie.", show_default="0", rich_help_panel=SIM),
    ] = None,
    truth: Annotated[
        bool | None,
        typer.Option(
            "--truth", help="Record the ground truth as well (truth.ome.tif).", rich_help_panel=SIM
        ),
    ] = None,
    movie: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="The movie: OME-TIFF, ImageJ TIFF or plain TIFF.",
            metavar="FILE",
            rich_help_panel=REPLAY,
        ),
    ] = None,
    fast: Annotated[
        bool | None,
        typer.Option(
            "--fast",
            help="As fast as it goes, instead of the movie's own pace.",
            rich_help_panel=REPLAY,
        ),
    ] = None,
    mm_config: Annotated[
        str | None,
        typer.Option(
            help="Micro-Manager configuration (.cfg), or demo: the simulated camera that comes "
            "with Micro-Manager.",
            metavar="FILE|demo",
            rich_help_panel=MM,
        ),
    ] = None,
    mm_dir: Annotated[
        str | None,
        typer.Option(
            help="Folder of Micro-Manager's device adapters (its installation folder).",
            metavar="DIR",
            rich_help_panel=MM,
        ),
    ] = None,
    exposure_ms: Annotated[
        float | None,
        typer.Option(
            help="Exposure to set, instead of the configuration's.",
            metavar="MS",
            rich_help_panel=MM,
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and everything the log has.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Run the daemon, unless a subcommand is given."""
    del version  # its callback has ended the program
    _log_to_stderr(debug)
    if context.invoked_subcommand is not None:
        return
    if scope is None and config is None:
        typer.echo(context.get_help())
        raise typer.Exit
    for_replay = scope == "replay"
    overrides = _given(
        scope=scope,
        model=model,
        frames=frames,
        duration_s=duration,
        out=None if out is None else str(out),
        engine=engine,
        precision=precision,
        publish=publish,
        control=control,
        view=view,
        sim=_given(
            preset=preset,
            interval_ms=None if for_replay else interval_ms,
            size=size,
            seed=seed,
            truth=truth,
        ),
        replay=_given(input=movie, fast=fast, interval_ms=interval_ms if for_replay else None),
        mm=_given(config=mm_config, adapter_dir=mm_dir, exposure_ms=exposure_ms),
    )
    _refuse_stray(scope, overrides)
    from pssr_live.daemon import run_daemon
    from pssr_live.settings import load_settings

    run_daemon(load_settings(config, overrides), Console(stderr=True))


def main() -> None:
    """Run the command line; an error is one line on stderr and an exit code."""
    try:
        app()
    except PssrLiveError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"pssr-live: {error}", err=True)
        sys.exit(error.exit_code)


def _given(**options: Any) -> dict[str, Any]:
    """Keep the options that were given."""
    return {name: value for name, value in options.items() if value is not None and value != {}}


def _refuse_stray(scope: str | None, overrides: dict[str, Any]) -> None:
    """Refuse options of another source rather than ignore them."""
    stray = [name for name in ("sim", "replay", "mm") if name in overrides and name != scope]
    if scope is not None and stray:
        options = ", ".join(f"--{option.replace('_', '-')}" for option in overrides[stray[0]])
        raise UsageError(
            f"{options} with --scope {scope}",
            f"that belongs to --scope {stray[0]}",
            "leave it out or choose the other source",
        )


def _log_to_stderr(debug: bool) -> None:
    console = Console(stderr=True)
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_time=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:  # whole lines, for files and other programs
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("pssr_live").setLevel(logging.DEBUG if debug else logging.INFO)


add_commands(app)
add_model_commands(app)
