"""The comparison itself: frame by frame, nothing longer than a window in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np

from pssr_live import __version__
from pssr_live.errors import StorageError, UsageError
from pssr_live.evaluate import plots
from pssr_live.evaluate.report import (
    METRICS,
    TEST,
    Evaluation,
    MethodFigures,
    compare_methods,
    mean_of,
)
from pssr_live.evaluate.stacks import Movie, MovieFiles
from pssr_live.frames import Pixels
from pssr_live.metrics import (
    fidelity,
    fourier_ring_correlation,
    resolution_scaled_error,
    signal_and_background,
    signal_to_noise,
)
from pssr_live.metrics.extra import evaluation_libraries
from pssr_live.metrics.fidelity import flat
from pssr_live.metrics.images import Mask

__all__ = ["evaluate"]

Figures: TypeAlias = dict[str, dict[str, list[float | None]]]
"""By method and metric, one value per frame."""

VERSION = 1


def evaluate(
    files: MovieFiles,
    out: Path,
    *,
    frames: int | None = None,
    on_frame: Callable[[int, int], object] = lambda _done, _total: None,
) -> Evaluation:
    """Compare restorations and what costs nothing with ground truth, and write it down.

    Per frame and method: PSNR and SSIM after the published intensity matching, SNR in regions
    taken from the truth, Fourier ring correlation with the truth (threshold ½: the truth has no
    noise of its own), and resolution-scaled error and Pearson correlation with the truth as
    reference. Frames at the ends of the movie and next to a missing frame are left out, because
    not every method has all its frames there, and frames whose truth shows nothing.

    Parameters
    ----------
    files : MovieFiles
        One movie.
    out : Path
        Folder for ``evaluation.json`` and the plots; made if it does not exist, files of an
        earlier evaluation are replaced.
    frames : int, optional
        Evaluate so many at equal distances instead of all that can be; at least 1.
    on_frame : callable
        Called with (done, to do) after each frame.

    Returns
    -------
    Evaluation
        The content of ``evaluation.json``.

    Raises
    ------
    StorageError
        A stack cannot be read, or `out` cannot be written.
    UsageError
        The stacks do not belong together, or the extra ``evaluate`` is not installed.
    """
    with evaluation_libraries():
        pass  # said before the first frame, not after the last
    with Movie(files) as movie:
        with _writing(out):  # refused before the first frame, not after the last
            out.mkdir(parents=True, exist_ok=True)
        planes, figures = _measured(movie, _chosen(movie.planes, frames), on_frame)
        evaluation = _evaluation(files, movie, planes, figures)
        with _writing(out):
            content = msgspec.json.format(msgspec.json.encode(evaluation), indent=2)
            (out / "evaluation.json").write_bytes(content + b"\n")
            plots.plot_figures(evaluation, out)
            plots.plot_example(movie, planes[len(planes) // 2], out)
    return evaluation


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the evaluation cannot be written to {out}",
            error.strerror or str(error),
            "choose a folder that you may write to with --out",
        ) from error


def _chosen(planes: tuple[int, ...], frames: int | None) -> list[int]:
    if frames is None or frames >= len(planes):
        return list(planes)
    at = np.linspace(0, len(planes) - 1, frames) if frames > 1 else [len(planes) // 2]
    return [planes[round(float(position))] for position in at]


def _measured(
    movie: Movie, planes: Sequence[int], on_frame: Callable[[int, int], object]
) -> tuple[list[int], Figures]:
    """Measure the planes whose truth shows something; the others are counted by the movie."""
    names = (*movie.baselines, *movie.restored_names)
    figures: Figures = {name: {m.key: [] for m in METRICS} for name in names}
    kept = []
    for done, plane in enumerate(planes, start=1):
        truth = movie.truth(plane)
        regions = _regions(truth)
        if regions is None:
            movie.leave_out("truth without structure")
        else:
            kept.append(plane)
            for name, found in _frame_figures(movie, plane, truth, regions).items():
                for key, value in found.items():
                    figures[name][key].append(value)
        on_frame(done, len(planes))
    if not kept:
        raise UsageError(
            f"{movie.files.truth} cannot be compared with",
            "it shows nothing in any of the frames that were looked at",
            "give the ground truth of a field with structures",
        )
    return kept, figures


def _regions(truth: Pixels) -> tuple[Mask, Mask] | None:
    """Find where there is something and where nothing; None where the truth is flat."""
    if flat(truth):
        return None
    signal, background = signal_and_background(truth)
    enough = min(np.count_nonzero(signal), np.count_nonzero(background)) > 1
    return (signal, background) if enough else None


def _frame_figures(
    movie: Movie, plane: int, truth: Pixels, regions: tuple[Mask, Mask]
) -> dict[str, dict[str, float | None]]:
    def measured(image: Pixels) -> dict[str, float | None]:
        close = fidelity(image, truth)
        scaled = resolution_scaled_error(image, truth)
        frc_nm = None
        if movie.pixel_size_nm is not None:
            agreement = fourier_ring_correlation(image, truth, movie.pixel_size_nm, threshold="1/2")
            frc_nm = _finite(agreement.resolution_nm)
        return {
            "psnr_db": _finite(close.psnr_db),
            "ssim": _finite(close.ssim),
            "snr": _finite(signal_to_noise(image, *regions)),
            "frc_nm": frc_nm,
            "rse": scaled.rse,
            "rsp": scaled.rsp,
        }

    return {name: measured(image) for name, image in movie.methods(plane).items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _evaluation(
    files: MovieFiles,
    movie: Movie,
    planes: list[int],
    figures: Figures,
) -> Evaluation:
    names = (*movie.baselines, *movie.restored_names)
    return Evaluation(
        version=VERSION,
        made=datetime.now().astimezone(),
        program=f"pssr-live {__version__}",
        raw=str(files.raw),
        truth=str(files.truth),
        restored=[str(path) for path in files.restored],
        pixel_size_nm=movie.pixel_size_nm,
        frames_in_movie=movie.frames,
        frame_indices=[movie.index(plane) for plane in planes],
        frames_left_out=movie.left_out,
        test=TEST,
        methods=[
            MethodFigures(
                name=name,
                baseline=name in movie.baselines,
                per_frame=figures[name],
                over_frames={key: mean_of(values) for key, values in figures[name].items()},
            )
            for name in names
        ],
        comparisons=compare_methods(names, len(movie.baselines), figures),
    )
