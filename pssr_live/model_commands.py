"""Subcommands of ``pssr-live`` about models: packages, training, calibration."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.console import Console

from pssr_live.errors import ModelError, UsageError
from pssr_live.progress import progress_bar
from pssr_live.settings import EngineName, Precision

__all__ = ["add_model_commands"]

models = typer.Typer(help="Model packages.", no_args_is_help=True)


def add_model_commands(app: typer.Typer) -> None:
    """Add the subcommands to the root command."""
    models.command("list")(list_models)
    models.command("show")(show_model)
    models.command("verify")(verify_model)
    models.command("import")(import_model)
    models.command("compile")(compile_model)
    app.add_typer(models, name="models")
    app.command()(calibrate)
    app.command()(train)


def list_models() -> None:
    """List the installed models."""
    from pssr_live.model import shipped_models
    from pssr_live.model.catalogue import print_models

    print_models(shipped_models(), Console())


def show_model(
    model: Annotated[str, typer.Argument(help="Name of a model, a package folder, or a .zip.")],
) -> None:
    """Show what a model is for, and its card: what it was trained on and how good it is."""
    from pssr_live.model import find_model
    from pssr_live.model.catalogue import print_model

    print_model(find_model(model), Console())


def verify_model(
    model: Annotated[str, typer.Argument(help="Name of a model, a package folder, or a .zip.")],
    engine: Annotated[EngineName, typer.Option(help="As for a run.")] = "auto",
    precision: Annotated[Precision | None, typer.Option(help="As for a run.")] = None,
) -> None:
    """Check all that is in a package, and run its test pair."""
    from pssr_live.engine.check import check_test_pair
    from pssr_live.model import find_model

    package = find_model(model)
    _, report = check_test_pair(package, engine, precision)
    (check,) = report.checks
    drop = "" if check.drop_db is None else f", {check.drop_db:+.2f} dB further from the truth"
    typer.echo(
        f"{package.manifest.name}: hashes match; test pair on {report}: "
        f"{check.psnr_db:.1f} dB from what is expected ({check.floor_db:.0f} needed){drop}"
    )


def compile_model(
    model: Annotated[str, typer.Argument(help="Name of a model, a package folder, or a .zip.")],
    engine: Annotated[
        Literal["tensorrt-rtx", "tensorrt"],
        typer.Option(
            help="tensorrt-rtx: for any GPU, needs none; tensorrt: for this machine's GPU."
        ),
    ] = "tensorrt-rtx",
    sm: Annotated[
        str | None,
        typer.Option(
            help="Compute capabilities to build for, such as 86,89 (tensorrt-rtx).",
            show_default="this machine's GPU's",
            metavar="SM,…",
        ),
    ] = None,
    size: Annotated[
        str, typer.Option(help="Height and width of the raw frames.", metavar="HxW")
    ] = "440x440",
    precision: Annotated[Literal["fp32", "fp16"], typer.Option(help="As for a run.")] = "fp32",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write to, for another machine.",
            show_default="this user's cache, where runs look",
            metavar="DIR",
        ),
    ] = None,
) -> None:
    """Build a TensorRT engine before a run needs it, also for GPUs that are not here."""
    from pssr_live.engine.trt.compile import compile_engine, parse_size, parse_sm, summary
    from pssr_live.model import find_model

    package = find_model(model)
    with progress_bar() as progress:
        task = progress.add_task("compiling", total=100)
        compiled = compile_engine(
            package,
            engine,
            size=parse_size(size),
            precision=precision,
            sm=() if sm is None else parse_sm(sm),
            out=out,
            on_progress=lambda done: progress.update(task, completed=round(100 * done)),
        )
    typer.echo(summary(compiled))


def import_model(
    file: Annotated[Path, typer.Argument(help="Learner.export() (.pkl) or learn.save() (.pth).")],
    out: Annotated[Path, typer.Option(help="Folder of the package, to be made.", metavar="DIR")],
    name: Annotated[str, typer.Option(help="Name of the model: a-z, 0-9 and _.")],
    pixel_size: Annotated[
        tuple[float, float],
        typer.Option(help="Smallest and largest raw pixel it is valid for, µm.", metavar="MIN MAX"),
    ],
    mean: Annotated[
        float | None,
        typer.Option(help="Mean of the training images (0 to 1), for weights alone (.pth)."),
    ] = None,
    std: Annotated[float | None, typer.Option(help="Their standard deviation.")] = None,
    seam_blur: Annotated[
        bool,
        typer.Option(
            "--seam-blur",
            help="Join tiles of large frames as the published code does: cut, and blur the seams.",
        ),
    ] = False,
) -> None:
    """Make a package of a published PSSR learner; nothing in the file is executed."""
    if (mean is None) != (std is None):
        raise UsageError("--mean and --std", "only one of them is given", "give both or none")
    statistics = None if mean is None or std is None else (mean, std)
    with Console(stderr=True).status("starting") as status:
        package = _tool("import_model")(
            file,
            out,
            name=name,
            pixel_size_um=pixel_size,
            training_statistics=statistics,
            seam_blur=seam_blur,
            on_step=status.update,
        )
    typer.echo(f"{package.manifest.name}: {package.manifest.description}; checked; in {out}")


def calibrate(
    frames: Annotated[
        list[Path], typer.Argument(help="Undersampled movies of one detector and setting.")
    ],
    out: Annotated[
        Path, typer.Option(help="File to make, for `train --crappifier`.", metavar="FILE.toml")
    ],
    high_resolution: Annotated[
        list[Path] | None,
        typer.Option(
            help="Movie or image of the same kind of sample at four times the sampling, for the "
            "blur; can be given more than once.",
            metavar="FILE",
        ),
    ] = None,
    offset: Annotated[
        float | None, typer.Option(help="Counts without light, where they are known.")
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(help="Edge of the frames' pixels, µm; by default what the files say."),
    ] = None,
) -> None:
    """Fit noise, light and blur of undersampled training frames to a microscope's own."""
    with Console(stderr=True).status("reading and fitting"):
        figures = _tool("calibrate")(
            frames,
            out,
            high_resolution=high_resolution or [],
            offset=offset,
            pixel_size_um=pixel_size,
        )
    typer.echo(figures)


