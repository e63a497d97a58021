"""Make a model package of a published PSSR learner: ``pssr-live models import``.

Nothing in the file is executed; see `pssr_live_models.inert_pickle`. Needs torch and onnx.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from pssr_live.engine.check import check_test_pair
from pssr_live.engine.normalise import normalise
from pssr_live.engine.tile import BLEND
from pssr_live.errors import ModelError, StorageError, UsageError
from pssr_live.frames import Frame
from pssr_live.model import Manifest, ModelPackage, Tiling, read_package
from pssr_live_models.learner import ImportedLearner, read_learner
from pssr_live_models.package import npz, write_file, write_manifest
from pssr_live_models.paper_network import SCALE, PaperNetwork, frozen

__all__ = [
    "MAX_SIZE",
    "MIN_SIZE",
    "TILE",
    "TILE_OVERLAP",
    "import_package",
    "onnx_bytes",
]

MIN_SIZE, MAX_SIZE = 16, 4096

TILE = 128
"""Largest height or width in one piece, scanned pixels: the published code's tile.

The attention layer compares (H/2 · W/2)² pairs of positions: 67 MB at 128×128, 9.4 GB at 440×440.
"""

TILE_OVERLAP = 24
"""Scanned pixels that neighbouring tiles share; four times what the published code takes.

The network looks at all of its input, so tiles differ everywhere, but near their borders much more.
Frames of 440×440 come out of 16 tiles, as in the published code.
"""

_SEAMS = {
    False: f"over the middle {BLEND} pixels of which one passes into the other",
    True: "cut in the middle of it; 10 restored pixels at each seam are then blurred (Gaussian, "
    "σ = 1), as the published code does",
}
_OPSET = 20
_LARGEST_PIXEL_UM = 50
"""Above it stand nanometres that were taken for micrometres."""

_LARGEST_SCORE = 1e6
"""No restored pixel is so many standard deviations away."""
_TOLERANCE = 1e-2
"""Largest difference of an fp32 engine from torch, in the network's own units; as ``verify``."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    file: Path
    name: str
    pixel_size_um: tuple[float, float]
    training_statistics: tuple[float, float] | None
    seam_blur: bool


def import_package(
    file: Path,
    out: Path,
    *,
    name: str,
    pixel_size_um: tuple[float, float],
    training_statistics: tuple[float, float] | None = None,
    seam_blur: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> ModelPackage:
    """Write a model package from a published learner, and check that it restores as torch does.

    Parameters
    ----------
    file : Path
        ``Learner.export()`` (``.pkl``) or ``learn.save()`` (``.pth``).
    out : Path
        Folder to make. It appears only when the package is complete and checked.
    name : str
        Name of the model: small letters, digits and underscores.
    pixel_size_um : tuple of float
        Range of raw pixel sizes that the model is valid for, µm.
    training_statistics : tuple of float, optional
        As in `read_learner`.
    seam_blur : bool
        Join the tiles of large frames as the published code does: cut, and blur the seams.
    on_step : callable
        Called with a few words as each step begins.

    Returns
    -------
    ModelPackage

    Raises
    ------
    UsageError
        The name, the pixel sizes or the statistics make no sense.
    ModelError
        As `read_learner`, or the package restores differently.
    StorageError
        The folder is there already or cannot be written.
    """
    wanted = _Wanted(file, name, pixel_size_um, training_statistics, seam_blur)
    _check_wanted(wanted)
    if out.exists():
        raise StorageError(f"folder {out}", "it is there already", "give a new one with --out")
    on_step("reading weights")
    learner = read_learner(file, training_statistics)
    window = _test_window(learner.network.window_length)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".importing-", dir=out.parent) as draft:
            folder = Path(draft) / "package"
            folder.mkdir()
            _write(folder, learner, window, wanted, on_step)
            on_step("comparing with torch")
            _check(read_package(folder))
            folder.rename(out)
    except OSError as error:
        raise StorageError(f"folder {out}", str(error), "free space or choose another") from error
    return read_package(out)


