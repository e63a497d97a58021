"""The steps that crappifiers are made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray
from scipy import ndimage

__all__ = [
    "SCALE",
    "Blur",
    "Degradation",
    "Detect",
    "Digitise",
    "Floats",
    "GaussianNoise",
    "Image",
    "LocalVarianceNoise",
    "Multiply",
    "Pair",
    "PoissonNoise",
    "RestoreMaximum",
    "SaltAndPepper",
    "Sample",
    "Step",
    "Unit",
]

SCALE = 4
"""The frames have a quarter of the images' sampling per axis."""

TINY = 1e-9

Image: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float32]

NotNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class Pair(NamedTuple):
    """What a crappifier makes of a movie.

    Attributes
    ----------
    frames : ndarray, shape (T, H, W), uint8, uint16 or float32
        The undersampled frames; each has noise of its own. Before the step `Sample`: at full
        sampling, (T, 4H, 4W).
    truth : ndarray, shape (T, 4H, 4W), float32
        What the same detector would have recorded without noise at full sampling: on the frames'
        own intensity scale, with gain and offset, neither rounded nor clipped. Its pixels
        ``4i..4i+3, 4j..4j+3`` lie around the centre of the frames' pixel ``(i, j)``.
    """

    frames: Image
    truth: Floats


class Degradation(Protocol):
    """One step from a good movie to a bad one."""

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """Take the movie a step further.

        A step that degrades changes the frames only; one that changes the intensity scale changes
        frames and truth alike. Neither writes into the arrays it is given.

        Parameters
        ----------
        pair : Pair
            float32.
        rng : numpy.random.Generator
            Source of the noise.

        Returns
        -------
        Pair
        """


class _Step(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="step"):
    """A step that can be kept in a file; unknown fields are refused."""


class Unit(_Step, frozen=True, tag="unit"):
    """Bring the whole movie to a scale on which the brightest structures are at 1.

    Attributes
    ----------
    low : float or None
        Percentile of the movie that becomes 0, what is below it too; None keeps 0 at 0.
    high : float
        Percentile that becomes 1; 100 for the maximum.
    """

    low: Percent | None = None
    high: Percent = 100.0

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:  # noqa: ARG002
        """See `Degradation`; a movie without contrast becomes 0."""
        low = 0.0 if self.low is None else float(np.percentile(pair.truth, self.low))
        span = max(float(np.percentile(pair.truth, self.high)) - low, TINY)

        def unit(images: Image) -> Floats:
            return np.asarray(np.maximum((images - np.float32(low)) / np.float32(span), 0))

        return Pair(unit(pair.frames), unit(pair.truth))


class Multiply(_Step, frozen=True, tag="multiply"):
    """Multiply all intensities.

    Attributes
    ----------
    factor : float
        For example 255, from a scale of 0 to 1 to that of 8 bit.
    """

    factor: Positive

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:  # noqa: ARG002
        """See `Degradation`."""
        factor = np.float32(self.factor)
        return Pair(pair.frames * factor, pair.truth * factor)


class RestoreMaximum(_Step, frozen=True, tag="restore-maximum"):
    """Scale each frame so that its maximum is what it was before the noise.

    Truth is scaled by the same factor, frame by frame. The published code does so: see the preset
    ``published-code``.
    """

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:  # noqa: ARG002
        """See `Degradation`; frames that are 0 everywhere stay as they are."""
        maximum = pair.frames.max(axis=(1, 2), keepdims=True)
        wanted = pair.truth.max(axis=(1, 2), keepdims=True)
        factor = np.where(maximum > 0, wanted / np.maximum(maximum, TINY), 1).astype(np.float32)
        return Pair(pair.frames * factor, pair.truth * factor)


class SaltAndPepper(_Step, frozen=True, tag="salt-and-pepper"):
    """Set random pixels to 1, then random pixels to 0, on a scale of 0 to 1.

    Attributes
    ----------
    salt, pepper : float
        Share of the pixels.
    """

    salt: Share
    pepper: Share

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """See `Degradation`."""
        frames = pair.frames.copy()
        for value, share in ((1, self.salt), (0, self.pepper)):
            frames[rng.random(frames.shape, dtype=np.float32) < share] = value
        return pair._replace(frames=frames)


class LocalVarianceNoise(_Step, frozen=True, tag="local-variance-noise"):
    """Add Gaussian noise whose variance follows the blurred image, on a scale of 0 to 1.

    Intensities are clipped to 0..1, so that dim areas come out lighter than the truth.

    Attributes
    ----------
    blur : float
        Standard deviation of the Gaussian that blurs the image into a map of variances, pixels.
    factor : float
        Variance of the noise / intensity of the blurred image.
    """

    blur: NotNegative
    factor: Positive

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """See `Degradation`."""
        # The mode is that of skimage.filters.gaussian, which the published code calls.
        around = ndimage.gaussian_filter(pair.frames, (0, self.blur, self.blur), mode="nearest")
        spread = np.sqrt(self.factor * (np.maximum(around, 0) + np.float32(1e-10)))
        noise = spread * rng.standard_normal(spread.shape, dtype=np.float32)
        return pair._replace(frames=np.clip(pair.frames + noise, 0, 1).astype(np.float32))


class GaussianNoise(_Step, frozen=True, tag="gaussian-noise"):
    """Add the same Gaussian noise everywhere.

    Attributes
    ----------
    sigma : float
        Standard deviation, on the scale that the steps before have made.
    """

    sigma: NotNegative

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """See `Degradation`."""
        noise = rng.standard_normal(pair.frames.shape, dtype=np.float32)
        return pair._replace(frames=pair.frames + np.float32(self.sigma) * noise)


