"""A run survives any kill: the same command goes on from a sound checkpoint, and ends bit for bit as the uninterrupted
run.

In the default tests a few kills; `pytest -m soak` kills as often as BIGBIGAN_KILLS says (500), and at each writing
call. BIGBIGAN_PART=2/5 does the second of five pieces of this, which together make the whole; BIGBIGAN_PATIENCE=5
multiplies the limits of time, for a crowded machine.
"""

import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file

from bigbigan.training import checkpoint
from tests.conftest import picture
from tests.helpers.children import PATIENCE, Fault, Run, finish

KILLS = int(os.environ.get("BIGBIGAN_KILLS", "500"))
PART, PARTS = map(int, os.environ.get("BIGBIGAN_PART", "1/1").split("/"))
EVALUATING = (
    "--run.evaluate_every=48",
    "--run.evaluate_images=60",
    "--run.best=top1_knn",
)  # better at 96 images than at 48

pytestmark = pytest.mark.run
END = 96


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(24):
        picture(i, (12 + i % 5, 10 + i % 7)).save(folder / f"{i}.png")
    return str(folder)


@pytest.fixture(scope="module")
def settings(photos) -> dict:
    """Of a run: (flags, processes); two data sets, decoded on the way or kept, one process and two."""
    decoded = (f"--data.path={photos}", "--data.augment=resnet", "--data.flip=True", "--data.cache=none")
    brief = (f"--run.timeout={0.2 * PATIENCE:g}",)  # one that meets nobody, since the other was killed before
    return {
        "digits": ((), 1),
        "digits, two processes": (brief, 2),
        "photos": ((*decoded, "--data.workers=1"), 1),
        "photos, two processes": ((*decoded, *brief, "--data.workers=1"), 2),
        "photos, evaluating": ((*decoded, "--data.workers=0", *EVALUATING, "--run.best=reconstruction"), 1),
        "evaluating": (EVALUATING, 1),
        "evaluating, two processes": ((*EVALUATING, *brief), 2),
    }


@pytest.fixture(scope="module")
def uninterrupted(settings, tmp_path_factory):
    """name → (what the uninterrupted run leaves, the calls by which it writes, (its seconds with a slow file system,
    those it computes), its folder); made once."""
    made, root = {}, tmp_path_factory.mktemp("uninterrupted")

    def make(name: str):
        if name not in made:
            flags, processes = settings[name]
            folder = root / name.replace(", ", "-").replace(" ", "-")
            finish(folder / "first", *flags, processes=processes)  # warms the server and the caches
            run = Run(folder / "again", *flags, processes=processes, fault=Fault(0, "count"))
            computed = run.lasts()
            assert set(run.wait()) == {0}, run.text()
            slow = Run(folder / "slow", *flags, processes=processes, fault=Fault(-1, "slow"))
            started = time.monotonic()
            assert set(slow.wait()) == {0}, slow.text()
            calls = (folder / "again" / "calls").read_text().splitlines()
            seconds = (time.monotonic() - started, computed)
            made[name] = (remains(folder / "again" / "run"), calls, seconds, folder / "again")
        return made[name]

    return make


def remains(run: Path) -> dict:
    """All that a run leaves, by name; times of day and speeds left out."""
    newest = checkpoint.complete(run / "checkpoints")[-1]
    assert int(newest.name) == END
    found = {}
    for file in sorted((*newest.glob("*.safetensors"), *(run / "best").glob("*/*.safetensors"))):
        found |= {f"{file.relative_to(run)}/{k}": v.numpy().tobytes() for k, v in load_file(file).items()}
    for pattern in ("samples/*.png", "reconstructions/*.png", "release/model.safetensors", "best/*/best.json"):
        found |= {str(file.relative_to(run)): file.read_bytes() for file in run.glob(pattern)}
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return found | {"stats": [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]}


def check_sound(run: Path) -> int:
    """Every folder under a checkpoint's name is whole → images seen of the newest, 0 without any."""
    newest = 0
    for folder in (run / "checkpoints", run / "best"):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.isdigit():
                content, _ = checkpoint.read(path)
                newest = max(newest, content["images_seen"]) if folder.name == "checkpoints" else newest
    return newest


