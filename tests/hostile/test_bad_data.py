"""Refuse data sets that cannot be used with one sentence and status 2, or skip what is broken and say so.

In either case nothing is written.
"""

import json
import logging
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from datasets import Image as ImageFeature

from bigbigan.data import Crop, Stream, open_images
from bigbigan.errors import DataError, InputError
from tests.conftest import launch, picture, train


def files(folder, count=6):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(folder / f"{i}.png") for i in range(count)]
    for i, path in enumerate(paths):
        picture(i).save(path)
    return paths


def table(tmp_path, name="image", label=None, kind=None, images=None):
    """Write six images, as bytes, with labels of any kind."""
    paths = files(tmp_path / "source")
    cells = images or [{"bytes": Path(path).read_bytes(), "path": None} for path in paths]
    plain = {"bytes": Value("binary"), "path": Value("string")}  # for which `datasets` does not look at the files
    columns, features = {name: cells}, {name: plain if images else ImageFeature()}
    if label is not None:
        columns["label"], features["label"] = label, kind
    return Dataset.from_dict(columns, features=Features(features))


def parquet(tmp_path, **options):
    (tmp_path / "set").mkdir()
    table(tmp_path, **options).to_parquet(tmp_path / "set" / "train-0.parquet")
    return tmp_path / "set"


