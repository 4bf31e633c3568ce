"""Images without labels that a probe can use: what is measured, and what is said of the rest."""

import json
import re
import shutil

import numpy as np
import pytest

from bigbigan.config import Config, Data, Model
from bigbigan.data import Images, open_splits
from bigbigan.data.classes import why_no_classes
from bigbigan.errors import ConfigError, ProbeError
from bigbigan.release.format import write_release
from bigbigan.release.load import card
from bigbigan.report.finish import probe_parts
from bigbigan.training.launch import check_best
from eval_linear import probe as room
from eval_linear.generation import Generation
from eval_linear.parts import choose_parts
from eval_linear.probe import Probe, ProbeData, run_probe
from eval_linear.quick import quick_figures
from eval_linear.representations import Splits
from tests.conftest import picture, tiny_model, train

QUICK = Generation(images=32, inception=False, truncation_images=0)


def write(root, layout: dict[str, int]):
    """Write `layout`, {folder: number of pictures}, and return the root."""
    count = 0
    for folder, n in layout.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            count += 1
            picture(count, (9 + count % 4, 11)).save(root / folder / f"{i}.png")
    return root


LAYOUTS = {
    "flat": ({"": 40}, "the images have no labels"),
    "one class": ({"train/cat": 12, "test/cat": 6}, "the images have no labels|of one class"),
    "training labels alone": ({"train/cat": 6, "train/dog": 6, "test": 5}, "the test split has no labels"),
    "all distinct": ({f"d{i}": 1 for i in range(30)}, "the images have no labels"),
    "other classes": ({"train/a": 6, "train/b": 6, "test/c": 3, "test/d": 3}, "none of the training split's"),
}


