"""Restored movies compared with truth: what a user reads, finds in the folder, and is refused."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy.stats import wilcoxon
from skimage.transform import resize

from pssr_live.errors import StorageError, UsageError
from pssr_live.evaluate import Evaluation, MovieFiles, evaluate, plots, tables
from pssr_live.evaluate.stacks import upsample
from pssr_live.metrics import fidelity
from pssr_live.record import PlaneInfo, StackReader, StackWriter, raw_stack
from pssr_live.source import StreamInfo

from .conftest import CommandLine

Planes = NDArray[Any]

SCALE = 4
FRAMES = 10


def movie(size: int = 24, frames: int = FRAMES) -> tuple[Planes, Planes]:
    """Two moving spots: raw frames with noise, and truth."""
    rows, columns = np.mgrid[: SCALE * size, : SCALE * size]
    truth = np.stack(
        [
            sum(
                2000 * np.exp(-((rows - r) ** 2 + (columns - c - frame) ** 2) / 60)
                for r, c in ((30, 20), (60, 50))
            )
            + 100
            for frame in range(frames)
        ]
    )
    exact = truth.reshape(frames, size, SCALE, size, SCALE).mean(axis=(2, 4))
    noise = np.random.default_rng(1).normal(0, 60, exact.shape)
    return np.clip(exact + noise, 0, None).astype(np.uint16), truth.astype(np.uint16)


def write(
    path: Path,
    planes: Planes,
    *,
    indices: list[int] | None = None,
    edges: tuple[int, ...] = (),
    pixel_size_um: float | None = 0.0425,
) -> Path:
    height, width = planes.shape[1:]
    info = StreamInfo("a test", height, width, planes.dtype, 12, pixel_size_um, 100.0, "mito")
    stack = StackWriter(path, raw_stack(info, datetime.now(UTC), {}))
    for position, plane in enumerate(planes):
        index = indices[position] if indices else position
        stack.put(position, plane, PlaneInfo(index, index * 1000, edge=position in edges))
    stack.close()
    return path


@dataclass(frozen=True)
class Done:
    """An evaluation that several tests look at."""

    files: MovieFiles
    out: Path
    evaluation: Evaluation
    progress: list[tuple[int, int]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> MovieFiles:
    tmp_path = tmp_path_factory.mktemp("movie")
    raw, truth = movie()
    good = truth + np.random.default_rng(2).integers(0, 20, truth.shape).astype(np.uint16)
    bad = truth + np.random.default_rng(3).integers(0, 400, truth.shape).astype(np.uint16)
    return MovieFiles(
        raw=write(tmp_path / "raw.ome.tif", raw, pixel_size_um=0.17),
        restored=(
            write(tmp_path / "good.ome.tif", good),
            write(tmp_path / "bad.ome.tif", bad),
        ),
        truth=write(tmp_path / "truth.ome.tif", truth),
    )


@pytest.fixture(scope="module")
def done(files: MovieFiles, tmp_path_factory: pytest.TempPathFactory) -> Done:
    progress: list[tuple[int, int]] = []
    out = tmp_path_factory.mktemp("evaluated") / "deep" / "out"
    found = evaluate(files, out, on_frame=lambda *counts: progress.append(counts))
    return Done(files, out, found, progress)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of a small evaluation."""
    monkeypatch.setattr(plots, "plot_figures", lambda *_: None)
    monkeypatch.setattr(plots, "plot_example", lambda *_: None)


def test_a_restoration_is_measured_beside_what_costs_nothing(done: Done) -> None:
    found, files = done.evaluation, done.files
    assert [method.name for method in found.methods] == [
        "bilinear", "5-frame average + bilinear", "good", "bad",
    ]  # fmt: skip
    assert [method.baseline for method in found.methods] == [True, True, False, False]
    assert done.progress == [(frame, 6) for frame in range(1, 7)]
    with StackReader(files.raw) as raw, StackReader(files.truth) as truth:
        average = np.mean([raw.read(plane) for plane in (1, 2, 3, 4, 5)], axis=0)
        expected = [
            fidelity(upsample(image, SCALE), truth.read(3)).psnr_db
            for image in (raw.read(3), average)
        ]
    assert [method.per_frame["psnr_db"][1] for method in found.methods[:2]] == expected
    good, bad = found.methods[2:]
    assert good.over_frames["psnr_db"].mean > bad.over_frames["psnr_db"].mean  # type: ignore[operator]
    assert good.over_frames["rse"].mean < 20 / np.sqrt(12)  # type: ignore[operator]
    assert good.over_frames["frc_nm"].mean < bad.over_frames["frc_nm"].mean  # type: ignore[operator]


