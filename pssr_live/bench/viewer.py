"""A viewer without a window, in a process of its own: takes all frames and says when they came."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import TracebackType

import msgspec
from msgspec import Struct

from pssr_live.errors import PssrLiveError

__all__ = ["Seen", "ViewerProcess"]

_END_WITHIN_S = 30.0


class Seen(Struct, frozen=True):
    """A restored frame that arrived.

    Attributes
    ----------
    index : int
        Of its raw frame.
    engine_ms : float
        As its header says.
    t_sent_unix_ns, t_received_unix_ns : int
        When it was published and when it was here.
    """

    index: int
    engine_ms: float
    t_sent_unix_ns: int
    t_received_unix_ns: int


class ViewerProcess:
    """Starts and ends such a viewer.

    Parameters
    ----------
    endpoint : str
        Where a daemon publishes.
    """

    def __init__(self, endpoint: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    @property
    def running(self) -> bool:
        """False once it has ended by itself, which it should not."""
        return self._process.poll() is None

    def seen(self) -> list[Seen]:
        """End it, and return the restored frames that it saw.

        Raises
        ------
        PssrLiveError
            It broke.
        """
        answer, _ = self._process.communicate(timeout=_END_WITHIN_S)
        if self._process.returncode != 0:
            raise PssrLiveError(
                "the bench's viewer broke",
                f"its process ended with {self._process.returncode}",
                "see what it wrote above",
            )
        return msgspec.json.decode(answer, type=list[Seen])

    def __enter__(self) -> ViewerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.running:
            self._process.kill()
        self._process.communicate()


def _watch(endpoint: str) -> list[Seen]:
    """Take frames until standard input is closed."""
    from pssr_live.stream.client import StreamClient

    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    seen: list[Seen] = []
    with StreamClient(endpoint) as client:
        while not ended.is_set():
            client.wait(0.1)
            client.newest_raw()
            restored = client.newest_restored()
            if restored is not None:
                header = restored.header
                seen.append(
                    Seen(
                        header.index,
                        header.engine_ms,
                        header.t_sent_unix_ns,
                        restored.t_received_unix_ns,
                    )
                )
    return seen


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_watch(sys.argv[1])))