@pytest.fixture
def release(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    write_release(tmp_path / "release", tiny_model(), card({"data.split_rule": "hash"}, 1))
    return tmp_path / "release"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_needs_no_labels_is_measured_and_the_rest_is_named_once(release, tmp_path, layout):
    folders, why = LAYOUTS[layout]
    data = ProbeData(path=str(write(tmp_path / "photos", folders)))
    out = run_probe(Probe(ckpt=str(release), data=data, generation=QUICK))
    assert "no labels\n" in out and "0 classes" not in out and "reconstruction from z_mean, pixels" in out
    sentences = re.findall(r"not measured: linear, knn, kmeans; .*", out)
    assert len(sentences) == 1 and re.search(why, sentences[0]) and "--data.label_column NAME" in sentences[0]
    result = json.loads((release / "probe.json").read_text())
    assert result["rows"] == [] and result["classes"] is None and result["not_measured"] == sentences
    assert all(np.isfinite(f["value"]) for f in result["bidirectional"])
    assert any(name.startswith("swd_") for name in result["generation"]["results"][-1]["figures"])
    page = (release / "report.html").read_text()
    assert page.count("not measured: linear, knn, kmeans;") == 1
    assert "Linear probe, top-1" not in page and "has not been probed" not in page and ">0 classes" not in page


def test_a_conditional_model_needs_labels_for_pairs_too(tmp_path):
    splits = Splits(*open_splits(config_of(write(tmp_path / "photos", {"": 20})).data), "photos")
    parts, sentences = choose_parts((), tiny_model(classes=3), splits, "photos")
    assert parts == ("generation",) and "linear, knn, kmeans, pairs, classes;" in sentences[0]
    with pytest.raises(ProbeError, match="--parts pairs: expected labels"):
        choose_parts(("pairs",), tiny_model(classes=3), splits, "photos")


def test_a_gan_has_its_samples_measured(release, tmp_path):
    shutil.rmtree(release)
    write_release(release, tiny_model(encoder="none"), card({"data.split_rule": "hash"}, 1))
    data = ProbeData(path=str(write(tmp_path / "photos", {"": 20})))
    out = run_probe(Probe(ckpt=str(release), data=data, generation=QUICK))
    assert "not measured: linear, knn, kmeans, pairs; expected a model with an encoder, found a GAN" in out


@pytest.mark.parametrize("n_test", [1, 2, 5])
def test_a_test_split_of_a_few_images(release, tmp_path, n_test):
    folders = {"train/cat": 8, "train/dog": 8, "test/cat": n_test}
    options = Generation(images=32, inception=False, truncation_images=24, thresholds=(0.5,))
    data = ProbeData(path=str(write(tmp_path / "photos", folders)))
    probe = Probe(ckpt=str(release), data=data, generation=options, untrained=1, labels=(1.0,))
    out = run_probe(probe)
    assert "linear, full batch" in out
    assert ("not measured: pairs; expected two test images or more, found 1" in out) == (n_test == 1)
    assert ("no figures beside the test split" in out) == (n_test == 1)
    assert ("fid_classifier_photos_test_n32" in out) == (n_test > 1)


def test_a_class_that_cannot_be_trained_on_costs_the_classifier_alone(release, tmp_path):
    """Of two training images one is held out, which leaves one class."""
    data = ProbeData(path=str(write(tmp_path / "photos", {"train/cat": 1, "train/dog": 1, "test/cat": 2})))
    out = run_probe(Probe(ckpt=str(release), parts=("generation",), data=data, generation=QUICK))
    assert out.count("no figures of a classifier of the data's own classes: classifier: expected two classes") == 1
    assert "swd_" in out


def test_with_labels_there_is_nothing_to_say(release):
    run_probe(Probe(ckpt=str(release), parts=("knn",), untrained=0, data=ProbeData(path="digits")))
    assert "not_measured" not in json.loads((release / "probe.json").read_text())


def config_of(path, **run) -> Config:
    config = Config()
    config.data.path = str(path)
    for name, value in run.items():
        setattr(config.run, name, value)
    return config


def test_images_with_a_class_each_have_none_and_some_are_held_out(tmp_path, caplog):
    train_images, test_images = open_splits(config_of(write(tmp_path / "photos", {f"{i}": 1 for i in range(30)})).data)
    assert len(test_images) > 0 and train_images.labels is None and test_images.labels is None
    assert "no labels, since 30 folders hold 30 images" in caplog.text
    one_shot = write(tmp_path / "shot", {"train/a": 1, "train/b": 1, "test/a": 3, "test/b": 3})
    train_images, test_images = open_splits(config_of(one_shot).data)
    assert train_images.labels.tolist() == [0, 1] and len(test_images) == 6, "one shot of each class is a task"


def test_why_no_classes():
    def images(labels):
        return Images([0] * 4, None if labels is None else np.array(labels), ["a", "b"], "here", "png")

    two = images([0, 1, 0, 1])
    assert why_no_classes(two, two) == "" and why_no_classes(two, images([0, 0, 0, 0])) == ""
    assert "training split has no labels" in why_no_classes(images(None), two)
    assert "of one class" in why_no_classes(images([1, 1, 1, 1]), two)


class FakeTrainer:
    def __init__(self, config, splits):
        self.config, (self.train_images, self.test_images) = config, splits


def test_the_end_of_a_run_measures_what_is_quick(tmp_path):
    config = config_of(write(tmp_path / "photos", {"": 20}))
    splits, model = open_splits(config.data), tiny_model()
    assert probe_parts(FakeTrainer(config, splits), model) == ("pairs",)
    assert probe_parts(FakeTrainer(config, splits), tiny_model(encoder="none")) == ()
    many = splits[0].subset(np.zeros(20_001, int))
    assert probe_parts(FakeTrainer(config, (many, splits[1])), model) == ()
    assert probe_parts(FakeTrainer(config, (splits[0], splits[1].subset(np.array([0])))), model) == ()
    labelled = open_splits(config_of(write(tmp_path / "pets", {"cat": 9, "dog": 9})).data)
    assert probe_parts(FakeTrainer(config, labelled), model) == ("linear", "knn", "pairs", "generation")
    assert probe_parts(FakeTrainer(config, labelled), tiny_model(encoder="none")) == ("generation",)
    larger = tiny_model(image_size=64)  # a classifier of such pictures takes a CPU minutes
    assert probe_parts(FakeTrainer(config, labelled), larger) == ("linear", "knn", "pairs")
    config.run.probe = False
    assert probe_parts(FakeTrainer(config, splits), model) == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_figures_during_training(tmp_path, layout):
    """They depend on the labels of the images held out for choices, which are training images."""
    images, test = open_splits(config_of(write(tmp_path / "photos", LAYOUTS[layout][0])).data)
    if layout != "flat" and layout != "all distinct":
        test = images.subset(np.arange(4))
    found = quick_figures(tiny_model(), images.subset(np.arange(5)), test, "photos", 20, 0)
    assert set(found) == {"reconstruction_error_relative"}


def test_a_choice_by_a_figure_of_labels_is_refused_before_training(tmp_path):
    images, _ = open_splits(config_of(write(tmp_path / "photos", {"": 20})).data)
    model, gan = Model(), Model(encoder="none")
    check_best("reconstruction", images, model), check_best("", images, model)
    with pytest.raises(ConfigError, match="--run.best fid: .* has: reconstruction_error_relative; .*no labels"):
        check_best("fid", images, model)
    with pytest.raises(ConfigError, match="has: none; the images have no labels and the model has no encoder"):
        check_best("reconstruction", images, gan)
    labelled, _ = open_splits(Data())
    for right in ("fid", "is", "fid_classifier_digits"):
        check_best(right, labelled, gan)
    with pytest.raises(ConfigError, match="has: fid_classifier, is_classifier; the model has no encoder"):
        check_best("top1_linear", labelled, gan)
    for wrong in ("foo", "top1_linar", "x", "fid_inception2015", "top1_linear_bn"):
        with pytest.raises(ConfigError, match=f"--run.best {wrong}: expected a figure of the evaluations"):
            check_best(wrong, labelled, model)


@pytest.mark.run
def test_a_run_without_labels_ends_with_a_probe_and_bears_another(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    photos = write(tmp_path / "photos", {"": 40})
    flags = [f"--data.path={photos}", "--run.name=run", "--run.images=96", "--run.evaluate_every=48"]
    out, _ = train(tmp_path, *flags, "--run.best=reconstruction")
    assert "reconstruction from z_mean, pixels" in out and "no probe" not in out
    assert (
        out.count("not measured: linear, knn, kmeans;") == 1 and "reconstruction error" in out.partition("finished:")[0]
    )
    room.main([f"{tmp_path}/run", "--generation.images", "32", "--generation.inception", "False"])
    assert "swd_" in capsys.readouterr().out
