"""Which images a run trains on, chooses by, and is judged on: the test split chooses nothing."""

import json

import numpy as np
import pytest

from bigbigan.config import Config, Run
from bigbigan.data import Images, hold_out_for_choices, open_images
from bigbigan.data.images import Arrays
from bigbigan.data.splits import MOST_FOR_CHOICES
from bigbigan.errors import ConfigError, DataError
from bigbigan.training.launch import selection_share
from tests.conftest import picture, train
from tests.runs.test_train import same, stats, weights

EVALUATING = (
    "--run.evaluate_every=48", "--run.evaluate_images=60", "--run.probe=False", "--run.images=96",
    "--run.sample_every=96", "--run.spectra_every=0",
)  # fmt: skip
BEST = (*EVALUATING, "--run.best=top1_knn")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))


def images(labels, n=None) -> Images:
    labels = None if labels is None else np.asarray(labels)
    n = len(labels) if n is None else n
    names = None if labels is None else [f"c{i}" for i in range(int(labels.max()) + 1)]
    return Images(Arrays(np.arange(n, dtype=np.uint8)[:, None, None]), labels, names, "here", "arrays")


def numbers(split):
    return [split.name(i) for i in range(len(split))]


# The split


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5])
@pytest.mark.parametrize(
    "labels", [None, np.repeat([0, 1, 2], [300, 60, 40]), np.arange(400) % 7, np.repeat([0, 5], [397, 3])]
)
def test_the_parts_are_disjoint_complete_alike_by_class_and_of_the_share(share, labels):
    whole = images(labels, 400)
    rest, chosen = hold_out_for_choices(whole, share)
    assert sorted(numbers(rest) + numbers(chosen)) == sorted(numbers(whole))
    assert abs(len(chosen) - share * 400) <= 2
    assert numbers(chosen) == numbers(hold_out_for_choices(whole, share)[1]), "the same ones each time"
    if labels is not None:
        for label in np.unique(labels):
            count, held = (labels == label).sum(), (chosen.labels == label).sum()
            assert abs(held - share * count) <= 1.01 and held < count
        assert rest.class_names == chosen.class_names == whole.class_names


def test_a_class_of_one_image_is_trained_on():
    for seed in range(20):
        labels = np.random.default_rng(seed).permutation(np.r_[np.zeros(20, int), np.arange(1, 11)])
        rest, chosen = hold_out_for_choices(images(labels), 0.4)
        assert set(rest.labels) == set(range(11)) and len(chosen) >= 2


def test_there_are_never_more_than_the_papers():
    rest, chosen = hold_out_for_choices(images(None, 250_000), 0.1)
    assert (len(rest), len(chosen)) == (240_000, MOST_FOR_CHOICES)


@pytest.mark.parametrize("labels", [None, np.arange(400) % 7])
def test_one_image_less_changes_few_of_them(labels):
    whole = images(labels, 400)
    fewer = whole.subset(np.delete(np.arange(400), 123))
    before, after = (set(numbers(hold_out_for_choices(given, 0.1)[1])) for given in (whole, fewer))
    assert len(before - {123} - after) <= 2 and len(before) == len(after) == 40


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_images_are_named(n):
    with pytest.raises(DataError, match=f"--run.selection_share holds at least two of them out; found {n}"):
        hold_out_for_choices(images(None, n), 0.1)


# Who has one


def begun(**run):
    return {f"run.{name}": value for name, value in run.items()}


@pytest.mark.parametrize(
    ("run", "stored", "share"),
    [
        ({}, None, 0.0),
        ({"evaluate_every": 5}, None, 0.1),
        ({"evaluate_every": 5, "selection_share": 0.3}, None, 0.3),
        ({"evaluate_every": 5, "selection_share": 0.0}, None, 0.0),
        ({}, begun(selection_share=0.1), 0.1),  # goes on without evaluations, and without these images
        ({"evaluate_every": 5, "selection_share": 0.3}, begun(selection_share=0.1), 0.1),
        ({"evaluate_every": 5}, begun(selection_share=0.0), 0.0),  # it has been trained on all of them
        ({"evaluate_every": 5}, begun(), 0.0),  # an older version's
        ({"evaluate_every": 5, "best": "fid"}, begun(best="fid"), 0.0),
        ({"evaluate_every": 5, "best": "fid"}, begun(best="fid", selection_share=0.0), 0.0),  # the same, saved again
    ],
)
def test_a_run_keeps_what_it_began_with(run, stored, share):
    assert selection_share(Config(run=Run(**run)), stored) == share


