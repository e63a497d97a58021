"""What the live viewer says in words about the run: status line and banner. No Qt here."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pssr_live.stream.wire import EngineCheck, EngineStatus, RawHeader, RestoredHeader, Status

__all__ = [
    "Banner",
    "Situation",
    "banner",
    "count_of",
    "counts",
    "engine_details",
    "pixel_size",
    "raw_details",
    "restored_details",
    "restored_flags",
    "trouble",
    "what_runs",
]

_DETAILS_WIDTH = 100
"""Signs in a line of what the engine says about itself."""
QUIET_S = 3.0
"""So long without a frame, at least, before the viewer says so."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What the viewer knows when it chooses its banner.

    Attributes
    ----------
    connected : bool
        A daemon is there.
    status : Status or None
        Its last status, or that of the daemon before it.
    seen : bool
        At least one frame is on screen.
    frozen : bool
        The user froze the display.
    quiet_s : float
        Time since the last new raw frame, s.
    """

    connected: bool
    status: Status | None
    seen: bool
    frozen: bool
    quiet_s: float


@dataclass(frozen=True, slots=True)
class Banner:
    """One line across the window.

    Attributes
    ----------
    kind : {"banner", "banner-bad", "banner-good"}
        How it looks.
    text : str
        What it says.
    """

    kind: Literal["banner", "banner-bad", "banner-good"]
    text: str


def banner(now: Situation) -> Banner | None:
    """Choose the banner; None while frames come in.

    Parameters
    ----------
    now : Situation
        What is known.

    Returns
    -------
    Banner or None
    """
    found = _about_the_run(now)
    if not now.frozen:
        return found
    frozen = "display frozen, the run goes on: press space to follow it again"
    if found is None:
        return Banner("banner", frozen)
    return Banner(found.kind, f"{found.text} · display frozen (space)")


def _about_the_run(now: Situation) -> Banner | None:
    status = now.status
    if status is not None and status.final:
        frames = count_of(status.frames_recorded, "frame")
        return Banner("banner-good", f"run finished: {frames} in {status.run_folder}")
    if not now.connected:
        if now.seen:
            away = "the daemon went away; showing the last frame; reconnecting…"
            return Banner("banner-bad", away)
        start = "start one with: pssr-live --scope sim --model neuron_mf"
        return Banner("banner", f"waiting for a daemon… ({start})")
    if status is not None and status.phase == "stopping":
        return Banner("banner", "the run is stopping; its files are being finished")
    if not now.seen:
        return Banner("banner", "connected; waiting for the first frame…")
    patience = QUIET_S
    if status is not None and status.fps_raw:
        patience = max(QUIET_S, 5.0 / status.fps_raw)
    if now.quiet_s > patience:
        return Banner("banner-bad", f"no new frame for {now.quiet_s:.0f} s; showing the last one")
    return None


def what_runs(status: Status) -> str:
    """Say which engine really runs, how near it is to fp32, at which rate and latency.

    Parameters
    ----------
    status : Status
        The daemon's status.

    Returns
    -------
    str
        One line.
    """
    if status.engine is None:
        engine = "engine not ready yet"
    else:
        engine = f"{status.engine.engine} {status.engine.precision} on {status.engine.device}"
        figures = [one.psnr_db for one in status.engine.checks if one.psnr_db is not None]
        if figures:
            engine += f", {min(figures):.0f} dB from fp32"
    raw, restored = _rate(status.fps_raw), _rate(status.fps_restored)
    p50, p99 = status.latency_ms_p50, status.latency_ms_p99
    latency = "" if p50 is None or p99 is None else f" · latency {p50:.0f} ms, p99 {p99:.0f} ms"
    return f"{engine} · raw {raw}, restored {restored} frames/s{latency}"


def counts(status: Status) -> str:
    """Say how many frames were received, recorded, restored, skipped and lost.

    Parameters
    ----------
    status : Status
        The daemon's status.

    Returns
    -------
    str
        One line.
    """
    return (
        f"received {status.frames_received} · recorded {status.frames_recorded}"
        f" · restored {status.frames_restored} · skipped live {status.frames_skipped_live}"
        f" · lost at the source {status.frames_lost_at_source}"
    )


def trouble(status: Status) -> tuple[Literal["lost", "flag"], str] | None:
    """Say what a user must not overlook: lost frames, then skipped ones, then the last warning.

    Parameters
    ----------
    status : Status
        The daemon's status.

    Returns
    -------
    tuple or None
        How it looks, and one line; None if all is well.
    """
    parts = []
    if status.frames_lost_at_source:
        parts.append(f"{count_of(status.frames_lost_at_source, 'frame')} lost at the source")
    if status.frames_skipped_live:
        skipped = count_of(status.frames_skipped_live, "frame")
        parts.append(f"{skipped} skipped live (restored later)")
    parts.extend(status.standing)
    parts.extend(text for text in status.warnings[-1:] if text not in status.standing)
    if not parts:
        return None
    return ("lost" if status.frames_lost_at_source else "flag", "⚠ " + " · ".join(parts))


def engine_details(status: Status) -> str:
    """Say all that the engine reports: what runs, how it was checked, and what was refused.

    Parameters
    ----------
    status : Status
        The daemon's status.

    Returns
    -------
    str
        Several lines; nothing before the engine is ready.
    """
    if status.engine is None:
        return ""
    return "\n".join(
        textwrap.fill(line, _DETAILS_WIDTH, subsequent_indent="    ")
        for line in _engine_lines(status.engine)
    )


def _engine_lines(engine: EngineStatus) -> Iterator[str]:
    asked = "" if engine.requested == engine.engine else f" (asked for: {engine.requested})"
    threads = count_of(engine.threads, "thread")
    yield f"{engine.engine} {engine.version}{asked}, {engine.precision}, {threads}"
    yield engine.device
    if engine.cached is not None:
        yield "compiled earlier, from the cache" if engine.cached else "compiled for this run"
    if engine.tiles > 1:
        yield f"each frame is restored in {engine.tiles} parts"
    for check in engine.checks:
        yield _check(check)
    if engine.refused:
        yield "refused engines:"
        yield from (f"{one.engine}: {one.why}" for one in engine.refused)


def _check(check: EngineCheck) -> str:
    near = (
        "equal to fp32"
        if check.psnr_db is None
        else f"{check.psnr_db:.1f} dB from fp32, at least {check.floor_db:.0f} needed"
    )
    drop = "" if check.drop_db is None else f", {check.drop_db:.2f} dB further from the truth"
    return f"{check.what}: {near}{drop}{' (checked earlier)' if check.cached else ''}"


def raw_details(header: RawHeader) -> str:
    """Describe a raw frame in one short line."""
    return _details(header, header.channel)


def restored_details(header: RestoredHeader) -> str:
    """Describe a restored frame in one short line."""
    latency = "" if header.latency_ms is None else f"latency {header.latency_ms:.0f} ms"
    return _details(header, latency)


def restored_flags(*, edge: bool, complete: bool, live: bool) -> tuple[str, ...]:
    """Name what a reader must know before trusting a restored frame.

    Parameters
    ----------
    edge, complete, live : bool
        As of `pssr_live.frames.Restored`.

    Returns
    -------
    tuple of str
    """
    flags = {
        "edge of the run": edge,
        "window incomplete": not complete,
        "restored afterwards": not live,
    }
    return tuple(flag for flag, holds in flags.items() if holds)


def pixel_size(um: float | None) -> str:
    """Write a pixel size, in nm where that reads better."""
    if um is None:
        return "pixel size unknown"
    return f"{um * 1000:.4g} nm/px" if um < 1 else f"{um:.4g} µm/px"


def count_of(number: int, noun: str) -> str:
    """Write ``1 frame``, ``2 frames``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _details(header: RawHeader | RestoredHeader, more: str) -> str:
    rows, columns = header.shape
    parts = [f"frame {header.index}", f"{columns} × {rows}", pixel_size(header.pixel_size_um), more]
    return " · ".join(part for part in parts if part)


def _rate(fps: float | None) -> str:
    return "–" if fps is None else f"{fps:.3g}"
