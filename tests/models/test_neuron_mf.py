"""The shipped model does what its card says, in both runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

from pssr_live.model import ModelPackage, find_model

evaluate = pytest.importorskip("pssr_live_models.evaluate", reason="needs scikit-image")


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    return find_model("neuron_mf")


@pytest.fixture(scope="module")
def restorer(package: ModelPackage) -> evaluate.Restorer:
    return evaluate.Restorer(package, threads=1)


def onnxruntime_runs(package: ModelPackage, values: NDArray[np.float32]) -> NDArray[np.float32]:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        package.network, options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["restored"], {"window": values})[0])


def test_openvino_reproduces_the_test_pair(
    package: ModelPackage, restorer: evaluate.Restorer
) -> None:
    pair = package.test_pair()
    window, expected = pair.window, pair.restored
    assert window.dtype == np.uint16
    assert expected.dtype == np.float32
    assert expected.shape == (4 * window.shape[1], 4 * window.shape[2])
    np.testing.assert_allclose(restorer(window), expected, atol=1e-4 * window.std())


def test_onnxruntime_reproduces_the_test_pair(package: ModelPackage) -> None:
    pair = package.test_pair()
    window, expected = pair.window, pair.restored
    values, mean, std = evaluate.normalise(window)
    restored = onnxruntime_runs(package, values[None])[0, 0] * std + mean
    np.testing.assert_allclose(restored, expected, atol=1e-4 * std)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (137, 147), (61, 200)])
def test_both_runtimes_agree_at_any_size(package: ModelPackage, size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=(1, 5, *size)).astype(np.float32)
    core = openvino.Core()
    network = core.read_model(package.network)
    network.reshape(values.shape)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    restored = core.compile_model(network, "CPU", settings)(values)[0]
    assert restored.shape == (1, 1, 4 * size[0], 4 * size[1])
    np.testing.assert_allclose(restored, onnxruntime_runs(package, values), atol=1e-4)


def test_the_network_is_small_and_says_nothing_about_the_machine_it_came_from(
    package: ModelPackage,
) -> None:
    onnx = pytest.importorskip("onnx")
    assert len(package.network) < 5_000_000
    model = onnx.load_from_string(package.network)
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        assert not part.doc_string
        assert not part.metadata_props
    for trace in (b"site-packages", b"Traceback", b'File "'):
        assert trace not in package.network


@pytest.mark.parametrize("preset", ["neuron", "u2os"])
def test_unseen_simulated_movies_are_restored_better_than_by_what_costs_nothing(
    restorer: evaluate.Restorer, preset: str
) -> None:
    methods = {**evaluate.baselines(), "model": restorer}
    photons = evaluate.PHOTON_RATES[preset][0]
    movies = evaluate.simulated_movies(preset, 3, 96, photons)
    found = evaluate.evaluate_movies(movies, methods)
    model = found.pop("model")
    for baseline in found.values():
        assert model.psnr.mean() > baseline.psnr.mean() + 2.0
        assert model.ssim.mean() > baseline.ssim.mean() + 0.05
    assert model.brightness.mean() == pytest.approx(1.0, abs=0.03)


def test_no_structure_is_invented_in_noise(restorer: evaluate.Restorer) -> None:
    methods = {**evaluate.baselines(), "model": restorer}
    shares = evaluate.noise_figures(methods, 3.0, [0, 1])
    assert shares["model"].max() < shares["five-frame average, bilinear"].min()


def test_a_window_without_contrast_stays_what_it_is(restorer: evaluate.Restorer) -> None:
    window = np.full((5, 40, 44), 321, np.uint16)
    assert np.abs(restorer(window) - 321).max() < 0.5


def test_brighter_frames_give_brighter_restored_frames(
    package: ModelPackage, restorer: evaluate.Restorer
) -> None:
    window = package.test_pair().window
    dim = window.astype(np.float64)
    np.testing.assert_allclose(
        restorer(3 * dim + 500), 3 * restorer(dim) + 500, atol=1e-2 * dim.std()
    )


def test_a_restored_frame_has_the_mean_of_its_raw_frame(
    package: ModelPackage, restorer: evaluate.Restorer
) -> None:
    window = package.test_pair().window
    fading = (window * np.linspace(1.2, 0.8, 5)[:, None, None]).astype(np.uint16)
    for frames in (window, fading, fading[:, :50, :41]):
        assert restorer(frames).mean() == pytest.approx(frames[2].mean(), rel=1e-4)


def test_real_recordings_are_restored_better_than_by_interpolation(
    restorer: evaluate.Restorer, shared_data: Path
) -> None:
    methods = {**evaluate.baselines(), "model": restorer}
    movies = evaluate.recorded_movies(shared_data / "BPAE_mito.tif", 1, 10.0)
    found = evaluate.evaluate_movies(movies, methods)
    assert found["model"].psnr.mean() > found["bilinear"].psnr.mean() + 1.0


def test_the_card_says_what_the_model_is(package: ModelPackage) -> None:
    card = package.card()
    assert "{" not in card
    for said in ("simulated", "prediction", "BSD-3-Clause", "seed", "photons", "PSNR"):
        assert said in card
    assert "simulated" in package.manifest.trained_on
