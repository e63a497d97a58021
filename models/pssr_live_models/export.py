"""Write a model package: the network as ONNX, a test pair, a card and the manifest."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from pssr_live.model import Manifest, ModelPackage, read_package
from pssr_live_models.dataset import normalise
from pssr_live_models.networks import STEP, LightUNet
from pssr_live_models.package import npz, write_file, write_manifest
from pssr_live_models.receptive_field import light_tiling

__all__ = ["OPSET", "Description", "onnx_network", "restore", "write_package"]

OPSET = 20
MIN_SIZE, MAX_SIZE = 16, 4096


@dataclass(frozen=True, slots=True)
class Description:
    """What a package says about its model, beside what the network itself says.

    Attributes
    ----------
    name, version, description, licence, trained_on : str
        As in the manifest.
    pixel_size_um : tuple of float
        Range of raw pixel sizes that the model is valid for, µm.
    """

    name: str
    version: str
    description: str
    licence: str
    trained_on: str
    pixel_size_um: tuple[float, float]


class _Levels(nn.Module):
    """What `torch.export` can follow: the network without what depends on the frames' size."""

    def __init__(self, network: LightUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, window: Tensor) -> Tensor:
        return self.network.levels(window)


def onnx_network(network: LightUNet) -> bytes:
    """Write the network as ONNX that takes frames of any size.

    Parameters
    ----------
    network : LightUNet
        In fp32, on the CPU.

    Returns
    -------
    bytes
        One input ``window``, float32 ``(1, window_length, H, W)``, one output ``restored``, float32
        ``(1, 1, scale·H, scale·W)``; padding and cropping are nodes of the graph.
    """
    length = network.window_length
    height, width = (torch.export.Dim(name, min=4, max=MAX_SIZE // STEP) for name in "hw")
    with warnings.catch_warnings():
        # Of the exporter's own making; no other warning may pass unseen.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        program = torch.onnx.export(
            _Levels(network).eval(),
            (torch.zeros(1, length, 16 * STEP, 20 * STEP),),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=["padded"],
            output_names=["uncropped"],
            dynamic_shapes={"window": {2: STEP * height, 3: STEP * width}},
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = _without_traces(program.model_proto)
    _frame(model.graph, network)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Leave out stack traces and paths of the machine that exported the network."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    # Shapes of intermediate results are of no use once the outer ones change names.
    del graph.value_info[:]
    return model


def _frame(graph: onnx.GraphProto, network: LightUNet) -> None:
    """Put around the levels what `LightUNet.predict` does, for any H and W."""
    constants = {
        "step": np.array([STEP], np.int64),
        "scale": np.array([network.scale], np.int64),
        "no_padding": np.zeros(6, np.int64),
        "crop_starts": np.zeros(2, np.int64),
        "height_and_width": np.array([2, 3], np.int64),
    }
    node = helper.make_node
    before = [
        node("Shape", ["window"], ["size"], start=2),
        node("Neg", ["size"], ["size_negative"]),
        node("Mod", ["size_negative", "step"], ["missing"]),
        node("Concat", ["no_padding", "missing"], ["padding"], axis=0),
        node("Pad", ["window", "padding"], ["padded"], mode="edge"),
    ]
    after = [
        node("Mul", ["size", "scale"], ["crop_ends"]),
        node("Slice", ["uncropped", "crop_starts", "crop_ends", "height_and_width"], ["restored"]),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in constants.items())
    float32 = TensorProto.FLOAT
    graph.input.append(
        helper.make_tensor_value_info(
            "window", float32, [1, network.window_length, "height", "width"]
        )
    )
    graph.output.append(
        helper.make_tensor_value_info("restored", float32, [1, 1, "height_out", "width_out"])
    )
    graph.name = "restore_window"


def restore(network: LightUNet, window: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Restore one window with torch: the reference that engines are compared with.

    Parameters
    ----------
    network : LightUNet
        In fp32, on the CPU.
    window : ndarray, shape (window_length, H, W), uint16
        Raw frames.

    Returns
    -------
    ndarray, shape (scale·H, scale·W), float32
        In the raw frames' intensity scale, neither rounded nor clipped, before the mean is kept.
    """
    values, mean, std = normalise(window)
    network.eval()
    with torch.inference_mode():
        restored = network.predict(torch.from_numpy(values[None]))[0, 0].numpy()
    return np.asarray(restored * np.float32(std) + np.float32(mean), np.float32)


def write_package(
    folder: Path,
    network: LightUNet,
    description: Description,
    window: NDArray[np.uint16],
    card: str,
    truth: NDArray[np.float32] | None = None,
) -> ModelPackage:
    """Write a package and read it back.

    Parameters
    ----------
    folder : Path
        Where; its name is the model's name. Made if missing.
    network : LightUNet
        Trained, in fp32, on the CPU.
    description : Description
        What to say about it.
    window : ndarray, shape (window_length, H, W), uint16
        Raw frames for the test pair.
    card : str
        Model card, Markdown.
    truth : ndarray, shape (scale·H, scale·W), float32, optional
        What should be restored from ``window``, in raw intensities.

    Returns
    -------
    ModelPackage
    """
    folder.mkdir(parents=True, exist_ok=True)
    pair: dict[str, NDArray[Any]] = {"window": window, "restored": restore(network, window)}
    if truth is not None:
        pair["truth"] = truth
    manifest = Manifest(
        format=1,
        name=description.name,
        version=description.version,
        description=description.description,
        licence=description.licence,
        network=write_file(folder / f"{description.name}.onnx", onnx_network(network)),
        test_pair=write_file(folder / "test_pair.npz", npz(pair)),
        card=write_file(folder / "card.md", card.encode()),
        window_length=len(window),
        centre=network.centre,
        scale=network.scale,
        normalisation="window-zscore",
        keeps_mean=True,
        tiling=light_tiling(network),
        min_size=MIN_SIZE,
        max_size=MAX_SIZE,
        pixel_size_um=description.pixel_size_um,
        trained_on=description.trained_on,
    )
    write_manifest(folder, manifest)
    return read_package(folder)
