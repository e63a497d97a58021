"""Read a bioimage.io model package (format 0.5) whose network restores windows of frames.

Only its ONNX weights are used, its files are checked like those of any package, and nothing in it
is executed. What cannot be mapped onto what pssr-live does (other axes, other processing around the
network) is refused.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import ModelError
from pssr_live.model.adapt import named, padded
from pssr_live.model.bioimageio_description import (
    DESCRIPTIONS,
    Axis,
    Description,
    File,
    OnnxFile,
    Size,
    Step,
    Tensor,
    UnfitError,
    read_description,
)
from pssr_live.model.files import (
    ReadFile,
    check_hash,
    files_of_folder,
    files_of_zip,
    one_line,
    read_npy,
)
from pssr_live.model.network import check_network
from pssr_live.model.package import Manifest, ModelPackage, PackagedFile, TestPair

__all__ = ["is_bioimageio", "read_bioimageio"]

_MAX_SIZE = 4096
"""Largest H or W where a package states none, as for the networks that ship."""

_MAX_FRAMES = 15
_BRIGHTEST = 65535
_LARGEST_EPS = 1e-3
"""More, added to the standard deviation, would be seen; here nothing is added."""
_NORMALISED = 1e-3
"""A normalised window's mean and standard deviation are so close to 0 and 1."""

_MICROMETRES = {
    "angstrom": 1e-4,
    "centimeter": 1e4,
    "meter": 1e6,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "nanometer": 1e-3,
    "picometer": 1e-6,
}


def is_bioimageio(path: Path) -> bool:
    """Whether this is a folder with a bioimage.io description, or a ``.zip``.

    Parameters
    ----------
    path : Path
        Anything.

    Returns
    -------
    bool
    """
    if path.is_file():
        return zipfile.is_zipfile(path) or path.suffix == ".zip"
    return any((path / name).is_file() for name in DESCRIPTIONS)


def read_bioimageio(path: Path) -> ModelPackage:
    """Read and check a bioimage.io package.

    Parameters
    ----------
    path : Path
        Folder or ``.zip`` with ``bioimageio.yaml`` or ``rdf.yaml``.

    Returns
    -------
    ModelPackage
        Its manifest, test pair and card are made from the description; where its network takes
        only some sizes, padding and cropping are put around it.

    Raises
    ------
    ModelError
        It is damaged, or no model that restores the middle one of some frames.
    """
    read = files_of_zip(path) if path.is_file() else files_of_folder(path)
    try:
        return _package(path, read)
    except UnfitError as error:
        raise ModelError(
            f"bioimage.io model {path}", one_line(str(error)), "choose another model, or convert it"
        ) from error


def _package(path: Path, read: ReadFile) -> ModelPackage:
    description = read_description(read)
    taken, made = _ends(description)
    weights = _onnx(description)
    frames, least, step = _frames_and_sizes(taken)
    scale = _scale(taken, made)
    normalises = _normalises(taken)
    if [done for done in made.postprocessing if not _casts(done)]:
        raise UnfitError(f"it processes its output further ({made.postprocessing[0].id})")

    def content(file: File, kind: str) -> bytes:
        if re.match("[a-z]+://", file.source):
            raise UnfitError(f"{file.source} is not in the package; download it with its files")
        found = read(file.source, kind)
        if file.sha256 is not None:
            check_hash(path, file.source, found, file.sha256)
        return found

    window, expected = _test_tensors(taken, made, content)
    manifest = Manifest(
        format=1,
        name=re.sub("[^a-z0-9]+", "_", description.name.lower()).strip("_")[:64] or "model",
        version=one_line(str(description.version or "not stated")),
        description=one_line(description.description or description.name),
        licence=one_line(description.license or "not stated"),
        network=PackagedFile(weights.source, ""),
        test_pair=_packaged(made.test_tensor),
        card=_packaged(description.documentation),
        window_length=frames,
        centre=frames // 2,
        scale=scale,
        normalisation="window-zscore",
        keeps_mean=True,
        min_size=least,
        max_size=_MAX_SIZE if step else least,
        pixel_size_um=_pixel_sizes(taken),
        trained_on="stated in its card, if anywhere",
    )
    network = _network(content(weights, "network"), manifest, step)
    sha256 = hashlib.sha256(network).hexdigest()
    manifest = msgspec.structs.replace(manifest, network=PackagedFile(weights.source, sha256))
    pair = _pair(window, expected, manifest, normalises)
    return ModelPackage(path, manifest, network, {}, pair, _card(description, content, manifest))


