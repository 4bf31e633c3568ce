"""The commands at a terminal and away from the clone: Ctrl-C, --dry-run, every way to start them."""

import os
import pty
import re
import select
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY_RUN, launch
from tests.helpers.children import PATIENCE

CLONE_ONLY = re.compile(
    r"bigbigan/train\.py|(?<!tests/)eval_linear/\w+\.py|accelerate launch(?! -m)(?!.*-m bigbigan\.train)"
)
SHOWN_ONCE = {"docs/launching.md", "benchmarks/results.py", "benchmarks/xla_cpu.sh"}


def texts() -> list[Path]:
    folders = ("bigbigan", "eval_linear", "configs", "docs", "benchmarks")
    found = [
        p
        for folder in folders
        for ending in ("py", "yaml", "md", "html", "sh")
        for p in (ROOT / folder).rglob(f"*.{ending}")
    ]
    return [p for p in found if p.relative_to(ROOT).as_posix() not in SHOWN_ONCE]


def test_no_text_names_a_command_that_needs_the_clones_folder():
    assert len(texts()) > 200
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if CLONE_ONLY.search(line) and "`accelerate launch`" not in line
    ]
    assert not lines, "\n".join(["write bigbigan-train and bigbigan-probe, or python -m:", *lines])


def test_the_clones_commands_are_shown_in_one_page():
    page = (ROOT / "docs" / "launching.md").read_text()
    assert all(command in page for command in ("bigbigan/train.py", "eval_linear/probe.py", "accelerate launch"))


def at_a_terminal(command: list[str], until: Path, cwd: Path) -> tuple[int, str]:
    """Run a command at a terminal and press Ctrl-C when the file `until` is there → (status, what it printed)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(cwd)
        os.execvpe(command[0], command, environment)
    text, pressed, deadline = b"", False, time.monotonic() + 240 * PATIENCE
    while time.monotonic() < deadline:
        if until.exists() and not pressed:
            os.write(terminal, b"\x03")
            pressed = True
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            text += os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
    assert pressed, text.decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, text.decode(errors="replace")


@pytest.mark.run
@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_ends_with_a_sentence_and_no_traceback(processes, tmp_path):
    endless = ["--run.images=100000000", "--run.checkpoint_every=100000000", "--run.sample_every=100000000"]
    stats = tmp_path / "runs" / "run" / "stats.jsonl"
    started = [sys.executable, "-m", "bigbigan.train", f"--processes={processes}"]
    status, text = at_a_terminal([*started, *TINY_RUN, *endless, "--run.name=run"], stats, tmp_path)
    assert status == 130 and "Traceback" not in text
    assert text.count("the same command goes on from") == 1 and "stopped at" in text
    assert text.count("stopping after this iteration, with a checkpoint; Ctrl-C again") == 1
    assert list((tmp_path / "runs" / "run" / "checkpoints").iterdir())


@pytest.mark.run
def test_ctrl_c_while_it_loads_is_a_sentence_too(tmp_path):
    code = (
        "import builtins, os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # nohup and `&` in a script have it ignored
        "load = builtins.__import__\n"
        "def interrupted(name, *rest, **options):\n    if name == 'torch': os.kill(os.getpid(), signal.SIGINT)\n"
        "    return load(name, *rest, **options)\n"
        "builtins.__import__ = interrupted\nfrom bigbigan.train import main\nmain([])"
    )
    out, err = launch("-c", code, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, code=130)
    assert (out, err) == (
        "",
        "interrupted; the same command goes on from the newest checkpoint, or from the beginning without one\n",
    )


@pytest.mark.run
def test_a_dry_run_prints_its_bill_and_writes_nothing(tmp_path):
    flags = [*TINY_RUN, "--run.threads=0", "--dry-run"]
    out, _ = launch("-m", "bigbigan.train", *flags, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    for row in (
        r"threads +\d+ \(", r"work +[\d.]+ MFLOP an iteration of 24 images, [\d.]+ .FLOP to the end",
        r"speed +[\d,]+ images/s here, over \d iterations", r"time +\S+ (s|min|h .*) to the end",
        r"memory +peak [\d.]+ GiB",
        r"disk +[\d.]+ MiB a checkpoint × 3 kept \+ [\d.]+ MiB of release = ",
    ):  # fmt: skip
        assert re.search(row, out), f"{row}\n{out}"
    assert "one forward" in out and "bn_crelu_feat" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.run
def test_a_dry_run_of_what_does_not_fit_makes_no_iteration(tmp_path, monkeypatch):
    from bigbigan.training import bill
    from tests.conftest import train

    monkeypatch.setattr(bill, "measure", lambda *_: pytest.fail("an iteration was made"))
    monkeypatch.setattr(bill, "free_memory", lambda device: 1e6)
    out, _ = train(tmp_path, "--dry-run", "--run.name=a")
    assert re.search(
        r"speed +not measured: it needs at least [\d.]+ GiB, found 0.00 GiB free; raise --data.chunks", out
    )
    monkeypatch.undo()
    monkeypatch.setattr(bill, "measure", lambda *_: pytest.fail("an iteration was made"))
    monkeypatch.setattr(bill, "product_rate", lambda trainer: 1e3)
    out, _ = train(tmp_path, "--dry-run", "--run.name=a")
    assert re.search(r"speed +not measured: by its FLOPs an iteration would take about .* on this device", out)
    assert re.search(r"time +about .* to the end, at 20% of this device's rate of matrix products", out)


@pytest.mark.run
def test_the_probe_answers_help_and_mistyped_flags(tmp_path):
    environment = {"PYTHONPATH": str(ROOT)}
    for command in (("-m", "eval_linear.probe"), (ROOT / "eval_linear" / "probe.py",)):
        out, _ = launch(*command, "--help", cwd=tmp_path, env=environment)
        assert out.startswith("Measure a model") and "--help-all" in out and len(out.splitlines()) < 30
    _, err = launch("-m", "eval_linear.probe", "x", "--data.pth", "y", cwd=tmp_path, env=environment, code=2)
    assert err == "error: --data.pth: expected a setting; did you mean --data.path? --help-all lists them all\n"


def test_the_settings_in_the_probes_help_exist():
    from eval_linear.command import SETTINGS, names
    from eval_linear.probe import Probe

    known = {f"--{name}" for name in names(Probe)} | {"--help-all"}
    assert {left.split()[0] for left, _ in SETTINGS} <= known
