"""Training learns, goes on where it was interrupted, and what it exports is what it trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import tifffile

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnxruntime  # noqa: E402

from pssr_live.errors import PssrLiveError, UsageError  # noqa: E402
from pssr_live.evaluate.stacks import upsample  # noqa: E402
from pssr_live.model import read_package  # noqa: E402
from pssr_live_models.dataset import Batch, Mixture  # noqa: E402
from pssr_live_models.export import restore  # noqa: E402
from pssr_live_models.movies import FIRST_EVALUATION_SEED  # noqa: E402
from pssr_live_models.networks import LightUNet  # noqa: E402
from pssr_live_models.recordings import RECORDINGS  # noqa: E402
from pssr_live_models.train import (  # noqa: E402
    MODELS,
    Recipe,
    Training,
    main,
    make_movies,
    train,
    training_samples,
    validation_windows,
)
from pssr_live_models.training.loop import rate_at  # noqa: E402

Recorded: TypeAlias = tuple[Mixture, list[Batch]]
TINY = Recipe(movies=8, frames=5, size=48, first=40, steps=8, batch=4, crop=24, rate=3e-3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", [(16, 16), (37, 43), (50, 41), (64, 62)])
def test_an_untrained_network_is_bilinear_interpolation(size: tuple[int, int]) -> None:
    window = np.random.default_rng(0).poisson(50, (5, *size)).astype(np.uint16)
    expected = upsample(window[2], 4)
    np.testing.assert_allclose(restore(LightUNet(), window), expected, atol=1e-3)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in place of the real recordings."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for known in RECORDINGS:
        if known.learnt_from:
            images = rng.poisson(20, (6, 40, 36)).repeat(2, axis=1).repeat(2, axis=2)
            tifffile.imwrite(folder / known.file, images.astype(np.uint16))
    return folder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Movies to train and validate on."""
    folder = tmp_path_factory.mktemp("movies")
    make_movies(folder, TINY)
    return training_samples(folder, TINY, 5, None), validation_windows(TINY, MODELS["neuron_mf"], 1)


def test_training_lowers_the_loss_and_goes_on_after_an_interruption(
    tmp_path: Path, recorded: Recorded
) -> None:
    def training(name: str) -> Training:
        return Training(TINY, 5, *recorded, tmp_path / name / "last.pt")

    whole = training("whole")
    before = whole.validate()
    whole.advance(20)
    progress = whole.advance(20)
    assert progress.step == TINY.first
    assert progress.best < 0.9 * before

    training("interrupted").advance(20)
    resumed = training("interrupted")
    assert resumed.step == 20
    assert resumed.advance(100) == progress
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], value, rtol=0, atol=0)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path, recorded: Recorded) -> None:
    Training(TINY, 5, *recorded, tmp_path / "last.pt").advance(1)
    other = replace(TINY, first=41)
    with pytest.raises(PssrLiveError, match="other options"):
        Training(other, 5, *recorded, tmp_path / "last.pt")


def test_training_refuses_evaluation_seeds(
    tmp_path: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="kept back"):
        make_movies(tmp_path, Recipe(seed=FIRST_EVALUATION_SEED, movies=1))
    options = ["--seed=899999", "--movies=2", "--recordings", str(recordings)]
    assert main(["neuron_mf", "--out", str(tmp_path), *options]) == 2
    assert "kept back" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.npy"))


def test_the_learning_rate_rises_and_falls_once() -> None:
    rates = [rate_at(step, 1000, 1.5e-3) for step in range(1000)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(1.5e-3)
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    assert rates[-1] < 1e-3 * 1.5e-3


@pytest.mark.parametrize(("name", "length"), [("neuron_mf", 5), ("u2os_sf", 1)])
def test_one_command_makes_a_package_that_equals_the_trained_network_at_any_size(
    name: str,
    length: int,
    tmp_path: Path,
    recordings: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pssr_live_models.train.VALIDATION_MOVIES", 2)
    out = tmp_path / name
    movies, sizes = "--movies=4 --frames=5 --size=48", "--batch=1 --crop=12"
    options = f"{movies} {sizes} --first=12 --steps=6 --rate=0.005"
    folders = ["--out", str(out), "--recordings", str(recordings)]
    assert main([name, *folders, *options.split(" ")]) == 0
    shown = capsys.readouterr().err
    assert "both presets: step 12/12" in shown
    assert f"{name.split('_')[0]}: step 6/6" in shown

    package = read_package(out)
    assert (package.manifest.window_length, package.manifest.centre) == (length, length // 2)
    state = torch.load(out / "checkpoints" / "last.pt", weights_only=True)
    network = LightUNet(length, length // 2)
    network.load_state_dict(state["best_weights"])
    pair = package.test_pair()
    window, restored = pair.window, pair.restored
    assert pair.truth is not None
    assert pair.truth.shape == restored.shape
    np.testing.assert_allclose(restore(network, window), restored, rtol=1e-5, atol=0.02)

    exported = onnxruntime.InferenceSession(package.network, providers=["CPUExecutionProvider"])
    for size in ((16, 17), (32, 32), (50, 75), (137, 147)):
        values = np.random.default_rng(1).normal(size=(1, length, *size)).astype(np.float32)
        with torch.inference_mode():
            expected = network.predict(torch.from_numpy(values)).numpy()
        assert np.abs(expected[0, 0] - upsample(values[0, length // 2], 4)).max() > 0.01, (
            "nothing was learnt"
        )
        np.testing.assert_allclose(exported.run(None, {"window": values})[0], expected, atol=1e-4)


def test_models_with_as_many_frames_can_share_the_general_part(
    tmp_path: Path,
    recordings: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pssr_live_models.train.VALIDATION_MOVIES", 2)
    recipe = replace(TINY, movies=4, first=3, steps=2, batch=1, crop=12)
    movies, shared, own = (tmp_path / name for name in ("movies", "shared.pt", "own.pt"))
    train(MODELS["neuron_sf"], tmp_path / "neuron_sf", recipe, movies, shared, recordings)
    recipe = replace(recipe, steps=1)
    both = [
        train(MODELS["u2os_sf"], tmp_path / general.stem, recipe, movies, general, recordings)
        for general in (shared, own)
    ]
    assert capsys.readouterr().err.count("both presets") == 2
    for name, value in both[0].state_dict().items():
        torch.testing.assert_close(both[1].state_dict()[name], value, rtol=0, atol=0)


def test_training_says_which_recording_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--out", str(tmp_path), "--recordings", str(tmp_path)]
    assert main(["neuron_mf", *options]) == 2
    said = capsys.readouterr().err
    assert "BPAE_mito.tif" in said
    assert "--recordings" in said
    assert not list(tmp_path.rglob("*.npy")), "movies were made before the recordings were missed"
