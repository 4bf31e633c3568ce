"""Test that a data set that changed is another one, for the caches and for a run that resumes."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature

from bigbigan.data import Images, fingerprint, open_images
from bigbigan.data.images import Arrays
from bigbigan.data.tables import from_table
from eval_linear.features import extract
from tests.conftest import picture, tiny_model, train
from tests.data.test_splits import encoded, folder_of, table_of


def spared(count: int, kept: int = 32) -> list[int]:
    """Return the numbers of all images but `kept` of them, spread over the data set."""
    return sorted(set(range(count)) - set(np.linspace(0, count - 1, kept).astype(int).tolist()))


def test_files_that_changed_between_the_ones_looked_at(tmp_path):
    root = folder_of(tmp_path / "photos", {"ant": 450, "bee": 450})
    images = open_images(str(root), test_share=0)
    before = fingerprint(images)
    assert fingerprint(open_images(str(root), test_share=0)) == before
    for i in spared(900):
        picture(5000 + i, (8, 8)).save(images.name(i))
    assert fingerprint(open_images(str(root), test_share=0)) != before


@pytest.mark.parametrize("change", ["touched", "renamed", "another size", "class renamed", "deleted", "added"])
def test_one_file_is_enough(tmp_path, change):
    root = folder_of(tmp_path / "photos", {"ant": 40, "bee": 40})
    before, file = fingerprint(open_images(str(root), test_share=0)), root / "ant" / "0007.png"
    if change == "touched":
        os.utime(file, ns=(1, 1))
    elif change == "renamed":
        file.rename(file.with_name("0007a.png"))
    elif change == "another size":
        time_before = file.stat().st_mtime_ns
        file.write_bytes(file.read_bytes() + b"\0")
        os.utime(file, ns=(time_before, time_before))
    elif change == "class renamed":
        (root / "ant").rename(root / "ape")
    elif change == "deleted":
        file.unlink()
    else:
        picture(99).save(root / "ant" / "new.png")
    assert fingerprint(open_images(str(root), test_share=0)) != before


def test_a_copy_elsewhere_is_the_same_data_set(tmp_path):
    root = folder_of(tmp_path / "photos", {"ant": 40, "bee": 40})
    shutil.copytree(root, tmp_path / "copy")
    assert len({fingerprint(open_images(str(p), test=True)) for p in (root, tmp_path / "copy")}) == 1


def test_tables_saved_data_sets_and_arrays(tmp_path):
    seeds = list(range(300))
    path = table_of(tmp_path / "a.parquet", seeds, [s % 3 for s in seeds])
    found = {fingerprint(open_images(str(path), test=test)) for test in (False, True)}
    changed = [s if s not in spared(300) else s + 1000 for s in seeds]
    table_of(path, changed, [s % 3 for s in seeds])
    found |= {fingerprint(open_images(str(path), test=test)) for test in (False, True)}
    assert len(found) == 4
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    for rows in (seeds, changed):
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        content = {"image": [encoded(s) for s in rows], "label": [s % 2 for s in seeds]}
        Dataset.from_dict(content, features=features).save_to_disk(str(tmp_path / "saved"))
        found.add(fingerprint(open_images(str(tmp_path / "saved"))))
    pixels = np.random.default_rng(0).integers(0, 256, (500, 8, 8, 3), dtype=np.uint8)
    found.add(fingerprint(Images(Arrays(pixels), None, None, "", "")))
    pixels[101, 3, 3, 0] ^= 1
    found.add(fingerprint(Images(Arrays(pixels), None, None, "", "")))
    assert len(found) == 8


def test_rows_that_name_files(tmp_path):
    """The files that a table names count as its own do."""
    root = folder_of(tmp_path / "set", {".": 60})
    rows = {"image": [{"bytes": None, "path": f"{i:04}.png"} for i in range(60)]}
    features = Features(
        {"image": {"bytes": __import__("datasets").Value("binary"), "path": __import__("datasets").Value("string")}}
    )
    Dataset.from_dict(rows, features=features).to_parquet(root / "train.parquet")
    before = fingerprint(open_images(str(root), test_share=0))
    assert fingerprint(open_images(str(root), test_share=0)) == before
    picture(77, (8, 8)).save(root / "0012.png")
    assert fingerprint(open_images(str(root), test_share=0)) != before


def test_a_million_rows_are_cheap():
    rows = Dataset.from_dict({"image": [encoded(0)]}, features=Features({"image": ImageFeature()}))
    images = from_table(rows, "", files=[(b"train.parquet", "1 2")]).subset(np.zeros(1_000_000, np.int64))
    images.labels = np.zeros(1_000_000, np.int64)
    started = time.process_time()
    fingerprint(images)
    assert time.process_time() - started < 3


def test_features_of_files_that_changed_are_extracted_anew(tmp_path):
    root = folder_of(tmp_path / "photos", {"ant": 60, "bee": 60})
    encoder = tiny_model().encoder.eval()
    images = open_images(str(root), test_share=0)
    first, _ = extract(encoder, images, 64, tmp_path / "cache")
    for i in spared(120):
        picture(5000 + i, (8, 8)).save(images.name(i))
    again, _ = extract(encoder, open_images(str(root), test_share=0), 64, tmp_path / "cache")
    rows = (first["avepool_feat"] != again["avepool_feat"]).any(1).sum()
    assert rows == len(spared(120))


def changed_folder(root, change: str) -> None:
    if change == "files":
        for name in ("0001", "0002", "0003"):
            picture(int(name) + 500, (8, 8)).save(root / "ant" / f"{name}.png")
        for name in ("0010", "0011"):
            (root / "bee" / f"{name}.png").unlink()
        folder_of(root, {"bee": 5}, start=500)
    elif change == "classes":
        (root / "ant").rename(root / "zebra")
    else:
        (root / "ant" / "0001.png").rename(root / "bee" / "x.png")


@pytest.mark.run
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("files", ["5 added", "2 removed", "3 changed"]),
        ("classes", ["classes", "ant", "zebra"]),
        ("label", ["1 added", "1 removed"]),
    ],
)
def test_a_run_says_how_its_data_changed(tmp_path, change, said, caplog):
    root = folder_of(tmp_path / "set" / "train", {"ant": 30, "bee": 30})
    folder_of(tmp_path / "set" / "test", {"ant": 5, "bee": 5, "zebra": 5})
    flags = (f"--data.path={tmp_path / 'set'}", "--run.name=r", "--run.probe=False")
    train(tmp_path, *flags, "--run.images=48")
    train(tmp_path, *flags, "--run.images=72")  # as it was
    changed_folder(root, change)
    _, err = train(tmp_path, *flags, "--run.images=96", code=2)
    for text in (*said, "its data differ", "--run.accept_changes True"):
        assert text in err, err
    caplog.clear()
    train(tmp_path, *flags, "--run.images=96", "--run.accept_changes=True")
    assert all(text in caplog.text for text in said)
    caplog.clear()
    out, _ = train(tmp_path, *flags, "--run.images=120")  # the new data are the run's now
    assert "at 96 images" in out and "differ" not in caplog.text


@pytest.mark.run
def test_a_table_that_was_written_anew(tmp_path):
    path = tmp_path / "a.parquet"
    table_of(path, range(90), [s % 3 for s in range(90)])
    flags = (f"--data.path={path}", "--run.name=r", "--run.probe=False")
    train(tmp_path, *flags, "--run.images=48")
    table_of(path, range(100), [s % 3 for s in range(100)])
    _, err = train(tmp_path, *flags, "--run.images=72", code=2)
    assert "1 changed" in err and "--run.accept_changes True" in err


def same_data(tmp_path, kind: str):
    """Write 90 images as a folder, a table or a tar, and return the flags for them and their files."""
    if kind == "table":
        path = table_of(tmp_path / "a.parquet", range(90), [s % 3 for s in range(90)])
        return [f"--data.path={path}"], [path]
    root = folder_of(tmp_path / "photos", {"ant": 45, "bee": 45})
    if kind == "folder":
        return [f"--data.path={root}"], sorted(root.rglob("*.png"))
    path = Path(shutil.make_archive(tmp_path / "b", "tar", root))
    return [f"--data.path={path}", "--data.split=all"], [path]


@pytest.mark.run
@pytest.mark.parametrize("kind", ["folder", "table", "tar"])
def test_a_copy_with_new_times_of_change_resumes_and_says_so(tmp_path, kind, caplog):
    flags, files = same_data(tmp_path, kind)
    flags += ["--run.name=r", "--run.probe=False"]
    train(tmp_path, *flags, "--run.images=48")
    for file in files:
        os.utime(file, ns=(1, 1))
    caplog.clear()
    out, _ = train(tmp_path, *flags, "--run.images=72")
    assert "at 48 images" in out and caplog.text.count("other times of change") == 1
    caplog.clear()
    train(tmp_path, *flags, "--run.images=96")
    assert "times of change" not in caplog.text


@pytest.mark.run
def test_pixels_that_changed_at_the_same_size_are_other_data(tmp_path):
    root = tmp_path / "photos"
    for i in range(60):
        (root / ["ant", "bee"][i % 2]).mkdir(parents=True, exist_ok=True)
        picture(i, (8, 8)).save(root / ["ant", "bee"][i % 2] / f"{i}.bmp")
    flags = (f"--data.path={root}", "--run.name=r", "--run.probe=False")
    train(tmp_path, *flags, "--run.images=48")
    for file in root.rglob("*.bmp"):
        picture(int(file.stem) + 500, (8, 8)).save(file)
    _, err = train(tmp_path, *flags, "--run.images=72", code=2)
    assert "its data differ" in err and err.count("changed (size or time)") == 2


@pytest.mark.run
def test_times_of_change_decide_where_a_checkpoint_has_only_them(tmp_path):
    """Checkpoints of an earlier version have no content."""
    flags, files = same_data(tmp_path, "table")
    flags += ["--run.name=r", "--run.probe=False"]
    train(tmp_path, *flags, "--run.images=48")
    state = next((tmp_path / "r" / "checkpoints").iterdir()) / "state.json"
    content = json.loads(state.read_text())
    del content["data"]["train"]["content"], content["data"]["test"]["content"]
    state.write_text(json.dumps(content))
    train(tmp_path, *flags, "--run.images=48")
    os.utime(files[0], ns=(1, 1))
    _, err = train(tmp_path, *flags, "--run.images=72", code=2)
    assert "1 changed" in err


@pytest.mark.run
def test_a_checkpoint_without_a_fingerprint_is_compared_with_nothing(tmp_path):
    root = folder_of(tmp_path / "photos", {"ant": 30, "bee": 30})
    flags = (f"--data.path={root}", "--run.name=r", "--run.probe=False")
    train(tmp_path, *flags, "--run.images=48")
    folder = next((tmp_path / "r" / "checkpoints").iterdir())
    content = json.loads((folder / "state.json").read_text())
    assert content["data"]["class_names"] == ["ant", "bee"]
    assert content["data"]["train"]["fingerprint"] == fingerprint(open_images(str(root)))
    (folder / "state.json").write_text(json.dumps({k: v for k, v in content.items() if k != "data"}))
    (root / "ant" / "0001.png").unlink()
    train(tmp_path, *flags, "--run.images=72")


@pytest.mark.run
@pytest.mark.parametrize(
    "damage",
    [
        3,
        {"train": 1},
        {"train": {"fingerprint": []}},
        {"train": {"fingerprint": "a", "images": 3, "content": 7}},
        {"class_names": 5, "train": {}},
    ],
)
def test_a_damaged_entry_is_one_sentence(tmp_path, damage):
    train(tmp_path, "--run.name=r", "--run.images=48", "--run.probe=False")
    state = next((tmp_path / "r" / "checkpoints").iterdir()) / "state.json"
    content = json.loads(state.read_text())
    state.write_text(json.dumps(content | {"data": damage}))
    _, err = train(tmp_path, "--run.name=r", "--run.images=72", "--run.probe=False", code=2)
    assert "state.json: data" in err and "Traceback" not in err


@pytest.mark.run
@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"train.names": 5}', '{"train.names": "AAAA", "train.states": "?"}']
)
def test_without_the_hashes_of_files_a_change_is_noticed_still(tmp_path, content):
    root = folder_of(tmp_path / "photos", {"ant": 30, "bee": 30})
    flags = (f"--data.path={root}", "--run.name=r", "--run.probe=False")
    train(tmp_path, *flags, "--run.images=48")
    (next((tmp_path / "r" / "checkpoints").iterdir()) / "data.json").write_text(content)
    if content == "{":
        train(tmp_path, *flags, "--run.images=48")  # the fingerprint is enough where nothing changed
    (root / "ant" / "0001.png").unlink()
    _, err = train(tmp_path, *flags, "--run.images=72", code=2)
    assert "its data differ" in err and "with other files, labels or classes" in err