def test_means_errors_and_the_paired_test_are_those_of_the_figures_per_frame(done: Done) -> None:
    saved = json.loads((done.out / "evaluation.json").read_text())
    values = {method["name"]: method["per_frame"]["psnr_db"] for method in saved["methods"]}
    good = saved["methods"][2]["over_frames"]["psnr_db"]
    assert good["mean"] == pytest.approx(np.mean(values["good"]))
    assert good["sem"] == pytest.approx(np.std(values["good"], ddof=1) / np.sqrt(6))
    pairs = {(c["first"], c["second"]): c for c in saved["comparisons"] if c["metric"] == "psnr_db"}
    assert set(pairs) == {
        ("good", "bilinear"), ("bad", "bilinear"), ("bad", "good"),
        ("good", "5-frame average + bilinear"), ("bad", "5-frame average + bilinear"),
    }  # fmt: skip
    comparison = pairs["good", "bilinear"]
    difference = np.subtract(values["good"], values["bilinear"])
    assert comparison["difference"]["mean"] == pytest.approx(difference.mean())
    assert comparison["p"] == pytest.approx(wilcoxon(values["good"], values["bilinear"]).pvalue)
    assert comparison["p"] == pytest.approx(2 / 2**6)
    assert saved["pixel_size_nm"] == pytest.approx(42.5)
    assert saved["frame_indices"] == [2, 3, 4, 5, 6, 7]


def test_the_table_reads_well(done: Done) -> None:
    lines = tables(done.evaluation).splitlines()
    assert lines[1] == "frames:    6 of the 6 that can be evaluated; mean ± SEM over frames"
    assert lines[2] == "left out:  4 edge of the movie (of 10 frames)"
    assert lines[4].split("  ")[0] == "method"
    assert all(
        unit in lines[4] for unit in ("PSNR, dB", "SSIM", "SNR", "FRC, nm", "RSE, DN", "RSP")
    )
    (good,) = (line for line in lines if line.startswith("good  "))
    assert good.count("±") == 6
    assert any(line.startswith("good − bilinear") and line.endswith("0.031") for line in lines)
    assert "predictions" in lines[-1]
    assert not any("fewer than six" in line for line in lines)


def test_the_plots_are_there(done: Done) -> None:
    assert sorted(path.name for path in done.out.iterdir()) == [
        "error_map.png", "evaluation.json", "example.png", "means.png", "psnr.png",
    ]  # fmt: skip
    for plot in done.out.glob("*.png"):
        content = plot.read_bytes()
        assert content.startswith(b"\x89PNG")
        width = int.from_bytes(content[16:20], "big")
        assert width > 900


@pytest.mark.parametrize(("frames", "indices"), [(1, [5]), (2, [2, 7]), (3, [2, 4, 7])])
def test_fewer_frames_are_taken_at_equal_distances(
    files: MovieFiles, tmp_path: Path, frames: int, indices: list[int], no_plots: None
) -> None:
    found = evaluate(files, tmp_path / "out", frames=frames)
    assert found.frame_indices == indices
    assert f"{frames} of the 6" in tables(found)
    assert "fewer than six frames" in tables(found)


def test_frames_beside_a_gap_are_left_out(tmp_path: Path, no_plots: None) -> None:
    raw, truth = movie(frames=12)
    indices = [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]  # frame 6 was lost
    files = MovieFiles(
        write(tmp_path / "raw.ome.tif", raw, indices=indices),
        (write(tmp_path / "restored.ome.tif", truth, indices=indices, edges=(0, 1, 2, 10, 11)),),
        write(tmp_path / "truth.ome.tif", truth, indices=indices),
    )
    found = evaluate(files, tmp_path / "out")
    assert found.frame_indices == [3, 9, 10]
    assert found.frames_left_out == {"edge of the movie": 5, "a frame missing near by": 4}


def test_a_perfect_restoration_is_no_error(tmp_path: Path, no_plots: None) -> None:
    raw, truth = movie()
    path = write(tmp_path / "truth.ome.tif", truth)
    files = MovieFiles(write(tmp_path / "raw.ome.tif", raw), (path,), path)
    perfect = evaluate(files, tmp_path / "out", frames=2).methods[2]
    assert perfect.per_frame["ssim"] == pytest.approx([1, 1])
    assert perfect.over_frames["rse"].mean == pytest.approx(0, abs=1e-9)
    # Infinite up to rounding, which JSON cannot say.
    assert all(value is None or value > 200 for value in perfect.per_frame["psnr_db"])


