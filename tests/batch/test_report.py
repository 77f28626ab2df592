"""The report of a batch run: its numbers are those of the manifest, and names are never markup."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from base64 import b64decode, b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from neuralsdf.batch.convert_job import IOU, ConvertJob
from neuralsdf.batch.manifest import Manifest, Run
from neuralsdf.batch.output_folder import Folder
from neuralsdf.batch.report import write_report
from neuralsdf.batch.report_histogram import histogram
from neuralsdf.batch.run_statistics import summarise
from neuralsdf.batch.shape_record import Record
from neuralsdf.cli.main import main
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.pipeline.stage_times import STAGES
from neuralsdf.program.network import Architecture, Network
from neuralsdf.storage import save_field
from neuralsdf.units import DIMENSIONS

NASTY = [
    "<script>alert(1)</script>.stl",
    "\"><img src='x' onerror=alert(1)>.obj",
    "a&b;{{ 7*7 }}.ply",
    '=1+1, "quoted".obj',
    "一.off",
]


def octahedron() -> NeuralField:
    """|x| + |y| + |z| - 1/2, exactly."""
    architecture = Architecture((6,), "relu", "linear")
    weights = np.zeros(architecture.weight_count, np.float32)
    (kernel, _), (last, bias) = architecture.layers(weights)
    kernel[:] = np.concatenate([np.eye(3), -np.eye(3)], axis=1)
    last[:], bias[:] = 1, -0.5
    return NeuralField(Network(architecture, weights), Similarity.identity())


def done(name: str, error: float, **others) -> Record:
    return Record(
        name,
        f"/meshes/{name}",
        "done",
        source_bytes=100_000,
        target_met=error <= 0.002,
        result_bytes=1000,
        columns={
            "faces": 1234,
            "architecture": "1x6 relu",
            "surface_mean": error,
            "loss": 2 * error,
            "iou": 1 - error,
            "two_way": error,
        },
        seconds={stage: 0.5 + index for index, stage in enumerate(STAGES)},
        **others,
    )


def a_run(out: Path, records: list[Record], *, models: bool = True) -> Path:
    """A batch run's folder with these records, every model an octahedron."""
    folder = Folder(out)
    out.mkdir(parents=True, exist_ok=True)
    options = {"samples": 5, "weight": "<i>", "fit": {"epochs": 7, "seconds": None, "hidden": [32] * 8}}
    with Manifest.create(folder.manifest()) as manifest:
        manifest.begin(Run("convert", "<b>set</b>", options), [(r.name, r.source) for r in records])
        manifest.write(records)
    for record in records if models else []:
        if record.state == "done":
            folder.result(record.name, ConvertJob.place).parent.mkdir(parents=True, exist_ok=True)
            save_field(octahedron(), folder.result(record.name, ConvertJob.place))
    return out


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


