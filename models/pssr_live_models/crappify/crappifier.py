"""A crappifier: steps with a seed, kept as TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from pssr_live.errors import StorageError, UsageError
from pssr_live_models.crappify.steps import SCALE, Digitise, Floats, Image, Pair, Sample, Step

__all__ = ["Crappifier", "Fit", "full_sampling", "load_crappifier"]


DIMENSIONS = 3


class Fit(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How well a calibrated crappifier matches the frames it was fitted to.

    Attributes
    ----------
    frames : int
        Frames that were looked at.
    levels : int
        Points of the mean-variance line.
    line_error : float
        Root of the mean squared relative difference of the points' variances from the line.
    gain_error : float
        Standard error of the gain, as a share of it.
    offset_range : tuple of float, or None
        Offsets that fit the mean-variance line with a read noise and a background of at least 0,
        counts; None where the offset was given.
    blur_error : float or None
        How much more blur would hardly show in the power spectrum, pixels of the images at full
        sampling; None without such images. It is the square of the blur that has a standard error,
        ``(blur + blur_error)² - blur²``. Large where the sample has no detail finer than the
        frames' pixels, and where the images show other places than the frames.
    noise_correlation : float
        How much neighbouring pixels change together from frame to frame, the larger of both axes;
        in crappified frames of a still sample they do not.
    noise_distance : float
        Largest difference between the cumulative histograms of the noise (second differences in
        time, pixel by pixel) of real and crappified frames, 0 to 1.
    spectrum_error_db : float or None
        Root of the mean squared difference of the power spectra of real and crappified frames, dB;
        None without movies at full sampling.
    histogram_distance : float or None
        As ``noise_distance``, for the intensities of the frames.
    """

    frames: int
    levels: int
    line_error: float
    gain_error: float
    offset_range: tuple[float, float] | None = None
    blur_error: float | None = None
    noise_correlation: float
    noise_distance: float
    spectrum_error_db: float | None = None
    histogram_distance: float | None = None


class Crappifier(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Steps from movies at full sampling to undersampled frames.

    Attributes
    ----------
    name : str
        Of the preset, or of the microscope that it was fitted to.
    steps : tuple of Step
        In order. Exactly one is `Sample`; `Digitise` is the last if it is there.
    seed : int
        Of the noise, where `crappify` is given no other.
    pixel_size_um : float or None
        Edge of the pixels of the frames that it was fitted to, µm.
    fit : Fit or None
        How well it matches those frames.
    version : int
        Version of this kind of file.

    Raises
    ------
    UsageError
        The steps make no undersampled frames.
    """

    version: Literal[1] = 1
    name: str
    seed: Annotated[int, Meta(ge=0)] = 0
    pixel_size_um: Annotated[float, Meta(gt=0)] | None = None
    steps: tuple[Step, ...]
    fit: Fit | None = None

    def __post_init__(self) -> None:
        kinds = [type(step) for step in self.steps]
        if kinds.count(Sample) != 1:
            raise UsageError(
                f"crappifier {self.name}",
                f"it has {kinds.count(Sample)} steps 'sample'",
                "give it exactly one",
            )
        if Digitise in kinds[:-1]:
            raise UsageError(
                f"crappifier {self.name}",
                "a step comes after 'digitise'",
                "make 'digitise' the last step",
            )

    def crappify(self, images: Image, rng: np.random.Generator | None = None) -> Pair:
        """Make undersampled frames of a movie.

        Give whole movies and cut tiles afterwards: the brightest structure of the movie sets the
        intensity scale.

        Parameters
        ----------
        images : ndarray, shape (T, height, width)
            At full sampling; any real dtype and scale, finite. Lines and columns that do not fill
            a pixel of the frames are left out: the last ``height % 4`` and ``width % 4``.
        rng : numpy.random.Generator, optional
            Source of the noise: generators of the same state give the same frames. By default a
            new one with the crappifier's seed.

        Returns
        -------
        Pair
            ``frames`` (T, H, W), uint8, uint16 or float32, and ``truth`` (T, 4H, 4W), float32, on
            the frames' intensity scale, with ``H = height // 4``, ``W = width // 4``.

        Raises
        ------
        UsageError
            The images are not a movie, are smaller than 4×4, or have values that are not finite.
        """
        checked = full_sampling(images)
        rng = np.random.default_rng(self.seed) if rng is None else rng
        pair = Pair(checked, checked)
        for step in self.steps:
            pair = step(pair, rng)
        return pair

    def save(self, file: Path) -> None:
        """Write the crappifier as TOML; an existing file is replaced.

        Raises
        ------
        UsageError
            The TOML writer is not installed.
        StorageError
            The file cannot be written.
        """
        try:
            text = msgspec.toml.encode(_present(msgspec.to_builtins(self)))
        except ImportError as error:
            raise UsageError(
                f"cannot write {file}", "tomli-w is not installed", 'pip install "pssr-live[train]"'
            ) from error
        try:
            file.write_bytes(text)
        except OSError as error:
            raise StorageError(
                f"cannot write {file}",
                error.strerror or str(error),
                "choose a file in a folder you may write to",
            ) from error


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is None: TOML has no word for it."""
    return {
        key: _present(value) if isinstance(value, dict) else value
        for key, value in fields.items()
        if value is not None
    }


def full_sampling(images: Image) -> Floats:
    """Check a movie, cut it to whole pixels of the frames; see `Crappifier.crappify`."""
    if images.ndim != DIMENSIONS or images.shape[0] < 1 or min(images.shape[1:]) < SCALE:
        raise UsageError(
            "cannot make undersampled frames",
            f"the images have the shape {images.shape}",
            f"give a movie (frames, height, width) of at least 1×{SCALE}×{SCALE}",
        )
    if images.dtype.kind not in "uif" or not np.isfinite(images).all():
        raise UsageError(
            "cannot make undersampled frames",
            f"the images ({images.dtype}) have values that are not finite real numbers",
            "give intensities",
        )
    height, width = (SCALE * (edge // SCALE) for edge in images.shape[1:])
    return images[:, :height, :width].astype(np.float32)


def load_crappifier(file: Path) -> Crappifier:
    """Read a crappifier; nothing in the file is executed.

    Parameters
    ----------
    file : Path
        TOML, as `Crappifier.save` writes it.

    Returns
    -------
    Crappifier

    Raises
    ------
    UsageError
        The file cannot be read, has unknown fields, values out of range or steps that make no
        undersampled frames.
    """
    try:
        return msgspec.toml.decode(file.read_bytes(), type=Crappifier)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise UsageError(
            f"cannot read the crappifier {file}",
            str(error),
            "give a file that `pssr-live calibrate` wrote, or the name of a preset",
        ) from error
