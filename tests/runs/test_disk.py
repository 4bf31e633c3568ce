"""A disk that is full or may not be written, data and folders that vanish: a sentence, and the newest checkpoint named
and sound.

tests/runs/test_kills.py has an error at every writing call; here the file system itself refuses.
"""

import os
import resource
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from bigbigan.training import checkpoint
from bigbigan.training.trainer import Trainer
from eval_linear import probe
from tests.conftest import picture, train
from tests.helpers.children import SMALLEST

pytestmark = pytest.mark.run

FLAGS = (*SMALLEST, "--run.name=run")
CACHED, DECODED = "--data.cache=auto", "--data.cache=none"


@contextmanager
def file_system(folder, size: str = "8m"):
    """A small file system of its own at `folder`."""
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting takes the superuser")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True)
    if made.returncode:
        pytest.skip("this machine does not let us mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def sound(run) -> list[int]:
    """Images seen of all checkpoints, each read against its checksums."""
    return [checkpoint.read(path)[0]["images_seen"] for path in checkpoint.complete(run / "checkpoints")]


def failed(root, *flags, code=1) -> str:
    _, err = train(root, *FLAGS, *flags, code=code)
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "Traceback" not in err, err
    return said[0]


def go_on(root, seen: int, *flags, end: int = 96) -> None:
    out, _ = train(root, *FLAGS, f"--run.images={end}", *flags)
    assert f"at {seen} images" in out and sound(root / "run")[-1] == end


@pytest.fixture
def at(monkeypatch):
    """Do something when a run has seen so many images and written its checkpoints; the last wish counts."""
    before = Trainer.log_means

    def do(images_seen: int, what) -> None:
        def log(self, values):
            before(self, values)
            if self.state.images_seen == images_seen:
                self.writer.wait()  # for a checkpoint that is written beside training
                what()

        monkeypatch.setattr(Trainer, "log_means", log)

    return do


def test_a_full_disk(tmp_path, at):
    root = tmp_path / "disk"
    with file_system(root):

        def fill():
            left = shutil.disk_usage(root).free
            (root / "filler").write_bytes(b"x" * (left - 100_000))

        at(72, fill)
        said = failed(root)
        assert "No space left on device" in said and said.endswith(f"goes on from {root}/run/checkpoints/{48:012d}"), (
            said
        )
        assert sound(root / "run") == [24, 48]
        (root / "filler").unlink()
        at(0, None)
        go_on(root, 48)


def test_a_limit_on_the_size_of_files(tmp_path, at):
    """The same without the superuser: the kernel refuses to let a file grow."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    at(48, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, most)))
    try:
        said = failed(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert "File too large" in said and said.endswith(f"goes on from {tmp_path}/run/checkpoints/{24:012d}"), said
    assert sound(tmp_path / "run") == [24]
    at(0, None)
    go_on(tmp_path, 24)


def test_a_disk_full_from_the_beginning(tmp_path):
    root = tmp_path / "disk"
    with file_system(root, size="64k"):
        said = failed(root)
        assert "No space left on device" in said and said.endswith("goes on from the beginning"), said
        assert sound(root / "run") == []


def test_a_probe_on_a_full_disk(tmp_path, capsys):
    root = tmp_path / "disk"
    with file_system(root):
        train(root, *FLAGS, "--run.images=24")
        (root / "run" / "probe.json").write_text('{"data": "of before"}')
        (root / "filler").write_bytes(b"x" * (shutil.disk_usage(root).free - 4096))
        with pytest.raises(SystemExit) as ended:
            probe.main([str(root / "run"), "--parts", "knn", "pairs", "--untrained", "0"])
        out, err = capsys.readouterr()
        assert ended.value.code == 1 and "Traceback" not in err
        assert err.splitlines()[-1].startswith("error: ") and "No space left on device" in err.splitlines()[-1]
        assert "k-NN" in out  # what was measured is shown all the same
        assert (root / "run" / "probe.json").read_text() == '{"data": "of before"}'


def test_a_file_system_that_may_only_be_read(tmp_path):
    root = tmp_path / "disk"
    with file_system(root):
        train(root, *FLAGS, "--run.images=24")
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        message = f"expected a place to write the run folder {root}/run, found Read-only file system; choose another"
        assert f"--run.root: {message}" in failed(root, code=2)
        assert "--run.root: expected a place to write" in failed(root, "--run.name=other", code=2)
        assert sound(root / "run") == [24]
        subprocess.run(["mount", "-o", "remount,rw", root], check=True)
        go_on(root, 24)


@pytest.mark.parametrize(
    ("name", "found"),
    [("/proc/1/runs", "No such file"), ("a file", "Not a directory"), ("x" * 300, "File name too long")],
)
def test_a_place_that_cannot_hold_a_run(tmp_path, name, found):
    (tmp_path / "a file").write_text("")
    said = failed(tmp_path / name if not name.startswith("/") else name, code=2)
    assert "--run.root: expected a place to write the run folder" in said and found in said


@pytest.mark.parametrize("workers", [0, 2])
def test_data_that_vanish(tmp_path, at, workers):
    photos, away = tmp_path / "photos", tmp_path / "away"
    photos.mkdir()
    for i in range(24):
        picture(i).save(photos / f"{i}.png")
    flags = (f"--data.path={photos}", DECODED, f"--data.workers={workers}", "--data.max_unreadable=0.2")
    at(48, lambda: photos.rename(away))
    said = failed(tmp_path, *flags, "--run.images=2400", code=2)
    assert f"images of {photos} are unreadable" in said and "are the data still there?" in said
    there = sound(tmp_path / "run")
    assert there and said.endswith(f"goes on from {tmp_path}/run/checkpoints/{there[-1]:012d}"), said
    at(0, None)
    said = failed(tmp_path, *flags, code=2)
    assert f"--data.path {photos}: expected a folder, a file or a data set's name, found no such folder or file" in said
    away.rename(photos)
    end = there[-1] + 24
    go_on(tmp_path, there[-1], *flags, end=end)


def test_data_that_vanish_after_they_were_kept(tmp_path, at):
    """The run needs them no more, and ends; what looks at the files again says that they are gone."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(24):
        picture(i).save(photos / f"{i}.png")
    at(48, lambda: photos.rename(tmp_path / "away"))
    out, err = train(tmp_path, *FLAGS, f"--data.path={photos}", CACHED)
    assert "Traceback" not in out + err and sound(tmp_path / "run")[-1] == 96


def test_a_run_folder_that_vanishes(tmp_path, at):
    at(48, lambda: shutil.rmtree(tmp_path / "run"))
    said = failed(tmp_path, "--run.sample_every=24")
    assert "No such file or directory" in said
