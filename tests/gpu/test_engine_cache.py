"""The cache of compiled engines."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pssr_live.engine.trt.cache import EngineCache, EngineKey
from pssr_live.engine.trt.network import Built
from pssr_live.engine.trt.whole_file import write_file

KEY = EngineKey(
    network_sha256="0" * 64,
    engine="tensorrt-rtx",
    version="1.7.1.116",
    sm=(86,),
    gpu="NVIDIA RTX A2000",
    driver="580.1",
    system="win32-amd64",
    shape=(1, 5, 440, 440),
    precision="fp32",
    flags=("strongly-typed",),
)
AHEAD = msgspec.structs.replace(KEY, sm=(86, 89), gpu=None, driver=None, system=None)
BUILT = Built(version="1.7.1.116", nbytes=3, build_ms=1.0, precision="fp32", layers={})

CHANGES: list[dict[str, Any]] = [
    {"network_sha256": "1" * 64},
    {"engine": "tensorrt"},
    {"version": "1.7.2"},
    {"sm": (89,)},
    {"gpu": "NVIDIA RTX A4000"},
    {"driver": "581.0"},
    {"system": "linux-x86_64"},
    {"shape": (1, 5, 440, 512)},
    {"precision": "fp16"},
    {"flags": ()},
]


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def test_what_was_kept_is_found(cache: EngineCache) -> None:
    path = cache.keep("neuron_mf", KEY, b"abc", BUILT)
    found = cache.find("neuron_mf", KEY)
    assert found is not None
    assert (found.path, found.content, found.built) == (path, b"abc", BUILT)
    assert path.name.startswith("neuron_mf-440x440-fp32-tensorrt-rtx-")


def test_an_empty_cache_needs_no_folder(cache: EngineCache) -> None:
    assert cache.find("neuron_mf", KEY) is None
    assert not cache.folder.exists()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_everything_in_the_key_counts(cache: EngineCache, change: dict[str, Any]) -> None:
    path = cache.keep("neuron_mf", KEY, b"abc", BUILT)
    other = msgspec.structs.replace(KEY, **change)
    assert cache.find("neuron_mf", other) is None
    assert cache.keep("neuron_mf", other, b"xyz", BUILT) != path
    assert cache.find("neuron_mf", KEY) is not None


def test_one_built_ahead_of_time_serves_every_gpu_that_it_was_built_for(
    cache: EngineCache,
) -> None:
    cache.keep("neuron_mf", AHEAD, b"abc", BUILT)
    assert cache.find("neuron_mf", KEY) is not None
    assert cache.find("neuron_mf", msgspec.structs.replace(KEY, sm=(89,), gpu="B")) is not None
    assert cache.find("neuron_mf", msgspec.structs.replace(KEY, sm=(120,))) is None
    assert cache.find("neuron_mf", msgspec.structs.replace(KEY, precision="fp16")) is None


def test_one_built_on_a_gpu_does_not_serve_any_gpu(cache: EngineCache) -> None:
    cache.keep("neuron_mf", KEY, b"abc", BUILT)
    assert cache.find("neuron_mf", msgspec.structs.replace(KEY, gpu=None)) is None


def test_a_file_under_another_engine_s_name_is_not_taken(cache: EngineCache) -> None:
    ours = cache.keep("neuron_mf", KEY, b"abc", BUILT)
    other = cache.keep("neuron_mf", msgspec.structs.replace(KEY, driver="1"), b"xyz", BUILT)
    for suffix in (".engine", ".json"):
        other.with_suffix(suffix).replace(ours.with_suffix(suffix))
    assert cache.find("neuron_mf", KEY) is None


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".engine", b"abd"),
        (".engine", b""),
        (".json", b"{"),
        (".json", b'{"format": 2}'),
        (".json", b""),
    ],
)
def test_what_is_damaged_is_deleted(
    cache: EngineCache, suffix: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = cache.keep("neuron_mf", KEY, b"abc", BUILT)
    path.with_suffix(suffix).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert cache.find("neuron_mf", KEY) is None
    assert "is deleted" in caplog.text
    assert list(cache.folder.iterdir()) == []


def test_an_engine_without_its_sidecar_is_not_there(cache: EngineCache) -> None:
    path = cache.keep("neuron_mf", KEY, b"abc", BUILT)
    path.with_suffix(".json").unlink()
    assert cache.find("neuron_mf", KEY) is None


def test_a_sidecar_without_its_engine_is_deleted(cache: EngineCache) -> None:
    cache.keep("neuron_mf", KEY, b"abc", BUILT).unlink()
    assert cache.find("neuron_mf", KEY) is None
    assert list(cache.folder.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache.keep("neuron_mf", KEY, b"abc", BUILT)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.keep("neuron_mf", AHEAD, b"xyz", BUILT)
    monkeypatch.undo()
    assert sorted(path.name for path in cache.folder.iterdir()) == sorted(
        [before.name, before.with_suffix(".json").name]
    )
    assert cache.find("neuron_mf", KEY) is not None


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "made" / "file"
    write_file(path, b"old")
    write_file(path, b"new")
    assert [(found.name, found.read_bytes()) for found in path.parent.iterdir()] == [
        ("file", b"new")
    ]
