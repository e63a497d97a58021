"""The text of a shipped model's card; needs neither torch nor ONNX."""

from __future__ import annotations

from pathlib import Path
from string import Template

from pssr_live.settings import Preset

__all__ = ["PICTURE", "UNMEASURED", "card_text"]

PICTURE = "failures.png"
"""In the package's folder, beside the card."""

UNMEASURED = "Not measured yet: run `python -m pssr_live_models.evaluate --card`."

_SEVERAL = (
    "The counterpart sees the middle frame only. Where the two differ little, the neighbouring "
    "frames added little."
)
_SINGLE = (
    "It is there for comparison, and for single images: where frames follow each other, the "
    "counterpart has five times the light to go by."
)


def card_text(name: str, preset: Preset, window_length: int, figures: str) -> str:
    """Fill in a shipped model's card.

    Parameters
    ----------
    name : str
        The model's.
    preset : {"neuron", "u2os"}
        What it is trained for first.
    window_length : int
        Frames it looks at.
    figures : str
        Markdown.

    Returns
    -------
    str
        The card, Markdown.
    """
    several = window_length > 1
    text = Path(__file__).with_name("card_template.md").read_text(encoding="utf-8")
    return Template(text).substitute(
        name=name,
        kind=name.rpartition("_")[2],
        preset=preset,
        figures=figures,
        picture=PICTURE,
        what="the middle one of five consecutive undersampled confocal frames"
        if several
        else "each undersampled confocal frame by itself",
        frames="five consecutive ones" if several else "one at a time",
        counterpart=name.replace("_mf", "_sf") if several else name.replace("_sf", "_mf"),
        comparison=_SEVERAL if several else _SINGLE,
        pixel="0.15 to 0.20 µm; trained at 0.170 µm"
        if preset == "neuron"
        else "0.17 to 0.23 µm; trained at 0.196 µm",
        interval="0.27 s" if preset == "neuron" else "2 s",
        own_photons="14" if preset == "neuron" else "16",
    )
