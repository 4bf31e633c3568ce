"""What watches a run."""

import math
import signal

import torch

from bigbigan.layers import all_reduce, world_size


class TrainingFailure(RuntimeError):
    """The run cannot go on; the message says what was found and from where to go on."""


def check_finite(values: dict[str, float], images_seen: int, checkpoint: str) -> None:
    """Raise TrainingFailure if a logged value is NaN or infinite."""
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise TrainingFailure(
            f"at {images_seen:,} images {', '.join(wrong)} became {values[wrong[0]]}: expected finite numbers. "
            f"Nothing was saved since {checkpoint}; lower the rates (--optim.*_lr), or train in float32 (--run.precision float32)"
        )


class StopRequest:
    """SIGTERM and Ctrl-C ask a run to end after the iteration at hand; a second Ctrl-C ends it at once.

    Processes agree on stopping by `agreed`, which all must call after the same iterations.
    """

    def __init__(self):
        self.signal = 0
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, _frame) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def agreed(self, iteration: int, device: torch.device) -> bool:
        """Whether any process was asked to stop; among several processes it is settled every eighth iteration."""
        if world_size() == 1:
            return bool(self.signal)
        if iteration % 8:
            return False
        noted = all_reduce(torch.tensor([float(self.signal > 0)], device=device))
        return bool(noted.item())

    @property
    def status(self) -> int:
        """The exit status of a stopped run, by the shell's custom 128 + signal."""
        return 128 + (self.signal or signal.SIGTERM)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
