"""Provide the few collectives that training needs, the same on every backend (gloo, NCCL) and in a single process."""

from collections.abc import Iterable
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bigbigan.errors import LostProcess

_alone = False


def world_size() -> int:
    """Return the number of processes; 1 without a process group, and within `local_only`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _alone else 1


def rank() -> int:
    """Return this process's number, from 0; 0 without a process group, and within `local_only`."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() and not _alone else 0


@contextmanager
def local_only():
    """Run code on this process alone: within the context no collective is entered, whatever the process group."""
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
            "expected all processes of the run at a common step, found one gone, or silent for longer than "
            f"--run.timeout ({str(error).strip().splitlines()[0]})"
        ) from error


def all_reduce(tensor: torch.Tensor) -> torch.Tensor:
    """Sum `tensor` over all processes, in place; do nothing in a single process. Raises LostProcess."""
    if world_size() > 1:
        with _together():
            dist.all_reduce(tensor)
    return tensor


def all_gather_rows(row: torch.Tensor) -> torch.Tensor:
    """Gather (C,) of each of P processes into (P, C) on all of them.

    One all-reduce does it: each process adds its row to zeros, which every backend can.
    """
    rows = row.new_zeros(world_size(), row.numel())
    rows[rank()] = row
    return all_reduce(rows)


class _Sum(torch.autograd.Function):
    """Sum over all processes, differentiable any number of times: the gradient is the same sum, of the gradients."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        return all_reduce(x.clone())

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        return _Sum.apply(grad.contiguous())


def gather_batch(x: torch.Tensor) -> torch.Tensor:
    """Gather (n, ...) of each of P processes into (n·P, ...) on all of them, in the order of the run.

    Process r holds the rows r, r + P, ... of the result; `scatter_batch` takes them out again. n must be the same
    everywhere. Differentiable any number of times.
    """
    if world_size() == 1:
        return x
    spread = torch.stack([x if r == rank() else torch.zeros_like(x) for r in range(world_size())], dim=1)
    return _Sum.apply(spread.flatten(0, 1))


def scatter_batch(x: torch.Tensor) -> torch.Tensor:
    """Return this process's n rows of (n·P, ...)."""
    return x[rank() :: world_size()]


@torch.no_grad()
def copy_from_main(tensors: Iterable[torch.Tensor]) -> None:
    """Copy the main process's values to every process, in place; do nothing in a single process. Raises LostProcess."""
    if world_size() > 1:
        for tensor in tensors:
            with _together():
                packed = tensor.contiguous()
                dist.broadcast(packed, 0)
            tensor.copy_(packed)


def barrier(device: torch.device | str = "cpu") -> None:
    """Wait for all processes. Raises LostProcess."""
    if world_size() > 1:
        with _together():
            all_reduce(torch.zeros(1, device=device)).item()  # on a GPU an all-reduce is only queued until it is read


def average_gradients(networks: list[nn.Module], values: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Average the gradients of `networks` over all processes, in place, in one flat all-reduce.

    Every process must have computed its gradients from the same number of images.
    values: 0-dim tensors by name, the same names on all processes. Returns their averages, from the same all-reduce.
    """
    values = values or {}
    if world_size() == 1:
        return values
    # Layers without a part in the update (of a resolution not reached yet) have no gradient on any process: skip them.
    parameters = [p for network in networks for p in network.parameters() if p.grad is not None]
    further = [value.to(parameters[0].dtype).reshape(1) for value in values.values()]
    flat = all_reduce(torch.cat([*(p.grad.flatten() for p in parameters), *further])) / world_size()
    *gradients, averaged = flat.split([*(p.numel() for p in parameters), len(further)])
    for p, grad in zip(parameters, gradients, strict=True):
        p.grad.copy_(grad.view_as(p))
    return dict(zip(values, averaged, strict=True))
