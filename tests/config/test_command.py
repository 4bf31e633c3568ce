"""A command lets waiting threads sleep, before torch is imported and unless the user says otherwise."""

import os
import subprocess
import sys

import pytest

from bigbigan.config.command import SLEEPING, let_waiting_threads_sleep
from tests.conftest import ROOT


@pytest.mark.parametrize("mine", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_the_users_choice_stays(mine, monkeypatch):
    for name in SLEEPING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(mine, "active")
    let_waiting_threads_sleep()
    assert {name: os.environ.get(name) for name in SLEEPING} == dict.fromkeys(SLEEPING) | {mine: "active"}


def clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in SLEEPING} | {"OMP_DISPLAY_ENV": "verbose"}


@pytest.mark.run
@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "bigbigan.train", "--run.trackers=nothing_of_the_kind"],
        ["bigbigan/train.py", "--run.trackers=nothing_of_the_kind"],
        ["-m", "eval_linear.probe", "nowhere"],
        ["-m", "eval_linear.cluster_labels", "nowhere", "--classes=2", "--out=x"],
        ["-m", "bigbigan.release.export", "nowhere", "x"],
        ["-m", "bigbigan.extract", "nowhere", "--out=x"],
        ["-m", "bigbigan.uses.demo", "nowhere"],
        ["-m", "bigbigan.uses.retrieval", "nowhere"],
    ],
    ids=lambda arguments: arguments[1 if arguments[0] == "-m" else 0],
)
def test_openmp_reads_that_waiting_threads_sleep(arguments):
    """OpenMP itself prints what it has read, when torch loads it."""
    said = subprocess.run([sys.executable, *arguments], env=clean(), cwd=ROOT, capture_output=True, text=True).stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in said and "GOMP_SPINCOUNT = '0'" in said and "Traceback" not in said, said


@pytest.mark.run
def test_importing_the_library_changes_no_environment():
    code = "import os; before = dict(os.environ); import bigbigan, bigbigan.api; assert dict(os.environ) == before"
    environment = clean() | {"KMP_DUPLICATE_LIB_OK": "True", "KMP_INIT_AT_FORK": "FALSE"}  # scikit-learn's, when absent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)
