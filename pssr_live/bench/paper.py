"""The published network for comparison: one tile, because a frame takes minutes."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np

from pssr_live.bench.peak import network_gmacs
from pssr_live.bench.results import PaperNetwork, Refused
from pssr_live.engine.select import prepare_engine
from pssr_live.errors import PssrLiveError, UsageError
from pssr_live.model import ModelPackage

__all__ = ["MakePackage", "paper_tiles", "paper_tool", "time_paper"]

MakePackage: TypeAlias = Callable[[Path], ModelPackage]
"""Writes a package of the network into an empty folder."""

_TILE, _OVERLAP = 512, 24
"""Of the published code's inference, restored pixels."""


def paper_tool() -> MakePackage:
    """Find what makes the network, which needs torch.

    Returns
    -------
    callable

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        (entry,) = entry_points(group="pssr_live.tools", name="paper_network")
        return cast(MakePackage, entry.load())
    except (ImportError, ValueError) as error:
        raise UsageError(
            "--paper",
            f"what makes the published network is not installed ({error})",
            'pip install "pssr-live[train]"',
        ) from error


def paper_tiles(size: int, scale: int) -> int:
    """Count the tiles that the published code needs.

    Parameters
    ----------
    size : int
        Height and width of a raw frame, pixels.
    scale : int
        Restored pixels per raw pixel and axis.

    Returns
    -------
    int
    """
    return max(1, math.ceil((scale * size - _OVERLAP) / (_TILE - _OVERLAP))) ** 2


def time_paper(
    make: MakePackage,
    engine: str,
    precision: str | None,
    *,
    frame: int,
    times: int,
    on_step: Callable[[str], None],
) -> tuple[list[PaperNetwork], list[Refused]]:
    """Time one tile.

    Parameters
    ----------
    make : callable
        From `paper_tool`.
    engine : str
        A name; ``auto`` stands for OpenVINO, which every installation has.
    precision : str or None
        Arithmetic; None for fp32.
    frame : int
        Height and width of the raw frame to extrapolate to, pixels.
    times : int
        How often it is timed.
    on_step : callable
        Called with what is done next.

    Returns
    -------
    timings : list of PaperNetwork
    refused : list of Refused
        If the engine cannot run it.
    """
    name, arithmetic = "openvino" if engine == "auto" else engine, precision or "fp32"
    on_step("writing the published network, with random weights")
    with tempfile.TemporaryDirectory(prefix="pssr-live-bench-") as folder:
        package = make(Path(folder))
    try:
        return [_time(package, name, arithmetic, frame, times, on_step)], []
    except PssrLiveError as error:
        return [], [Refused(name, arithmetic, str(error))]


def _time(
    package: ModelPackage,
    engine: str,
    precision: str,
    frame: int,
    times: int,
    on_step: Callable[[str], None],
) -> PaperNetwork:
    scale = package.manifest.scale
    tile = _TILE // scale
    on_step(f"compiling the published network for {engine} {precision}")
    running, report = prepare_engine(engine, precision, package, tile, tile)
    draw = np.random.default_rng(0)
    window = draw.standard_normal((1, package.manifest.window_length, tile, tile), np.float32)
    taken_ms = []
    try:
        for number in range(times):
            on_step(f"published network, one tile, {number + 1} of {times}")
            started = time.perf_counter()
            running.run(window)
            taken_ms.append(1e3 * (time.perf_counter() - started))
    finally:
        running.close()
    return PaperNetwork(
        engine=report.engine,
        precision=report.precision,
        device=report.device,
        version=report.version,
        tile=tile,
        tile_ms=taken_ms,
        gmacs=network_gmacs(package, tile, tile),
        tiles=paper_tiles(frame, scale),
    )