def test_movies_of_other_programs_are_evaluated_without_pixel_size(tmp_path: Path) -> None:
    raw, truth = movie()
    for name, planes in (("raw", raw), ("restored", truth + 1), ("truth", truth)):
        tifffile.imwrite(tmp_path / f"{name}.tif", planes)
    files = MovieFiles.find(
        None, tmp_path / "raw.tif", (tmp_path / "restored.tif",), tmp_path / "truth.tif"
    )
    found = evaluate(files, tmp_path / "out", frames=2)
    assert found.frame_indices == [2, 7]
    assert found.methods[0].over_frames["frc_nm"].mean is None
    assert found.methods[2].name == "restored"
    assert " – " in tables(found)


def test_stacks_are_read_plane_by_plane(
    files: MovieFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[str, int]] = []
    read = StackReader.read

    def counted(stack: StackReader, position: int) -> Planes:
        reads.append((stack.path.name, position))
        return read(stack, position)

    monkeypatch.setattr(StackReader, "read", counted)
    evaluate(files, tmp_path / "out")
    # Once each while measuring, in order; the plots look at one frame again.
    truth = [position for name, position in reads if name == "truth.ome.tif"]
    assert truth == [2, 3, 4, 5, 6, 7, 5]
    raw = [position for name, position in reads if name == "raw.ome.tif"]
    assert raw == list(range(FRAMES))


@pytest.mark.parametrize("scale", [2, 4])
def test_bilinear_interpolates_around_pixel_centres(scale: int) -> None:
    image = np.random.default_rng(4).random((12, 17))
    expected = resize(image, (12 * scale, 17 * scale), order=1, mode="edge", anti_aliasing=False)
    assert np.allclose(upsample(image, scale), expected)