@pytest.mark.parametrize("stored", [begun(), begun(selection_share=0.0), begun(selection_share=0.0, best="")])
def test_a_run_that_trains_on_all_images_cannot_begin_to_choose(stored):
    with pytest.raises(ConfigError, match="--run.best fid: expected a run that has held out training images"):
        selection_share(Config(run=Run(evaluate_every=5, best="fid")), stored)


@pytest.mark.parametrize("value", ["x", -1, 2, None, True])
def test_a_stored_share_that_cannot_be_is_named(value):
    with pytest.raises(ConfigError, match="selection_share of the run's checkpoint: expected a share"):
        selection_share(Config(), begun(selection_share=value))


@pytest.mark.run
def test_a_choice_without_images_is_refused(tmp_path):
    _, err = train(tmp_path, "--run.name=a", *BEST, "--run.selection_share=0", code=2)
    assert "--run.best top1_knn with --run.selection_share 0: expected a share" in err
    train(tmp_path, "--run.name=a", "--run.images=48", "--run.probe=False")
    _, err = train(tmp_path, "--run.name=a", *BEST, code=2)
    assert "expected a run that has held out training images since its beginning" in err and "--run.name" in err


# Runs


@pytest.fixture
def looked_at(monkeypatch):
    """The images that evaluations, choices and the guard were given, by place."""
    from bigbigan.training.guard import CollapseProbe
    from eval_linear import quick

    given, figures, build = {}, quick.quick_figures, CollapseProbe.__init__

    def quick_figures(model, train, test, *rest):
        given["train"], given["evaluation"] = numbers(train), numbers(test)
        return figures(model, train, test, *rest)

    def init(probe, model, train, test, *rest, **options):
        given["guard"] = numbers(test)
        build(probe, model, train, test, *rest, **options)

    monkeypatch.setattr(quick, "quick_figures", quick_figures)
    monkeypatch.setattr(CollapseProbe, "__init__", init)
    return given


def digits(test):
    return set(numbers(open_images("digits", "test" if test else "train", test=test)))


@pytest.mark.run
def test_evaluations_choices_and_the_guard_look_at_training_images_that_are_not_trained_on(tmp_path, looked_at):
    out, _ = train(tmp_path, "--run.name=a", *BEST, "--run.spectra_every=48")
    assert len(looked_at["evaluation"]) == 144 and looked_at["guard"] == looked_at["evaluation"]
    assert set(looked_at["evaluation"]) < digits(test=False) and len(looked_at["train"]) == 1438 - 144
    assert not set(looked_at["evaluation"]) & set(looked_at["train"])
    assert "evaluations and --run.best top1_knn look at 144 training images held out for choices" in out
    assert "1,294 images" in out and "chosen by top1_knn" in out.split("finished")[1]
    assert "on 144 training images held out for choices" in out.split("finished")[1]
    (line, *_) = [line for line in stats(tmp_path / "a") if "top1_knn" in line]
    assert line["evaluated_on"] == "144 training images held out for choices"
    (note,) = (tmp_path / "a" / "best").glob("*/best.json")
    assert json.loads(note.read_text())["chosen_on"] == "144 training images held out for choices"


@pytest.mark.run
def test_the_probe_of_the_best_checkpoint_says_what_chose_it(tmp_path):
    from eval_linear.probe import Probe, run_probe

    train(tmp_path, "--run.name=a", *BEST)
    best = tmp_path / "a" / "best"
    for source in (best, next(best.iterdir())):
        text = run_probe(Probe(ckpt=str(source), parts=("linear",), labels=(1.0,), untrained=0, cache=False))
        assert "chosen by top1_knn" in text and "on 144 training images held out for choices" in text
        assert "n_test 359" in text
    assert "held out for choices" in (tmp_path / "a" / "report.html").read_text()
    note = next(best.glob("*/best.json"))  # as an older version wrote it
    note.write_text(json.dumps({"figure": "top1_knn", "value": 0.5}))
    text = run_probe(Probe(ckpt=str(best), parts=("linear",), labels=(1.0,), untrained=0, cache=False))
    assert "chosen by top1_knn 0.5 on test images; those figures of the test split" in text
    text = run_probe(Probe(ckpt=str(tmp_path / "a"), parts=("linear",), labels=(1.0,), untrained=0, cache=False))
    assert "chosen by" not in text, "the release is the run's last state"


