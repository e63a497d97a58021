"""Light networks restore in tiles what they restore in one piece."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from pssr_live.engine.restore import Restorer  # noqa: E402
from pssr_live.engine.tile import BLEND, GRID  # noqa: E402
from pssr_live.errors import ModelError  # noqa: E402
from pssr_live.frames import Frame, Window  # noqa: E402
from pssr_live.model import (  # noqa: E402
    ModelPackage,
    Tiling,
    find_model,
    read_package,
    shipped_models,
)
from pssr_live.offline import restore_file  # noqa: E402
from pssr_live_models.export import Description, write_package  # noqa: E402
from pssr_live_models.networks import STEP, LightUNet  # noqa: E402
from pssr_live_models.package import write_manifest  # noqa: E402
from pssr_live_models.receptive_field import light_tiling, reach  # noqa: E402


def raw_window(length: int, height: int, width: int) -> NDArray[np.uint16]:
    """Fill the whole 16-bit range with blurred spots and noise."""
    rng = np.random.default_rng(height)
    spots = (rng.random((length, height, width)) < 0.02) * rng.uniform(1e4, 5e4)
    spread = sum(np.roll(spots, (y, x), (1, 2)) / 3 for y in range(3) for x in range(3))
    return np.clip(spread + rng.normal(2000, 500, spots.shape), 0, 65535).astype(np.uint16)


@pytest.fixture(scope="module")
def network() -> LightUNet:
    torch.manual_seed(0)
    network = LightUNet().eval()
    torch.nn.init.normal_(network.head.weight, std=0.05)
    return network


@pytest.fixture(scope="module")
def package(network: LightUNet, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    about = Description("light", "1.0.0", "not trained", "none", "nothing", (0.1, 0.2))
    folder = tmp_path_factory.mktemp("models") / "light"
    return write_package(folder, network, about, raw_window(5, 24, 24), "a card")


def restored(
    package: ModelPackage, tiling: Tiling | None, raw: NDArray[np.uint16]
) -> tuple[NDArray[np.int64], int]:
    """Restore the middle frame, and say in how many tiles."""
    manifest = msgspec.structs.replace(package.manifest, tiling=tiling)
    restorer = Restorer(replace(package, manifest=manifest), "openvino", "fp32", *raw.shape[1:])
    frames = tuple(Frame(plane, index, 0, 0) for index, plane in enumerate(raw))
    window = Window(frames, manifest.centre, edge=False, complete=True, t_ready_ns=0)
    try:
        pixels = restorer.restore(window, live=False).pixels
    finally:
        restorer.close()
    return pixels.astype(np.int64), restorer.report.tiles


class TestLightNetwork:
    @pytest.mark.parametrize("size", [(200, 200), (173, 131), (90, 190)])
    def test_tiles_restore_what_the_whole_frame_gives(
        self, package: ModelPackage, network: LightUNet, size: tuple[int, int]
    ) -> None:
        raw = raw_window(5, *size)
        overlap = light_tiling(network).overlap
        tiled, tiles = restored(package, Tiling(size=overlap + 50, overlap=overlap), raw)
        whole, pieces = restored(package, None, raw)
        assert (tiles > 1, pieces) == (True, 1)
        assert np.abs(tiled - whole).max() <= 1

    def test_a_smaller_overlap_would_not_do(
        self, package: ModelPackage, network: LightUNet
    ) -> None:
        raw = raw_window(5, 200, 72)
        overlap = light_tiling(network).overlap // 3
        tiled, _ = restored(package, Tiling(size=100, overlap=overlap), raw)
        assert np.abs(tiled - restored(package, None, raw)[0]).max() > 1

    def test_tiles_begin_on_the_network_s_own_grid(self) -> None:
        assert GRID % STEP == 0

    def test_a_movie_of_large_frames_is_restored_in_tiles(
        self, package: ModelPackage, network: LightUNet, tmp_path: Path
    ) -> None:
        folder = tmp_path / "small_tiles"
        folder.mkdir()
        for file in package.folder.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        overlap = light_tiling(network).overlap
        tiling = Tiling(size=overlap + 30, overlap=overlap)
        write_manifest(folder, msgspec.structs.replace(package.manifest, tiling=tiling))
        movie = raw_window(2, 60, overlap + 60)
        tifffile.imwrite(tmp_path / "movie.tif", movie, metadata={"axes": "TYX"})
        for name, model in (("tiled", folder), ("whole", package.folder)):
            restore_file(
                tmp_path / "movie.tif",
                tmp_path / f"{name}.ome.tif",
                model=str(model),
                engine="openvino",
                precision="fp32",
                on_plane=lambda *_: None,
            )
        tiled, whole = (tifffile.imread(tmp_path / f"{n}.ome.tif") for n in ("tiled", "whole"))
        assert tiled.shape == (2, 240, 4 * (overlap + 60))
        assert np.abs(tiled.astype(np.int64) - whole).max() <= 1

    def test_tiles_that_share_all_they_have_are_refused_as_the_package_is_read(
        self, package: ModelPackage, tmp_path: Path
    ) -> None:
        for file in package.folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        tiling = Tiling(size=64, overlap=64)
        write_manifest(tmp_path, msgspec.structs.replace(package.manifest, tiling=tiling))
        with pytest.raises(ModelError, match="64"):
            read_package(tmp_path)


@pytest.mark.parametrize("name", [folder.name for folder in shipped_models()])
def test_shipped_models_restore_large_frames_as_in_one_piece(name: str) -> None:
    package = find_model(name)
    manifest = package.manifest
    if manifest.tiling is None:
        pytest.skip(f"{name} restores all frames in one piece")
    overlap = manifest.tiling.overlap
    raw = raw_window(manifest.window_length, 203, 150)
    tiled, tiles = restored(package, Tiling(size=overlap + 50, overlap=overlap), raw)
    assert tiles > 1
    assert np.abs(tiled - restored(package, None, raw)[0]).max() <= 1


def _upsampled(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(x[:, :1], scale_factor=4)


class TestReach:
    @pytest.mark.parametrize(
        ("size", "dilation", "expected"), [(1, 1, 0), (3, 1, 1), (5, 1, 2), (3, 4, 4)]
    )
    def test_a_convolution_looks_half_its_kernel_far(
        self, size: int, dilation: int, expected: int
    ) -> None:
        padding = dilation * (size // 2)
        conv = torch.nn.Conv2d(5, 1, size, padding=padding, dilation=dilation).double()
        torch.nn.init.zeros_(conv.weight)  # what it computes does not count, only what it looks at
        assert reach(lambda x: _upsampled(conv(x)), 5, scale=4, step=1) == expected

    def test_where_a_pixel_lies_in_the_pooling_grid_counts(self) -> None:
        pooled = torch.nn.MaxPool2d(4)
        assert reach(lambda x: _upsampled(_upsampled(pooled(x))), 5, scale=4, step=4) == 3

    def test_a_network_that_looks_at_everything_has_no_reach(self) -> None:
        def centred(x: torch.Tensor) -> torch.Tensor:
            return _upsampled(x) - x.mean()

        assert reach(centred, 1, scale=4, step=1) is None

    def test_the_light_network_s_overlap_covers_its_reach_on_both_sides(
        self, network: LightUNet
    ) -> None:
        exact = LightUNet().double()
        furthest = reach(exact.predict, 5, scale=4, step=STEP)
        assert furthest is not None
        assert light_tiling(network).overlap == 2 * furthest + BLEND
