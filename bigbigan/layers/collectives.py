"""The few collective operations there are, the same on every backend (gloo, NCCL) and in a lone process."""

from collections.abc import Iterable
from contextlib import contextmanager

import torch
import torch.distributed as dist

_alone = False


class LostProcess(RuntimeError):
    """Another process of the run is gone, or silent for longer than the group's timeout."""


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _alone else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() and not _alone else 0


@contextmanager
def alone():
    """What is computed in this context is this process's own affair, whatever group it belongs to: no collective is entered."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


@contextmanager
def _together():
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's errors have no narrower type in common
        raise LostProcess(
            "expected all processes of the run at a common step, found one gone, or silent for longer than --run.timeout "
            f"({str(error).strip().splitlines()[0]})"
        ) from error


def all_reduce(tensor: torch.Tensor) -> torch.Tensor:
    """Sum `tensor` over all processes, in place; a no-op in a lone process. Raises LostProcess."""
    if world_size() > 1:
        with _together():
            dist.all_reduce(tensor)
    return tensor


def all_rows(row: torch.Tensor) -> torch.Tensor:
    """(C,) on each of P processes → (P, C) on all of them, in one all-reduce (each process adds its row to zeros)."""
    rows = row.new_zeros(world_size(), row.numel())
    rows[rank()] = row
    return all_reduce(rows)


@torch.no_grad()
def copy_from_main(tensors: Iterable[torch.Tensor]) -> None:
    """Give every process the main process's values, in place; a no-op in a lone process. Raises LostProcess."""
    if world_size() > 1:
        for tensor in tensors:
            with _together():
                packed = tensor.contiguous()
                dist.broadcast(packed, 0)
            tensor.copy_(packed)


def barrier(device: torch.device | str = "cpu") -> None:
    """Wait for all processes. Raises LostProcess."""
    all_reduce(torch.zeros(1, device=device))
