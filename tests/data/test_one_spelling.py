"""Whatever program wrote a table: which column names the images, and one spelling for a class and for no class."""

import unicodedata

import numpy as np
import pytest

from bigbigan.config import Data
from bigbigan.data import open_images, open_splits, open_whole_split
from bigbigan.errors import DataError
from tests.data.test_tables import table
from tests.helpers.folders import make, write

ORDER = np.random.default_rng(0).permutation(20)
CLASS_OF = dict(enumerate("ab" * 10))


def splits(path, **settings):
    return open_splits(Data(path=str(path), **settings))


def classes(images) -> dict[int, str]:
    """Return {number in the image's name: its class}."""
    numbers = [int("".join(c for c in images.name(i).rsplit("/")[-1] if c.isdigit())) for i in range(len(images))]
    return {n: images.class_names[k] for n, k in zip(numbers, images.labels, strict=True)}


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("head", [",file,kind", "Unnamed: 0,file,kind", "age,file,kind"])
def test_names_with_suffixes_count_more_than_bare_numbers(tmp_path, head, suffix):
    make(tmp_path, *(f"{i}.png" for i in range(20)))
    write(tmp_path / "labels.csv", head, *(f"{row},{i}{suffix},{CLASS_OF[i]}" for row, i in enumerate(ORDER)))
    train, test = splits(tmp_path, label_column="kind")
    assert classes(train) | classes(test) == CLASS_OF


def test_they_do_even_where_fewer_of_them_are_there(tmp_path):
    make(tmp_path, *(f"{i}.png" for i in range(20)))
    rows = [f"{row},{i if i < 18 else 900 + i}.png,{CLASS_OF[i]}" for row, i in enumerate(ORDER)]
    write(tmp_path / "labels.csv", "row,file,kind", *rows)
    images = open_images(str(tmp_path), label_column="kind", test_share=0)
    assert classes(images) == {i: CLASS_OF[i] for i in range(18)}


def test_of_bare_numbers_those_count_that_differ(tmp_path):
    make(tmp_path, *(f"{i}.png" for i in range(20)))
    write(tmp_path / "labels.csv", "age,id,kind", *(f"{i % 7},{i},{CLASS_OF[i]}" for i in ORDER))
    assert classes(open_images(str(tmp_path), label_column="kind", test_share=0)) == CLASS_OF


def test_two_columns_of_numbers_that_name_different_images_are_refused(tmp_path):
    make(tmp_path, *(f"{i}.png" for i in range(20)))
    write(tmp_path / "labels.csv", "row,id,kind,split", *(f"{r},{i},{CLASS_OF[i]},train" for r, i in enumerate(ORDER)))
    with pytest.raises(DataError, match="labels.csv: expected one column that names images, found 'row' and 'id'"):
        splits(tmp_path, label_column="kind")
    assert splits(tmp_path)[0].labels is None  # no labels asked for
    rows = [f"{r},{i},{'test' if i < 5 else 'train'}" for r, i in enumerate(ORDER)]
    write(tmp_path / "labels.csv", "row,id,split", *rows)
    with pytest.raises(DataError, match="take one of the columns out; or give --data.split all"):
        splits(tmp_path)
    assert sum(map(len, splits(tmp_path, split="all"))) == 20


def test_a_column_of_splits_is_read_by_the_column_of_file_names(tmp_path):
    make(tmp_path, *(f"{i}.png" for i in range(20)))
    rows = [f"{i % 4},{i}.png,{'test' if i < 5 else 'train'}" for i in ORDER]
    write(tmp_path / "data.csv", "grade,filename,split", *rows)
    train, test = splits(tmp_path, label_column="grade")
    assert sorted(classes(test)) == list(range(5)) and len(train) == 15


def test_lists_that_share_images_are_said_to_be_left_out(tmp_path, caplog):
    make(tmp_path, *(f"{i}.png" for i in range(20)))
    write(tmp_path / "train.txt", *(f"{i}.png" for i in range(18)))
    write(tmp_path / "test.txt", *(f"{i}.png" for i in range(16, 20)))
    splits(tmp_path)
    assert "no splits are read from train.txt and test.txt, since 2 images lie in two of them" in caplog.text