def train(
    movies: Annotated[
        list[Path] | None,
        typer.Argument(help="Movies at full sampling (TIFF, OME-TIFF, CZI), or folders of them."),
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the package to make.", metavar="DIR")],
    preset: Annotated[
        Literal["lite", "paper", "em"] | None,
        typer.Option(
            help="Network and recipe: light, the paper's, or the paper's for electron microscopy.",
            show_default="lite, or that of --from",
        ),
    ] = None,
    frames: Annotated[
        Literal["5", "1"] | None,
        typer.Option(help="Frames that the model looks at.", show_default="5; em: 1"),
    ] = None,
    crappifier: Annotated[
        str | None,
        typer.Option(
            help="What undersamples the movies: a name, or a file of `pssr-live calibrate`.",
            show_default="physical; paper and em: the paper's",
            metavar="NAME|FILE",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Model to start from (fine-tuning).", metavar="MODEL"),
    ] = None,
    undersampled: Annotated[
        list[Path] | None,
        typer.Option(
            help="Instead of movies: an undersampled recording …; may be given again.",
            metavar="FILE",
        ),
    ] = None,
    truth: Annotated[
        list[Path] | None,
        typer.Option(help="… and its ground truth, in the same order.", metavar="FILE"),
    ] = None,
    pixel_size: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Smallest and largest raw pixel it is valid for, µm.",
            show_default="what the files say",
            metavar="MIN MAX",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model.", show_default="that of the folder")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the model, for its card.", show_default="not stated")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the optimiser.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples per step.")] = None,
    crop: Annotated[
        int | None, typer.Option(help="Height and width of a sample, scanned pixels.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    loss: Annotated[
        Literal["mse", "charbonnier"] | None,
        typer.Option(help="What is made small.", show_default="mse"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same training.")] = 0,
) -> None:
    """Make a model of your own movies, or fine-tune one at the scope; see docs/models.md.

    Ctrl-C leaves a checkpoint; the same command goes on from there.
    """
    trained = _tool("train")(
        Console(stderr=True),
        out=out,
        movies=tuple(movies or ()),
        undersampled=tuple(undersampled or ()),
        truth=tuple(truth or ()),
        start=start,
        preset=preset,
        frames=None if frames is None else int(frames),
        crappifier=crappifier,
        loss=loss,
        steps=steps,
        batch=batch,
        crop=crop,
        rate=rate,
        seed=seed,
        name=name,
        licence=licence,
        pixel_size_um=pixel_size,
    )
    typer.echo(f"{trained.figures}\n\nmeasured on {trained.split}")
    typer.echo(f"{trained.package.manifest.name}: {trained.package.folder}")
    typer.echo(f"pictures of the way there: {trained.package.folder / 'training' / 'previews'}")


def _tool(name: str) -> Callable[..., Any]:
    """Find a tool that needs more than the daemon."""
    try:
        (entry,) = entry_points(group="pssr_live.tools", name=name)
        return cast(Callable[..., Any], entry.load())
    except (ImportError, ValueError) as error:
        raise ModelError(
            f"the tool {name}", f"it is not installed ({error})", 'pip install "pssr-live[train]"'
        ) from error
