"""The published network with random weights: a package that every engine can be timed with."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from pssr_live.engine.select import prepare_engine
from pssr_live_models import paper_network


@pytest.mark.slow
def test_the_published_network_runs_alike_on_openvino_and_on_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its kinds of layers, but narrow and few, so that it takes seconds."""
    monkeypatch.setattr(paper_network, "_STEM", (4, 4, 8))
    monkeypatch.setattr(paper_network, "_STAGES", ((8, 1), (16, 1), (32, 1), (64, 1)))
    monkeypatch.setattr(paper_network, "_SKIP_CHANNELS", (64, 32, 16, 8, 8))
    (entry,) = entry_points(group="pssr_live.tools", name="paper_network")
    package = entry.load()(tmp_path)
    manifest = package.manifest
    assert (manifest.window_length, manifest.scale, manifest.max_size) == (5, 4, 128)
    assert "random weights" in manifest.description
    window = np.random.default_rng(0).standard_normal((1, 5, 21, 18)).astype(np.float32)
    found = []
    for name in ("openvino", "torch"):
        engine, report = prepare_engine(name, None, package, 21, 18)
        assert report.precision == "fp32"
        found.append(engine.run(window).copy())
        engine.close()
    assert found[0].shape == (84, 72)
    assert found[0].std() > 0
    assert np.abs(found[0] - found[1]).max() < 1e-4 * found[0].std()
