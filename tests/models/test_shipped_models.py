"""The shipped models do what their cards say, in both runtimes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pssr_live.engine.check import check_test_pair
from pssr_live.engine.openvino_core import openvino_core
from pssr_live.model import ModelPackage, find_model, shipped_models
from pssr_live.settings import Preset
from pssr_live_models.movies import Movie

evaluate = pytest.importorskip("pssr_live_models.evaluate", reason="needs scikit-image")


NAMES = ("neuron_mf", "neuron_sf", "u2os_mf", "u2os_sf")


@pytest.fixture(scope="module", params=NAMES)
def package(request: pytest.FixtureRequest) -> ModelPackage:
    return find_model(request.param)


@pytest.fixture(scope="module")
def restorer(package: ModelPackage) -> evaluate.Restorer:
    return evaluate.Restorer(package)


@pytest.fixture(scope="module")
def movies() -> dict[Preset, list[Movie]]:
    """Unseen ones, the presets' own photon rates."""
    return {
        preset: list(evaluate.simulated_movies(preset, 3, 96, evaluate.PHOTON_RATES[preset][0]))
        for preset in evaluate.PRESETS
    }


def onnxruntime_runs(package: ModelPackage, values: NDArray[np.float32]) -> NDArray[np.float32]:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        package.network, options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["restored"], {"window": values})[0])


def test_all_four_models_are_installed() -> None:
    assert [folder.name for folder in shipped_models()] == list(NAMES)


def test_a_model_looks_at_as_many_frames_as_its_name_says(package: ModelPackage) -> None:
    expected = (5, 2) if package.manifest.name.endswith("_mf") else (1, 0)
    assert (package.manifest.window_length, package.manifest.centre) == expected


def test_openvino_reproduces_the_test_pair(package: ModelPackage) -> None:
    worst, report = check_test_pair(package, "openvino", None)
    assert report.precision == "fp32"
    assert worst < 1e-3


def test_onnxruntime_reproduces_the_test_pair(package: ModelPackage) -> None:
    pair = package.test_pair()
    mean, std = pair.window.mean(), pair.window.std()
    values = ((pair.window - mean) / std).astype(np.float32)
    restored = onnxruntime_runs(package, values[None])[0, 0] * std + mean
    np.testing.assert_allclose(restored, pair.restored, atol=1e-4 * std)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (137, 147), (61, 200)])
def test_both_runtimes_agree_at_any_size(package: ModelPackage, size: tuple[int, int]) -> None:
    shape = (1, package.manifest.window_length, *size)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    core = openvino_core()
    network = core.read_model(package.network)
    network.reshape(values.shape)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    restored = core.compile_model(network, "CPU", settings)(values)[0]
    assert restored.shape == (1, 1, 4 * size[0], 4 * size[1])
    np.testing.assert_allclose(restored, onnxruntime_runs(package, values), atol=1e-4)


def test_the_fp16_network_computes_the_same(package: ModelPackage) -> None:
    values = np.random.default_rng(0).normal(size=(1, package.manifest.window_length, 48, 64))
    halved = replace(package, network=package.network_for("fp16"))
    window = values.astype(np.float32)
    expected, found = (onnxruntime_runs(of, window) for of in (package, halved))
    assert 0 < np.sqrt(np.mean(np.square(found - expected))) < 1e-3 * np.ptp(expected)


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


def test_unseen_simulated_movies_are_restored_better_than_by_what_costs_nothing(
    package: ModelPackage, restorer: evaluate.Restorer, movies: dict[Preset, list[Movie]]
) -> None:
    methods = {**evaluate.baselines(), "model": restorer}
    found = evaluate.evaluate_movies(iter(movies[evaluate.own_preset(package)]), methods)
    model = found.pop("model")
    if package.manifest.window_length == 1:
        del found["five-frame average, bilinear"]
    for baseline in found.values():
        assert model.psnr.mean() > baseline.psnr.mean() + 2.0
        assert model.ssim.mean() > baseline.ssim.mean() + 0.05
    assert model.brightness.mean() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("preset", ["neuron", "u2os"])
def test_five_frames_are_better_than_one(preset: Preset, movies: dict[Preset, list[Movie]]) -> None:
    methods = {kind: evaluate.Restorer(find_model(f"{preset}_{kind}")) for kind in ("mf", "sf")}
    found = evaluate.evaluate_movies(iter(movies[preset]), methods)
    assert found["mf"].psnr.mean() > found["sf"].psnr.mean() + 0.5


def test_no_structure_is_invented_in_noise(
    package: ModelPackage, restorer: evaluate.Restorer
) -> None:
    methods = {**evaluate.baselines(), "model": restorer}
    shares = evaluate.noise_figures(methods, 3.0, [0, 1])
    assert shares["model"].max() < shares["five-frame average, bilinear"].min()


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_shorter_arithmetic_costs_little(
    precision: str,
    package: ModelPackage,
    restorer: evaluate.Restorer,
    movies: dict[Preset, list[Movie]],
) -> None:
    methods = {"fp32": restorer, precision: evaluate.Restorer(package, precision)}
    found = evaluate.evaluate_movies(iter(movies[evaluate.own_preset(package)]), methods)
    drop = found["fp32"].psnr - found[precision].psnr
    assert drop.max() <= (0.3 if precision == "int8" else 0.1)


def test_a_window_without_contrast_stays_what_it_is(restorer: evaluate.Restorer) -> None:
    window = np.full((5, 40, 44), 321, np.uint16)
    assert np.abs(restorer(window) - 321).max() < 0.5


def test_brighter_frames_give_brighter_restored_frames(
    package: ModelPackage, restorer: evaluate.Restorer
) -> None:
    dim = np.repeat(package.test_pair().window[:1], 5, axis=0).astype(np.float64)
    np.testing.assert_allclose(
        restorer(3 * dim + 500), 3 * restorer(dim) + 500, atol=1e-2 * dim.std()
    )


def test_a_restored_frame_has_the_mean_of_its_raw_frame(
    package: ModelPackage, restorer: evaluate.Restorer
) -> None:
    window = np.repeat(package.test_pair().window[:1], 5, axis=0)
    fading = (window * np.linspace(1.2, 0.8, 5)[:, None, None]).astype(np.uint16)
    for frames in (window, fading, fading[:, :50, :41]):
        assert restorer(frames).mean() == pytest.approx(frames[2].mean(), rel=1e-4)


def test_real_recordings_are_restored_better_than_by_interpolation(
    restorer: evaluate.Restorer, shared_data: Path
) -> None:
    methods = {**evaluate.baselines(), "model": restorer}
    recorded = evaluate.recorded_movies(shared_data / "BPAE_mito.tif", 1, 10.0)
    found = evaluate.evaluate_movies(recorded, methods)
    assert found["model"].psnr.mean() > found["bilinear"].psnr.mean() + 1.0


def test_the_card_says_what_the_model_is(package: ModelPackage) -> None:
    card = package.card()
    assert "{" not in card
    assert "$" not in card
    assert (package.folder / "failures.png").stat().st_size > 10_000
    for said in ("simulated", "prediction", "BSD-3-Clause", "seed", "photons", "PSNR"):
        assert said in card
    assert "simulated" in package.manifest.trained_on
