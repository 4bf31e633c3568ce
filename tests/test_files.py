"""Files are written whole or not at all."""

import os
from pathlib import Path

import pytest

import bigbigan
from bigbigan.config import Config
from bigbigan.files import cache_folder, expanded, write_text_whole, write_whole
from bigbigan.training.trainer import run_folder


@pytest.fixture
def page(tmp_path):
    (tmp_path / "page").write_text("old")
    return tmp_path / "page"


def test_write_whole_replaces_and_leaves_nothing_else(page):
    write_text_whole(page, "new ½\n")
    assert page.read_text(encoding="utf-8") == "new ½\n" and [p.name for p in page.parent.iterdir()] == ["page"]


@pytest.mark.parametrize("error", [OSError("disk full"), ZeroDivisionError(), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_content_and_removes_the_temporary_file(page, error):
    def write(temporary):
        temporary.write_text("ne")
        raise error

    with pytest.raises(type(error)):
        write_whole(page, write)
    assert page.read_text() == "old" and [p.name for p in page.parent.iterdir()] == ["page"]


def test_a_failed_rename_does_the_same(page, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("read-only")))
    with pytest.raises(OSError, match="read-only"):
        write_text_whole(page, "new")
    assert page.read_text() == "old" and [p.name for p in page.parent.iterdir()] == ["page"]


def test_a_writer_that_wrote_nothing_raises_its_own_error(page):
    with pytest.raises(ZeroDivisionError):
        write_whole(page, lambda _temporary: 1 / 0)


def test_the_old_content_stands_until_the_rename(page, monkeypatch):
    """A kill at any moment before the rename leaves the old content and a hidden file beside it."""
    seen, rename = [], os.replace

    def replace(source, target):
        seen.append((target.read_text(), source.name.startswith("."), source.parent == target.parent))
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write_text_whole(page, "new")
    assert seen == [("old", True, True)] and page.read_text() == "new"


def test_sync_reaches_the_disk_before_the_rename(page, monkeypatch):
    order, rename, sync = [], os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), rename(a, b)))
    write_text_whole(page, "new", sync=True)
    write_text_whole(page, "newer")
    assert order == ["fsync", "replace", "replace"]


def test_text_that_is_no_unicode_can_be_escaped(page):
    write_text_whole(page, "half a character: \ud83d", errors="backslashreplace")
    assert page.read_text() == "half a character: \\ud83d"


def test_a_tilde_is_the_home_folder_wherever_a_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BIGBIGAN_CACHE", raising=False)
    assert expanded("~/photos") == tmp_path / "photos" and str(expanded("a~b/~")) == "a~b/~"
    assert cache_folder() == tmp_path / ".cache" / "bigbigan"
    config = Config()
    config.run.root, config.run.name = "~/runs", "one"
    assert run_folder(config) == tmp_path / "runs" / "one"
    monkeypatch.setenv("BIGBIGAN_CACHE", "~/kept")
    assert cache_folder() == tmp_path / "kept"


def test_code_expands_a_tilde_in_one_way():
    """`expanded` leaves the name of an unknown user as it is, where Path.expanduser raises RuntimeError."""
    assert str(expanded("~nobody-of-this-name/x")) == "~nobody-of-this-name/x"
    root = Path(bigbigan.__file__).parent.parent
    files = [*root.glob("bigbigan/**/*.py"), *root.glob("eval_linear/**/*.py")]
    assert [path.name for path in files if "expanduser" in path.read_text()] == ["files.py"]
