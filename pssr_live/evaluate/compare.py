"""The comparison itself: frame by frame, nothing longer than a window in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from pssr_live import __version__
from pssr_live.errors import StorageError
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

__all__ = ["evaluate"]

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
    not every method has all its frames there.

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
        planes = _chosen(movie.planes, frames)
        names = (*movie.baselines, *movie.restored_names)
        figures = {name: {m.key: list[float | None]() for m in METRICS} for name in names}
        for done, plane in enumerate(planes, start=1):
            for name, found in _frame_figures(movie, plane).items():
                for key, value in found.items():
                    figures[name][key].append(value)
            on_frame(done, len(planes))
        evaluation = _evaluation(files, movie, planes, figures)
        try:
            out.mkdir(parents=True, exist_ok=True)
            content = msgspec.json.format(msgspec.json.encode(evaluation), indent=2)
            (out / "evaluation.json").write_bytes(content + b"\n")
            plots.plot_figures(evaluation, out)
            plots.plot_example(movie, planes[len(planes) // 2], out)
        except OSError as error:
            raise StorageError(
                f"the evaluation cannot be written to {out}",
                error.strerror or str(error),
                "choose a folder that you may write to with --out",
            ) from error
    return evaluation


def _chosen(planes: tuple[int, ...], frames: int | None) -> list[int]:
    if frames is None or frames >= len(planes):
        return list(planes)
    at = np.linspace(0, len(planes) - 1, frames) if frames > 1 else [len(planes) // 2]
    return [planes[round(float(position))] for position in at]


def _frame_figures(movie: Movie, plane: int) -> dict[str, dict[str, float | None]]:
    truth = movie.truth(plane)
    regions = signal_and_background(truth)

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
    figures: dict[str, dict[str, list[float | None]]],
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
        frames_in_movie=len(movie.planes) + sum(movie.left_out.values()),
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
