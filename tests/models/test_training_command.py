"""`pssr-live train` makes packages of movies, goes on after Ctrl-C, and fine-tunes."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Picture
from rich.console import Console

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
ndimage = pytest.importorskip("scipy.ndimage")

from pssr_live.engine.restore import Restorer  # noqa: E402
from pssr_live.errors import PssrLiveError, StorageError, UsageError  # noqa: E402
from pssr_live.frames import Frame, Window  # noqa: E402
from pssr_live.model import read_package  # noqa: E402
from pssr_live_models.export import Description  # noqa: E402
from pssr_live_models.paper_network import PaperNetwork  # noqa: E402
from pssr_live_models.train import Recipe  # noqa: E402
from pssr_live_models.training import command  # noqa: E402
from pssr_live_models.training.command import Trained, train_model  # noqa: E402
from pssr_live_models.training.display import Display  # noqa: E402
from pssr_live_models.training.packages import write_model  # noqa: E402
from pssr_live_models.training.presets import PRESETS  # noqa: E402
from pssr_live_models.training.previews import preview_steps  # noqa: E402
from pssr_live_models.training.samples import Region  # noqa: E402
from pssr_live_models.training.wanted import Wanted  # noqa: E402
from pssr_live_models.training.weights import network_of  # noqa: E402
from tests.models.small_packages import package as small_package  # noqa: E402

Image = NDArray[Any]

TINY: dict[str, Any] = {"steps": 8, "batch": 2, "crop": 16, "rate": 3e-3}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def truth_of(seed: int, frames: int, height: int, width: int) -> Image:
    """Draw smooth structures that move slowly, 200 to 1800."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 3)
    field = np.clip(field / field.std(), -2, 2)
    return (1000 + 400 * np.array([np.roll(field, at, 0) for at in range(frames)])).astype(
        np.uint16
    )


