"""Packages as people hand them on: zipped, renamed, in odd places, or made to be a nuisance."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pssr_live.cli import main
from pssr_live.engine import select
from pssr_live.errors import ModelError
from pssr_live.model import find_model, read_package
from pssr_live.model.files import read_npz
from pssr_live_models.bioimageio_package import write_rdf
from pssr_live_models.package import write_file
from tests.models.small_packages import network, package, restored, window


def refused(path: Path | str, says: str) -> str:
    """Expect one line that commands no terminal."""
    with pytest.raises(ModelError, match=says) as caught:
        find_model(str(path))
    line = str(caught.value)
    assert line.isprintable()
    return line


def zipped(folder: Path, *, inside: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inside + file.name)
    return path


def rewrite(folder: Path, **said: Any) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(manifest | said), encoding="utf-8")


class TestPlaces:
    @pytest.mark.parametrize("inside", ["", "my model/"], ids=["flat", "its folder"])
    def test_a_zip_of_a_package_is_that_package(self, tmp_path: Path, inside: str) -> None:
        folder = package(tmp_path / "small")
        model = find_model(str(zipped(folder, inside=inside)))
        assert model.manifest == read_package(folder).manifest
        assert model.network == read_package(folder).network

    def test_a_zip_made_by_finder_is_read(self, tmp_path: Path) -> None:
        path = zipped(package(tmp_path / "small"), inside="small/")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("__MACOSX/small/._manifest.json", b"\0")
        assert find_model(str(path)).manifest.name == "small"

    def test_one_changed_byte_in_a_zip_is_refused(self, tmp_path: Path) -> None:
        folder = package(tmp_path / "small")
        (folder / "card.md").write_text("something else", encoding="utf-8")
        refused(zipped(folder), "card.md does not match its sha256")

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_a_damaged_zip_is_refused_however_it_is_packed(
        self, tmp_path: Path, method: int
    ) -> None:
        path = zipped(package(tmp_path / "small"), method=method)
        content = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            start = archive.getinfo("manifest.json").header_offset + 30 + len("manifest.json")
        content[start : start + 40] = bytes(40)
        path.write_bytes(content)
        refused(path, "no archive that can be read")

    def test_a_zip_of_something_else_says_what_is_missing(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            archive.writestr("a.jpg", b"")
        refused(tmp_path / "photos.zip", "rdf.yaml")

    @pytest.mark.parametrize("file", ["manifest.json", "rdf.yaml"])
    def test_the_description_stands_for_its_package(self, tmp_path: Path, file: str) -> None:
        folder = package(tmp_path / "mö del" / "small")
        write_rdf(folder)
        assert find_model(str(folder / file)).manifest.name == "small"
        (folder / "manifest.json").unlink()
        assert find_model(str(folder / "rdf.yaml")).manifest.name == "pssr_live_small"

    def test_a_path_that_cannot_be_one_is_refused(self) -> None:
        assert len(refused("x" * 5000, "too long|no installed model")) < 6000


class TestManifest:
    @pytest.mark.parametrize(
        "said",
        [
            {"description": "nice\x1b]0;mine\x07"},
            {"trained_on": "\x1b[2J"},
            {"licence": "two\nlines"},
            {"version": "\x9b31m"},
            {"name": "small\n"},
            {"name": "a" * 300},
            {"normalisation": "window-maximum", "training_statistics": [1e300, 1e300]},
        ],
    )
    def test_what_it_says_is_fit_to_be_shown(self, tmp_path: Path, said: dict[str, Any]) -> None:
        folder = package(tmp_path / "small")
        rewrite(folder, **said)
        refused(folder, "manifest.json")

    def test_an_unknown_field_cannot_command_the_terminal(self, tmp_path: Path) -> None:
        folder = package(tmp_path / "small")
        rewrite(folder, **{"\x1b[31mred": 1})
        refused(folder, "unknown field")

    def test_bytes_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        folder = package(tmp_path / "small")
        content = (folder / "manifest.json").read_bytes()
        (folder / "manifest.json").write_bytes(content.replace(b"An average", b"\xff\xfe"))
        refused(folder, "utf-8")


class TestPair:
    def test_one_of_a_size_that_the_model_does_not_take_is_refused(self, tmp_path: Path) -> None:
        for number, raw in enumerate((window()[:, :4, :4], window()[:, :0, :0])):
            pair: dict[str, NDArray[Any]] = {"window": raw, "restored": restored(raw)}
            folder = package(tmp_path / f"small{number}", pair=pair)
            refused(folder, r"frames of \d×\d pixels, not 16 to 4096")

    @pytest.mark.parametrize(
        "header",
        [
            b"{'descr': " + b"[" * 50 + b", }",
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 60 + b",0), }",
            b"{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (1,), }",
            b"{'descr': '<V99999999999', 'fortran_order': False, 'shape': (0,), }",
        ],
    )
    def test_a_header_that_is_none_is_refused(self, tmp_path: Path, header: bytes) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117) + b"\n")
        folder = package(tmp_path / "small")
        file = write_file(folder / "test_pair.npz", packed.getvalue())
        rewrite(folder, test_pair={"file": file.file, "sha256": file.sha256})
        refused(folder, r"test_pair\.npz: ")

    def test_one_that_is_damaged_is_refused_however_it_is_packed(self) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("window.npy", bytes(1000))
        content = bytearray(packed.getvalue())
        content[40:60] = bytes(20)
        with pytest.raises(ValueError, match="no archive that can be read"):
            read_npz(bytes(content))

    def test_verify_says_when_no_engine_gives_what_the_pair_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pair: dict[str, NDArray[Any]] = {"window": window(), "restored": 3 * restored(window())}
        folder = package(tmp_path / "small", pair=pair)
        monkeypatch.setattr(select, "AUTO_ORDER", ("openvino", "torch"))
        monkeypatch.setattr(sys, "argv", ["pssr-live", "models", "verify", str(folder)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == ModelError.exit_code
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert "model small: no engine here makes of its test pair what it should" in line
        assert "pip install" not in line


def with_float(value: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = helper.make_node("Constant", [], ["more"], value_floats=[1.0, value])
        model.graph.node.insert(0, node)

    return change


def with_huge_array(model: onnx.ModelProto) -> None:
    shape = numpy_helper.from_array(np.array([100_000, 100_000, 100], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["huge"]))


def with_colours(model: onnx.ModelProto) -> None:
    kernel = model.graph.initializer[0]
    kernel.name = model.graph.node[0].input[1] = "\x1b[31mkernel\nof mine"
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value="\x1b]0;mine\x07/etc/hostname")


class TestNetwork:
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (with_float(float("nan")), "Constant holds values that are no finite numbers"),
            (with_float(float("inf")), "Constant holds values that are no finite numbers"),
            (with_huge_array, r"ConstantOfShape would make arrays of \(100000, 100000, 100\)"),
            (with_colours, "is kept in another file"),
        ],
    )
    def test_what_it_should_not_hold_is_refused(
        self, tmp_path: Path, change: Callable[[onnx.ModelProto], None], says: str
    ) -> None:
        model = network()
        change(model)
        refused(package(tmp_path / "small", model), says)
