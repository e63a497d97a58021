"""`pssr-live review RUN --html FILE` writes one page that needs no other file, of any run."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from PIL import Image

from pssr_live.errors import StorageError, UsageError
from pssr_live.record.log import StopRecord, read_log
from pssr_live.report import page as report_page
from pssr_live.report import write_report
from tests.gui.run_folders import write_run

ELSEWHERE = "https://doi.org/10.1038/s41592-021-01080-z"


class Page(HTMLParser):
    """What is in a report: its text, its tables, its pictures, what it refers to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.pictures: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {name: value or "" for name, value in attrs}
        self.links += [values[name] for name in ("src", "href", "data") if name in values]
        if tag == "img":
            self.pictures.append((values["alt"], values["src"]))

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words.append(data)

    def shown(self, kind: str) -> list[Image.Image]:
        """Decode the pictures whose description starts so."""
        found = [source for alt, source in self.pictures if alt.startswith(kind)]
        return [Image.open(io.BytesIO(base64.b64decode(one.partition(",")[2]))) for one in found]


SUMMARY = {
    "frames_received": 1234,
    "frames_recorded": 1233,
    "frames_restored": 1232,
    "frames_skipped_live": 41,
    "frames_lost_at_source": 7,
    "latency_ms": {"p50": 61.25, "p99": 93.5},
}
DOCUMENT = {
    "started": "2026-03-01T14:30:15+01:00",
    "stopped": "2026-03-01T14:40:15+01:00",
    "settings": {"scope": "sim", "frames": 14, "sim": {"seed": 5}, "mm": {"config": "other.cfg"}},
    "source": {"source": "a scanner", "height": 64, "width": 64, "pixel_size_um": 0.17,
               "interval_ms": 270.49, "channel": "mito", "metadata": {"excitation_nm": 561.0}},
    "model": {"name": "neuron_mf", "version": "2.0.0", "sha256": "ab" * 32, "trained_on": "mice"},
    "engine": {
        "requested": "auto", "engine": "openvino", "device": "a processor", "precision": "bf16",
        "refused": [{"engine": "cuda", "why": "there is no GPU"}],
        "checks": [{"what": "test pair", "psnr_db": 61.23, "floor_db": 50.0, "drop_db": 0.01,
                    "cached": True}],
    },
    "versions": {"pssr-live": "0.1.0", "numpy": "2.4.6"},
    "reason": "14 frames acquired",
    "errors": [],
    "summary": SUMMARY,
}  # fmt: skip


def write_document(run: Path, **changes: object) -> None:
    (run / "run.json").write_text(json.dumps({**DOCUMENT, **changes}), encoding="utf-8")


def report(run: Path, tmp_path: Path) -> Page:
    write_report(run, tmp_path / "report.html")
    return Page(tmp_path / "report.html")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    """A run with truth and its report, which several tests look at."""
    folder = tmp_path_factory.mktemp("shown")
    run = write_run(folder, truth=True)
    return run, report(run, folder)


def test_a_run_is_shown_with_its_figures_and_pictures(shown: tuple[Path, Page]) -> None:
    run, page = shown
    (stop,) = (one for one in read_log(run / "log.jsonl") if isinstance(one, StopRecord))
    summary = stop.summary
    assert run.name in page.text
    assert "predictions of a model, not measurements" in page.text
    assert "Ended in order" in page.text
    assert f"Frames recorded {summary.frames_recorded}" in page.text
    assert f"Frames restored {summary.frames_restored}" in page.text
    assert f"Skipped live {summary.frames_skipped_live}" in page.text
    assert f"Lost at the source {summary.frames_lost_at_source}" in page.text
    assert "pixel size 170 nm" in page.text
    assert "µm" in page.text, "no scale bar"
    # Start, around the gap, middle and end: the whole frame and a region of it, each three times.
    for kind in ("raw", "restored", "truth"):
        pictures = page.shown(kind)
        assert len(pictures) >= 2 * 3
        for picture in pictures:
            low, high = picture.convert("L").getextrema()
            assert high - low > 100, f"{kind} shows next to nothing"
    assert len(page.shown("raw")) == len(page.shown("restored")) == len(page.shown("truth"))
    (plot,) = (source for alt, source in page.pictures if alt.startswith("Latency"))
    kind, _, content = plot.partition(",")
    assert kind == "data:image/svg+xml;base64"
    drawn = base64.b64decode(content).decode()
    assert drawn.count("<path") > 30
    assert "http" not in drawn.split("<defs>", 1)[1], "the plot refers to something elsewhere"


def test_the_page_needs_no_other_file_no_script_and_no_network(
    shown: tuple[Path, Page],
) -> None:
    run, page = shown
    assert "script" not in page.tags
    assert "link" not in page.tags
    others = [link for link in page.links if not link.startswith("data:image/")]
    assert set(others) <= {ELSEWHERE}
    assert "url(" not in (run.parent / "report.html").read_text(encoding="utf-8")