SPLIT = ["train"] * 8 + ["test"] * 4 + ["other"] * 2


@pytest.mark.parametrize("kind", ["file", "saved"])
def test_a_table_may_have_a_column_of_splits(tmp_path, kind, caplog):
    made = table(14, label=[0, 1] * 7, split=SPLIT)
    path = tmp_path / ("one.parquet" if kind == "file" else "saved")
    made.to_parquet(path) if kind == "file" else made.save_to_disk(str(path))
    train, test = splits(path)
    assert (len(train), len(test)) == (8, 4) and train.labels.tolist() == [0, 1] * 4
    rows = {train.name(i) for i in range(8)}, {test.name(i) for i in range(4)}
    assert not rows[0] & rows[1]
    assert "splits are read from column 'split'; --data.split all reads none" in caplog.text
    assert "2 images that column 'split' gives no split" in train.notes
    assert len(open_whole_split(Data(path=str(path))).images) == 8  # as bigbigan-extract opens it
    whole = splits(path, split="all")
    assert sum(map(len, whole)) == 14


def test_a_column_of_other_words_is_no_column_of_splits(tmp_path):
    table(14, label=[0, 1] * 7, subset=["indoor", "outdoor"] * 7).to_parquet(tmp_path / "one.parquet")
    assert sum(map(len, splits(tmp_path / "one.parquet"))) == 14


@pytest.mark.parametrize(
    ("folders", "kept", "left"),
    [
        (
            ("train", "trainval", "val"),
            ("train/", "val/"),
            "trainval/ (4 images, train and val once more, by its name)",
        ),
        (("train", "train_val", "val", "test"), ("train/", "test/"), "train_val/ (4 images, train and val once more"),
        (("trainval", "val", "test"), ("trainval/", "test/"), "val/ (4 images, a part of trainval/, by its name)"),
        (("trainval", "val"), ("trainval/", "held out of trainval/"), "val/ (4 images, a part of trainval/"),
    ],
)
def test_trainval_and_its_parts_do_not_meet(tmp_path, folders, kept, left):
    make(tmp_path, *(f"{folder}/{c}/{i}.png" for folder in folders for c in "ab" for i in range(2)))
    train, test = splits(tmp_path)
    assert (train.source, test.source) == kept and any(note.startswith(left) for note in train.notes)


@pytest.mark.parametrize(
    ("files", "settings", "expected"),
    [
        (("train", "trainval", "val"), {}, ("train", "val")),
        (("trainval", "val", "test"), {}, ("trainval", "test")),
        (("train", "train_val", "val"), {"split": "trainval"}, ("trainval", "held out")),
        (("train", "trainval", "val"), {"split": "trainval", "test_split": "val"}, ("trainval", "val")),  # as asked
        (("trainval/0", "val/0"), {}, ("trainval", "held out")),
    ],
)
def test_tables_of_trainval_do_not_meet_their_parts(tmp_path, files, settings, expected):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        table(14, label=[0, 1] * 7).to_parquet(tmp_path / f"{name}.parquet")
    found = [images.source.replace("train_val", "trainval") for images in splits(tmp_path, **settings)]
    assert tuple(source.split(" of")[0].split(".")[0].split("/")[0] for source in found) == expected


def test_one_image_with_two_labels_is_refused(tmp_path):
    make(tmp_path, "0.png", "1.png")
    write(tmp_path / "metadata.csv", "file_name,label", "0.png,b", "1.png,a", "0.png,a")
    with pytest.raises(DataError, match="expected one label for each image in column 'label', found 'b' and 'a' for"):
        splits(tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        ("file_name;label", *(f"x/{i}.png;{CLASS_OF[i]}" for i in range(20))),
        ("file_name,label", *(f"x\\{i}.png,{CLASS_OF[i]}" for i in range(20))),
        ("file_name, label", *(f"x/{i}.png, {CLASS_OF[i]} " for i in range(20))),
    ],
    ids=["semicolons", "backslashes", "blanks"],
)
def test_metadata_of_other_programs(tmp_path, lines):
    make(tmp_path, *(f"x/{i}.png" for i in range(20)))
    write(tmp_path / "metadata.csv", *lines)
    assert classes(open_images(str(tmp_path), test_share=0)) == CLASS_OF