class PoissonNoise(_Step, frozen=True, tag="poisson-noise"):
    """Draw each pixel from a Poisson distribution with its intensity as mean.

    Attributes
    ----------
    intensity : float
        How much of the noise to take: 1 all of it, 0 none.
    """

    intensity: NotNegative = 1.0

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """See `Degradation`."""
        noise = rng.poisson(np.maximum(pair.frames, 0)).astype(np.float32) - pair.frames
        return pair._replace(frames=pair.frames + np.float32(self.intensity) * noise)


class Blur(_Step, frozen=True, tag="blur"):
    """Blur the frames, not the truth: the undersampled scan has a wider spot.

    Attributes
    ----------
    sigma : float
        Standard deviation of a Gaussian, pixels of the images at full sampling.
    """

    sigma: NotNegative

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:  # noqa: ARG002
        """See `Degradation`."""
        widths = (0, self.sigma, self.sigma)
        return pair._replace(frames=ndimage.gaussian_filter(pair.frames, widths, mode="mirror"))


_TAPS = {
    "point": np.full(2, 1 / 2),
    "area": np.full(4, 1 / 4),
    "triangle": np.array([1, 3, 5, 7, 7, 5, 3, 1]) / 32,
}


class Sample(_Step, frozen=True, tag="sample"):
    """Keep a quarter of the sampling per axis.

    Attributes
    ----------
    spot : {"point", "area", "triangle"}
        What a pixel of the frames sees: the images at its centre (linear interpolation, that is
        the mean of 2×2 pixels); the mean of its 4×4 pixels; or 8×8 pixels weighed by a triangle
        (Pillow's bilinear reduction).
    """

    spot: Literal["point", "area", "triangle"]

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:  # noqa: ARG002
        """See `Degradation`."""
        frames = np.moveaxis(_reduced(pair.frames, _TAPS[self.spot]), 1, 2)
        return pair._replace(frames=np.moveaxis(_reduced(frames, _TAPS[self.spot]), 1, 2))


def _reduced(images: Image, taps: Image) -> Floats:
    """Weigh the lines around the centre of each four; beyond the edge there is nothing to weigh."""
    count, pad = images.shape[1] // SCALE, max(0, (taps.size - SCALE) // 2)
    padded = np.pad(images, ((0, 0), (pad, pad), (0, 0)))
    there = np.pad(np.ones(images.shape[1]), pad)
    first = (SCALE - taps.size) // 2 + pad
    total = np.zeros((images.shape[0], count, images.shape[2]), np.float32)
    weights = np.zeros(count)
    for position, tap in enumerate(taps, start=first):
        lines = slice(position, position + SCALE * (count - 1) + 1, SCALE)
        total += np.float32(tap) * padded[:, lines]
        weights += tap * there[lines]
    return np.asarray(total / weights[:, None].astype(np.float32))


class Detect(_Step, frozen=True, tag="detect"):
    """Count photons and amplify, from a scale on which the brightest structures are at 1.

    A photomultiplier whose pulses vary in height has more noise than Poisson's; ``gain`` and
    ``photons`` are then those of the detector with Poisson noise alone that has the same mean and
    variance.

    Attributes
    ----------
    photons : float
        Mean photons per dwell time where the movie is 1.
    gain : float
        Counts per photon.
    offset : float
        Counts without light.
    read_noise : float
        Standard deviation of the electronics, counts.
    background : float
        Light that does not come from the images, as a share of ``photons``.
    spread : float
        Each movie has its own photon rate, drawn between ``photons / spread`` and
        ``photons * spread``, evenly on a logarithmic scale; 1 for always the same.
    """

    photons: Positive
    gain: Positive
    offset: float
    read_noise: NotNegative
    background: NotNegative = 0.0
    spread: Annotated[float, Meta(ge=1)] = 1.0

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """See `Degradation`."""
        photons = self.photons * self.spread ** rng.uniform(-1, 1)
        light = photons * (np.maximum(pair.frames, 0) + np.float32(self.background))
        counts = float(self.gain) * rng.poisson(light) + self.offset
        counts += self.read_noise * rng.standard_normal(light.shape, dtype=np.float32)
        truth = self.gain * photons * (pair.truth + self.background) + self.offset
        return Pair(counts.astype(np.float32), truth.astype(np.float32))


class Digitise(_Step, frozen=True, tag="digitise"):
    """Round the frames to whole counts and clip them; the truth stays as it is.

    Attributes
    ----------
    maximum : int
        Largest count: 255 and below gives uint8, above that uint16.
    truncate : bool
        Round down instead of to the nearest count, which makes the frames half a count darker than
        the truth. The published code does so.
    """

    maximum: Annotated[int, Meta(ge=1, le=65535)]
    truncate: bool = False

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:  # noqa: ARG002
        """See `Degradation`."""
        whole = np.floor(pair.frames) if self.truncate else np.rint(pair.frames)
        dtype = np.uint8 if self.maximum <= np.iinfo(np.uint8).max else np.uint16
        return pair._replace(frames=np.clip(whole, 0, self.maximum).astype(dtype))


Step: TypeAlias = (
    Unit
    | Multiply
    | RestoreMaximum
    | SaltAndPepper
    | LocalVarianceNoise
    | GaussianNoise
    | PoissonNoise
    | Blur
    | Sample
    | Detect
    | Digitise
)
