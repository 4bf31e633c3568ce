"""The kind of a line of stats.jsonl: its own word where it has one, else what older versions wrote it as."""

import json

import pytest

from bigbigan.training.log import drop_after
from bigbigan.training.records import KINDS, kind_of


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ({"loss_d": 1.0, "images_per_second": 5.0}, "training"),
        ({"spectra": {"generator.stem": [3.0, 2.0, 1.0]}, "sigma0_generator": 3.0}, "spectra"),
        ({"alarm": "D remembers its images"}, "alarm"),
        ({"recovery": "a loss was NaN"}, "recovery"),
        ({"n_test": 359, "reconstruction_error_relative": 0.2}, "closing"),
        ({"top1_knn": 0.9}, "evaluation"),
        ({}, "evaluation"),
    ],
)
def test_lines_of_versions_that_wrote_no_kind(record, kind):
    assert kind_of({"images_seen": 24, "iteration": 3} | record) == kind


def test_the_kind_that_a_line_names_is_taken():
    assert [kind_of({"kind": kind, "loss_d": 1.0}) for kind in KINDS] == list(KINDS)
    assert kind_of({"kind": "evaluation", "n_test": 3}) == "evaluation"


@pytest.mark.parametrize("kind", ["unheard of", None, 3, ["training"], {"training": 1}])
def test_a_kind_that_is_not_known_is_passed_over(kind):
    assert kind_of({"kind": kind, "alarm": "a"}) == "alarm"


def test_lines_up_to_the_checkpoint_stay_when_a_run_goes_on(tmp_path):
    seen = [(24, "training"), (48, "training"), (48, "evaluation"), (48, "closing"), (49, "training")]
    lines = [json.dumps({"images_seen": at, "kind": kind}) for at, kind in seen]
    stats = tmp_path / "stats.jsonl"
    stats.write_text("\n".join([*lines, '{"images_seen": 4']))
    drop_after(stats, 48)
    assert stats.read_text().splitlines() == lines[:3]
