"""Prepare a command before torch is imported: waiting threads sleep, and its text may go to a pipe that is closed."""

import os
import sys

# What OpenMP's threads do while they wait, in the words of all implementations, of GNU's, and of Intel's and LLVM's.
# Spinning threads take the cores from other processes: a run on a busy machine takes several times as long.
SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}


def let_waiting_threads_sleep() -> None:
    """Set OpenMP's waiting threads to sleep, here and in the processes that this one starts.

    Does nothing if the environment says how they wait; a variable that is set stays as it is. OpenMP reads them when
    torch is imported, so a command calls this first; `import bigbigan` alone leaves the environment as it is.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return
    for name, value in SLEEPING.items():
        os.environ.setdefault(name, value)


def print_and_leave(text: str) -> None:
    """Print what --help or --list asked for and end the program; a reader such as `head` may close the pipe early."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
    raise SystemExit(0)
