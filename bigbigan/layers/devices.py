"""What keeps the host ahead of its device: copies and readings that wait for nothing."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """From the host to `device`; a GPU copies from pinned memory while the host goes on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Later:
    """A number of every iteration, read without making the host wait for the device: on a GPU one iteration late."""

    def __init__(self):
        self._waiting: tuple[Tensor, torch.cuda.Event] | None = None

    def exchange(self, value: Tensor) -> float:
        """Hand in this iteration's number, (1,), and get it back, or on a GPU the one before (0 at first)."""
        if value.device.type != "cuda":
            return value.item()
        before, event = self._waiting, torch.cuda.Event()
        here = torch.empty(1, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
        event.record()
        self._waiting = here, event
        if before is None:
            return 0.0
        before[1].synchronize()
        return before[0].item()
