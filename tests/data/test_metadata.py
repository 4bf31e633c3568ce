"""Metadata files beside images: numbers of a CSV file, the folders that they decide about, kinds that do not mix."""

import json
import os

import pytest

from bigbigan.config import Data
from bigbigan.data import open_images, open_splits
from bigbigan.data.metadata import Metadata, typed
from bigbigan.errors import DataError
from tests.helpers.folders import make, write


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2", " 0 "], [1, -2, 0]),
        (["007", "8"], ["007", "8"]),  # names that are made of digits
        (["007", "8.5"], ["007", "8.5"]),
        (["1.0", "-2.5"], [1.0, -2.5]),
        (["1", "1.5", "-2"], [1.0, 1.5, -2.0]),  # a column of floats as spreadsheets write it
        (["0.5", "1e-05", "2.5E+3", ".5"], [0.5, 0.00001, 2500.0, 0.5]),  # and as pandas does
        (["1e3", "2e3"], ["1e3", "2e3"]),  # as much a name as a number
        (["3", "NA", ""], [3, None, None]),
        (["3.5", "nan"], [3.5, None]),
        (["EU", "NA", ""], ["EU", "NA", None]),
        (["", " "], [None, None]),
    ],
)
def test_cells_of_a_csv_file_are_numbers_where_all_of_a_column_are(cells, values):
    found = [row["a"] for row in typed([{"a": cell} for cell in cells])]
    assert found == values and list(map(type, found)) == list(map(type, values))


def test_measurements_with_whole_numbers_among_them_are_no_classes(tmp_path, caplog):
    make(tmp_path, *(f"{i}.png" for i in range(9)))
    write(tmp_path / "metadata.csv", "file_name,label", *(f"{i}.png,{i % 3 / 2:g}" for i in range(9)))
    assert open_images(str(tmp_path), test_share=0).labels is None
    assert "expected classes in column 'label', found numbers such as 0.5" in caplog.text


def test_metadata_files_of_two_kinds_are_refused(tmp_path):
    make(tmp_path, "0.png", "1.png")
    write(tmp_path / "metadata.csv", "file_name,label", "0.png,a", "1.png,b")
    write(tmp_path / "metadata.jsonl", '{"file_name": "0.png", "label": "b"}')
    with pytest.raises(DataError, match="expected metadata files of one kind, found .csv, .jsonl; keep one"):
        open_images(str(tmp_path))


def test_a_file_decides_about_its_folder_and_not_about_one_whose_name_begins_alike():
    found = Metadata(folders=[os.path.join("data", "cat")])
    for path, inside in ((("cat", "0.png"), True), (("cat", "x", "0.png"), True), (("cats", "0.png"), False)):
        assert found.covers(os.path.join("data", *path)) is inside


def test_a_backslash_in_a_name_is_kept_where_an_image_has_it(tmp_path):
    kinds = {"a/0.png": "x", "a/1.png": "x", "a\\0.png": "y", "a\\1.png": "y"}
    make(tmp_path, *kinds)
    write(tmp_path / "metadata.jsonl", *(json.dumps({"file_name": name, "label": k}) for name, k in kinds.items()))
    images = open_images(str(tmp_path), test_share=0)
    assert images.class_names == ["x", "y"]
    assert all(("\\" in images.name(i)) == bool(label) for i, label in enumerate(images.labels))


def test_annotations_of_tiny_imagenet_whose_images_lie_beside_them(tmp_path):
    """As they do once the folder `images` has been taken out."""
    make(tmp_path, *(f"train/{c}/images/{c}_{i}.JPEG" for c in ("n01", "n02") for i in range(2)))
    make(tmp_path, "val/val_0.JPEG", "val/val_1.JPEG", "val/val_2.JPEG")
    lines = [f"val_{i}.JPEG\t{('n01', 'n02')[i % 2]}\t0\t0\t9\t9" for i in range(3)]
    write(tmp_path / "val" / "val_annotations.txt", *lines)
    train, test = open_splits(Data(path=str(tmp_path)))
    assert dict(train.per_class()) == {"n01": 2, "n02": 2} and dict(test.per_class()) == {"n01": 2, "n02": 1}
