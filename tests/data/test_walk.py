"""List folders: once for both splits, and with the same result for plain files as for all others."""

import os

import pytest

from bigbigan.config import Data
from bigbigan.data import open_splits
from bigbigan.data.walk import walk
from bigbigan.files import path_within, paths_within
from tests.conftest import picture
from tests.data.test_splits import folder_of


def test_a_folder_is_listed_once_for_both_splits(tmp_path, monkeypatch):
    for split in ("train", "test"):
        folder_of(tmp_path / split, {"ant": 4, "bee": 4})
    listed, scandir = [], os.scandir

    def counted(path):
        listed.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    train, test = open_splits(Data(path=str(tmp_path)))
    assert (len(train), len(test)) == (8, 8)
    assert len(listed) == len(set(listed)) == 7


def test_plain_files_and_others_are_in_one_order(tmp_path):
    names = ["a.jpg", "B.JPG", "c.Jpg", "d.png", "e", "f.png", "g.h.jpeg", ".i.jpg", "j.txt"]
    for name in names:
        (tmp_path / name).write_bytes(b"\xff\xd8\xff" + bytes(20))
    os.symlink(tmp_path / "a.jpg", tmp_path / "d0.png")
    found, census = walk(tmp_path)
    assert [os.path.basename(path) for path in found.files] == sorted([*names[:7], "d0.png"])
    assert (census.hidden, census.other) == (1, {".txt": 1})
    assert walk(tmp_path)[0] == found


def test_many_paths_are_named_as_one_is(tmp_path):
    paths = [f"{tmp_path}/a.png", f"{tmp_path}/é/ü.png", "/elsewhere/a.png", f"{tmp_path}x/a.png", f"{tmp_path}/\udcff"]
    for folder in (tmp_path, f"{tmp_path}/"):
        assert list(paths_within(folder, paths)) == [path_within(folder, path) for path in paths]


def link(path, target):
    """Make a relative link, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))


def files_of_both(folder, **options):
    """Return the real files of the training and of the test images, each a list, and the training images."""
    both = open_splits(Data(path=str(folder), **options))
    return [[os.path.realpath(folder / path) for path in images.paths()] for images in both], both[0]


@pytest.mark.parametrize("pool", ["files", "links"])
def test_an_image_that_a_link_names_too_counts_once(tmp_path, pool, caplog):
    for kind in ("cat", "dog"):
        for k in range(20):
            in_class, in_pool = tmp_path / kind / f"{k}.png", tmp_path / "pool" / f"{kind}_{k}.png"
            file, other = (in_pool, in_class) if pool == "files" else (in_class, in_pool)
            file.parent.mkdir(exist_ok=True)
            picture(k, (8, 8)).save(file)
            link(other, file)
    (train, test), images = files_of_both(tmp_path)
    assert len({*train, *test}) == len(train) + len(test) == 40
    assert images.class_names == ["cat", "dog"]
    assert caplog.text.count("left out: 40 images (second paths of the same files, by links)") == 1


def test_links_into_a_pool_are_splits_and_a_file_of_both_is_a_test_image(tmp_path, caplog):
    folder_of(tmp_path / "pool", {"": 40})
    files = sorted(path for path in (tmp_path / "pool").rglob("*.*") if path.is_file())
    for split, some in (("train", files[:30]), ("test", files[25:])):
        for k, path in enumerate(some):
            link(tmp_path / split / "ab"[k % 2] / path.name, path)
    (train, test), images = files_of_both(tmp_path)
    assert (len(train), len(test)) == (25, 15) and not set(train) & set(test)
    assert images.class_names == ["a", "b"] and "5 images" in caplog.text


def test_links_to_folders_are_counted_and_entered_as_the_warning_says(tmp_path, caplog):
    folder_of(tmp_path / "all", {f"p{k}": 4 for k in range(6)})
    for k in range(6):
        link(tmp_path / ("train" if k < 4 else "test") / f"p{k}", tmp_path / "all" / f"p{k}")
    open_splits(Data(path=str(tmp_path)))
    assert caplog.text.count("left out: 6 links to folders whose images are found elsewhere") == 1
    assert "--data.follow_links True enters such links" in caplog.text
    (train, test), _ = files_of_both(tmp_path, follow_links=True)
    assert (len(train), len(test)) == (16, 8) and not set(train) & set(test)
