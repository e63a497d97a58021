"""Published weights become a package; a file that tries to run code, or lies, does not."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import os
import pickle
import shutil
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from mmap import mmap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from pssr_live.engine.check import check_test_pair  # noqa: E402
from pssr_live.engine.normalise import normalise  # noqa: E402
from pssr_live.engine.restore import Restorer  # noqa: E402
from pssr_live.engine.select import prepare_engine  # noqa: E402
from pssr_live.errors import ModelError, StorageError, UsageError  # noqa: E402
from pssr_live.frames import Frame, Window  # noqa: E402
from pssr_live.model import ModelPackage, Tiling, read_package  # noqa: E402
from pssr_live_models import packages_folder  # noqa: E402
from pssr_live_models.fastai_file import read_saved, state_dict  # noqa: E402
from pssr_live_models.import_weights import import_package  # noqa: E402
from pssr_live_models.inert_pickle import Record  # noqa: E402
from pssr_live_models.learner import ImportedLearner, read_learner  # noqa: E402
from tests.models.zip_files import in_zip_form  # noqa: E402

CONFORMANCE = Path(__file__).parents[3] / "shared" / "conformance" / "paper_network"
DO_Y = (b'do_yr"\x1e\x00\x00\x88', b'do_yr"\x1e\x00\x00\x89')
"""In the learner's pickle: the output was normalised, and: it was not."""
MAGIC = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})


