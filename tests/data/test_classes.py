"""Test that a class is one class in both splits: test labels are matched with the training split's by name."""

import io
import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from bigbigan.config import Data
from bigbigan.data import open_splits
from bigbigan.errors import ProbeError
from eval_linear import quick
from eval_linear.probe import Probe, ProbeData, run_probe
from tests.conftest import tiny_model, train

COLOURS = {"a": (250, 30, 30), "b": (30, 250, 30), "c": (30, 30, 250), "d": (240, 240, 240), "e": (10, 10, 10)}


def coloured(name: str, seed: int) -> Image.Image:
    """Return a picture of the class's colour and some noise, so that its class is easily told."""
    noise = np.random.default_rng([ord(name), seed]).integers(-9, 10, (8, 8, 3))
    return Image.fromarray(np.clip(np.asarray(COLOURS[name]) + noise, 0, 255).astype(np.uint8))


def folders(root, train_classes: str, test_classes: str, count: int = 12, test: str = "val"):
    for split, classes in (("train", train_classes), (test, test_classes)):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                coloured(name, i + 100 * (split != "train")).save(root / split / name / f"{i}.png")
    return root


def table(path, letters: str, labels: list, kind):
    path.parent.mkdir(exist_ok=True)
    cells = []
    for i, letter in enumerate(letters):
        file = io.BytesIO()
        coloured(letter, i).save(file, "PNG")
        cells.append({"bytes": file.getvalue(), "path": None})
    features = Features({"image": ImageFeature(), "label": kind})
    Dataset.from_dict({"image": cells, "label": labels}, features=features).to_parquet(path)


def colour_of(image) -> str:
    mean = np.asarray(image, float).mean((0, 1))
    return min(COLOURS, key=lambda name: np.abs(np.asarray(COLOURS[name]) - mean).sum())


def pairs(images) -> set:
    """Return {(the class that the pixels show, the class that the label says)}."""
    return {(colour_of(images[i]), images.class_names[images.labels[i]]) for i in range(len(images))}


@pytest.mark.parametrize(
    ("train_classes", "test_classes", "common"),
    [("abc", "ac", "ac"), ("abc", "bcd", "bc"), ("bd", "abcde", "bd"), ("abc", "abc", "abc")],
)
def test_a_perfect_encoder_is_perfect_whatever_classes_the_test_split_lacks(
    tmp_path, train_classes, test_classes, common
):
    train_images, test_images = open_splits(Data(path=str(folders(tmp_path, train_classes, test_classes))))
    assert train_images.class_names == test_images.class_names == list(train_classes)
    assert pairs(test_images) == {(name, name) for name in common}
    assert len(test_images) == 12 * len(common)
    model = tiny_model().eval()  # random features tell these colours apart
    figures = quick.quick_figures(model, train_images, test_images, "colours", 1000, 0)
    assert figures["top1_1nn"] == 1 and figures["top1_knn"] == 1
    note = test_images.note
    assert bool(note) == (train_classes != test_classes)
    assert not note or note.endswith("that both splits have, by classifiers of all training classes")
    for name in set(train_classes) ^ set(test_classes):
        assert f" {name}" in note


