"""`pssr-live train` makes packages of movies, goes on after Ctrl-C, and fine-tunes."""

from __future__ import annotations

import io
import re
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
from pssr_live_models.crappify import find_crappifier  # noqa: E402
from pssr_live_models.export import Description  # noqa: E402
from pssr_live_models.paper_network import PaperNetwork  # noqa: E402
from pssr_live_models.training import command, losses, packages  # noqa: E402
from pssr_live_models.training.command import Trained, train_model  # noqa: E402
from pssr_live_models.training.display import Display  # noqa: E402
from pssr_live_models.training.loop import Progress  # noqa: E402
from pssr_live_models.training.material import material_of_movies  # noqa: E402
from pssr_live_models.training.packages import write_model  # noqa: E402
from pssr_live_models.training.presets import PRESETS, layer_groups  # noqa: E402
from pssr_live_models.training.previews import preview_steps  # noqa: E402
from pssr_live_models.training.samples import Region  # noqa: E402
from pssr_live_models.training.wanted import Wanted, crops_of, recipe  # noqa: E402
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

        with pytest.raises(PssrLiveError, match=r"other options \(seed: 0, now 1\)"):
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

    def test_names_steps_and_figures_can_be_read_in_eighty_columns(self) -> None:
        shown = io.StringIO()
        name = "2026-03-01_neurons_mito_field_12_63x_42nm_per_pixel_averaged_8_times.ome.tif"
        with Display(Console(file=shown, width=80, force_terminal=True)) as display:
            display.reading(name, 1250, 3000)
            display.refresh()
            display.reading(name, 3000, 3000)
            display.validated(Progress(10_750, 22_000, 0.3, 0.4, 0.4, -0.001))
            display.stepped(10_940, 22_000, 0.25)
            display.refresh()
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue()).splitlines()
        assert any("reading 2026-03-01_neurons" in line and "1250/3000" in line for line in lines)
        told = "10940/22000 loss 0.2500, +0.00 dB over bilinear"
        assert any(told in line and len(line) <= 80 for line in lines)


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
            ({"undersampled": [Path("none.tif")]}, "none.tif: there is no such file"),
            ({"truth": [Path()]}, "there is no such file"),
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
            ({"rate": float("inf")}, "--rate inf"),
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

    @pytest.mark.parametrize("below", [False, True])
    def test_a_file_in_the_place_of_the_folder_is_refused(
        self, movies: Path, tmp_path: Path, below: bool
    ) -> None:
        file = tmp_path / "taken_mf"
        file.write_text("precious")
        out = file / "cells_mf" if below else file
        with pytest.raises(StorageError) as refused:
            train(Wanted(out=out, movies=[movies], **TINY))
        assert "\n" not in str(refused.value)
        assert file.read_text() == "precious"

    def test_a_disk_that_is_full_at_the_end_is_one_line_and_leaves_the_checkpoint(
        self, movies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_what: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(packages, "write_package", full)
        wanted = Wanted(out=tmp_path / "cells_mf", movies=[movies], **{**TINY, "steps": 1})
        with pytest.raises(StorageError, match=r"cells_mf: No space left.*same command"):
            train(wanted)
        assert (wanted.out / "training" / "checkpoint.pt").is_file()

    @pytest.mark.parametrize("frames", [1, 5])
    def test_movies_that_show_nothing_are_refused(self, tmp_path: Path, frames: int) -> None:
        save(tmp_path / "black.ome.tif", np.full((frames, 272, 96), 9, np.uint16), 0.042)
        wanted = Wanted(out=tmp_path / "new_mf", movies=[tmp_path / "black.ome.tif"], **TINY)
        with pytest.raises(UsageError, match=r"black\.ome\.tif.* equally bright everywhere"):
            train(wanted)

    def test_a_model_that_was_not_trained_here_is_not_overwritten(
        self, movies: Path, tmp_path: Path
    ) -> None:
        package = small_package(tmp_path / "precious")
        with pytest.raises(StorageError, match="not trained here"):
            train(Wanted(out=package, movies=[movies], **TINY))


class TestRecipes:
    """What the documentation and the paper's tables say of each preset."""

    def test_lite(self) -> None:
        lite = PRESETS["lite"]
        assert (lite.network, lite.frames, lite.crappifier) == ("light", 5, "physical")
        assert (lite.steps, lite.batch, lite.crops, lite.rate) == (22_000, 8, (48,), 1.5e-3)
        assert lite.loss is losses.share_of_variance
        assert lite.averaging is not None

    def test_paper_has_the_papers_loss_rate_batch_and_epochs(self) -> None:
        paper = PRESETS["paper"]
        assert (paper.network, paper.frames) == ("paper", 5)
        assert paper.crappifier == "paper-fluorescence"
        assert (paper.rate, paper.batch, paper.crops) == (4e-4, 8, (128,))
        assert paper.steps * paper.batch == 50 * 3_000
        assert paper.loss is losses.mean_squared
        assert (paper.augmentation.rotation_deg, paper.averaging) == (10, None)

    def test_em_learns_from_crops_of_growing_size_with_a_cycle_each(
        self, tmp_path: Path, movies: Path
    ) -> None:
        em = PRESETS["em"]
        assert (em.network, em.frames, em.crappifier) == ("paper", 1, "paper-em")
        assert (em.rate, em.crops, em.steps * em.batch) == (4e-4, (32, 64, 128), 80_000)
        assert em.loss is losses.mean_squared
        material = material_of_movies(
            [movies],
            tmp_path,
            find_crappifier(em.crappifier),
            1,
            em.augmentation,
            seed=0,
            on_plane=lambda *_at: None,
        )
        wanted = Wanted(out=tmp_path, movies=[movies], crop=24)
        assert crops_of(em, wanted, material) == (8, 12, 24)

    def test_discriminative_rates_are_slow_in_the_encoder_and_cover_all_layers(self) -> None:
        with torch.device("meta"):
            network = PaperNetwork(1)
        encoder, middle, decoder = layer_groups(network, slow=True)
        assert [factor for _, factor in (encoder, middle, decoder)] == [1 / 10, 1 / 3, 1]
        grouped = [id(one) for group, _ in (encoder, middle, decoder) for one in group]
        assert sorted(grouped) == sorted(id(one) for one in network.parameters())
        assert encoder[0][0] is next(network.parameters())
        assert {factor for _, factor in layer_groups(network, slow=False)} == {1}

    @pytest.mark.parametrize("name", ["lite", "paper", "em"])
    def test_asking_for_the_squared_error_changes_nothing(self, name: Any) -> None:
        asked = {"out": Path("out"), "preset": name}
        assert recipe(Wanted(**asked, loss="mse"), None) == recipe(Wanted(**asked), None)
        preset, _ = recipe(Wanted(**asked, loss="charbonnier"), None)
        assert preset.loss is losses.charbonnier


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
