"""Write checkpoints beside training: a thread writes a copy of the state, one at a time."""

import threading
from collections.abc import Callable
from pathlib import Path

THREAD = "checkpoint writer"  # its name


class CheckpointWriter:
    """Calls functions that write a checkpoint in a thread, one at a time, and raises their errors in the main thread.

    newest: path of the newest checkpoint that is complete, or None.
    A write enters no collective: those stay on the main thread. The thread is a daemon, so that a second Ctrl-C ends
    the process at once; what it leaves half-written bears no checkpoint's name.
    """

    def __init__(self):
        self.newest: Path | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, write: Callable[[], Path]) -> None:
        """Begin to write, once the write before is complete. Raises the error of that one.

        write: returns the path of the checkpoint.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(write,), name=THREAD, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a write that failed, unless it was raised before; wait for nothing."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until no write is under way. Raises the error of a write that failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _run(self, write: Callable[[], Path]) -> None:
        try:
            self.newest = write()
        except BaseException as error:  # the main thread raises it
            self._error = error
