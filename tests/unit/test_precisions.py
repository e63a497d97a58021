"""int8 is made from fp32, comes near it, and runs as int8 or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pssr_live.engine.base import Engine
from pssr_live.engine.compare import agreement_db, contrast_gain, drop_db
from pssr_live.engine.onnxruntime import ONNXRuntimeEngine
from pssr_live.engine.openvino import OpenVINOEngine
from pssr_live.errors import EngineError, ModelError
from pssr_live.model import ModelPackage, find_model, read_package
from pssr_live_models import packages_folder
from pssr_live_models.dataset import normalise
from pssr_live_models.movies import FIRST_VALIDATION_SEED, PRESETS, simulated_movie
from pssr_live_models.package import write_file, write_manifest
from pssr_live_models.quantise import quantise

SHIPPED = find_model("neuron_mf")
SIZE = 96


def sample_windows() -> Iterator[NDArray[np.float32]]:
    for seed, photons in enumerate((2.5, 12, 50, 200)):
        for preset in PRESETS:
            movie = simulated_movie(preset, seed, size=128, frames=5, photons=photons)
            yield normalise(movie.frames)[0][None]


@pytest.fixture(scope="module")
def int8() -> bytes:
    return quantise(SHIPPED.network, sample_windows())


def package_with(int8: bytes, folder: Path) -> ModelPackage:
    """The shipped package with one more file."""
    shutil.copytree(packages_folder() / "neuron_mf", folder)
    manifest = read_package(folder).manifest
    variants = {"int8": write_file(folder / "neuron_mf.int8.onnx", int8)}
    write_manifest(folder, msgspec.structs.replace(manifest, variants=variants))
    return read_package(folder)


@pytest.fixture
def model(int8: bytes, tmp_path: Path) -> ModelPackage:
    return package_with(int8, tmp_path / "neuron_mf")


def run(engine: Engine, model: ModelPackage, window: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        engine.prepare(model, *window.shape[2:])
        return engine.run(window).copy()
    finally:
        engine.close()


class TestQuantised:
    def test_the_same_network_and_windows_give_the_same_bytes(self) -> None:
        window = np.random.default_rng(0).standard_normal((1, 5, 32, 32)).astype(np.float32)
        assert quantise(SHIPPED.network, [window]) == quantise(SHIPPED.network, [window])

    def test_it_is_plain_onnx_with_the_same_ends_and_a_third_of_the_size(self, int8: bytes) -> None:
        before, after = onnx.load_from_string(SHIPPED.network), onnx.load_from_string(int8)
        assert list(before.graph.input) == list(after.graph.input)
        assert list(before.graph.output) == list(after.graph.output)
        assert {node.domain for node in after.graph.node} <= {"", "ai.onnx"}
        assert len(int8) < len(SHIPPED.network) / 3

    def test_convolutions_that_read_the_window_are_not_touched(self, int8: bytes) -> None:
        graph = onnx.load_from_string(int8).graph
        rounded = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
        exact = [n for n in graph.node if n.op_type == "Conv" and n.input[0] not in rounded]
        assert len(exact) == 2
        assert all(node.input[1] not in rounded for node in exact)

    @pytest.mark.parametrize(
        ("windows", "why"),
        [
            ([], "there are no windows"),
            ([np.zeros((1, 4, 32, 32), np.float32)], r"float32 \(1, 4, 32, 32\)"),
            ([np.zeros((1, 5, 32, 32))], "float64"),
        ],
    )
    def test_windows_that_do_not_fit_are_refused(
        self, windows: list[NDArray[np.float32]], why: str
    ) -> None:
        with pytest.raises(ModelError, match=why):
            quantise(SHIPPED.network, windows)

    def test_a_network_without_layers_in_between_is_refused(self) -> None:
        frames = helper.make_tensor_value_info("window", TensorProto.FLOAT, [1, 5, "h", "w"])
        weights = onnx.numpy_helper.from_array(np.ones((1, 5, 1, 1), np.float32), "weights")
        graph = helper.make_graph(
            [helper.make_node("Conv", ["window", "weights"], ["restored"])],
            "mean",
            [frames],
            [helper.make_tensor_value_info("restored", TensorProto.FLOAT, [1, 1, "h", "w"])],
            [weights],
        )
        network = helper.make_model(graph).SerializeToString()
        with pytest.raises(ModelError, match="no convolution but those that must stay exact"):
            quantise(network, [np.zeros((1, 5, 32, 32), np.float32)])


@pytest.mark.parametrize("engine", [OpenVINOEngine, ONNXRuntimeEngine])
class TestEnginesRunIt:
    def test_as_int8_and_say_so(
        self, engine: type[OpenVINOEngine | ONNXRuntimeEngine], model: ModelPackage
    ) -> None:
        running = engine("int8")
        report = running.prepare(model, 37, 53)
        found = running.run(np.zeros((1, 5, 37, 53), np.float32))
        running.close()
        assert report.precision in {"int8+bf16", "int8+fp32"}
        assert found.shape == (148, 212)
        assert found.dtype == np.float32

    @pytest.mark.parametrize("preset", PRESETS)
    @pytest.mark.parametrize("photons", [3, 100])
    def test_as_near_to_the_truth_as_fp32_on_unseen_movies(
        self,
        engine: type[OpenVINOEngine | ONNXRuntimeEngine],
        model: ModelPackage,
        preset: str,
        photons: float,
    ) -> None:
        movie = simulated_movie(
            preset,  # type: ignore[arg-type]
            FIRST_VALIDATION_SEED + 7,
            size=SIZE,
            frames=5,
            photons=photons,
        )
        values, mean, std = normalise(movie.frames)
        truth = ((movie.truth[2] - mean) / std).astype(np.float32)
        expected = run(OpenVINOEngine("fp32"), model, values[None])
        found = run(engine("int8"), model, values[None])
        assert drop_db(found, expected, truth) <= 0.3
        assert agreement_db(found, expected, values[2]) >= 45
        assert contrast_gain(found, expected) == pytest.approx(1, abs=0.01)

    def test_a_spot_brighter_than_all_samples_keeps_its_brightness(
        self, engine: type[OpenVINOEngine | ONNXRuntimeEngine], model: ModelPackage
    ) -> None:
        window = next(sample_windows())
        y, x = np.mgrid[:128, :128]
        spot = np.exp(-((y - 40) ** 2 + (x - 50) ** 2) / 8)
        window = (window + 5 * window.max() * spot).astype(np.float32)
        expected = run(OpenVINOEngine("fp32"), model, window)
        found = run(engine("int8"), model, window)
        assert found.max() / expected.max() == pytest.approx(1, abs=0.05)

    def test_a_file_that_says_int8_but_is_not_is_refused(
        self, engine: type[OpenVINOEngine | ONNXRuntimeEngine], tmp_path: Path
    ) -> None:
        model = package_with(SHIPPED.network, tmp_path / "neuron_mf")
        with pytest.raises(EngineError, match=r"does not run .* in int8: most .* run in (bf16|fp)"):
            engine("int8").prepare(model, 64, 64)

    def test_a_package_without_int8_is_refused(
        self, engine: type[OpenVINOEngine | ONNXRuntimeEngine], tmp_path: Path
    ) -> None:
        folder = tmp_path / "neuron_mf"
        shutil.copytree(packages_folder() / "neuron_mf", folder)
        write_manifest(folder, msgspec.structs.replace(read_package(folder).manifest, variants={}))
        with pytest.raises(ModelError, match="cannot run in int8: its package holds fp32 only"):
            engine("int8").prepare(read_package(folder), 64, 64)


@pytest.mark.parametrize(
    ("engine", "precision", "why"),
    [
        (OpenVINOEngine, "fp16", "OpenVINO cannot run in fp16: on the CPU it has fp32, bf16, int8"),
        (ONNXRuntimeEngine, "fp16", "ONNX Runtime cannot run in fp16: .* fp32 and int8"),
        (ONNXRuntimeEngine, "bf16", "ONNX Runtime cannot run in bf16: .* fp32 and int8"),
    ],
)
def test_a_precision_an_engine_does_not_have_is_refused(
    engine: type[Engine], precision: str, why: str
) -> None:
    with pytest.raises(EngineError, match=why):
        engine(precision)  # type: ignore[call-arg]
