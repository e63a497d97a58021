"""What every test gets: folders of its own for what runs leave, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Connection files of this test go nowhere else."""
    folder = tmp_path / "runtime"
    monkeypatch.setenv("PSSR_LIVE_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache of engines and verdicts for all tests, and none of it in the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSSR_LIVE_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Fail the test that leaves one of our threads running."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("pssr-")]
    assert not left, f"threads left behind: {left}"


@pytest.fixture
def shared_data() -> Path:
    """Real recordings, where they are."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real recordings (../shared/data) are not on this machine")
    return SHARED_DATA
