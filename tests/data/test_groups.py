"""--data.group_column: images with one value in a column are on one side, in every kind of data set."""

import io
import json
import shutil
import unicodedata
from unittest import mock

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from datasets import Image as ImageFeature

from bigbigan import extract
from bigbigan.config import Config, Data, ImagesGiven
from bigbigan.data import data_of_model, hold_out_for_choices, open_images
from bigbigan.data.label_tables import groups_in_tables
from bigbigan.data.sources import open_splits
from bigbigan.errors import ConfigError, DataError
from bigbigan.release.load import load_model
from eval_linear.probe import ProbeData
from eval_linear.probe import open_splits as probed_splits
from tests.conftest import picture, train
from tests.data.test_tars import pack

PLACES = ["lake", "field", "wood", "river", "hill"]
ROWS = [{"file_name": f"{i:02}.png", "place": PLACES[i % 5], "kind": "xy"[i // 5 % 2]} for i in range(60)]
KINDS = ["table", "tar", "metadata.csv", "metadata.jsonl", "metadata.parquet", "notes.csv", "folders.csv"]


def encoded(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed, (8, 8)).save(file, "PNG")
    return file.getvalue()


def write_csv(path, rows: list[dict]):
    path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))


def write(root, kind: str, rows=ROWS):
    """Write the images of `rows`, with their columns in a file of one kind, into `root`."""
    root.mkdir(exist_ok=True)
    if kind == "table":
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "file_name"}
        features = Features({"image": ImageFeature()} | {name: Value("string") for name in columns})
        images = [{"bytes": encoded(i), "path": None} for i in range(len(rows))]
        Dataset.from_dict({"image": images, **columns}, features=features).to_parquet(root / "a.parquet")
        return root
    if kind == "tar":
        members = {}
        for i, row in enumerate(rows):
            fields = {name: value for name, value in row.items() if name != "file_name"}
            members |= {f"{i}.png": encoded(i), f"{i}.json": json.dumps(fields).encode()}
        pack(root / "a.tar", members)
        return root
    for i, row in enumerate(rows):
        path = root / (f"{'xy'[i // 30]}/animal {i // 6}" if kind == "folders.csv" else "") / row["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(i))
    if kind == "metadata.jsonl":
        (root / kind).write_text("\n".join(map(json.dumps, rows)))
    elif kind == "metadata.parquet":
        Dataset.from_list(rows).to_parquet(root / kind)
    elif kind == "folders.csv":  # rows name the folders, not the images
        write_csv(root / kind, [{"animal": f"animal {i}", "place": PLACES[i % 5]} for i in range(len(rows) // 6)])
    else:
        write_csv(root / kind, [{"image": row["file_name"], **row} if kind == "notes.csv" else row for row in rows])
    return root


def seen(images) -> set[int]:
    """Return the numbers of the pictures."""
    known = {np.asarray(picture(i, (8, 8))).tobytes(): i for i in range(60)}
    return {known[np.asarray(images[i].convert("RGB")).tobytes()] for i in range(len(images))}


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_one_place_are_on_one_side(tmp_path, kind):
    write(tmp_path, kind)
    found = [open_images(str(tmp_path), test=test, group_column="place") for test in (False, True)]
    place = (lambda i: PLACES[i // 6 % 5]) if kind == "folders.csv" else (lambda i: PLACES[i % 5])
    sides = [seen(images) for images in found]
    assert sides[0] | sides[1] == set(range(60)) and not sides[0] & sides[1]
    held_out = {place(i) for i in sides[1]}
    assert held_out and not held_out & {place(i) for i in sides[0]}, "fewer groups than ten: one is held out still"
    assert f"whole groups of column 'place' such as {min(held_out)}" in found[1].source


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_is_not_there_is_one_error(tmp_path, kind):
    write(tmp_path, kind)
    with pytest.raises(DataError, match=r"expected the column 'plac' of --data.group_column, found .*mean place\?"):
        open_images(str(tmp_path), group_column="plac")


@pytest.mark.parametrize("kind", ["table", "notes.csv"])
def test_one_group_in_two_spellings_is_one_group(tmp_path, kind):
    spelled = ["{}", "{}.0", " {} "] if kind == "notes.csv" else ["{}", "{} ", " {}"]
    rows = [row | {"place": spelled[i // 6 % 3].format(i % 6)} for i, row in enumerate(ROWS)]
    accents = [
        row | {"place": unicodedata.normalize(("NFC", "NFD")[i // 6 % 2], f"é{i % 6}")} for i, row in enumerate(ROWS)
    ]
    for name, written in (("numbers", rows), ("accents", accents)):
        write(tmp_path / name, kind, written)
        sides = [seen(images) for images in open_splits(Data(path=str(tmp_path / name), group_column="place"))]
        assert sides[1] and not {i % 6 for i in sides[0]} & {i % 6 for i in sides[1]}


def test_a_column_in_another_case_and_a_table_without_a_header_are_told(tmp_path):
    write(tmp_path, "notes.csv")
    with pytest.raises(DataError, match=r"expected the column 'PLACE'.*did you mean place\?"):
        open_images(str(tmp_path), group_column="PLACE")
    (tmp_path / "notes.csv").write_text("\n".join(f"{row['file_name']} {row['place']}" for row in ROWS))
    (tmp_path / "notes.csv").rename(tmp_path / "places.txt")
    with pytest.raises(DataError, match="found 00.png, lake; the first line of a table must name its columns"):
        open_images(str(tmp_path), group_column="place")


def test_a_column_without_values_is_one_error(tmp_path):
    for kind in ("notes.csv", "table"):
        write(tmp_path / kind, kind, [row | {"place": "NA"} for row in ROWS])
        with pytest.raises(DataError, match="expected (values|several groups) in the column 'place'.*found none"):
            open_images(str(tmp_path / kind), group_column="place")


def test_a_table_of_some_patients_leaves_the_others_to_the_paths(tmp_path):
    for i in range(60):
        path = tmp_path / f"patient{i // 3:02}" / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(i))
    by_folder = [{"patient": f"patient{k:02}", "age": 30 + k} for k in range(8)]
    by_image = [
        {"image": f"{i:02}.png", "patient_id": f"p{i // 3}"} for i in range(24) if i % 3
    ]  # not all of a patient
    for rows in (by_folder, by_image):
        write_csv(tmp_path / "people.csv", rows)
        found = open_splits(Data(path=str(tmp_path)))
        sides = [{i // 3 for i in seen(images)} for images in found]
        assert sides[0] | sides[1] == set(range(20)) and not sides[0] & sides[1]


@pytest.mark.parametrize(
    "name", ["animal {}", "films/animal {}", "x\\animal {}", "/data/y/animal {}/", "animal {}.MP4"]
)
def test_rows_may_name_folders_by_paths_or_films(tmp_path, name):
    write(tmp_path, "folders.csv")
    kinds = ["all of y" if "y" in name else "x", "y"]
    rows = [{"kind": kinds[i // 5], "film": name.format(i), "place": PLACES[i % 5]} for i in range(10)]
    write_csv(tmp_path / "folders.csv", rows)
    sides = [seen(images) for images in open_splits(Data(path=str(tmp_path), group_column="place"))]
    assert sides[1] and not {i // 6 % 5 for i in sides[0]} & {i // 6 % 5 for i in sides[1]}


def test_a_table_names_the_images_beside_it_before_those_below(tmp_path):
    write(tmp_path, "metadata.csv", ROWS[:30])
    write(tmp_path / "more", "table", ROWS[:1])
    (tmp_path / "more" / "a.parquet").unlink()
    for i in range(30):
        (tmp_path / "more" / f"{i:02}.png").write_bytes(encoded(30 + i))
    rows = [*ROWS[:30], *({**row, "file_name": f"more/{row['file_name']}"} for row in ROWS[:30])]
    for kind in ("metadata.csv", "metadata.jsonl"):
        content = "\n".join(map(json.dumps, rows))
        (tmp_path / "metadata.jsonl").write_text(content) if kind.endswith("l") else write_csv(tmp_path / kind, rows)
        found = open_splits(Data(path=str(tmp_path), group_column="place"))
        assert set(found[0].groups) | set(found[1].groups) == set(PLACES), "each image has its group"
        (tmp_path / kind).unlink()


def test_names_of_several_images_each_are_one_error(tmp_path):
    write(tmp_path / "a", "metadata.csv", ROWS[:9])
    (tmp_path / "a" / "metadata.csv").rename(tmp_path / "notes.csv")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(DataError, match="expected names of one image each in column 'file_name', found '00.png'"):
        open_images(str(tmp_path), group_column="place")


def test_another_file_that_cannot_be_read_is_passed_over(tmp_path):
    write(tmp_path, "notes.csv")
    (tmp_path / "a.csv").write_bytes("name;größe\n".encode("latin1"))
    assert set(open_images(str(tmp_path), group_column="place").groups) < set(PLACES)
    (tmp_path / "notes.csv").unlink()
    with pytest.raises(DataError, match="a.csv: expected a .csv file in UTF-8"):
        open_images(str(tmp_path), group_column="place")


@pytest.mark.parametrize("path", ["digits", "photos"])
def test_images_without_columns_are_one_error(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(20):
        picture(i, (8, 8)).save(tmp_path / "photos" / f"{i}.png")
    with pytest.raises(DataError, match="expected the column 'place' of --data.group_column, found no .* the images"):
        open_splits(Data(path=path, group_column="place"))


def test_a_table_that_names_no_image_is_one_error(tmp_path):
    write(tmp_path, "notes.csv")
    write_csv(tmp_path / "notes.csv", [{"name": f"other {i}", "place": "lake"} for i in range(9)])
    with pytest.raises(DataError, match="expected a column that names images, or a row for each of their folders"):
        open_images(str(tmp_path), group_column="place")


def test_two_values_for_one_image_are_one_error(tmp_path):
    write(tmp_path, "notes.csv")
    write_csv(tmp_path / "notes.csv", [{"name": row["file_name"], "place": "lake"} for row in ROWS])
    write_csv(tmp_path / "more.csv", [{"name": row["file_name"], "place": "hill"} for row in ROWS])
    with pytest.raises(DataError, match="expected one value for each image in the column 'place'.*'hill'.*'lake'"):
        open_images(str(tmp_path), group_column="place")


@pytest.mark.parametrize("kind", ["table", "notes.csv"])
def test_groups_that_cannot_be_held_out_are_one_error(tmp_path, kind):
    write(tmp_path / "one", kind, [row | {"place": "lake"} for row in ROWS])
    with pytest.raises(DataError, match="expected several groups in the column 'place'.*found one group alone"):
        open_images(str(tmp_path / "one"), group_column="place")
    write(tmp_path / "classes", kind)
    with pytest.raises(DataError, match="one group in each class, so that none can be held out"):
        open_images(str(tmp_path / "classes"), group_column="kind", label_column="kind")


def test_of_two_places_the_smaller_is_held_out(tmp_path):
    out = []
    for k in range(12):
        rows = [row | {"place": f"{'small' if i % 10 == k % 10 else 'large'} {k}"} for i, row in enumerate(ROWS)]
        out.append(len(open_images(str(write(tmp_path / str(k), "table", rows)), test=True, group_column="place")))
    assert set(out) <= {6, 54} and out.count(6) >= 9, "but for a hash in the tenth that is held out"


def test_images_without_a_value_stand_alone(tmp_path):
    rows = [row | {"place": row["place"] if i % 2 else "NA"} for i, row in enumerate(ROWS)]
    found = [open_images(str(write(tmp_path, "table", rows)), test=test, group_column="place") for test in (0, 1)]
    assert set(found[0].groups) & set(found[1].groups) <= {""} and set(found[0].groups) > {""}


def test_a_column_asked_for_goes_before_that_of_patients(tmp_path):
    rows = [row | {"patient_id": f"p{i % 20}"} for i, row in enumerate(ROWS)]
    write(tmp_path, "metadata.csv", rows)
    by_patient, by_place = (open_images(str(tmp_path), test=True, group_column=name) for name in ("", "place"))
    assert "patients" in by_patient.source and "'place'" in by_place.source
    assert set(by_place.groups) <= set(PLACES) and set(by_patient.groups) <= {f"p{i}" for i in range(20)}


def test_patients_named_by_fields_of_tars_and_by_tables_of_folders_are_known(tmp_path, caplog):
    pack(tmp_path / "t" / "a.tar", {
        f"{i}.{kind}": content for i in range(60)
        for kind, content in (("png", encoded(i)), ("json", json.dumps({"patient_id": i % 20}).encode()))
    })  # fmt: skip
    for i in range(60):
        path = tmp_path / "f" / f"{i // 3:x}a{i // 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(i))
    write_csv(tmp_path / "f" / "people.csv", [{"patient": f"{k:x}a{k}", "age": 30 + k} for k in range(20)])
    for path, patient in ((tmp_path / "t", lambda i: i % 20), (tmp_path / "f", lambda i: i // 3)):
        found = open_splits(Data(path=str(path)))
        sides = [{patient(i) for i in seen(images)} for images in found]
        assert sides[0] | sides[1] == set(range(20)) and not sides[0] & sides[1]
        assert "whole patients" in found[1].source and found[0].labels is None
    assert "no labels, since the 20 folders, such as 0a0, are the patients or groups of a table" in caplog.text
    assert len(open_images(str(tmp_path / "f"), split="all").class_names) == 20, "as the line says"


def test_a_table_of_patients_that_names_classes_says_nothing_of_images(tmp_path):
    for i in range(60):
        path = tmp_path / ("benign", "malign")[i % 2] / f"patient{i // 3}_{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(i))
    write_csv(tmp_path / "people.csv", [{"patient": f"q{k}", "kind": ("benign", "malign")[k % 2]} for k in range(20)])
    found = open_splits(Data(path=str(tmp_path)))
    sides = [{i // 3 for i in seen(images)} for images in found]
    assert not sides[0] & sides[1] and "whole patients" in found[1].source, "by their paths"
    with pytest.raises(DataError, match="a row for each of their folders, beside the column 'patient'.*found neither"):
        open_splits(Data(path=str(tmp_path), group_column="patient"))


def test_choices_are_made_on_whole_groups_where_there_are_enough(tmp_path, caplog):
    write(tmp_path / "few", "table")
    train_images = open_images(str(tmp_path / "few"), group_column="place")
    rest, chosen = hold_out_for_choices(train_images, 0.1)
    assert set(rest.groups) & set(chosen.groups) and "'place' has too few small groups" in caplog.text
    caplog.clear()
    write(tmp_path / "many", "table", [row | {"place": f"place {i % 30}"} for i, row in enumerate(ROWS)])
    train_images = open_images(str(tmp_path / "many"), group_column="place")
    rest, chosen = hold_out_for_choices(train_images, 0.1)
    assert not set(rest.groups) & set(chosen.groups) and not caplog.text


def test_groups_in_both_of_two_given_splits_are_said(tmp_path, caplog):
    for name, part in (("train", range(50)), ("test", range(50, 60))):
        columns = {"image": [{"bytes": encoded(i), "path": None} for i in part], "place": [PLACES[i % 5] for i in part]}
        features = Features({"image": ImageFeature(), "place": Value("string")})
        Dataset.from_dict(columns, features=features).to_parquet(tmp_path / f"{name}.parquet")
    open_splits(Data(path=str(tmp_path)))
    assert not caplog.text
    train_images, test_images = open_splits(Data(path=str(tmp_path), group_column="place"))
    assert (len(train_images), len(test_images)) == (50, 10)
    assert "the splits have 5 groups of column 'place' in common, such as field" in caplog.text


def test_what_a_column_does_not_do_is_said(tmp_path, caplog):
    some = [row | {"place": row["place"] if i < 50 else ""} for i, row in enumerate(ROWS)]
    open_splits(Data(path=str(write(tmp_path / "some", "notes.csv", some)), group_column="place"))
    assert "column 'place' has no value for 10 of 60 images, each of which stands alone" in caplog.text
    open_splits(Data(path=str(write(tmp_path / "all", "notes.csv")), group_column="file_name"))
    assert "column 'file_name' has another value for each image, so it keeps none together" in caplog.text
    assert caplog.text.count("has no value") == 1 and "asks for" not in caplog.text
    two = [row | {"place": "lake" if i < 30 else "hill"} for i, row in enumerate(ROWS)]
    open_splits(Data(path=str(write(tmp_path / "two", "notes.csv", two)), group_column="place"))
    assert "'place' that are held out have 30 of 60 images, where --data.test_share 0.1 asks for 6" in caplog.text


@pytest.mark.parametrize("kind", ["table", "tar", "metadata.csv"])
def test_a_test_split_without_the_column_is_taken_and_said(tmp_path, kind, caplog):
    """The column still holds whole groups out for choices; a training split without it is an error."""
    others = [{name: value for name, value in row.items() if name != "place"} for row in ROWS]
    for name, rows in (("train", ROWS[:40]), ("test", others[:20])):
        write(tmp_path / name, kind, rows)
    train_images, test_images = open_splits(Data(path=str(tmp_path), group_column="place"))
    assert len(train_images) == 40 and set(train_images.groups) == set(PLACES) and len(test_images) == 20
    assert "column 'place' has no value for 20 of 20 images" in caplog.text
    if kind != "metadata.csv":
        with pytest.raises(DataError, match="expected the column 'place' of --data.group_column"):
            open_splits(Data(path=str(tmp_path), group_column="place", split="test", test_split="train"))


@pytest.mark.parametrize("kind", ["table", "tar", "metadata.csv"])
def test_a_column_of_groups_gives_labels_only_where_it_is_asked_for(tmp_path, kind):
    rows = [{"file_name": row["file_name"], "species": row["place"]} for row in ROWS]
    write(tmp_path, kind, rows)
    assert open_images(str(tmp_path)).class_names == sorted(PLACES)
    found = open_splits(Data(path=str(tmp_path), group_column="species"))
    assert found[0].labels is None and not set(found[0].groups) & set(found[1].groups)
    with pytest.raises(DataError, match="one group in each class"):
        open_splits(Data(path=str(tmp_path), group_column="species", label_column="species"))


def test_columns_of_pictures_or_lists_are_one_error_and_classes_have_their_names(tmp_path):
    columns = {
        "image": [{"bytes": encoded(i), "path": None} for i in range(60)],
        "crop": [{"bytes": encoded(i % 5), "path": None} for i in range(60)],
        "tags": [[i % 5] for i in range(60)],
        "place": [i % 6 - 1 for i in range(60)],
    }
    kinds = {"crop": ImageFeature(), "tags": Sequence(Value("int64")), "place": ClassLabel(names=PLACES)}
    features = Features({"image": ImageFeature(), **kinds})
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "a.parquet")
    for name in ("crop", "tags"):
        with pytest.raises(DataError, match=f"expected words, numbers or dates in column '{name}'"):
            open_images(str(tmp_path), image_column="image", group_column=name)
    found = open_splits(Data(path=str(tmp_path), image_column="image", group_column="place"))
    assert set(found[0].groups) | set(found[1].groups) == {*PLACES, ""}, "-1 marks no class"


def test_a_group_of_most_images_is_trained_on_in_choices(tmp_path):
    images = open_images(str(write(tmp_path, "notes.csv")), group_column="place", test_share=0)
    for salt in range(40):  # whatever the hashes are
        images.groups = np.array([f"most {salt}" if i < 40 else f"{salt} {i}" for i in range(60)], object)
        rest, chosen = hold_out_for_choices(images, 0.1)
        assert f"most {salt}" not in chosen.groups and 2 <= len(chosen) <= 6
        assert not set(rest.groups) & set(chosen.groups)


def test_a_column_beside_another_rule_is_said(tmp_path, caplog):
    write(tmp_path, "notes.csv")
    for rule in ("hash", "permutation"):
        found = open_splits(Data(path=str(tmp_path), group_column="place", split_rule=rule))
        assert "'place' has no part in which images are held out" in caplog.text and f"rule {rule}" in caplog.text
        plain = open_splits(Data(path=str(tmp_path), split_rule=rule))
        assert [seen(images) for images in found] == [seen(images) for images in plain]
    assert "are both trained on" not in caplog.text and "in common" not in caplog.text


def test_tables_are_read_once_for_both_splits(tmp_path):
    for name in ("train", "test"):
        write(tmp_path / name, "notes.csv")
    with mock.patch("bigbigan.data.folders.groups_in_tables", wraps=groups_in_tables) as read:
        open_splits(Data(path=str(tmp_path), group_column="place"))
    assert read.call_count == 1


def test_another_rule_is_refused():
    config = Config(data=Data(group_column="place", split_rule="hash"))
    with pytest.raises(ConfigError, match="--data.group_column place: expected --data.split_rule patient.*found hash"):
        config.validate()


def test_a_model_says_that_other_images_need_the_column_again(caplog):
    card = {"data": {"path": "photos", "group_column": "place", "split_rule": "patient"}}
    assert data_of_model(ImagesGiven(), card).group_column == "place" and not caplog.text
    assert data_of_model(ImagesGiven(path="moved", group_column="place"), card).group_column == "place"
    assert not caplog.text
    assert data_of_model(ImagesGiven(path="moved"), card).group_column == ""
    assert "moved: the model's images were held out by groups of column 'place'" in caplog.text
    caplog.clear()
    assert data_of_model(ImagesGiven(path="other"), card, others=True).group_column == "" and not caplog.text


def test_features_are_extracted_without_groups(tmp_path, caplog):
    """All images are taken, so that nothing is held out, and no table need be read for it."""
    write(tmp_path, "metadata.csv")
    card = {"data": {"path": str(tmp_path), "group_column": "place", "split_rule": "patient"}}
    with mock.patch("bigbigan.data.folders.groups_in_tables", return_value={}) as read:
        assert len(extract.open_data(extract.ExtractData(), card)[0]) == 60
        assert (
            len(extract.open_data(extract.ExtractData(path=str(write(tmp_path / "b", "metadata.csv"))), card)[0]) == 60
        )
    assert all(not call.args[3] for call in read.call_args_list) and not caplog.text
    with pytest.raises(extract.FeatureError, match="--data.group_column: expected none, since no image is held out"):
        extract.open_data(extract.ExtractData(group_column="place"), card)


@pytest.mark.run
def test_the_probe_of_a_run_divides_the_images_as_the_run_did(tmp_path):
    write(tmp_path / "photos", "metadata.csv")
    flags = (f"--data.path={tmp_path / 'photos'}", "--data.group_column=place", "--run.images=48")
    out, _ = train(tmp_path, "--run.name=grouped", "--run.probe=False", *flags)
    assert "whole groups of column 'place'" in out
    model = load_model(tmp_path / "grouped")
    splits = probed_splits(ProbeData(), model)
    held_out = {PLACES[i % 5] for i in seen(splits.test)}
    assert held_out and not held_out & {PLACES[i % 5] for i in seen(splits.train)}
