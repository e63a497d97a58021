"""A package that could harm, mislead or break is refused in one line before an engine sees it."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pssr_live.cli import main
from pssr_live.engine.check import check_test_pair
from pssr_live.errors import ModelError
from pssr_live.model import ModelPackage, read_package, shipped_models
from pssr_live.model import files as package_files
from pssr_live.model.files import files_of_zip, read_npy
from pssr_live.model.network import check_network
from pssr_live_models.package import npz
from tests.models.small_packages import HEIGHT, WIDTH, network, package, restored, window

Change = Callable[[onnx.ModelProto], None]


SMALL = network().SerializeToString()


def refused(folder: Path, says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        read_package(folder)
    assert "\n" not in str(caught.value)


def changed(change: Change, **how: Any) -> onnx.ModelProto:
    model = network(**how)
    change(model)
    return model


def outside(location: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


def weights_with(value: float, at: type[np.floating[Any]] = np.float32) -> Change:
    def change(model: onnx.ModelProto) -> None:
        kernel = numpy_helper.to_array(model.graph.initializer[0]).astype(at)
        kernel[3, 2] = value
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "kernel"))

    return change


def constant_with(value: float) -> Change:
    """Put a constant into a node, within a branch of another one."""

    def change(model: onnx.ModelProto) -> None:
        tensor = helper.make_tensor("", TensorProto.FLOAT, [1], [value])
        inner = helper.make_graph(
            [helper.make_node("Constant", [], ["one"], value=tensor)],
            "branch",
            [],
            [helper.make_tensor_value_info("one", TensorProto.FLOAT, [1])],
        )
        node = helper.make_node("If", ["yes"], ["some"], then_branch=inner, else_branch=inner)
        model.graph.node.insert(0, node)
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))

    return change


def operator(domain: str, declared: bool) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].domain = domain
        if declared:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def test_a_package_that_is_in_order_is_read_and_runs(tmp_path: Path) -> None:
    model = read_package(package(tmp_path / "small"))
    worst, _ = check_test_pair(model, "openvino", "fp32")
    assert worst <= 1e-4


@pytest.mark.parametrize("folder", list(shipped_models()), ids=lambda folder: folder.name)
def test_what_ships_is_in_order(folder: Path) -> None:
    assert isinstance(read_package(folder), ModelPackage)


class TestNetwork:
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (outside("weights.bin"), r"kernel is kept in another file \(weights\.bin\)"),
            (outside("../../other"), r"kernel is kept in another file \(\.\./\.\./other\)"),
            (outside("/etc/hostname"), r"kernel is kept in another file \(/etc/hostname\)"),
            (weights_with(math.nan), "kernel holds values that are no finite numbers"),
            (weights_with(math.inf), "kernel holds values that are no finite numbers"),
            (constant_with(math.nan), "a constant holds values that are no finite numbers"),
            (operator("com.example", declared=True), r"the operator com\.example\.Conv, which"),
            (operator("com.example", declared=False), r"the operator com\.example\.Conv, which"),
            (operator("com.microsoft", declared=True), r"the operator com\.microsoft\.Conv"),
        ],
    )
    def test_what_it_should_not_hold_is_refused(
        self, tmp_path: Path, change: Change, says: str
    ) -> None:
        refused(package(tmp_path / "small", changed(change)), says)

    def test_weights_in_another_file_are_not_even_looked_for(self, tmp_path: Path) -> None:
        folder = package(tmp_path / "small", changed(outside("weights.bin")))
        kernel = numpy_helper.to_array(network().graph.initializer[0])
        (folder / "weights.bin").write_bytes(kernel.tobytes())
        refused(folder, "kept in another file")

    @pytest.mark.parametrize(
        ("model", "says"),
        [
            (network(frames=3), "takes 3 channels, not 5 frames as its manifest says"),
            (network(scale=2), r"makes 1×1×38×42 of frames of 19×21 pixels, not 1×1×76×84"),
            (network(size=(64, 64)), "takes 1×5×64×64 only, not frames of 16 to 4096"),
            (network(kind=TensorProto.DOUBLE), "its input is not float32"),
        ],
    )
    def test_one_that_is_not_what_the_manifest_says_is_refused(
        self, tmp_path: Path, model: onnx.ModelProto, says: str
    ) -> None:
        refused(package(tmp_path / "small", model), says)

    def test_frames_that_its_first_layer_cannot_take_are_noticed_though_it_states_no_number(
        self, tmp_path: Path
    ) -> None:
        model = network(frames=3)
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "frames"
        refused(package(tmp_path / "small", model), "Conv|takes 3 channels but gets 5")

    def test_a_size_that_its_kernels_are_too_large_for_is_refused(self, tmp_path: Path) -> None:
        model = network()
        kernel = numpy_helper.from_array(np.zeros((16, 5, 31, 31), np.float32), "kernel")
        model.graph.initializer[0].CopyFrom(kernel)
        refused(package(tmp_path / "small", model), r"Conv would make arrays of \(1, 16, -11, -9\)")

    def test_sizes_that_are_computed_are_followed(self, tmp_path: Path) -> None:
        model = network()
        shape = helper.make_node("Shape", ["restored_all"], ["size"], start=2)
        halve = helper.make_node("Div", ["size", "two"], ["half"])
        crop = helper.make_node("Slice", ["restored_all", "zeros", "half", "axes"], ["restored"])
        model.graph.node[1].output[0] = "restored_all"
        model.graph.node.extend([shape, halve, crop])
        for name, values in {"two": [2], "zeros": [0, 0], "axes": [2, 3]}.items():
            model.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
        refused(package(tmp_path / "small", model), "makes 1×1×38×42 of frames")

    @pytest.mark.parametrize(
        "content",
        [b"", b"nothing of the kind", b"\0" * 100, *(SMALL[:cut] for cut in (9, 150, 300, -1))],
    )
    def test_bytes_that_are_no_network_are_refused(self, tmp_path: Path, content: bytes) -> None:
        refused(package(tmp_path / "small", content), "it is no ONNX file, or")

    def test_no_damage_breaks_more_than_the_network(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        manifest = read_package(package(tmp_path / "small")).manifest
        found = []
        for at in rng.integers(0, len(SMALL), 200):
            spoiled = bytearray(SMALL)
            spoiled[at] = rng.integers(0, 256)
            with contextlib.suppress(ModelError):
                check_network(bytes(spoiled), manifest)
                found.append(at)
        assert len(found) < 200

    @pytest.mark.parametrize("precision", ["fp16", "int8"])
    def test_networks_for_other_arithmetic_are_looked_through_too(
        self, tmp_path: Path, precision: str
    ) -> None:
        bad = changed(weights_with(math.nan))
        folder = package(tmp_path / "small", variants={precision: bad})
        refused(folder, f"the {precision} network of model small: kernel holds")

    def test_half_precision_weights_that_overflowed_are_refused(self, tmp_path: Path) -> None:
        model = network()
        half = np.full((16, 5, 1, 1), np.inf, np.float16)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(half, "half"))
        cast = helper.make_node("Cast", ["half"], ["kernel"], to=TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
        refused(package(tmp_path / "small", variants={"fp16": model}), "half holds values that are")


class TestFiles:
    @pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
    @pytest.mark.parametrize("name", ["manifest.json", "small.onnx", "test_pair.npz", "card.md"])
    def test_a_link_out_of_the_package_is_refused(self, tmp_path: Path, name: str) -> None:
        folder = package(tmp_path / "small")
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
        refused(folder, f"{name} leads out of the package")

    @pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
    def test_a_package_that_is_itself_a_link_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(package(tmp_path / "small"))
        assert read_package(tmp_path / "link").manifest.name == "small"

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
    def test_a_pipe_does_not_hold_the_daemon(self, tmp_path: Path) -> None:
        folder = package(tmp_path / "small")
        (folder / "card.md").unlink()
        os.mkfifo(folder / "card.md")
        refused(folder, "no ordinary file")

    @pytest.mark.parametrize("kind", ["network", "arrays", "card", "description"])
    def test_files_above_the_limit_are_not_read(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(package_files.LIMITS, kind, 5)
        refused(package(tmp_path / "small"), "MiB, more than")

    def test_archives_that_unpack_to_more_than_the_limit_are_not_unpacked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair = {"window": np.zeros((5, 400, 400), np.uint16), "restored": np.zeros((1, 1))}
        folder = package(tmp_path / "small", pair=pair)
        monkeypatch.setitem(package_files.LIMITS, "arrays", 1 << 20)
        refused(folder, "unpacks to more than 1 MiB")


class TestPairs:
    @pytest.mark.parametrize(
        ("pair", "says"),
        [
            ({"window": window(3)}, "not 5 frames of uint16"),
            ({"window": window().astype(np.float32)}, "float32 .* not 5 frames of uint16"),
            ({"restored": restored(window(), 2)}, r"\(48, 40\), not float32 \(96, 80\)"),
            ({"restored": restored(window()) * np.nan}, "restored in .* no finite numbers"),
            ({"truth": np.zeros((2, 2), np.float32)}, r"truth in .* \(2, 2\), not float32"),
            ({"more": np.zeros(1)}, "holds window, restored, more"),
        ],
    )
    def test_pairs_that_do_not_fit_the_manifest_are_refused(
        self, tmp_path: Path, pair: dict[str, Any], says: str
    ) -> None:
        arrays = {"window": window(), "restored": restored(window()), **pair}
        refused(package(tmp_path / "small", pair=arrays), says)

    def test_they_cannot_be_changed_by_those_who_read_them(self, tmp_path: Path) -> None:
        pair = read_package(package(tmp_path / "small")).test_pair()
        assert pair.window.shape == (5, HEIGHT, WIDTH)
        with pytest.raises(ValueError, match="read-only"):
            pair.restored[0, 0] = 1

    def test_an_array_that_claims_to_be_huge_is_not_made(self) -> None:
        content = bytearray(npz({"a": np.zeros((2, 3))}))
        assert content
        header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (%s,), }"
        array = (header % b"99999999999999").ljust(127) + b"\n" + bytes(8)
        with pytest.raises(ValueError, match="does not hold"):
            read_npy(array)


class TestManifest:
    @pytest.mark.parametrize(
        ("said", "says"),
        [
            ({"min_size": 200, "max_size": 100}, "min_size 200 is above max_size 100"),
            ({"pixel_size_um": (0.3, 0.2)}, "0.3 to 0.2 is no range"),
            ({"pixel_size_um": (0.0, 0.2)}, "0.0 to 0.2 is no range"),
            ({"max_size": 10**9}, "max_size"),
        ],
    )
    def test_one_that_contradicts_itself_is_refused(
        self, tmp_path: Path, said: dict[str, Any], says: str
    ) -> None:
        refused(package(tmp_path / "small", **said), says)

    def test_it_may_leave_pixel_sizes_open_and_then_they_are_doubted(self, tmp_path: Path) -> None:
        model = read_package(package(tmp_path / "small", pixel_size_um=None))
        assert "does not say which pixel sizes" in (model.doubt_about_pixel_size(0.17) or "")
        assert model.doubt_about_pixel_size(None) is None

    @pytest.mark.parametrize(
        ("size_um", "doubted"), [(0.12, True), (0.131, False), (0.229, False), (0.24, True)]
    )
    def test_pixels_more_than_15_percent_off_are_doubted(
        self, tmp_path: Path, size_um: float, doubted: bool
    ) -> None:
        model = read_package(package(tmp_path / "small"))
        assert (model.doubt_about_pixel_size(size_um) is not None) == doubted


class TestArchives:
    @pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../b", "C:\\x", "..\\x", "\\x"])
    def test_names_that_lead_out_are_refused(self, tmp_path: Path, name: str) -> None:
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr(name, b"")
        with pytest.raises(ModelError, match="leads out of the package"):
            files_of_zip(tmp_path / "bad.zip")

    def test_what_is_missing_or_damaged_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 nothing")
        with pytest.raises(ModelError, match="no archive that can be read"):
            files_of_zip(tmp_path / "bad.zip")
        with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
            pass
        with pytest.raises(ModelError, match="no item named 'rdf"):
            files_of_zip(tmp_path / "empty.zip")("rdf.yaml", "description")


def test_a_run_with_a_refused_package_ends_at_once_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = package(tmp_path / "small", changed(weights_with(math.nan)))
    out = tmp_path / "runs"
    asked = ["--scope", "sim", "--model", str(folder), "--no-view", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["pssr-live", *asked])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == ModelError.exit_code
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "no finite numbers" in printed
    assert not out.exists()
