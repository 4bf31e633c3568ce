"""Trainings to be killed, in processes forked from a server that has imported everything once: a start costs no
imports.

The calls by which a run writes are numbered as they happen; a `Fault` strikes at one of them, or at all.
"""

import contextlib
import errno
import functools
import json
import math
import multiprocessing
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import psutil  # accelerate needs it
from safetensors import SafetensorError

from bigbigan.metrics import Recipe
from bigbigan.training.writer import THREAD, CheckpointWriter
from tests.conftest import ROOT, TINY_RUN, check_marked

# The limits of time are those of a quiet machine, multiplied by this on a crowded one.
PATIENCE = float(os.environ.get("BIGBIGAN_PATIENCE", "1"))

# Smaller still than TINY_RUN: one block a stage, four iterations, a checkpoint after each.
SMALLEST = [
    *TINY_RUN, "--model.encoder_width=0.03125", "--model.encoder_blocks", "1", "1", "1", "1", "--model.mlp_width=8",
    "--model.encoder_mlp_width=8", "--run.images=96", "--run.checkpoint_every=24", "--run.sample_every=48",
    "--run.statistics_images=16", "--run.keep_checkpoints=2", "--run.probe=False",
]  # fmt: skip


@dataclass
class Fault:
    """at: number of the writing call, -1 for all.  how: "before", "half", "after" (SIGKILL), "fail" (an error),
    "slow".

    beside: number only the calls of the thread that writes checkpoints, which goes on beside training. Otherwise, so
    that the numbers of all calls are the same in each run, training waits for it.
    """

    at: int
    how: str
    beside: bool = False


def context():
    """multiprocessing's fork server with everything imported."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(
        ["tests.helpers.children", "tests.runs.test_distributed", "bigbigan.train", "eval_linear.quick"]
    )
    with mock.patch.dict(os.environ, {"PYTHONPATH": str(ROOT)}):
        forkserver.ensure_running()
    return found


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Run:
    """One training by `processes` processes, started at once.

    flags: of the command line.  fault: of process `faulty`.  roots: a --run.root for each process, if not `root` for
    all.
    absent: how many of them never start.
    """

    def __init__(
        self,
        root: Path,
        *flags: str,
        processes: int = 1,
        fault: Fault | None = None,
        faulty: int = 0,
        env: dict | None = None,
        roots: list[Path] | None = None,
        absent: int = 0,
    ):
        check_marked()
        self.folder, self.log = root / "run", root / "log"
        root.mkdir(parents=True, exist_ok=True)
        command = [*SMALLEST, "--run.name=run", *map(str, flags)]
        roots = roots or [root] * processes
        port, env = free_port(), {"BIGBIGAN_CACHE": str(root / "cache"), **(env or {})}
        self.processes = [
            context().Process(
                target=train,
                args=(
                    [*command, f"--run.root={roots[r]}"],
                    r,
                    processes,
                    port,
                    fault if r == faulty else None,
                    self.log,
                    env,
                ),
            )
            for r in range(processes - absent)
        ]
        self.log.write_text("")
        for process in self.processes:
            process.start()

    def wait(self, seconds: float = 120) -> list[int]:
        """→ the exit statuses; −9 of a killed process."""
        seconds *= PATIENCE
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.01, deadline - time.monotonic()))
        alive = [p for p in self.processes if p.exitcode is None]
        for process in alive:
            process.kill()
        assert not alive, f"still alive after {seconds} s\n{self.text()}"
        return [p.exitcode for p in self.processes]

    def lasts(self, seconds: float = 120 * PATIENCE, computing: float = math.inf) -> float:
        """Let it go on for so long, or until its first process has computed for so long, or ends → what that has
        computed.

        What a process computes, in seconds of a processor, does not depend on what else the machine does.
        """
        deadline, first, used = time.monotonic() + seconds, psutil.Process(self.processes[0].pid), 0.0
        while used < computing and time.monotonic() < deadline and any(p.exitcode is None for p in self.processes):
            with contextlib.suppress(psutil.Error):  # it is gone
                used = sum(first.cpu_times()[:2])
            time.sleep(0.01)
        return used

    def send(self, number: int, *ranks: int) -> None:
        for rank in ranks or range(len(self.processes)):
            if self.processes[rank].exitcode is None:
                os.kill(self.processes[rank].pid, number)

    def text(self) -> str:
        return self.log.read_text()

    def until(self, words: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds * PATIENCE
        while words not in self.text():
            assert time.monotonic() < deadline and any(p.exitcode is None for p in self.processes), self.text()
            time.sleep(0.01)


def finish(root: Path, *flags: str, **options) -> str:
    """Run to the end → what it said."""
    run = Run(root, *flags, **options)
    statuses = run.wait()
    assert set(statuses) == {0}, f"{statuses}\n{run.text()}"
    return run.text()


def train(command: list[str], rank: int, processes: int, port: int, fault: Fault | None, log: Path, env: dict) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    import torch

    from bigbigan.train import main

    multiprocessing.set_start_method("fork", force=True)  # of decoding workers: not this server's, but a script's own
    torch.set_num_threads(1)
    if processes > 1:
        group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        env = {**env, **group, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in env.items()})
    cheapen()
    if fault is not None and fault.at >= 0 and not fault.beside:
        wait_for_each_write()
    strike(fault or Fault(0, "count"), log.with_name("calls"))
    main(command)


def cheapen() -> None:
    """Make the extractor of one's own domain one of two steps, so that each evaluation can make it anew."""
    from bigbigan.metrics import own_classifier

    if own_classifier.Recipe is Recipe:
        own_classifier.Recipe = functools.partial(Recipe, width=0.03125, epochs=0, min_steps=2, batch_size=128)


