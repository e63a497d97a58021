"""Files of PyTorch 1.6 and later: read as the old ones are; made to do harm, refused."""

from __future__ import annotations

import functools
import io
import pickle
import struct
import sys
import types
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from pssr_live.errors import ModelError  # noqa: E402
from pssr_live_models import learner as learners  # noqa: E402
from pssr_live_models import zip_file  # noqa: E402
from pssr_live_models.fastai_file import read_saved, state_dict  # noqa: E402
from pssr_live_models.import_weights import import_package  # noqa: E402
from pssr_live_models.learner import read_learner  # noqa: E402
from tests.models.test_import import Evaluates, RunsCommand, Storage, Tensor  # noqa: E402
from tests.models.test_import_odd_files import FIRST, SmallNetwork  # noqa: E402
from tests.models.zip_files import MEMBERS, write_zip  # noqa: E402

SIX = np.arange(6, dtype="<f4").tobytes()


def pickled(root: object, *, protocol: int = 2, claimed: int = 6) -> bytes:
    """Pickle as PyTorch does, with one storage of six numbers wherever `root` has one."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> object:
            if not isinstance(thing, Storage):
                return None
            return ("storage", torch.FloatStorage, "0", "cpu", claimed)

    content = io.BytesIO()
    Pickler(content, protocol).dump(root)
    return content.getvalue()


def members(root: object = None, **said: Any) -> dict[str, bytes]:
    """The members of an archive with one tensor, or another root."""
    root = OrderedDict(a=Tensor((2, 3), (3, 1))) if root is None else root
    return {"data.pkl": pickled(root, **said), **MEMBERS, "data/0": SIX}


def by_torch(path: Path, root: object, zipped: bool = True) -> Path:
    """Save as today's PyTorch does, in either form."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Couldn't retrieve source code")
        torch.save(root, path, _use_new_zipfile_serialization=zipped)
    return path


def refused(path: Path, says: str) -> None:
    with pytest.raises(ModelError, match=says) as refusal:
        state_dict(read_saved(path))
    line = str(refusal.value)
    assert line.isprintable()
    assert len(line) < 400 + len(str(path))


def assert_the_same(files: list[Path]) -> None:
    old, new = (state_dict(read_saved(file)) for file in files)
    assert list(old) == list(new)
    for name, values in old.items():
        assert (values.dtype, values.shape) == (new[name].dtype, new[name].shape)
        assert values.tobytes() == new[name].tobytes()


