"""Commands on a model open the data that it was trained on, divided as then, unless they are given other data."""

import pytest

from bigbigan.config import ImagesGiven
from bigbigan.data import data_of_model
from bigbigan.extract import ExtractData
from eval_linear.probe import ProbeData

CARD = {
    "data": {
        "path": "photos", "split": "train", "test_split": "val", "test_share": 0.2, "split_rule": "hash",
        "label_column": "kind", "follow_links": True, "value_range": [0, 4095],
    }
}  # fmt: skip
COMMANDS = [ProbeData, ExtractData, ImagesGiven]


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("path", ["", "photos"])
def test_the_models_own_data_are_divided_as_in_its_training(kind, path):
    found = data_of_model(kind(path=path), CARD)
    assert (found.path, found.test_split, found.label_column, found.follow_links) == ("photos", "val", "kind", True)
    assert (found.test_share, found.split_rule, found.value_range) == (0.2, "hash", (0, 4095))


@pytest.mark.parametrize("kind", COMMANDS)
def test_other_data_take_no_names_from_the_model(kind):
    found = data_of_model(kind(path="elsewhere", label_column="mine", value_range=(0, 255)), CARD)
    assert (found.path, found.label_column, found.value_range) == ("elsewhere", "mine", (0, 255))
    assert (found.test_split, found.follow_links) == ("test", False)
    assert (found.test_share, found.split_rule) == (0.2, "hash")  # a moved folder is divided as before


def test_a_model_that_names_no_data():
    assert data_of_model(ImagesGiven(), None).path == "" and data_of_model(ImagesGiven(), {}).split_rule == "patient"


def test_runs_of_before_the_rule_was_written_down_held_out_by_a_permutation():
    assert data_of_model(ImagesGiven(), {"data": {"path": "digits"}}).split_rule == "permutation"
