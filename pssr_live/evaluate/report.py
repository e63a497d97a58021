"""What an evaluation says: figures per frame, their means, and paired tests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import numpy as np

from pssr_live.metrics.extra import evaluation_libraries

__all__ = [
    "METRICS",
    "TEST",
    "Comparison",
    "Evaluation",
    "Mean",
    "MethodFigures",
    "compare_methods",
    "mean_of",
    "tables",
]

COMPARED = ("psnr_db", "ssim")

TEST = "Wilcoxon signed-rank test over frames, two-sided"


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is written.

    Attributes
    ----------
    key, label, unit : str
        Its name in ``evaluation.json``, in tables, and its unit; empty for a plain number.
    digits : int
        After the decimal point.
    reading : str
        What a large or small value means.
    """

    key: str
    label: str
    unit: str
    digits: int
    reading: str

    @property
    def heading(self) -> str:
        """Label with unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


METRICS = (
    Metric("psnr_db", "PSNR", "dB", 2, "higher is closer"),
    Metric("ssim", "SSIM", "", 3, "higher is closer"),
    Metric("snr", "SNR", "", 1, "higher is smoother"),
    Metric("frc_nm", "FRC", "nm", 0, "lower is finer"),
    Metric("rse", "RSE", "DN", 1, "lower is closer"),
    Metric("rsp", "RSP", "", 4, "higher is closer"),
)


class Mean(msgspec.Struct, frozen=True):
    """A mean over frames.

    Attributes
    ----------
    mean, sem : float or None
        And its standard error (sample standard deviation / √n); None where a value is missing or
        not finite, the error also for a single frame.
    n : int
        Frames.
    """

    mean: float | None
    sem: float | None
    n: int


class MethodFigures(msgspec.Struct, frozen=True):
    """How one method did.

    Attributes
    ----------
    name : str
        The method.
    baseline : bool
        It needs no model.
    per_frame : mapping
        By metric, one value per evaluated frame; None if not finite or not measurable.
    over_frames : mapping
        By metric, the mean.
    """

    name: str
    baseline: bool
    per_frame: dict[str, list[float | None]]
    over_frames: dict[str, Mean]


class Comparison(msgspec.Struct, frozen=True):
    """Two methods on the same frames.

    Attributes
    ----------
    first, second : str
        The methods; the first is a restoration.
    metric : str
        Key of the metric.
    difference : Mean
        First − second, paired by frame.
    p : float or None
        Of the test; None if it cannot be made. Not corrected for the number of comparisons.
    """

    first: str
    second: str
    metric: str
    difference: Mean
    p: float | None


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``evaluation.json``.

    Attributes
    ----------
    version : int
        Of this format.
    made, program : datetime, str
        When, and by what.
    raw, truth, restored : str, str, list of str
        The files.
    pixel_size_nm : float or None
        Edge of a restored pixel.
    frames_in_movie, frame_indices : int, list of int
        Raw planes, and the source's indices of those evaluated.
    frames_left_out : mapping
        How many planes cannot be evaluated, by reason.
    test : str
        Which test gives p.
    methods, comparisons : list
        Figures.
    """

    version: int
    made: datetime
    program: str
    raw: str
    truth: str
    restored: list[str]
    pixel_size_nm: float | None
    frames_in_movie: int
    frame_indices: list[int]
    frames_left_out: dict[str, int]
    test: str
    methods: list[MethodFigures]
    comparisons: list[Comparison]


def mean_of(values: Sequence[float | None]) -> Mean:
    """Average over frames; see `Mean`."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return Mean(None, None, len(values))
    sem = float(np.std(known, ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else None
    return Mean(float(np.mean(known)), sem, len(known))


def compare_methods(
    names: Sequence[str],
    baselines: int,
    per_frame: Mapping[str, Mapping[str, Sequence[float | None]]],
) -> list[Comparison]:
    """Compare each restoration with each baseline and with each other restoration.

    The test is Wilcoxon's signed-rank test on the paired differences (two-sided, by SciPy): frames
    are paired because all methods see the same ones, and differences of PSNR and SSIM need not be
    normal. Frames of one movie are no independent samples: p tells how consistent a difference is
    within this movie, not whether it holds for other cells.

    Parameters
    ----------
    names : sequence of str
        Methods, baselines first.
    baselines : int
        How many of them are baselines.
    per_frame : mapping
        By method and metric, one value per frame.

    Returns
    -------
    list of Comparison
        For PSNR and SSIM.
    """
    with evaluation_libraries():
        from scipy.stats import wilcoxon
    found = []
    for metric in COMPARED:
        for second, first in itertools.combinations(range(len(names)), 2):
            if first < baselines:
                continue
            both = per_frame[names[first]][metric], per_frame[names[second]][metric]
            differences = [
                None if one is None or other is None else one - other
                for one, other in zip(*both, strict=True)
            ]
            mean = mean_of(differences)
            p = None
            if mean.sem is not None:
                # The test has no answer for differences that are all zero.
                p = float(wilcoxon(differences).pvalue) if any(differences) else 1.0
            found.append(Comparison(names[first], names[second], metric, mean, p))
    return found


def tables(evaluation: Evaluation) -> str:
    """Write an evaluation for a terminal.

    Parameters
    ----------
    evaluation : Evaluation

    Returns
    -------
    str
        What was evaluated, a table of means, and a table of differences.
    """
    frames = len(evaluation.frame_indices)
    left = ", ".join(f"{count} {why}" for why, count in evaluation.frames_left_out.items())
    can_be = evaluation.frames_in_movie - sum(evaluation.frames_left_out.values())
    lines = [
        f"truth:     {evaluation.truth}",
        f"frames:    {frames} of the {can_be} that can be evaluated; mean ± SEM over frames",
        f"left out:  {left or 'none'} (of {evaluation.frames_in_movie} frames)",
        "",
        *_aligned(
            ["method", *(metric.heading for metric in METRICS)],
            [
                [method.name, *(_mean(method.over_frames[m.key], m.digits) for m in METRICS)]
                for method in evaluation.methods
            ],
        ),
        "",
        *_aligned(
            ["difference", "metric", "mean ± SEM", "p"],
            [
                [
                    f"{comparison.first} − {comparison.second}",
                    metric.heading,
                    _mean(comparison.difference, metric.digits, sign="+"),
                    "–" if comparison.p is None else f"{comparison.p:.2g}",
                ]
                for comparison in evaluation.comparisons
                for metric in METRICS
                if metric.key == comparison.metric
            ],
        ),
        "",
        f"p: {evaluation.test}, not corrected for the number of comparisons.",
        *(["With fewer than six frames this test cannot give p < 0.05."] if frames < 6 else []),
        "Frames of one movie are not independent: p holds for this movie, not for other cells.",
        "Restored frames are predictions; a good mean does not make every structure real.",
    ]
    return "\n".join(lines)


def _mean(value: Mean, digits: int, sign: str = "") -> str:
    if value.mean is None:
        return "–"
    error = "" if value.sem is None else f" ± {value.sem:.{digits}f}"
    return f"{value.mean:{sign}.{digits}f}{error}"


def _aligned(heading: list[str], rows: list[list[str]]) -> list[str]:
    """Line up columns; words to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (heading, *rows)) for column in range(len(heading))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heading, *rows)
    ]
    return [lines[0], "-" * max(len(line) for line in lines), *lines[1:]]
