"""Where frames go: the Sink protocol, and the bounded queue in front of every sink."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from pssr_live.source import StreamInfo

__all__ = ["Sink", "SinkQueue", "SinkStatistics"]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Sink(Protocol[T_contra]):
    """Something that keeps or shows frames. All calls come from one thread."""

    def open(self, info: StreamInfo) -> None:
        """Get ready. Called once, before the first item."""

    def put(self, item: T_contra) -> None:
        """Take one item; its pixels are valid until this returns."""

    def skip(self, indices: Sequence[int], reason: str) -> None:
        """Learn that frames with these indexes will not come now, and why."""

    def close(self) -> None:
        """Finish. Called once, after the last item."""
