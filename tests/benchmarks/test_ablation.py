"""Test benchmarks/ablation.py: the queue with a stand-in for training, and the table against one made by hand."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from bigbigan.config import parse
from tests.conftest import ROOT, TINY_RUN, launch

spec = importlib.util.spec_from_file_location("ablation", ROOT / "benchmarks" / "ablation.py")
ablation = importlib.util.module_from_spec(spec)
sys.modules["ablation"] = ablation  # dataclasses look their module up
spec.loader.exec_module(ablation)

STAND_IN = """
import json, pathlib, signal, sys, time
flags = dict(flag[2:].split("=", 1) for flag in sys.argv[1:])
root, name = pathlib.Path(flags["run.root"]), flags["run.name"]
row = name.rsplit("-", 1)[0]
def note(what):
    with (root / "events").open("a") as file:
        file.write(f"{what} {name}\\n")
if flags.get("slow") != row:  # which a signal finds before it listens
    signal.signal(signal.SIGTERM, lambda *_: (note("stop"), sys.exit(75)))
note("begin")
(root / name).mkdir(exist_ok=True)
if flags.get("fail") == row:
    sys.exit("something\\nerror: expected a sound row, found a broken one")
if flags.get("held") == row and not (root / "free").exists():
    (root / "free").touch()
    print("error: x: expected a run folder to itself, found that process 5 is training in it; wait", file=sys.stderr)
    sys.exit(2)
time.sleep(float(flags.get("lasts", 0.05)))
figures = {"top1_linear": 0.5, "is_classifier_digits_n50": 2.0, "fid_classifier_digits_train_n50": 9.0}
(root / name / "stats.jsonl").write_text(json.dumps(figures) + "\\n")
(root / name / "release").mkdir(exist_ok=True)
(root / name / "release" / "config.json").write_text("{}")
note("end")
"""


@pytest.fixture
def queue(tmp_path, monkeypatch, capsys):
    """Run the queue with a stand-in for train.py; return (status, what it printed, its events)."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(ablation, "TRAIN", script)
    root = tmp_path / "runs"

    def run(*arguments: str):
        (root / "events").unlink(missing_ok=True)
        try:
            ablation.main(["--root", str(root), *arguments])
            status = 0
        except SystemExit as stop:
            status = stop.code
        events = (root / "events").read_text().split("\n")[:-1] if (root / "events").is_file() else []
        return status, capsys.readouterr().out, events

    run.root = root
    return run


def test_all_are_trained_some_at_a_time_and_none_twice(queue):
    status, out, events = queue(
        "--rows", "base", "no_e", "no_unaries", "--seeds", "0", "1", "--at-once", "2", "--", "--lasts=0.3"
    )
    assert status == 0 and sorted(e for e in events if e.startswith("end")) == sorted(
        f"end {row}-{seed}" for row in ("base", "no_e", "no_unaries") for seed in (0, 1)
    )
    at_work = np.cumsum([1 if e.startswith("begin") else -1 for e in events])
    assert at_work.max() == 2
    assert "| Base (`base`) " in (queue.root / "table.md").read_text() and "missing" not in out
    status, out, events = queue("--rows", "base", "no_e", "no_unaries", "--seeds", "0", "1", "2", "--", "--lasts=0.3")
    assert status == 0 and {e for e in events if e.startswith("begin")} == {
        "begin base-2",
        "begin no_e-2",
        "begin no_unaries-2",
    }
    assert queue("--rows", "base", "--table")[2] == []
    assert queue("--rows", "base", "--images", "400")[2].count("end base-0") == 1  # a longer run is another


def test_a_failed_run_is_noted_and_the_rest_go_on(queue):
    status, out, events = queue("--rows", "base", "no_e", "--seeds", "0", "1", "--", "--fail=base")
    assert status == 1 and [e for e in events if e.startswith("end")] == ["end no_e-0", "end no_e-1"]
    assert "missing: base-1, failed: error: expected a sound row, found a broken one" in out
    assert "base-0: failed with status 1" in out and "No E (GAN)" in out
    assert queue("--rows", "base", "no_e", "--seeds", "0", "1", "--table")[0] == 1
    status, _, events = queue("--rows", "base", "no_e", "--seeds", "0", "1")  # other flags: all again
    assert status == 0 and len([e for e in events if e.startswith("end")]) == 4


def test_a_signal_stops_the_runs_and_the_same_command_goes_on(queue):
    arguments = (
        "--rows",
        "base",
        "no_e",
        "no_unaries",
        "--seeds",
        "0",
        "--at-once",
        "2",
        "--",
        "--lasts=1.5",
        "--slow=no_e",
    )

    def ask():
        while not (queue.root / "events").is_file() or (queue.root / "events").read_text().count("begin") < 2:
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask).start()
    status, out, events = queue(*arguments)
    assert status == 75 and "base-0: stopped" in out
    assert "no_e-0: stopped" in out and [e for e in events if e.startswith("stop")] == ["stop base-0"]
    assert "begin no_unaries-0" not in events
    status, out, events = queue(*arguments)
    assert status == 0 and len([e for e in events if e.startswith("end")]) == 3
    (queue.root / "queue" / "base-0.json").unlink()  # as if killed before it could be noted
    assert [e for e in queue(*arguments)[2] if e.startswith("begin")] == ["begin base-0"]