def scan(truth: Image, seed: int) -> Image:
    count, height, width = truth.shape
    light = truth.reshape(count, height // 4, 4, width // 4, 4).mean(axis=(2, 4)) / 100
    return (5 * np.random.default_rng(seed).poisson(light) + 100).astype(np.uint16)


def save(file: Path, planes: Image, pixel_um: float) -> None:
    if file.name.endswith(".ome.tif"):
        about = {"axes": "TYX", "PhysicalSizeX": pixel_um, "PhysicalSizeY": pixel_um}
        tifffile.imwrite(file, planes, photometric="minisblack", metadata=about)
    else:
        tifffile.imwrite(
            file,
            planes,
            imagej=True,
            resolution=(1 / pixel_um, 1 / pixel_um),
            metadata={"axes": "TYX", "unit": "um"},
        )


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("movies")
    save(folder / "one.tif", truth_of(0, 5, 96, 104), 0.042)
    save(folder / "two.ome.tif", truth_of(1, 6, 100, 96), 0.042)
    save(folder / "three.ome.tif", truth_of(2, 5, 96, 96), 0.049)
    return folder


def train(wanted: Wanted) -> tuple[Trained, str]:
    shown = io.StringIO()
    trained = train_model(wanted, Console(file=shown, width=200))
    return trained, shown.getvalue()


@pytest.fixture(scope="module")
def whole(movies: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, str]:
    """A training from start to end."""
    out = tmp_path_factory.mktemp("whole") / "cells_mf"
    return train(Wanted(out=out, movies=[movies], licence="CC0-1.0", **TINY))


class TestTraining:
    def test_a_folder_of_movies_becomes_a_package_that_runs(
        self, whole: tuple[Trained, str]
    ) -> None:
        package = read_package(whole[0].package.folder)
        manifest = package.manifest
        assert (manifest.name, manifest.licence) == ("cells_mf", "CC0-1.0")
        assert (manifest.window_length, manifest.centre, manifest.keeps_mean) == (5, 2, True)
        assert manifest.pixel_size_um == (
            pytest.approx(0.168 / 1.1, abs=1e-4),
            pytest.approx(0.196 * 1.1, abs=1e-4),
        )
        frames = scan(truth_of(5, 5, 84, 120), 0)
        window = Window(tuple(Frame(f, i, 0, 0) for i, f in enumerate(frames)), 2, False, True, 0)
        restorer = Restorer(package, "openvino", "fp32", 21, 30)
        restored = restorer.restore(window, live=False)
        restorer.close()
        assert restored.pixels.shape == (84, 120)
        assert restored.pixels.mean() == pytest.approx(frames[2].mean(), rel=0.01)

    def test_the_card_says_first_what_it_was_trained_on_and_gives_figures(
        self, whole: tuple[Trained, str]
    ) -> None:
        trained, _ = whole
        text = trained.package.card()
        assert text.splitlines()[2].startswith("**Trained on 3 recordings (16 frames), undersamp")
        assert "has never seen a frame that was really scanned" in text
        assert "1 of 3 movies, not trained on" in text
        assert trained.figures in text
        assert "| **this model** |" in text
        assert "5-frame average, bilinear" in text
        assert '"rate": 0.003' in text
        assert "$" not in text
        assert str(Path.home()) not in text.replace(" / ", "")

    def test_progress_is_told_in_whole_lines_where_there_is_no_terminal(
        self, whole: tuple[Trained, str]
    ) -> None:
        lines = whole[1].splitlines()
        assert lines[0].startswith("step 0/8, validation ")
        assert "0.00 dB over bilinear" in lines[0]
        assert lines[1].startswith("step 8/8, loss ")

    def test_previews_show_raw_restored_and_truth(self, whole: tuple[Trained, str]) -> None:
        folder = whole[0].package.folder / "training" / "previews"
        assert sorted(file.name for file in folder.iterdir()) == [
            "step_000000.png",
            "step_000008.png",
        ]
        with Picture.open(folder / "step_000008.png") as picture:
            edge = 4 * 24
            assert picture.size == (3 * edge + 8, 3 * edge + 8 + 14)
            shown = np.asarray(picture)
        assert shown.std() > 20
        assert preview_steps(900) == [50, 100, 200, 400, 800, 900]

    def test_ctrl_c_leaves_a_checkpoint_and_the_same_command_goes_on(
        self,
        movies: Path,
        whole: tuple[Trained, str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        wanted = Wanted(out=tmp_path / "cells_mf", movies=[movies], licence="CC0-1.0", **TINY)
        stepped = Display.stepped

        def press(self: Display, step: int, steps: int, loss: float) -> None:
            stepped(self, step, steps, loss)
            if step == 3:
                signal.raise_signal(signal.SIGINT)

        before = signal.getsignal(signal.SIGINT)
        with monkeypatch.context() as pressing:
            pressing.setattr(Display, "stepped", press)
            with pytest.raises(PssrLiveError, match=r"step 3 of 8.*same command goes on"):
                train(wanted)
        assert signal.getsignal(signal.SIGINT) is before
        assert not (wanted.out / "manifest.json").exists()

        with pytest.raises(PssrLiveError, match=r"other options \(seed\)"):
            train(replace(wanted, seed=1))

        trained, shown = train(wanted)
        assert shown.startswith("going on from step 3 of 8")
        assert trained.package.network_sha256 == whole[0].package.network_sha256

    def test_in_a_terminal_there_is_a_bar(self) -> None:
        shown = io.StringIO()
        with Display(Console(file=shown, width=120, force_terminal=True)) as display:
            display.reading("one.tif", 1, 5)
            display.stepped(30, 100, 0.25)
        assert "training" in shown.getvalue()
        assert "30/100" in shown.getvalue()
        assert "loss 0.2500" in shown.getvalue()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of an undersampled recording and of its ground truth."""
    folder = tmp_path_factory.mktemp("pair")
    truth = truth_of(9, 6, 272, 96)
    save(folder / "low.ome.tif", scan(truth, 3), 0.17)
    save(folder / "high.ome.tif", truth * 3, 0.0425)
    return folder / "low.ome.tif", folder / "high.ome.tif"


class TestFineTuning:
    def test_weights_are_read_back_from_a_package(self, whole: tuple[Trained, str]) -> None:
        package = whole[0].package
        network = network_of(package)
        checkpoint = package.folder / "training" / "checkpoint.pt"
        trained = torch.load(checkpoint, weights_only=True)["best_weights"]
        for name, values in network.state_dict().items():
            torch.testing.assert_close(values, trained[name], rtol=0, atol=0)

    def test_a_few_frames_with_their_truth_make_it_better(
        self,
        whole: tuple[Trained, str],
        pair: tuple[Path, Path],
        tmp_path: Path,
    ) -> None:
        wanted = Wanted(
            out=tmp_path / "at_the_scope",
            start=str(whole[0].package.folder),
            undersampled=[pair[0]],
            truth=[pair[1]],
            **{**TINY, "steps": 50, "rate": 2e-3},
        )
        trained, shown = train(wanted)
        losses = [float(line.split("validation ")[1].split()[0]) for line in shown.splitlines()[:2]]
        assert losses[-1] < 0.9 * losses[0]
        psnr = {
            line.split("|")[1].strip(): float(line.split("|")[2].split("±")[0])
            for line in trained.figures.splitlines()[2:]
        }
        assert psnr["**this model**"] > psnr["before this training"] + 0.3
        manifest = trained.package.manifest
        assert manifest.pixel_size_um == (0.17, 0.17)
        assert manifest.trained_on.endswith("with their ground truth, starting from cells_mf")
        assert "lowest quarter of low.ome.tif" in trained.split
        assert "never seen" not in trained.package.card()

    def test_another_network_is_refused(self, tmp_path: Path, pair: tuple[Path, Path]) -> None:
        small_package(tmp_path / "average")
        wanted = Wanted(
            out=tmp_path / "out",
            start=str(tmp_path / "average"),
            undersampled=[pair[0]],
            truth=[pair[1]],
        )
        with pytest.raises(PssrLiveError, match="none of the networks that can be trained"):
            train(wanted)

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"frames": 1}, "looks at 5"),
            ({"preset": "paper"}, "another network"),
            ({"crappifier": "physical"}, "undersampled already"),
            ({"movies": [Path("more.tif")]}, "both movies and recordings"),
            ({"truth": []}, "each recording needs its ground truth"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self,
        whole: tuple[Trained, str],
        pair: tuple[Path, Path],
        tmp_path: Path,
        changes: dict[str, Any],
        why: str,
    ) -> None:
        start = str(whole[0].package.folder)
        wanted = Wanted(out=tmp_path / "out", start=start, undersampled=[pair[0]], truth=[pair[1]])
        with pytest.raises(UsageError, match=why):
            train(replace(wanted, **changes))


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"movies": []}, "no movie is given"),
            ({"crop": 8}, "too small to learn from"),
            ({"crop": 40}, "give --crop 24 or less"),
            ({"steps": 0}, "--steps 0"),
            ({"rate": float("nan")}, "--rate nan"),
            ({"name": "My model"}, "other signs than"),
            ({"out": Path("My model")}, "give --name"),
            ({"crappifier": "none_such"}, "none_such"),
            ({"pixel_size_um": (0.2, 0.1)}, "no range"),
        ],
    )
    def test_what_makes_no_sense_is_refused_with_one_line(
        self,
        movies: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        changes: dict[str, Any],
        why: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        wanted = Wanted(out=Path("new_mf"), movies=[movies], **TINY)
        with pytest.raises(UsageError, match=why) as refused:
            train(replace(wanted, **changes))
        assert "\n" not in str(refused.value)

    def test_a_pixel_size_that_nobody_says_is_asked_for(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "plain.tif", truth_of(0, 5, 256, 96), photometric="minisblack")
        with pytest.raises(UsageError, match="--pixel-size"):
            train(Wanted(out=tmp_path / "new_mf", movies=[tmp_path / "plain.tif"], **TINY))

    def test_a_model_that_was_not_trained_here_is_not_overwritten(
        self, movies: Path, tmp_path: Path
    ) -> None:
        package = small_package(tmp_path / "precious")
        with pytest.raises(StorageError, match="not trained here"):
            train(Wanted(out=package, movies=[movies], **TINY))


def test_lite_is_the_recipe_of_the_shipped_models() -> None:
    shipped, lite = Recipe(), PRESETS["lite"]
    assert (lite.steps, lite.batch, lite.crops) == (shipped.steps, shipped.batch, (shipped.crop,))
    assert lite.rate == shipped.rate


@pytest.mark.slow
class TestPaperNetwork:
    @pytest.mark.parametrize(("preset", "frames"), [("paper", 5), ("em", 1)])
    def test_its_presets_train(
        self,
        movies: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        preset: Any,
        frames: int,
    ) -> None:
        written: dict[str, Any] = {}

        def write(folder: Path, network: Any, description: Any, *_rest: Any) -> Path:
            written.update(network=network, description=description)
            return folder

        monkeypatch.setattr(command, "write_model", write)
        monkeypatch.setitem(
            command.__dict__, "validation_batches", _few(command.validation_batches)
        )
        steps = 2 if preset == "paper" else 3
        wanted = Wanted(out=tmp_path / "large", movies=[movies], preset=preset, crop=16)
        _, shown = train(replace(wanted, steps=steps, batch=2))
        network = written["network"]
        assert isinstance(network, PaperNetwork)
        assert network.window_length == frames
        assert f"step {steps}/{steps}" in shown
        assert "paper-" in written["description"].trained_on

    def test_its_package_runs_and_can_be_trained_on(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        network = PaperNetwork(1)
        with torch.no_grad():
            for name, values in [*network.named_parameters(), *network.named_buffers()]:
                if name.endswith((".gamma", ".bias", "running_mean")):
                    values += 0.1 * torch.rand_like(values)
                if name.endswith("running_var"):
                    values *= 1 + torch.rand_like(values)
        for module in network.modules():
            if hasattr(module, "weight_orig"):  # training finds the largest singular value
                for _ in range(50):
                    module.weight()
        network.eval()
        with torch.inference_mode():
            expected = network(torch.ones(1, 1, 17, 19).cumsum(3))
        region = Region(
            np.random.default_rng(0).integers(0, 900, (1, 21, 17)).astype(np.uint16),
            np.zeros((84, 68), np.float32),
        )
        description = Description("large", "1", "Large", "CC0-1.0", "noise", (0.1, 0.2))
        package = write_model(tmp_path / "large", network, description, region, "# Large\n", None)
        assert package.manifest.tiling is not None
        again = network_of(package).eval()
        with torch.inference_mode():
            restored = again(torch.ones(1, 1, 17, 19).cumsum(3))
        torch.testing.assert_close(restored, expected, rtol=1e-3, atol=1e-3)


def _few(draw: Any) -> Any:
    return lambda scenes, _count, _size, *rest: draw(scenes, 1, 16, *rest)
