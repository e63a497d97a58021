"""The stacks of a run as a report needs them: some planes, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from pssr_live.errors import StorageError
from pssr_live.frames import Pixels
from pssr_live.record.reader import StackReader
from pssr_live.record.run_folder import RunFolder

__all__ = ["Intensities", "Stacks"]

KINDS = ("raw", "restored", "truth")

MEASURED = 100
"""Planes of a stack whose mean intensity is measured, at most."""


@dataclass(frozen=True, slots=True)
class Intensities:
    """Mean intensity over time.

    Attributes
    ----------
    planes : list of int
        The raw planes that were measured.
    of : int
        How many there are.
    means : dict of str to list of float
        By stack, DN; that of the restored one may be shorter.
    """

    planes: list[int]
    of: int
    means: dict[str, list[float]]


class Stacks:
    """Raw, restored and truth, as far as they are there; used by one thread.

    Parameters
    ----------
    folder : RunFolder
        The run.

    Attributes
    ----------
    notes : list of str
        What could not be read, and why; grows.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.notes: list[str] = []
        self._readers: dict[str, StackReader] = {}
        with ExitStack() as opened:
            for kind in KINDS:
                path = {"raw": folder.raw, "restored": folder.restored, "truth": folder.truth}[kind]
                if not path.is_file():
                    continue
                try:
                    self._readers[kind] = opened.enter_context(StackReader(path))
                except StorageError as error:
                    # The other stacks are worth showing whatever became of this one.
                    self.notes.append(f"{path.name} cannot be read: {error.why}")
            self._opened = opened.pop_all()

    def __enter__(self) -> Stacks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    @property
    def kinds(self) -> list[str]:
        """Which stacks there are."""
        return list(self._readers)

    def planes(self, kind: str) -> int:
        """Count the planes of a stack; 0 if it is not there."""
        return len(self._readers[kind]) if kind in self._readers else 0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a raw frame; zeros if there is none."""
        return self._readers["raw"].shape[1:] if "raw" in self._readers else (0, 0)

    def scale(self, kind: str) -> float:
        """Pixels of a stack per raw pixel and axis; 1 where there is no raw stack."""
        if "raw" not in self._readers or kind not in self._readers:
            return 1.0
        return self._readers[kind].shape[2] / self._readers["raw"].shape[2]

    def read(self, kind: str, plane: int) -> Pixels | None:
        """Read a plane; None where the stack does not reach so far or is damaged there."""
        if plane >= self.planes(kind):
            return None
        try:
            return self._readers[kind].read(plane)
        except StorageError as error:
            self.notes.append(str(error))
            return None

    def intensities(self, on_plane: Callable[[int, int], object]) -> Intensities:
        """Measure the mean intensity of raw and restored planes, at equal distances.

        Parameters
        ----------
        on_plane : callable
            Called with (done, to do) after each.
        """
        planes = evenly(self.planes("raw"), MEASURED)
        found = Intensities(planes, self.planes("raw"), {"raw": [], "restored": []})
        for done, plane in enumerate(planes, start=1):
            for kind, means in found.means.items():
                pixels = self.read(kind, plane) if plane < self.planes(kind) else None
                if pixels is not None:
                    means.append(float(np.mean(pixels, dtype=np.float64)))
                elif plane < self.planes(kind):
                    means.append(float("nan"))
            on_plane(done, len(planes))
        return found


def evenly(count: int, most: int) -> list[int]:
    """Choose at most so many of the numbers below `count`, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(float(at)) for at in np.linspace(0, count - 1, most)]