def test_a_run_in_other_hands_is_asked_again(queue, monkeypatch):
    monkeypatch.setattr(ablation, "AGAIN", 0.5)
    status, out, events = queue("--rows", "base", "no_e", "--seeds", "0", "--", "--held=base")
    assert status == 0 and "another process is training it" in out
    assert events.index("end no_e-0") < events.index("end base-0") and events.count("begin base-0") == 2


def test_the_command_is_one_that_train_reads(tmp_path):
    runs = ablation.plan("table1_digits", ["no_e"], [5], tmp_path, 3000, 50, 3, ["--data.batch_size", "8"])
    config, options = parse(runs[0].command[2:])
    assert (options.config, config.model.encoder, config.run.name, config.run.seed) == (
        "table1_digits/no_e",
        "none",
        "no_e-5",
        5,
    )
    assert (config.run.images, config.run.evaluate_every, config.data.batch_size, config.run.threads) == (
        2000,
        2000,
        8,
        3,
    )
    assert config.run.evaluate_images == 50 and config.run.probe is False and config.run.root == str(tmp_path)


def test_rows_and_options_that_cannot_be(capsys):
    for arguments, message in (
        (["--rows", "revnet"], "expected some of base, deter"),
        (["--at-once", "0"], "at least 1"),
    ):
        with pytest.raises(SystemExit) as stop:
            ablation.main(arguments)
        assert stop.value.code == 2 and message in capsys.readouterr().err


# The paper's changes, by hand: IS, FID, probe.
SIGNS = {
    "deterministic_e": "≈≈↓", "uniform_prior": "≈≈↓", "x_unary_only": "↑↑↓", "z_unary_only": "↓↑≈", "no_unaries": "↓↑↓",
    "small_g_third": "↓↑↓", "small_g_two_thirds": "↓↑↓", "no_e": "↑≈ ", "high_res_e": "↑↓↑", "low_res_g": "↓↓↓",
    "high_res_g": "↑↑↑", "resnet101": "≈≈≈", "resnet_x2": "≈≈↑", "revnet": "≈≈↓", "revnet_x2": "≈↑↑",
    "revnet_x4": "≈↑↑", "resnet_e_lr": "≈↑↑", "revnet_x4_e_lr": "↓↑↑", "base": "   ",
}  # fmt: skip


def test_the_papers_signs():
    found = {
        row: "".join(ablation.papers(row, column).get("paper_sign", " ") for column in ("IS", "FID", "probe"))
        for row in ablation.PAPER
    }
    assert found == SIGNS


def test_the_papers_figures_are_those_noted():
    facts = ROOT.parent / "shared" / "reference" / "paper-facts.md"
    if not facts.is_file():
        pytest.skip("no notes of the paper's figures at hand")
    lines = facts.read_text().split("| row | change | IS | FID | Cls |")[1].split("\n\n")[0].splitlines()[2:]
    number = lambda cell: tuple(float(n) for n in cell.split(" +-"))  # noqa: E731
    noted = [[number(c) if c.strip() != "-" else () for c in line.strip("| ").split(" | ")[2:]] for line in lines]
    ours = [
        [() if f is None else f if f[1] is not None else f[:1] for f in figures]
        for _, *figures in ablation.PAPER.values()
    ]
    assert noted == ours


def write_run(root: Path, name: str, **figures) -> None:
    (root / name / "release").mkdir(parents=True)
    (root / name / "release" / "config.json").write_text("{}")
    early = {
        "images_seen": 1,
        "top1_linear": 0.01,
        "is_classifier_digits_n5": 1.0,
        "fid_classifier_digits_train_n5": 1e3,
    }
    closing = {"images_seen": 2, "reconstruction_error_relative": 0.5, "n_test": 3}
    (root / name / "stats.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in (early, {"loss_d": 1.0}, figures, closing))
    )


