"""Plots of a report, by matplotlib without a window, as pictures that stand in the page itself."""

from __future__ import annotations

import base64
import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from pssr_live.evaluate.report import Evaluation
from pssr_live.record.run_folder import LatencyMs
from pssr_live.report.run_log import RunLog
from pssr_live.report.stacks import Intensities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_psnr", "plot_run"]

BLUE, ORANGE, RED, GREY = "#0072B2", "#E69F00", "#D55E00", "#777777"
COLOURS = ("#999999", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Okabe and Ito's, told apart by colour-blind readers too."""

WIDTH = 9.0
"""Inches, of all plots: those under each other have one scale of letters."""
MANY = 2000
"""Longer curves become pixels, so that the page stays small."""
DOTS = 300
"""Shorter curves have a dot for each frame."""
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": "#333333",
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "svg.hashsalt": "pssr-live",
}


def plot_run(log: RunLog, latency: LatencyMs, intensities: Intensities) -> str:
    """Draw latency, what went wrong, and mean intensity, under each other on one time axis.

    Parameters
    ----------
    log : RunLog
        Latencies, gaps and skipped frames.
    latency : LatencyMs
        Median and 99th percentile.
    intensities : Intensities
        Means of planes.

    Returns
    -------
    str
        A data URI.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
        top, lanes, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1.1, 3))
        _latency(top, log, latency)
        _lanes(lanes, log)
        _intensity(bottom, log, intensities)
        bottom.set_xlabel(log.axis(np.zeros(1, np.int64))[1])
        return _uri(figure)


def plot_psnr(evaluation: Evaluation) -> str:
    """Draw PSNR by frame, of all methods.

    Parameters
    ----------
    evaluation : Evaluation
        What was compared.

    Returns
    -------
    str
        A data URI.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        axes = figure.subplots()
        frames = evaluation.frame_indices
        for number, method in enumerate(evaluation.methods):
            found = method.per_frame.get("psnr_db", [])
            values = [np.nan if value is None else value for value in found]
            axes.plot(
                frames[: len(values)],
                values[: len(frames)],
                ".-" if len(frames) <= DOTS else "-",
                color=COLOURS[number % len(COLOURS)],
                label=_plain(method.name),
                linewidth=1,
                rasterized=len(frames) > MANY,
            )
        axes.set(xlabel="frame", ylabel="PSNR, dB")
        axes.set_title("PSNR against ground truth, intensities matched")
        axes.locator_params(axis="x", integer=True)
        if evaluation.methods:
            figure.legend(loc="outside lower left", ncols=3)
        return _uri(figure)


def _latency(axes: Axes, log: RunLog, latency: LatencyMs) -> None:
    axes.set_title("Latency of frames restored live, ms")
    indices, found = log.latencies()
    if not indices.size:
        axes.text(0.5, 0.5, "no frame was restored live", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    times, _ = log.axis(indices)
    gaps = np.flatnonzero(np.diff(indices) > 1) + 1
    axes.plot(
        np.insert(times, gaps, np.nan),  # no line over frames that have no latency
        np.insert(found, gaps, np.nan),
        ".-" if indices.size <= DOTS else "-",
        color=BLUE,
        linewidth=0.8,
        markersize=4,
        rasterized=indices.size > MANY,
    )
    for name, value, dashes in (("p50", latency.p50, "--"), ("p99", latency.p99, ":")):
        if value is not None:
            label = f"{name} {value:.4g} ms"
            axes.axhline(value, color=ORANGE, linestyle=dashes, linewidth=1.4, label=label)
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right", ncols=2, bbox_to_anchor=(1, 1), borderaxespad=0.2)


def _lanes(axes: Axes, log: RunLog) -> None:
    """Mark what went wrong, and when."""
    axes.set_title("Losses and skips")
    axes.grid(visible=False, axis="y")
    skipped, incomplete = np.array(log.skipped, np.int64), log.incomplete()
    many = skipped.size > MANY or incomplete.size > MANY or len(log.lost) > MANY
    for lane, (marked, colour) in enumerate(((skipped, ORANGE), (incomplete, ORANGE))):
        times, _ = log.axis(marked)
        axes.plot(times, np.full(marked.size, lane), "s", color=colour, markersize=4,
                  rasterized=many)  # fmt: skip
    ends = np.array([(gap.first_index, gap.last_index) for gap in log.lost], np.int64)
    first, last = (log.axis(end)[0] for end in ends.reshape(-1, 2).T)
    axes.hlines(np.full(first.size, 2), first, last, color=RED, linewidth=4, rasterized=many)
    axes.plot(first, np.full(first.size, 2), "s", color=RED, markersize=4, rasterized=many)
    axes.set_yticks(range(3), ["skipped live", "window incomplete", "lost at the source"])
    axes.set_ylim(-0.6, 2.6)


def _intensity(axes: Axes, log: RunLog, intensities: Intensities) -> None:
    axes.set_title("Mean intensity of whole frames, DN")
    indices = np.array([log.index(plane) for plane in intensities.planes], np.int64)
    times, _ = log.axis(indices)
    marker = "o" if indices.size <= DOTS else ""
    styles = {"raw": (BLUE, 5.5, "-"), "restored": (RED, 2.5, "--")}
    values = []
    for kind, means in intensities.means.items():
        colour, size, line = styles[kind]
        if means:
            axes.plot(times[: len(means)], means, marker, linestyle=line, color=colour,
                      markersize=size, linewidth=1, label=kind)  # fmt: skip
            values += [value for value in means if np.isfinite(value)]
    if not values:
        axes.text(0.5, 0.5, "no plane can be read", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    # A steady signal must look steady, so the axis spans at least a fifth of it.
    low, high = min(values), max(values)
    spare = max(0.05 * (high - low), 0.1 * abs(high + low) / 2 - (high - low) / 2, 1e-9)
    axes.set_ylim(low - spare, high + spare)
    axes.legend(loc="lower right", ncols=2, bbox_to_anchor=(1, 1), borderaxespad=0.2)


def _plain(name: str) -> str:
    """Keep matplotlib from reading a name as a formula, or as one to be hidden."""
    return name.replace("$", r"\$").lstrip("_")


def _uri(figure: Figure) -> str:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Of a name in a script that the font lacks; the table beside the plot has it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        # No date, so that the same run gives the same plot.
        figure.savefig(file, format="svg", dpi=150, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