def go_on(root: Path, expected: dict, flags, processes: int) -> None:
    """The same command again: it resumes from the newest checkpoint and ends as the uninterrupted run."""
    newest = check_sound(root / "run")
    text = finish(root, *flags, processes=processes)
    assert (f"at {newest} images" in text) == bool(newest), text
    assert "damaged" not in text
    found = remains(root / "run")
    different = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
    assert not different, f"not as without a kill: {different[:5]}"


def strike(root: Path, name: str, settings, uninterrupted, fault: Fault, faulty: int = 0) -> None:
    """One fault, then the same command without it."""
    flags, processes = settings[name]
    expected, calls, *_ = uninterrupted(name)
    folder = root / f"{name}-{fault.how}-{fault.at}".replace(", ", "-").replace(" ", "-")
    run = Run(folder, *flags, processes=processes, fault=fault, faulty=faulty)
    statuses = run.wait()
    if fault.how == "fail":
        said, call = run.text(), calls[fault.at - 1]
        assert "Traceback" not in said, said
        if call.startswith("link"):  # where files cannot be linked they are copied
            assert statuses[faulty] == 0, said
        elif "/cache/" in call:  # what spares a later run the work
            assert statuses[faulty] == 0 and "could not be kept" in said, said
        else:
            assert statuses[faulty] == 1 and "No space left on device" in said, said
    else:
        assert statuses[faulty] == -signal.SIGKILL, f"{statuses}\n{run.text()}"
    if processes > 1 and statuses[faulty]:
        assert statuses[1 - faulty] == 1 and "found one gone" in run.text(), run.text()
    go_on(folder, expected, flags, processes)
    shutil.rmtree(folder)


def kill_at_random(root: Path, name: str, settings, uninterrupted, kills: int, seed) -> tuple[int, dict[int, int]]:
    """SIGKILL the same run at random moments until it has been killed `kills` times; each time it ends, it starts
    afresh.

    All processes die at once, or one of two; every other start has a slow file system. The moments are spread over 1.2
    times what
    the uninterrupted run takes: its time with a slow file system, else what it computes.
    → how often a run came to its end, and how many kills found which newest checkpoint, in images.
    """
    flags, processes = settings[name]
    expected, _, (seconds, computed), _ = uninterrupted(name)
    chance, ends, killed, found = random.Random(seed), 0, 0, Counter()
    folder = root / f"random-{name}".replace(", ", "-").replace(" ", "-")
    while killed < kills:
        slow, moment = chance.random() < 0.5, chance.uniform(0.05, 1.2)
        run = Run(folder, *flags, processes=processes, fault=Fault(-1, "slow") if slow else None)
        run.lasts(seconds=moment * seconds) if slow else run.lasts(computing=moment * computed)
        victims = [chance.randrange(processes)] if chance.random() < 0.5 else range(processes)
        run.send(signal.SIGKILL, *victims)
        statuses = run.wait()
        assert set(statuses) <= {0, 1, -signal.SIGKILL}, run.text()
        if 1 in statuses:
            assert "found one gone" in run.text() and "Traceback" not in run.text(), run.text()
        newest = check_sound(folder / "run")
        if -signal.SIGKILL in statuses:
            killed += 1
            found[newest] += 1
        if -signal.SIGKILL not in statuses or killed == kills:
            go_on(folder, expected, flags, processes)
            shutil.rmtree(folder)
            ends += 1
    return ends, dict(sorted(found.items()))


def phase(calls: list[str], name: str, which: int) -> int:
    """The number of the `which`-th call of this name, counted from 1; negative from the end."""
    places = [i + 1 for i, call in enumerate(calls) if call.split()[0] == name]
    return places[which]


def test_a_kill_while_a_checkpoint_is_written(settings, uninterrupted, tmp_path):
    """Torn files, unfinished renames, half-removed old checkpoints; the soak goes through every call."""
    calls = uninterrupted("digits")[1]
    for name, which, how in (
        ("save_file", 4, "half"),
        ("rename", 1, "before"),
        ("rename", -1, "after"),
        ("rmtree", -1, "half"),
    ):
        strike(tmp_path, "digits", settings, uninterrupted, Fault(phase(calls, name, which), how))


