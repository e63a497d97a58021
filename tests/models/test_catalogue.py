"""`models list` and `models show` say what a user needs to choose a model."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from pssr_live.model import read_package, shipped_models
from pssr_live.model.catalogue import print_model, print_models
from pssr_live_models.package import write_file
from tests.models.small_packages import network, package, restored, window


def console(terminal: bool, width: int = 100) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=width, color_system=None), text


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """A multi-frame package with an int8 network, and a single-frame one."""
    many = package(tmp_path / "a_mf", variants={"int8": network()}, name="a_mf")
    one = package(
        tmp_path / "b_sf",
        network(frames=1),
        pair={"window": window(1), "restored": restored(window(1))},
        name="b_sf",
        window_length=1,
        centre=0,
    )
    return [many, one]


def test_the_list_has_a_line_for_each_model_and_columns_that_line_up(two: list[Path]) -> None:
    where, text = console(terminal=False)
    print_models(two, where)
    head, first, second = text.getvalue().splitlines()
    assert first.split() == [
        "a_mf",
        "1.0.0",
        "5",
        "4×",
        "0.15",
        "to",
        "0.2",
        "fp32,",
        "bf16,",
        "int8",
        "nothing",
    ]
    assert second.split() == [
        "b_sf",
        "1.0.0",
        "1",
        "4×",
        "0.15",
        "to",
        "0.2",
        "fp32,",
        "bf16",
        "nothing",
    ]
    assert {line.index("1.0.0") for line in (first, second)} == {head.index("version")}


def test_a_terminal_folds_the_last_column_only(tmp_path: Path) -> None:
    trained = "simulated movies of mitochondria and drawn images " * 3
    folder = package(tmp_path / "small", trained_on=trained)
    where, text = console(terminal=True, width=110)
    print_models([folder], where)
    lines = text.getvalue().splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 110
    assert "0.15 to 0.2" in lines[1]


def test_in_a_narrow_terminal_what_it_was_trained_on_stands_below(two: list[Path]) -> None:
    trained = "simulated confocal movies of mitochondria (neuron first) and drawn images; no cell"
    folder = package(two[0].parent / "small", name="neuron_mf", trained_on=trained)
    where, text = console(terminal=True, width=80)
    print_models([folder, *two], where)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[-1] == "precisions"
    assert lines[1] == "  trained on"
    assert lines[2].startswith("neuron_mf  1.0.0    5       4×     0.15 to 0.2")
    assert " ".join(lines[3:5]).split() == trained.split()
    assert lines[5].startswith("a_mf       1.0.0")


def test_a_manifest_that_is_no_text_is_listed_as_damaged(two: list[Path]) -> None:
    manifest = two[0] / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"An average", b"An \xff\xfeverage"))
    where, text = console(terminal=False)
    print_models(two, where)
    _, first, second = text.getvalue().splitlines()
    assert "damaged" in first
    assert second.startswith("b_sf")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_card_does_not_command_the_terminal(tmp_path: Path, terminal: bool) -> None:
    card = b"# small\n\n\x1b]0;mine\x07\x1b[2Jthe \x9b31mend\n".replace(b"\x9b", b"\xc2\x9b")
    folder = package(tmp_path / "small", card=write_file(tmp_path / "card.md", card))
    (tmp_path / "card.md").rename(folder / "card.md")
    where, text = console(terminal)
    print_model(read_package(folder), where)
    assert "31mend" in text.getvalue()
    for command in ("\x1b]", "\x1b[2J", "\x07", "\x9b"):
        assert command not in text.getvalue()


def test_a_damaged_model_does_not_hide_the_others(two: list[Path]) -> None:
    (two[0] / "card.md").write_text("something else", encoding="utf-8")
    where, text = console(terminal=False)
    print_models(two, where)
    assert "damaged" in text.getvalue()
    assert "card.md does not match its sha256" in text.getvalue()
    assert "b_sf" in text.getvalue()


def test_without_models_the_list_says_so() -> None:
    where, text = console(terminal=False)
    print_models([], where)
    assert text.getvalue() == "no model is installed\n"


def test_show_begins_with_the_facts_and_goes_on_with_the_card_as_it_is(two: list[Path]) -> None:
    where, text = console(terminal=False)
    print_model(read_package(two[0]), where)
    facts, card = text.getvalue().split("\n\n")
    assert "frames      5 at a time, number 3 is restored, from 16 to 4096 pixels" in facts
    assert "raw pixel   0.15 to 0.2 µm" in facts
    assert "precisions  fp32, bf16, int8" in facts
    assert card == "# small\n"


@pytest.mark.parametrize("folder", list(shipped_models()), ids=lambda folder: folder.name)
def test_what_ships_can_be_shown_in_a_terminal(folder: Path) -> None:
    where, text = console(terminal=True)
    print_model(read_package(folder), where)
    assert folder.name in text.getvalue()
    assert max(map(len, text.getvalue().splitlines())) <= 100
    assert "## " not in text.getvalue()
