"""What `pssr-live train` learns from: movies are read, cut, undersampled and registered rightly."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("scipy")

from pssr_live.errors import PssrLiveError, SourceError, UsageError
from pssr_live.record.ome_xml import PREDICTION
from pssr_live_models.crappify import Crappifier, Detect, Digitise, Sample, Unit
from pssr_live_models.training.material import (
    material_of_movies,
    material_of_pairs,
)
from pssr_live_models.training.pairs import recorded_pair, shift
from pssr_live_models.training.recordings import (
    Recording,
    find_files,
    open_recording,
)
from pssr_live_models.training.samples import (
    Samples,
    Scaling,
    draw_window,
    validation_batches,
)
from pssr_live_models.training.scenes import Augmentation, UndersampledMovie

Image = NDArray[Any]

DATA = Path(__file__).parent / "data"
NOISELESS = Crappifier(name="noiseless", steps=(Sample(spot="area"),))
NOISY = Crappifier(
    name="noisy",
    steps=(
        Unit(),
        Sample(spot="area"),
        Detect(photons=50.0, gain=4.0, offset=100.0, read_noise=1.0),
        Digitise(maximum=65535),
    ),
)


def blobs(seed: int, frames: int, height: int, width: int) -> Image:
    """Draw smooth structures that change slowly, 100 to about 1100."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    total = np.zeros((frames, height, width))
    for _ in range(25):
        y, x, size = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(2, 7)
        for frame in range(frames):
            squares = (rows - y - frame / 2) ** 2 + (columns - x) ** 2
            total[frame] += rng.uniform(0.9, 1) * np.exp(-squares / size**2)
    return (100 + 1000 * total / total.max()).astype(np.uint16)


def recording(planes: Image, name: str = "movie.tif", pixel_um: float | None = None) -> Recording:
    return Recording(name, planes, pixel_um, "0")


def opened(file: Path, cache: Path) -> Recording:
    return open_recording(file, cache, lambda _done, _total: None)


