"""Defaults, then the settings file, then the command line; what is unknown is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pssr_live.errors import UsageError
from pssr_live.settings import RunSettings, load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def test_the_defaults_are_the_demo() -> None:
    settings = load_settings(None, {})
    assert settings == RunSettings()
    assert (settings.scope, settings.model) == ("sim", "neuron_mf")


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(file: Path) -> None:
    file.write_text("frames = 10\nmodel = 'other'\n[sim]\nseed = 4\nsize = 100\n")
    settings = load_settings(file, {"frames": 5, "sim": {"size": 64}})
    assert (settings.frames, settings.model) == (5, "other")
    assert (settings.sim.seed, settings.sim.size) == (4, 64)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("framse = 10", "framse"),
        ("[sim]\nsede = 1", "sede"),
        ("frames = 'ten'", "frames"),
        ("frames = -1", "frames"),
        ("version = 2", "version"),
        ("[sim]\ndrop_rate = 1.0", "drop_rate"),
        ("engine = 'warp'", "engine"),
        ("sim = 3", "sim"),
        ("this is not toml", "settings.toml"),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_says_where(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        load_settings(file, {"sim": {"size": 64}} if text.startswith("sim") else {})


def test_a_file_that_is_missing_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match=r"settings\.toml"):
        load_settings(file, {})
