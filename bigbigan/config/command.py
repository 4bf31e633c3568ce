"""Prepare a command before torch is imported: waiting threads sleep, memory is kept, and its text may go to a pipe that
is closed."""

import ctypes
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

# What OpenMP's threads do while they wait, in the words of all implementations, of GNU's, and of Intel's and LLVM's.
# Spinning threads take the cores from other processes: a run on a busy machine takes several times as long.
SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}

# What glibc does with freed memory, by the numbers of its mallopt(3): tensors of up to 32 MiB, the most it takes, come
# from the process's own memory, which is never given back. By default an iteration gives the memory of its tensors back
# and fetches it anew, page by page: the kernel worked 7 % of the time of a `digits` iteration for that, and 10 % of one
# of `bigbigan/cifar10_cpu`.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
KEEPING = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 64 << 20}


def prepare_process() -> None:
    """Let waiting threads sleep, freed memory stay and text pass; a command calls this before torch is imported.

    Ctrl-C while it is imported ends the command with one word.
    """
    sys.excepthook = _in_a_word
    let_text_pass()
    let_waiting_threads_sleep()
    keep_freed_memory()


def let_text_pass() -> None:
    """Write what the terminal's encoding lacks as an escape, and replace stdout or stderr that was closed (`2>&-`).

    Without it `×` would end a program where the locale is ASCII, and so would `sys.stderr.isatty()` where it is None.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _in_a_word(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors for the next ones, in this process. Where the C library is not glibc: nothing.

    Does nothing either if the environment says something of glibc's memory (MALLOC_..._, GLIBC_TUNABLES).
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    for parameter, value in KEEPING.items() if mallopt is not None else ():
        mallopt(parameter, value)


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
    """Print what --help or --list asked for and end the program."""
    let_text_pass()
    say(text)
    raise SystemExit(0)


def say(text: str) -> None:
    """Print a text; that nobody reads it, as after `| head`, is no error."""
    with unless_nobody_reads():
        print(text, flush=True)


@contextmanager
def unless_nobody_reads(descriptor: int = 1) -> Iterator[None]:
    """Drop what is printed inside, and all later text for `descriptor`, if its pipe or terminal is closed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), descriptor)  # or Python complains when it ends