def test_what_does_not_belong_together_is_refused(files: MovieFiles, tmp_path: Path) -> None:
    _, truth = movie()
    small = write(tmp_path / "small.ome.tif", truth[:, :48])
    with pytest.raises(UsageError, match=r"small.ome.tif does not fit .*raw.ome.tif"):
        evaluate(MovieFiles(files.raw, (small,), files.truth), tmp_path / "out")
    later = write(tmp_path / "later.ome.tif", truth, indices=list(range(5, 5 + FRAMES)))
    with pytest.raises(UsageError, match="the plane of frame 0 is of frame 5 there"):
        evaluate(MovieFiles(files.raw, (later,), files.truth), tmp_path / "out")
    short = write(tmp_path / "short.ome.tif", truth[:2])
    with pytest.raises(UsageError, match="none of its 10 frames has a whole window"):
        evaluate(MovieFiles(files.raw, (short,), files.truth), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def stack_of_another_program(path: Path, planes: Planes) -> Path:
    tifffile.imwrite(path, planes, photometric="minisblack", metadata={"axes": "TYX"})
    return path


def test_a_truth_of_one_plane_serves_all_frames_of_a_sample_that_stands_still(
    files: MovieFiles, tmp_path: Path, no_plots: None
) -> None:
    _, truth = movie()
    one = stack_of_another_program(tmp_path / "high.ome.tif", truth[4:5])
    found = evaluate(MovieFiles(files.raw, files.restored, one), tmp_path / "out")
    assert found.frame_indices == [2, 3, 4, 5, 6, 7]
    psnr = found.methods[2].per_frame["psnr_db"]
    best = [value or 0 for value in psnr]
    assert best.index(max(best)) == 2  # frame 4: the sample does move here


def test_longer_stacks_that_do_not_say_which_frames_they_show_are_refused(
    files: MovieFiles, tmp_path: Path
) -> None:
    _, truth = movie(frames=12)
    long = stack_of_another_program(tmp_path / "long.ome.tif", truth)
    with pytest.raises(UsageError, match=r"long.ome.tif .*12 planes, more than the 10 raw ones"):
        evaluate(MovieFiles(files.raw, files.restored, long), tmp_path / "out")


def test_a_restored_stack_is_no_truth(files: MovieFiles, tmp_path: Path) -> None:
    _, truth = movie()
    info = StreamInfo("a test", 96, 96, truth.dtype, 16, 0.0425, 100.0, "mito")
    predicted = tmp_path / "predicted.ome.tif"
    stack = StackWriter(
        predicted, replace(raw_stack(info, datetime.now(UTC), {}), name="restored by a_mf 1.0.0")
    )
    for position, plane in enumerate(truth):
        stack.put(position, plane, PlaneInfo(position, position * 1000))
    stack.close()
    with pytest.raises(UsageError, match=r"is no ground truth: a model restored it"):
        evaluate(MovieFiles(files.raw, files.restored, predicted), tmp_path / "out")


def test_frames_whose_truth_shows_nothing_are_left_out_and_counted(
    files: MovieFiles, tmp_path: Path, no_plots: None
) -> None:
    _, truth = movie()
    truth[4] = 100
    gap = write(tmp_path / "gap.ome.tif", truth)
    found = evaluate(MovieFiles(files.raw, files.restored, gap), tmp_path / "out")
    assert found.frame_indices == [2, 3, 5, 6, 7]
    assert found.frames_left_out == {"edge of the movie": 4, "truth without structure": 1}
    assert found.frames_in_movie == FRAMES
    assert "frames:    5 of the 5 that can be evaluated" in tables(found)
    truth[:] = 100
    black = write(tmp_path / "black.ome.tif", truth)
    with pytest.raises(UsageError, match=r"black.ome.tif .* shows nothing in any"):
        evaluate(MovieFiles(files.raw, files.restored, black), tmp_path / "out")


def test_a_restored_frame_without_structure_is_measured_and_drawn(
    files: MovieFiles, tmp_path: Path
) -> None:
    _, truth = movie()
    truth[5] = 0  # the frame that the example shows, too
    flat = write(tmp_path / "flat.ome.tif", truth)
    found = evaluate(MovieFiles(files.raw, (flat,), files.truth), tmp_path / "out")
    assert found.methods[2].per_frame["rsp"][3] == 0
    assert found.methods[2].per_frame["snr"][3] is None
    assert (tmp_path / "out" / "error_map.png").is_file()


def test_pixels_that_are_not_finite_are_said_with_file_and_frame(
    files: MovieFiles, tmp_path: Path
) -> None:
    _, truth = movie()
    broken = truth.astype(np.float32)
    broken[6, 3, 3] = np.nan
    nan = stack_of_another_program(tmp_path / "nan.ome.tif", broken)
    with pytest.raises(UsageError, match=r"nan.ome.tif, frame 6: it has pixels that are not"):
        evaluate(MovieFiles(files.raw, (nan,), files.truth), tmp_path / "out")


def test_missing_stacks_are_said_so(files: MovieFiles, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no ground truth is given; give --truth FILE"):
        MovieFiles.find(None, files.raw, files.restored, None)
    with pytest.raises(UsageError, match="give a run folder, or --raw FILE and --restored FILE"):
        MovieFiles.find(None, None, files.restored, files.truth)
    with pytest.raises(StorageError, match="is not a run folder"):
        MovieFiles.find(tmp_path, None, (), files.truth)


def test_an_output_folder_that_cannot_be_made_is_said_so(files: MovieFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose a folder that you may write to with --out"):
        evaluate(files, tmp_path / "file", on_frame=lambda *_: pytest.fail("measured first"))


def test_the_example_in_the_documentation_runs(files: MovieFiles) -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"run": files.raw.parent}
    exec(code, names)
    assert names["curve"].shape == (FRAMES,)
    assert names["line"].shape == (FRAMES, 19)


def test_the_shipped_model_beats_both_baselines_in_a_simulated_run(
    pssr_live: CommandLine, tmp_path: Path
) -> None:
    ended = pssr_live(
        "--scope", "sim", "--model", "neuron_mf", "--size", "96", "--frames", "8", "--truth",
        "--no-view", "--interval-ms", "50", "--seed", "3",
    )  # fmt: skip
    assert ended.code == 0, ended.stderr
    run = pssr_live.run_folder()
    found = evaluate(MovieFiles.find(run, None, (), None), tmp_path / "out")
    assert found.frame_indices == [2, 3, 4, 5]
    assert found.methods[2].name.startswith("neuron_mf ")
    differences = {
        (comparison.second, comparison.metric): comparison.difference.mean
        for comparison in found.comparisons
    }
    assert len(differences) == 4
    assert all(difference and difference > 0 for difference in differences.values())
