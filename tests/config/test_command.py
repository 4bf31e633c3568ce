"""A command lets waiting threads sleep and keeps freed memory, before torch is imported and unless the user says
otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from bigbigan.config.command import SLEEPING, let_text_pass, let_waiting_threads_sleep
from tests.conftest import ROOT, launch


@pytest.mark.parametrize("mine", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_the_users_choice_stays(mine, monkeypatch):
    for name in SLEEPING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(mine, "active")
    let_waiting_threads_sleep()
    assert {name: os.environ.get(name) for name in SLEEPING} == dict.fromkeys(SLEEPING) | {mine: "active"}


def clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in SLEEPING} | {"OMP_DISPLAY_ENV": "verbose"}


COMMANDS = [
    ("-m", "bigbigan.train", "--run.trackers=nothing_of_the_kind"),
    ("bigbigan/train.py", "--run.trackers=nothing_of_the_kind"),
    ("-m", "eval_linear.probe", "nowhere"),
    ("-m", "eval_linear.cluster_labels", "nowhere", "--classes=2", "--out=x"),
    ("-m", "bigbigan.release.export", "nowhere", "x"),
    ("-m", "bigbigan.extract", "nowhere", "--out=x"),
    ("-m", "bigbigan.uses.demo", "nowhere"),
    ("-m", "bigbigan.uses.retrieval", "nowhere"),
]

# Starts a command as Python does, and ends it where it asks for torch, with what the environment says there.
UNTIL_TORCH = """
import os, runpy, sys
class Stop:
    def find_spec(module, path=None, target=None):
        if module == "torch":
            names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"
            print(*(os.environ.get(name) for name in names), flush=True)
            os._exit(7)
sys.meta_path.insert(0, Stop)
kind, *sys.argv = sys.argv[1:]
sys.path.insert(0, os.getcwd() if kind == "-m" else os.path.dirname(os.path.abspath(sys.argv[0])))
if kind == "-m":
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.run
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_waiting_threads_sleep_before_torch_is_loaded(arguments):
    arguments = arguments if arguments[0] == "-m" else ("path", *arguments)
    command = [sys.executable, "-c", UNTIL_TORCH, *arguments]
    found = subprocess.run(command, env=clean(), cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (7, "PASSIVE 0 0\n", "")


@pytest.mark.run
def test_openmp_reads_that_waiting_threads_sleep():
    """OpenMP itself prints what it has read, when torch loads it."""
    command = [sys.executable, "bigbigan/train.py", "--run.trackers=nothing_of_the_kind"]
    said = subprocess.run(command, env=clean(), cwd=ROOT, capture_output=True, text=True).stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in said and "GOMP_SPINCOUNT = '0'" in said and "Traceback" not in said, said


@pytest.mark.run
def test_importing_the_library_changes_no_environment():
    libraries = "import os, sklearn, torch._dynamo"  # which set variables of their own
    code = f"{libraries}; before = dict(os.environ); import bigbigan, bigbigan.api; assert dict(os.environ) == before"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=clean())


# Frees and takes 8 MiB a hundred times: 2,048 pages each, if they are given back. By default glibc gives them back or
# not, as they happen to lie; here it begins by giving back whatever is larger than 128 KiB (M_MMAP_THRESHOLD, -3).
PAGES = """
import ctypes, resource, sys
from bigbigan.config import command
ctypes.CDLL(None).mallopt(-3, 131072)
if sys.argv[1:]:
    command.prepare_process()
import torch
x = torch.ones(2**21)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(200):
    if i == 100:
        before = faults()
    kept = [x + j for j in range(3)]  # as an iteration: some tensors at once, and none of them after it
    del kept
print(faults() - before)
"""


def pages(*arguments: str, **environment: str) -> int:
    env = {k: v for k, v in clean().items() if not k.startswith(("MALLOC_", "GLIBC_"))} | environment
    env.pop("OMP_DISPLAY_ENV")
    done = subprocess.run([sys.executable, "-c", PAGES, *arguments], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.run
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory in ways of their own")
def test_the_memory_of_freed_tensors_is_kept():
    mine = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
    found = {"kept": pages("prepared"), "not kept": pages(), "the user's": pages("prepared", **mine)}
    print(found)
    assert found["kept"] < 10_000 and min(found["not kept"], found["the user's"]) > 20_000, found


@pytest.mark.run
def test_text_passes_where_the_encoding_lacks_its_signs_and_where_a_stream_is_closed(monkeypatch):
    out, _ = launch("bigbigan/train.py", "--list", env={"PYTHONIOENCODING": "ascii"})
    assert "digits" in out and out.isascii()
    for columns in ("1", "4"):
        out, _ = launch("bigbigan/train.py", "--help-all", env={"COLUMNS": columns}, timeout=60)
        assert "--run.name" in out
    monkeypatch.setattr(sys, "stderr", None)
    let_text_pass()
    assert not sys.stderr.isatty() and print("lost", file=sys.stderr) is None