def cut_short(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


def saved(tmp_path):
    table(tmp_path).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def torn_json(tmp_path, name, text):
    folder = saved(tmp_path)
    (folder / name).write_text(text)
    return folder


def led_astray(tmp_path, name):
    """Save a folder whose state.json names an Arrow file elsewhere."""
    folder = saved(tmp_path)
    state = json.loads((folder / "state.json").read_text())
    file = folder / state["_data_files"][0]["filename"]
    file.rename(tmp_path / "elsewhere.arrow")
    state["_data_files"][0]["filename"] = name.format(tmp_path)
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def wordy(tmp_path):
    (tmp_path / "photos.txt").write_text("no images")
    return tmp_path / "photos.txt"


def empty_table(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    table(tmp_path).select([]).to_parquet(folder / "train.parquet")
    return folder


def folder_named(tmp_path, name):
    (tmp_path / name).mkdir()
    return tmp_path / name


def labelled(label, kind):
    return lambda p: parquet(p, label=label, kind=kind)


def raw(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


TWO_NAMES = ClassLabel(names=["a", "b"])

# what it is → (a function that makes it under tmp_path → its path, the message, further flags)
CASES = {
    "no such folder": (
        lambda p: p / "nothing",
        "expected a folder, a file or a data set's name, found no such folder or file",
        [],
    ),
    "empty folder": (lambda p: folder_named(p, "empty"), "expected images (.jpg, .jpeg, .png,", []),
    "folder of text": (lambda p: wordy(p).parent, "found none in it or its subfolders", []),
    "a text file": (
        wordy,
        "expected a folder, a .parquet, .arrow or .tar file or a data set's name, found another file",
        [],
    ),
    "one image": (
        lambda p: p / "s" if files(p / "s", 1) else p,
        "expected two images or more, since one is held out",
        [],
    ),
    "a name too long": (lambda p: p / ("x" * 300), "File name too long", []),
    "a folder named .parquet": (lambda p: folder_named(p, "x.parquet"), "found none in it", []),
    "empty table": (empty_table, "corresponds to no data!; is it cut short, or empty?", []),
    "zero bytes .parquet": (lambda p: raw(p, "x.parquet", b""), "expected a readable parquet file, found", []),
    "zero bytes .arrow": (lambda p: raw(p, "x.arrow", b""), "expected a readable arrow file, found", []),
    "text .parquet": (
        lambda p: raw(p, "x.parquet", b"a,b\n1,2\n" * 9),
        "expected a readable parquet file, found Arrow",
        [],
    ),
    "cut .parquet": (lambda p: cut_short(parquet(p) / "train-0.parquet"), "is it cut short, or empty?", []),
    "cut in a folder": (lambda p: cut_short(parquet(p) / "train-0.parquet").parent, "is it cut short, or empty?", []),
    "cut .arrow": (lambda p: cut_short(next(saved(p).glob("*.arrow"))), "expected a readable arrow file, found", []),
    "saved, cut": (
        lambda p: cut_short(next(saved(p).glob("*.arrow"))).parent,
        "expected a folder that `datasets` saved",
        [],
    ),
    "saved, no state": (
        lambda p: torn_json(p, "state.json", "{"),
        "expected a folder that `datasets` saved, found JSON",
        [],
    ),
    "saved, state a list": (lambda p: torn_json(p, "state.json", "[]"), "expected a folder that `datasets` saved", []),
    "saved, info a number": (
        lambda p: torn_json(p, "dataset_info.json", "3"),
        "expected a folder that `datasets` saved",
        [],
    ),
    "saved, up and out": (lambda p: led_astray(p, "../elsewhere.arrow"), "found that it leads to", []),
    "saved, absolute": (lambda p: led_astray(p, "{}/elsewhere.arrow"), "--data.follow_links True", []),
    "paths up and out": (
        lambda p: parquet(p, images=[{"bytes": None, "path": "../source/0.png"}] * 6),
        "itself, found that it leads to",
        [],
    ),
    "another column": (
        lambda p: parquet(p, name="photo"),
        "a column of images 'image', found the columns photo; name it with --data.image_column",
        ["--data.image_column=image"],
    ),
    "a column of numbers": (
        labelled([1] * 6, Value("int64")),
        "expected images in column 'label', found Value('int64')",
        ["--data.image_column=label"],
    ),
    "no such label column": (parquet, "expected a column of labels 'kind', found image", ["--data.label_column=kind"]),
    "labels missing": (
        labelled([0, 1, None, 0, None, 1], TWO_NAMES),
        "a label in every row of column 'label', found 2 without",
        ["--data.label_column=label"],
    ),
    "lists as labels": (
        labelled([[1], [2, 3]] * 3, Sequence(Value("int64"))),
        "expected a number or a word in every row of the label column",
        ["--data.label_column=label"],
    ),
    "labels not numbers": (
        labelled([float("nan")] * 6, Value("float32")),
        "expected a number or a word in every row",
        ["--data.label_column=label"],
    ),
    "no such split": (
        lambda p: DatasetDict(a=table(p), b=table(p)).save_to_disk(str(p / "d")) or p / "d",
        "expected a split 'train', found a, b; choose with --data.split",
        [],
    ),
    "classes without labels": (
        lambda p: p / "s" if files(p / "s", 9) else p,
        "--model.classes 2: expected labels in the test split too, found none",
        ["--model.classes=2"],
    ),
    "another number of classes": (
        labelled([0, 1] * 3, TWO_NAMES),
        "--model.classes 3: expected data with as many classes, found 2",
        ["--model.classes=3"],
    ),
    "all unreadable": (
        lambda p: [raw(p, f"{i}.png", b"x") for i in range(9)] and p,
        "expected images that can be read, found none among the 8 looked at: ",
        ["--data.cache=none"],
    ),
    "several sizes on a device": (
        lambda p: [picture(i, (9 + i, 9)).save(p / f"{i}.png") for i in range(9)] and p,
        "expected readable images of one size, found that",
        ["--data.cache=device"],
    ),
}


@pytest.mark.run
@pytest.mark.parametrize("name", CASES)
def test_it_ends_with_a_sentence_and_status_2(tmp_path, name):
    make, message, flags = CASES[name]
    (tmp_path / "there").mkdir()
    path = make(tmp_path / "there")
    before = {file: file.read_bytes() for file in (tmp_path / "there").rglob("*") if file.is_file()}
    _, err = train(tmp_path / "runs", "--run.name=run", f"--data.path={path}", *flags, code=2)
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and message in said[0] and "Traceback" not in err, err
    assert (
        not list(tmp_path.glob("runs/run/checkpoints"))
        and not list(tmp_path.glob("runs/run/config.yaml"))
        or "unread" in name
    )
    assert {file: file.read_bytes() for file in (tmp_path / "there").rglob("*") if file.is_file()} == before


@pytest.mark.run
def test_the_command_itself(tmp_path):
    """Do the same in a separate process."""
    flags = (f"--data.path={tmp_path / 'nothing'}", f"--run.root={tmp_path / 'runs'}")
    out, err = launch("bigbigan/train.py", *flags, code=2)
    assert err.count("error: --data.path") == 1 and "Traceback" not in out + err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("label", "kind", "message"),
    [
        (
            [0, 1, None, 0, None, 1],
            TWO_NAMES,
            "found 2 without; fill them in",
        ),
        ([[1], [2, 3]] * 3, Sequence(Value("int64")), "in every row of the label column 'label'"),
    ],
)
def test_labels_that_nobody_asked_for_are_left_with_a_warning(tmp_path, caplog, label, kind, message):
    with caplog.at_level(logging.WARNING):
        images = open_images(str(parquet(tmp_path, label=label, kind=kind)), test_share=0)
    assert len(images) == 6 and images.labels is None and message in caplog.text


def test_images_beside_class_folders_are_said_to_cost_the_labels(tmp_path, caplog):
    for name in ("ant", "bee"):
        files(tmp_path / name)
    files(tmp_path, 2)
    with caplog.at_level(logging.WARNING):
        images = open_images(str(tmp_path), test_share=0)
    assert len(images) == 14 and images.labels is None
    assert f"no labels, since 2 images, such as {tmp_path}/0.png, lie beside the 2 folders" in caplog.text


def test_rows_without_an_image_are_skipped_and_counted(tmp_path, caplog):
    cells = [{"bytes": Path(path).read_bytes(), "path": None} for path in files(tmp_path / "source")]
    folder = parquet(tmp_path, images=[*cells[:3], None, *cells[3:], {"bytes": b"cut", "path": None}])
    stream = Stream(
        open_images(str(folder), test_share=0), 8, 0, cache="none", max_unreadable=0.5, augment=Crop("none", False)
    )
    with caplog.at_level(logging.WARNING):
        assert sum(len(b.x) for b in stream.batches(0, 32, 8)) == 32
    assert stream.unreadable == {"row 3", "row 7"}
    assert "unreadable image row 3: skipped" in caplog.text and "expected an image, found an empty cell" in caplog.text


@pytest.mark.parametrize("name", ["photos[1]", "a*b", "what?", "{x}", "ümlaut 漢字"])
def test_names_that_mean_something_to_others_are_names(tmp_path, name):
    """Read names with brackets and stars, which `datasets` would take for patterns."""
    (tmp_path / name).mkdir()
    table(tmp_path).to_parquet(tmp_path / name / "train.parquet")
    assert len(open_images(str(tmp_path / name), test_share=0)) == 6


def test_errors_are_of_two_kinds():
    assert issubclass(DataError, ValueError) and issubclass(InputError, ValueError)
