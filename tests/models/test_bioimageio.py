"""What ships is a bioimage.io model too, and bioimage.io models that fit can be run."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tifffile
from numpy.typing import NDArray
from ruamel.yaml import YAML

pytest.importorskip("PIL")

from pssr_live.cli import main
from pssr_live.engine.check import check_test_pair
from pssr_live.errors import ModelError
from pssr_live.model import find_model, read_package, shipped_models
from pssr_live_models.bioimageio_package import write_rdf
from tests.models.small_packages import network, package, restored, window

Change = Callable[[dict[str, Any]], None]

OFFICIAL = """
import json, socket, sys

def refuse(*_, **__):
    raise OSError("tests do not use the network")

socket.socket.connect = socket.getaddrinfo = refuse
from bioimageio.core import test_model
from bioimageio.spec import InvalidDescr, load_model_description

found = {}
for file in sys.argv[1:]:
    summary = test_model(file, weight_format="onnx")
    errors = [error.msg for detail in summary.details for error in detail.errors]
    found[file] = [summary.status, [detail.name for detail in summary.details], errors]
print(json.dumps(found))
"""


def judged(files: list[Path], cache: Path) -> dict[str, tuple[str, list[str], list[str]]]:
    """Ask bioimageio.core, in a process of its own that cannot reach the network."""
    if importlib.util.find_spec("bioimageio") is None:
        pytest.skip("bioimageio.core is not installed")
    done = subprocess.run(
        [sys.executable, "-c", OFFICIAL, *map(str, files)],
        env={**os.environ, "BIOIMAGEIO_CACHE_PATH": str(cache)},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[str, list[str], list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def npy(array: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def foreign(
    folder: Path,
    change: Change = lambda _: None,
    *,
    model: onnx.ModelProto | None = None,
    least: int = 16,
    step: int = 4,
    raw: NDArray[Any] | None = None,
) -> Path:
    """Write a package as somebody else would: other names of the ends, sizes in steps."""
    folder.mkdir()
    raw = window() if raw is None else raw
    scores = (restored(window()) - window().mean()) / window().std()
    built = model or network(ends=("input0", "output0"))
    files = {
        "weights.onnx": built.SerializeToString(),
        "in.npy": npy(raw[None]),
        "out.npy": npy(scores[None, None].astype(np.float32)),
        "README.md": b"# Small\n\nAn average.\n",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    of = {name: {"source": name, "sha256": digest(content)} for name, content in files.items()}
    size = {"min": least, "step": step}
    described: dict[str, Any] = {
        "type": "model",
        "format_version": "0.5.3",
        "name": "Small (average)",
        "license": "MIT",
        "documentation": of["README.md"],
        "tags": ["something", "we do not know"],
        "inputs": [
            {
                "id": "raw",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": list("abcde")},
                    {"type": "space", "id": "y", "size": size, "scale": 170, "unit": "nanometer"},
                    {"type": "space", "id": "x", "size": size, "scale": 170, "unit": "nanometer"},
                ],
                "test_tensor": of["in.npy"],
                "preprocessing": [{"id": "zero_mean_unit_variance", "kwargs": {"eps": 1e-06}}],
            }
        ],
        "outputs": [
            {
                "id": "better",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["better"]},
                    *(
                        {
                            "type": "space",
                            "id": axis,
                            "size": {"tensor_id": "raw", "axis_id": axis},
                            "scale": 42.5,
                            "unit": "nanometer",
                        }
                        for axis in "yx"
                    ),
                ],
                "test_tensor": of["out.npy"],
            }
        ],
        "weights": {"onnx": {**of["weights.onnx"], "opset_version": 20}},
    }
    change(described)
    with (folder / "rdf.yaml").open("wb") as file:
        YAML().dump(described, file)
    return folder


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return path


def command(monkeypatch: pytest.MonkeyPatch, *asked: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pssr-live", *asked])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


class TestShipped:
    def test_bioimageio_accepts_each_and_restores_with_it(self, tmp_path: Path) -> None:
        files = [folder / "rdf.yaml" for folder in shipped_models()]
        assert files
        assert all(file.is_file() for file in files), "write what is missing with write_rdf"
        for file, (status, steps, errors) in judged(files, tmp_path / "cache").items():
            assert (status, errors) == ("passed", []), file
            assert "Reproduce test outputs from test inputs (onnx)" in steps

    @pytest.mark.parametrize("folder", list(shipped_models()), ids=lambda folder: folder.name)
    def test_the_description_is_that_of_the_package_as_it_is_today(self, folder: Path) -> None:
        described = YAML(typ="safe").load(folder / "rdf.yaml")
        manifest = read_package(folder).manifest
        assert described["version"] == manifest.version
        assert described["weights"]["onnx"]["sha256"] == manifest.network.sha256
        assert described["documentation"]["sha256"] == manifest.card.sha256, "call write_rdf again"

    def test_the_same_package_gives_the_same_files(self, tmp_path: Path) -> None:
        folders = [package(tmp_path / name) for name in ("one", "two")]
        for folder in folders:
            write_rdf(folder)
        one, two = ({f.name: f.read_bytes() for f in folder.iterdir()} for folder in folders)
        assert one == two
        assert len(one) == 8

    def test_it_can_be_read_back_from_its_description_alone(self, tmp_path: Path) -> None:
        folder = package(tmp_path / "small")
        write_rdf(folder)
        (folder / "manifest.json").unlink()
        model = find_model(str(folder))
        assert model.manifest.name == "pssr_live_small"
        assert (model.manifest.window_length, model.manifest.centre, model.manifest.scale) == (
            5,
            2,
            4,
        )
        assert model.network == (folder / "small.onnx").read_bytes()
        np.testing.assert_array_equal(model.test_pair().window, window())
        np.testing.assert_allclose(model.test_pair().restored, restored(window()), atol=1e-2)

    def test_one_that_the_format_cannot_describe_is_not_described(self, tmp_path: Path) -> None:
        folder = package(
            tmp_path / "small", normalisation="window-maximum", training_statistics=(0.1, 0.2)
        )
        with pytest.raises(ValueError, match="cannot be described"):
            write_rdf(folder)
        assert not (folder / "rdf.yaml").exists()


class TestForeign:
    @pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
    def test_one_that_fits_runs_like_any_model(
        self, tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = foreign(tmp_path / "theirs")
        if packed:
            path = zipped(path)
        asked = ["--scope", "sim", "--size", "50", "--frames", "12", "--interval-ms", "0"]
        out = tmp_path / "runs"
        code = command(monkeypatch, *asked, "--no-view", "--model", str(path), "--out", str(out))
        assert code == 0
        (run,) = out.iterdir()
        assert run.name.endswith("_sim_small_average")
        assert tifffile.imread(run / "raw.ome.tif").shape == (12, 50, 50)
        planes = tifffile.imread(run / "restored.ome.tif")
        assert planes.shape == (12, 200, 200)
        raw = tifffile.imread(run / "raw.ome.tif")
        expected = raw[3:8].mean(axis=0).repeat(4, 0).repeat(4, 1)
        expected += raw[5].mean() - expected.mean()
        assert np.abs(planes[5] - expected).max() <= 1

    def test_it_is_verified_by_its_own_test_tensors(self, tmp_path: Path) -> None:
        model = find_model(str(foreign(tmp_path / "theirs")))
        worst, _ = check_test_pair(model, "openvino", "fp32")
        assert worst <= 1e-4

    def test_what_it_says_about_itself_is_kept(self, tmp_path: Path) -> None:
        model = find_model(str(foreign(tmp_path / "theirs")))
        manifest = model.manifest
        assert (manifest.name, manifest.licence) == ("small_average", "MIT")
        assert manifest.pixel_size_um == pytest.approx((0.17, 0.17))
        assert manifest.keeps_mean
        assert "An average." in model.card()
        assert "Nothing about its quality was measured here" in model.card()

    def test_test_frames_of_any_brightness_will_do(self, tmp_path: Path) -> None:
        bright = window().astype(np.float32) / 5000 - 0.3
        model = find_model(str(foreign(tmp_path / "theirs", raw=bright)))
        worst, _ = check_test_pair(model, "openvino", "fp32")
        assert worst <= 1e-3

    def test_one_whose_input_is_normalised_already_needs_no_word_about_it(
        self, tmp_path: Path
    ) -> None:
        raw = window()
        scored = ((raw - raw.mean()) / raw.std()).astype(np.float32)
        path = foreign(
            tmp_path / "theirs", lambda d: d["inputs"][0].pop("preprocessing"), raw=scored
        )
        worst, _ = check_test_pair(find_model(str(path)), "openvino", "fp32")
        assert worst <= 1e-3

    def test_one_size_only_means_no_other(self, tmp_path: Path) -> None:
        def one_size(described: dict[str, Any]) -> None:
            for axis in described["inputs"][0]["axes"][2:]:
                axis["size"] = 32

        raw = np.random.default_rng(1).integers(0, 900, (5, 32, 32), np.uint16)
        built = network(ends=("input0", "output0"), size=(32, 32))
        path = foreign(tmp_path / "theirs", one_size, model=built, raw=raw)
        scores = (restored(raw) - raw.mean()) / raw.std()
        (path / "out.npy").write_bytes(npy(scores[None, None].astype(np.float32)))
        described = YAML().load(path / "rdf.yaml")
        del described["outputs"][0]["test_tensor"]["sha256"]
        YAML().dump(described, path / "rdf.yaml")
        model = find_model(str(path))
        model.check_size(32, 32)
        with pytest.raises(ModelError, match="32 to 32 pixels per side"):
            model.check_size(36, 32)
        assert check_test_pair(model, "openvino", "fp32")[0] <= 1e-3

    def test_without_units_its_pixel_size_is_doubted(self, tmp_path: Path) -> None:
        def no_units(described: dict[str, Any]) -> None:
            for end in (described["inputs"][0], described["outputs"][0]):
                for axis in end["axes"][2:]:
                    del axis["unit"]

        model = find_model(str(foreign(tmp_path / "theirs", no_units)))
        assert model.manifest.pixel_size_um is None
        assert "does not say which pixel sizes" in (model.doubt_about_pixel_size(0.17) or "")


def put(value: object, *where: str | int) -> Change:
    def change(described: dict[str, Any]) -> None:
        place: Any = described
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = value

    return change


Y_IN = ("inputs", 0, "axes", 2)
Y_OUT = ("outputs", 0, "axes", 2)
STEPS = ("inputs", 0, "preprocessing")
ONNX = ("weights", "onnx")


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (put("0.4.10", "format_version"), "models of format 0.5 are read"),
            (put("bcyx", "inputs", 0, "axes"), r"no model description .Expected `array`"),
            (put("dataset", "type"), "it is a dataset"),
            (put({"pytorch_state_dict": {}}, "weights"), r"no ONNX weights \(but pytorch_state_"),
            (put({"source": "weights.onnx"}, *ONNX), "ONNX weights have no sha256"),
            (put("0" * 64, *ONNX, "sha256"), "weights.onnx does not match its sha256"),
            (put("../weights.onnx", *ONNX, "source"), "No such file|leads out of the package"),
            (put("/etc/hostname", *ONNX, "source"), "leads out of the package"),
            (put("https://example.org/w.onnx", *ONNX, "source"), "is not in the package"),
            (put({"source": "w.data"}, *ONNX, "external_data"), "split over several files"),
            (put("missing.npy", "inputs", 0, "test_tensor", "source"), "missing.npy"),
            (put("0" * 64, "outputs", 0, "test_tensor", "sha256"), "out.npy does not match"),
            (put(None, "outputs", 0, "test_tensor"), "it has no test tensors"),
            (put([{"id": "scale_range"}], *STEPS), r"preprocessing \(scale_range\)"),
            (put(["y", "x"], *STEPS, 0, "kwargs", "axes"), "of all frames together"),
            (put("per_dataset", *STEPS, 0, "kwargs", "mode"), "of all frames together"),
            (put(0.1, *STEPS, 0, "kwargs", "eps"), r"of all frames together \(eps up to 0\.001\)"),
            (put([], *STEPS), "does not say how its input is normalised"),
            (put([{"id": "sigmoid"}], "outputs", 0, "postprocessing"), "further .sigmoid"),
            (put("z", *Y_IN, "id"), "axes z and x"),
            (put("channel", *Y_IN, "type"), "axes batch, channel, channel, space"),
            (put(["only"], "inputs", 0, "axes", 1, "channel_names"), "takes 5 channels|shape"),
            (put(list("abcd"), "inputs", 0, "axes", 1, "channel_names"), "has 4 frames; an odd"),
            (put({"min": 8, "step": 4}, *Y_IN, "size"), "other heights than widths"),
            (put(64, *Y_IN, "size"), "other heights than widths"),
            (put(["a", "b"], "outputs", 0, "axes", 1, "channel_names"), "not one plane"),
            (put(50.0, *Y_OUT, "scale"), "not a whole number of times"),
            (put(3, *Y_OUT, "size", "offset"), "is cropped"),
            (put([], "inputs"), "0 inputs and 1 outputs"),
            (put("many", "inputs"), "no model description"),
        ],
    )
    def test_what_does_not_fit_is_said_in_one_line(
        self, tmp_path: Path, change: Change, says: str
    ) -> None:
        path = foreign(tmp_path / "theirs", change)
        with pytest.raises(ModelError, match=says) as caught:
            find_model(str(path))
        assert "\n" not in str(caught.value)

    def test_a_network_that_is_another_than_described_is_refused(self, tmp_path: Path) -> None:
        built = network(ends=("input0", "output0"), scale=8)
        with pytest.raises(ModelError, match=r"makes 1×1×128×128 of frames of 16×16 pixels, not"):
            find_model(str(foreign(tmp_path / "theirs", model=built)))

    def test_one_of_an_older_format_is_told_by_its_format_not_by_its_fields(
        self, tmp_path: Path
    ) -> None:
        def older(described: dict[str, Any]) -> None:
            described["format_version"] = "0.4.10"
            described["test_inputs"] = ["in.npy"]
            for tensor, name in ((described["inputs"][0], "raw"), (described["outputs"][0], "out")):
                tensor.pop("id")
                tensor.update(axes="bcyx", name=name)

        with pytest.raises(ModelError, match=r"it has the format 0\.4\.10; .* update-format"):
            find_model(str(foreign(tmp_path / "theirs", older)))

    def test_one_of_something_else_is_told_by_its_type(self, tmp_path: Path) -> None:
        (tmp_path / "rdf.yaml").write_text(
            "type: dataset\nformat_version: 0.3.0\nname: Cells\n", encoding="utf-8"
        )
        with pytest.raises(ModelError, match="it is a dataset, no model"):
            find_model(str(tmp_path))

    @pytest.mark.parametrize(
        "text",
        [
            "!!python/object/apply:os.system ['echo']",
            "[" * 3000,
            "a: 1\na: 2",
            "inputs: &a [*a]",
            "just words",
            "",
            "\x00",
        ],
    )
    def test_a_description_that_is_none_is_refused_and_nothing_in_it_runs(
        self, tmp_path: Path, text: str
    ) -> None:
        (tmp_path / "rdf.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ModelError, match="no model description") as caught:
            find_model(str(tmp_path))
        assert "\n" not in str(caught.value)

    def test_a_run_ends_with_the_exit_code_of_a_model(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = zipped(foreign(tmp_path / "theirs", put([{"id": "clip"}], *STEPS)))
        out = tmp_path / "runs"
        asked = ["--scope", "sim", "--no-view", "--model", str(path), "--out", str(out)]
        code = command(monkeypatch, *asked)
        assert code == ModelError.exit_code
        assert capsys.readouterr().err.count("\n") == 1
        assert not out.exists()
