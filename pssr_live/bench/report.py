"""The bench for people: the budget, a table, a plot."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pssr_live.bench.results import BenchReport, EngineTiming
from pssr_live.errors import UsageError

__all__ = ["Line", "budget", "check_plot", "plot", "refusals", "show"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the budget.

    Attributes
    ----------
    what : str
        What was measured.
    must : str
        The bound.
    measured : str
        The value; ``not measured`` if so.
    met : bool or None
        None if not measured.
    """

    what: str
    must: str
    measured: str
    met: bool | None


def budget(report: BenchReport) -> list[Line]:
    """Judge a report.

    Parameters
    ----------
    report : BenchReport
        What was measured.

    Returns
    -------
    list of Line
        The lines that do not depend on how fast the machine is come first.
    """
    latency, added, start = report.latency, report.latency.added_ms, report.start_up
    ratio, slope = report.daemon.ratio, report.scaling.slope
    missed = latency.skipped + latency.lost
    return [
        Line("whole daemon's rate / bare engine's", "≥ 0.9", f"{ratio:.2f}", ratio >= 0.9),
        Line("added to the engine's time, p50", "≤ 5 ms", f"{added.p50:.1f} ms", added.p50 <= 5),
        Line("added to the engine's time, p99", "≤ 20 ms", f"{added.p99:.1f} ms", added.p99 <= 20),
        Line(
            f"skipped and lost, {latency.frames} frames every {latency.interval_ms:g} ms",
            "0",
            f"{latency.skipped} and {latency.lost}",
            missed == 0,
        ),
        Line("cost against pixels, log-log slope", "≤ 1.05", f"{slope:.2f}", slope <= 1.05),
        _memory(report),
        Line("import pssr_live", "≤ 0.3 s", f"{start.import_s:.2f} s", start.import_s <= 0.3),
        Line("pssr-live --help", "≤ 0.6 s", f"{start.help_s:.2f} s", start.help_s <= 0.6),
    ]


def _memory(report: BenchReport) -> Line:
    what, must = "memory drift over 10,000 frames", "≤ 1 %"
    if report.memory is None:
        return Line(what, must, "not measured", None)
    drift = report.memory.drift
    return Line(what, must, f"{drift:+.2%}", drift <= 0.01)


def show(report: BenchReport, console: Console) -> None:
    """Print a report.

    Parameters
    ----------
    report : BenchReport
        What was measured.
    console : Console
        Where to.
    """
    machine = report.machine
    load = "" if machine.load is None else f", load {machine.load:.1f} before"
    console.print(
        f"{machine.processor}, {machine.cpus} processors, {machine.system}, Python "
        f"{machine.python}, pssr-live {machine.version}, {machine.started}{load}",
        f"{report.model} {report.model_sha256[:12]}, {report.size}² → {4 * report.size}²: "
        f"{report.gmacs:.1f} GMAC a frame; matrix-multiply peak "
        + ", ".join(f"{rate:.0f} GFLOP/s {name}" for name, rate in report.peak_gflops.items()),
        sep="\n",
        highlight=False,
    )
    console.print(_engine_table(report))
    if report.paper:
        console.print(_paper_table(report))
    console.print(_budget_table(report), _detail_table(report))