class Page(HTMLParser):
    """The elements, the attributes and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text("utf-8"))
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self._open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def pictures(self) -> list[str]:
        return [value for name, value in self.attributes if name == "src"]


@pytest.fixture(scope="module")
def nasty(tmp_path_factory) -> Path:
    reason = "<script>steal()</script>: is <b>empty</b> & gone"
    records = [done(name, 0.001 * (i + 1)) for i, name in enumerate(NASTY[:-1])]
    records += [
        Record(NASTY[-1], "/x", "failed", cause="error", reason=reason, seconds={"lost": 90.0}),
        Record("sub/</td>.obj", "/x", "failed", cause="timeout", reason="took longer than 60 s"),
        Record("waiting.obj", "/x"),
    ]
    # A name with a slash in a tag is two folders on disk, which is fine.
    out = a_run(tmp_path_factory.mktemp("nasty"), records)
    assert run("report", out).exit_code == 0
    return out


def test_names_and_reasons_are_text_and_never_markup(nasty):
    page = Page(nasty / "report.html")
    allowed = (
        "html head meta title style script body h1 h2 p b table thead tbody tr th td figure figcaption svg "
        "rect title line text a button"
    )
    assert set(page.tags) <= {*allowed.split(), "div", "img", "br"}
    assert not any(name.startswith("on") for name, _ in page.attributes)
    for outside in (
        *NASTY,
        "<script>steal()</script>: is <b>empty</b> & gone",
        "<b>set</b>",
        "samples 5 weight <i> fit epochs 7, hidden 8 × 32",
    ):
        assert " ".join(outside.split()) in page.text
    assert "sub/</td>.obj" in page.text


@pytest.mark.parametrize(
    ("dataset", "title"), [("meshes", "meshes"), ("*.stl", "*.stl"), (".", "knots"), ("-", "knots")]
)
def test_the_title_names_the_data_set(tmp_path, dataset, title):
    out, html = tmp_path / "knots", tmp_path / "page.html"
    out.mkdir()
    with Manifest.create(Folder(out).manifest()) as manifest:
        manifest.begin(Run("convert", dataset, {}), [])
    write_report(out, html, tmp_path / "page.csv", ConvertJob, pictures=False)
    page = html.read_text("utf-8")
    assert f"<h1>{title}</h1>" in page
    assert f"<title>neuralsdf: {title}</title>" in page


def test_the_page_needs_no_other_file(nasty):
    page = Page(nasty / "report.html")
    assert len(page.pictures) == 2 * (len(NASTY) - 1)  # on the sheet and in the table
    for source in page.pictures:
        kind, _, data = source.partition(";base64,")
        assert kind == "data:image/webp"
        assert Image.open(BytesIO(b64decode(data))).getextrema()[3] == (
            0,
            255,
        )  # transparent around the shape
    assert not any(name in ("srcset", "data", "action", "style") for name, _ in page.attributes)
    assert "url(" not in (nasty / "report.html").read_text()


def test_only_its_own_script_runs(nasty):
    page = Page(nasty / "report.html")
    (script,) = page.scripts
    assert script == files("neuralsdf.batch").joinpath("report.js").read_text()
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.replace("style-src 'unsafe-inline'", "")
    assert page.tags.count("script") == 1


@pytest.mark.parametrize("place", ["report.html", "elsewhere/page.html"])
def test_links_point_to_the_files(tmp_path, monkeypatch, place):
    """For any place of the page and any file name."""
    names = ["a/x y.stl", "javascript:alert(1).obj", "50%25?#'&.ply", "ü.off", "gone.stl"]
    meshes, out = tmp_path / "meshes", tmp_path / "out"
    records = [replace(done(name, 0.001), source=str(meshes / name)) for name in names]
    for name in names[:-1]:
        (meshes / name).parent.mkdir(parents=True, exist_ok=True)
        (meshes / name).write_text(name)
    a_run(out, records)
    (out / "elsewhere").mkdir()
    (out / "dataset.h5").write_text("data")
    write_report(out, out / place, (out / place).with_suffix(".csv"), ConvertJob)
    links = [value for name, value in Page(out / place).attributes if name == "href"]
    assert not any(":" in link or link.startswith("/") for link in links)
    found = [Path(os.path.normpath((out / place).parent / unquote(link))) for link in links]
    assert all(path.is_file() for path in found)
    expected = [(out / place).with_suffix(".csv"), out / "dataset.h5"]
    expected += [meshes / name for name in names[:-1]] + [
        Folder(out).result(name, ConvertJob.place) for name in names
    ]
    assert sorted(found) == sorted(expected)


def test_the_table_has_every_shape_with_its_picture_and_its_warnings(tmp_path):
    records = [
        done(f"shape {i:03}", 0.001 * (i + 1), warnings=(f"{i} duplicate faces; open",)) for i in range(70)
    ]
    records += [Record("broken", "/x", "failed", cause="error", reason="is empty"), Record("later", "/x")]
    a_run(tmp_path, records)
    write_report(tmp_path, tmp_path / "a.html", tmp_path / "a.csv", ConvertJob)
    text = (tmp_path / "a.html").read_text()
    table = text[text.index('<table id="shapes">') :]
    rows = re.findall(r"<tr><td class=.*?</tr>", table, re.S)
    assert len(rows) == 72
    assert sum("data:image/webp" in row for row in rows) == 70
    assert 'data-value="0.003"' in next(row for row in rows if "shape 002" in row)
    assert "69 duplicate faces; open" in next(row for row in rows if "shape 069" in row)
    assert "is empty" in next(row for row in rows if "broken" in row)
    assert "70 # duplicate faces shape 000 70 open shape 000" in Page(tmp_path / "a.html").text
    assert len(text) < 70 * 4000 + 50_000
    write_report(tmp_path, tmp_path / "b.html", tmp_path / "b.csv", ConvertJob, pictures=False)
    assert "data:image" not in (tmp_path / "b.html").read_text().split("<body>")[1]


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
def test_a_click_on_a_heading_sorts(tmp_path):
    """The script, on a page of three rows: numbers in numerical order, missing ones always last."""
    dom = """
    const heads = ["name", "number"].map(() => { const h = {attributes: {}, listen: null};
      h.querySelector = () => ({addEventListener: (event, f) => { h.listen = f; }});
      h.getAttribute = name => h.attributes[name] ?? null;
      h.setAttribute = (name, value) => { h.attributes[name] = value; };
      h.removeAttribute = name => { delete h.attributes[name]; }; return h; });
    const row = (name, value) => ({name, cells: [{textContent: name, dataset: {}}, {dataset: {value}}]});
    const rows = [row("b", "10"), row("c", ""), row("a", "9.5")];
    const body = {rows, append: one => { rows.splice(rows.indexOf(one), 1); rows.push(one); }};
    const document = {getElementById: () => ({tHead: {rows: [{cells: heads}]}, tBodies: [body]})};
    const clicked = index => { heads[index].listen(); return rows.map(one => one.name).join(""); };
    """
    script = files("neuralsdf.batch").joinpath("report.js").read_text().replace("const heads", "const found")
    script = script.replace("heads", "found") + "console.log([1, 1, 0, 0, 1].map(clicked).join());"
    result = subprocess.run(["node", "-e", dom + script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "abc,bac,abc,cba,abc"


def test_the_table_has_a_row_per_shape(nasty):
    with (nasty / "report.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with Manifest.open(Folder(nasty).manifest()) as manifest:
        records = list(manifest.records())
    # Text that starts like a formula gets a leading apostrophe.
    assert [row["name"].removeprefix("'") for row in rows] == [record.name for record in records]
    for row, record in zip(rows, records, strict=True):
        assert row["state"] == record.state
        assert row["reason"] == (record.reason or "")
        for metric in DIMENSIONS:
            expected = record.columns.get(metric)
            assert row[metric] == "" if expected is None else float(row[metric]) == expected
        for stage in record.seconds:
            assert float(row[f"seconds_{stage}"]) == record.seconds[stage]


def test_the_report_lists_waiting_shapes_and_reasons_of_failures(nasty):
    text = Page(nasty / "report.html").text
    assert "waiting 1 the run is in progress" in text
    assert "failed 2 1 timeout, 1 error" in text
    assert "compression 1 : 100.0 400 kB of meshes in 4 kB of results" in text
    assert "took longer than 60 s" in text
    assert "missed 2 done, but worse than the target error" in text
    assert "failed shapes 1 min 30 s 64.3 %" in text
    assert "load 2 s 1.4 % 0.5 s" in text
    assert text.count("misses the target") == 2
    assert "IoU 0.998 0.996 0.996 100.0 % above 0.93 0.0 % below 0.8" in text
    assert "Two-way distance 0.0025 0.004 0.004 50.0 % below 0.003 0.0 % above 0.01" in text


def test_shards_are_reported_together(tmp_path):
    records = [done(f"shape {i}", 0.001 * (i + 1)) for i in range(4)]
    whole = a_run(tmp_path / "whole", records)
    parts = Folder(tmp_path / "parts")
    for i, mine in ((1, records[1::2]), (3, records[::2])):
        a_run(parts.path, mine)
        parts.manifest().rename(parts.manifest((i, 3)))
    assert run("report", parts.path).stdout == run("report", whole).stdout.replace("whole", "parts")
    assert (parts.path / "report.csv").read_text() == (whole / "report.csv").read_text()
    assert "In 3 shards (2 not started)." in Page(parts.path / "report.html").text


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=80))
def test_statistics_equal_those_of_numpy(errors):
    summary = summarise([done(str(i), error) for i, error in enumerate(errors)], ConvertJob.reported)
    values = np.array(errors)
    iou, two_way, surface_error = summary.distributions
    for spread in (surface_error, two_way):
        assert spread.shapes == len(errors)
        assert spread.median == pytest.approx(np.median(values))
        assert spread.p95 == pytest.approx(np.percentile(values, 95, method="inverted_cdf"))
        assert spread.worst == values.max()
        assert spread.good == pytest.approx((values < 0.003).mean())
        assert spread.poor == pytest.approx((values > 0.01).mean())
    spread = iou  # larger is better
    assert spread.median == pytest.approx(1 - np.median(values))
    assert spread.p95 == pytest.approx(1 - np.percentile(values, 95, method="inverted_cdf"))
    assert spread.worst == 1 - values.max()
    assert spread.good == pytest.approx((1 - values > 0.93).mean())
    assert spread.poor == pytest.approx((1 - values < 0.8).mean())
    assert summary.ratio == 100
    for index, stage in enumerate(summary.stages):
        assert stage.median == 0.5 + index
        assert stage.total == pytest.approx(len(errors) * (0.5 + index))


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=80), st.sampled_from(ConvertJob.reported.measures))
def test_a_histogram_counts_every_value_inside_its_plot(values, measure):
    values = [value / 1e4 for value in values] if measure is IOU else values
    svg = str(histogram(values, measure))
    bars = re.findall(
        r'<rect x="([-\d.]+)" y="([-\d.]+)" width="([-\d.]+)" height="([-\d.]+)"><title>(\d+):', svg
    )
    assert sum(int(count) for *_, count in bars) == len(values)
    _, _, width, height = map(float, re.search(r'viewBox="([^"]+)"', svg)[1].split())
    for x, y, wide, tall, count in bars:
        assert 0 <= float(x) <= float(x) + float(wide) <= width
        assert 0 <= float(y) <= float(y) + float(tall) <= height
        most = max(int(other) for *_, other in bars)
        assert float(tall) / max(float(bar[3]) for bar in bars) == pytest.approx(int(count) / most, abs=0.01)


def test_the_best_median_and_worst_of_many_shapes_are_shown(tmp_path):
    errors = np.random.default_rng(0).permutation(41)
    records = [done(f"shape {error:02}", 0.001 * float(error + 1)) for error in errors]
    a_run(tmp_path, records)
    seen: list[tuple[int, int]] = []
    page, table = tmp_path / "page.html", tmp_path / "page.csv"
    write_report(tmp_path, page, table, ConvertJob, progress=lambda made, count: seen.append((made, count)))
    shown = re.findall(r"shape \d\d", Page(page).text.split("All shapes")[0])
    expected = [*range(6), *range(17, 23), *range(35, 41)]
    assert shown == [f"shape {error:02}" for error in expected]
    assert seen == [(made, 18 + 41) for made in range(1, 60)]


def test_a_shape_that_was_not_measured_comes_last(tmp_path):
    a_run(tmp_path, [Record("no surface", "/x", "done"), done("good", 0.001)])
    write_report(tmp_path, tmp_path / "a.html", tmp_path / "a.csv", ConvertJob)
    text = Page(tmp_path / "a.html").text
    sheet = text[text.index("From the best") :]
    assert sheet.index("good") < sheet.index("no surface")
    assert "Not measured: 1 of 2 shapes." in text


def test_a_missing_model_is_replaced_by_a_reason(tmp_path):
    a_run(tmp_path, [done("here", 0.001), done("gone", 0.002), done("broken", 0.003)])
    Folder(tmp_path).result("gone", ConvertJob.place).unlink()
    Folder(tmp_path).result("broken", ConvertJob.place).write_bytes(b"nonsense")
    assert run("report", tmp_path).exit_code == 0
    page = Page(tmp_path / "report.html")
    assert len(page.pictures) == 2
    assert "no such file" in page.text
    assert "not an HDF5 file" in page.text


@pytest.mark.parametrize(
    "records",
    [[], [Record("a", "/a")], [Record("a", "/a", "failed", cause="crash", reason="it crashed")]],
    ids=["empty", "waiting", "failed"],
)
def test_a_run_in_which_nothing_succeeded_has_a_report(tmp_path, records):
    a_run(tmp_path, records)
    result = run("report", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["shapes"], summary["done"]) == (len(records), 0)
    assert summary["ratio"] is None
    assert summary["surface_error"]["median"] is None
    assert "No shape is done." in Page(tmp_path / "report.html").text
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 1 + len(records)


def test_the_report_in_the_folder_is_replaced_and_no_other_file(nasty, tmp_path):
    assert run("report", nasty).exit_code == 0
    page = tmp_path / "page.html"
    assert run("report", nasty, "-o", page).exit_code == 0
    before = page.read_bytes()
    again = run("report", nasty, "-o", page)
    assert again.exit_code == 1
    assert "--force" in again.stderr
    assert run("report", nasty, "-o", page, "--force").exit_code == 0
    assert page.read_bytes() == before
    assert run("report", nasty, "-o", tmp_path / "page.csv").exit_code == 2


def test_another_folder_is_an_error_in_one_line(tmp_path):
    result = run("report", tmp_path)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "output folder of a batch run" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_messages_name_the_options_of_the_command_line(tmp_path):
    warned = done("big", 0.001, warnings=("too detailed for 7553 weights; try `width=48`",))
    failed = Record("open", "/x", "failed", cause="error", reason="has no inside; try `sign='thickness'`")
    a_run(tmp_path, [warned, failed])
    assert run("report", tmp_path, "--no-pictures").exit_code == 0
    for path in (tmp_path / "report.html", tmp_path / "report.csv"):
        text = path.read_text()
        assert "try --width 48" in text
        assert "try --sign thickness" in text
        assert "`" not in text.split("<body>")[-1]
