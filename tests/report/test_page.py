"""report.html: what it says, and that it survives any run folder. That it works in a browser is
tests/report/test_page_in_browser.py."""

import base64
import html.parser
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jinja2 import UndefinedError
from PIL import Image

from bigbigan.report import write_page
from bigbigan.report.evaluation import confusion, protocols
from bigbigan.report.film import FRAMES, evenly_spaced, read_film
from bigbigan.report.page import charts, read_stats, thin, training_seconds
from bigbigan.report.tables import duration, number
from bigbigan.report.template import ENVIRONMENT, render
from bigbigan.report.terminal import table
from eval_linear.result import Confusion, ProbeResult
from eval_linear.sheets import Sheets, filters
from tests.helpers.fake_run import HOSTILE, PARTIAL, changed_run, fake_run, hostile_run, partial_run, sheet


class Text(html.parser.HTMLParser):
    """A page as its tags and its texts, by the standard library's reading of HTML."""

    def __init__(self, page: Path):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(page.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def embedded(self) -> dict:
        return json.loads(next(text for text in self.texts if text.startswith('{"charts"')))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return fake_run(tmp_path_factory.mktemp("page") / "digits")


@pytest.fixture(scope="module")
def page(run) -> Path:
    return write_page(run)


# What it says


def test_tables_say_how_many_images_were_labelled(tmp_path):
    """A class keeps at least one label, so 1 % of 20 images of 10 classes is half of them."""
    row = {"encoder": "trained", "feature": "AvePool", "protocol": "linear", "labels": 0.01, "figures": {"top1": 0.5}}
    probe = ProbeResult.from_json({"rows": [row | {"labelled_images": 10}, row | {"labels": 1.0, "encoder": "none"}]})
    assert "linear, 1 % of the labels (10 images)" in table(probe)
    (drawn,) = protocols(probe)
    assert drawn.heads[-2:] == ["labels, %", "labelled images"]
    assert [[cell.text for cell in line.cells[-2:]] for line in drawn.rows] == [["1", "10"], ["100", "–"]]
    assert "1 % of the labels\n" in table(ProbeResult.from_json({"rows": [row]})), "a file of before has no number"


def test_tiles(page):
    """The trained encoder's figures with all labels, not the better supervised ones, and what they stand beside."""
    text = Text(page).text
    assert (
        "Linear probe, top-1 94.4 ± 0.8 % AvePool; 83.8 untrained, 97.5 supervised, 96.4 pixels 8×8, 95.8 PCA" in text
    )
    assert "k-NN, top-1 91.4 ± 0.8 % AvePool; 80.8 untrained, 94.5 supervised" in text
    measured = "features of a classifier of digits"
    assert f"Samples: FID 9.4 lower is better; {measured}, against training images, n = 1,438" in text
    assert f"Samples: Inception score 7.1 higher is better; {measured}, n = 1,438" in text
    assert "Reconstruction error 0.242 1 = random pairs; 86.8 % keep their class by 1-NN; n = 359" in text
    assert "Finished at 691,200 images." in text
    assert "{{" not in page.read_text() and "{%" not in page.read_text()  # every place of the template is filled


def test_rows_by_protocol_and_data(run, tmp_path):
    """Rows of a second data set have a table of their own and no part in the closing table; a fit that did not end is
    marked."""
    row = {
        "encoder": "trained",
        "feature": "AvePool",
        "protocol": "linear",
        "labels": 1.0,
        "figures": {"top1": {"mean": 0.4, "n": 1}},
    }
    figures = {"top1, k = 10": {"mean": 0.3, "sd": 0.01, "n": 2}, "nmi": {"mean": 0.25, "n": 2}}
    rows = [
        row | {"converged": False},
        row | {"data": "cifar10", "figures": {"top1": 0.9}},
        row | {"protocol": "k-NN", "figures": figures},
    ]
    text = Text(write_page(changed_run(run, tmp_path / "run", rows=rows))).text
    assert "Linear probe, top-1 40.0 % AvePool" in text
    assert "linear feature encoder top-1, % n note AvePool trained 40.0 1 stopped at the step limit" in text
    assert "linear; data cifar10 feature encoder top-1, % n AvePool trained 90.0 –" in text
    assert "k-NN feature encoder top-1, k = 10, % NMI n AvePool trained 30.0 ± 1.0 0.25 2" in text


def test_curves_serve_where_there_is_no_evaluation(run, tmp_path):
    (shutil.copytree(run, tmp_path / "run") / "probe.json").unlink()
    text = Text(write_page(tmp_path / "run")).text
    records = [r for r in read_stats(run) if "top1_knn" in r]
    assert f"k-NN, top-1 {100 * records[-1]['top1_knn']:.1f} % an evaluation during training" in text
    assert "Linear probe" not in text and "not measured" not in text  # no empty tile


def test_curves_are_those_of_the_log(run, page):
    records = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    found = Text(page).embedded()["charts"]
    assert [c["title"] for c in found if c["group"] == "scores"] == [
        "Unary score of x",
        "Unary score of z",
        "Joint score of (x, z)",
    ]
    for chart, term in zip(found, ("x", "z", "xz"), strict=False):
        for line in chart["lines"]:
            key = f"score_{term}_{line['name']}"
            expected = [[r["images_seen"], r[key]] for r in records if key in r]
            np.testing.assert_allclose(line["points"], expected, rtol=1e-5)
    knn = next(c for c in found if c["key"] == "top1_knn")
    np.testing.assert_allclose(
        [y for _, y in knn["lines"][0]["points"]], [100 * r["top1_knn"] for r in records if "top1_knn" in r], rtol=1e-5
    )
    assert knn["title"] == "k-NN, top-1, %" and "Worry if it falls for long" in knn["guide"]


def test_alarms_and_recoveries_are_told_by_their_kind(tmp_path):
    """Lines of versions that wrote no kind are told by their keys."""
    lines = [
        {"images_seen": 10, "alarm": "D remembers"},
        {"images_seen": 20, "kind": "recovery", "recovery": "a loss was NaN"},
        {"images_seen": 30, "kind": "training", "loss_d": 1.0, "alarm": "no alarm"},
        {"images_seen": 40, "kind": "spectra", "spectra": {"stem": [3.0, 2.0, 1.0]}},
        {"images_seen": 50, "kind": "evaluation", "spectra": {"stem": [9.0, 9.0, 9.0]}},
    ]
    (tmp_path / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = Text(write_page(tmp_path))
    assert "alarm at 10 images: D remembers" in text.text and "recovery at 20 images: a loss was NaN" in text.text
    assert "no alarm" not in text.text
    (spectra,) = [chart for chart in text.embedded()["charts"] if chart["group"] == "spectra"]
    assert [line["points"] for line in spectra["lines"]] == [[[40, 3.0]], [[40, 2.0]], [[40, 1.0]]]


def test_non_finite_values_are_no_points(tmp_path):
    lines = [
        '{"images_seen": 1, "loss_d": 1.0}',
        '{"images_seen": 2, "loss_d": NaN}',
        '{"images_seen": 3, "loss_d": Infinity, "b": true}',
    ]
    (tmp_path / "stats.jsonl").write_text("\n".join(lines))
    (chart,) = charts(read_stats(tmp_path))
    assert chart["lines"][0]["points"] == [[1, 1.0]]


def test_thin_keeps_ends_and_extremes():
    values = np.random.default_rng(0).standard_normal(50_000)
    points = list(enumerate(values.tolist()))
    kept = thin(points)
    assert kept[0] == points[0] and kept[-1] == points[-1] and len(kept) <= 602 and kept == sorted(kept)
    assert {values.min(), values.max()} <= {value for _, value in kept}
    for stretch in np.split(
        values, 50
    ):  # 1,000 points each, a multiple of no bin: no spike between two kept points is lost
        at = np.flatnonzero(values == stretch.max())[0]
        assert max(value for place, value in kept if abs(place - at) <= 500) >= stretch.max()


def test_training_time_is_images_over_speed():
    records = [
        {"images_seen": 100, "images_per_second": 10.0},
        {"images_seen": 300, "images_per_second": 50.0},
        {"images_seen": 300},
    ]
    assert training_seconds(records) == 100 / 10 + 200 / 50
    assert training_seconds([]) is None


def test_numbers_as_people_write_them():
    assert [number(v) for v in (3072000000, 0.24178, -1.5, 12345.6, None, float("nan"), True)] == [
        "3,072,000,000", "0.2418", "−1.5", "12,346", "–", "–", "–",
    ]  # fmt: skip
    assert [duration(s) for s in (4, 294, 7320, 400_000, None)] == ["4 s", "4 min 54 s", "2 h 2 min", "4 d 15 h", "–"]


def drawn_confusion(probe: ProbeResult) -> str:
    return str(ENVIRONMENT.get_template("parts.html").module.confusion(confusion(probe)))


@pytest.mark.parametrize("classes", [2, 20])
def test_confusion_matrix_is_drawn(classes):
    matrix = np.random.default_rng(classes).integers(1, 9, (classes, classes))
    drawn = drawn_confusion(ProbeResult(confusion=Confusion("r", matrix.tolist()), class_names=["a"]))
    pattern = r'<td data-n="(\d+)" class="(right|wrong)" style="--share:([\d.]+)"><b>(\d+)</b><small>(\d+) %<'
    cells, share = re.findall(pattern, drawn), (matrix / matrix.sum(1, keepdims=True)).ravel()
    assert [int(cell[0]) for cell in cells] == [int(cell[3]) for cell in cells] == matrix.ravel().tolist()
    assert [cell[1] == "right" for cell in cells] == np.eye(classes, dtype=bool).ravel().tolist()
    np.testing.assert_allclose([float(cell[2]) for cell in cells], share, atol=5e-4)
    np.testing.assert_allclose([int(cell[4]) for cell in cells], 100 * share, atol=0.51)
    assert f"{np.trace(matrix):,} of {matrix.sum():,}" in drawn


@pytest.mark.parametrize("classes", [21, 100, 1000])
def test_many_classes_are_listed_by_their_confusions(classes):
    matrix = np.random.default_rng(0).permutation(classes**2).reshape(classes, classes)
    drawn = drawn_confusion(ProbeResult(confusion=Confusion(matrix=matrix.tolist())))
    off = np.where(np.eye(classes, dtype=bool), -1, matrix).ravel()
    expected = [divmod(int(k), classes) for k in np.argsort(-off)[:30]]
    assert [
        tuple(map(int, pair)) for pair in re.findall(r'<th scope="row">(\d+)</th><td[^>]*>(\d+)<', drawn)
    ] == expected


def test_no_name_of_a_key_is_left_where_a_person_reads(page):
    """Tiles, tables and charts speak in words; the settings, which are a file, stay as they are."""
    found = Text(page)
    visible = [text for text in found.texts if not text.startswith('{"charts"') and '"use strict"' not in text]
    text = " ".join(visible).partition("run:")[0].partition("[hidden]")[2]
    titles = [chart["title"] for chart in found.embedded()["charts"]]
    for where in (text, *titles):
        assert not re.findall(r"\b(?:n_test|fid|is|kid|top1|loss|reconstruction|posterior|images)_\w+", where), where


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (7, 7)])
def test_filters_are_drawn_where_an_edge_fits_into_them(kernel, tmp_path):
    sheets = Sheets(tmp_path)
    encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 4, kernel))
    filters(sheets, SimpleNamespace(encoder=encoder))
    assert len(sheets.entries) == (min(kernel) >= 5)


