"""The loop of `pssr-live train`: goes on bit by bit, keeps the best, and refuses what it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pssr_live.errors import PssrLiveError, StorageError, UsageError, UserInterruptError  # noqa: E402
from pssr_live_models.dataset import Batch  # noqa: E402
from pssr_live_models.networks import LightUNet  # noqa: E402
from pssr_live_models.training.loop import Loop, Stage, rate_at  # noqa: E402
from pssr_live_models.training.losses import (  # noqa: E402
    charbonnier,
    mean_squared,
    share_of_variance,
)

OPTIONS = {"steps": 12, "seed": 0}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Stripes:
    """Noisy frames of stripes that stand still, with their truth."""

    def __init__(self, seed: int, value: float = 1.0) -> None:
        self._seed, self._value = seed, value

    def batches(self, size: int, first: int = 0) -> Iterator[Batch]:
        number = first
        while True:
            rng = np.random.default_rng((self._seed, number))
            phase = rng.uniform(0, 6, (size, 1, 1, 1))
            truth = np.sin(np.arange(64) / 3 + phase) * np.ones((size, 1, 64, 1))
            clean = truth.reshape(size, 1, 16, 4, 16, 4).mean(axis=(3, 5))
            windows = clean + rng.normal(size=(size, 5, 16, 16))
            yield Batch(
                (windows * self._value).astype(np.float32),
                truth.astype(np.float32),
                np.ones(size, np.float32),
            )
            number += 1


def loop(checkpoint: Path, **changes: Any) -> Loop:
    torch.manual_seed(0)
    stages = changes.pop("stages", None) or [
        Stage(steps=8, batch=2, rate=3e-3, samples=Stripes(1)),
        Stage(steps=4, batch=4, rate=1e-3, samples=Stripes(2)),
    ]
    validation = [next(Stripes(7).batches(1, first=number)) for number in range(3)]
    arguments: dict[str, Any] = {"options": OPTIONS, "averaging": 0.5, **changes}
    return Loop(LightUNet(widths=(8, 16)), stages, validation, checkpoint, **arguments)


def same_weights(one: Loop, other: Loop) -> bool:
    pairs = zip(one.best_weights.values(), other.best_weights.values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = loop(tmp_path / "whole.pt")
    untrained = whole.consider()
    whole.advance(6)
    finished = whole.advance(6)
    assert finished.step == 12
    assert finished.best < untrained.validation
    assert finished.gain_db > untrained.gain_db == pytest.approx(0, abs=1e-4)

    interrupted = loop(tmp_path / "interrupted.pt")
    interrupted.consider()
    with pytest.raises(UserInterruptError, match=r"step 3 of 12.*same command goes on") as stopped:
        interrupted.advance(6, lambda step, _loss: step < 3)
    assert stopped.value.exit_code == 130
    resumed = loop(tmp_path / "interrupted.pt")
    assert resumed.step == 3
    resumed.advance(3)
    again = loop(tmp_path / "interrupted.pt")
    assert again.advance(100) == finished
    assert same_weights(whole, again)


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    training = loop(
        tmp_path / "last.pt",
        stages=[Stage(steps=4, batch=2, rate=0.5, samples=Stripes(1, value=30.0))],
        averaging=None,
    )
    before = training.consider()
    after = training.advance(4)
    assert after.validation > before.validation == after.best
    assert training.best_step == 0
    network = training.best_network()
    assert not network.get_parameter("head.weight").any()


def test_a_checkpoint_of_other_options_is_refused_and_says_which(tmp_path: Path) -> None:
    loop(tmp_path / "last.pt").advance(1)
    with pytest.raises(UsageError, match=r"other options \(seed: 0, now 1\).*another --out"):
        loop(tmp_path / "last.pt", options={**OPTIONS, "seed": 1})


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x02cos\nsystem\n."])
def test_a_damaged_checkpoint_is_refused_and_not_executed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(StorageError, match="delete it to start again"):
        loop(tmp_path / "last.pt")


def test_a_checkpoint_is_the_old_one_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = loop(tmp_path / "last.pt")
    training.advance(2)
    before = (tmp_path / "last.pt").read_bytes()

    def full(_state: object, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StorageError, match=r"No space left.*the last one is whole"):
        training.advance(2)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_full_disk_is_said_in_the_systems_words_not_in_torchs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_state: object, _file: Any) -> None:
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StorageError, match=r"No space left on device; free space, or another"):
        loop(tmp_path / "last.pt").advance(1)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_stops_the_training_with_one_line(tmp_path: Path) -> None:
    stages = [Stage(steps=4, batch=1, rate=1e-3, samples=Stripes(1, value=float("nan")))]
    training = loop(tmp_path / "last.pt", stages=stages)
    training.consider()
    with pytest.raises(PssrLiveError, match=r"step 1: the loss is no longer a number.*--rate"):
        training.advance(4)
    weights = torch.load(tmp_path / "last.pt", weights_only=True)["network"]
    assert all(torch.isfinite(values).all() for values in weights.values())


def test_groups_learn_at_their_own_rates(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = LightUNet(widths=(8, 16))
    head = list(network.head.parameters())
    others = [one for name, one in network.named_parameters() if not name.startswith("head")]
    before = [one.detach().clone() for one in others]
    training = Loop(
        network,
        [Stage(steps=3, batch=2, rate=1e-3, samples=Stripes(1))],
        [next(Stripes(7).batches(1))],
        tmp_path / "last.pt",
        OPTIONS,
        groups=[(head, 1.0), (others, 0.0)],
    )
    training.advance(3)
    assert all(torch.equal(*pair) for pair in zip(before, others, strict=True))
    assert head[0].any()


def test_the_rate_rises_and_falls_once_in_each_stage() -> None:
    rates = [rate_at(step, 100, 0.5) for step in range(100)]
    top = int(np.argmax(rates))
    assert top == 10
    assert rates[top] == 0.5
    assert (np.diff(rates[top:]) < 0).all()


def test_losses() -> None:
    restored, truths = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    truths[1] *= 10
    weights = torch.tensor([1.0, 0.01])
    assert mean_squared(restored, truths, weights).item() == pytest.approx(50.5)
    assert share_of_variance(restored, truths, weights).item() == pytest.approx(1.0)
    assert charbonnier(restored, truths, weights).item() == pytest.approx(0.97, abs=1e-3)
    assert charbonnier(truths, truths, weights).item() == pytest.approx(0)
