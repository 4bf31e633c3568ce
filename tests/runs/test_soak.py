"""Long use: neither resident memory nor the number of open files grows with what was done.

`pytest -n 0 -m soak -s tests/runs/test_soak.py` prints the figures; BIGBIGAN_ENCODES, BIGBIGAN_EVALUATIONS and
BIGBIGAN_EPOCHS say how much.
"""

import gc
import mmap
import os

import numpy as np
import psutil
import pytest

import bigbigan
from bigbigan.data import open_images
from tests.conftest import picture, tiny_model, train
from tests.helpers.children import SMALLEST

ENCODES = int(os.environ.get("BIGBIGAN_ENCODES", "10000"))
EVALUATIONS = int(os.environ.get("BIGBIGAN_EVALUATIONS", "200"))
EPOCHS = int(os.environ.get("BIGBIGAN_EPOCHS", "50"))
MIB = 2**20


def used(process: psutil.Process) -> tuple[int, int]:
    """Resident bytes and open files of a process."""
    return process.memory_info().rss, process.num_fds()


def judge(name: str, seen: list[tuple[int, int]]) -> None:
    """Print the figures, and fail where the last third holds more than 2 % or 8 MiB above the first, or more files."""
    sizes, files = np.array(seen, dtype=float).T
    third = len(seen) // 3
    first, last = sizes[:third].mean() / MIB, sizes[-third:].mean() / MIB
    slope = np.polyfit(np.arange(len(seen)), sizes, 1)[0] / 1024
    print(
        f"{name}, at {len(seen)} times: resident {first:.1f} MiB in the first third, {last:.1f} in the last, "
        f"slope {slope:+.3f} KiB from one to the next; "
        f"most open files {files[:third].max():.0f} and {files[-third:].max():.0f}"
    )
    assert last - first < max(0.02 * first, 8), "memory grows"
    assert files[-third:].max() <= files[:third].max(), "open files grow"


def repeat(name: str, work, count: int, warm: int) -> None:
    """Do `work` `warm` and then `count` times, and judge what the process holds at 60 of them, without what awaits
    collection."""
    for i in range(warm):
        work(i)
    process, seen = psutil.Process(), []
    gc.freeze()  # what was there before need not be searched each time
    for i in range(count):
        work(i)
        if i % (count // 60) == 0:
            gc.collect()
            seen.append(used(process))
    gc.unfreeze()
    judge(name, seen)


def uses(tmp_path):
    """A function of i that encodes one of several kinds of input, some of which are refused."""
    model = tiny_model().eval()
    pictures = [picture(i, (20, 16)) for i in range(4)]
    for i, image in enumerate(pictures):
        image.save(tmp_path / f"{i}.{'png' if i % 2 else 'jpg'}")
    pictures[0].save(tmp_path / "film.gif", save_all=True, append_images=pictures[1:])
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "cut.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    kinds = [
        np.zeros((2, 9, 9, 3), np.uint8),
        pictures,
        str(tmp_path / "0.jpg"),
        tmp_path,
        iter,
        tmp_path / "cut" / "cut.png",
    ]

    def use(i: int) -> None:
        kind = kinds[i % len(kinds)]
        try:
            bigbigan.encode(iter(pictures) if kind is iter else kind, model, "z_mean", progress=False)
        except ValueError:
            assert kind is kinds[-1] or kind is tmp_path

    return use


@pytest.mark.soak
def test_encodes(tmp_path):
    repeat("encode", uses(tmp_path), ENCODES, warm=60)


@pytest.mark.soak
def test_evaluations(tmp_path, monkeypatch):
    from eval_linear.quick import quick_figures

    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path))
    model = tiny_model().eval()
    chosen = np.arange(100)
    splits = [open_images("digits", test=test).subset(chosen) for test in (False, True)]
    repeat("evaluation", lambda _: quick_figures(model, *splits, "digits", 60, 0), EVALUATIONS, warm=5)


@pytest.mark.run
@pytest.mark.soak
def test_epochs_with_workers(tmp_path, monkeypatch):
    from bigbigan.training.trainer import Trainer

    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(27):  # 24 of them for training: an iteration is an epoch
        picture(i, (20 + i % 3, 16)).save(folder / f"{i}.png")
    process, main, workers = psutil.Process(), [], []
    before = Trainer.log_means

    def log(self, values):
        before(self, values)
        main.append(used(process))
        children = [used(child) for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]
        workers.append((sum(c[0] for c in children) / max(1, len(children)), sum(c[1] for c in children)))

    monkeypatch.setattr(Trainer, "log_means", log)
    warm = 5
    flags = (
        "--run.name=run",
        f"--data.path={folder}",
        "--data.cache=none",
        "--data.workers=2",
        "--data.augment=resnet",
    )
    sizes = (
        f"--run.images={24 * (EPOCHS + warm)}",
        "--run.log_every=24",
        "--run.checkpoint_every=240",
        "--run.sample_every=240",
    )
    train(tmp_path, *SMALLEST, *flags, *sizes)
    judge("epoch, main process", main[warm:])
    judge("epoch, a worker", workers[warm:])


def fresh_memory() -> mmap.mmap:
    """A MiB for each GiB that the process holds, from the system itself: an array might take what was freed before.

    Sixty of them are twice what `judge` allows, whatever the tests before have left.
    """
    size = MIB * -(-psutil.Process().memory_info().rss // 2**30)
    block = mmap.mmap(-1, size)
    block.write(bytes([1]) * size)
    return block


def test_the_measure_sees_a_leak(tmp_path):
    leak, held = [], []
    with pytest.raises(AssertionError, match="memory grows"):
        repeat("leak", lambda _: leak.append(fresh_memory()), 60, warm=1)
    with pytest.raises(AssertionError, match="open files grow"):
        repeat("leak", lambda _: held.append(open(os.devnull)), 60, warm=1)  # noqa: SIM115
    for file in held:
        file.close()
    repeat("encode", uses(tmp_path), 60, warm=30)
