"""Images scanned afresh are new each time, registered, and one movie in four stands still."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

from pssr_live_models.movies import Movie
from pssr_live_models.rescans import rescans
from pssr_live_models.variety import drawn_images


def test_every_scan_is_new_and_registered_with_its_truth() -> None:
    images = drawn_images(np.random.default_rng(0), 7, 256)
    samples = rescans([Movie(images[:, ::4, ::4], images)], 5, crop=32, seed=0)
    batch = next(samples.batches(24))
    assert batch.windows.shape == (24, 5, 32, 32)
    assert batch.truths.shape == (24, 1, 128, 128)
    likeness = []
    for window, truth in zip(batch.windows, batch.truths, strict=True):
        seen = truth[0].reshape(32, 4, 32, 4).mean(axis=(1, 3))
        likeness.append(np.corrcoef(seen.ravel(), window.mean(axis=0).ravel())[0, 1])
    assert np.median(likeness) > 0.7
    assert len({window[2].tobytes() for window in batch.windows}) == 24


def test_one_movie_in_four_stands_still() -> None:
    rng = np.random.default_rng(0)
    # Each frame of a movie shows something else, so that one that stands still can be told.
    frames = [rng.integers(0, 2, (5, 48, 48)).repeat(4, 1).repeat(4, 2) for _ in range(16)]
    samples = rescans([Movie(image[:, ::4, ::4], image) for image in frames], 5, crop=24, seed=0)
    windows = next(samples.batches(200)).windows
    still = []
    for window in windows:
        with np.errstate(invalid="ignore"):
            likeness = np.corrcoef(window[1].ravel(), window[2].ravel())[0, 1]
        still.append(likeness > 0.3)
    assert 0.12 < np.mean(still) < 0.5
