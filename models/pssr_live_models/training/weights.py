"""A package's network, as one that can be trained on: its weights are read back from the ONNX."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pssr_live.errors import ModelError
from pssr_live.model import ModelPackage
from pssr_live_models.networks import LightUNet
from pssr_live_models.paper_network import PaperNetwork
from pssr_live_models.training.samples import Scaling

__all__ = ["network_of", "scaling_of"]

Array: TypeAlias = NDArray[Any]

_LIGHT, _PAPER = "network.fold", "model.layers.0.0.0"
"""The first convolution of each of the networks."""

_TOLERANCE = 1e-2
"""Largest difference from the test pair, in standard deviations of the window; as ``verify``."""

_POWER_STEPS = 50


def scaling_of(package: ModelPackage) -> Scaling:
    """Say how a package's windows are normalised."""
    return Scaling(package.manifest.training_statistics)


def network_of(package: ModelPackage) -> LightUNet | PaperNetwork:
    """Make the network of a package, with its weights.

    Parameters
    ----------
    package : ModelPackage
        Of a light network, or of the published one.

    Returns
    -------
    LightUNet or PaperNetwork
        In fp32, on the CPU.

    Raises
    ------
    ModelError
        It is another network.
    """
    graph = onnx.load_from_string(package.network).graph
    found = _Graph(graph)
    try:
        network = _paper(found) if _PAPER in found.kernels else _light(found, package)
        _check(network, package)
    except (KeyError, RuntimeError) as error:  # what torch raises for weights that do not fit
        raise ModelError(
            f"--from {package.manifest.name}",
            f"it is none of the networks that can be trained here ({str(error).splitlines()[0]})",
            "give a model made by `pssr-live train`, or a shipped one",
        ) from error
    return network


class _Graph:
    """Convolutions by name, and normalisations in order."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
        self.arrays = arrays
        # Parameters that are equal share one name, so they are found by who takes them.
        self.kernels = {
            node.input[1].removesuffix(".weight"): [arrays.get(name) for name in node.input[1:]]
            for node in graph.node
            if node.op_type == "Conv"
        }
        self.norms = [
            [arrays[name] for name in node.input[1:]]
            for node in graph.node
            if node.op_type == "BatchNormalization"
        ]

    def kernel(self, stem: str) -> tuple[Tensor, Tensor | None]:
        weight, bias = (*self.kernels[stem], None)[:2]
        if weight is None:
            raise KeyError(f"{stem}.weight")
        return _tensor(weight), None if bias is None else _tensor(bias)


def _light(found: _Graph, package: ModelPackage) -> LightUNet:
    prefix = _LIGHT.partition(".")[0] + "."
    state = {}
    for stem in found.kernels:
        name = stem.removeprefix(prefix)
        weight, bias = found.kernel(stem)
        if bias is not None:
            state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias
    manifest = package.manifest
    half, quarter = (len(state[f"{name}.weight"]) for name in ("fold", "context.0"))
    network = LightUNet(manifest.window_length, manifest.centre, manifest.scale, (half, quarter))
    network.load_state_dict(state)
    return network


def _paper(found: _Graph) -> PaperNetwork:
    network = PaperNetwork(found.kernel(_PAPER)[0].shape[1])
    norms = iter(found.norms)
    state: dict[str, Tensor] = {}
    for stem, module in network.named_modules():
        own = dict(module.named_parameters(prefix=stem, recurse=False))
        if isinstance(module, nn.BatchNorm2d):
            names = ("weight", "bias", "running_mean", "running_var")
            values = dict(zip(names, next(norms), strict=True))
            state |= {f"{stem}.{name}": _tensor(value) for name, value in values.items()}
            state[f"{stem}.num_batches_tracked"] = torch.tensor(0)
        elif f"{stem}.weight_g" in own:
            weight, bias = found.kernel(stem)
            state[f"{stem}.weight_v"] = weight
            state[f"{stem}.weight_g"] = torch.linalg.vector_norm(
                weight, dim=(1, 2, 3), keepdim=True
            )
            if bias is not None:
                state[f"{stem}.bias"] = bias
        elif f"{stem}.weight_orig" in own:
            weight, _ = found.kernel(stem)
            state[f"{stem}.weight_orig"] = weight
            state |= _singular_vectors(stem, weight[..., 0])
        else:
            state |= {name: _tensor(found.arrays[name]) for name in own}
    network.load_state_dict(state)
    return network


def _singular_vectors(stem: str, matrix: Tensor) -> dict[str, Tensor]:
    """Find the vectors by which spectral normalisation knows the largest singular value."""
    u = functional.normalize(matrix.sum(dim=1), dim=0)
    for _ in range(_POWER_STEPS):
        v = functional.normalize(matrix.T @ u, dim=0)
        u = functional.normalize(matrix @ v, dim=0)
    return {f"{stem}.weight_u": u, f"{stem}.weight_v": v}


def _check(network: LightUNet | PaperNetwork, package: ModelPackage) -> None:
    """Refuse a network that restores something else than its package."""
    pair = package.test_pair()
    mean, std = scaling_of(package)(pair.window)
    window = torch.from_numpy(((pair.window - mean) / std).astype(np.float32)[None])
    network.eval()
    with torch.inference_mode():
        restored = network(window)[0, 0].numpy()
    difference = restored - (pair.restored - mean) / std
    worst = float(np.abs(difference - difference.mean()).max())
    if not worst <= _TOLERANCE:
        raise RuntimeError(f"its weights miss the test pair by {worst:.2g} standard deviations")


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))
