"""`pssr-live review`: look at a recorded run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pssr_live_gui.application import check_windows, command, run_window
from pssr_live_gui.recorded import RecordedRun

if TYPE_CHECKING:
    from pssr_live_gui.review_window import ReviewWindow

__all__ = ["review"]


def review(run: Path) -> int:
    """Open the review window of a run, and stay until it is closed.

    Parameters
    ----------
    run : Path
        The run folder; that of a run that was killed, or still goes on, will do.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    WindowError
        Windows cannot be opened here.
    StorageError
        It is no run folder, or has no raw plane.
    """
    check_windows()
    with RecordedRun(run) as recorded:

        def window() -> ReviewWindow:
            from pssr_live_gui.review_window import ReviewWindow

            return ReviewWindow(recorded)

        return run_window("pssr-live review", window)


if __name__ == "__main__":
    sys.exit(command(lambda: review(Path(sys.argv[1]))))