def _network(content: bytes, manifest: Manifest, step: int) -> bytes:
    """Give the network the ends that engines expect, and look through it."""
    least = manifest.min_size
    try:
        network = named(content)
        if step > 1:
            # What it makes of a size that it takes, before cropping hides anything.
            check_network(network, msgspec.structs.replace(manifest, max_size=least))
            frames, scale = manifest.window_length, manifest.scale
            network = padded(network, frames=frames, scale=scale, least=least, step=step)
    except ValueError as error:
        raise UnfitError(str(error)) from error
    check_network(network, manifest)
    return network


def _ends(description: Description) -> tuple[Tensor, Tensor]:
    inputs, outputs = description.inputs, description.outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise UnfitError(f"it has {len(inputs)} inputs and {len(outputs)} outputs, not one of each")
    return inputs[0], outputs[0]


def _onnx(description: Description) -> File:
    found = description.weights.get("onnx")
    if found is None:
        there = ", ".join(description.weights) or "none"
        raise UnfitError(
            f"it has no ONNX weights (but {there}), and others are not run (bioimageio.core "
            "converts some: `bioimageio add-weights`)"
        )
    try:
        weights = msgspec.convert(found, OnnxFile)
    except msgspec.ValidationError as error:
        raise UnfitError(f"its ONNX weights are not described well ({error})") from error
    if weights.external_data is not None:
        raise UnfitError("its ONNX weights are split over several files")
    if weights.sha256 is None:
        raise UnfitError("its ONNX weights have no sha256")
    return weights


def _frames_and_sizes(taken: Tensor) -> tuple[int, int, int]:
    """Frames a window has, smallest size, and step between sizes (0: only this one)."""
    kinds = [axis.type for axis in taken.axes]
    if kinds not in [["batch", kind, "space", "space"] for kind in ("channel", "time", "index")]:
        raise UnfitError(
            f"its input has the axes {', '.join(kinds)}, not batch, channel (the frames), y, x"
        )
    frames_axis, y, x = taken.axes[1:]
    if (y.id, x.id) != ("y", "x"):
        raise UnfitError(f"its input has the axes {y.id} and {x.id}, not y and x, in this order")
    frames = len(frames_axis.channel_names) or frames_axis.size
    if not isinstance(frames, int) or not 1 <= frames <= _MAX_FRAMES or frames % 2 == 0:
        raise UnfitError(
            f"its input has {frames if isinstance(frames, int) else 'any number of'} frames; an "
            f"odd number up to {_MAX_FRAMES} is needed, so that one is in the middle"
        )
    if y.size != x.size:
        raise UnfitError("it takes other heights than widths")
    if isinstance(y.size, int):
        return frames, y.size, 0
    if y.size is None or y.size.min is None or y.size.step is None:
        raise UnfitError("its input does not state which sizes it takes")
    return frames, y.size.min, y.size.step


def _scale(taken: Tensor, made: Tensor) -> int:
    """Restored pixels per raw pixel and axis."""
    kinds = [axis.type for axis in made.axes]
    if kinds != ["batch", "channel", "space", "space"] or len(made.axes[1].channel_names) != 1:
        raise UnfitError("its output is not one plane (axes batch, channel of one, y, x)")
    scales = {_ratio(*axes, taken.id) for axes in zip(taken.axes[2:], made.axes[2:], strict=True)}
    if len(scales) != 1 or not min(scales).is_integer() or not 1 <= min(scales) <= 8:
        raise UnfitError(
            "its output is not a whole number of times (1 to 8) as large as its input along y and x"
        )
    return int(scales.pop())


def _ratio(taken: Axis, made: Axis, tensor: str) -> float:
    if isinstance(taken.size, int) and isinstance(made.size, int):
        return made.size / taken.size
    size = made.size
    if not isinstance(size, Size) or (size.tensor_id, size.axis_id) != (tensor, taken.id):
        raise UnfitError(f"the size of its output's axis {made.id} is not that of its input's")
    if size.offset:
        raise UnfitError(f"its output's axis {made.id} is cropped (offset {size.offset})")
    return round(taken.scale / made.scale, 6)


def _casts(step: Step) -> bool:
    return step.id == "ensure_dtype" and step.kwargs.get("dtype") == "float32"


