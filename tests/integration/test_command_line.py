"""What the user types and reads: help, errors, exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .conftest import CommandLine

SIM = ("--scope", "sim", "--size", "64", "--frames", "3", "--no-view")


def test_help_explains_every_exit_code_and_source(pssr_live: CommandLine) -> None:
    ended = pssr_live("--help")
    assert ended.code == 0
    for word in ("sim", "mm", "replay", "view", "review", "restore", "doctor", "6 storage"):
        assert word in ended.stdout


def test_without_arguments_the_help_is_shown(pssr_live: CommandLine) -> None:
    ended = pssr_live()
    assert ended.code == 0
    assert "Restore undersampled confocal frames" in ended.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")
def test_a_viewer_that_is_asked_for_and_cannot_open_is_an_error(
    pssr_live: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(variable, raising=False)
    ended = pssr_live("--scope", "sim", "--size", "64", "--frames", "3", "--view")
    assert ended.code == 8
    assert "no display" in ended.stderr
    assert not (pssr_live.folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--scope", "nope"), 2, "mm, replay, sim"),
        (("--scope", "sim", "--frames", "0"), 2, "frames"),
        (("--scope", "sim", "--size", "3"), 2, "size"),
        (("--scope", "sim", "--input", "movie.tif"), 2, "--scope replay"),
        (("--scope", "mm"), 2, "--mm-config"),
        (("--scope", "replay"), 2, "--input"),
        (("--scope", "replay", "--input", "missing.tif"), 3, "missing.tif"),
        ((*SIM, "--model", "missing"), 4, "neuron_mf"),
        ((*SIM, "--engine", "onnxruntime", "--precision", "bf16"), 5, "bf16"),
        ((*SIM, "--out", "a-file/runs"), 6, "--out"),
        ((*SIM, "--publish", "tcp://0.0.0.0:*"), 7, "other computers"),
        ((*SIM, "--control", "nonsense"), 7, "nonsense"),
        ((*SIM, "--config", "missing.toml"), 2, "missing.toml"),
        ((*SIM, "--config", "unknown-key.toml"), 2, "colour"),
        (("review", "missing-run"), 6, "missing-run"),
        (("verify", "missing-run"), 6, "missing-run"),
        (("models", "show", "missing"), 4, "missing"),
        (("restore", "missing.tif", "--out", "x.ome.tif"), 3, "missing.tif"),
    ],
)
def test_an_error_is_one_line_with_its_own_exit_code(
    pssr_live: CommandLine, arguments: tuple[str, ...], code: int, says: str
) -> None:
    (pssr_live.folder / "a-file").touch()
    (pssr_live.folder / "unknown-key.toml").write_text('colour = "blue"\n')
    ended = pssr_live(*arguments)
    assert ended.code == code, ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("pssr-live:")]
    assert len(errors) == 1
    assert says in errors[0]
    assert "Traceback" not in ended.stderr
    assert not (pssr_live.folder / "runs").exists()


def test_the_settings_file_gives_way_to_the_command_line(pssr_live: CommandLine) -> None:
    settings = pssr_live.folder / "settings.toml"
    settings.write_text('scope = "sim"\nframes = 50\n[sim]\nsize = 48\ninterval_ms = 10\n')
    ended = pssr_live("--config", "settings.toml", "--frames", "4", "--no-view")
    assert ended.code == 0, ended.stderr
    assert "frames recorded:  4" in ended.stdout


def test_the_log_is_exported_as_a_table(pssr_live: CommandLine) -> None:
    assert pssr_live(*SIM).code == 0
    folder = str(pssr_live.run_folder())
    ended = pssr_live("log", "export", folder, "--csv", "log.csv", "--sqlite", "log.sqlite")
    assert ended.code == 0, ended.stderr
    assert len((pssr_live.folder / "log.csv").read_text().splitlines()) == 4
    assert (pssr_live.folder / "log.sqlite").read_bytes().startswith(b"SQLite format 3")
    nothing = pssr_live("log", "export", folder)
    assert (nothing.code, "--csv" in nothing.stderr) == (2, True)


def test_doctor_says_what_is_there_and_that_the_engines_compute_rightly(
    pssr_live: CommandLine,
) -> None:
    ended = pssr_live("doctor")
    assert ended.code == 0, ended.stderr
    assert "engine openvino" in ended.stdout
    assert "test pair of " in ended.stdout
    assert "!!" not in ended.stdout


def test_models_are_listed_shown_and_verified(pssr_live: CommandLine) -> None:
    assert "neuron_mf" in pssr_live("models", "list").stdout
    assert "simulated" in pssr_live("models", "show", "neuron_mf").stdout
    verified = pssr_live("models", "verify", "neuron_mf")
    assert verified.code == 0, verified.stderr
    assert "test pair on openvino fp32" in verified.stdout


def test_engines_are_compiled_for_gpus_that_are_not_here(pssr_live: CommandLine) -> None:
    asked = ("models", "compile", "neuron_mf", "--size", "64x64")
    made = pssr_live(*asked, "--sm", "86,89", "--precision", "fp16", "--out", "engines")
    assert made.code == 0, made.stderr
    assert "engine file:" in made.stdout
    assert [path for path in (pssr_live.folder / "engines").iterdir() if path.stat().st_size > 1e6]
    unknown = pssr_live(*asked, "--sm", "99")
    assert (unknown.code, "cannot build for SM 99" in unknown.stderr) == (5, True)
    assert pssr_live(*asked, "--sm", "x").code == 2


def test_restoring_does_not_overwrite(pssr_live: CommandLine, shared_data: Path) -> None:
    taken = pssr_live.folder / "taken.ome.tif"
    taken.write_bytes(b"precious")
    movie = shared_data / "membrane_2d_timelapse.tif"
    ended = pssr_live("restore", str(movie), "--out", str(taken))
    assert ended.code == 6
    assert taken.read_bytes() == b"precious"
