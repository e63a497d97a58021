"""`pssr-live view`: watch a running daemon."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pssr_live.stream.client import StreamClient
from pssr_live_gui.application import command, run_window

if TYPE_CHECKING:
    from pssr_live_gui.live_window import LiveWindow

__all__ = ["view"]


def view(endpoint: str | None) -> int:
    """Open the live viewer, and stay until it is closed.

    It waits for a daemon, survives its end, and finds the next one.

    Parameters
    ----------
    endpoint : str or None
        Where the daemon publishes; None finds the newest daemon of this user.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    WindowError
        Windows cannot be opened here.
    AddressError
        The endpoint is none that may be used.
    """

    def window() -> LiveWindow:
        from pssr_live_gui.live_window import LiveWindow

        return LiveWindow(StreamClient(endpoint))

    return run_window("pssr-live", window)


if __name__ == "__main__":
    sys.exit(command(lambda: view(sys.argv[1] if len(sys.argv) > 1 else None)))
