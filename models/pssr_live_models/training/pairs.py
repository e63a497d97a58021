"""Undersampled recordings with their ground truth, taken at the scope."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pssr_live.errors import UsageError
from pssr_live_models.training.recordings import Recording
from pssr_live_models.training.samples import SCALE, Region, draw_window

__all__ = ["RecordedPair", "recorded_pair", "shift"]

Image: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]

log = logging.getLogger(__name__)

FARTHEST = 0.5
"""Scanned pixels by which a frame may lie beside its truth."""

_LOOKED_AT = 256
"""Height and width, scanned pixels, that registration looks at."""
_FINER = 4
_PIXEL_SIZE_TOLERANCE = 0.02


class RecordedPair:
    """Undersampled frames and their truth as a scene.

    Parameters
    ----------
    frames : ndarray, shape (T, H, W)
        Raw frames.
    truth : ndarray, shape (T, 4H, 4W) or (1, 4H, 4W)
        One plane for each frame, or one for all.
    usable : sequence of int
        Frames that lie where their truth lies.
    matching : tuple of float
        Raw intensity = factor × truth + offset.
    window_length : int
        Frames of a window.
    """

    def __init__(
        self,
        frames: Image,
        truth: Image,
        usable: Sequence[int],
        matching: tuple[float, float],
        window_length: int,
    ) -> None:
        self._frames, self._truth = frames, truth
        self._usable, self._matching = usable, matching
        self._length = window_length

    @property
    def shortest(self) -> int:
        """The shorter of height and width, scanned pixels."""
        return int(min(self._frames.shape[1:]))

    def region(self, rng: np.random.Generator, size: int, *, varied: bool) -> Region:
        """Cut a region at random; see `pssr_live_models.training.samples.Scene`."""
        size = min(size, self.shortest)
        if varied and rng.random() < 1 / 2:
            size = min(size * 3 // 2, self.shortest)
        index, chosen = draw_window(
            rng, len(self._frames), self._length, varied=varied, usable=self._usable
        )
        height, width = self._frames.shape[1:]
        top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
        window = np.stack(
            [self._frames[frame, top : top + size, left : left + size] for frame in chosen]
        )
        truth = self._truth[
            index % len(self._truth),
            SCALE * top : SCALE * (top + size),
            SCALE * left : SCALE * (left + size),
        ]
        factor, offset = self._matching
        return Region(window, truth.astype(np.float32) * np.float32(factor) + np.float32(offset))

    def split(self) -> tuple[RecordedPair, RecordedPair]:
        """Divide the field: the upper three quarters, and the rest."""
        height = self._frames.shape[1]
        cut = height - height // 4
        return self._rows(0, cut), self._rows(cut, height)

    def _rows(self, first: int, last: int) -> RecordedPair:
        return RecordedPair(
            self._frames[:, first:last],
            self._truth[:, SCALE * first : SCALE * last],
            self._usable,
            self._matching,
            self._length,
        )


def recorded_pair(undersampled: Recording, truth: Recording, window_length: int) -> RecordedPair:
    """Put an undersampled recording and its ground truth together.

    The truth may have one plane for each frame, or a single one for a sample that stands still.
    Frames that lie more than half a scanned pixel beside it are left out. The truth is brought to
    the frames' intensities by a factor and an offset (least squares).

    Parameters
    ----------
    undersampled, truth : Recording
        Of one field, the truth at four times the sampling.
    window_length : int
        Frames that the model looks at.

    Returns
    -------
    RecordedPair

    Raises
    ------
    UsageError
        They do not belong together.
    """
    _check_sizes(undersampled, truth, window_length)
    frames = undersampled.planes
    usable, distances = [], []
    for index in range(len(frames)):
        reach = window_length // 2
        around = frames[max(0, index - reach) : index + reach + 1].mean(axis=0)
        moved = shift(around, _averaged(truth.planes[index % len(truth.planes)]))
        distances.append(float(np.hypot(*moved)))
        if distances[-1] <= FARTHEST:
            usable.append(index)
    if not usable:
        raise UsageError(
            f"{undersampled.name} and {truth.name}",
            f"they lie {np.median(distances):.1f} scanned pixels beside each other (median)",
            f"give recordings of one field that are less than {FARTHEST:g} apart, taken in turn",
        )
    if len(usable) < len(frames):
        log.warning(
            "%s: %d of %d frames lie more than %g pixels beside %s and are left out",
            undersampled.name,
            len(frames) - len(usable),
            len(frames),
            FARTHEST,
            truth.name,
        )
    matching = _matching(undersampled, truth, usable)
    return RecordedPair(frames, truth.planes, usable, matching, window_length)


def shift(image: Image, reference: Image) -> tuple[float, float]:
    """Find how far an image lies beside a reference, by phase correlation.

    Parameters
    ----------
    image, reference : ndarray, shape (H, W)
        The middle of both is compared, at most 256×256 pixels.

    Returns
    -------
    down, right : float
        Pixels, in steps of a quarter.

    Notes
    -----
    Kuglin & Hines, Proc. IEEE Conf. Cybernetics and Society, 163 (1975). Frequencies are weighed by
    a Gaussian, because those near the sampling limit hold noise and aliases only.
    """
    spectra = [np.fft.fft2(_tapered(picture)) for picture in (image, reference)]
    cross = spectra[0] * np.conj(spectra[1])
    rows, columns = (np.fft.fftfreq(edge) for edge in cross.shape)
    cross /= np.maximum(np.abs(cross), 1e-12 * np.abs(cross).max() + 1e-300)
    cross *= np.exp(-np.square(rows[:, None] / 0.15) / 2 - np.square(columns / 0.15) / 2)
    height, width = cross.shape
    finer = np.zeros((_FINER * height, _FINER * width), complex)
    top, left = (finer.shape[0] - height) // 2, (finer.shape[1] - width) // 2
    finer[top : top + height, left : left + width] = np.fft.fftshift(cross)
    likeness = np.fft.ifft2(np.fft.ifftshift(finer)).real
    peak = np.unravel_index(int(np.argmax(likeness)), likeness.shape)
    down, right = (
        (at if at <= edge // 2 else at - edge) / _FINER
        for at, edge in zip(peak, likeness.shape, strict=True)
    )
    return float(down), float(right)


def _tapered(picture: Image) -> Floats:
    """Take the middle, without its mean, fading out to the edges."""
    size = [min(edge, _LOOKED_AT) for edge in picture.shape]
    starts = [(edge - taken) // 2 for edge, taken in zip(picture.shape, size, strict=True)]
    middle = picture[starts[0] : starts[0] + size[0], starts[1] : starts[1] + size[1]]
    middle = middle.astype(np.float64)
    return np.asarray((middle - middle.mean()) * np.outer(*(np.hanning(edge) for edge in size)))


def _averaged(plane: Image) -> Floats:
    """Average the pixels that a scanned pixel covers."""
    height, width = (edge // SCALE for edge in plane.shape)
    blocks = plane.astype(np.float64).reshape(height, SCALE, width, SCALE)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _check_sizes(undersampled: Recording, truth: Recording, window_length: int) -> None:
    both = f"{undersampled.name} and {truth.name}"
    count, height, width = undersampled.planes.shape
    if truth.planes.shape[1:] != (SCALE * height, SCALE * width):
        raise UsageError(
            both,
            f"{height}×{width} pixels and {truth.planes.shape[1]}×{truth.planes.shape[2]}",
            f"give a truth of {SCALE * height}×{SCALE * width} pixels of the same field",
        )
    if len(truth.planes) not in (1, count):
        raise UsageError(
            both,
            f"they have {count} frames and {len(truth.planes)}",
            "give a truth with one plane, or with one for each frame",
        )
    if count < window_length:
        raise UsageError(
            f"{undersampled.name}",
            f"it has {count} frames and the model looks at {window_length}",
            "record as many in a row, or start from a single-frame model",
        )
    sizes = undersampled.pixel_size_um, truth.pixel_size_um
    if sizes[0] and sizes[1]:
        ratio = sizes[0] / sizes[1] / SCALE
        if abs(ratio - 1) > _PIXEL_SIZE_TOLERANCE:
            raise UsageError(
                both,
                f"their pixels are {sizes[0]:g} and {sizes[1]:g} µm, not {SCALE} to 1",
                "take the truth with a quarter of the pixel size",
            )


def _matching(
    undersampled: Recording, truth: Recording, usable: Sequence[int]
) -> tuple[float, float]:
    """Fit raw intensities to the truth's, which has the smaller noise of the two."""
    # From here on sums of one frame at a time: recordings may be larger than the memory.
    sums = np.zeros(5)
    for index in usable:
        raw = undersampled.planes[index].astype(np.float64)
        clean = _averaged(truth.planes[index % len(truth.planes)])
        sums += (raw.size, raw.sum(), clean.sum(), (raw * clean).sum(), np.square(clean).sum())
    count, raw_sum, clean_sum, products, squares = sums
    variance = squares / count - (clean_sum / count) ** 2
    covariance = products / count - raw_sum * clean_sum / count**2
    if variance <= 0 or covariance <= 0:
        raise UsageError(
            f"{undersampled.name} and {truth.name}",
            "the frames are not bright where the truth is",
            "give recordings of one field",
        )
    factor = covariance / variance
    return float(factor), float(raw_sum / count - factor * clean_sum / count)
