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
        (
            ("dx", "lesion"),
            [("nv", "HAM_0"), ("mel", "HAM_1")],
            "names of the images, such as '.*ISIC_000.jpg', with or .* found none; its columns begin 'dx': 'nv', "
            "'lesion': 'HAM_0'",
        ),
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


def test_several_columns_are_one_label_by_the_one_that_holds_1(ham):
    rows = [(name, *(float(kind == other) for other in KINDS)) for name, kind in LABELS.items()]
    write(ham / "GroundTruth.csv", ("image", *KINDS), rows)
    assert found(ham, ",".join(KINDS)) == LABELS
    assert open_images(str(ham), label_column="nv", test_share=0).class_names == ["0", "1"]


def test_several_columns_of_metadata_too(tmp_path):
    for i in range(4):
        picture(i, (4, 4)).save(tmp_path / f"{i}.png")
    write(tmp_path / "metadata.csv", ("file_name", "a", "b"), [(f"{i}.png", i % 2, 1 - i % 2) for i in range(4)])
    images = open_images(str(tmp_path), label_column="b, a", test_share=0)
    assert [images.class_names[k] for k in images.labels] == ["b", "a", "b", "a"]


@pytest.mark.parametrize("cells", [(1, 1), (2, 0), ("yes", "no"), (0.3, 0.7)])
def test_several_columns_that_hold_no_single_1_are_refused(ham, cells):
    write(ham / "a.csv", ("image", "nv", "mel"), [("ISIC_000", *cells)])
    with pytest.raises(DataError, match="a.csv, row 1: expected 1 in one of the columns .* nv,mel, and 0 in"):
        open_images(str(ham), label_column="nv,mel")


def test_text_tables_of_celeba_with_semicolons_and_named_metadata(ham, caplog):
    rows = list(LABELS.items())
    text = "\n".join([str(len(rows)), "dx Young ", *(f"{name}.jpg  {kind} -1" for name, kind in rows)])
    (ham / "list_attr.txt").write_text(text + "\n")
    assert found(ham) == LABELS and "the names of images from the first" in caplog.text
    (ham / "list_attr.txt").unlink()
    write(ham / "metadata.csv", ("age", "img_id", "dx"), [(30, name, kind) for name, kind in rows])
    assert found(ham) == LABELS
    (ham / "metadata.csv").unlink()
    write(ham / "european.csv", ("img_id", "dx"), rows, ";")
    assert found(ham) == LABELS


def test_a_table_that_names_images_without_labels_is_said_once(ham, caplog):
    write(ham / "HAM10000_metadata.csv", ("lesion", "image_id", "dx"), [(1, *row) for row in LABELS.items()])
    write(ham / "prices.csv", ("day", "price"), [(1, 2)])
    open_images(str(ham))
    open_images(str(ham), test=True)
    said = "no labels are read from HAM10000_metadata.csv, which names images; --data.label_column takes one of its"
    assert caplog.text.count(f"{said} columns: lesion, dx") == 1 and "prices" not in caplog.text


def test_whole_floats_in_one_table_and_words_in_another_are_classes(tmp_path):
    for i in range(6):
        picture(i, (4, 4)).save(tmp_path / f"{i}.png")
    write(tmp_path / "a.csv", ["file", "grade"], [[f"{i}.png", f"{i % 2}.0"] for i in range(3)])
    write(tmp_path / "b.csv", ["file", "grade"], [[f"{i}.png", ("1.0", "unknown")[i % 2]] for i in range(3, 6)])
    images = open_images(str(tmp_path), label_column="grade", test_share=0)
    assert dict(images.per_class()) == {"0": 2, "1": 2, "unknown": 2}


@pytest.mark.parametrize("encoding, name", [("utf-16", "UTF-16"), ("latin-1", "LATIN1"), ("utf-32", "UTF-32")])
def test_a_table_in_another_encoding_says_how_to_turn_it_to_utf_8(tmp_path, encoding, name):
    picture(0, (4, 4)).save(tmp_path / "0.png")
    (tmp_path / "a.csv").write_text("file,größe\n0.png,1\n", encoding=encoding)
    with pytest.raises(DataError, match=f"iconv -f {name} -t UTF-8"):
        open_images(str(tmp_path), label_column="größe")


def test_masks_have_no_labels(tmp_path):
    for i in range(8):
        for folder, suffix in (("images", "jpg"), ("annotations/trimaps", "png")):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            picture(i, (4, 4)).save(tmp_path / folder / f"cat_{i}.{suffix}")
    write(tmp_path / "annotations" / "list.txt", ("#Image", "SPECIES"), [(f"cat_{i}", i % 2) for i in range(8)], " ")
    assert found(tmp_path, "SPECIES") == {f"cat_{i}.jp": str(i % 2) for i in range(8)}  # as in Oxford Pets


def test_rows_may_be_taken_out_whatever_folder_their_images_lie_in(tmp_path, caplog):
    for i in range(6):  # as in CheXpert, a folder for each patient
        (tmp_path / f"train/patient{i}").mkdir(parents=True)
        picture(i, (4, 4)).save(tmp_path / f"train/patient{i}/view1.jpg")
    rows = [(f"train/patient{i}/view1.jpg", i % 2 if i < 4 else "") for i in range(6)]
    write(tmp_path / "train.csv", ("Path", "Edema"), rows)
    with pytest.raises(DataError, match="found 2 without; fill them in, or take these rows out"):
        open_images(str(tmp_path), label_column="Edema", test_share=0)
    write(tmp_path / "train.csv", ("Path", "Edema"), rows[:4])
    assert open_images(str(tmp_path), label_column="Edema", test_share=0).labels.tolist() == [0, 1, 0, 1]
    assert "left out: 2 images that no metadata file names" in caplog.text


@pytest.mark.parametrize(
    "table, cure", [("all.csv", "or put the table beside its images, or call it"), ("train.csv", "")]
)
def test_a_table_whose_names_all_mean_several_images_says_so(tmp_path, table, cure):
    folders = ("cars_train", "cars_test") if cure else ("train-jpg", "train-tif")
    for folder in folders:
        (tmp_path / folder).mkdir()
        for i in range(4):
            picture(i, (4, 4)).save(tmp_path / folder / f"{i:05}.{'tif' if folder.endswith('tif') else 'jpg'}")
    rows = [(i, i % 2, f"{i:05}{'.jpg' if cure else ''}") for i in range(4)]
    write(tmp_path / table, ("", "Class", "image"), rows)
    with pytest.raises(DataError, match="expected names of one image each in column 'image', found '00000") as error:
        open_images(str(tmp_path), "all", label_column="Class", test_share=0)
    assert cure in str(error.value) and ("as in train.csv" in str(error.value)) == bool(cure)


def test_a_table_of_the_classes_is_passed_over(ham, caplog):
    write(ham / "classes.csv", ("dx", "name"), [(kind, kind.upper()) for kind in KINDS])  # as in Open Images
    with pytest.raises(DataError, match="classes.csv: expected a column with names of the images"):
        found(ham)
    write(ham / "labels.csv", ("image", "dx"), LABELS.items())
    assert found(ham) == LABELS
    assert caplog.text.count("its columns begin 'dx': 'nv', 'name': 'NV'; no labels are read from it") == 1
