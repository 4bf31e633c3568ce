"""`--processes N`: one exit status of several processes, and no process that outlives the others."""

import signal
import sys
import time

import pytest

from bigbigan.errors import ConfigError
from bigbigan.training import processes


@pytest.mark.parametrize(
    ("statuses", "whole"),
    [
        ([0, 0], 0), ([75, 75], 75), ([130, 75], 130), ([75, 130], 130), ([1, 2], 1), ([0, 2], 2), ([75, 1], 1),
        ([-9, 1], 1), ([1, -9], 1), ([-15, -15], 143), ([-2, -2], 130), ([-11, 0], 139),
        ([-6, 0], 1),
    ],
)  # fmt: skip
def test_one_status_for_all(statuses, whole, capsys):
    assert processes._status(statuses) == whole
    assert ("SIGKILL, which also means a lack of memory" in capsys.readouterr().err) == (-9 in statuses)


@pytest.mark.parametrize("given", [["--processes", "2"], ["--processes=2"]])
def test_its_option_is_not_passed_on(given):
    assert processes.without_option(["--run.seed", "2", *given, "--dry-run"], "--processes") == [
        "--run.seed", "2", "--dry-run",
    ]  # fmt: skip


def test_another_launcher_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="--processes 2: expected no other launcher, found that one has started 4"):
        processes.run_processes(tmp_path / "none.py", 2, [])


@pytest.mark.run
def test_each_process_knows_its_place(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(
        "import os, sys, pathlib\nnames = 'RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR'.split()\n"
        "pathlib.Path(sys.argv[1], os.environ['RANK']).write_text(' '.join(os.environ[n] for n in names))\n"
    )
    assert processes.run_processes(script, 2, [str(tmp_path)]) == 0
    assert [(tmp_path / str(r)).read_text() for r in (0, 1)] == [f"{r} {r} 2 2 127.0.0.1" for r in (0, 1)]


@pytest.mark.run
def test_those_who_wait_for_a_failed_one_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.5)
    script = tmp_path / "child.py"
    script.write_text("import os, sys, time\nsys.exit(1) if os.environ['RANK'] == '1' else time.sleep(600)\n")
    started = time.monotonic()
    assert processes.run_processes(script, 2, []) == 1 and time.monotonic() - started < 60


@pytest.mark.run
def test_sigterm_is_passed_on_and_their_status_kept(tmp_path):
    import subprocess

    child = tmp_path / "child.py"
    child.write_text(
        "import os, signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\nos.write(1, b'on\\n')\n"
        "time.sleep(600)\n"
    )
    code = (
        "import sys, pathlib; from bigbigan.training.processes import run_processes\n"
        "sys.exit(run_processes(pathlib.Path(sys.argv[1]), 2, []))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(child)], stdout=subprocess.PIPE, text=True)
    assert [parent.stdout.readline() for _ in range(2)] == ["on\n", "on\n"]
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(60) == 75