# What it survives


def test_texts_are_escaped(run, tmp_path):
    """Every text of every file, with markup in it, arrives as text: no element, no script, and the data still parse."""
    found = Text(write_page(hostile_run(run, tmp_path / "a <b> & 'c'")))
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert not any("onerror" in attributes for _, attributes in found.tags)
    assert HOSTILE in [chart["title"] for chart in found.embedded()["charts"]]
    assert sum('"charts"' in text for text in found.texts) == 1  # nor does a text stand for a place of the template


def test_a_probe_of_another_form_is_a_sentence_beside_the_rest(run, tmp_path):
    """The sentence names the key, and its text is no markup either."""
    found = Text(write_page(changed_run(run, tmp_path / "run", rows=[{"figures": {HOSTILE: "many"}}])))
    assert "probe.json is left out: expected what bigbigan-probe writes, found another form" in found.text
    assert f"rows[0].figures.{' '.join(HOSTILE.split())}: expected an object, found a text" in found.text
    assert "Not probed" in found.text and found.embedded()["charts"]
    assert [tag for tag, _ in found.tags].count("script") == 2


def test_half_a_character_is_no_reason_to_end(run, tmp_path):
    rows = [{"protocol": "linear \ud83d", "encoder": "trained", "figures": {"top1\udc00": 0.5}}]
    folder = changed_run(run, tmp_path / "run", rows=rows, sheets=[sheet("a\ud83d", "b\udc00\0")])
    text = Text(write_page(folder)).text
    assert "linear \\ud83d" in text and "a\\ud83d" in text and "is outside the run folder" in text


