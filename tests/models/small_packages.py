"""Small networks, and packages around them, for tests to spoil."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pssr_live.model import Manifest
from pssr_live_models.package import npz, write_file, write_manifest

HEIGHT, WIDTH = 24, 20


def network(
    *,
    frames: int = 5,
    scale: int = 4,
    ends: tuple[str, str] = ("window", "restored"),
    size: tuple[int | str, int | str] = ("height", "width"),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Average the frames and repeat pixels: (1, frames, H, W) to (1, 1, scale·H, scale·W)."""
    kernel = np.full((scale**2, frames, 1, 1), 1 / frames)
    nodes = [
        helper.make_node("Conv", [ends[0], "kernel"], ["parts"]),
        helper.make_node("DepthToSpace", ["parts"], [ends[1]], blocksize=scale),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(ends[0], kind, [1, frames, *size])],
        [helper.make_tensor_value_info(ends[1], kind, [1, 1, "height_out", "width_out"])],
        [numpy_helper.from_array(kernel.astype(helper.tensor_dtype_to_np_dtype(kind)), "kernel")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def window(frames: int = 5) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(100, 900, (frames, HEIGHT, WIDTH), np.uint16)


def restored(raw: NDArray[np.uint16], scale: int = 4) -> NDArray[np.float32]:
    """What `network` makes of a window, in raw intensities."""
    return raw.mean(axis=0).repeat(scale, 0).repeat(scale, 1).astype(np.float32)


def package(
    folder: Path,
    model: onnx.ModelProto | bytes | None = None,
    variants: dict[str, onnx.ModelProto] | None = None,
    pair: dict[str, NDArray[Any]] | None = None,
    **said: Any,
) -> Path:
    """Write a package whose hashes match, whatever is in it."""
    folder.mkdir(parents=True)
    content = model if isinstance(model, bytes) else (model or network()).SerializeToString()
    arrays = pair or {"window": window(), "restored": restored(window())}
    facts: dict[str, Any] = {
        "format": 1,
        "name": "small",
        "version": "1.0.0",
        "description": "An average",
        "licence": "BSD-3-Clause",
        "network": write_file(folder / "small.onnx", content),
        "test_pair": write_file(folder / "test_pair.npz", npz(arrays)),
        "card": write_file(folder / "card.md", b"# small\n"),
        "variants": {
            name: write_file(folder / f"small.{name}.onnx", other.SerializeToString())
            for name, other in (variants or {}).items()
        },
        "window_length": 5,
        "centre": 2,
        "scale": 4,
        "normalisation": "window-zscore",
        "keeps_mean": True,
        "min_size": 16,
        "max_size": 4096,
        "pixel_size_um": (0.15, 0.2),
        "trained_on": "nothing",
    }
    write_manifest(folder, Manifest(**{**facts, **said}))
    return folder
