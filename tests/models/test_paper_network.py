"""The published network: its names, its size, and the numbers its original code computes."""

from __future__ import annotations

import copy
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from pssr_live_models.paper_network import PaperNetwork, frozen  # noqa: E402

CONFORMANCE = Path(__file__).parents[3] / "shared" / "conformance" / "paper_network"


@pytest.fixture(scope="module")
def conformance() -> Path:
    """What the original code computed, where it is."""
    if not CONFORMANCE.is_dir():
        pytest.skip("the conformance data (../shared/conformance) are not on this machine")
    return CONFORMANCE


@pytest.fixture(scope="module")
def published_shapes(conformance: Path) -> dict[str, tuple[int, ...]]:
    shapes = json.loads((conformance / "pssr_mf_state_dict.json").read_text(encoding="utf-8"))
    return {name: tuple(shape) for name, shape in shapes.items()}


def stand_in(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Give the weights of the conformance data, as its README defines them."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    drawn = np.asarray(rng.standard_normal(shape), np.float32)
    values = {
        "num_batches_tracked": 0 * drawn,
        "running_var": 0.5 + 0.5 * np.abs(drawn),
        "running_mean": 0.1 * drawn,
        "weight_g": 1 + 0.1 * drawn,
        "gamma": 0 * drawn + 0.5,
        "bias": 0.05 * drawn,
        "weight": 1 + 0.1 * drawn,
    }
    return np.asarray(values.get(name.rpartition(".")[2], drawn), np.float32)


@pytest.fixture(scope="module")
def network(published_shapes: dict[str, tuple[int, ...]]) -> PaperNetwork:
    network = PaperNetwork(5).eval()
    weights = {name: stand_in(name, shape) for name, shape in published_shapes.items()}
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return network


@pytest.fixture(scope="module")
def untrained() -> PaperNetwork:
    torch.manual_seed(0)
    return PaperNetwork(1)


def restore(network: Any, window: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(window)).numpy())


def test_the_state_dict_has_the_published_names_and_shapes_in_order(
    network: PaperNetwork, published_shapes: dict[str, tuple[int, ...]]
) -> None:
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert list(own.items()) == list(published_shapes.items())
    assert len(own) == 179


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 40), (50, 44)])
def test_five_frames_give_what_the_original_code_gives(
    network: PaperNetwork, conformance: Path, height: int, width: int
) -> None:
    rng = np.random.default_rng(height * 1000 + width)
    window = rng.random((1, 5, height, width)).astype(np.float32)
    with np.load(conformance / "pssr_mf_vectors.npz", allow_pickle=False) as vectors:
        expected = vectors[f"y_{height}x{width}"]
    restored = restore(network, window)
    assert restored.shape == expected.shape
    assert np.abs(restored - expected).max() <= 1e-4


@pytest.mark.parametrize(("frames", "parameters"), [(5, 48_954_450), (1, 48_945_614)])
def test_the_published_number_of_parameters(frames: int, parameters: int) -> None:
    with torch.device("meta"):
        network = PaperNetwork(frames)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_one_frame_differs_only_where_frames_enter(
    untrained: PaperNetwork, published_shapes: dict[str, tuple[int, ...]]
) -> None:
    own = {name: tuple(value.shape) for name, value in untrained.state_dict().items()}
    assert list(own) == list(published_shapes)
    different = {name.rpartition(".")[0] for name in own if own[name] != published_shapes[name]}
    first, tail = "model.layers.0.0.0", "model.layers.11.layers"
    assert different == {first, f"{tail}.0.0", f"{tail}.1.0", "model.layers.12.0"}
    assert own[f"{first}.weight_v"] == (32, 1, 3, 3)


def test_one_frame_gives_what_the_network_of_five_gives_that_sees_only_that_one(
    untrained: PaperNetwork, network: PaperNetwork
) -> None:
    # The original code's vectors have five frames. What they vouch for is put to use here: with
    # kernels of zero for four frames, the network of five must be the network of one.
    single = copy.deepcopy(untrained).eval()
    own = single.state_dict()
    for name, value in own.items():
        value.copy_(torch.from_numpy(stand_in(name, tuple(value.shape))))
    wide = copy.deepcopy(network).eval()
    for name, value in wide.state_dict().items():
        given = own[name]
        if given.shape == value.shape:
            value.copy_(given)
            continue
        # Outputs that are not there in the one have no length; their direction does not matter.
        value.fill_(1.0 if name.endswith("weight_v") else 0.0)
        value[: given.shape[0]] = 0.0
        value[tuple(slice(length) for length in given.shape)] = given
    window = np.random.default_rng(3).random((1, 5, 17, 23), np.float32)
    expected = restore(single, window[:, :1])
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(restore(wide, window), expected, atol=1e-4)


def test_any_height_and_width_from_one_frame(untrained: PaperNetwork) -> None:
    untrained.eval()
    window = np.random.default_rng(0).random((1, 1, 17, 23), np.float32)
    assert restore(untrained, window).shape == (1, 1, 68, 92)


def test_plain_kernels_restore_as_normalised_ones(network: PaperNetwork) -> None:
    window = np.random.default_rng(1).random((1, 5, 9, 11), np.float32)
    plain = frozen(copy.deepcopy(network))
    assert not any(name.endswith("_g") for name in plain.state_dict())
    np.testing.assert_allclose(restore(plain, window), restore(network, window), atol=1e-5)


def test_a_scaled_output_is_the_output_scaled(untrained: PaperNetwork) -> None:
    scaled = copy.deepcopy(untrained).eval()
    scaled.scale_output(2.5, -3.0)
    window = np.random.default_rng(2).random((1, 1, 8, 8), np.float32)
    expected = 2.5 * restore(untrained.eval(), window) - 3.0
    np.testing.assert_allclose(restore(scaled, window), expected, atol=1e-4)


@pytest.mark.slow
def test_training_reaches_every_parameter_and_sharpens_the_spectral_norm(
    untrained: PaperNetwork,
) -> None:
    network = copy.deepcopy(untrained).train()
    layers: Any = network.model.layers
    attention = layers[6].conv2[2]
    torch.nn.init.constant_(attention.gamma, 0.5)
    matrix = attention.query.weight_orig[..., 0].detach()
    largest = torch.linalg.svdvals(matrix)[0]

    def off() -> float:
        u, v = attention.query.weight_u, attention.query.weight_v
        return abs(float(torch.dot(u, matrix @ v) / largest) - 1)

    before = off()
    network(torch.rand(2, 1, 8, 8)).square().mean().backward()
    untouched = [name for name, value in network.named_parameters() if value.grad is None]
    assert untouched == []
    assert off() < before