def unpacked(name: str, folder: Path) -> Iterator[Path]:
    """Unpack a conformance file; remove it when its tests are done."""
    if not CONFORMANCE.is_dir():
        pytest.skip("the conformance data (../shared/conformance) are not on this machine")
    path = folder / name
    with gzip.open(CONFORMANCE / f"{name}.gz") as packed, path.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def learner_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``Learner.export()`` of the original code."""
    yield from unpacked("t_5_learner.pkl", tmp_path_factory.mktemp("learner"))


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``learn.save()`` of the original code."""
    yield from unpacked("t_5_weights.pth", tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def learner(learner_file: Path) -> ImportedLearner:
    return read_learner(learner_file)


@pytest.fixture(scope="module")
def steps() -> list[str]:
    return []


@pytest.fixture(scope="module")
def package(
    learner_file: Path, steps: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelPackage]:
    folder = tmp_path_factory.mktemp("models") / "new" / "t_5"
    yield import_package(
        learner_file, folder, name="t_5", pixel_size_um=(0.15, 0.2), on_step=steps.append
    )
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def original() -> dict[str, NDArray[np.float32]]:
    """What the original code restored with that learner."""
    if not CONFORMANCE.is_dir():
        pytest.skip("the conformance data (../shared/conformance) are not on this machine")
    with np.load(CONFORMANCE / "t_5_learner_io.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def restore(learner: ImportedLearner, window: NDArray[np.float32]) -> NDArray[np.float32]:
    mean, std = learner.training_statistics
    with torch.inference_mode():
        restored = learner.network(torch.from_numpy((window[None] - mean) / std)).numpy()
    return np.asarray(np.clip(restored * std + mean, 0, 1))


@contextmanager
def changed(file: Path, before: bytes, after: bytes) -> Iterator[None]:
    """Change a few bytes of a large file for a while: the last ones of their kind."""
    with file.open("r+b") as opened, mmap(opened.fileno(), 0) as content:
        where = content.rfind(before)
        assert where > 0
        there = slice(where, where + len(before))
        content[there] = after
        try:
            yield
        finally:
            content[there] = before


class TestPublishedWeights:
    def test_an_exported_learner_restores_as_the_original_code(
        self, learner: ImportedLearner, original: dict[str, NDArray[np.float32]]
    ) -> None:
        assert learner.training_statistics == (original["mean"][0], original["std"][0])
        restored = restore(learner, original["x"])
        assert np.abs(restored - original["y_denormalised"]).max() <= 1e-4

    def test_saved_weights_restore_as_the_original_code(
        self, weights_file: Path, original: dict[str, NDArray[np.float32]]
    ) -> None:
        statistics = (float(original["mean"][0]), float(original["std"][0]))
        learner = read_learner(weights_file, statistics)
        restored = restore(learner, original["x"])
        assert np.abs(restored - original["y_denormalised"]).max() <= 1e-4

    def test_a_learner_of_a_newer_pytorch_is_the_same_one(
        self, learner: ImportedLearner, learner_file: Path, tmp_path: Path
    ) -> None:
        file = in_zip_form(learner_file, tmp_path / "learner.pkl")
        read = read_learner(file)
        file.unlink()
        assert read.training_statistics == learner.training_statistics
        weights = read.network.state_dict()
        for name, values in learner.network.state_dict().items():
            assert torch.equal(values, weights[name])
        assert len(weights) == 179

    def test_saved_weights_alone_ask_for_their_normalisation(self, weights_file: Path) -> None:
        with pytest.raises(ModelError, match="--mean and --std"):
            read_learner(weights_file)

    def test_a_learner_does_not_take_another_normalisation(self, learner_file: Path) -> None:
        with pytest.raises(UsageError, match="leave them out"):
            read_learner(learner_file, (0.1, 0.2))

    def test_weights_that_are_no_numbers_are_refused(self, weights_file: Path) -> None:
        first = state_dict(read_saved(weights_file))["model.layers.0.0.0.weight_g"]
        nan = np.full(4, np.nan, np.float32)
        with (
            changed(weights_file, first[:4].tobytes(), nan.tobytes()),
            pytest.raises(ModelError, match=r"model\.layers\.0\.0\.0\.weight_g.*no numbers"),
        ):
            read_learner(weights_file, (0.5, 0.3))

    def test_an_output_that_was_not_normalised_is_not_denormalised(
        self, learner_file: Path, original: dict[str, NDArray[np.float32]]
    ) -> None:
        with changed(learner_file, *DO_Y):
            learner = read_learner(learner_file)
        assert learner.training_statistics == (original["mean"][0], original["std"][0])
        restored = restore(learner, original["x"])
        assert np.abs(restored - np.clip(original["y_network"], 0, 1)).max() <= 1e-4

    def test_another_way_of_upsampling_is_refused(self, learner_file: Path) -> None:
        text = b"X\x08\x00\x00\x00"
        with (
            changed(learner_file, text + b"bilinear", text + b"bicubic_"),
            pytest.raises(ModelError, match="upsample 4 times, bilinearly"),
        ):
            read_learner(learner_file)


@pytest.mark.slow
class TestPackage:
    def test_it_says_what_it_is(self, package: ModelPackage, steps: list[str]) -> None:
        manifest = package.manifest
        assert (manifest.window_length, manifest.centre, manifest.scale) == (5, 2, 4)
        assert manifest.normalisation == "window-maximum"
        assert manifest.pixel_size_um == (0.15, 0.2)
        assert manifest.max_size == 4096
        assert manifest.tiling == Tiling(size=128, overlap=24)
        assert package.network_sha256 == read_package(package.folder).network_sha256
        assert "nothing\nabout their quality was measured" in package.card()
        assert "$" not in package.card()
        assert steps == [
            "reading weights",
            "restoring the test window",
            "writing ONNX",
            "comparing with torch",
        ]
        assert [path.name for path in package.folder.parent.iterdir()] == ["t_5"]

    def test_its_graph_holds_no_path_of_the_machine_that_wrote_it(
        self, package: ModelPackage
    ) -> None:
        assert b"site-packages" not in package.network
        assert str(Path.home()).encode() + b"/" not in package.network
        assert b".py" not in package.network

    @pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
    def test_engines_reproduce_its_test_pair(self, package: ModelPackage, engine: str) -> None:
        if engine == "onnxruntime":
            pytest.importorskip("onnxruntime")
        worst, report = check_test_pair(package, engine, "fp32")
        assert report.engine == engine
        assert worst <= 1e-4

    def test_onnx_restores_as_torch_at_sizes_that_nothing_divides(
        self, package: ModelPackage, learner: ImportedLearner
    ) -> None:
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(package.network, providers=["CPUExecutionProvider"])
        for height, width in ((50, 44), (17, 27)):
            window = np.random.default_rng(height).standard_normal((1, 5, height, width))
            window = window.astype(np.float32)
            (restored,) = session.run(None, {"window": window})
            with torch.inference_mode():
                expected = learner.network(torch.from_numpy(window)).numpy()
            assert restored.shape == (1, 1, 4 * height, 4 * width)
            assert np.abs(restored - expected).max() <= 1e-4

    def test_a_live_window_comes_out_as_the_original_code_restores_it(
        self, package: ModelPackage, original: dict[str, NDArray[np.float32]]
    ) -> None:
        # The original divides by the brightest pixel; in raw intensities that pixel is 3000.
        brightest = float(original["x"].max())
        raw = original["x"] * np.float32(3000 / brightest)
        frames = tuple(Frame(plane, index, 0, 0) for index, plane in enumerate(raw))
        restorer = Restorer(package, "openvino", "fp32", *raw.shape[1:])
        try:
            window = Window(frames, 2, edge=False, complete=True, t_ready_ns=0)
            restored = restorer.restore(window, live=True).pixels
        finally:
            restorer.close()
        # The original had divided by an exact 1 where the brightest pixel was 0.99997.
        difference = np.abs(restored / 3000 - original["y_denormalised"][0, 0])
        assert difference.max() <= 2e-4

    def test_frames_that_do_not_fit_are_restored_in_tiles_without_a_seam(
        self, package: ModelPackage
    ) -> None:
        small = msgspec.structs.replace(package.manifest, tiling=Tiling(size=40, overlap=24))
        window = np.random.default_rng(0).standard_normal((1, 5, 24, 56)).astype(np.float32)
        outputs = []
        for model in (replace(package, manifest=small), package):
            engine, report = prepare_engine("openvino", "fp32", model, 24, 56)
            try:
                outputs.append(engine.run(window).copy())
            finally:
                engine.close()
            assert report.tiles == (2 if model is not package else 1)
        tiled, whole = (np.abs(np.diff(output, axis=1)).mean(axis=0) for output in outputs)
        seam = slice(4 * 28 - 16, 4 * 28 + 16)
        assert (tiled[seam] / whole[seam]).max() < 1.2

    def test_a_folder_that_is_there_is_kept(self, learner_file: Path, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("precious", encoding="utf-8")
        with pytest.raises(StorageError, match="there already"):
            import_package(learner_file, tmp_path, name="t_5", pixel_size_um=(0.1, 0.2))
        assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "precious"


class TestWishes:
    @pytest.mark.parametrize(
        ("wish", "says"),
        [
            ({"name": "My model"}, "My model"),
            ({"name": "../up"}, "../up"),
            ({"pixel_size_um": (0.2, 0.1)}, "0.2 to 0.1"),
            ({"pixel_size_um": (0.0, 0.1)}, "no range"),
            ({"pixel_size_um": (0.1, float("nan"))}, "no range"),
            ({"training_statistics": (0.1, 0.0)}, "standard deviation 0.0"),
            ({"training_statistics": (float("nan"), 1.0)}, "mean nan"),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, tmp_path: Path, wish: dict[str, Any], says: str
    ) -> None:
        wishes: dict[str, Any] = {"name": "t_5", "pixel_size_um": (0.1, 0.2), **wish}
        with pytest.raises(UsageError, match=says):
            import_package(tmp_path / "learner.pkl", tmp_path / "out", **wishes)

    def test_a_refused_file_leaves_nothing_behind(self, tmp_path: Path) -> None:
        (tmp_path / "learner.pkl").write_bytes(b"nothing of the kind")
        with pytest.raises(ModelError):
            import_package(
                tmp_path / "learner.pkl", tmp_path / "out", name="a", pixel_size_um=(0.1, 0.2)
            )
        assert [path.name for path in tmp_path.iterdir()] == ["learner.pkl"]


class Storage:
    """Stands for a storage when a test writes a file by hand."""


class Tensor:
    """A tensor as PyTorch pickles it, saying whatever the test wants."""

    def __init__(self, size: tuple[Any, ...], stride: tuple[int, ...], offset: int = 0) -> None:
        self._said: tuple[Any, ...] = (Storage(), offset, size, stride, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self._said


def legacy_file(
    path: Path, root: object, *, protocol: int = 2, claimed: Any = 6, stored: int = 6
) -> Path:
    """Write a file in the old serialisation, with one storage of six numbers."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> object:
            if not isinstance(thing, Storage):
                return None
            return ("storage", torch.FloatStorage, "7", "cpu", claimed, None)

    content = io.BytesIO()
    for part in (*MAGIC, root, ["7"] if stored else []):
        Pickler(content, protocol).dump(part)
    if stored:
        content.write(stored.to_bytes(8, "little") + np.arange(6, dtype="<f4").tobytes())
    path.write_bytes(content.getvalue())
    return path


class TestReading:
    def test_tensors_come_out_as_torch_saved_them(self, tmp_path: Path) -> None:
        square = torch.arange(12.0).reshape(3, 4)
        tensors = OrderedDict(
            plain=square,
            turned=square.T,
            part=square[1:, ::2],
            half=torch.tensor([0.5, -2.0], dtype=torch.float16),
            count=torch.tensor(3),
            none=torch.zeros(0, 5),
            double=torch.tensor([1e300], dtype=torch.float64),
        )
        path = tmp_path / "tensors.pth"
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
        read = state_dict(read_saved(path))
        assert list(read) == list(tensors)
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(read[name], tensor.numpy(), strict=True)

    def test_weights_saved_with_their_optimizer_are_found(self, tmp_path: Path) -> None:
        model = OrderedDict(a=torch.ones(2))
        root = {"model": model, "opt": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]}}
        torch.save(root, tmp_path / "saved.pth", _use_new_zipfile_serialization=False)
        assert list(state_dict(read_saved(tmp_path / "saved.pth"))) == ["a"]

    def test_a_class_of_the_file_stays_a_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        marker = tmp_path / "imported"
        (tmp_path / "code" / "utils").mkdir(parents=True)
        code = f"open({str(marker)!r}, 'w').close()\nclass Trap: pass\n"
        (tmp_path / "code" / "utils" / "__init__.py").write_text(code, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path / "code")
        monkeypatch.delitem(sys.modules, "utils", raising=False)
        trap = importlib.import_module("utils").Trap
        path = legacy_file(tmp_path / "learner.pkl", trap(), stored=0)
        marker.unlink()
        monkeypatch.delitem(sys.modules, "utils")
        root = read_saved(path).root
        assert isinstance(root, Record)
        assert root.name == "utils Trap" or "_reconstructor" in root.name
        assert not marker.exists()
        assert "utils" not in sys.modules


class RunsCommand:
    def __init__(self, marker: Path) -> None:
        self._command = f'"{sys.executable}" -c "open({str(marker)!r}, chr(119)).close()"'

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


class Evaluates:
    def __init__(self, marker: Path) -> None:
        self._expression = f"open({str(marker)!r}, 'w').close()"

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self._expression,)


class TestFilesThatRunCode:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize(
        ("attack", "named"),
        [(RunsCommand, rf"'{os.name}\.system'"), (Evaluates, r"'(builtins|__builtin__)\.eval'")],
    )
    @pytest.mark.parametrize("where", ["in a learner", "alone"])
    def test_nothing_runs(
        self, tmp_path: Path, attack: type, named: str, protocol: int, where: str
    ) -> None:
        marker = tmp_path / "it_ran"
        path = tmp_path / "learner.pkl"
        if where == "alone":
            path.write_bytes(pickle.dumps(attack(marker), protocol))
        else:
            legacy_file(path, {"model": attack(marker)}, protocol=protocol)
        with pytest.raises(ModelError, match=named) as refusal:
            import_package(path, tmp_path / "out", name="a", pixel_size_um=(0.1, 0.2))
        assert "\n" not in str(refusal.value)
        assert not marker.exists()
        # The very same bytes do run where they are unpickled.
        if where == "alone":
            pickle.loads(path.read_bytes())
            assert marker.exists()

    @pytest.mark.parametrize(
        "named",
        [
            *("builtins.exec", "builtins.getattr", "__builtin__.eval", "__builtin__.__import__"),
            *("subprocess.Popen", "torch.hub.load", "torch.load", "numpy.load", "pickle.loads"),
            *("torch.utils.model_zoo.load_url", "fastaix.core.run", "collections.defaultdict"),
            *("os.system", "nt.system", "runpy.run_path", "operator.attrgetter", "torch._C.x"),
            *("functools.reduce", "pathlib.os", "utils_of_mine.run"),
        ],
    )
    def test_a_name_that_no_learner_needs_is_refused(self, tmp_path: Path, named: str) -> None:
        module, _, attribute = named.rpartition(".")
        path = tmp_path / "learner.pkl"
        path.write_bytes(f"c{module}\n{attribute}\n.".encode())
        with pytest.raises(ModelError) as refusal:
            read_saved(path)
        assert f"'{named}'" in str(refusal.value)

    def test_a_name_is_not_a_way_to_its_attributes(self, tmp_path: Path) -> None:
        path = tmp_path / "learner.pkl"
        path.write_bytes(pickle.dumps("fastai.core", 4)[:-1] + b"\x8c\x09os.system\x93.")
        with pytest.raises(ModelError, match=r"fastai\.core\.os\.system"):
            read_saved(path)

    @pytest.mark.parametrize(
        ("chain", "says"),
        [
            # getattr(Learner, "__init__")
            (b"c__builtin__\ngetattr\n(cfastai.basic_train\nLearner\nV__init__\ntR.", "getattr"),
            # getattr(partial(), "func")
            (b"c__builtin__\ngetattr\n(cfunctools\npartial\n)RVfunc\ntR.", "getattr"),
            # getattr(Hook(), "hook_fn")("payload"): what a learner has, but called
            (
                b"c__builtin__\ngetattr\n(cfastai.callbacks.hooks\nHook\n)RVhook_fn\ntR"
                b"(Vpayload\ntR.",
                "calls what is not a known class",
            ),
        ],
    )
    def test_getattr_is_no_gadget(self, tmp_path: Path, chain: bytes, says: str) -> None:
        path = tmp_path / "learner.pkl"
        path.write_bytes(chain)
        with pytest.raises(ModelError, match=says):
            read_saved(path)


class TestDamagedFiles:
    def refused(self, path: Path) -> str:
        with pytest.raises(ModelError) as refusal:
            state_dict(read_saved(path))
        line = str(refusal.value)
        assert "\n" not in line
        assert len(line) < 400 + len(str(path))
        return line

    def test_a_file_cut_anywhere_is_refused(self, tmp_path: Path) -> None:
        path = legacy_file(tmp_path / "whole.pth", OrderedDict(a=Tensor((2, 3), (3, 1))))
        content = path.read_bytes()
        np.testing.assert_array_equal(state_dict(read_saved(path))["a"], [[0, 1, 2], [3, 4, 5]])
        for size in range(len(content)):
            path = tmp_path / "cut.pth"
            path.write_bytes(content[:size])
            self.refused(path)

    def test_any_changed_byte_is_refused_or_read_without_harm(self, tmp_path: Path) -> None:
        path = legacy_file(tmp_path / "whole.pth", OrderedDict(a=Tensor((2, 3), (3, 1))))
        content = path.read_bytes()
        rng = np.random.default_rng(0)
        for _ in range(400):
            changed = bytearray(content)
            changed[int(rng.integers(len(content)))] = int(rng.integers(256))
            path.write_bytes(changed)
            try:
                read = state_dict(read_saved(path))
            except ModelError:
                continue
            assert all(array.size <= 6 for array in read.values())

    @pytest.mark.parametrize(
        ("tensor", "says"),
        [
            (Tensor((10**9, 10**9), (10**9, 1)), "6 values has shape"),
            (Tensor((0, 2**70), (1, 1)), "6 values has shape"),
            (Tensor((-2, 3), (3, 1)), "6 values has shape"),
            (Tensor((6, 6), (0, 0)), "6 values has shape"),
            (Tensor((1,) * 40, (1,) * 40), "6 values has shape"),
            (Tensor((2, 3), (1,)), "6 values has shape"),
            (Tensor((2, 3), (5, 1)), "past its 6 values"),
            (Tensor((3,), (1,), offset=4), "past its 6 values"),
            (Tensor((3,), (1,), offset=-4), "6 values has shape"),
            (Tensor(("a",), (1,)), "damaged"),
            (Tensor((1.5,), (1,)), "damaged"),
        ],
    )
    def test_absurd_shapes_are_refused(self, tmp_path: Path, tensor: Tensor, says: str) -> None:
        path = legacy_file(tmp_path / "weights.pth", OrderedDict(a=tensor))
        assert says in self.refused(path)

    @pytest.mark.parametrize(
        ("claimed", "stored", "says"),
        [
            (10**12, 10**12, "ends before its tensors do"),
            (60, 60, "ends before its tensors do"),
            (6, 5, "claims 6 values and stores 5"),
            (6, 2**63 - 1, "claims 6 values"),
            (-6, 6, "without a size"),
            ("many", 6, "without a size"),
            (6, 0, "no values in the file"),
        ],
    )
    def test_storages_that_lie_are_refused(
        self, tmp_path: Path, claimed: object, stored: int, says: str
    ) -> None:
        root = OrderedDict(a=Tensor((2, 3), (3, 1)))
        path = legacy_file(tmp_path / "weights.pth", root, claimed=claimed, stored=stored)
        assert says in self.refused(path)

    def test_a_text_that_claims_to_be_huge_takes_no_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        path.write_bytes(b"\x80\x02X\xff\xff\xff\xffabc.")
        assert "damaged" in self.refused(path)

    def test_modules_that_contain_themselves_end(self, tmp_path: Path) -> None:
        path = tmp_path / "learner.pkl"
        legacy_file(path, None, stored=0)
        # An object whose modules are itself, twice.
        loop = (
            b"\x80\x02ctorch.nn.modules.container\nSequential\n)\x81q\x00"
            b"}X\x08\x00\x00\x00_modules}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00usb."
        )
        content = path.read_bytes().replace(b"\x80\x02N.", loop)
        path.write_bytes(content)
        assert "contain each other without end" in self.refused(path)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "empty"),
            (b"<!doctype html><html>quota exceeded", "damaged"),
            (b"\x89PNG\r\n\x1a\n" + bytes(100), "damaged"),
            (b"\x1f\x8b\x08" + bytes(100), "damaged"),
            (bytes(1000), "damaged"),
            (pickle.dumps(1, 2), "not a file of PyTorch"),
            (pickle.dumps({"a": [1, 2.5, None, True]}, 2), "not a file of PyTorch"),
        ],
    )
    def test_another_kind_of_file_is_refused(
        self, tmp_path: Path, content: bytes, says: str
    ) -> None:
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        assert says in self.refused(path)

    def test_a_missing_file_and_a_folder_are_refused(self, tmp_path: Path) -> None:
        assert "No such file" in self.refused(tmp_path / "missing.pkl")
        self.refused(tmp_path)

    @pytest.mark.parametrize(
        ("root", "says"),
        [
            ({"a": torch.ones(2)}, "no model.layers.0.0.0.weight_v"),
            ({"model.layers.0.0.0.weight_v": torch.ones(32, 5, 3)}, "no model.layers.0.0.0"),
            ({"model.layers.0.0.0.weight_v": torch.ones(32, 40, 3, 3)}, "1 to 15 frames"),
            ({"model.layers.0.0.0.weight_v": torch.ones(32, 5, 3, 3)}, "no model.layers.0.0.0."),
            ({}, "holds no network"),
            ([], "holds no network"),
            ({"a": 3}, "'a' is not a named tensor"),
        ],
    )
    def test_another_network_is_refused(self, tmp_path: Path, root: object, says: str) -> None:
        path = tmp_path / "other.pth"
        torch.save(root, path, _use_new_zipfile_serialization=False)
        with pytest.raises(ModelError, match=says):
            read_learner(path, (0.5, 0.3))


class TestNormalisationByTheBrightestPixel:
    def scored(self, window: NDArray[Any]) -> tuple[NDArray[np.float32], float, float]:
        out = np.empty((1, *window.shape), np.float32)
        frames = [Frame(plane, index, 0, 0) for index, plane in enumerate(window)]
        statistics = normalise(frames, out, (0.25, 0.5))
        return out[0], statistics.mean, statistics.std

    def test_the_brightest_pixel_counts_as_one(self) -> None:
        window = np.array([[[0, 1000]], [[4000, 2000]]], np.uint16)
        scored, mean, std = self.scored(window)
        np.testing.assert_allclose(scored, [[[-0.5, 0.0]], [[1.5, 0.5]]], atol=1e-6)
        assert (mean, std) == (1000, 2000)

    def test_gain_changes_nothing_that_the_network_sees(self) -> None:
        window = np.random.default_rng(0).integers(0, 800, (5, 9, 7)).astype(np.uint16)
        np.testing.assert_allclose(self.scored(window)[0], self.scored(80 * window)[0], atol=1e-5)

    def test_a_black_window_stays_finite(self) -> None:
        scored, mean, std = self.scored(np.zeros((5, 4, 4), np.uint16))
        np.testing.assert_array_equal(scored, np.float32(-0.5))
        assert (mean, std) == (0.25, 0.5)

    @pytest.mark.parametrize(
        "said",
        [
            {"normalisation": "window-maximum"},
            {"training_statistics": [0.5, 0.3]},
            {"normalisation": "window-maximum", "training_statistics": [0.5, 0.0]},
            {"normalisation": "window-maximum", "training_statistics": [0.5]},
        ],
    )
    def test_a_manifest_must_say_the_statistics_that_it_needs(
        self, tmp_path: Path, said: dict[str, Any]
    ) -> None:
        folder = Path(shutil.copytree(packages_folder() / "neuron_mf", tmp_path / "neuron_mf"))
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        (folder / "manifest.json").write_text(json.dumps(manifest | said), encoding="utf-8")
        with pytest.raises(ModelError, match="training_statistics"):
            read_package(folder)
