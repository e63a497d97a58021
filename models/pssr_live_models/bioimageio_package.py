"""Make a model package a bioimage.io model as well: ``rdf.yaml`` and what it refers to.

Written from the package alone, so that the same package gives the same files; the manifest does not
list them. Needs onnx and Pillow.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image
from ruamel.yaml import YAML

from pssr_live.engine.normalise import normalise
from pssr_live.frames import Frame
from pssr_live.model import Manifest, ModelPackage, TestPair, read_package
from pssr_live_models.package import write_file

__all__ = ["write_rdf"]

_FORMAT = "0.5.12"
_COVER_SIZE = 512
_PAPER = {
    "text": "Fang, L. et al. Deep learning-based point-scanning super-resolution imaging. "
    "Nature Methods 18, 406-416 (2021).",
    "doi": "10.1038/s41592-021-01080-z",
}


def write_rdf(folder: Path) -> None:
    """Write ``rdf.yaml``, the test tensors as ``.npy`` and a cover into a package's folder.

    bioimage.io's tools take the raw frames as channels of one image; the preprocessing in the
    description makes them z-scores of the whole window. What comes out are z-scores too: the raw
    intensities, and keeping the middle frame's mean, are beyond what the format can say.

    Parameters
    ----------
    folder : Path
        A package that is in order and normalises by ``window-zscore``.

    Raises
    ------
    ModelError
        The package is not in order.
    ValueError
        It normalises in another way, or does not say which pixel sizes it is for.
    """
    package = read_package(folder)
    manifest, pair = package.manifest, package.test_pair()
    if manifest.normalisation != "window-zscore" or manifest.pixel_size_um is None:
        raise ValueError(f"{manifest.name} cannot be described to bioimage.io's tools")
    low, high = manifest.pixel_size_um
    files = {
        "cover": _write(folder / "cover.png", _cover(pair, manifest)),
        "window": _write(folder / "test_window.npy", _npy(pair.window[None])),
        "restored": _write(folder / "test_restored.npy", _npy(_scores(pair)[None, None])),
    }
    description = {
        **_facts(package),
        "documentation": {"source": manifest.card.file, "sha256": manifest.card.sha256},
        "covers": [files["cover"]],
        "inputs": [_input(manifest, files["window"], round(float(np.sqrt(low * high)), 4))],
        "outputs": [_output(manifest, files["restored"], round(float(np.sqrt(low * high)), 4))],
        "weights": {"onnx": _weights(package)},
        "config": _config(manifest),
    }
    text = io.BytesIO()
    yaml = YAML()
    yaml.width = 100
    yaml.dump(description, text)
    (folder / "rdf.yaml").write_bytes(text.getvalue())


def _facts(package: ModelPackage) -> dict[str, Any]:
    manifest = package.manifest
    return {
        "format_version": _FORMAT,
        "type": "model",
        "name": f"pssr-live {manifest.name}",
        "description": manifest.description,
        "version": manifest.version,
        "authors": [{"name": "the pssr-live developers"}],
        "cite": [dict(_PAPER)],
        "license": manifest.licence,
        "tags": ["fluorescence-light-microscopy", "restoration", "super-resolution", "pssr", "2d"],
    }


def _input(manifest: Manifest, tensor: dict[str, str], pixel_um: float) -> dict[str, Any]:
    length = manifest.window_length
    sides = [
        {
            "type": "space",
            "id": axis,
            "size": {"min": manifest.min_size, "step": 1},
            "unit": "micrometer",
            "scale": pixel_um,
        }
        for axis in "yx"
    ]
    return {
        "id": "window",
        "description": f"{length} consecutive raw frames, oldest first",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "channel_names": [f"frame{n}" for n in range(1, length + 1)]},
            *sides,
        ],
        "data": {"type": "uint16"},
        "test_tensor": tensor,
        "preprocessing": [
            {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
            {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"]}},
            {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
        ],
    }


def _output(manifest: Manifest, tensor: dict[str, str], pixel_um: float) -> dict[str, Any]:
    sides = [
        {
            "type": "space",
            "id": axis,
            "size": {"tensor_id": "window", "axis_id": axis},
            "unit": "micrometer",
            "scale": pixel_um / manifest.scale,
        }
        for axis in "yx"
    ]
    return {
        "id": "restored",
        "description": f"frame {manifest.centre + 1} restored, as z-scores of the window",
        "axes": [
            {"type": "batch", "size": 1},
            {"type": "channel", "channel_names": ["restored"]},
            *sides,
        ],
        "data": {"type": "float32"},
        "test_tensor": tensor,
    }


def _weights(package: ModelPackage) -> dict[str, Any]:
    model = onnx.ModelProto.FromString(package.network)
    (opset,) = (item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    network = package.manifest.network
    return {"source": network.file, "sha256": network.sha256, "opset_version": opset}


def _config(manifest: Manifest) -> dict[str, Any]:
    low, high = manifest.pixel_size_um or (None, None)
    return {
        "bioimageio": {"modality": "point-scanning microscopy", "task": "restoration"},
        "pssr_live": {
            "centre": manifest.centre,
            "keeps_mean": manifest.keeps_mean,
            "pixel_size_um": [low, high],
            "max_size": manifest.max_size,
            "trained_on": manifest.trained_on,
        },
    }


def _write(path: Path, content: bytes) -> dict[str, str]:
    packaged = write_file(path, content)
    return {"source": packaged.file, "sha256": packaged.sha256}


def _npy(array: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
    return content.getvalue()


def _scores(pair: TestPair) -> NDArray[np.float32]:
    """Bring the test pair's restored frame back to what the network gives."""
    scored = np.empty((1, *pair.window.shape), np.float32)
    frames = [Frame(plane, index, 0, 0) for index, plane in enumerate(pair.window)]
    statistics = normalise(frames, scored)
    return np.asarray((pair.restored - statistics.mean) / statistics.std, np.float32)


def _cover(pair: TestPair, manifest: Manifest) -> bytes:
    """Draw the raw middle frame beside the restored one, as a PNG."""
    low, high = np.percentile(pair.restored, (0.5, 99.8))
    scale, raw = manifest.scale, pair.window[manifest.centre]
    side = min(_COVER_SIZE, *pair.restored.shape)
    halves = [
        np.clip((plane[:side, :side] - low) / max(high - low, 1.0) * 255, 0, 255).astype(np.uint8)
        for plane in (raw.repeat(scale, 0).repeat(scale, 1).astype(np.float32), pair.restored)
    ]
    content = io.BytesIO()
    Image.fromarray(np.hstack(halves)).save(content, "PNG")
    return content.getvalue()
