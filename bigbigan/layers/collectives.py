"""The two collective operations the networks need, the same on every backend (gloo, NCCL) and in a lone process."""

from contextlib import contextmanager

import torch
import torch.distributed as dist

_alone = False


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


def all_reduce(tensor: torch.Tensor) -> torch.Tensor:
    """Sum `tensor` over all processes, in place; a no-op in a lone process."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_rows(row: torch.Tensor) -> torch.Tensor:
    """(C,) on each of P processes → (P, C) on all of them, in one all-reduce (each process adds its row to zeros)."""
    rows = row.new_zeros(world_size(), row.numel())
    rows[rank()] = row
    return all_reduce(rows)
