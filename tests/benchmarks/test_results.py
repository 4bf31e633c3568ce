"""Test the legs of benchmarks/results.sh: their clock, their results, and that a killed call is continued."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time

import psutil
import pytest

from benchmarks import results, results_pages
from benchmarks.candidates import CANDIDATES
from benchmarks.results import AGAIN, Call, Failure, chosen, main
from benchmarks.results_pages import collect, page, trained_seconds
from bigbigan.config import Config, flatten, parse
from tests.conftest import ROOT


@pytest.fixture
def call(tmp_path):
    return Call("A", {"TOY": "1", "WORK": str(tmp_path / "work"), "OUT": str(tmp_path / "out"), "MINUTES": "2"})


def stats(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def logged(images, rate):
    return {"images_seen": images, "images_per_second": rate, "loss_d": 1.0}


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_candidate_is_a_config(name):
    preset, flags = CANDIDATES[name]
    words = shlex.split(flags)
    unknown = {word[2:] for word in words[::2]} - flatten(Config()).keys()
    assert not unknown
    parse(["--config", preset, *words])


def test_minutes_of_training_are_counted_by_the_log(tmp_path):
    assert trained_seconds(tmp_path) == 0
    stats(tmp_path, logged(100, 50.0), {"images_seen": 100, "top1_linear": 0.3}, logged(400, 100.0))
    assert trained_seconds(tmp_path) == pytest.approx(5.0)
    with open(tmp_path / "stats.jsonl", "a") as file:
        file.write('{"images_seen": 500, "ima')  # a kill
    assert trained_seconds(tmp_path) == pytest.approx(5.0)


def test_the_winner_is_the_ledgers_best_and_leg_b_keeps_its_own_networks(tmp_path, monkeypatch):
    env = {"TOY": "1", "WORK": str(tmp_path / "work"), "OUT": str(tmp_path / "out")}
    rows = {"wide": "--model.generator_width 96 --optim.encoder_lr 1e-3", "base": ""}
    monkeypatch.setattr(results, "CANDIDATES", {k: ("cifar10", v) for k, v in rows.items()})
    a = Call("A", env)
    ledger = [
        {"name": "base", "top1_linear": 0.6},
        {"name": "wide", "top1_linear": 0.7},
        {"name": "broken", "failed": "no"},
    ]
    (a.work / "ledger.json").write_text(json.dumps(ledger))
    assert chosen(a) == ("wide", "cifar10", rows["wide"])
    assert chosen(Call("B", env | {"FLAGS": "--run.compile default"}))[1:] == (
        "cifar10_small", "--optim.encoder_lr 1e-3 --run.compile default",
    )  # fmt: skip
    a.winner = "base"
    assert chosen(a)[0] == "wide"  # a run keeps to its settings
    (a.work / "chosen.json").unlink()
    assert chosen(a)[0] == "base"
    (a.work / "chosen.json").unlink()
    a.winner = "nobody"
    with pytest.raises(Failure, match="WINNER=nobody: expected one of wide, base"):
        chosen(a)


def test_without_data_there_is_a_sentence(tmp_path, capsys, monkeypatch):
    for name in ("DATA", "TOY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORK", str(tmp_path))
    assert main(["A"]) == 1 and "expected DATA=FOLDER with CIFAR-10's" in capsys.readouterr().err
    assert main(["A", "no such piece"]) == 2 and "A: classifier, compare, full" in capsys.readouterr().out


SLEEPER = (
    "import signal,sys,time; signal.signal(signal.SIGTERM, lambda *a: sys.exit(75)); "
    "print('begun', flush=True); time.sleep(60)"
)


def test_a_process_is_stopped_when_it_has_done_enough(call):
    begun = lambda: "begun" in (call.log("b").read_text() if call.log("b").is_file() else "")  # noqa: E731
    commands = {"a": [sys.executable, "-c", "print('done')"], "b": [sys.executable, "-c", SLEEPER]}
    statuses = call.together(commands, until={"a": lambda: False, "b": begun})
    assert statuses == {"a": 0, "b": AGAIN}
    assert results_pages.last_line(call.log("a")) == "done"


def test_a_process_is_stopped_when_time_is_over(call):
    call.deadline = time.monotonic() + results.GRACE + 5
    assert call.one("b", [sys.executable, "-c", SLEEPER]) == AGAIN
    assert call.left() > results.GRACE - 15


@pytest.mark.skipif(sys.platform != "linux", reason="a signal at the parent's death is Linux's")
def test_a_process_does_not_outlive_a_killed_call(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from benchmarks.results import Call
call = Call("A", {{"TOY": "1", "WORK": {str(tmp_path)!r}, "OUT": {str(tmp_path)!r}}})
call.one("b", [sys.executable, "-c", {SLEEPER!r}])
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
    log = tmp_path / "A" / "logs" / "b.log"
    while not (log.is_file() and "begun" in log.read_text()):
        assert parent.poll() is None
        time.sleep(0.1)
    children = psutil.Process(parent.pid).children()
    assert len(children) == 1
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


def test_what_is_left_behind_is_few_files_of_bounded_size(call, monkeypatch):
    monkeypatch.setattr(results_pages, "PART", 100_000)
    full = call.work / "full"
    stats(full, logged(960, 100.0), logged(1920, 200.0))
    for kind in ("samples", "reconstructions"):
        (full / kind).mkdir()
        for i in range(2):
            (full / kind / f"{i:012d}.png").write_bytes(os.urandom(50_000))
    for _ in range(2):  # the second call replaces what the first left
        collect(call)
        files = sorted(call.out.iterdir())
        assert [f.name for f in files] == [
            "cifar10-full-reconstructions.png", "cifar10-full-samples.png", "cifar10.json", "cifar10.md",
            "cifar10.tar.0", "cifar10.tar.1", "cifar10.tar.2",
        ]  # fmt: skip
    assert all(f.stat().st_size <= 100_000 for f in files)
    joined = call.out / "joined.tar"
    joined.write_bytes(b"".join(f.read_bytes() for f in files if ".tar." in f.name))
    with tarfile.open(joined) as archive:
        assert "full/stats.jsonl" in archive.getnames()
    assert (call.out / "cifar10-full-samples.png").read_bytes() == (full / "samples" / f"{1:012d}.png").read_bytes()
    run = json.loads((call.out / "cifar10.json").read_text())["runs"]["full"]
    assert run["images_seen"] == 1920 and run["minutes"] == pytest.approx(14.4 / 60, abs=0.01)
    assert "figures mean nothing" in (call.out / "cifar10.md").read_text()


def test_the_page_says_what_was_reached_and_what_was_not():
    row = {"protocol": "linear, full batch", "labels": 1.0, "feature": "AvePool"}
    rows = [
        row | {"encoder": e, "figures": {"top1": {"mean": m, "sd": None, "n": 1}}}
        for e, m in (("trained", 0.71), ("untrained", 0.5))
    ]
    probe = {"rows": rows, "n_test": 10_000, "classes": 10, "bidirectional": None, "generation": None, "seconds": 99.0}
    rate = {"median": 9000.0, "lowest": 1.0, "highest": 2.0, "n": 3}
    quick = {
        "top1_linear": 0.6,
        "top1_knn": 0.5,
        "fid_classifier_cifar10_train_n5000": 12.345,
        "reconstruction_error_relative": 0.4,
    }
    run = {"images_seen": 8, "minutes": 15, "images_per_second": rate, "alarms": [], "probe": probe}
    run["curve"] = [quick | {"images_seen": 10**6 * i} for i in range(30)]
    tried = {"minutes": 2, "at_once": 4, "preset": "cifar10", "images_seen": 5, "n": 10_000}
    ledger = [
        tried | quick | {"name": "base", "flags": ""},
        tried | {"name": "bad", "flags": "--x 1", "failed": "no such thing"},
    ]
    found = {
        "leg": "A",
        "toy": False,
        "hardware": "one GPU",
        "data": "cifar10",
        "peak_mib": 2048,
        "ledger": ledger,
        "runs": {"full": run},
    }
    text = page(found, {("full", "samples"): "s.png"})
    assert "71.0 %, +21.0 points" in text and "Above 70.0 %" in text and "Below 75.2 %" in text
    assert "| base | `cifar10` | 5 | 0 | 60.0 | 50.0 | 12.3 | 0.400 |" in text and "failed: no such thing" in text
    assert text.count("| 29,000,000 | 60.0 |") == 1 and "at most 2.0 GiB" in text and "images/s.png" in text
    assert "rehearsal" not in text


@pytest.mark.soak
def test_a_leg_that_is_killed_on_the_way_is_taken_up(tmp_path):
    """Run leg A at toy sizes: kill it in a comparison and in the full run, and complete it."""
    out = tmp_path / "out"
    env = os.environ | {"TOY": "1", "WORK": str(tmp_path / "work"), "OUT": str(out), "PYTHON": sys.executable}
    command = ["bash", str(ROOT / "benchmarks" / "results.sh"), "A"]
    work = tmp_path / "work" / "A"
    for sign in (work / "try-0" / "stats.jsonl", work / "full" / "stats.jsonl"):
        process = subprocess.Popen(command, env=env)
        while not sign.is_file():
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
        process.wait()
    for _ in range(4):
        status = subprocess.run(command, env=env).returncode
        if status != AGAIN:
            break
        assert (out / "cifar10.json").is_file()
    assert status == 0
    found = json.loads((out / "cifar10.json").read_text())
    assert len(found["ledger"]) == 3 and all("top1_linear" in entry for entry in found["ledger"])
    assert found["runs"]["full"]["probe"]["n_test"] == 359
