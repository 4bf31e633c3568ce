"""Keep on the disk what would cost a later run work: each file is whole or absent, and never a reason to end a run."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from bigbigan.distributed.collectives import rank
from bigbigan.distributed.gather import everywhere
from bigbigan.files import cache_folder, write_whole

TRANSFORM = (
    "centre square, bicubic, scaled by bit depth"  # what `evaluation_batches` does to an image; part of the keys
)
__all__ = ["TRANSFORM", "cache_folder", "digest", "entry", "get_or_make", "store"]
log = logging.getLogger(__name__)
T = TypeVar("T")


def entry(folder: Path | None, kind: str, key: str) -> Path | None:
    """Return the path of what `key` names, KIND-DIGEST.safetensors in `folder`; None where nothing is to be kept."""
    digits = hashlib.sha256(key.encode()).hexdigest()[:24]
    return None if folder is None else folder / f"{kind}-{digits}.safetensors"


def get_or_make(
    path: Path | None, read: Callable[[Path], T | None], make: Callable[[], T], write: Callable[[Path, T], None]
) -> T:
    """Return what is kept at `path`, or make it and keep it there.

    read: raises, or returns None, where the file is absent, cut short or another one.  make: called on every process
    of a job unless all of them could read.  write: called on the first process; see `store`.  path None: keep nothing.
    """
    if path is None:
        return make()
    try:
        kept = read(path)
    except (OSError, KeyError, ValueError, SafetensorError):  # not there, or cut short by a kill
        kept = None
    if everywhere(kept is not None):
        return kept
    made = make()
    if rank() == 0:
        write(path, made)
    return made


def store(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file by `write_whole`; a warning says where that fails, as on a full disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
    except (OSError, SafetensorError) as error:  # the latter is what safetensors makes of a full disk
        log.warning("%s: could not be kept, the next run will make it again (%s)", path, error)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, such as the state_dict of a network with its batch-norm statistics."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
