"""What was asked for is what runs, or an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pssr_live.errors import EngineError
from pssr_live.model import ModelPackage

__all__ = ["check_executed", "joined"]

UNKNOWN = "unknown"


def joined(precisions: Iterable[str]) -> str:
    """Write the precisions of a network's layers as one word, the most frequent one first.

    Parameters
    ----------
    precisions : iterable of str
        One for each convolution and matrix product.

    Returns
    -------
    str
        Such as ``int8+fp32``; ``unknown`` if there are none.
    """
    return "+".join(name for name, _ in Counter(precisions).most_common()) or UNKNOWN


def check_executed(what: str, model: ModelPackage, asked: str, executed: str) -> None:
    """Refuse a runtime that runs most layers in something else than what was asked for.

    Parameters
    ----------
    what : str
        The runtime, for the message.
    model : ModelPackage
        What it runs.
    asked : str
        A precision.
    executed : str
        What the runtime says, as `joined` writes it.

    Raises
    ------
    EngineError
    """
    if executed.split("+")[0] not in (asked, UNKNOWN):
        raise EngineError(
            f"{what} does not run model {model.manifest.name} in {asked}",
            f"most of its layers run in {executed.split('+')[0]}",
            "choose another --precision, or another --engine",
        )