def _engine_table(report: BenchReport) -> Table:
    table = Table(title="Bare engine", title_justify="left")
    table.add_column("engine", no_wrap=True)
    for heading in (
        "ms a frame", "p99", "network alone, ms", "frames/s", "Mpixel/s out", "of the peak",
        "dB from fp32",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for one in report.engines:
        share = report.share_of_peak(one)
        table.add_row(
            _name(one),
            f"{one.frame_ms.p50:.1f}",
            f"{one.frame_ms.p99:.1f}",
            f"{one.network_ms.p50:.1f}",
            f"{one.frames_per_s:.1f}",
            f"{one.output_megapixels_per_s:.1f}",
            "–" if share is None else f"{share:.0%}",
            "equal" if one.psnr_db is None else f"{one.psnr_db:.0f}",
        )
    if report.refused:
        table.caption_justify = "left"
        # As it is: rich takes the extra in pip install "pssr-live[torch]" for markup.
        table.caption = Text("\n".join(refusals(report)))
    return table


def _name(one: EngineTiming) -> str:
    tiles = f", {one.tiles} tiles" if one.tiles > 1 else ""
    return f"{one.engine} {one.precision}{tiles}"


def refusals(report: BenchReport) -> list[str]:
    """Say what was refused and why, one line a reason.

    Parameters
    ----------
    report : BenchReport
        What was measured.

    Returns
    -------
    list of str
        In the order in which they were met.
    """
    by_reason: dict[str, dict[str, list[str]]] = {}
    for one in report.refused:
        precisions = by_reason.setdefault(one.why, {}).setdefault(one.engine, [])
        if one.precision not in precisions:
            precisions.append(one.precision)
    lines = []
    for why, met in by_reason.items():
        engines = ", ".join(f"{engine} {'/'.join(each)}" for engine, each in met.items())
        lines.append(f"refused: {engines}: {why}")
    return lines


def _paper_table(report: BenchReport) -> Table:
    table = Table(
        title="The published network (PSSR-MF, random weights), for comparison",
        title_justify="left",
        caption=f"extrapolated: {report.size}² takes so many tiles, as the published code cuts it; "
        "cutting and joining are not counted",
        caption_justify="left",
    )
    table.add_column("engine")
    for heading in ("one tile", "GMAC", "s a tile", "tiles", "s a frame, extrapolated"):
        table.add_column(heading, justify="right")
    for one in report.paper:
        table.add_row(
            f"{one.engine} {one.precision}",
            f"{one.tile}² → {4 * one.tile}²",
            f"{one.gmacs:.0f}",
            f"{min(one.tile_ms) / 1e3:.2f}",
            f"{one.tiles}",
            f"{one.frame_s:.1f}",
        )
    return table


def _budget_table(report: BenchReport) -> Table:
    table = Table(title="Budget", title_justify="left")
    for heading in ("what", "must", "measured", ""):
        table.add_column(heading, justify="left" if heading in ("what", "") else "right")
    words = {True: "met", False: "MISSED", None: ""}
    for line in budget(report):
        table.add_row(line.what, line.must, line.measured, words[line.met])
    return table


def _detail_table(report: BenchReport) -> Table:
    table = Table(title=f"Whole daemon on {report.daemon.engine}", title_justify="left")
    table.add_column("what")
    table.add_column("measured", justify="right")
    for number, one in enumerate(report.daemon.rounds, start=1):
        table.add_row(
            f"round {number}: bare, daemon, bare",
            f"{one.bare_before:.1f}, {one.daemon:.1f}, {one.bare_after:.1f} frames/s",
        )
    latency = report.latency
    for what, value in (
        ("engine's time, p50 and p99", latency.engine_ms),
        ("last needed frame in → published", latency.total_ms),
        ("… less the engine's time", latency.added_ms),
        ("… until restored only", latency.added_to_ready_ms),
        ("published → in a viewer's hands", latency.seen_after_ms),
    ):
        table.add_row(what, f"{value.p50:.1f}, {value.p99:.1f} ms")
    for cost in report.scaling.costs:
        table.add_row(f"{cost.size}² → {4 * cost.size}²", f"{cost.frame_ms:.1f} ms")
    memory = report.memory
    if memory is not None:
        table.add_row(
            f"memory, {memory.frames} frames of {memory.size}² after {memory.warm_up}, "
            f"{memory.skipped} skipped",
            f"{memory.start_mb:.1f} → {memory.end_mb:.1f} MB",
        )
    return table


def check_plot(path: Path) -> None:
    """Refuse a plot that cannot be made, before anything is measured for it.

    Parameters
    ----------
    path : Path
        PNG or SVG to make.

    Raises
    ------
    UsageError
        It is another kind of file, or matplotlib is not installed.
    """
    if path.suffix not in (".png", ".svg"):
        raise UsageError(f"--plot {path}", "plots are PNG or SVG", "end the name in .png or .svg")
    if find_spec("matplotlib") is None:
        raise UsageError(
            f"--plot {path}", "matplotlib is not installed", 'pip install "pssr-live[evaluate]"'
        )


def plot(report: BenchReport, path: Path) -> None:
    """Draw engines, cost against size and memory; needs matplotlib.

    Parameters
    ----------
    report : BenchReport
        What was measured.
    path : Path
        PNG or SVG to make.
    """
    from matplotlib.figure import Figure

    rows = len(report.engines) + 3 * len(report.paper)
    figure = Figure(figsize=(12, max(3.6, 1.2 + 0.3 * rows)), layout="constrained")
    engines, sizes, memory = figure.subplots(1, 3)
    bars = [(_name(one), one.frame_ms.p50) for one in report.engines]
    bars += [
        (f"published network,\n{one.engine} {one.precision}\n(extrapolated)", 1e3 * one.frame_s)
        for one in report.paper
    ]
    drawn = engines.barh([name for name, _ in bars], [ms for _, ms in bars])
    engines.bar_label(drawn, [f"{ms:.1f}" if ms < 10 else f"{ms:,.0f}" for _, ms in bars])
    engines.margins(x=0.25)
    engines.set(xlabel="ms a frame", title=f"{report.size}² → {4 * report.size}²")
    engines.invert_yaxis()
    if report.paper:
        engines.set_xscale("log")
    costs = report.scaling.costs
    sizes.loglog([cost.size**2 for cost in costs], [cost.frame_ms for cost in costs], "o-")
    sizes.set(xlabel="raw pixels", ylabel="ms a frame", title=f"slope {report.scaling.slope:.2f}")
    samples = report.memory.samples if report.memory is not None else []
    memory.plot([at for at, _ in samples], [mb for _, mb in samples])
    memory.set(xlabel="frames", ylabel="resident memory, MB", title="memory")
    memory.set_ylim(bottom=0)
    figure.savefig(path)
