"""Files that people import: of several GPUs, of one frame, with odd names; or made to do harm."""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from pssr_live.engine.check import check_test_pair  # noqa: E402
from pssr_live.errors import ModelError, UsageError  # noqa: E402
from pssr_live_models import import_weights, inert_pickle  # noqa: E402
from pssr_live_models import learner as learners  # noqa: E402
from pssr_live_models.fastai_file import read_saved, state_dict  # noqa: E402
from pssr_live_models.import_weights import import_package  # noqa: E402
from pssr_live_models.learner import ImportedLearner, read_learner  # noqa: E402
from pssr_live_models.paper_network import PaperNetwork  # noqa: E402
from tests.models.test_import import MAGIC, legacy_file  # noqa: E402

FIRST = "model.layers.0.0.0.weight_v"
STATISTICS = (0.5, 0.3)


class SmallNetwork(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """Stands for the published network, 49 million parameters smaller."""

    def __init__(self, window_length: int) -> None:
        super().__init__()
        self.window_length = window_length
        layer = torch.nn.Module()
        layer.weight_v = torch.nn.Parameter(torch.ones(4, window_length, 3, 3))
        self.model = torch.nn.Module()
        sequence = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Sequential(layer)))
        self.model.layers = sequence

    def scale_output(self, factor: float, offset: float) -> None:
        """Nothing to scale."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the published network be a small one."""
    monkeypatch.setattr(learners, "PaperNetwork", SmallNetwork)


def saved(path: Path, root: object) -> Path:
    torch.save(root, path, _use_new_zipfile_serialization=False)
    return path


def refused(path: Path, says: str) -> str:
    with pytest.raises(ModelError, match=says) as refusal:
        read_learner(path, STATISTICS)
    line = str(refusal.value)
    assert line.isprintable()
    return line


class TestWeights:
    @pytest.mark.parametrize("frames", [1, 3, 5])
    def test_the_number_of_frames_is_that_of_the_first_layer(
        self, tmp_path: Path, small: None, frames: int
    ) -> None:
        file = saved(tmp_path / "a.pth", {"model": {FIRST: torch.ones(4, frames, 3, 3)}})
        assert read_learner(file, STATISTICS).network.window_length == frames

    def test_those_of_several_gpus_have_the_same_names(self, tmp_path: Path) -> None:
        model = OrderedDict({"module.a": torch.ones(2), "module.b": torch.zeros(3)})
        file = saved(tmp_path / "a.pth", {"model": model, "opt": {}})
        assert list(state_dict(read_saved(file))) == ["a", "b"]

    @pytest.mark.parametrize("kind", ["float16", "float64"])
    def test_other_precisions_are_read_as_float32(
        self, tmp_path: Path, small: None, kind: str
    ) -> None:
        values = torch.linspace(-2, 2, 36, dtype=getattr(torch, kind)).reshape(4, 1, 3, 3)
        network = read_learner(saved(tmp_path / "a.pth", {FIRST: values}), STATISTICS).network
        read = dict(network.named_parameters())[FIRST]
        assert read.dtype == torch.float32
        assert torch.equal(read, values.float())

    def test_what_overflows_in_float32_is_refused(self, tmp_path: Path, small: None) -> None:
        values = torch.full((4, 1, 3, 3), 1e300, dtype=torch.float64)
        refused(saved(tmp_path / "a.pth", {FIRST: values}), "values that are no numbers")

    def test_kinds_of_numbers_that_no_learner_has_are_named(self, tmp_path: Path) -> None:
        file = saved(tmp_path / "a.pth", {"a": torch.ones(3).bfloat16()})
        line = refused(file, r"holds values of torch\.BFloat16Storage")
        assert "run code" not in line

    def test_a_name_cannot_command_the_terminal(self, tmp_path: Path, small: None) -> None:
        model = {FIRST: torch.ones(4, 1, 3, 3), "\x1b[31mred\x07": torch.ones(1)}
        refused(saved(tmp_path / "a.pth", model), "which the published one has not")