def test_nan_does_not_reach_the_data():
    with pytest.raises(ValueError, match="not JSON compliant"):
        ENVIRONMENT.from_string("{{ data|tojson }}").render(data={"x": float("nan")})


def test_a_place_that_nothing_is_given_for_is_an_error():
    with pytest.raises(UndefinedError, match="reload"):
        render("page.html", {"name": "a", "state": "", "share": "0"})


@pytest.mark.parametrize("kept", PARTIAL.values(), ids=PARTIAL)
def test_partial_run_folder(run, tmp_path, kept):
    """Whatever is absent is named with its command."""
    found = Text(write_page(partial_run(run, tmp_path, kept)))
    assert ("No grids" in found.text) == (not {"samples", "reconstructions"} & set(kept))
    assert ("No curves" in found.text) == ("stats.jsonl" not in kept)
    assert ("Not probed yet" in found.text) == ("probe.json" not in kept)
    assert ("No config.yaml" in found.text) == ("config.yaml" not in kept)


def test_files_cut_short(run, tmp_path):
    """A kill may cut any file short: the lines and pictures that are whole are shown."""
    folder = shutil.copytree(run, tmp_path / "run")
    lines = (run / "stats.jsonl").read_text().splitlines()
    (folder / "stats.jsonl").write_text("\n".join(lines[:5]) + "\n" + lines[5][: len(lines[5]) // 2])
    (folder / "probe.json").write_text((run / "probe.json").read_text()[:100])
    (folder / "config.yaml").write_text("run: [")
    last = max((folder / "samples").glob("*.png"))
    last.write_bytes(last.read_bytes()[:60])
    found = Text(write_page(folder))
    assert {len(line["points"]) for chart in found.embedded()["charts"] for line in chart["lines"]} == {5}
    assert [frame is None for frame in found.embedded()["film"]["samples"]] == [False] * 11 + [True]
    assert "Not probed yet" in found.text and "run: [" in found.text


def test_unknown_and_absent_keys(run, tmp_path):
    rows = [{"protocol": "linear", "encoder": "trained"}, {"figures": {"top1": {"mean": 0.5}}, "more": 1}, {}]
    folder = changed_run(
        run,
        tmp_path / "run",
        rows=rows,
        confusion=None,
        generation={"new": 1},
        bidirectional=[{}],
        sheets=[{}],
        other=[1],
    )
    assert "50.0" in Text(write_page(folder)).text


def test_pictures_outside_the_run_are_refused(run, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (3, 3), (1, 2, 3)).save(secret)
    folder = changed_run(
        run,
        tmp_path / "run",
        sheets=[sheet("s", path) for path in ("../secret.png", str(secret), "evaluation/link.png")],
    )
    (folder / "evaluation" / "link.png").symlink_to(secret)
    found = Text(write_page(folder))
    assert found.text.count("is outside the run folder and is not shown") == 3
    assert base64.b64encode(secret.read_bytes()).decode() not in (folder / "report.html").read_text()


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a run folder"):
        write_page(tmp_path / "none")


def test_the_command_takes_the_home_folder(run, tmp_path, monkeypatch, capsys):
    from bigbigan.report.__main__ import main

    shutil.copytree(run, tmp_path / "run")
    monkeypatch.setenv("HOME", str(tmp_path))
    main(["~/run"])
    assert str(tmp_path / "run" / "report.html") in capsys.readouterr().out


def test_written_whole_or_not_at_all(run, tmp_path, monkeypatch):
    """A failure on the way leaves the page of before, and nothing beside it."""
    folder = shutil.copytree(run, tmp_path / "run")
    before = write_page(folder).read_bytes()
    names = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr("bigbigan.report.page.charts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_page(folder)
    assert (folder / "report.html").read_bytes() == before and sorted(path.name for path in folder.iterdir()) == names


# The film


@pytest.mark.parametrize("times", [[], [7], list(range(0, 41)), list(range(0, 10_000, 7)), [2**k for k in range(60)]])
def test_spread_over_the_run(times):
    chosen = evenly_spaced(times, min(FRAMES, len(times)))
    assert (
        len(set(chosen)) == len(chosen) == min(FRAMES, len(times))
        and chosen == sorted(chosen)
        and set(chosen) <= set(times)
    )
    if times:
        assert chosen[0] == times[0] and chosen[-1] == times[-1]
    if len(times) > 1000:  # dense enough to be even
        assert np.ptp(np.diff(chosen)) <= 14


def test_large_pictures_keep_the_page_small(tmp_path):
    """40 times of 3 MB each do not fit: fewer frames, as JPEG, first and last among them."""
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    (tmp_path / "samples").mkdir()
    Image.fromarray(noise).save(tmp_path / "samples" / "000000000001.png", compress_level=0)
    for k in range(2, 41):
        (tmp_path / "samples" / f"{k:012d}.png").hardlink_to(tmp_path / "samples" / "000000000001.png")
    film = read_film(tmp_path)
    assert film["times"][0] == 1 and film["times"][-1] == 40 and 3 <= len(film["times"]) < 40
    assert all(frame["src"].startswith("data:image/jpeg;base64,") for frame in film["samples"])
    assert write_page(tmp_path).stat().st_size < 15e6