@pytest.mark.parametrize("mark", ["NA", "nan", "", "N/A", "null"])
def test_a_mark_for_no_value_beside_numbers_is_no_class(tmp_path, mark):
    make(tmp_path, *(f"{i}.png" for i in range(20)))
    write(tmp_path / "labels.csv", "file,grade", *(f"{i}.png,{mark if i == 7 else i % 3}" for i in range(20)))
    with pytest.raises(DataError, match="expected a label in every row of column 'grade', found 1 without"):
        splits(tmp_path, label_column="grade")


def test_beside_words_it_is_said_to_be_a_class(tmp_path, caplog):
    table(8, label=["EU", "NA"] * 4).to_parquet(tmp_path / "one.parquet")
    images = open_images(str(tmp_path / "one.parquet"), test_share=0)
    assert images.class_names == ["EU", "NA"] and "'NA' in column 'label' counts as a class; if it" in caplog.text


def test_words_with_blanks_are_one_class(tmp_path, caplog):
    table(8, label=["cat", "cat ", " dog", "dog"] * 2).to_parquet(tmp_path / "one.parquet")
    images = open_images(str(tmp_path / "one.parquet"), test_share=0)
    assert images.class_names == ["cat", "dog"] and images.labels.tolist() == [0, 0, 1, 1] * 2
    assert "blanks around the labels in column 'label' are left out" in caplog.text


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_macos_are_those_of_others(tmp_path, forms):
    bear = [unicodedata.normalize(form, "Bär") for form in forms]
    make(tmp_path, *(f"{split}/{name}/{i}.png" for split, b in zip(("train", "test"), bear, strict=True)
                     for name in (b, "Dog") for i in range(3)))  # fmt: skip
    train, test = splits(tmp_path)
    assert len(test) == 6 and test.labels.tolist() == train.labels.tolist() == [0] * 3 + [1] * 3
    table(6, label=[bear[0], bear[1]] * 3).to_parquet(tmp_path / "one.parquet")
    assert open_images(str(tmp_path / "one.parquet"), test_share=0).class_names == ["Bär"]


def test_names_that_several_images_have_are_said_to_be_unclear(tmp_path):
    make(tmp_path, *(f"{split}/{i:02}.png" for split in ("train", "test") for i in range(4)), "train/09.png")
    write(tmp_path / "labels.csv", "file,kind", *(f"{i:02}.png,{i % 2}" for i in (0, 1, 2, 3, 9)))
    train, _ = splits(tmp_path, label_column="kind")
    said = "4 names in metadata files stand for several images each, such as 00.png; write them with their folders"
    assert any(note.startswith(said) for note in train.notes)
    write(
        tmp_path / "labels.csv", "file,kind", *(f"{s}/{i:02}.png,{i % 2}" for s in ("train", "test") for i in range(4))
    )
    assert [len(images) for images in splits(tmp_path, label_column="kind")] == [4, 4]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("name", ["labels.csv", "metadata.csv"])
def test_a_table_in_another_encoding_is_refused_with_the_cure(tmp_path, encoding, name):
    make(tmp_path, "0.png", "1.png")
    (tmp_path / name).write_bytes("file_name,kind\n0.png,größe\n1.png,b\n".encode(encoding))
    with pytest.raises(DataError, match=f"{name}: expected a .csv file in UTF-8, found another encoding; save it as"):
        splits(tmp_path, label_column="kind")


def test_no_number_in_place_of_a_label_is_refused_as_such(tmp_path):
    make(tmp_path, "0.png", "1.png")
    write(tmp_path / "metadata.jsonl", '{"file_name": "0.png", "label": NaN}', '{"file_name": "1.png", "label": 1.0}')
    with pytest.raises(DataError, match="expected a number or a word in every row of the label column 'label', found"):
        open_images(str(tmp_path), label_column="label", test_share=0)