def test_the_table_by_hand(tmp_path):
    values = {  # IS, FID, probe of three seeds
        "base": [(7.0, 4.0, 0.90), (7.2, 4.2, 0.92), (7.1, 4.4, 0.91)],
        "no_unaries": [(6.0, 9.0, 0.91), (6.3, 9.5, 0.90), (6.1, 9.9, 0.91)],  # ↓ ↑ ≈ where the paper has ↓ ↑ ↓
        "x_unary_only": [(6.0, 4.1, 0.8), (6.1, 4.3, 0.8), (6.2, 4.2, 0.8)],  # ↓ ≈ ↓ where it has ↑ ↑ ↓
        "deterministic_e": [(9.0, 4.1, 0.91)],  # one run
    }
    for row, seeds in values.items():
        for seed, (score, fid, top1) in enumerate(seeds):
            figures = {"is_classifier_digits_n50": score, "fid_classifier_digits_train_n50": fid, "top1_linear": top1}
            write_run(tmp_path, f"{row}-{seed}", **figures)
    (tmp_path / "base-9").mkdir()  # begun
    result = ablation.tabulate("table1_digits", [*values, "no_e"], [0, 1, 2], tmp_path)
    assert result["names"] == {
        "IS": "is_classifier_digits_n50", "FID": "fid_classifier_digits_train_n50", "probe": "top1_linear",
        "reconstruction": "reconstruction_error_relative",
    }  # fmt: skip
    for row, seeds in values.items():
        for i, column in enumerate(("IS", "FID", "probe")):
            cell, expected = (
                result["rows"][row]["figures"][column],
                np.array(seeds)[:, i] * (100 if column == "probe" else 1),
            )
            assert cell["n"] == len(seeds) and cell["mean"] == pytest.approx(expected.mean())
            assert cell["sd"] is None if len(seeds) == 1 else cell["sd"] == pytest.approx(expected.std(ddof=1))
    verdicts = {
        row: [result["rows"][row]["changes"][c]["verdict"] for c in ("IS", "FID", "probe")]
        for row in values
        if row != "base"
    }
    assert verdicts == {
        "no_unaries": ["agrees", "agrees", "within our spread"],
        "x_unary_only": ["DISAGREES", "within our spread", "agrees"],
        "deterministic_e": ["one run"] * 3,
    }
    assert result["rows"]["no_unaries"]["changes"]["IS"]["difference"] == pytest.approx(6.1333 - 7.1, abs=1e-3)
    assert result["signs"] == {"agrees": 3, "within our spread": 2, "DISAGREES": 1, "one run": 3}
    assert result["missing"]["no_e-0"] == "not there yet" and "deterministic_e-1" in result["missing"]
    text = ablation.markdown(result)
    assert re.search(r"\| Base \(`base`\) +\| 3 +\| 7\.1 ± 0\.1 +\| 4\.2 ± 0\.2 +\| 91 ± 1 +\| 0\.5 ± 0 ", text)
    assert "↓ -1, ↑ +0.53: DISAGREES" in text and "- missing: no_e-2, not there yet" in text


def test_figures_of_the_probe_are_taken_where_most_runs_have_them(tmp_path):
    for seed in (0, 1):
        write_run(
            tmp_path, f"base-{seed}", is_classifier_digits_n50=2.0, fid_classifier_digits_train_n50=3.0, top1_linear=0.5
        )
        rows = [
            {"encoder": "trained", "feature": "AvePool", "labels": 1.0, "protocol": "linear, full batch",
             "figures": {"top1": {"mean": 0.75}}},
            {"encoder": "untrained", "feature": "AvePool", "labels": 1.0, "protocol": "linear, full batch",
             "figures": {"top1": {"mean": 0.25}}},
        ]  # fmt: skip
        figures = {
            "fid_inception2015_train_n10000": 30.0 + seed, "fid_real_inception2015_test_train_n359": 1.0,
            "fid_inception2015_test_n10000": 77.0, "is_inception2015_n10000": 20.0, "is_real_inception2015_n99": 99.0,
        }  # fmt: skip
        probe = {"rows": rows, "generation": {"results": [{"figures": figures}]}}
        (tmp_path / f"base-{seed}" / "probe.json").write_text(json.dumps(probe))
    result = ablation.tabulate("table1_digits", ["base"], [0, 1], tmp_path)
    means = {column: cell["mean"] for column, cell in result["rows"]["base"]["figures"].items()}
    assert means == {"IS": 20.0, "FID": 30.5, "probe": 75.0, "reconstruction": 0.5}


def test_figures_taken_at_another_size_are_not_compared(tmp_path):
    for row in ("high_res_e", "low_res_g"):
        write_run(
            tmp_path, f"{row}-0", is_classifier_digits_n50=2.0, fid_classifier_digits_train_n50=3.0, top1_linear=0.5
        )
    changes = ablation.tabulate("table1_cifar", ["high_res_e", "low_res_g"], [0], tmp_path)["rows"]["low_res_g"][
        "changes"
    ]
    assert set(changes) == {"probe"}


@pytest.mark.soak
def test_killed_and_begun_again(tmp_path):
    """Train for real at toy sizes: kill the queue in mid-run, and start the same command again."""
    command = [
        ROOT / "benchmarks" / "ablation.py", "--rows", "base", "no_e", "--seeds", "0", "--images", "2400",
        "--evaluate-images", "200", "--root", tmp_path / "runs", "--at-once", "2",
        "--", *[f for f in TINY_RUN if "images=240" not in f],
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not list(tmp_path.glob("runs/base-0/checkpoints/0*")):
        time.sleep(0.5)
        assert process.poll() is None
    process.kill()  # its runs live on, and are waited for
    out, _ = launch(*command, timeout=900)
    result = json.loads((tmp_path / "runs" / "table.json").read_text())
    assert result["missing"] == {} and set(result["rows"]["no_e"]["figures"]) == {"IS", "FID"}
    assert set(result["rows"]["base"]["figures"]) == {"IS", "FID", "probe", "reconstruction"}
    assert result["rows"]["no_e"]["changes"]["FID"]["verdict"] == "one run"
    assert "2 of them finished" in launch(*command)[0]
