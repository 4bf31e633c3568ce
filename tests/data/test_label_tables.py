"""--data.label_column reads the classes of image files from a table beside them, whatever its column of names is."""

import pytest

from bigbigan.data import open_images
from bigbigan.errors import DataError
from tests.conftest import picture

KINDS = ("nv", "mel", "bkl")
LABELS = {f"ISIC_{i:03}": KINDS[i % 3] for i in range(12)}


@pytest.fixture
def ham(tmp_path):
    """Twelve images in two folders, as HAM10000 has them."""
    for i, name in enumerate(LABELS):
        folder = tmp_path / f"HAM_part_{1 + i // 6}"
        folder.mkdir(exist_ok=True)
        picture(i, (4, 4)).save(folder / f"{name}.jpg")
    return tmp_path


def write(path, header, rows, between=","):
    path.write_text("\n".join(between.join(map(str, row)) for row in [header, *rows]) + "\n")


def found(folder, column="dx"):
    images = open_images(str(folder), label_column=column, test_share=0)
    return {
        name.rpartition("/")[2][:8]: images.class_names[k]
        for name, k in zip(images.paths(), images.labels, strict=True)
    }


NAMES = {
    "without suffix": lambda name, i: name,
    "with suffix": lambda name, i: f"{name}.jpg",
    "with folder": lambda name, i: f"HAM_part_{1 + i // 6}/{name}.jpg",
    "with a folder of another place": lambda name, i: f"/home/me/data/{name}.jpg",
    "of Windows": lambda name, i: f".\\HAM_part_{1 + i // 6}\\{name}.jpg",
}


@pytest.mark.parametrize("suffix, between", [("csv", ","), ("tsv", "\t"), ("CSV", ",")])
@pytest.mark.parametrize("named", NAMES)
def test_labels_of_a_table(ham, named, suffix, between, caplog):
    rows = [(f"lesion {i}", NAMES[named](name, i), kind, 40 + i) for i, (name, kind) in enumerate(LABELS.items())]
    write(ham / f"HAM10000_metadata.{suffix}", ("lesion", "image", "dx", "age"), rows, between)
    assert found(ham) == LABELS
    assert "labels are read from column 'dx', and the names of images from 'image'" in caplog.text


def test_numbers_are_classes_in_their_order_and_names(ham):
    write(ham / "train.csv", ("id_code", "diagnosis"), [(name, 12 - i % 6) for i, name in enumerate(LABELS)])
    images = open_images(str(ham), label_column="diagnosis", test_share=0)
    assert images.class_names == ["7", "8", "9", "10", "11", "12"]


def test_several_tables_and_images_that_none_names(ham, caplog):
    rows = list(LABELS.items())
    (ham / "labels").mkdir()
    write(ham / "labels" / "train.csv", ("image", "dx"), rows[:5])
    write(ham / "labels" / "val.csv", ("image", "dx"), [*rows[5:10], ("ISIC_999", "nv")])
    write(ham / "boxes.csv", ("image", "x"), [("ISIC_000", 1)])
    assert found(ham) == dict(rows[:10])
    assert "left out: 2 images that no metadata file names" in caplog.text


def test_a_split_that_no_table_names_has_no_labels(tmp_path):
    for i, name in enumerate(LABELS):
        folder = tmp_path / f"ISIC_{'Training' if i < 8 else 'Test'}_Input"
        folder.mkdir(exist_ok=True)
        picture(i, (4, 4)).save(folder / f"{name}.jpg")
    write(tmp_path / "ISIC_Training_GroundTruth.csv", ("image", "dx"), list(LABELS.items())[:8])
    train = open_images(str(tmp_path), "train", label_column="dx", other_split="test")
    test = open_images(str(tmp_path), "test", test=True, label_column="dx", other_split="train")
    assert dict(train.per_class()) == {"bkl": 2, "mel": 3, "nv": 3} and test.labels is None and len(test) == 4


@pytest.mark.parametrize(
    "header, rows, message",
    [
        (("image", "age"), [("ISIC_000", 3)], "with the column 'dx' of --data.label_column, found a.csv"),
        (("dx", "lesion"), [("nv", "HAM_0")], "a column with names of the images, .* its columns are 'dx', 'lesion'"),
        (("image", "dx"), [("ISIC_000", "nv"), ("ISIC_000", "mel")], "one label for each image .* 'nv' and 'mel'"),
    ],
)
def test_what_a_table_does_not_say_is_one_sentence(ham, header, rows, message):
    write(ham / "a.csv", header, rows)
    with pytest.raises(DataError, match=message):
        open_images(str(ham), label_column="dx")


def test_a_column_that_no_table_has_is_refused_and_not_ignored(ham):
    with pytest.raises(DataError, match="the column 'dx' of --data.label_column, found no such file"):
        open_images(str(ham), label_column="dx")


def test_no_table_is_read_unless_a_column_is_asked_for(ham):
    write(ham / "HAM10000_metadata.csv", ("image", "label"), list(LABELS.items()))
    assert open_images(str(ham)).labels is None
