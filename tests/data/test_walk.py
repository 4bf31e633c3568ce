"""List folders: once for both splits, and with the same result for plain files as for all others."""

import os

from bigbigan.config import Data
from bigbigan.data import open_splits
from bigbigan.data.walk import walk
from bigbigan.files import path_within, paths_within
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
