"""Tables of the model cards: figures as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["AVERAGE", "BILINEAR", "Figures", "Groups", "long_table", "share", "summary_table"]

BILINEAR = "bilinear"
AVERAGE = "five-frame average, bilinear"


@dataclass(frozen=True, slots=True)
class Figures:
    """How close a method comes to the truth, one value per window.

    Attributes
    ----------
    psnr : ndarray
        Peak signal-to-noise ratio, dB.
    ssim : ndarray
        Structural similarity.
    brightness : ndarray
        Summed intensity over background before any matching, as a share of the truth's.
    """

    psnr: NDArray[np.float64]
    ssim: NDArray[np.float64]
    brightness: NDArray[np.float64]


Groups: TypeAlias = Mapping[str, Mapping[str, Figures]]
"""By what was restored, and then by the method's name."""


def share(values: NDArray[np.float64], digits: int) -> str:
    """Write mean ± standard error; a single value as it is."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def long_table(title: str, groups: Groups) -> str:
    """Write all figures of all methods.

    Parameters
    ----------
    title : str
        Above the table.
    groups : mapping
        What to write.

    Returns
    -------
    str
        Markdown.
    """
    lines = [
        f"**{title}**",
        "",
        "| what | n | method | PSNR, dB | over bilinear, dB | SSIM | brightness |",
        "|---|---|---|---|---|---|---|",
    ]
    for what, methods in groups.items():
        for name, of in methods.items():
            gain = share(of.psnr - methods[BILINEAR].psnr, 2)
            others = f"{share(of.ssim, 3)} | {share(of.brightness, 3)}"
            lines.append(
                f"| {what} | {len(of.psnr)} | {name} | {share(of.psnr, 2)} | {gain} | {others} |"
            )
    return "\n".join(lines)


def summary_table(own: Mapping[str, str], simulated: Groups, recorded: Groups) -> str:
    """Write what each model gains over what costs nothing.

    Parameters
    ----------
    own : mapping of str to str
        By the model's name, the group of ``simulated`` that it was made for.
    simulated, recorded : mapping
        Figures. Of each recording the mean counts once, however many windows it has.

    Returns
    -------
    str
        Markdown.
    """
    titles = [f"{what}: over {than}" for what in ("simulated", "real") for than in _THAN]
    lines = [
        f"**In short: PSNR over what costs nothing, dB, on the simulated movies of the model's own "
        f"kind and on {len(recorded)} real recordings that were not trained on**",
        "",
        f"| model | {' | '.join(titles)} |",
        f"|---|{'---|' * len(titles)}",
    ]
    for model, group in own.items():
        gains = [
            simulated[group][model].psnr - simulated[group][than].psnr for than in _THAN.values()
        ]
        gains += [_over(recorded, model, than) for than in _THAN.values()] if recorded else []
        cells = [share(gain, 2) for gain in gains] + ["not evaluated"] * (len(titles) - len(gains))
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


_THAN = {"bilinear": BILINEAR, "the five-frame average": AVERAGE}


def _over(groups: Groups, model: str, than: str) -> NDArray[np.float64]:
    gains: Sequence[np.floating] = [
        np.mean(methods[model].psnr - methods[than].psnr) for methods in groups.values()
    ]
    return np.array(gains, np.float64)
