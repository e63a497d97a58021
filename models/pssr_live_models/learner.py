"""A published learner's network and normalisation, read from its file without running anything."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pssr_live.errors import ModelError, UsageError
from pssr_live_models.fastai_file import Saved, read_saved, state_dict
from pssr_live_models.inert_pickle import Record, StoredTensor
from pssr_live_models.paper_network import SCALE, PaperNetwork

__all__ = ["ImportedLearner", "read_learner"]

_FIRST_LAYER = "model.layers.0.0.0.weight_v"
_LONGEST_WINDOW = 15


@dataclass(frozen=True, slots=True, eq=False)
class ImportedLearner:
    """A published learner.

    Attributes
    ----------
    network : PaperNetwork
        Its network, in evaluation mode. What goes in and what comes out is on one scale.
    training_statistics : tuple of float
        That scale: mean and standard deviation of the training images (brightest pixel 1).
    sha256 : str
        Hash of the file.
    """

    network: PaperNetwork
    training_statistics: tuple[float, float]
    sha256: str


def read_learner(
    file: Path, training_statistics: tuple[float, float] | None = None
) -> ImportedLearner:
    """Read a published learner.

    Parameters
    ----------
    file : Path
        ``Learner.export()`` (``.pkl``) or ``learn.save()`` (``.pth``).
    training_statistics : tuple of float, optional
        Mean and standard deviation that the training normalised by, for a file that holds weights
        alone.

    Returns
    -------
    ImportedLearner

    Raises
    ------
    ModelError
        The file is damaged, unsafe or not a PSSR network, or its normalisation is unknown.
    """
    saved = read_saved(file)
    network = _network(saved)
    before, after = _normalisation(saved, training_statistics)
    network.scale_output(after[1] / before[1], (after[0] - before[0]) / before[1])
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return ImportedLearner(network, before, digest)


def _network(saved: Saved) -> PaperNetwork:
    """Fill the published network with a file's weights, once they are known to fit."""

    def refuse(why: str) -> ModelError:
        return ModelError(
            f"weights {saved.path}", why, "import a learner of the published PSSR network"
        )

    weights = state_dict(saved)
    model = saved.root.get("model") if isinstance(saved.root, dict) else None
    if isinstance(model, Record):
        wrapper = model.attributes()
        if (wrapper.get("scale"), wrapper.get("mode")) != (SCALE, "bilinear"):
            raise refuse(f"its network does not first upsample {SCALE} times, bilinearly")
    first = weights.get(_FIRST_LAYER)
    if first is None or first.ndim != 4 or not 1 <= first.shape[1] <= _LONGEST_WINDOW:
        raise refuse(f"its network has no {_FIRST_LAYER} for 1 to {_LONGEST_WINDOW} frames")
    with torch.device("meta"):  # no time or memory for weights that are replaced
        network = PaperNetwork(first.shape[1]).eval()
    own = network.state_dict()
    for name in own:
        if name not in weights:
            raise refuse(f"its network has no {name}")
    tensors = {}
    for name, values in weights.items():
        if name not in own:
            raise refuse(f"its network has {name[:80]!r}, which the published one has not")
        if values.shape != tuple(own[name].shape):
            raise refuse(f"its {name} is {values.shape} instead of {tuple(own[name].shape)}")
        # As torch keeps it: what overflows there is no number either.
        tensors[name] = torch.from_numpy(np.array(values)).to(own[name].dtype)
        if not (np.isfinite(values).all() and torch.isfinite(tensors[name]).all()):
            raise refuse(f"its {name} has values that are no numbers")
    network.load_state_dict(tensors, assign=True)
    return network


def _normalisation(
    saved: Saved, given: tuple[float, float] | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Find mean and standard deviation of what goes in and of what comes out."""
    data = saved.root.get("data") if isinstance(saved.root, dict) else None
    if not isinstance(data, dict):
        if given is None:
            raise ModelError(
                f"weights {saved.path}",
                "it holds weights alone, not the normalisation they were trained with",
                "import the exported learner (.pkl), or give --mean and --std of the training",
            )
        return given, given
    if given is not None:
        raise UsageError(
            "--mean and --std",
            "this learner says itself what it was trained with",
            "leave them out",
        )
    stated = data.get("normalize")
    if not isinstance(stated, dict):
        return (0.0, 1.0), (0.0, 1.0)
    mean, std = (_scalar(saved, stated.get(name), name) for name in ("mean", "std"))
    if std <= 0:
        raise ModelError(f"weights {saved.path}", f"its std is {std}", "import another learner")
    before, after = (
        (mean, std) if stated.get(side) is True else (0.0, 1.0) for side in ("do_x", "do_y")
    )
    return before, after


def _scalar(saved: Saved, value: object, name: str) -> float:
    values = saved.array(value) if isinstance(value, StoredTensor) else np.array([])
    if values.size == 0 or not np.isfinite(values).all() or np.ptp(values) > 0:
        raise ModelError(
            f"weights {saved.path}",
            f"the {name} of its normalisation is not one number",
            "import a learner that was trained on images of one channel",
        )
    return float(values.flat[0])
