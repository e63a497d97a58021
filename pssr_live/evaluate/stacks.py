"""The stacks of one movie, read plane by plane: raw, restored, truth."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import numpy as np

from pssr_live.errors import UsageError
from pssr_live.frames import Pixels
from pssr_live.metrics.images import Floats
from pssr_live.record.reader import StackReader
from pssr_live.record.run_folder import RunFolder

__all__ = ["Movie", "MovieFiles", "upsample"]

RESTORED = re.compile(r"restored by (.+?)(?: \(.*)?$")
"""How the recorder names a stack that a model made."""

WINDOW = 5
"""Frames of the average that a restoration has to beat, as many as the multi-frame model sees."""


@dataclass(frozen=True, slots=True)
class MovieFiles:
    """Where the stacks of one movie are.

    Attributes
    ----------
    raw, truth : Path
        Undersampled frames, and ground truth at restored sampling.
    restored : tuple of Path
        One or several restorations of the same frames.
    """

    raw: Path
    restored: tuple[Path, ...]
    truth: Path

    @classmethod
    def find(
        cls, run: Path | None, raw: Path | None, restored: tuple[Path, ...], truth: Path | None
    ) -> MovieFiles:
        """Take the stacks of a run folder, single files, or both.

        Parameters
        ----------
        run : Path or None
            A run folder; its stacks are used.
        raw, truth : Path or None
            In place of the run's.
        restored : tuple of Path
            In addition to the run's.

        Raises
        ------
        StorageError
            `run` is not a run folder.
        UsageError
            A stack is missing.
        """
        if run is not None:
            folder = RunFolder.open(run)
            raw = raw or folder.raw
            restored = (folder.restored, *restored)
            if truth is None and folder.truth.is_file():
                truth = folder.truth
        if truth is None:
            raise UsageError(
                "there is nothing to compare with",
                "no ground truth is given" if run is None else f"{run} has no truth.ome.tif",
                "give --truth FILE, or record a simulated run with --truth",
            )
        if raw is None or not restored:
            raise UsageError(
                "there is nothing to evaluate",
                "raw or restored frames are missing",
                "give a run folder, or --raw FILE and --restored FILE",
            )
        return cls(raw, restored, truth)


class Movie:
    """Opened stacks that belong together; use as a context.

    Parameters
    ----------
    files : MovieFiles
        Where they are.

    Attributes
    ----------
    scale : int
        Restored pixels per raw pixel and axis.
    restored_names : tuple of str
        What to call the restorations: the model in the file's own words, or the file's name.
    pixel_size_nm : float or None
        Edge of a restored pixel, nm, from the truth, else a restored stack, else the raw one.
    planes : tuple of int
        Positions that can be evaluated.
    left_out : dict of str to int
        How many are not, by reason.
    frames : int
        Of the movie.

    Raises
    ------
    StorageError
        A stack cannot be read.
    UsageError
        The stacks do not belong together, or no plane can be evaluated.
    """

    def __init__(self, files: MovieFiles) -> None:
        self.files = files
        with ExitStack() as opening:
            self._raw = opening.enter_context(StackReader(files.raw))
            self._truth = opening.enter_context(StackReader(files.truth))
            self._restored = tuple(
                opening.enter_context(StackReader(path)) for path in files.restored
            )
            self._refuse_predicted_truth()
            self._check_sizes()
            self.restored_names = _names(self._restored)
            self.pixel_size_nm = self._pixel_size_nm()
            self.planes, self.left_out = self._sort_planes()
            self._opened = opening.pop_all()
        # Windows overlap: each raw plane is read once, and no more than these are in memory.
        self._raw_plane = lru_cache(maxsize=2 * WINDOW)(self._raw.read)

    def __enter__(self) -> Movie:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    @property
    def scale(self) -> int:
        """Restored pixels per raw pixel and axis."""
        return int(self._truth.shape[1] // self._raw.shape[1])

    def index(self, plane: int) -> int:
        """Read the source's index of a plane."""
        return self._raw.indices[plane]

    def raw(self, plane: int) -> Pixels:
        """Read a raw plane, ``(H, W)``."""
        return self._raw_plane(plane)

    def truth(self, plane: int) -> Pixels:
        """Read a plane of ground truth, ``(scale·H, scale·W)``; a single one serves all frames."""
        return self._finite(self._truth, 0 if self._still else plane, plane)

    @property
    def _still(self) -> bool:
        return len(self._truth) == 1

    @property
    def frames(self) -> int:
        """Raw planes of the movie."""
        return len(self._raw)

    def leave_out(self, why: str) -> None:
        """Count one of `planes` that cannot be evaluated after all."""
        self.left_out[why] = self.left_out.get(why, 0) + 1

    def _finite(self, stack: StackReader, at: int, plane: int) -> Pixels:
        """Read a plane and refuse pixels that no metric can take."""
        pixels = stack.read(at)
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise UsageError(
                f"{stack.path}, frame {self.index(plane)}",
                "it has pixels that are not finite",
                "replace them (Fiji: Process > Math > NaN Background)",
            )
        return pixels

    def methods(self, plane: int) -> dict[str, Pixels]:
        """Make or read what each method gives for one plane.

        Parameters
        ----------
        plane : int
            One of `planes`.

        Returns
        -------
        dict of str to ndarray, shape (scale·H, scale·W)
            Bilinear and five-frame average + bilinear, float64; the restorations as stored.
        """
        around = range(plane - WINDOW // 2, plane + WINDOW // 2 + 1)
        average = np.asarray(np.mean([self.raw(near) for near in around], axis=0), np.float64)
        images: dict[str, Pixels] = dict(
            zip(
                self.baselines,
                (upsample(self.raw(plane), self.scale), upsample(average, self.scale)),
                strict=True,
            )
        )
        for name, stack in zip(self.restored_names, self._restored, strict=True):
            images[name] = self._finite(stack, plane, plane)
        return images

    @property
    def baselines(self) -> tuple[str, str]:
        """What needs no model."""
        return ("bilinear", f"{WINDOW}-frame average + bilinear")

    def _check_sizes(self) -> None:
        scale, rest = divmod(self._truth.shape[1], self._raw.shape[1])
        size = (scale * self._raw.shape[1], scale * self._raw.shape[2])
        for stack in (self._truth, *self._restored):
            if rest or scale < 1 or stack.shape[1:] != size:
                raise UsageError(
                    f"{stack.path} does not fit {self._raw.path}",
                    f"planes of {stack.shape[1:]} pixels, truth of {self._truth.shape[1:]}, "
                    f"raw ones of {self._raw.shape[1:]}",
                    "give restored frames and truth of one size, a multiple of the raw one",
                )

    def _pixel_size_nm(self) -> float | None:
        for stack in (self._truth, *self._restored):
            if stack.pixel_size_um is not None:
                return stack.pixel_size_um * 1e3
        raw_um = self._raw.pixel_size_um
        return None if raw_um is None else raw_um * 1e3 / self.scale

    def _sort_planes(self) -> tuple[tuple[int, ...], dict[str, int]]:
        """Keep planes whose five-frame window is whole, in every restoration."""
        longest = len(self._raw)
        paired = self._restored if self._still else (self._truth, *self._restored)
        for stack in paired:
            self._check_indices(stack)
        shortest = min(len(stack) for stack in (self._raw, *paired))
        indices = list(self._raw.indices)
        reach = WINDOW // 2
        usable, why = [], Counter[str]()
        for plane in range(longest):
            infos = [stack.infos[plane] for stack in self._restored if plane < len(stack)]
            if plane < reach or plane >= longest - reach or any(i and i.edge for i in infos):
                why["edge of the movie"] += 1
            elif plane >= shortest:
                why["not in all stacks"] += 1
            elif indices[plane + reach] - indices[plane - reach] != WINDOW - 1 or any(
                i and not i.complete for i in infos
            ):
                why["a frame missing near by"] += 1
            else:
                usable.append(plane)
        if not usable:
            raise UsageError(
                f"{self._raw.path} cannot be evaluated",
                f"none of its {longest} frames has a whole window in all stacks",
                f"give a movie of at least {WINDOW} frames, restored to its end",
            )
        return tuple(usable), dict(why)

    def _refuse_predicted_truth(self) -> None:
        if RESTORED.match(self._truth.name):
            raise UsageError(
                f"{self._truth.path} is no ground truth",
                "a model restored it: its pixels are predictions",
                "give frames that were scanned at full sampling, or simulated",
            )

    def _check_indices(self, stack: StackReader) -> None:
        # A stack of ours says which frame a plane is of; one of another program has to be as long.
        if len(stack) > len(self._raw) and stack.infos[len(self._raw)] is None:
            raise UsageError(
                f"{stack.path} does not belong to {self._raw.path}",
                f"it has {len(stack)} planes, more than the {len(self._raw)} raw ones",
                "give stacks of one movie, one plane for each raw frame",
            )
        for raw, other in zip(self._raw.infos, stack.infos, strict=False):
            if raw is not None and other is not None and raw.index != other.index:
                raise UsageError(
                    f"{stack.path} does not belong to {self._raw.path}",
                    f"the plane of frame {raw.index} is of frame {other.index} there",
                    "give stacks of one run",
                )


def upsample(image: Pixels, scale: int) -> Floats:
    """Interpolate linearly around pixel centres.

    Restored pixels scale·i … scale·i + scale − 1 cover raw pixel i: restored pixel k lies at
    (k + ½) / scale − ½ in raw pixels. Beyond the outer pixel centres the outer values go on
    (``align_corners=False``).

    Parameters
    ----------
    image : ndarray, shape (H, W)
    scale : int
        Factor per axis.

    Returns
    -------
    ndarray, shape (scale·H, scale·W), float64
    """
    pixels = np.asarray(image, np.float64)
    for axis in (0, 1):
        size = pixels.shape[axis]
        at = np.clip((np.arange(scale * size) + 0.5) / scale - 0.5, 0, size - 1)
        low = np.clip(at.astype(np.intp), 0, max(size - 2, 0))
        share = np.expand_dims(at - low, 1 - axis)
        high = np.minimum(low + 1, size - 1)
        pixels = pixels.take(low, axis) * (1 - share) + pixels.take(high, axis) * share
    return pixels


def _names(stacks: tuple[StackReader, ...]) -> tuple[str, ...]:
    names: list[str] = []
    for stack in stacks:
        model = RESTORED.match(stack.name)
        name = model[1] if model else stack.path.name.removesuffix(".tif").removesuffix(".ome")
        again = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({again + 1})" if again else name)
    return tuple(names)