def onnx_bytes(network: PaperNetwork) -> bytes:
    """Write the network as ONNX that takes frames of any size.

    Nothing is padded or cropped: the network resizes its own parts to each other, and padding
    would change the averages over the frame that it looks at.

    Parameters
    ----------
    network : PaperNetwork
        Its kernels are replaced by what they amount to (`frozen`).

    Returns
    -------
    bytes
        One input ``window``, float32 ``(1, window_length, H, W)``, one output ``restored``,
        float32 ``(1, 1, 4·H, 4·W)``.
    """
    height, width = (torch.export.Dim(name, min=8, max=4096) for name in ("height", "width"))
    with _quiet_exporter():
        program = torch.onnx.export(
            frozen(network),
            (torch.zeros(1, network.window_length, 37, 42),),
            dynamo=True,
            opset_version=_OPSET,
            external_data=False,
            input_names=["window"],
            output_names=["restored"],
            dynamic_shapes={"window": {2: height, 3: width}},
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model: onnx.ModelProto = program.model_proto
    graph = model.graph
    # The exporter leaves stack traces and paths of the machine it ran on.
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    del graph.value_info[:]
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _check_wanted(wanted: _Wanted) -> None:
    name, (low, high), statistics = wanted.name, wanted.pixel_size_um, wanted.training_statistics
    if re.fullmatch("[a-z0-9_]+", name) is None:
        raise UsageError(
            f"name {name!r}", "it has other signs than a-z, 0-9 and _", "give one like my_mf"
        )
    if not 0 < low <= high < _LARGEST_PIXEL_UM:
        raise UsageError(
            f"pixel sizes {low} to {high} µm",
            f"they are no range between 0 and {_LARGEST_PIXEL_UM}",
            "give the smallest and the largest in µm, such as 0.15 0.20",
        )
    if statistics is not None and not (0 <= statistics[0] <= 1 and 0 < statistics[1] <= 1):
        raise UsageError(
            f"mean {statistics[0]} and standard deviation {statistics[1]}",
            "they are not those of images whose brightest pixel is 1",
            "give those of the training images, from 0 to 1",
        )


def _test_window(length: int) -> NDArray[np.uint16]:
    """Draw a few spots that move, with shot noise; sizes that nothing divides."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:21, :17]
    spots = rng.uniform(2, 15, (6, 2))
    frames = []
    for frame in range(length):
        squares = [(rows - y - 0.3 * frame) ** 2 + (columns - x) ** 2 for y, x in spots]
        frames.append(100 + 20 * rng.poisson(40 * np.exp(-np.array(squares) / 3).sum(axis=0) + 1))
    return np.array(frames, np.uint16)


def _write(
    folder: Path,
    learner: ImportedLearner,
    window: NDArray[np.uint16],
    wanted: _Wanted,
    on_step: Callable[[str], None],
) -> None:
    network, kind, name = learner.network, _kind(learner.network), wanted.name
    on_step("restoring the test window")
    pair = npz({"window": window, "restored": _restore(learner, window, wanted.file)})
    on_step("writing ONNX")
    manifest = Manifest(
        format=1,
        name=name,
        version="1.0.0",
        description=f"{kind}, the published network, with the weights of {_name(wanted.file)}",
        licence="that of the imported weights",
        network=write_file(folder / f"{name}.onnx", onnx_bytes(network)),
        test_pair=write_file(folder / "test_pair.npz", pair),
        card=write_file(folder / "card.md", _card(learner, wanted).encode()),
        window_length=network.window_length,
        centre=network.centre,
        scale=SCALE,
        normalisation="window-maximum",
        training_statistics=learner.training_statistics,
        min_size=MIN_SIZE,
        max_size=MAX_SIZE,
        tiling=Tiling(size=TILE, overlap=TILE_OVERLAP, seam_blur=wanted.seam_blur),
        pixel_size_um=wanted.pixel_size_um,
        trained_on=f"not stated in the imported file (sha256 {learner.sha256})",
    )
    write_manifest(folder, manifest)


def _restore(
    learner: ImportedLearner, window: NDArray[np.uint16], file: Path
) -> NDArray[np.float32]:
    scored = np.empty((1, *window.shape), np.float32)
    frames = [Frame(plane, index, 0, 0) for index, plane in enumerate(window)]
    statistics = normalise(frames, scored, learner.training_statistics)
    with torch.inference_mode():
        restored = learner.network(torch.from_numpy(scored))[0, 0].numpy()
    if not np.abs(restored).max() <= _LARGEST_SCORE:
        raise ModelError(
            f"weights {file}",
            "what they restore of a few spots are no intensities (no numbers, or far too large)",
            "import another learner",
        )
    return np.asarray(restored * statistics.std + statistics.mean, np.float32)


def _check(package: ModelPackage) -> None:
    worst, report = check_test_pair(package, "auto", None)
    if not worst <= _TOLERANCE:
        raise ModelError(
            f"model {package.manifest.name} on {report}",
            f"it differs from torch by {worst:.3g} standard deviations",
            "check that the learner restores with fastai; if so, report this",
        )


def _name(file: Path) -> str:
    """Write a file's name as text, whatever bytes a file system allows in it."""
    text = os.fsencode(file.name).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _kind(network: PaperNetwork) -> str:
    return "PSSR-SF" if network.window_length == 1 else "PSSR-MF"


def _card(learner: ImportedLearner, wanted: _Wanted) -> str:
    template = Path(__file__).with_name("import_card_template.md").read_text(encoding="utf-8")
    mean, std = learner.training_statistics
    given = wanted.training_statistics
    return Template(template).substitute(
        name=wanted.name,
        kind=_kind(learner.network),
        file=_name(wanted.file),
        argument=shlex.quote(_name(wanted.file)),
        sha256=learner.sha256,
        frames=learner.network.window_length,
        low=wanted.pixel_size_um[0],
        high=wanted.pixel_size_um[1],
        min_size=MIN_SIZE,
        max_size=MAX_SIZE,
        tile=TILE,
        overlap=TILE_OVERLAP,
        seams=_SEAMS[wanted.seam_blur],
        mean=f"{mean:.6g}",
        std=f"{std:.6g}",
        options=("" if given is None else f" --mean {given[0]} --std {given[1]}")
        + (" --seam-blur" if wanted.seam_blur else ""),
    )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep to itself what the exporter says about its own affairs."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        log.setLevel(level)