class Wrapper(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """Stands for the published learner's network, with the hooks that it has."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            layer = torch.nn.utils.weight_norm(torch.nn.Conv2d(5, 4, 3))
            attention = torch.nn.utils.spectral_norm(torch.nn.Conv1d(4, 2, 1))
        self.scale, self.mode = 4, "bilinear"
        self.model = torch.nn.Module()
        self.model.layers = torch.nn.Sequential(
            torch.nn.Sequential(torch.nn.Sequential(layer)), torch.nn.BatchNorm2d(4), attention
        )


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What ``Learner.export()`` would hand to ``torch.save`` today."""
    monkeypatch.setattr(Wrapper, "__module__", "utils.unet")
    for name in ("utils", "utils.unet"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["utils.unet"], "Wrapper", Wrapper, raising=False)
    torch.manual_seed(0)
    said = {"mean": torch.tensor([0.25]), "std": torch.tensor([0.5]), "do_x": True, "do_y": True}
    return {
        "opt_func": functools.partial(torch.optim.Adam, betas=(0.9, 0.99)),
        "loss_func": torch.nn.MSELoss(),
        "metrics": [],
        "cb_state": {Wrapper: {"alpha": np.float64(0.98)}},
        "model": Wrapper(),
        "data": {"normalize": said, "path": None},
    }


class TestBothForms:
    """The same thing, saved in both forms, reads the same."""

    @pytest.mark.parametrize("with_optimizer", [False, True])
    def test_saved_weights(self, tmp_path: Path, with_optimizer: bool) -> None:
        network = Wrapper()
        root: object = network.state_dict()
        if with_optimizer:
            state = {"step": torch.tensor(3.0), "exp_avg": torch.ones(4, 5, 3, 3)}
            groups = [{"lr": 4e-4, "betas": (0.9, 0.99), "foreach": None, "params": [0]}]
            root = {"model": root, "opt": {"state": {0: state}, "param_groups": groups}}
        files = [by_torch(tmp_path / f"{zipped}.pth", root, zipped) for zipped in (False, True)]
        assert [file.read_bytes()[:2] for file in files] == [b"\x80\x02", b"PK"]
        assert_the_same(files)
        assert list(state_dict(read_saved(files[1]))) == list(network.state_dict())

    def test_an_exported_learner(
        self, tmp_path: Path, exported: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = [by_torch(tmp_path / f"{zipped}.pkl", exported, zipped) for zipped in (False, True)]
        assert_the_same(files)
        weights = state_dict(read_saved(files[1]))
        for name, values in exported["model"].state_dict().items():
            assert torch.equal(values, torch.from_numpy(np.array(weights[name])))
        for file in files:
            saved = read_saved(file)
            assert learners._normalisation(saved, None) == ((0.25, 0.5), (0.25, 0.5))

    @pytest.mark.parametrize("zipped", [False, True])
    def test_it_becomes_the_same_network(
        self, tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(learners, "PaperNetwork", SmallNetwork)
        values = torch.linspace(-1, 1, 108).reshape(4, 3, 3, 3)
        file = by_torch(tmp_path / "a.pth", {"model": {FIRST: values}, "opt": {}}, zipped)
        learner = read_learner(file, (0.5, 0.3))
        assert learner.network.window_length == 3
        assert torch.equal(dict(learner.network.named_parameters())[FIRST], values)

    def test_tensors_that_share_values_or_lie_askew(self, tmp_path: Path) -> None:
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
        read = state_dict(read_saved(by_torch(tmp_path / "a.pth", tensors)))
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(read[name], tensor.numpy(), strict=True)

    @pytest.mark.parametrize("name", ["ein.Würfel 2.pth", "読.pth", "data.pkl", "archive"])
    def test_the_folder_inside_may_have_any_name(self, tmp_path: Path, name: str) -> None:
        assert list(state_dict(read_saved(by_torch(tmp_path / name, {"a": torch.ones(2)})))) == [
            "a"
        ]

    def test_members_of_before_pytorch_2_are_enough(self, tmp_path: Path) -> None:
        content = members()
        del content["byteorder"]
        read = state_dict(read_saved(write_zip(tmp_path / "a.pth", content)))
        np.testing.assert_array_equal(read["a"], [[0, 1, 2], [3, 4, 5]])

    def test_kinds_of_numbers_that_no_learner_has_are_named(self, tmp_path: Path) -> None:
        file = by_torch(tmp_path / "a.pth", {"a": torch.ones(3).bfloat16()})
        refused(file, r"holds values of torch\.BFloat16Storage")


class TestFilesThatRunCode:
    @pytest.mark.parametrize("protocol", [2, 4])
    @pytest.mark.parametrize(
        ("attack", "named"),
        [(RunsCommand, r"'(posix|nt)\.system'"), (Evaluates, r"'(builtins|__builtin__)\.eval'")],
    )
    def test_nothing_runs(self, tmp_path: Path, attack: type, named: str, protocol: int) -> None:
        marker = tmp_path / "it_ran"
        root = {"model": OrderedDict(a=attack(marker))}
        file = write_zip(tmp_path / "learner.pkl", members(root, protocol=protocol))
        with pytest.raises(ModelError, match=named) as refusal:
            import_package(file, tmp_path / "out", name="a", pixel_size_um=(0.1, 0.2))
        assert "nothing was run" in str(refusal.value)
        assert not marker.exists()
        torch.load(file, weights_only=False)  # the very same file does run where torch loads it
        assert marker.exists()

    def test_a_torchscript_program_is_named(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("data.pkl", "constants.pkl", "code/__torch__/net.py", "version"):
                archive.writestr(f"net/{name}", pickled({}))
        refused(tmp_path / "a.pt", "it is a TorchScript program")

    def test_a_module_needs_no_source_text_and_stays_a_name(
        self, tmp_path: Path, exported: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = by_torch(tmp_path / "a.pkl", exported)
        monkeypatch.delitem(sys.modules, "utils.unet")
        monkeypatch.delitem(sys.modules, "utils")
        assert FIRST in state_dict(read_saved(file))
        assert "utils" not in sys.modules


def repacked(content: dict[str, Any]) -> Callable[[Path], Path]:
    return lambda path: write_zip(path, members() | content)


def without(name: str) -> Callable[[Path], Path]:
    return lambda path: write_zip(path, {n: c for n, c in members().items() if n != name})


def patched(before: bytes, after: bytes) -> Callable[[Path], Path]:
    """Replace bytes wherever they are, checksums left as they were."""

    def make(path: Path) -> Path:
        content = write_zip(path, members()).read_bytes()
        assert before in content
        path.write_bytes(content.replace(before, after))
        return path

    return make


def with_outer(name: str, compression: int = zipfile.ZIP_STORED) -> Callable[[Path], Path]:
    """Add a member beside the folder, or one of another kind."""

    def make(path: Path) -> Path:
        write_zip(path, members())
        with zipfile.ZipFile(path, "a", compression) as archive, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Duplicate name")
            archive.writestr(name, bytes(100))
        return path

    return make


def directory_entry(content: bytes, name: bytes) -> int:
    return content.rindex(name) - 46


def field(name: bytes, offset: int, kind: str, value: int, local: int = 0) -> Any:
    """Change a field of a member in the directory, and at `local` in its own header."""

    def make(path: Path) -> Path:
        content = bytearray(write_zip(path, members()).read_bytes())
        struct.pack_into(kind, content, directory_entry(bytes(content), name) + offset, value)
        if local:
            struct.pack_into(kind, content, content.index(name) - 30 + local, value)
        path.write_bytes(content)
        return path

    return make


def end_field(offset: int, kind: str, value: int) -> Callable[[Path], Path]:
    """Change a field of the end record."""

    def make(path: Path) -> Path:
        content = bytearray(write_zip(path, members()).read_bytes())
        struct.pack_into(kind, content, len(content) - 22 + offset, value)
        path.write_bytes(content)
        return path

    return make


def surrounded(before: bytes, after: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(before + write_zip(path, members()).read_bytes() + after)
        return path

    return make


def two_directories(path: Path) -> Path:
    """The 64-bit end record tells of another archive than the other one does."""
    content = by_torch(path, {"a": torch.ones(6)}).read_bytes()
    own = write_zip(path, members()).read_bytes()
    count, size, start = struct.unpack_from("<H2L", own, len(own) - 12)
    end_64 = bytearray(content[-98:-42])
    struct.pack_into("<4Q", end_64, 24, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(own) - 22, 1)
    harmless = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 60, 30, 0)
    path.write_bytes(own[:-22] + bytes(end_64) + locator + harmless)
    return path


ZIP_64 = struct.pack("<2HQ", 1, 8, 24)


class TestArchivesThatLie:
    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (with_outer("archive/data/9", zipfile.ZIP_DEFLATED), "data/9' is compressed"),
            (with_outer("archive/data/0"), "two members with one name"),
            (with_outer("elsewhere/a.py"), "'elsewhere/a.py', outside its folder"),
            (with_outer("a.py"), "'a.py', outside its folder"),
            (with_outer("/etc/a"), "'/etc/a', outside its folder"),
            (with_outer("archive/../../a"), "outside its folder"),
            (with_outer("archive/"), "outside its folder"),
            (with_outer("other/data.pkl"), r"none of PyTorch \(it holds 2 data\.pkl\)"),
            (patched(b"archive/data/0", b"archive\\data\\0"), "outside its folder"),
            (patched(b"archive/data/0", b"\x1b[2J\x07ab/data/0"), r"\\x1b.*outside its folder"),
            (without("data.pkl"), "none of PyTorch"),
            (without("data/0"), "no values for the tensors of storage '0'"),
            (repacked({"byteorder": b"big"}), "little-endian"),
            (repacked({"data/0": SIX[:-4]}), "has 20 bytes, not those of its values"),
            (repacked({"data/0": SIX + b"\0"}), "has 25 bytes, not those of its values"),
            (repacked({"data/0": b""}), "has 0 bytes"),
            (repacked({"data.pkl": b""}), "damaged"),
            (patched(SIX, SIX[::-1]), "'archive/data/0' is damaged"),
            (field(b"archive/data/0", 8, "<H", 1, 6), "encrypted"),
            (field(b"archive/data/0", 8, "<H", 0x40, 6), "encrypted"),
            (field(b"archive/data/0", 10, "<H", 8, 8), "compressed"),
            (field(b"archive/data/0", 20, "<L", 20), "compressed"),
            (field(b"archive/data/0", 10, "<H", 99), "compressed"),
            (field(b"archive/data/0", 24, "<L", 0xFFFFFFFF), "damaged|compressed"),
            (field(b"archive/data/0", 42, "<L", 0), "overlaps another part"),
            (field(b"archive/data/0", 42, "<L", 0xFFFFFFF0), "does not follow"),
            (field(b"archive/data/0", 6, "<H", 900), "damaged zip archive"),
            (patched(b"PK\3\4", b"PK\3\5"), "header of its 'archive/data.pkl'"),
            (end_field(16, "<L", 10), "end does not say|damaged"),
            (end_field(12, "<L", 0xFFFFFFF0), "damaged zip archive"),
            (end_field(10, "<H", 1), "end does not say"),
            (end_field(4, "<H", 3), "end does not say"),
            (surrounded(b"PK", b""), "end does not say|does not follow"),
            (surrounded(b"PK" + bytes(100), b""), "end does not say|does not follow"),
            (surrounded(b"", b"a second archive"), "damaged|end does not say"),
            (two_directories, "end does not say"),
        ],
    )
    def test_it_is_refused(self, tmp_path: Path, make: Any, says: str) -> None:
        refused(make(tmp_path / "a.pth"), says)

    def test_two_members_cannot_share_their_bytes(self, tmp_path: Path) -> None:
        content = bytearray(write_zip(tmp_path / "a", members() | {"data/1": SIX}).read_bytes())
        first = directory_entry(bytes(content), b"archive/data/0")
        second = directory_entry(bytes(content), b"archive/data/1")
        content[second + 42 : second + 46] = content[first + 42 : first + 46]
        (tmp_path / "a").write_bytes(content)
        refused(tmp_path / "a", "overlaps another part")

    def test_a_directory_with_64_bit_sizes_is_believed_no_more(self, tmp_path: Path) -> None:
        content = write_zip(tmp_path / "a", members()).read_bytes()
        size, start = struct.unpack_from("<2L", content, len(content) - 10)
        entry = bytearray(content[directory_entry(content, b"archive/data/0") :][:60])
        for claimed in (24, 25, 1 << 40, (1 << 64) - 1):
            struct.pack_into("<2L", entry, 20, 24, 0xFFFFFFFF)
            struct.pack_into("<H", entry, 30, len(ZIP_64))
            changed = bytes(entry) + ZIP_64[:4] + claimed.to_bytes(8, "little")
            end = bytearray(content[-22:])
            struct.pack_into("<L", end, 12, size + len(ZIP_64))
            file = tmp_path / str(claimed)
            file.write_bytes(content[: start + size - 60] + changed + bytes(end))
            if claimed == 24:
                assert list(state_dict(read_saved(file))) == ["a"]
            else:
                refused(file, "compressed")

    def test_bytes_between_members_are_refused(self, tmp_path: Path) -> None:
        content = write_zip(tmp_path / "a", members()).read_bytes()
        start = struct.unpack_from("<L", content, len(content) - 6)[0]
        end = content[-22:-6] + struct.pack("<LH", start + 500, 0)
        hidden = content[:start] + bytes(500) + content[start:-22] + end
        (tmp_path / "a").write_bytes(hidden)
        refused(tmp_path / "a", "bytes that belong to none of its members")

    def test_a_huge_file_is_refused_by_its_size(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(zip_file, "_LARGEST_FILE", 500)
        refused(write_zip(tmp_path / "a.pth", members()), "more than any learner")

    def test_a_storage_that_claims_to_be_huge_takes_no_memory(self, tmp_path: Path) -> None:
        root = OrderedDict(a=Tensor((2, 3), (3, 1)))
        refused(write_zip(tmp_path / "a.pth", members(root, claimed=10**18)), "has 24 bytes")

    @pytest.mark.parametrize(
        ("tensor", "says"),
        [
            (Tensor((10**9, 10**9), (10**9, 1)), "6 values has shape"),
            (Tensor((6, 6), (0, 0)), "6 values has shape"),
            (Tensor((2, 3), (5, 1)), "past its 6 values"),
            (Tensor((3,), (1,), offset=4), "past its 6 values"),
            (Tensor((3,), (1,), offset=-4), "6 values has shape"),
        ],
    )
    def test_absurd_shapes_are_refused(self, tmp_path: Path, tensor: Tensor, says: str) -> None:
        refused(write_zip(tmp_path / "a.pth", members(OrderedDict(a=tensor))), says)


class TestDamagedFiles:
    def test_a_file_cut_anywhere_is_refused(self, tmp_path: Path) -> None:
        content = by_torch(
            tmp_path / "a.pth", {"a": torch.ones(6), "b": torch.ones(0)}
        ).read_bytes()
        size = len(content)
        assert list(state_dict(read_saved(tmp_path / "a.pth"))) == ["a", "b"]
        for cut in (*range(2, 40), *range(40, size - 400, 17), *range(size - 400, size, 3)):
            (tmp_path / f"{cut}.pth").write_bytes(content[:cut])
            refused(
                tmp_path / f"{cut}.pth", "damaged zip archive, or was cut short|end does not say"
            )

    def test_any_changed_byte_is_refused_or_read_without_harm(self, tmp_path: Path) -> None:
        path = by_torch(tmp_path / "a.pth", OrderedDict(a=torch.arange(6.0)))
        content = path.read_bytes()
        # Where most is decided: the headers and the directory.
        places = [i for i, byte in enumerate(content) if byte != ord("Z")]
        rng = np.random.default_rng(0)
        for number in range(400):
            changed = bytearray(content)
            for where in rng.choice(places, int(rng.integers(1, 4))):
                changed[where] = int(rng.integers(256))
            (tmp_path / f"{number}.pth").write_bytes(changed)
            try:
                read = state_dict(read_saved(tmp_path / f"{number}.pth"))
            except ModelError:
                continue
            np.testing.assert_array_equal(read["a"], np.arange(6.0))

    def test_a_pickle_changed_with_its_checksum_is_refused_or_read_without_harm(
        self, tmp_path: Path
    ) -> None:
        path = write_zip(tmp_path / "a.pth", members())
        content = path.read_bytes()
        data = members()["data.pkl"]
        start = content.index(data)
        entry = directory_entry(content, b"archive/data.pkl")
        rng = np.random.default_rng(1)
        understood = 0
        for number in range(400):
            changed = bytearray(content)
            changed[start + int(rng.integers(len(data)))] = int(rng.integers(256))
            crc = struct.pack("<L", zlib.crc32(changed[start : start + len(data)]))
            changed[14:18] = changed[entry + 16 : entry + 20] = crc
            (tmp_path / f"{number}.pth").write_bytes(changed)
            try:
                read = state_dict(read_saved(tmp_path / f"{number}.pth"))
            except ModelError:
                continue
            understood += 1
            assert all(array.size <= 6 for array in read.values())
        assert understood > 0

    @pytest.mark.parametrize("content", [b"PK", b"PK\5\6" + bytes(18), b"PK\3\4" + bytes(500)])
    def test_another_archive_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.pth").write_bytes(content)
        refused(tmp_path / "a.pth", "damaged zip archive|none of PyTorch")

    def test_a_learner_packed_with_zip_is_no_learner(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("learner.pkl", pickled({}))
        refused(tmp_path / "a.zip", "a zip archive, but none of PyTorch")
