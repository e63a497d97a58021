"""Subcommands of ``pssr-live``; those about models are in `pssr_live.model_commands`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from pssr_live.errors import StorageError, UsageError, WindowError
from pssr_live.progress import progress_bar
from pssr_live.settings import EngineName, Precision

__all__ = ["add_commands"]

log = typer.Typer(help="Acquisition logs.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Add all subcommands to the root command."""
    app.command()(view)
    app.command()(review)
    app.command()(restore)
    app.command()(recover)
    app.command()(verify)
    app.command()(evaluate)
    app.command()(doctor)
    app.command()(bench)
    log.command("export")(export_log)
    app.add_typer(log, name="log")


def view(
    endpoint: Annotated[
        str | None,
        typer.Argument(help="Where a daemon streams; by default the newest one is found."),
    ] = None,
) -> None:
    """Open the live viewer; it may be closed and reopened without touching the run."""
    raise typer.Exit(_window("view")(endpoint))


def review(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write one self-contained report instead of opening a window.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Look at a run afterwards: raw and restored together, latency and losses."""
    from pssr_live.record.run_folder import RunFolder

    RunFolder.open(run)  # a wrong path is said so, also where no window opens
    if html is not None:
        from pssr_live.report import write_report

        with progress_bar() as progress:
            task = progress.add_task("reading planes", total=None)
            write_report(
                run,
                html,
                on_plane=lambda done, total: progress.update(task, completed=done, total=total),
            )
        typer.echo(f"report written to {html}")
        return
    raise typer.Exit(_window("review")(run))


def restore(
    movie: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Raw stack or any movie that replay takes.")
    ],
    out: Annotated[Path, typer.Option(help="OME-TIFF to make.", metavar="FILE")],
    model: Annotated[str, typer.Option(help="Name of a model or a package folder.")] = "neuron_mf",
    engine: Annotated[EngineName, typer.Option(help="As for a run.")] = "auto",
    precision: Annotated[Precision | None, typer.Option(help="As for a run.")] = None,
) -> None:
    """Restore a recorded movie: the same code, and the same bytes, as live."""
    from pssr_live.offline import restore_file

    with progress_bar() as progress:
        task = progress.add_task("restoring", total=None)
        planes = restore_file(
            movie,
            out,
            model=model,
            engine=engine,
            precision=precision,
            on_plane=lambda done, total: progress.update(task, completed=done, total=total),
        )
    typer.echo(f"{planes} planes restored to {out}")


def recover(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Where the run's model is now; no other is taken.",
            show_default="where it was in the run",
        ),
    ] = None,
) -> None:
    """Finish a run whose daemon was killed; may be interrupted and run again."""
    from pssr_live.record.run_folder import RunFolder
    from pssr_live.recover import recover as recover_run

    with progress_bar() as progress:
        task = progress.add_task("checking planes", total=None)
        done = recover_run(
            RunFolder.open(run),
            lambda what, at, total: progress.update(
                task, description=what, completed=at, total=total
            ),
            model=model,
        )
    if done is None:
        typer.echo(f"nothing to do: {run} ended in order")
    else:
        typer.echo(
            f"{run} is finished: {done.planes} raw and as many restored planes, "
            f"{done.restored} of them restored now; {done.acknowledged} raw frames had no line "
            "in the log"
        )


def verify(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Check every plane of a run against its log."""
    from pssr_live.record.run_folder import RunFolder
    from pssr_live.record.verify import verify as verify_run

    with progress_bar() as progress:
        task = progress.add_task("checking planes", total=None)
        report = verify_run(
            RunFolder.open(run),
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    for note in report.notes:
        typer.echo(f"note: {note}")
    for problem in report.problems:
        typer.echo(f"problem: {problem}")
    typer.echo(f"{report.raw_planes} raw and {report.restored_planes} restored planes checked")
    if report.problems:
        raise StorageError(
            f"run {run}",
            f"{len(report.problems)} planes or files are not as the log says",
            "keep the folder as it is and look at the problems listed",
        )


def evaluate(
    run: Annotated[
        Path | None, typer.Argument(help="Run folder; its stacks, and its truth if it has one.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Ground truth at restored sampling.", metavar="FILE")
    ] = None,
    raw: Annotated[Path | None, typer.Option(help="Raw stack.", metavar="FILE")] = None,
    restored: Annotated[
        list[Path] | None,
        typer.Option(help="Restored stack; once for each to compare.", metavar="FILE"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for evaluation.json and plots.", show_default="RUN/evaluation"),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Evaluate so many, evenly spaced, instead of all.")
    ] = None,
) -> None:
    """Compare restored frames with ground truth, beside bilinear and a five-frame average."""
    from pssr_live.evaluate import MovieFiles, tables
    from pssr_live.evaluate import evaluate as evaluate_movie

    files = MovieFiles.find(run, raw, tuple(restored or ()), truth)
    folder = out or (run or Path()) / "evaluation"
    with progress_bar() as progress:
        task = progress.add_task("evaluating frames", total=None)
        evaluation = evaluate_movie(
            files,
            folder,
            frames=frames,
            on_frame=lambda done, total: progress.update(task, completed=done, total=total),
        )
    typer.echo(tables(evaluation))
    typer.echo(f"\nfigures and plots: {folder}")


def export_log(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    to_csv: Annotated[
        Path | None, typer.Option("--csv", help="One line per frame.", metavar="FILE")
    ] = None,
    to_sqlite: Annotated[
        Path | None, typer.Option("--sqlite", help="Tables frames and events.", metavar="FILE")
    ] = None,
    to_parquet: Annotated[
        Path | None, typer.Option("--parquet", help="One row per frame.", metavar="FILE")
    ] = None,
) -> None:
    """Write a run's log as a table, for other tools."""
    from pssr_live.record.export import export_csv, export_parquet, export_sqlite
    from pssr_live.record.log import iter_log
    from pssr_live.record.run_folder import RunFolder

    wanted = [
        (export, file)
        for export, file in (
            (export_csv, to_csv),
            (export_sqlite, to_sqlite),
            (export_parquet, to_parquet),
        )
        if file is not None
    ]
    if not wanted:
        raise UsageError("log export", "no format is asked for", "add --csv, --sqlite or --parquet")
    folder = RunFolder.open(run)
    for export, file in wanted:
        typer.echo(f"{export(iter_log(folder.log), file)} frames written to {file}")


def doctor() -> None:
    """Say what is installed, what is not, and what that means."""
    from pssr_live.doctor import examine

    for line in examine():
        typer.echo(line)


def bench(
    model: Annotated[str, typer.Option(help="Name of a model or a package folder.")] = "neuron_mf",
    engine: Annotated[
        EngineName,
        typer.Option(help="Only this engine; auto: all side by side."),
    ] = "auto",
    precision: Annotated[
        Precision | None,
        typer.Option(help="For the whole daemon; as for a run."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Less than a minute, coarser, without memory.")
    ] = False,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Time the published network too: one tile, extrapolated; needs the train extra.",
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="JSON to make.", metavar="FILE.json")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Plot to make.", metavar="FILE.png|.svg")
    ] = None,
) -> None:
    """Measure what this machine can do, beside the budget. Let it rest meanwhile."""
    from pssr_live.bench.command import run_bench
    from pssr_live.settings import RunSettings

    settings = RunSettings(model=model, engine=engine, precision=precision)
    run_bench(settings, quick=quick, out=out, picture=plot, paper=paper)


def _window(name: str) -> Callable[[Any], int]:
    """Find a window among the installed ones."""
    try:
        (entry,) = entry_points(group="pssr_live.windows", name=name)
        return cast(Callable[[Any], int], entry.load())
    except (ImportError, ValueError) as error:
        raise WindowError(
            f"the {name} window", f"it is not installed ({error})", 'pip install "pssr-live[gui]"'
        ) from error
