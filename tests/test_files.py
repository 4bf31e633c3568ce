"""Files are written whole or not at all."""

import os
from pathlib import Path

import pytest

import bigbigan
from bigbigan.config import Config
from bigbigan.errors import InputError, exit_with_a_sentence
from bigbigan.files import cache_folder, check_writable, expanded, write_text_whole, write_whole
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


def test_the_error_of_a_folder_that_is_not_there_names_the_file_and_not_the_temporary_one(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        write_text_whole(tmp_path / "none" / "page", "new")
    assert error.value.filename == str(tmp_path / "none" / "page")


def test_two_writers_of_one_file_do_not_share_their_temporary_one(page):
    def write(temporary):  # the other one, of a container whose process has the same number
        write_text_whole(page, "theirs")
        temporary.write_text("ours")

    write_whole(page, write)
    assert page.read_text() == "ours" and [p.name for p in page.parent.iterdir()] == ["page"]


def test_a_place_that_cannot_be_written_is_refused_before_the_work(page, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    for path in ("new", "folder/new", "a/b/new", "page"):
        check_writable(tmp_path / path, "--out")
    assert not (tmp_path / "a").exists()
    for path, found in {
        "folder": "a folder of this name",
        "page/new": "page, which is no folder",
        "page/a/new": "page, which is no folder",
    }.items():
        with pytest.raises(
            InputError, match=f"^--out .*{path}: expected a place to write it, found .*{found}; choose an"
        ):
            check_writable(tmp_path / path, "--out")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="folder, which cannot be written to; choose another one"):
        check_writable(tmp_path / "folder" / "new", "--out")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied", "a\nb"), "'a\\nb': Permission denied"),
        (OSError(18, "Invalid cross-device link", "a", None, "b"), "b: Invalid cross-device link"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("a bare one"), "a bare one"),
        (InputError("ours"), "ours"),
    ],
)
def test_an_error_of_the_file_system_ends_a_command_with_the_path_and_the_reason(capsys, error, sentence):
    with pytest.raises(SystemExit), exit_with_a_sentence():
        raise error
    assert capsys.readouterr().err == f"error: {sentence}\n"


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
