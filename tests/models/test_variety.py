"""Images beside the simulated cells are of many kinds, and the same for the same seed."""

from __future__ import annotations

import numpy as np

from pssr_live_models.movies import Movie, other_movie
from pssr_live_models.variety import altered_images, drawn_images


def test_drawn_images_move_little_from_frame_to_frame_and_repeat() -> None:
    images = drawn_images(np.random.default_rng(4), 5, 64)
    assert images.shape == (5, 64, 64)
    assert images.min() >= 0
    assert abs(np.percentile(images, 99.9) - 1) < 0.01
    assert np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1] > 0.9
    np.testing.assert_array_equal(images, drawn_images(np.random.default_rng(4), 5, 64))
    assert not np.array_equal(images, drawn_images(np.random.default_rng(5), 5, 64))


def test_altered_images_keep_their_places() -> None:
    known = drawn_images(np.random.default_rng(0), 3, 64)
    for seed in range(8):
        other = altered_images(known, np.random.default_rng(seed))
        assert other.shape in {(3, 64, 64), (3, 32, 32)}
        assert other.min() >= 0
        step = 64 // other.shape[1]
        small = known.reshape(3, other.shape[1], step, other.shape[2], step).mean(axis=(2, 4))
        assert np.corrcoef(small.ravel(), other.ravel())[0, 1] > 0.6


def test_other_movies_are_scanned_with_registered_truth() -> None:
    truth = (1000 * drawn_images(np.random.default_rng(0), 5, 128)).astype(np.uint16)
    simulated = Movie(truth[:, ::4, ::4], truth)
    kinds = set()
    for seed in range(8):
        movie = other_movie(simulated, seed)
        count, height, width = movie.frames.shape
        kinds.add(height)
        assert movie.truth.shape == (count, 4 * height, 4 * width)
        seen = movie.truth.reshape(count, height, 4, width, 4).mean(axis=(2, 4))
        assert abs(movie.frames.mean() - seen.mean()) < 0.1 * seen.std() + 2
    assert kinds == {16, 32}
