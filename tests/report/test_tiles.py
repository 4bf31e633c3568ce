"""The tiles at the top of the page: the rule of their order, and that no tile is empty."""

import json

import pytest

from bigbigan.report.guide import GUIDES, HINGE, OTHER_FORM, guide
from bigbigan.report.page import read_lead
from bigbigan.report.progress import Progress
from bigbigan.report.texts import closing_block
from bigbigan.report.tiles import Facts, lead
from bigbigan.training.records import FIGURES
from eval_linear.result import ExtractorFigures, Figure, GenerationResult, ProbeResult, Row

DONE = Progress(1000, 1000, "", 0.1, 100)
CLOSING = {"reconstruction_error_relative": 0.3, "reconstruction_1nn_agreement": 0.8, "n_test": 359.0}


def rows(trained: float, pixels: float | None, untrained: float | None = 0.6) -> list[Row]:
    figures = {("trained", "AvePool"): trained, ("untrained", "AvePool"): untrained, ("none", "pixels 8×8"): pixels}
    figures |= {("trained", "BN+CReLU"): 0.99}  # the test split chooses no feature: the first one counts
    return [
        Row(encoder, feature, "linear, full batch", figures={"top1": Figure(value)})
        for (encoder, feature), value in figures.items()
        if value is not None
    ]


def names(probe: ProbeResult, latest: dict, at: Progress = DONE, size: int | None = 8) -> tuple[list[str], str]:
    found = lead(probe, at, Facts(latest, "digits", 12.0, size))
    assert all(tile.value not in ("", "–") for tile in found.tiles)
    return [tile.name for tile in found.tiles], found.sentence


def test_the_probe_comes_first_where_the_encoder_is_ahead():
    found, sentence = names(ProbeResult(rows=rows(0.9, 0.8)), CLOSING)
    assert found == ["Linear probe, top-1", "Reconstruction error", "Images seen", "Data", "Training time"]
    assert sentence == ""


def test_where_pixels_are_ahead_the_rest_comes_first_and_a_sentence_says_why():
    generation = GenerationResult([
        ExtractorFigures("inception2015", "", {"fid_inception2015_train_n9": 50.0}),
        ExtractorFigures(
            "classifier_a", "", {"fid_classifier_a_train_n9": 5.0, "fid_real_classifier_a_test_train_n1359": 2.5}
        ),
    ])  # fmt: skip
    found, sentence = names(ProbeResult(rows=rows(0.9, 0.95), generation=generation), CLOSING)
    assert found[:5] == [
        "Reconstructions that keep their class", "Samples: FID", "Gain over the untrained encoder",
        "Linear probe, top-1", "Reconstruction error",
    ]  # fmt: skip
    assert "95.0 %" in sentence and "90.0 %" in sentence and "pixels suffice" in sentence
    tiles = lead(ProbeResult(rows=rows(0.9, 0.95), generation=generation), DONE, Facts(CLOSING, "a", None)).tiles
    fid = next(tile for tile in tiles if tile.name == "Samples: FID")  # of the data's own classes
    assert fid.value == "5" and "real images 2.5, n = 1,359" in fid.note
    assert next(tile.value for tile in tiles if tile.name.startswith("Gain")) == "+30.0 points"


def test_few_test_images_or_nothing_learned_are_not_explained_by_small_pictures():
    few = lead(ProbeResult(rows=rows(0.9, 0.95), n_test=7), DONE, Facts(CLOSING, "a", None, 32)).sentence
    assert "only 7 test images" in few and "14 points" in few and "pixels suffice" not in few
    nothing = lead(ProbeResult(rows=rows(0.5, 0.95), n_test=700), DONE, Facts(CLOSING, "a", None, 32)).sentence
    assert "has not learned yet" in nothing and "pixels suffice" not in nothing