INTEGERS = [10, 20, 40]
CLASS_LABELS = {
    "words": (["ant", "bee", "cow"], Value("string"), ["cow", "bee"], Value("string"), {0: "c", 1: "b"}),
    "integers with gaps": (INTEGERS, Value("int64"), [20, 40], Value("int32"), {0: "b", 1: "c"}),
    "integers and floats": (INTEGERS, Value("int64"), [20.0, 40.0], Value("float64"), {0: "b", 1: "c"}),
    "integers and words": (INTEGERS, Value("int64"), ["40", "10"], Value("string"), {0: "c", 1: "a"}),
    "another order": (
        [0, 1, 2], ClassLabel(names=["ant", "bee", "cow"]), [0, 1], ClassLabel(names=["cow", "ant"]), {0: "c", 1: "a"}
    ),
    "names and words": ([0, 1, 2], ClassLabel(names=["x", "y", "z"]), ["z", "x"], Value("string"), {0: "c", 1: "a"}),
    "more names than images": (
        [0, 1, 2], ClassLabel(names=["ant", "bee", "cow", "dog"]), [0], ClassLabel(names=["cow"]), {0: "c"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CLASS_LABELS)
def test_labels_of_tables_are_matched_by_name(tmp_path, kind):
    labels, of_train, test_labels, of_test, letters = CLASS_LABELS[kind]
    table(tmp_path / "set" / "train.parquet", "abc" * 4, labels * 4, of_train)
    shown = "".join(letters[k] for k in range(len(test_labels)))
    table(tmp_path / "set" / "test.parquet", shown * 4, test_labels * 4, of_test)
    asked = "label" if "floats" in kind else ""  # unasked, floats are measurements
    train_images, test_images = open_splits(Data(path=str(tmp_path / "set"), label_column=asked))
    right = {train_images.labels[i]: colour_of(train_images[i]) for i in range(len(train_images))}
    found = {(colour_of(test_images[i]), right[test_images.labels[i]]) for i in range(len(test_images))}
    assert found == {(letter, letter) for letter in shown}


def test_classes_that_share_no_name_are_no_classes(tmp_path):
    folders(tmp_path / "set", "abc", "de")
    train_images, test_images = open_splits(Data(path=str(tmp_path / "set")))
    assert test_images.labels is None and len(test_images) == 24 and "unlabelled" in test_images.note
    assert train_images.labels is not None


def test_a_class_name_without_images_is_no_class_that_a_split_has(tmp_path):
    """The names of both tables are the same, but the training rows have no image of one of them."""
    names = ClassLabel(names=["a", "b", "c"])
    table(tmp_path / "set" / "train.parquet", "ab" * 6, [0, 1] * 6, names)
    table(tmp_path / "set" / "test.parquet", "abc" * 3, [0, 1, 2] * 3, names)
    _, test_images = open_splits(Data(path=str(tmp_path / "set")))
    assert pairs(test_images) == {("a", "a"), ("b", "b")} and "c" in test_images.note


@pytest.mark.run
def test_a_run_says_once_which_classes_a_split_lacks(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    data = folders(tmp_path / "set", "abc", "bcd", count=30)
    flags = ("--run.evaluate_every=48", "--run.evaluate_images=100", "--run.best=top1_1nn", "--run.images=48")
    out, _ = train(tmp_path, f"--data.path={data}", "--run.name=r", *flags)
    said = caplog.text
    assert said.count("in the test split alone: d") == 1 and said.count("in the training split alone: a") == 1
    assert "60 images, 3 classes: a 0, b 30, c 30 (of the classes that both splits have)" in out
    evaluations = [json.loads(line) for line in (tmp_path / "r" / "stats.jsonl").read_text().splitlines()]
    found = next(line for line in evaluations if line["kind"] == "evaluation")
    assert found["top1_1nn"] > 0.9 and found["top1_linear"] > 0.9
    probe = json.loads((tmp_path / "r" / "probe.json").read_text())
    assert probe["n_test"] == 60 and "in the test split alone: d" in probe["data"]
    pixels = [r for r in probe["rows"] if r["feature"] == "pixels 8×8" and r["protocol"].startswith("linear")]
    assert pixels[0]["figures"]["top1"]["mean"] == 1
    _, err = train(tmp_path, f"--data.path={data}", "--run.name=k", "--model.classes=2", "--run.images=48", code=2)
    assert "--model.classes 2: expected data with as many classes, found 3" in err
    train(tmp_path, f"--data.path={data}", "--run.name=k", "--model.classes=3", "--run.images=48", "--run.probe=False")


def test_a_probe_on_classes_that_share_no_name_is_refused(run_folder, tmp_path):
    data = folders(tmp_path / "set", "abc", "de")
    with pytest.raises(ProbeError, match="expected labels of two classes or more, found that.*\\(d, e\\)"):
        run_probe(Probe(ckpt=str(run_folder), data=ProbeData(path=str(data)), parts=("knn",), untrained=0))
