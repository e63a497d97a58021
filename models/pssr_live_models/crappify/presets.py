"""Crappifiers by name: the paper's, the published code's, PSSR2's and a physical one."""

from __future__ import annotations

from pathlib import Path

from pssr_live.errors import UsageError
from pssr_live_models.crappify.crappifier import Crappifier, load_crappifier
from pssr_live_models.crappify.steps import (
    Blur,
    Detect,
    Digitise,
    LocalVarianceNoise,
    Multiply,
    PoissonNoise,
    RestoreMaximum,
    SaltAndPepper,
    Sample,
    Unit,
)

__all__ = ["PRESETS", "find_crappifier"]

_EIGHT_BIT = 255

PRESETS: dict[str, Crappifier] = {
    crappifier.name: crappifier
    for crappifier in (
        Crappifier(
            name="paper-fluorescence",
            steps=(
                Unit(),
                SaltAndPepper(salt=0.0025, pepper=0.0025),
                LocalVarianceNoise(blur=5.0, factor=0.5),
                Sample(spot="point"),
                Multiply(factor=_EIGHT_BIT),
                Digitise(maximum=_EIGHT_BIT),
            ),
        ),
        Crappifier(
            name="published-code",
            steps=(
                Unit(),
                LocalVarianceNoise(blur=5.0, factor=0.5),
                SaltAndPepper(salt=0.005, pepper=0.005),
                RestoreMaximum(),
                Blur(sigma=1.5),
                Sample(spot="point"),
                Multiply(factor=_EIGHT_BIT),
                Digitise(maximum=_EIGHT_BIT, truncate=True),
            ),
        ),
        Crappifier(
            name="paper-em",
            steps=(
                Unit(),
                LocalVarianceNoise(blur=3.0, factor=0.05),
                Sample(spot="point"),
                Multiply(factor=_EIGHT_BIT),
                Digitise(maximum=_EIGHT_BIT),
            ),
        ),
        Crappifier(
            name="pssr2",
            steps=(
                Unit(),
                Multiply(factor=_EIGHT_BIT),
                Sample(spot="triangle"),
                PoissonNoise(intensity=1.0),
                Digitise(maximum=_EIGHT_BIT),
            ),
        ),
        Crappifier(
            name="physical",
            steps=(
                Unit(low=0.1, high=99.9),
                Sample(spot="area"),
                Detect(
                    photons=20.0,
                    gain=4.0,
                    offset=100.0,
                    read_noise=2.0,
                    background=0.05,
                    spread=10.0,
                ),
                Digitise(maximum=65535),
            ),
        ),
    )
}
"""The crappifiers that have names.

``paper-fluorescence``
    The text of the paper (Fang et al., Nat. Methods 18, 406 (2021)): salt and pepper in 0.5 % of
    the pixels, then additive Gaussian noise of local variance, then a quarter of the sampling. The
    text's sigma of 5 is the blur of the map of variances, and its factor of 0.5 is taken from the
    published function of the same order, ``fluo_SP_AG_D_sameas_preprint`` in
    ``BPHO-Salk/PSSR:utils/crappifiers.py``.
``published-code``
    What the README of the published code trains with: ``new_crap_AG_SP`` in the same file. Noise
    of local variance, 0.5 % salt, 0.5 % pepper, maximum restored, ``skimage.transform.rescale`` of
    order 1, rounded down to 8 bit. Its ``env.yml`` names scikit-image 0.15, where ``rescale``
    blurs before it samples (sigma 1.5). Salt makes the maximum of nearly every frame 1, so that
    frames of a movie come out scaled by their own maximum; truth is scaled alike.
``paper-em``
    Additive Gaussian noise with a sigma of 3, then a quarter of the sampling. As the published
    code has it (``em_AG_D_sameas_preprint``), the sigma is the blur of the map of variances and
    the factor is 0.05. The frames are 8 bit.
``pssr2``
    The order of PSSR2 (package ``pssr``, ``ucsdmanorlab/PSSR2:pssr/data.py`` and
    ``pssr/crappifiers.py``): Pillow's bilinear reduction first, then Poisson noise of intensity 1
    on a scale of 0 to 255, rounded to 8 bit.
``physical``
    A scanner and its detector: mean over the pixel, 2 to 200 photons per dwell time where the
    movie reaches its 99.9th percentile, 4 counts a photon, offset 100, read noise 2 counts.

The published functions work on single 8-bit images; here a movie is scaled by its own maximum.
Where they reduce with ``scipy.ndimage.zoom``, which spreads the pixels from corner to corner, these
presets interpolate at the centre of each pixel: else frames and truth would not be registered.
"""


def find_crappifier(name_or_path: str) -> Crappifier:
    """Find a crappifier by name, or read it from a file.

    Parameters
    ----------
    name_or_path : str
        A name of `PRESETS`, or the path of a TOML file.

    Returns
    -------
    Crappifier

    Raises
    ------
    UsageError
        There is neither a preset nor a file of that name, or the file is refused.
    """
    if name_or_path in PRESETS:
        return PRESETS[name_or_path]
    if not Path(name_or_path).is_file():
        raise UsageError(
            f"--crappifier {name_or_path}",
            f"no preset or file has this name; there are {', '.join(PRESETS)}",
            "choose one of these, or make a file with `pssr-live calibrate`",
        )
    return load_crappifier(Path(name_or_path))
