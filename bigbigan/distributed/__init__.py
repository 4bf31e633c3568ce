"""Work with several processes and their devices: collectives, cores, copies that do not make the host wait."""

from bigbigan.distributed.collectives import (
    all_gather_rows,
    all_reduce,
    average_gradients,
    barrier,
    copy_from_main,
    gather_batch,
    local_only,
    rank,
    scatter_batch,
    world_size,
)
from bigbigan.distributed.cores import cores
from bigbigan.distributed.device import ScalarReader, mark_step, to_device
from bigbigan.errors import LostProcess

__all__ = [
    "LostProcess",
    "ScalarReader",
    "all_gather_rows",
    "all_reduce",
    "average_gradients",
    "barrier",
    "copy_from_main",
    "cores",
    "gather_batch",
    "local_only",
    "mark_step",
    "rank",
    "scatter_batch",
    "to_device",
    "world_size",
]  # fmt: skip
