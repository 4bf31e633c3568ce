"""The schema of probe.json: a result is read back as written, old files are read, a foreign one is named by its key."""

import json
import subprocess
import sys

import pytest

from bigbigan.errors import ProbeError
from bigbigan.report.terminal import table
from eval_linear.result import (
    CurvePoint,
    CurveSummary,
    ExtractorFigures,
    Figure,
    FigureInfo,
    GenerationResult,
    PairFigure,
    ProbeResult,
    Row,
    TruncationCurve,
)
from tests.conftest import ROOT
from tests.helpers import fake_run


def test_what_is_read_is_what_was_written():
    """The keys of the file stay, and those of parts that do not apply are left out or null as before."""
    content = fake_run.probe(3)
    content["rows"][0] |= {"strengths": [1.0, None], "converged": False, "per_class": [0.5, None, 1]}
    content["rows"][1] |= {"data": "cifar10"}
    content |= {"device": "cpu"}
    content["generation"]["truncation"] |= {"split": "train", "n": 64}
    content["generation"]["truncation"]["summary"]["valid_is"] = None
    found = ProbeResult.from_json(content)
    assert json.dumps(found.to_json(), sort_keys=True) == json.dumps(content, sort_keys=True)
    assert found.rows[1].data == "cifar10" and found.rows[0].per_class == [0.5, None, 1]
    assert found.generation.truncation.summary.min_fid.inception_score == pytest.approx(8.9 - 0.5 * 2**1.5)
    assert ProbeResult.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_absent_null_and_unknown_keys():
    assert ProbeResult.from_json({}) == ProbeResult() == ProbeResult.from_json({"rows": None, "generation": None})
    content = {"rows": [{"figures": {"top1": 0.9, "top5": None, "nmi": {"mean": 1}}, "new": {"a": 1}}], "later": [1]}
    (row,) = ProbeResult.from_json(content).rows
    assert row == Row(figures={"top1": Figure(0.9), "nmi": Figure(1)}) and row.labels == 1.0
    assert "strengths" not in ProbeResult(rows=[row]).to_json()["rows"][0]
    curve = {"generation": {"truncation": {"points": [{}], "summary": {"max_is": {"is": 2}}}}}
    found = ProbeResult.from_json(curve).generation
    assert found.results == [] and found.truncation.points == [CurvePoint()]
    assert found.truncation.summary == CurveSummary(max_is=CurvePoint(inception_score=2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "the file: expected an object, found a list"),
        ({"images_seen": "many"}, "images_seen: expected a whole number, found a text"),
        ({"n_test": 3.5}, "n_test: expected a whole number, found a number"),
        ({"n_test": True}, "n_test: expected a whole number, found true or false"),
        ({"seconds": 10**400}, "seconds: expected a number, found a whole number of 1329 bits"),
        ({"rows": {}}, "rows: expected a list, found an object"),
        ({"rows": [{}, {"protocol": 1}]}, r"rows\[1\].protocol: expected a text, found a whole number"),
        (
            {"rows": [{"figures": {"top1": {"sd": 1}}}]},
            r"rows\[0\].figures.top1.mean: expected a number, found no",
        ),
        ({"rows": [{"figures": {"a\nb": "x"}}]}, r"rows\[0\].figures.a\\nb: expected an object, found a text"),
        (
            {"confusion": {"matrix": [[1, 2], [3, "4"]]}},
            r"confusion.matrix\[1\]\[1\]: expected a whole number, found a t",
        ),
        ({"generation": {"results": [{"figures": {"fid": []}}]}}, r"results\[0\].figures.fid: expected a number"),
        ({"class_names": [None]}, r"class_names\[0\]: expected a text, found nothing"),
    ],
)
def test_a_value_of_another_form_is_named(content, message):
    with pytest.raises(ProbeError, match=f"^(generation.)?{message}"):
        ProbeResult.from_json(content)


def test_infinity_and_nan_are_null_and_named_once():
    pairs = [PairFigure("ratio", float("inf"), 1.0, "held-out images", 5), PairFigure("error", 0.5)]
    samples = GenerationResult([ExtractorFigures("x", figures={"kid_x_n5": float("nan"), "fid_x_n5": 1.0})])
    result = ProbeResult(generation=samples, bidirectional=pairs)
    assert result.not_finite() == ["kid_x_n5", "ratio"]
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert content["bidirectional"][0]["value"] is None and content["bidirectional"][1]["value"] == 0.5
    assert ProbeResult.from_json(content).generation.results[0].figures == {"fid_x_n5": 1.0}


def test_an_interpolated_point_beyond_the_mildest_threshold_is_not_called_untruncated():
    points = [CurvePoint(None, 9.0, 2.0), CurvePoint(2.0, 8.0, 4.0)]
    curve = TruncationCurve(
        "x", "train", 50, points, 3.0, CurveSummary(points[1], CurvePoint(None, 8.5, 3.0), points[0])
    )
    text = table(ProbeResult(generation=GenerationResult(truncation=curve)))
    assert "IS 3 at threshold above 2" in text and "IS 2 at threshold none" in text
    curve.real_is = curve.summary.valid_is = None
    text = table(ProbeResult(generation=GenerationResult(truncation=curve)))
    assert "left out: expected 50 real test images, as many as samples, found fewer" in text


@pytest.mark.parametrize("text", ["{", "[" * 5000, '{"rows": [1]}', "\ud800"])
def test_a_file_of_another_form_is_one_sentence(tmp_path, text):
    path = tmp_path / "probe.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ProbeError, match="probe.json: expected what bigbigan-probe writes, found") as error:
        ProbeResult.read(path)
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError):
        ProbeResult.read(tmp_path / "none.json")


def test_a_figure_is_described_by_the_beginning_of_its_name():
    info = FigureInfo("top1", "top-1", "share")
    assert all(map(info.covers, ("top1", "top1, k = 5", "top1_knn"))) and not any(map(info.covers, ("top10", "a_top1")))


def test_figures_in_per_cent():
    assert (Figure(0.71234).percent(1), Figure(0.5, 0.0123, 3).percent(2)) == ("71.2", "50.00 ± 1.23")


def test_reading_a_result_needs_neither_torch_nor_another_file_of_ours():
    code = (
        "import sys, eval_linear.result; assert 'torch' not in sys.modules;"
        "ours = {m for m in sys.modules if m.startswith(('bigbigan.', 'eval_linear.'))};"
        "assert ours == {'bigbigan.errors', 'bigbigan.files', 'eval_linear.result'}, ours"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
