"""What a network is trained on is what the daemon will show it."""

from __future__ import annotations

from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pytest

from pssr_live.engine.normalise import normalise as live_normalise
from pssr_live.errors import UsageError
from pssr_live.frames import Frame
from pssr_live.ring import plan_window
from pssr_live_models.dataset import Mixture, MovieSamples, normalise, window_frames
from pssr_live_models.movies import (
    FIRST_EVALUATION_SEED,
    FIRST_VALIDATION_SEED,
    Movie,
    degraded_movie,
    load_movies,
    refuse_evaluation_seeds,
    save_movie,
    simulated_movie,
    varied_movie,
)


def ramp_movie(frames: int = 7, size: int = 40) -> Movie:
    """A movie whose truth is its frames with every pixel repeated, so that places can be told."""
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 60_000, (frames, size, size)).astype(np.uint16)
    return Movie(raw, raw.repeat(4, axis=1).repeat(4, axis=2))


def samples_of(*movies: Movie, seed: int, crop: int) -> Mixture:
    return Mixture([(1.0, MovieSamples(movies, crop=crop))], seed)


def test_windows_follow_the_daemons_rule_for_edges_and_gaps() -> None:
    run = range(9)
    for lost in (gap for many in range(4) for gap in combinations(run, many)):
        available = [index for index in run if index not in lost]
        for index in available:
            plan = plan_window(index, available, first=0, last=8, length=5, centre=2)
            assert window_frames(index, available) == list(plan.indices)


@pytest.mark.parametrize("level", [0, 7, 40_000])
def test_windows_are_normalised_as_in_the_daemon(level: int) -> None:
    window = np.random.default_rng(1).poisson(level, (5, 33, 47)).astype(np.uint16)
    values, mean, std = normalise(window)
    live = np.empty((1, *window.shape), np.float32)
    statistics = live_normalise([Frame(plane, 0, 0, 0) for plane in window], live)
    assert statistics.mean == pytest.approx(mean, abs=1e-6)
    assert statistics.std == pytest.approx(std, rel=1e-5)
    np.testing.assert_allclose(values, live[0], atol=2e-5)


def test_samples_keep_window_and_truth_registered() -> None:
    batch = next(samples_of(ramp_movie(), seed=3, crop=24).batches(16))
    assert batch.windows.shape == (16, 5, 24, 24)
    assert batch.truths.shape == (16, 1, 96, 96)
    middle = batch.windows[:, 2].repeat(4, axis=1).repeat(4, axis=2)
    np.testing.assert_allclose(middle, batch.truths[:, 0], atol=1e-5)


def test_samples_are_the_same_for_the_same_seed_and_go_on_where_they_were() -> None:
    samples = samples_of(ramp_movie(), seed=3, crop=16)
    third = list(islice(samples.batches(2), 3))[2]
    again = next(samples_of(ramp_movie(), seed=3, crop=16).batches(2, first=2))
    np.testing.assert_array_equal(third.windows, again.windows)
    other = next(samples_of(ramp_movie(), seed=4, crop=16).batches(2, first=2))
    assert not np.array_equal(third.windows, other.windows)


def test_a_mixture_has_the_shares_that_it_was_given() -> None:
    movie = ramp_movie()
    dim = Movie(movie.frames // 8, movie.truth // 8 + 9000)
    parts = [(0.8, MovieSamples([movie], crop=8)), (0.2, MovieSamples([dim], crop=8))]
    truths = next(Mixture(parts, 0).batches(400)).truths
    # The truth of the second lies far above its frames.
    assert 0.13 < np.mean(truths.mean(axis=(1, 2, 3)) > 2) < 0.27


def test_samples_weigh_errors_by_the_variance_of_the_whole_true_frame() -> None:
    batch = next(samples_of(ramp_movie(), seed=1, crop=40).batches(4))
    for weight, window in zip(batch.weights, batch.windows, strict=True):
        # Crops as large as the movie: the middle frame is the truth, on the window's own scale.
        assert weight == pytest.approx(1 / np.var(window[2]), rel=1e-3)


def test_samples_show_edges_and_gaps() -> None:
    windows = next(samples_of(ramp_movie(), seed=0, crop=16).batches(200)).windows
    repeats = [len({plane.tobytes() for plane in window}) for window in windows]
    assert {3, 4, 5} <= set(repeats)


def test_evaluation_and_validation_seeds_are_kept_from_training() -> None:
    refuse_evaluation_seeds(range(FIRST_VALIDATION_SEED))
    assert FIRST_VALIDATION_SEED < FIRST_EVALUATION_SEED
    for seeds in ([FIRST_EVALUATION_SEED], [3, FIRST_VALIDATION_SEED]):
        with pytest.raises(UsageError, match="kept back"):
            refuse_evaluation_seeds(seeds)


def test_simulated_movies_come_with_registered_truth_and_repeat() -> None:
    movie = simulated_movie("u2os", 5, size=48, frames=5, photons=200)
    assert movie.frames.shape == (5, 48, 48)
    assert movie.truth.shape == (5, 192, 192)
    seen = movie.truth[2].reshape(48, 4, 48, 4).mean(axis=(1, 3))
    assert np.corrcoef(seen.ravel(), movie.frames[2].ravel())[0, 1] > 0.9
    again = simulated_movie("u2os", 5, size=48, frames=5, photons=200)
    np.testing.assert_array_equal(movie.frames, again.frames)


def test_movies_for_training_vary_in_light() -> None:
    noise = []
    for seed in (0, 2, 4, 6):
        movie = varied_movie(seed, size=32, frames=2)
        seen = movie.truth[0].reshape(32, 4, 32, 4).mean(axis=(1, 3))
        noise.append(np.std(movie.frames[0] - seen) / movie.truth[0].std())
    assert max(noise) > 2 * min(noise)


def test_degraded_images_keep_their_registration_and_have_shot_noise() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((1, 256, 256))
    image[:, :, 128:] = 1.0
    movie = degraded_movie(image, rng, photons=25.0)
    bright = movie.frames[0, :, 33:]
    assert movie.frames.shape == (1, 64, 64)
    assert bright.mean() == pytest.approx(movie.truth[0, :, 132:].mean(), rel=0.02)
    assert bright.std() == pytest.approx(4 * np.sqrt(25), rel=0.1)
    assert movie.frames[0, :, :31].std() < 4


def test_movies_are_kept_as_plain_arrays(tmp_path: Path) -> None:
    movie = ramp_movie()
    save_movie(tmp_path, "b", movie)
    save_movie(tmp_path, "a", ramp_movie(frames=3))
    first, second = load_movies(tmp_path)
    assert len(first.frames) == 3
    np.testing.assert_array_equal(second.truth, movie.truth)
