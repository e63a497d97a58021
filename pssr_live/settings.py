"""One strict, versioned settings model: defaults, then a TOML file, then the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from pssr_live.errors import UsageError

__all__ = [
    "EngineName",
    "MicroManagerSettings",
    "Precision",
    "Preset",
    "ReplaySettings",
    "RunSettings",
    "SimSettings",
    "load_settings",
]

EngineName = Literal["auto", "tensorrt", "tensorrt-rtx", "cuda", "openvino", "onnxruntime", "torch"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Preset = Literal["neuron", "u2os"]

PositiveInt = Annotated[int, Meta(ge=1)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]


class _Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the settings file; unknown keys are refused."""


class SimSettings(_Section, frozen=True):
    """The simulated scanner.

    Attributes
    ----------
    preset : {"neuron", "u2os"}
        The paper's acquisition settings and the scene that goes with them.
    interval_ms : float or None
        Time from frame to frame, ms; 0 for as fast as it goes, None for the preset's.
    size : int or None
        Height and width of a frame, pixels; None for the preset's.
    seed : int
        Same seed, same movie.
    truth : bool
        Deliver the ground truth with every frame.
    photons : float or None
        Photons that the brightest structures give per pixel dwell before bleaching; None for the
        preset's.
    drift_um_per_min : float
        Stage drift.
    drop_rate : float
        Share of frames that the scanner loses, 0 to 1.
    """

    preset: Preset = "neuron"
    interval_ms: NotNegative | None = None
    size: Annotated[int, Meta(ge=32, le=4096)] | None = None
    seed: Annotated[int, Meta(ge=0)] = 0
    truth: bool = False
    photons: PositiveFloat | None = None
    drift_um_per_min: NotNegative = 0.0
    drop_rate: Annotated[float, Meta(ge=0, lt=1)] = 0.0


class ReplaySettings(_Section, frozen=True):
    """A recorded movie.

    Attributes
    ----------
    input : str or None
        The TIFF file.
    fast : bool
        As fast as it goes, instead of the movie's own pace.
    interval_ms : float or None
        Time from frame to frame, ms, where the file does not say it or says it wrongly.
    """

    input: str | None = None
    fast: bool = False
    interval_ms: PositiveFloat | None = None


class MicroManagerSettings(_Section, frozen=True):
    """A Micro-Manager core inside the daemon.

    Attributes
    ----------
    config : str or None
        Path of a Micro-Manager configuration (``.cfg``), or ``demo`` for the simulated camera that
        comes with Micro-Manager.
    adapter_dir : str or None
        Folder of the device adapters (that of the Micro-Manager installation); None for the
        adapters that come with the ``micromanager`` extra.
    exposure_ms : float or None
        Exposure to set; None leaves what the configuration sets.
    """

    config: str | None = None
    adapter_dir: str | None = None
    exposure_ms: PositiveFloat | None = None


class RunSettings(_Section, frozen=True):
    """All that a run is asked to do.

    Attributes
    ----------
    version : int
        Version of this model of settings.
    scope : str
        Name of the source: ``sim``, ``replay``, ``mm`` or an installed driver's.
    model : str
        Name of a shipped model, or the path of a model package.
    frames : int or None
        Stop after so many frames.
    duration_s : float or None
        Stop after so many seconds.
    out : str
        Folder in which the run folder is made.
    engine : str
        Engine to run the model with; ``auto`` takes the first that can.
    precision : {"fp32", "fp16", "bf16", "int8"} or None
        Arithmetic of the engine; None for the engine's most exact.
    publish, control : str
        Endpoints of the stream and of the control socket; port ``*`` is any free one.
    view : bool or None
        Open the viewer; None opens it where it is installed and there is a display.
    """

    version: Literal[1] = 1
    scope: str = "sim"
    model: str = "neuron_mf"
    frames: PositiveInt | None = None
    duration_s: PositiveFloat | None = None
    out: str = "runs"
    engine: EngineName = "auto"
    precision: Precision | None = None
    publish: str = "tcp://127.0.0.1:*"
    control: str = "tcp://127.0.0.1:*"
    view: bool | None = None
    sim: SimSettings = SimSettings()
    replay: ReplaySettings = ReplaySettings()
    mm: MicroManagerSettings = MicroManagerSettings()


def load_settings(file: Path | None, overrides: dict[str, Any]) -> RunSettings:
    """Put together defaults, a settings file and the command line.

    Parameters
    ----------
    file : Path or None
        A TOML file with the fields of `RunSettings`; sources in tables ``[sim]``, ``[replay]``,
        ``[mm]``.
    overrides : dict
        What the command line says, nested like the file; it wins.

    Returns
    -------
    RunSettings

    Raises
    ------
    UsageError
        The file cannot be read, has unknown keys or values out of range.
    """
    merged: dict[str, Any] = {}
    if file is not None:
        try:
            merged = msgspec.toml.decode(file.read_bytes())
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            raise UsageError(
                f"settings file {file}", str(error), "give a readable TOML file"
            ) from error
    for key, value in overrides.items():
        # A section that is no table stays as it is, for the check below to refuse.
        if isinstance(value, dict) and isinstance(merged.get(key, {}), dict):
            merged[key] = {**merged.get(key, {}), **value}
        elif not isinstance(value, dict):
            merged[key] = value
    try:
        return msgspec.convert(merged, RunSettings)
    except msgspec.ValidationError as error:
        where = f"settings ({file} and command line)" if file else "command line"
        raise UsageError(where, str(error), "see `pssr-live --help`") from error