def test_the_closing_block_says_the_same_figures_in_the_same_order(tmp_path):
    found = lead(ProbeResult(rows=rows(0.9, 0.95)), DONE, Facts(CLOSING, "digits", None, 8))
    text = closing_block(tmp_path, 1000, found, tmp_path / "report.html")
    places = [text.index(f"{name}: ") for name in (
        "Reconstructions that keep their class", "Gain over the untrained encoder", "Linear probe, top-1",
        "Reconstruction error",
    )]  # fmt: skip
    assert places == sorted(places) and "figures" in text.splitlines()[1] and "pixels do not suffice" in text
    assert "Data: " not in text and "Images seen: " not in text
    assert "not measured" in closing_block(tmp_path, 1000, lead(ProbeResult(), DONE, Facts({}, "", None)), tmp_path)


@pytest.mark.parametrize(("probed_at", "said"), [(800, True), (1000, False), (None, False)])
def test_a_probe_from_before_the_run_was_lengthened_is_said_to_be_one(probed_at, said, tmp_path):
    found = lead(ProbeResult(rows=rows(0.9, 0.8), images_seen=probed_at), DONE, Facts(CLOSING, "digits", None, 8))
    text = closing_block(tmp_path, 1000, found, tmp_path / "report.html")
    assert ("The probe is of this run at 800 images; bigbigan-probe makes it anew." in text) == said


def test_large_pictures_are_not_said_to_be_small():
    assert "train for longer" in names(ProbeResult(rows=rows(0.3, 0.4)), {}, size=128)[1]


@pytest.mark.parametrize(
    ("probe", "latest", "first"),
    [
        (ProbeResult(), {}, "Images seen"),
        (ProbeResult(), CLOSING, "Reconstruction error"),  # no labels
        (ProbeResult(), {"fid_a_train_n9": 3.0}, "Samples: FID"),  # a GAN without E
        (ProbeResult(), {"top1_linear": 0.5} | CLOSING, "Linear probe, top-1"),  # evaluated on its way alone
        (ProbeResult(rows=rows(0.5, None, None)), {}, "Linear probe, top-1"),  # without baselines
        (ProbeResult(rows=rows(0.9, 0.95, None)), {}, "Linear probe, top-1"),  # pixels ahead, and nothing else
    ],
)
def test_what_was_not_measured_has_no_tile(probe, latest, first):
    found, _ = names(probe, latest)
    assert found[0] == first


def test_an_unfinished_run_begins_with_where_it_stands():
    at = Progress(400, 1000, "training", 0.5, 100)
    tile = lead(ProbeResult(), at, Facts(CLOSING, "digits", 5.0)).tiles[0]
    assert (tile.name, tile.value, tile.note) == ("Images seen", "400", "of 1,000; 5 min left")


def test_every_curve_of_a_run_has_a_word_on_what_it_should_look_like():
    for figure in FIGURES:
        assert guide(figure.name) and guide(figure.name, "logistic"), figure.name
    assert guide("fid_classifier_digits_train_n1438") == GUIDES["fid"]
    assert guide("score_z") == HINGE["score_z"] != guide("score") and guide("score_gap") == GUIDES["score_gap"]
    assert guide("loss_d", "lsgan") == OTHER_FORM["loss_d"] and guide("unheard of") == guide("fidelity") == ""


@pytest.mark.parametrize(
    ("probed", "trained_on"),
    [
        ("photos", ""),
        ("photos (photos/train)", ""),
        ("photos; no labels", ""),
        ("", ""),
        ("photos2", "photos"),
        ("X", "photos"),
    ],
)
def test_a_probe_of_other_data_is_said_to_be_one(tmp_path, probed, trained_on):
    (tmp_path / "config.yaml").write_text("data: {path: photos}\n")
    (tmp_path / "probe.json").write_text(json.dumps(ProbeResult(rows=rows(0.9, 0.8), data=probed).to_json()))
    tiles = {tile.name: tile.value for tile in read_lead(tmp_path).tiles}
    assert tiles.get("Trained on", "") == trained_on
    assert tiles["Probed on" if trained_on else "Data"] == (probed or "photos")
