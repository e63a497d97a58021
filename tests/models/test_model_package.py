"""A model package that was tampered with, is incomplete or says unknown things is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pssr_live.errors import ModelError
from pssr_live.model import find_model, read_package, shipped_models
from pssr_live_models import packages_folder
from pssr_live_models.package import npz, replace_card, write_file


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the shipped package that may be spoiled."""
    return Path(shutil.copytree(packages_folder() / "neuron_mf", tmp_path / "neuron_mf"))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def test_the_shipped_model_is_found_by_name() -> None:
    assert "neuron_mf" in [folder.name for folder in shipped_models()]
    assert find_model("neuron_mf").manifest.name == "neuron_mf"


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ModelError, match=r"neuron_mff.*neuron_mf"):
        find_model("neuron_mff")


@pytest.mark.parametrize("file", ["neuron_mf.onnx", "test_pair.npz", "card.md"])
def test_one_changed_byte_is_refused(package: Path, file: str) -> None:
    content = bytearray((package / file).read_bytes())
    content[len(content) // 2] ^= 1
    (package / file).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{file} does not match its sha256"):
        read_package(package)


@pytest.mark.parametrize("file", ["manifest.json", "neuron_mf.onnx", "test_pair.npz", "card.md"])
def test_a_missing_file_is_refused(package: Path, file: str) -> None:
    (package / file).unlink()
    with pytest.raises(ModelError, match=file):
        read_package(package)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(run_after_install="x"), "run_after_install"),
        (lambda m: m["network"].update(url="x"), "url"),
        (lambda m: m.pop("scale"), "scale"),
        (lambda m: m.update(format=2), "format"),
        (lambda m: m.update(centre=5), "centre 5"),
        (lambda m: m.update(normalisation="movie-maximum"), "normalisation"),
        (lambda m: m["network"].update(file="../neuron_mf.onnx"), "file"),
        (lambda m: m["network"].update(file="/neuron_mf.onnx"), "file"),
        (lambda m: m["card"].update(sha256="0" * 64), "card.md"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    package: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    rewrite(package, change)
    with pytest.raises(ModelError, match=says):
        read_package(package)


def test_a_pickle_in_the_test_pair_is_not_executed(package: Path) -> None:
    with (package / "test_pair.npz").open("wb") as file:
        np.savez(file, window=np.array([{"a": 1}], dtype=object), restored=np.zeros(1))
    digest = write_file(package / "test_pair.npz", (package / "test_pair.npz").read_bytes())
    rewrite(package, lambda m: m["test_pair"].update(sha256=digest.sha256))
    with pytest.raises(ModelError, match="holds Python objects"):
        read_package(package)


def test_frames_that_are_too_small_are_refused() -> None:
    model = find_model("neuron_mf")
    low, high = model.manifest.min_size, model.manifest.max_size
    model.check_size(low, high)
    for size in ((low - 1, 64), (64, low - 1), (high + 1, 64)):
        with pytest.raises(ModelError, match="pixels per side"):
            model.check_size(*size)


def test_a_new_card_keeps_the_package_in_order(package: Path) -> None:
    replace_card(package, "# µm, ×4\n")
    assert read_package(package).card() == "# µm, ×4\n"


def test_packed_arrays_have_the_same_bytes_each_time_and_can_be_read(tmp_path: Path) -> None:
    arrays = {"window": np.arange(12, dtype=np.uint16).reshape(3, 4)}
    assert npz(arrays) == npz(arrays)
    (tmp_path / "pair.npz").write_bytes(npz(arrays))
    with np.load(tmp_path / "pair.npz", allow_pickle=False) as pair:
        np.testing.assert_array_equal(pair["window"], arrays["window"])
