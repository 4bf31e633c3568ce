"""Test which images a data set without splits holds out: an image stays on its side while others come and go."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from bigbigan.config import Config, Data
from bigbigan.data import hold_out_for_choices, open_images
from bigbigan.data.patients import patient_column
from bigbigan.release.load import load_model
from bigbigan.training.launch import split_rule
from eval_linear.probe import ProbeData, open_splits
from tests.conftest import picture, train


def folder_of(root, counts: dict[str, int], start: int = 0):
    """Write `counts[label]` pictures in each class folder, numbered from `start`."""
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(start, start + count):
            picture(i, (8, 8)).save(root / label / f"{i:04}.png")
    return root


def sides(path, **options) -> tuple[set, set]:
    """Return the names of the training and of the test images; a row of a table is named by its pixels."""

    def names(images):
        if Path(path).is_dir():
            return {Path(images.name(i)).relative_to(path) for i in range(len(images))}
        return {np.asarray(images[i]).tobytes() for i in range(len(images))}

    return tuple(names(open_images(str(path), test=test, **options)) for test in (False, True))


def encoded(seed: int) -> dict:
    file = io.BytesIO()
    picture(seed, (8, 8)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def table_of(path, seeds, labels=None):
    columns, features = {"image": [encoded(s) for s in seeds]}, {"image": ImageFeature()}
    if labels is not None:
        columns["label"], features["label"] = labels, ClassLabel(names=["ant", "bee", "cow"])
    Dataset.from_dict(columns, features=Features(features)).to_parquet(path)
    return path


def test_the_sides_of_images_stay_when_one_is_deleted_or_added(tmp_path):
    root = folder_of(tmp_path / "photos", {"ant": 200, "bee": 200})
    train_before, test_before = sides(root)
    (root / "ant" / "0000.png").unlink()
    picture(7).save(root / "ant" / "00000.jpg")
    folder_of(root, {"bee": 30}, start=300)
    train_after, test_after = sides(root)
    assert not train_before & test_after and not test_before & train_after
    assert not train_after & test_after


def test_a_moved_folder_keeps_its_sides(tmp_path):
    root = folder_of(tmp_path / "a" / "photos", {"ant": 60, "bee": 60})
    before = sides(root)
    moved = tmp_path / "elsewhere"
    shutil.move(root, moved)
    assert sides(moved) == before
    assert sides(f"{moved}/") == before


@pytest.mark.parametrize("order", ["reversed", "some deleted", "some added"])
def test_rows_of_a_table_keep_their_sides(tmp_path, order):
    seeds = list(range(300))
    before = sides(table_of(tmp_path / "a.parquet", seeds, [s % 3 for s in seeds]))
    changed = {"reversed": seeds[::-1], "some deleted": seeds[17:], "some added": [*range(900, 950), *seeds]}[order]
    after = sides(table_of(tmp_path / "b.parquet", changed, [s % 3 for s in changed]))
    assert not before[0] & after[1] and not before[1] & after[0]
    assert len(after[0]) + len(after[1]) == len(changed)


def test_a_table_without_labels_and_a_flat_folder(tmp_path):
    seeds = list(range(300))
    before, after = (sides(table_of(tmp_path / f"{s}.parquet", seeds[s:])) for s in (0, 1))
    assert not before[0] & after[1] and not before[1] & after[0]
    root = folder_of(tmp_path / "flat", {".": 300})
    before = sides(root)
    (root / "0011.png").unlink()
    after = sides(root)
    assert not before[0] & after[1] and not before[1] & after[0]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_share_is_kept_and_each_class_has_its_own(tmp_path, share):
    seeds = list(range(1500))
    path = table_of(tmp_path / "a.parquet", seeds, [s % 3 for s in seeds])
    test = open_images(str(path), test=True, test_share=share)
    counts = np.bincount(test.labels, minlength=3)
    assert (abs(counts - 500 * share) < 4 * np.sqrt(500 * share * (1 - share))).all()
    assert len(test) + len(open_images(str(path), test_share=share)) == 1500


def test_every_class_is_on_both_sides_where_it_can_be(tmp_path):
    root = folder_of(tmp_path / "photos", {"ant": 90, "bee": 2, "cow": 1, "dog": 5, "eel": 3})
    train_images, test_images = (open_images(str(root), test=t) for t in (False, True))
    assert train_images.class_names == test_images.class_names == ["ant", "bee", "cow", "dog", "eel"]
    assert set(train_images.labels) == {0, 1, 2, 3, 4} and set(test_images.labels) == {0, 1, 3, 4}
    for share in (0.01, 0.9, 0.99):
        train_images, test_images = (open_images(str(root), test=t, test_share=share) for t in (False, True))
        assert set(train_images.labels) == {0, 1, 2, 3, 4} and set(test_images.labels) == {0, 1, 3, 4}


def test_labels_from_a_table_beside_the_images_keep_the_division(tmp_path):
    root = folder_of(tmp_path / "photos", {"": 60})
    before = sides(root)[1]
    (root / "a.csv").write_text("file,kind\n" + "\n".join(f"{i:04}.png,{'xyz'[i % 3]}" for i in range(60)))
    labelled = sides(root, label_column="kind")[1]
    assert before <= labelled and len(labelled - before) <= 3  # a class without a test image holds one more out
    for i in range(60):
        (root / "xyz"[i % 3]).mkdir(exist_ok=True)
        (root / f"{i:04}.png").rename(root / "xyz"[i % 3] / f"{i:04}.png")
    assert {path.name for path in sides(root)[1]} != {path.name for path in before}  # as the documentation warns


def test_copies_of_an_image_lie_on_one_side_unless_they_are_a_heap(tmp_path):
    seeds = [*range(200), *range(200)]
    both = sides(table_of(tmp_path / "twice.parquet", seeds, [s % 3 for s in seeds]))
    assert not both[0] & both[1] and len(both[0]) + len(both[1]) == 200
    path = table_of(tmp_path / "heap.parquet", [0] * 900, [i % 3 for i in range(900)])
    assert 50 < len(open_images(str(path), test=True)) < 140


def test_the_smallest_data_sets_still_have_both_sides(tmp_path):
    for count in (2, 3, 5):
        root = folder_of(tmp_path / str(count), {".": count})
        assert all(sides(root)) and sum(map(len, sides(root))) == count


@pytest.mark.run
def test_a_run_of_an_older_version_keeps_its_split(tmp_path):
    """The setting data.split_rule is younger than such a run: its checkpoints and its release lack it."""
    root = folder_of(tmp_path / "photos", {"ant": 40, "bee": 40})
    order = np.random.default_rng(0).permutation(80)
    files = sorted(path.relative_to(root) for path in root.rglob("*.png"))
    expected = {files[i] for i in order[:8]}
    assert sides(root, split_rule="permutation")[1] == expected != sides(root)[1]
    flags = (f"--data.path={root}", "--run.name=old", "--run.probe=False")
    train(tmp_path, *flags, "--data.split_rule=permutation", "--run.images=48")
    checkpoints = tmp_path / "old" / "checkpoints"
    state = next(checkpoints.iterdir()) / "state.json"
    content = json.loads(state.read_text())
    del content["config"]["data.split_rule"], content["data"]
    state.write_text(json.dumps(content))
    card = json.loads((tmp_path / "old" / "release" / "config.json").read_text())
    del card["card"]["data"]["split_rule"]
    (tmp_path / "old" / "release" / "config.json").write_text(json.dumps(card))
    for probed in (tmp_path / "old", state.parent):
        test = open_splits(ProbeData(), load_model(probed)).test
        assert {Path(test.name(i)).relative_to(root) for i in range(len(test))} == expected
    for images in (96, 144):
        train(tmp_path, *flags, f"--run.images={images}")
        assert (
            json.loads((checkpoints / f"{images:012d}" / "state.json").read_text())["config"]["data.split_rule"]
            == "permutation"
        )
    test = open_splits(ProbeData(), load_model(tmp_path / "old")).test
    assert {Path(test.name(i)).relative_to(root) for i in range(len(test))} == expected
    assert "split_rule: permutation" in (tmp_path / "old" / "config.yaml").read_text()
    train(tmp_path, *flags, "--run.name=new", "--run.images=48")
    _, err = train(tmp_path, *flags, "--run.name=new", "--run.images=96", "--data.split_rule=permutation", code=2)
    assert "data.split_rule: patient → permutation" in err


def test_a_run_keeps_the_rule_that_it_began_with_unless_a_flag_says_otherwise():
    for saved in ("patient", "hash", "permutation"):
        assert split_rule(Config(), {"data.split_rule": saved}) == saved
        assert split_rule(Config(data=Data(split_rule="hash")), {"data.split_rule": saved}) == "hash"
    assert split_rule(Config(), {"data.path": "digits"}) == "permutation", "of a run from before the setting"
    assert split_rule(Config(), None) == "patient"


def test_pictures_of_one_colour_are_split_like_others(tmp_path):
    """Pixels of such a table are all equal within a class."""
    colours = {"ant": (255, 0, 0), "bee": (0, 255, 0)}
    cells, labels = [], []
    for k, colour in enumerate(colours.values()):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(file, "PNG")
        cells += [{"bytes": file.getvalue(), "path": None}] * 100
        labels += [k] * 100
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(colours))})
    Dataset.from_dict({"image": cells, "label": labels}, features=features).to_parquet(tmp_path / "a.parquet")
    assert 4 <= len(open_images(str(tmp_path / "a.parquet"), test=True)) <= 40


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("images/patient{:03}/{}.png", "such as images/patient00"),
        ("sub-{:02}_T1_{}.png", "such as sub-0"),
        ("train/Subject {}/{}.png", "such as train/Subject "),
        ("participant_{}/{}.png", "such as participant_"),
        ("submarine{}/{}.png", ""),
        ("IMG_{}_{}.png", ""),
    ],
)
def test_one_patient_on_both_sides_is_said_once(tmp_path, caplog, form, said):
    for patient in range(2):
        for i in range(20):
            path = tmp_path / form.format(patient, i)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(20 * patient + i, (8, 8)).save(path)
    for _ in range(2):
        sides(tmp_path)
    found = [record.getMessage() for record in caplog.records if "both trained on" in record.getMessage()]
    assert len(found) == bool(said) and all(said in text for text in found), caplog.text


def test_patients_who_are_the_classes_may_be_on_both_sides(tmp_path, caplog):
    folder_of(tmp_path, {"subject1": 20, "subject2": 20})
    assert open_images(str(tmp_path)).labels is None and "named by the numbers of patients" in caplog.text
    caplog.clear()
    assert open_images(str(tmp_path), split="all").class_names == ["subject1", "subject2"]
    assert "both trained on" not in caplog.text


def write_all(root, names):
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i, (4, 4)).save(path)
    return root


def patients_in(images, pattern: str) -> set[str]:
    return {re.search(pattern, path)[0] for path in images.paths()}


@pytest.mark.parametrize(
    ("form", "patient"),
    [
        ("images/patient{:03}/{}.png", r"patient\d+"),
        ("sub-{:02}_T1_{}.png", r"sub-\d+"),
        ("{1}/Subject {0}.png", r"Subject \d+"),  # each has images of four classes
        ("case_{:05}/slice_{}.png", r"case_\d+"),
        ("vol{}-{}.png", r"vol\d+"),
        ("Patient ({})/{}.png", r"Patient \(\d+"),
        ("TCGA-{0:02}-A{0:03}-01Z/tile {1}.png", r"TCGA-\d\d-A\d{3}"),
        ("LIDC-IDRI-{:04}/slice{}.png", r"LIDC-IDRI-\d+"),
        ("BraTS20_Training_{:03}/BraTS_flair{}.png", r"Training_\d+"),
    ],
)
def test_whole_patients_are_held_out_where_there_are_enough(tmp_path, caplog, form, patient):
    write_all(tmp_path, [form.format(i, k) for i in range(30) for k in range(4)])
    train_images, test_images = (open_images(str(tmp_path), test=t) for t in (False, True))
    assert not patients_in(train_images, patient) & patients_in(test_images, patient)
    assert len(train_images) + len(test_images) == 120 and 4 <= len(test_images) <= 40
    assert ", whole patients or scans such as " in test_images.source and "both trained on" not in caplog.text
    rest, chosen = hold_out_for_choices(train_images, 0.1)
    assert not patients_in(rest, patient) & patients_in(chosen, patient)
    assert len(rest) + len(chosen) == len(train_images) and 0 <= round(0.1 * len(train_images)) - len(chosen) < 4
    one_by_one = (open_images(str(tmp_path), test=t, split_rule="hash") for t in (False, True))
    assert set.intersection(*(patients_in(images, patient) for images in one_by_one)), "as asked for"
    rest, chosen = hold_out_for_choices(train_images, 0.1, "hash")
    assert patients_in(rest, patient) & patients_in(chosen, patient)


ROWS = [{"file_name": f"{i:03}.png", "Patient ID": 7 * (i % 40), "kind": "xy"[i // 9 % 2]} for i in range(120)]


def write_rows(root, kind: str) -> None:
    """Write the images of ROWS into `root`, in a table or beside one."""
    if kind == "table":
        names = ClassLabel(names=["x", "y"])
        features = Features({"image": ImageFeature(), "Patient ID": Value("int64"), "kind": names})
        rows = [{"image": encoded(i), **{k: row[k] for k in ("Patient ID", "kind")}} for i, row in enumerate(ROWS)]
        Dataset.from_list(rows, features=features).to_parquet(root / "a.parquet")
        return
    write_all(root, [row["file_name"] for row in ROWS])
    if kind == "metadata.jsonl":
        (root / kind).write_text("\n".join(map(json.dumps, ROWS)))
    elif kind == "metadata.parquet":
        Dataset.from_list(ROWS).to_parquet(root / kind)
    else:
        names = ROWS if kind == "metadata.csv" else [row | {"file_name": row["file_name"][:-4]} for row in ROWS]
        lines = [",".join(map(str, row.values())) for row in names]
        header = "file_name,Patient ID,kind" if kind == "metadata.csv" else "image_name,Patient ID,kind"
        (root / kind).write_text("\n".join([header, *lines]))


@pytest.mark.parametrize("kind", ["table", "metadata.csv", "metadata.jsonl", "metadata.parquet", "labels.csv"])
def test_a_column_of_patients_keeps_them_together_whatever_the_labels_are(tmp_path, kind, caplog):
    write_rows(tmp_path, kind)
    found = [open_images(str(tmp_path), test=test) for test in (False, True)]
    patients = [set(images.groups) for images in found]
    assert not patients[0] & patients[1] and patients[0] | patients[1] == {str(7 * i) for i in range(40)}
    assert len(found[0]) == 3 * len(patients[0]) and len(found[1]) == 3 * len(patients[1])
    assert "whole patients" in found[1].source and "both trained on" not in caplog.text
    assert not set.intersection(*(set(images.groups) for images in hold_out_for_choices(found[0], 0.1)))
    labelled = open_images(str(tmp_path), test=True, label_column="kind")
    assert set(labelled.labels) == {0, 1} and list(labelled.groups) == list(found[1].groups)


def test_images_without_a_patient_in_the_column_stand_alone(tmp_path):
    for name, none in (("words", "NA"), ("numbers", None), ("floats", float("nan"))):
        ids = [none if i % 2 else (str(i % 40) if name == "words" else i % 40) for i in range(240)]
        rows = {"image": [encoded(i) for i in range(240)], "patient_id": ids}
        kind = {"words": "string", "numbers": "int64", "floats": "float64"}[name]
        features = Features({"image": ImageFeature(), "patient_id": Value(kind)})
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{name}.parquet")
        found = [open_images(str(tmp_path / f"{name}.parquet"), test=test).groups for test in (False, True)]
        assert set(found[0]) & set(found[1]) == {""} and len(set(found[0]) | set(found[1])) == 21
        assert 3 <= sum(patient == "" for patient in found[1]) <= 25, "a tenth of the 120, one by one"


def test_the_columns_of_patients_are_known_by_their_names():
    for name in ("patient", "patient_id", "PatientID", "Patient ID", "patientId", "subject_id", "lesion_id", "Case No"):
        assert patient_column(["image", "label", name]) == name
    for name in ("subject", "case", "patient_age", "Patient Gender", "study", "slide_type", "id", "image_id", "label"):
        assert patient_column(["image", name]) == ""
    assert patient_column(["study_id", "subject_id", "PatientID"]) == "PatientID", "the largest unit"


def test_patients_who_are_the_labels_may_be_on_both_sides(tmp_path, caplog):
    rows = [{"image": encoded(i), "subject_id": i % 12} for i in range(120)]
    Dataset.from_list(rows, features=Features({"image": ImageFeature(), "subject_id": Value("int64")})).to_parquet(
        tmp_path / "faces.parquet"
    )
    found = [open_images(str(tmp_path), test=test, label_column="subject_id") for test in (False, True)]
    assert all(len(set(images.labels)) == 12 for images in found) and "both trained on" not in caplog.text


def test_both_eyes_are_on_one_side(tmp_path):
    write_all(tmp_path, [f"{(i + eye) % 3}/{i}_{('left', 'right')[eye]}.jpeg" for i in range(40) for eye in (0, 1)])
    found = [open_images(str(tmp_path), test=test) for test in (False, True)]
    assert not patients_in(found[0], r"\d+(?=_)") & patients_in(found[1], r"\d+(?=_)") and len(found[1]) % 2 == 0


def test_a_patient_stays_on_its_side(tmp_path):
    names = [f"patient{i:02}/{k}.png" for i in range(60) for k in range(2)]
    before = sides(write_all(tmp_path, names))
    shutil.rmtree(tmp_path / sorted(before[1])[0].parent)
    write_all(tmp_path, [f"patient{i:02}/new{k}.png" for i in range(40, 80) for k in range(3)])
    after = sides(tmp_path)
    assert not before[0] & after[1] and not before[1] & after[0]
    assert not {path.parent for path in after[0]} & {path.parent for path in after[1]}


@pytest.mark.parametrize("share", [0.03, 0.1, 0.5, 0.97])
def test_each_class_of_two_patients_is_on_both_sides(tmp_path, share):
    counts = {"ant": 30, "bee": 2, "cow": 1, "dog": 8}  # patients of each class alone, of three images
    of_class = [name for name, count in counts.items() for _ in range(count)]
    write_all(tmp_path, [f"{name}/patient{i}-{k}.png" for i, name in enumerate(of_class) for k in range(3)])
    found = [open_images(str(tmp_path), test=test, test_share=share) for test in (False, True)]
    assert not set.intersection(*(patients_in(images, r"patient\d+") for images in found))
    classes = [{images.class_names[k] for k in images.labels} for images in found]
    assert classes == [set(counts), set(counts) - {"cow"}]
    for small in (0.1, share):
        kept, chosen = hold_out_for_choices(found[0], small)
        assert {kept.class_names[k] for k in kept.labels} == classes[0] and len(chosen) >= 2


def test_where_each_class_is_one_patients_images_are_held_out_one_by_one(tmp_path, caplog):
    write_all(tmp_path, [f"kind {c}/patient{i}/{k}.png" for i, c in enumerate("abcdefghijkl") for k in range(5)])
    found = [open_images(str(tmp_path), test=test) for test in (False, True)]
    assert all(len(set(images.labels)) == 12 for images in found) and "images of 12 patients" in caplog.text
    assert len(hold_out_for_choices(found[0], 0.1)[1]) >= 2


def test_classes_and_images_with_numbers_are_no_patients(tmp_path):
    write_all(tmp_path / "classes", [f"Series {i}/{k}.png" for i in (1, 3, 5, 7) for k in range(20)])
    assert {name.parent.name for name in sides(tmp_path / "classes")[1]} == {f"Series {i}" for i in (1, 3, 5, 7)}
    write_all(tmp_path / "scans", [f"scan{i:04}.png" for i in range(60)])
    test_images = open_images(str(tmp_path / "scans"), test=True)
    assert 1 <= len(test_images) <= 16 and "patients" not in test_images.source
    mixed = [f"patient{i}/{k}.png" for i in range(12) for k in range(3)] + [f"IMG_{k}.png" for k in range(100)]
    test = sides(write_all(tmp_path / "mixed", mixed))[1]
    alone = [path for path in test if path.name.startswith("IMG")]
    assert 2 <= len(alone) <= 22 and len(test - set(alone)) % 3 == 0, "an image without a patient stands alone"
