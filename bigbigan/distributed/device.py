"""What keeps the host ahead of its device: copies and readings that wait for nothing."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """From the host to `device`; a GPU copies from pinned memory while the host goes on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def mark_step(device: torch.device) -> None:
    """On XLA: run what was recorded since the last time, so that every update is one graph, compiled once."""
    if device.type == "xla":
        import torch_xla

        torch_xla.sync()


class ScalarReader:
    """Numbers of every iteration, read without making the host wait for its device: on a CPU at once, else an iteration
    late."""

    def __init__(self):
        self._waiting: tuple[Tensor, torch.cuda.Event | None, object] | None = None

    def push(self, value: Tensor, what: object = None, wait: bool = False) -> list[tuple[float, object]]:
        """Hand in this iteration's number, (1,), and what belongs to it → those that are known now: of the iteration
        before, and of this one on a CPU, or if `wait`."""
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
