"""Several processes and their devices: the few collective operations, and copies that do not make the host wait."""

from bigbigan.distributed.collectives import (
    all_reduce,
    all_rows,
    alone,
    average_gradients,
    barrier,
    copy_from_main,
    joined_rows,
    own_rows,
    rank,
    world_size,
)
from bigbigan.distributed.device import Later, compute_now, to_device
from bigbigan.errors import LostProcess

__all__ = [
    "Later", "LostProcess", "all_reduce", "all_rows", "alone", "average_gradients", "barrier", "compute_now", "copy_from_main",
    "joined_rows", "own_rows", "rank", "to_device", "world_size",
]  # fmt: skip