class TestFiles:
    def test_a_file_of_nothing_but_operations_is_soon_given_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = legacy_file(tmp_path / "a.pkl", [1] * 1000, stored=0)
        refused(file, "holds no network")
        monkeypatch.setattr(inert_pickle, "_MOST_OPERATIONS", 500)
        refused(file, "more than 500 operations")

    def test_what_it_does_not_have_is_said_in_words(self, tmp_path: Path) -> None:
        (tmp_path / "a.pkl").write_bytes(b"h\x07.")
        refused(tmp_path / "a.pkl", "speaks of a part 7 that it does not have")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.pkl")
        refused(tmp_path / "pipe.pkl", "no ordinary file")

    @pytest.mark.parametrize("bits", [8, 200, 4000])
    def test_tuples_in_tuples_take_no_time_to_print(self, tmp_path: Path, bits: int) -> None:
        # Each holds the one before it twice: 2^bits texts, if it were ever printed.
        doubled = b"\x80\x04)\x94" + b"".join(
            b"j%bj%b\x86\x94" % ((n.to_bytes(4, "little"),) * 2) for n in range(bits)
        )
        magic = legacy_file(tmp_path / "a.pkl", None, stored=0).read_bytes()
        assert len(MAGIC) == 3
        (tmp_path / "a.pkl").write_bytes(magic.replace(b"\x80\x02N.", doubled + b"."))
        refused(tmp_path / "a.pkl", "holds no network")


class TestPackage:
    @pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e12])
    def test_weights_that_restore_no_image_make_no_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
    ) -> None:
        class Broken(SmallNetwork):
            def forward(self, window: Any) -> Any:
                shape = (1, 1, 4 * window.shape[2], 4 * window.shape[3])
                return torch.full(shape, value)

        learner = ImportedLearner(Broken(5), STATISTICS, "0" * 64)
        monkeypatch.setattr(import_weights, "read_learner", lambda *_: learner)
        with pytest.raises(ModelError, match=r"a\.pth: what they restore .* no intensities"):
            import_package(tmp_path / "a.pth", tmp_path / "out", name="a", pixel_size_um=(0.1, 0.2))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("wish", "says"),
        [
            ({"training_statistics": (120.0, 40.0)}, "images whose brightest pixel is 1"),
            ({"pixel_size_um": (170.0, 170.0)}, "in µm, such as 0.15"),
        ],
    )
    def test_numbers_of_another_unit_are_noticed(
        self, tmp_path: Path, wish: dict[str, Any], says: str
    ) -> None:
        wishes: dict[str, Any] = {"name": "a", "pixel_size_um": (0.1, 0.2), **wish}
        with pytest.raises(UsageError, match=says):
            import_package(tmp_path / "a.pth", tmp_path / "out", **wishes)

    @pytest.mark.parametrize(
        ("name", "shown"),
        [("my weights.pth", "my weights.pth"), ("a\x1b[2J\nb.pth", "a?[2J?b.pth")],
    )
    def test_the_files_name_is_shown_as_text(self, name: str, shown: str) -> None:
        assert import_weights._name(Path(name)) == shown

    @pytest.mark.skipif(os.name == "nt", reason="names are text on Windows")
    def test_a_name_in_another_encoding_is_shown_too(self) -> None:
        assert (
            import_weights._name(Path(os.fsdecode(b"z\xfcrich.pth")))
            == "z\N{REPLACEMENT CHARACTER}rich.pth"
        )

    @pytest.mark.slow
    def test_weights_for_one_frame_become_a_package_that_restores_one_frame(
        self, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        network = PaperNetwork(1).eval()
        model = OrderedDict((f"module.{name}", v) for name, v in network.state_dict().items())
        file = saved(tmp_path / "my weights.pth", {"model": model, "opt": {"state": {}}})
        package = import_package(
            file,
            tmp_path / "new" / "pssr_sf",
            name="pssr_sf",
            pixel_size_um=(0.15, 0.2),
            training_statistics=STATISTICS,
        )
        file.unlink()
        manifest = package.manifest
        assert (manifest.window_length, manifest.centre) == (1, 0)
        assert manifest.description.startswith("PSSR-SF, ")
        assert "models import 'my weights.pth' --out" in package.card()
        worst, _ = check_test_pair(package, "openvino", "fp32")
        assert worst <= 1e-2
        shutil.rmtree(package.folder)
