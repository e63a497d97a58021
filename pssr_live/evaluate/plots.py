"""Plots of an evaluation, by matplotlib without a window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pssr_live.evaluate.report import METRICS, Evaluation
from pssr_live.evaluate.stacks import Movie
from pssr_live.frames import Pixels
from pssr_live.metrics import resolution_scaled_error
from pssr_live.metrics.extra import evaluation_libraries
from pssr_live.metrics.images import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_example", "plot_figures"]

COLOURS = ("#999999", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Okabe and Ito's, told apart by colour-blind readers too."""

CROP = 48
"""Edge of the example, raw pixels."""

DPI = 150


def plot_figures(evaluation: Evaluation, out: Path) -> None:
    """Draw ``psnr.png``, PSNR by frame, and ``means.png``, means with standard errors.

    Parameters
    ----------
    evaluation : Evaluation
    out : Path
        Folder.
    """
    figure = _figure(7, 4)
    axes = figure.subplots()
    for number, method in enumerate(evaluation.methods):
        values = [np.nan if value is None else value for value in method.per_frame["psnr_db"]]
        frames = evaluation.frame_indices
        axes.plot(frames, values, ".-", color=_colour(number), label=method.name)
    axes.set(xlabel="frame", ylabel="PSNR, dB", title="Against ground truth, intensities matched")
    axes.locator_params(axis="x", integer=True)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(out / "psnr.png", dpi=DPI)

    figure = _figure(9, 5.5)
    figure.suptitle(f"Mean ± SEM over {len(evaluation.frame_indices)} frames of one movie")
    for axes, metric in zip(figure.subplots(2, 3).flat, METRICS, strict=True):
        for number, method in enumerate(evaluation.methods):
            mean = method.over_frames[metric.key]
            if mean.mean is not None:
                axes.bar(number, mean.mean, yerr=mean.sem, capsize=4, color=_colour(number))
            else:
                axes.text(number, 0, "–", ha="center")
        axes.set_title(f"{metric.heading} ({metric.reading})", fontsize=9)
        axes.set_xticks([])
    for number, method in enumerate(evaluation.methods):
        figure.gca().bar(0, 0, color=_colour(number), label=method.name)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(out / "means.png", dpi=DPI)


def plot_example(movie: Movie, plane: int, out: Path) -> None:
    """Draw ``example.png``, one region by all methods, and ``error_map.png``, where they err.

    The region is the one with most contrast in the truth, all on the truth's grey scale: raw and
    restored intensities are on one scale. Errors are those of the resolution-scaled fit.

    Parameters
    ----------
    movie : Movie
    plane : int
        Position of the frame to show.
    out : Path
        Folder.
    """
    truth = np.asarray(movie.truth(plane), np.float64)
    methods = movie.methods(plane)
    rows, columns = _region(truth, CROP * movie.scale, movie.scale)
    raw = np.repeat(np.repeat(movie.raw(plane), movie.scale, 0), movie.scale, 1)
    panels: dict[str, Pixels] = {"raw": raw}
    for name, image in methods.items():
        panels[name if name in movie.baselines else f"{name} (prediction)"] = image
    panels["truth"] = truth
    cropped = {name: image[rows, columns] for name, image in panels.items()}
    low, high = np.percentile(cropped["truth"], [0.1, 99.9])
    figure = _images(cropped, movie.pixel_size_nm, "gray", float(low), float(high))
    figure.suptitle(f"frame {movie.index(plane)}, one grey scale")
    figure.savefig(out / "example.png", dpi=DPI)

    found = {name: resolution_scaled_error(image, truth) for name, image in methods.items()}
    worst = max(float(np.percentile(of.error_map, 99.9)) for of in found.values())
    maps = {f"{name}\nRSE {of.rse:.1f} DN": of.error_map for name, of in found.items()}
    figure = _images(maps, movie.pixel_size_nm, "inferno", 0, worst)
    bar = figure.colorbar(figure.axes[0].images[0], ax=figure.axes, shrink=0.7)
    bar.set_label("absolute difference from truth, DN")
    figure.suptitle(f"frame {movie.index(plane)}, resolution-scaled error")
    figure.savefig(out / "error_map.png", dpi=DPI)


def _figure(width: float, height: float) -> Figure:
    with evaluation_libraries():
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _images(
    panels: dict[str, Pixels], pixel_size_nm: float | None, colours: str, low: float, high: float
) -> Figure:
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = _figure(3 * columns + 0.4, 3.3 * rows + 0.3)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, (name, image) in zip(grid, panels.items(), strict=False):
        axes.imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axes.set_title(name, fontsize=9)
    if pixel_size_nm is not None:
        _scale_bar(grid[0], pixel_size_nm)
    return figure


def _scale_bar(axes: Axes, pixel_size_nm: float) -> None:
    """Draw a bar of a round length, about a fifth of the image."""
    height, width = axes.images[0].get_size()
    fifth_um = width * pixel_size_nm / 5e3
    power = 10.0 ** np.floor(np.log10(fifth_um))
    length_um = power * max(step for step in (1, 2, 5) if step * power <= fifth_um)
    end = 0.95 * width
    start, y = end - length_um * 1e3 / pixel_size_nm, 0.94 * height
    axes.plot([start, end], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    axes.text((start + end) / 2, y - 0.02 * height, f"{length_um:g} µm", color="white",
              ha="center", va="bottom", fontsize=8)  # fmt: skip


def _region(truth: Floats, edge: int, step: int) -> tuple[slice, slice]:
    """Find the square with most contrast, among those that overlap by half."""
    heights, widths = (
        range(0, max(size - edge, 0) + 1, max(edge // 2 // step * step, 1)) for size in truth.shape
    )
    squares = [
        (slice(row, row + edge), slice(column, column + edge))
        for row in heights
        for column in widths
    ]
    return max(squares, key=lambda square: float(truth[square].std()))