def test_names_from_files_are_text_and_nothing_else(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    document = {
        "model": {"name": hostile, "version": "1", "sha256": "0"},
        "engine": {"engine": "openvino", "device": hostile, "precision": "fp32"},
        "source": {"source": hostile},
        "errors": [hostile],
        "settings": {hostile: hostile},
    }
    (run / "run.json").write_text(json.dumps(document), encoding="utf-8")
    page = report(run, tmp_path)
    assert "script" not in page.tags
    assert all(source.startswith("data:image/") for _, source in page.pictures)
    assert page.text.count(hostile) >= 5


def test_a_run_that_was_killed_is_shown_as_far_as_it_went(tmp_path: Path) -> None:
    page = report(write_run(tmp_path, restored=9, ended=False), tmp_path)
    assert "no end in its log: it was killed, or it still went on" in page.text
    assert "at least: counted from what is in the folder" in page.text
    assert page.shown("raw")
    assert "no such plane" in page.text, "the last frame has not been restored"


def test_a_run_without_restored_frames_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path, restored=0, ended=False)
    page = report(run, tmp_path)
    assert "no restored frames" in page.text
    assert page.shown("raw")
    assert not page.shown("restored")


def test_the_figures_are_those_of_run_json(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write_document(run)
    text = report(run, tmp_path).text
    for said in (
        "Started 2026-03-01 14:30:15 +01:00",
        "a scanner · channel mito",
        "270.49 ms announced",
        "neuron_mf 2.0.0 · trained on mice",
        "ab" * 32,
        "openvino, bf16 , on a processor",
        "Frames received 1 234",
        "Frames recorded 1 233",
        "Frames restored 1 232 missing for 1 raw frame",
        "Skipped live 41",
        "Lost at the source 7",
        "(p50) 61.25 ms",
        "p99 93.5 ms",
        "test pair 61.2 dB 50 dB 0.01 dB",
        "cuda : there is no GPU",
        "sim.seed 5",
        "excitation_nm 561",
        "numpy 2.4.6",
        "Ended in order: 14 frames acquired.",
    ):
        assert said in text
    assert "other.cfg" not in text, "settings of another source"


def test_a_recovered_run_is_not_said_to_have_ended_in_order(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write_document(run, reason="recovered")
    page = report(run, tmp_path)
    assert "The daemon died during this run" in page.text
    assert "Ended in order" not in page.text


def test_an_evaluation_in_the_run_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    method = {
        "name": "日本 _$<b>", "baseline": False,
        "per_frame": {"psnr_db": [30.0, None]},
        "over_frames": {"psnr_db": {"mean": 36.772, "sem": 0.051, "n": 2}},
    }  # fmt: skip
    evaluation = {
        "version": 1, "made": "2026-03-01T15:00:00Z", "program": "pssr-live", "raw": "",
        "truth": "", "restored": [], "pixel_size_nm": 42.5, "frames_in_movie": 14,
        "frame_indices": [2, 3], "frames_left_out": {}, "test": "", "methods": [method],
        "comparisons": [],
    }  # fmt: skip
    (run / "evaluation").mkdir()
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    page = report(run, tmp_path)
    assert "日本 _$<b> (prediction) 36.77 ± 0.05 –" in page.text
    assert "over 2 of 14 frames" in page.text
    assert any(alt.startswith("PSNR") for alt, _ in page.pictures)


def test_what_is_damaged_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    log = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join([*log[:9], "\0\0\n", *log[9:]]))
    (run / "restored.ome.tif").write_bytes(b"no stack")
    (run / "evaluation").mkdir()
    (run / "evaluation" / "evaluation.json").write_text("{")
    page = report(run, tmp_path)
    assert "the log is damaged and was read up to there: log.jsonl, line 10" in page.text
    assert "restored.ome.tif cannot be read" in page.text
    assert "run.json is missing" in page.text
    assert "evaluation.json cannot be read" in page.text
    assert str(tmp_path) not in page.text, "a report is mailed; it needs no path of this computer"
    assert page.shown("raw")


def test_a_table_of_very_many_events_says_how_many_it_leaves_out(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    log = (run / "log.jsonl").read_text().splitlines(keepends=True)
    event = '{{"record":"event","event":"warning","t_host_ns":5,"message":"trouble {}"}}\n'
    (run / "log.jsonl").write_text(
        "".join([log[0], *(event.format(number) for number in range(1500)), *log[1:]])
    )
    text = report(run, tmp_path).text
    assert "trouble 9" in text
    assert "trouble 777" not in text
    assert "and 1 490 more, in log.jsonl" in text
    assert "1 400 warning" in text


def test_only_some_planes_of_a_long_run_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pssr_live.report.stacks.MEASURED", 5)
    assert "from 5 of 14 planes" in report(write_run(tmp_path), tmp_path).text


def test_bad_input_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path)
    raw = (run / "raw.ome.tif").read_bytes()
    with pytest.raises(UsageError, match=r"\.html"):
        write_report(run, run / "raw.ome.tif")
    assert (run / "raw.ome.tif").read_bytes() == raw
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(run, tmp_path / "nowhere" / "report.html")
    with pytest.raises(StorageError):
        write_report(tmp_path / "no_run", tmp_path / "report.html")
    monkeypatch.setitem(report_page.LIBRARIES, "Jinja2", "no_such_library")
    with pytest.raises(UsageError, match=r"Jinja2 not installed; pip install .*\[report\]"):
        write_report(run, tmp_path / "report.html")
    assert not list(tmp_path.glob("*.html*"))


def test_from_the_command_line_without_a_display_and_without_qt(tmp_path: Path) -> None:
    run, out = write_run(tmp_path), tmp_path / "report.html"
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['PyQt5'] = None; from pssr_live.cli import main; main()",
            *("review", str(run), "--html", str(out)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "", "MPLBACKEND": "agg", "HOME": str(tmp_path)},
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert str(out) in said.stdout
    assert "Frames recorded" in Page(out).text