def _normalises(taken: Tensor) -> bool:
    """Whether the description asks for the window's own z-scores; if not, for nothing at all."""
    steps = [step for step in taken.preprocessing if not _casts(step)]
    if not steps:
        return False
    joint = {axis.id or axis.type for axis in taken.axes if axis.type != "batch"}
    told = steps[0].kwargs
    axes, eps = told.get("axes"), told.get("eps", 0)
    together = axes is None or (isinstance(axes, list) and joint <= set(map(str, axes)))
    alike = told.keys() <= {"axes", "eps"} and isinstance(eps, int | float) and eps <= _LARGEST_EPS
    if len(steps) > 1 or steps[0].id != "zero_mean_unit_variance" or not (together and alike):
        raise UnfitError(
            f"its preprocessing ({', '.join(step.id for step in steps)}) is none that is done "
            f"here: zero_mean_unit_variance of all frames together (eps up to {_LARGEST_EPS})"
        )
    return True


def _pixel_sizes(taken: Tensor) -> tuple[float, float] | None:
    """Raw pixel sizes in µm, where the axes have a unit."""
    y, x = taken.axes[2:]
    if y.unit not in _MICROMETRES or x.unit not in _MICROMETRES:
        return None
    sizes = (y.scale * _MICROMETRES[y.unit], x.scale * _MICROMETRES[x.unit])
    return min(sizes), max(sizes)


def _test_tensors(
    taken: Tensor, made: Tensor, content: Callable[[File, str], bytes]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    arrays = []
    for tensor in (taken, made):
        if tensor.test_tensor is None:
            raise UnfitError("it has no test tensors, so no engine could be checked with it")
        source = tensor.test_tensor.source
        try:
            array = read_npy(content(tensor.test_tensor, "arrays"))
        except ValueError as error:
            raise UnfitError(f"{source}: {error}") from error
        if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise UnfitError(f"{source} holds values that are no finite numbers")
        arrays.append(array.astype(np.float64))
    return arrays[0], arrays[1]


def _pair(
    window: NDArray[np.float64],
    expected: NDArray[np.float64],
    manifest: Manifest,
    normalises: bool,
) -> TestPair:
    """Bring the test tensors to raw frames and what they become, in the same intensities."""
    scale, frames = manifest.scale, manifest.window_length
    if window.ndim != 4 or window.shape[:2] != (1, frames) or min(window.shape[2:]) < 1:
        raise UnfitError(f"its test input has the shape {window.shape}, not (1, {frames}, y, x)")
    wanted = (1, 1, *(scale * length for length in window.shape[2:]))
    if expected.shape != wanted:
        raise UnfitError(f"its test output has the shape {expected.shape}, not {wanted}")
    mean, std = float(window.mean()), float(window.std())
    if std == 0:
        raise UnfitError("its test input is the same everywhere")
    if not normalises and (abs(mean) > _NORMALISED or abs(std - 1) > _NORMALISED):
        raise UnfitError(
            f"it does not say how its input is normalised, and its test input is not (mean "
            f"{mean:.3g}, standard deviation {std:.3g})"
        )
    raw = window[0]
    if not (raw == np.rint(raw)).all() or raw.min() < 0 or raw.max() > _BRIGHTEST:
        # Any brightness and contrast have the same z-scores.
        raw = (raw - raw.min()) * (_BRIGHTEST / (raw.max() - raw.min()))
    raw = np.rint(raw)
    restored = (expected[0, 0] * raw.std() + raw.mean()).astype(np.float32)
    pair = TestPair(raw.astype(np.uint16), restored, None)
    for array in (pair.window, pair.restored):
        array.setflags(write=False)
    return pair


def _card(
    description: Description, content: Callable[[File, str], bytes], manifest: Manifest
) -> str:
    head = (
        f"*A bioimage.io model. Nothing about its quality was measured here. Its "
        f"{manifest.window_length} input channels are taken for consecutive frames, of which the "
        f"middle one is restored.*"
    )
    source = description.documentation
    file = File(source) if isinstance(source, str) else source
    if file is None or re.match("[a-z]+://", file.source):
        return f"# {description.name}\n\n{head}\n\n{description.description}\n"
    try:
        return f"{head}\n\n{content(file, 'card').decode('utf-8')}"
    except UnicodeDecodeError as error:
        raise UnfitError(f"{file.source} is no text in UTF-8") from error


def _packaged(file: File | str | None) -> PackagedFile:
    """Make a manifest's entry, with the hash where the description gives one."""
    if isinstance(file, File):
        return PackagedFile(file.source, file.sha256 or "")
    return PackagedFile(file or "", "")