@pytest.mark.parametrize(
    ("name", "which", "how"),
    [("save_file", 3, "half"), ("save_file", 5, "before"), ("fsync", 9, "before"), ("rename", 1, "before"),
     ("rename", 1, "after"), ("rmtree", 0, "half"), ("save_file", -1, "after")],
)  # fmt: skip
def test_a_kill_while_a_checkpoint_is_written_beside_training(settings, uninterrupted, tmp_path, name, which, how):
    """Training does not wait for the thread that writes, which is killed with it, in the second checkpoint or later."""
    calls = (uninterrupted("digits")[3] / "calls beside").read_text().splitlines()
    fault = Fault(phase(calls, name, which), how, beside=True)
    strike(tmp_path, "digits", settings, uninterrupted, fault)


def test_an_error_of_the_thread_that_writes_ends_the_run_with_a_sentence(settings, uninterrupted, tmp_path):
    flags, processes = settings["digits"]
    calls = (uninterrupted("digits")[3] / "calls beside").read_text().splitlines()
    for i, at in enumerate((phase(calls, "save_file", 4), len(calls))):  # the second checkpoint; the last call of all
        run = Run(tmp_path / str(i), *flags, processes=processes, fault=Fault(at, "fail", beside=True))
        assert run.wait() == [1] and "No space left on device" in run.text(), run.text()
        assert "Traceback" not in run.text() and "the same command goes on from" in run.text()
        go_on(tmp_path / str(i), uninterrupted("digits")[0], flags, processes)


def test_a_failing_file_system_ends_with_a_sentence_and_costs_nothing(settings, uninterrupted, tmp_path):
    calls = uninterrupted("digits")[1]
    for name, which in (("save_file", 4), ("fsync", -2), ("save_file", -1)):  # the last is the release's
        strike(tmp_path, "digits", settings, uninterrupted, Fault(phase(calls, name, which), "fail"))


def test_a_kill_of_one_of_two_processes(settings, uninterrupted, tmp_path):
    calls = uninterrupted("digits, two processes")[1]
    strike(tmp_path, "digits, two processes", settings, uninterrupted, Fault(phase(calls, "rename", 2), "before"))


def test_a_kill_between_checkpoint_and_evaluation_loses_no_figure(settings, uninterrupted, tmp_path):
    expected, calls, *_ = uninterrupted("photos, evaluating")
    assert [line["images_seen"] for line in expected["stats"] if not {"loss_d", "spectra"} & line.keys()] == [
        48,
        96,
        96,
    ], "with the closing figures"
    strike(tmp_path, "photos, evaluating", settings, uninterrupted, Fault(phase(calls, "link", 0), "before"))


def test_kills_at_random(settings, uninterrupted, tmp_path):
    kill_at_random(tmp_path, "photos", settings, uninterrupted, kills=2, seed=int(time.time()) % 1000)


NAMES = (
    "digits",
    "digits, two processes",
    "photos",
    "photos, two processes",
    "evaluating",
    "evaluating, two processes",
)


def test_the_run_with_evaluations_takes_every_way_of_writing(uninterrupted):
    """Else the soak over its calls would miss some."""
    calls = uninterrupted("evaluating")[1]
    for wanted in ("rmtree .*/best/", "link", "save_file .*/cache/", "write_text .*/cache/", "save_file .*release"):
        assert any(re.match(wanted, call) for call in calls), wanted


@pytest.mark.soak
@pytest.mark.parametrize("how", ["before", "half", "after", "fail"])
@pytest.mark.parametrize("name", ["digits", "evaluating"])
def test_soak_every_writing_call(settings, uninterrupted, tmp_path, name, how):
    """A kill before, within and after each call by which a run writes, and a full disk at each."""
    calls = uninterrupted(name)[1]
    tearable = ("save_file", "write_whole", "write", "write_text", "rmtree")
    struck = [i + 1 for i, call in enumerate(calls) if how != "half" or call.split()[0] in tearable][PART - 1 :: PARTS]
    for at in struck:
        strike(tmp_path, name, settings, uninterrupted, Fault(at, how))
    print(f"{name}, {how}, part {PART}/{PARTS}: {len(struck)} of {len(calls)} calls struck, {len(struck)} held")


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_soak_random_kills(settings, uninterrupted, tmp_path, name):
    share = len(range(NAMES.index(name), KILLS, len(NAMES))[PART - 1 :: PARTS])
    ends, found = kill_at_random(tmp_path, name, settings, uninterrupted, share, seed=f"{name} {PART}/{PARTS}")
    print(
        f"{name}, part {PART}/{PARTS}: {share} kills, by newest checkpoint {found}; "
        f"{ends} runs ended, {ends} as without a kill"
    )
