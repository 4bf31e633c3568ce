"""Signals and time limits ask a run to stop; all processes agree on it."""

import os
import signal
import threading
import time
from collections.abc import Callable

import torch

from bigbigan.distributed import ScalarReader, all_reduce, world_size

FIRST = (
    b"stopping after this iteration, with a checkpoint; Ctrl-C again ends the run at once, and loses what came after "
    b"the checkpoint before\n"
)


class StopRequest:
    """Receives requests to stop: SIGTERM, a terminal that is closed (SIGHUP), Ctrl-C, the time limit.

    The run then ends after its iteration; a second Ctrl-C ends it at once.
    minutes: the time limit, 0 for none, counted from `started`, a time of the monotonic clock.
    All processes must call `agreed` after every iteration, and so stop together.
    """

    def __init__(self, minutes: float = 0.0, started: float = 0.0):
        self.signal = 0
        self.asked = False
        self._abandonable = False
        self._noted = ScalarReader()
        hangup = getattr(signal, "SIGHUP", None)  # a terminal that is closed; nohup ignores it, and so do we then
        heard = [] if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN else [hangup]
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT, *heard)}
        left = max(0.0, started + 60 * minutes - time.monotonic())
        self._timer = threading.Timer(left, signal.raise_signal, (signal.SIGTERM,))
        self._timer.daemon = True
        if minutes:
            self._timer.start()

    def _note(self, number: int, _frame) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT and os.environ.get("RANK", "0") == "0":  # once for all processes of a launch
            os.write(2, FIRST)  # which a signal handler may call at any moment
        self.signal = self.signal or number
        if self._abandonable:
            self._abandonable = False
            raise _Abandoned

    def agreed(self, device: torch.device) -> bool:
        """Return whether any process was asked to stop; several processes on GPUs learn of it an iteration later."""
        if world_size() == 1:
            self.asked = self.signal > 0
        else:
            noted = all_reduce(torch.full((1,), float(self.signal > 0), device=device))
            self.asked = any(number for number, _ in self._noted.push(noted))
        return self.asked

    def unless_asked(self, work: Callable[[], None]) -> None:
        """Call `work`, which the next start can repeat; a request to stop abandons it at once."""
        try:
            self._abandonable = True
            if not self.signal:
                work()
            self._abandonable = False
        except _Abandoned:
            pass

    @property
    def status(self) -> int:
        """Return the exit status of a stopped run: 130 after Ctrl-C, as shells do, else 75 (EX_TEMPFAIL of sysexits:
        try again).

        0 under torchrun, which turns any other status into 1, takes the stop for a failure and starts the run again.
        """
        if "TORCHELASTIC_RUN_ID" in os.environ:
            return 0
        return 128 + signal.SIGINT if self.signal == signal.SIGINT else 75

    def restore(self) -> None:
        """Give the signals back to their handlers."""
        self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Abandoned(BaseException):
    """Raised out of work that a request to stop abandons.

    It is no `Exception`, so that code which skips unreadable images does not catch it.
    """
