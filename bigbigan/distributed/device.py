"""Copy to a device and read from it without making the host wait."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def default_on_cpu() -> Iterator[None]:
    """Create tensors on the CPU where a line names no device, whatever `torch.set_default_device` says.

    Functions of the API run in it, since they put each tensor where it belongs themselves; also a decorator.
    """
    if torch.get_default_device().type == "cpu":
        yield
    else:
        with torch.device("cpu"):
            yield


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host to `device`; a GPU copies from pinned memory while the host goes on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def mark_step(device: torch.device) -> None:
    """On XLA, run the operations recorded since the last call, so that every update is one graph, compiled once."""
    if device.type == "xla":
        import torch_xla

        torch_xla.sync()


class ScalarReader:
    """Read one scalar per iteration without a GPU sync: one iteration late, and immediately on a CPU."""

    def __init__(self):
        self._waiting: tuple[Tensor, torch.cuda.Event | None, object] | None = None

    def push(self, value: Tensor, what: object = None, wait: bool = False) -> list[tuple[float, object]]:
        """Take this iteration's value, (1,), and return the values that are known now, [(number, its `what`)].

        They are the previous iteration's and, on a CPU or with `wait`, this iteration's.
        what: anything that belongs to the value; it is handed back with the number.
        """
        event = None
        if value.is_cuda:  # to pinned memory
            value, event = value.to("cpu", non_blocking=True), torch.cuda.Event()
            event.record()
        waiting, self._waiting = [self._waiting] * (self._waiting is not None), (value, event, what)
        if wait or (value.device.type == "cpu" and event is None):
            waiting, self._waiting = [*waiting, self._waiting], None
        for _, passed, _ in waiting:
            if passed is not None:
                passed.synchronize()
        return [(number.item(), belongs) for number, _, belongs in waiting]