def wait_for_each_write() -> None:
    """Let training wait for each checkpoint."""
    start = CheckpointWriter.start

    def start_and_wait(self, write):
        start(self, write)
        self.wait()

    CheckpointWriter.start = start_and_wait


def strike(fault: Fault, record: Path) -> None:
    """Number the calls by which a run writes, note their names and paths in `record`, and let `fault` strike.

    The calls of the thread that writes checkpoints are noted in a second file, "RECORD beside", too.
    """
    import shutil

    import bigbigan.metrics.own_classifier
    import bigbigan.metrics.reference
    import bigbigan.release.format
    import bigbigan.training.checkpoint
    import bigbigan.training.log
    import bigbigan.training.pictures

    record.write_text("")
    counted = 0

    def faulty(owner, name: str, torn=None, error=None):
        whole = getattr(owner, name)

        def call(*args, **options):
            nonlocal counted
            beside = threading.current_thread().name == THREAD
            counted += beside or not fault.beside
            for noted in [record] + [record.with_name(f"{record.name} beside")] * beside:
                with open(noted, "a") as file:
                    print(name, *(a for a in args if isinstance(a, Path)), file=file)
            if fault.beside and not beside:
                return whole(*args, **options)
            if fault.at not in (counted, -1) or fault.how == "count":
                return whole(*args, **options)
            if fault.how == "slow":
                time.sleep(0.03)
            if fault.how == "fail":
                raise (error or OSError)(*([] if error else [errno.ENOSPC]), "No space left on device")
            if fault.how == "half" and torn is not None:
                torn(whole, *args, **options)
            result = whole(*args, **options) if fault.how in ("after", "slow") else None
            if fault.how != "slow":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, call)

    def halved(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    def torn_file(write, tensors, path, *args, **options):
        write(tensors, path, *args, **options)
        halved(Path(path))

    def torn_picture(write, path, *args):
        write(path, *args)
        halved(path)

    def torn_text(write, path, text, *args, **options):
        write(path, text[: len(text) // 2], *args, **options)

    def torn_line(_write, log, kind, values, images_seen, iteration):
        with open(log.stats, "a") as file:
            file.write(json.dumps({"images_seen": images_seen, "iteration": iteration, "kind": kind} | values)[:20])

    def torn_folder(_remove, folder, *_args, **_options):
        sorted(Path(folder).iterdir())[0].unlink()

    for owner in (
        bigbigan.training.checkpoint,
        bigbigan.release.format,
        bigbigan.metrics.own_classifier,
        bigbigan.metrics.reference,
    ):
        faulty(owner, "save_file", torn_file, SafetensorError)
    faulty(bigbigan.training.pictures, "write_whole", torn_picture)
    faulty(bigbigan.training.log.RunLog, "write", torn_line)
    faulty(Path, "write_text", torn_text)
    faulty(shutil, "rmtree", torn_folder)
    for name in ("fsync", "rename", "replace", "link"):
        faulty(os, name)