@pytest.mark.run
def test_a_fid_chooses_by_samples_and_says_so(tmp_path):
    train(tmp_path, "--run.name=a", *EVALUATING, "--run.best=fid")
    (note,) = (tmp_path / "a" / "best").glob("*/best.json")
    assert json.loads(note.read_text())["chosen_on"] == "samples beside the training images"


@pytest.mark.run
def test_a_run_without_evaluations_trains_on_all_images(tmp_path, looked_at):
    out, _ = train(tmp_path, "--run.name=a", "--run.images=48", "--run.probe=False", "--run.spectra_every=48")
    assert set(looked_at["guard"]) == digits(test=True) and "1,438 images" in out and "choices" not in out


@pytest.mark.run
def test_a_run_may_train_on_all_images_and_look_at_test_images(tmp_path, looked_at):
    out, _ = train(tmp_path, "--run.name=a", *EVALUATING, "--run.selection_share=0")
    assert set(looked_at["evaluation"]) == digits(test=True) and "evaluations look at 359 test images" in out


@pytest.mark.run
@pytest.mark.parametrize("change", [("--run.selection_share=0.4",), ("--run.evaluate_every=0", "--run.best=")])
def test_a_resumed_run_trains_on_the_same_images_whatever_it_is_told(tmp_path, change):
    flags = (*BEST, "--run.images=96")
    train(tmp_path, "--run.name=straight", *flags)
    train(tmp_path, "--run.name=cut", *flags, "--run.images=48")
    train(tmp_path, "--run.name=cut", *flags, *change)
    assert same(weights(tmp_path / "cut", 96), weights(tmp_path / "straight", 96))


@pytest.mark.run
def test_folders_and_images_without_labels(tmp_path, looked_at):
    for i in range(40):
        (tmp_path / "photos").mkdir(exist_ok=True)
        picture(i).save(tmp_path / "photos" / f"{i}.png")
    train(tmp_path, "--run.name=a", f"--data.path={tmp_path / 'photos'}", *EVALUATING, "--run.best=reconstruction")
    train_names, held_out = set(looked_at["train"]), set(looked_at["evaluation"])
    assert len(held_out) == max(2, round(0.1 * len(train_names | held_out))) and not held_out & train_names


def older(run, images=48):
    """Turn a run into one that an older version began: without the setting, by its keys of the time."""
    for folder in (run / "checkpoints").iterdir():
        state = json.loads((folder / "state.json").read_text())
        del state["config"]["run.selection_share"], state["guard"]
        state["config"].pop("optim.ema_decay")
        state["config"]["optim.ema_half_life"] = 200_000.0
        (folder / "state.json").write_text(json.dumps(state))


@pytest.mark.run
def test_a_run_of_an_older_version_goes_on_with_its_images_and_its_averages(tmp_path, looked_at):
    flags = ("--run.name=a", "--optim.ema_rampup=1e9", "--optim.ema_decay=0.5", *EVALUATING)
    train(tmp_path, *flags, "--run.images=48", "--run.selection_share=0")
    older(tmp_path / "a")
    before = weights(tmp_path / "a", 48)
    out, _ = train(tmp_path, *flags)
    assert set(looked_at["evaluation"]) == digits(test=True) and "evaluations look at 359 test images" in out
    assert "half-life 200,000 images of all updates" in out and "--optim.ema_decay has no effect" in out
    after = weights(tmp_path / "a", 96)
    moved = [k for k in before if k.startswith("averages") and "mlp.blocks.0.linear1.weight" in k]
    norm = np.linalg.norm
    assert moved and all(norm(after[k] - before[k]) < 1e-3 * norm(before[k]) for k in moved), "a long half-life"
    state = json.loads((tmp_path / "a" / "checkpoints" / f"{96:012d}" / "state.json").read_text())["config"]
    assert state["optim.ema_half_life"] == 200_000 and state["run.selection_share"] == 0
    out, _ = train(tmp_path, *flags, "--run.images=120")
    assert "half-life 200,000 images" in out, "and so on at every start"
    out, _ = train(tmp_path, *flags, "--run.images=144", "--run.accept_changes=True")
    assert "decay 0.5 per E+G update" in out