class TestFiles:
    def test_tiff_and_ome_tiff_are_read_once_into_arrays_on_disk(self, tmp_path: Path) -> None:
        planes = blobs(0, 3, 20, 24)
        tifffile.imwrite(
            tmp_path / "b.ome.tif",
            planes,
            photometric="minisblack",
            metadata={"axes": "TYX", "PhysicalSizeX": 0.042, "PhysicalSizeY": 0.042},
        )
        tifffile.imwrite(tmp_path / "A.TIF", planes[0])
        (tmp_path / "notes.txt").write_text("not a movie")
        files = find_files([tmp_path, tmp_path / "A.TIF"])
        assert [file.name for file in files] == ["A.TIF", "b.ome.tif"]

        seen: list[tuple[int, int]] = []
        movie = open_recording(files[1], tmp_path / "cache", lambda *at: seen.append(at))
        assert seen == [(1, 3), (2, 3), (3, 3)]
        assert isinstance(movie.planes, np.memmap)
        np.testing.assert_array_equal(movie.planes, planes)
        assert movie.pixel_size_um == pytest.approx(0.042)
        again = open_recording(files[1], tmp_path / "cache", lambda *at: seen.append(at))
        assert len(seen) == 3
        assert again.sha256 == movie.sha256
        assert opened(files[0], tmp_path / "cache").planes.shape == (1, 20, 24)

    def test_czi_is_read(self, tmp_path: Path) -> None:
        pytest.importorskip("czifile")
        movie = opened(DATA / "ramps.czi", tmp_path)
        expected = np.arange(16)[:, None] * 20 + np.arange(20)
        np.testing.assert_array_equal(movie.planes, expected + 1000 * np.arange(3)[:, None, None])
        assert movie.pixel_size_um == pytest.approx(0.042)

    def test_czi_of_several_channels_is_refused(self, tmp_path: Path) -> None:
        pytest.importorskip("czifile")
        with pytest.raises(SourceError, match=r"2 C.*export one channel"):
            opened(DATA / "channels.czi", tmp_path)

    def test_a_file_that_only_says_it_is_czi_is_refused(self, tmp_path: Path) -> None:
        pytest.importorskip("czifile")
        (tmp_path / "fake.czi").write_bytes(b"something else")
        with pytest.raises(SourceError, match="no CZI file"):
            opened(tmp_path / "fake.czi", tmp_path)

    def test_a_restored_stack_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "restored.ome.tif"
        tifffile.imwrite(
            file,
            blobs(0, 2, 16, 16),
            photometric="minisblack",
            metadata={"axes": "TYX", "Description": PREDICTION},
        )
        with pytest.raises(SourceError, match="predictions"):
            opened(file, tmp_path / "cache")
        assert not (tmp_path / "cache").exists()

    def test_a_damaged_movie_leaves_nothing_behind(self, tmp_path: Path) -> None:
        tifffile.imwrite(
            tmp_path / "cut.tif",
            blobs(0, 4, 32, 32),
            photometric="minisblack",
            metadata={"axes": "TYX"},
        )
        content = (tmp_path / "cut.tif").read_bytes()
        (tmp_path / "cut.tif").write_bytes(content[: len(content) // 2])
        with pytest.raises(PssrLiveError, match=r"cut\.tif"):
            opened(tmp_path / "cut.tif", tmp_path / "cache")
        assert not list(tmp_path.glob("cache/*"))

    def test_missing_files_and_folders_without_movies_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such file"):
            find_files([tmp_path / "none.tif"])
        with pytest.raises(UsageError, match="holds no movie"):
            find_files([tmp_path])


class TestUndersampledMovies:
    @pytest.mark.parametrize("seed", range(4))
    def test_frames_are_what_a_scan_of_the_truth_gives(self, seed: int) -> None:
        movie = UndersampledMovie(recording(blobs(0, 6, 200, 220)), NOISELESS, 5, Augmentation())
        rng = np.random.default_rng(seed)
        region = movie.region(rng, 24, varied=True)
        truth, middle = region.truth, region.frames[2]
        assert truth.shape == (4 * middle.shape[0], 4 * middle.shape[1])
        blocks = truth.reshape(middle.shape[0], 4, middle.shape[1], 4).mean(axis=(1, 3))
        np.testing.assert_allclose(middle, blocks, rtol=1e-5)

    def test_turning_and_zooming_moves_structures_about_the_centre(self) -> None:
        image = np.zeros((1, 240, 240), np.float32)
        image[0, 118:122, 60:180] = 1000
        movie = UndersampledMovie(
            recording(image), NOISELESS, 1, Augmentation(rotation_deg=10, zoom=1.0001, dimming=1)
        )
        angles = set()
        for seed in range(20):
            truth = movie.region(np.random.default_rng(seed), 16, varied=True).truth
            lines = [row for row in truth[:, [4, -4]].T if row.max() > 300]
            if len(lines) == 2:
                angles.add(int(np.argmax(lines[1])) - int(np.argmax(lines[0])))
        assert min(angles) < 0 < max(angles)
        assert max(map(abs, angles)) <= 96 * np.tan(np.radians(10)) + 2

    def test_the_brightest_structure_of_the_whole_movie_sets_the_scale(self) -> None:
        planes = blobs(1, 5, 128, 128) // 10
        planes[:, :8, :8] = 1000
        movie = UndersampledMovie(recording(planes), NOISY, 5, Augmentation())
        batches = [movie.region(np.random.default_rng(seed), 16, varied=False) for seed in range(9)]
        tops = [float(batch.truth.max()) for batch in batches if batch.truth.max() < 250]
        assert tops, "every region held the bright corner"
        assert max(tops) < 100 + 4 * 50 * 0.15

    def test_a_single_image_is_scanned_anew_for_each_frame(self) -> None:
        movie = UndersampledMovie(recording(blobs(2, 1, 96, 96)), NOISY, 5, Augmentation())
        frames = movie.region(np.random.default_rng(0), 16, varied=False).frames
        assert all((frames[0] != frame).any() for frame in frames[1:])

    def test_a_frame_that_stands_in_for_a_missing_one_has_the_same_noise(self) -> None:
        movie = UndersampledMovie(recording(blobs(2, 2, 96, 96)), NOISY, 5, Augmentation())
        frames = movie.region(np.random.default_rng(0), 16, varied=False).frames
        assert len(np.unique(frames.reshape(5, -1), axis=0)) == 2


class TestSamples:
    def test_the_same_number_gives_the_same_samples(self) -> None:
        scenes = [
            UndersampledMovie(recording(blobs(seed, 5, 96, 100)), NOISY, 5, Augmentation())
            for seed in range(2)
        ]
        first = Samples(scenes, 3, crop=16).batches(4)
        batches = [next(first) for _ in range(3)]
        again = next(Samples(scenes, 3, crop=16).batches(4, first=2))
        np.testing.assert_array_equal(again.windows, batches[2].windows)
        np.testing.assert_array_equal(again.truths, batches[2].truths)
        assert batches[0].windows.shape == (4, 5, 16, 16)
        assert batches[0].truths.shape == (4, 1, 64, 64)
        assert not np.array_equal(batches[0].windows, batches[1].windows)

    def test_windows_are_normalised_as_the_daemon_will(self) -> None:
        scene = UndersampledMovie(recording(blobs(0, 5, 96, 96)), NOISY, 5, Augmentation())
        (own,) = validation_batches([scene], 1, 20, 0)
        assert own.windows.mean() == pytest.approx(0, abs=1e-5)
        assert own.windows.std() == pytest.approx(1, abs=1e-4)
        (fixed,) = validation_batches([scene], 1, 20, 0, Scaling((0.25, 0.5)))
        assert fixed.windows.max() == pytest.approx((1 - 0.25) / 0.5, abs=1e-5)

    def test_windows_lose_frames_only_where_they_are_varied(self) -> None:
        rng = np.random.default_rng(0)
        plain = [draw_window(rng, 9, 5, varied=False) for _ in range(50)]
        assert all(chosen == list(range(index - 2, index + 3)) for index, chosen in plain)
        varied = [draw_window(rng, 9, 5, varied=True) for _ in range(200)]
        assert any(len(set(chosen)) < 5 and 2 <= index < 7 for index, chosen in varied)
        assert all(chosen[2] == index for index, chosen in varied)
        assert draw_window(rng, 1, 1, varied=True) == (0, [0])


class TestSplit:
    def test_whole_movies_are_kept_for_validation(self, tmp_path: Path) -> None:
        for number in range(3):
            tifffile.imwrite(
                tmp_path / f"{number}.tif",
                blobs(number, 5, 96, 96),
                photometric="minisblack",
                metadata={"axes": "TYX"},
            )
        material = self._material(tmp_path, tmp_path / "cache")
        assert (len(material.training), len(material.validation)) == (2, 1)
        assert "1 of 3 movies, not trained on" in material.split
        assert material.pixel_size_um is None
        assert material.shortest == 24

    def test_of_a_single_movie_a_part_of_the_field_is_kept(self, tmp_path: Path) -> None:
        planes = blobs(0, 5, 256, 80)
        planes[:, 192:] = 5000
        planes[:, ::7, ::7] += 1
        tifffile.imwrite(
            tmp_path / "only.tif", planes, photometric="minisblack", metadata={"axes": "TYX"}
        )
        material = self._material(tmp_path, tmp_path / "cache")
        assert "lowest quarter of only.tif" in material.split
        rng = np.random.default_rng(0)
        assert material.validation[0].region(rng, 16, varied=False).truth.min() >= 5000
        assert material.training[0].region(rng, 16, varied=False).truth.max() < 2000

    def test_a_movie_too_small_to_be_divided_is_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(
            tmp_path / "only.tif",
            blobs(0, 5, 128, 128),
            photometric="minisblack",
            metadata={"axes": "TYX"},
        )
        with pytest.raises(UsageError, match=r"only\.tif.*less than 64 pixels"):
            self._material(tmp_path, tmp_path / "cache")

    def test_movies_that_are_undersampled_already_are_noticed(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        tifffile.imwrite(
            tmp_path / "low.ome.tif",
            blobs(0, 5, 256, 80),
            photometric="minisblack",
            metadata={"axes": "TYX", "PhysicalSizeX": 0.17, "PhysicalSizeY": 0.17},
        )
        material = self._material(tmp_path, tmp_path / "cache")
        assert "coarse for a scan" in caplog.text
        assert material.pixel_size_um == (pytest.approx(0.68 / 1.1), pytest.approx(0.68 * 1.1))

    def _material(self, folder: Path, cache: Path) -> Any:
        return material_of_movies(
            [folder], cache, NOISELESS, 5, Augmentation(), seed=0, on_plane=lambda *_at: None
        )


def scanned(truth: Image, seed: int) -> Image:
    blocks = truth.reshape(len(truth), truth.shape[1] // 4, 4, truth.shape[2] // 4, 4)
    light = blocks.mean(axis=(2, 4)) / 50
    return (7 * np.random.default_rng(seed).poisson(light) + 300).astype(np.uint16)


class TestPairs:
    @pytest.mark.parametrize(("down", "right"), [(0, 0), (1, -2), (3.25, 0.5)])
    def test_a_shift_is_found(self, down: float, right: float) -> None:
        fine = blobs(0, 1, 320, 320)[0].astype(float)
        reference = fine[64:256, 64:256].reshape(48, 4, 48, 4).mean(axis=(1, 3))
        top, left = 64 - int(4 * down), 64 - int(4 * right)
        moved = fine[top : top + 192, left : left + 192].reshape(48, 4, 48, 4).mean(axis=(1, 3))
        noisy = np.random.default_rng(0).poisson(moved / 20)
        assert shift(noisy, reference) == pytest.approx((down, right), abs=0.26)

    def test_truth_is_brought_to_the_raw_intensities(self) -> None:
        truth = blobs(0, 6, 128, 128)
        pair = recorded_pair(recording(scanned(truth, 1)), recording(truth), 5)
        region = pair.region(np.random.default_rng(0), 32, varied=False)
        low, high = region.truth.min(), region.truth.max()
        assert low == pytest.approx(300 + 7 * 100 / 50, rel=0.02)
        assert high == pytest.approx(300 + 7 * truth[2:4].max() / 50, rel=0.15)
        assert region.frames.dtype == np.uint16

    def test_one_truth_serves_all_frames_that_lie_on_it(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        truth = np.repeat(blobs(0, 1, 256, 256), 12, axis=0)
        frames = scanned(truth, 1)
        frames[9:] = np.roll(frames[9:], 4, axis=2)
        with caplog.at_level(logging.WARNING):
            pair = recorded_pair(recording(frames, "low.tif"), recording(truth[:1]), 1)
        assert "low.tif: 3 of 12 frames lie more than 0.5 pixels beside" in caplog.text
        still = scanned(truth[:1], 2)[0]
        for seed in range(20):
            (frame,) = pair.region(np.random.default_rng(seed), 64, varied=False).frames
            there, beside = (
                np.corrcoef(frame.ravel(), other.ravel())[0, 1]
                for other in (still, np.roll(still, 4, axis=1))
            )
            assert there > beside

    def test_recordings_beside_each_other_are_refused(self) -> None:
        truth = blobs(0, 5, 192, 192)
        frames = np.roll(scanned(truth, 1), 2, axis=1)
        with pytest.raises(UsageError, match=r"2\.0 scanned pixels beside each other"):
            recorded_pair(recording(frames), recording(truth), 5)

    @pytest.mark.parametrize(
        ("frames", "truth", "why"),
        [
            ((5, 32, 32), (5, 128, 120), "give a truth of 128×128"),
            ((5, 32, 32), (3, 128, 128), "5 frames and 3"),
            ((4, 32, 32), (4, 128, 128), "the model looks at 5"),
        ],
    )
    def test_recordings_that_do_not_fit_are_refused(
        self, frames: tuple[int, ...], truth: tuple[int, ...], why: str
    ) -> None:
        with pytest.raises(UsageError, match=why):
            recorded_pair(recording(np.ones(frames)), recording(np.ones(truth)), 5)

    def test_pixel_sizes_that_do_not_fit_are_refused(self) -> None:
        truth = blobs(0, 5, 128, 128)
        with pytest.raises(UsageError, match="not 4 to 1"):
            recorded_pair(
                recording(scanned(truth, 1), pixel_um=0.17), recording(truth, pixel_um=0.05), 5
            )

    def test_a_truth_of_something_else_is_refused(self) -> None:
        truth = blobs(0, 5, 128, 128)
        with pytest.raises(UsageError, match=r"beside each other|not bright where"):
            recorded_pair(recording(scanned(truth, 1)), recording(2000 - truth), 5)

    def test_each_recording_needs_its_truth(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"2 --undersampled and 1 --truth"):
            material_of_pairs(
                [tmp_path, tmp_path], [tmp_path], tmp_path, 5, on_plane=lambda *_at: None
            )
