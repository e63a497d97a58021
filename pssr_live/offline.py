"""Restoration that nobody watches: planes that live skipped, and whole movies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import lru_cache
from itertools import chain
from pathlib import Path

from pssr_live.engine.restore import Restorer
from pssr_live.frames import Frame, Restored, Window, read_only
from pssr_live.model import Manifest, find_model
from pssr_live.record.ome_xml import restored_stack
from pssr_live.record.planes import RawPlanes
from pssr_live.record.stack import PlaneInfo, StackWriter
from pssr_live.ring import Ring, Slots, plan_window
from pssr_live.settings import ReplaySettings, RunSettings
from pssr_live.source import FrameSource, StreamInfo, make_source

__all__ = ["restore_file", "restore_movie", "restore_planes"]


def restore_planes(
    raw: RawPlanes,
    positions: Iterable[int],
    restorer: Restorer,
    manifest: Manifest,
    info: StreamInfo,
) -> Iterator[Restored]:
    """Restore chosen planes of a raw stack, from the same windows that live would have used.

    Parameters
    ----------
    raw : RawPlanes
        The raw stack, finished, or at least a window past the last position.
    positions : iterable of int
        Planes to restore, counted from 0.
    restorer : Restorer
        Prepared for the stack's size.
    manifest : Manifest
        The model's.
    info : StreamInfo
        What the raw frames are.

    Yields
    ------
    Restored
        One per position, ``live=False``.
    """
    reach = manifest.window_length

    @lru_cache(maxsize=2 * reach)
    def frame(position: int) -> Frame:
        plane = raw.index[position]
        return Frame(
            pixels=read_only(raw.read(position)),
            index=plane.index,
            t_source_ns=plane.t_source_ns,
            t_host_ns=0,
            pixel_size_um=info.pixel_size_um,
            channel=info.channel,
        )

    for position in positions:
        near = range(max(0, position - reach), min(len(raw.index), position + reach + 1))
        by_index = {raw.index[candidate].index: candidate for candidate in near}
        plan = plan_window(
            raw.index[position].index,
            list(by_index),
            first=raw.index[0].index,
            last=raw.index[len(raw.index) - 1].index,
            length=manifest.window_length,
            centre=manifest.centre,
        )
        window = Window(
            frames=tuple(frame(by_index[index]) for index in plan.indices),
            centre=manifest.centre,
            edge=plan.edge,
            complete=plan.complete,
            t_ready_ns=time.monotonic_ns(),
        )
        yield restorer.restore(window, live=False)


def restore_movie(
    source: FrameSource, info: StreamInfo, restorer: Restorer, manifest: Manifest
) -> Iterator[Restored]:
    """Restore all frames of a source in order, as fast as the engine goes.

    Parameters
    ----------
    source : FrameSource
        Opened.
    info : StreamInfo
        What `source` announced.
    restorer : Restorer
        Prepared for frames of that size.
    manifest : Manifest
        The model's.

    Yields
    ------
    Restored
        One per frame, ``live=False``.
    """
    # The ring holds up to one window, and gives out all the last ones at once.
    slots = Slots(manifest.window_length + 2, info.height, info.width, info.dtype)
    ring = Ring(manifest.window_length, manifest.centre)

    def restored(windows: Iterable[Window]) -> Iterator[Restored]:
        for window in windows:
            yield restorer.restore(window, live=False)
            window.release()

    for delivered in source.frames():
        kept = slots.keep(delivered)
        windows = ring.push(kept)
        kept.release()
        yield from restored(windows)
    yield from restored(ring.finish())


def restore_file(
    movie: Path,
    out: Path,
    *,
    model: str,
    engine: str,
    precision: str | None,
    on_plane: Callable[[int, int | None], object],
) -> int:
    """Restore a recorded movie into a stack of its own.

    Parameters
    ----------
    movie : Path
        A raw stack, or any movie that the source ``replay`` takes.
    out : Path
        OME-TIFF to make; it must not exist.
    model, engine, precision : str
        As for a run.
    on_plane : callable
        Called with (done, to do or None) after each plane.

    Returns
    -------
    int
        Planes restored.

    Raises
    ------
    PssrLiveError
        The movie, the model, the engine or the disk.
    """
    package = find_model(model)
    replay = ReplaySettings(input=str(movie), fast=True)
    source = make_source(RunSettings(scope="replay", model=model, replay=replay))
    with ExitStack() as opened:
        opened.callback(source.close)
        info = source.open()
        restorer = Restorer(package, engine, precision, info.height, info.width)
        opened.callback(restorer.close)
        restored = restore_movie(source, info, restorer, package.manifest)
        # Only with the first frame it is known for sure which engine restores.
        first = next(restored, None)
        if first is None:
            return 0
        annotations = {"engine": first.engine, "restored_from": movie.name}
        stack = restored_stack(info, package.manifest, datetime.now().astimezone(), annotations)
        writer = StackWriter(out, stack)
        try:
            for position, plane in enumerate(chain((first,), restored)):
                about = PlaneInfo(
                    plane.index, plane.t_source_ns, plane.edge, plane.complete, plane.live
                )
                writer.put(position, plane.pixels, about)
                on_plane(position + 1, info.frames)
        finally:
            planes = writer.committed
            writer.close()
    return planes
