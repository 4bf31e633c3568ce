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


def check_finite_weights(network: torch.nn.Module, state_of: int, checkpoint: str) -> None:
    """Raise TrainingFailure if a parameter is NaN or infinite, so that no broken state replaces a good checkpoint."""
    parameters = dict(network.named_parameters())
    norms = torch.stack([norm.float() for norm in torch._foreach_norm(list(parameters.values()))])
    if not bool(norms.isfinite().all()):
        name = next(n for n, norm in zip(parameters, norms.tolist(), strict=True) if not math.isfinite(norm))
        raise TrainingFailure(
            f"at {state_of:,} images the weight {name} is not finite. Nothing was saved since {checkpoint}; "
            "expected finite numbers: lower the rates (--optim.*_lr), or train in float32 (--run.precision float32)"
        )


class StopRequest:
    """SIGTERM and Ctrl-C ask a run to end after the iteration at hand; a second Ctrl-C ends it at once.

    Processes agree on stopping by `agreed`, which all must call after every iteration.
    """

    def __init__(self):
        self.signal = 0
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, _frame) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def agreed(self, device: torch.device) -> bool:
        """Whether any process was asked to stop."""
        if world_size() == 1:
            return bool(self.signal)
        noted = all_reduce(torch.tensor([float(self.signal > 0)], device=device))
        return bool(noted.item())

    @property
    def status(self) -> int:
        """The exit status of a stopped run, by the shell's custom 128 + signal."""
        return 128 + (self.signal or signal.SIGTERM)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
