"""Combine the parts of all processes: sums, rows and decisions that are then the same on every process."""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from bigbigan.distributed.collectives import all_reduce, rank, world_size


def summed(part: Tensor) -> Tensor:
    """Return the sum of `part` over all processes, on its own device; `part` itself in a single process."""
    if world_size() == 1:
        return part
    if part.device.type == "cpu" and dist.get_backend() == "nccl":  # NCCL moves only tensors on GPUs
        return all_reduce(part.to("cuda")).to("cpu")
    return all_reduce(part.clone())


def gather_scattered(parts: list[tuple[np.ndarray, Tensor]], n: int) -> tuple[Tensor, np.ndarray]:
    """Gather rows that are spread over the processes. Returns (all rows by position, (m, ...), their positions, (m,)).

    parts: [(positions (k,) in 0 … n − 1, rows (k, ...))], at least one on every process. A position that no process has
    (an image that could not be read) is left out. Every process needs memory for n rows.
    """
    example = parts[0][1]
    whole = torch.zeros(n, *example.shape[1:], dtype=example.dtype)
    present = torch.zeros(n, dtype=torch.int32)
    for positions, rows in parts:
        at = torch.from_numpy(np.asarray(positions))
        whole[at], present[at] = rows.detach().cpu(), 1
    here = summed(present).numpy() > 0
    whole = summed(whole)
    return (whole if here.all() else whole[torch.from_numpy(here)]), np.flatnonzero(here)


def everywhere(condition: bool) -> bool:
    """Return whether `condition` holds on every process."""
    return int(summed(torch.tensor(int(condition)))) == world_size()


def shares(positions: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return this process's positions, every world-th from its rank on, in batches of at most `batch_size`."""
    mine = np.asarray(positions)[rank() :: world_size()]
    return [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
