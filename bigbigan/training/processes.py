"""Start several processes of one run on this machine: `bigbigan-train --processes N`.

They get the variables by which torchrun's processes know each other. Unlike torchrun and `accelerate launch`, this
keeps the exit statuses of docs/launching.md, and Ctrl-C ends it without a traceback.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from bigbigan.errors import ConfigError

GRACE = 30  # seconds that the other processes have to end by themselves when one of them failed
STOPPED = (128 + signal.SIGINT, 75)  # exit statuses of a run that was asked to stop, with a checkpoint


NEXT = "the same command goes on from the newest checkpoint"  # what follows the death of a process


def run_processes(script: Path, count: int, arguments: list[str], after: str = NEXT) -> int:
    """Run `script` with `arguments` as `count` processes, wait for them, and return the exit status of the whole.

    Ctrl-C and a hang-up reach them from the terminal, which signals all; SIGTERM is passed on. Raises ConfigError under
    another launcher.  after: what the message about a process that was killed says of the next start.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(
            f"--processes {count}: expected no other launcher, found that one has started "
            f"{os.environ['WORLD_SIZE']} processes; leave one of the two out"
        )
    command, group = [sys.executable, str(script), *arguments], _group(count)
    waited_out = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        waited_out.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in waited_out}
    processes = [
        subprocess.Popen(command, env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]
    signal.signal(signal.SIGTERM, lambda number, _: [process.send_signal(number) for process in processes])
    try:
        _wait(processes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return _status([process.returncode for process in processes], after)


def without_option(arguments: list[str], name: str) -> list[str]:
    """Return a command line without an option and its value, given as `--name VALUE` or `--name=VALUE`."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument != name and not argument.startswith(f"{name}="):
            kept.append(argument)
        skip = argument == name
    return kept


def _group(count: int) -> dict[str, str]:
    """Return the variables of a group of `count` processes that meet at a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    size = str(count)
    return {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _wait(processes: list[subprocess.Popen]) -> None:
    """Wait until all have ended; `GRACE` seconds after one has failed, kill those that still wait for it."""
    failed_at = None
    while None in (statuses := [process.poll() for process in processes]):
        failed = any(status not in (None, 0, *STOPPED) for status in statuses)
        failed_at = failed_at or (time.monotonic() if failed else None)
        if failed_at and time.monotonic() > failed_at + GRACE:
            for process in processes:
                process.kill()
        time.sleep(0.05)


def _status(statuses: list[int], after: str = NEXT) -> int:
    """Return one exit status for all: that of the first failure, else of a stop, else 0; 1 after a signal's death."""
    for rank, status in enumerate(statuses):
        if status < 0 and -status not in (signal.SIGTERM, signal.SIGINT):
            print(
                f"error: process {rank} of {len(statuses)} was ended by {signal.Signals(-status).name}"
                f"{', which also means a lack of memory' * (-status == signal.SIGKILL)}; {after}",
                file=sys.stderr,
            )
    lost = (-signal.SIGKILL, -signal.SIGABRT)  # NCCL aborts a process whose others are gone
    statuses = [1 if status in lost else 128 - status if status < 0 else status for status in statuses]
    failures = [status for status in statuses if status not in (0, *STOPPED)]
    return next(iter([*failures, *(status for status in STOPPED if status in statuses)]), 0)
