"""Serve training images without end: the image at each position of a run depends on (seed, position) alone.

So a run can resume anywhere, and the number of processes, decoding workers and images a batch change nothing.
"""

import itertools
import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bigbigan.data.ahead import read_in_threads
from bigbigan.data.crops import (
    FILTER,
    UNIFORMS,
    Crop,
    centre_square,
    crop_and_resize,
    random_crop,
    random_crops,
    resample,
    size_of,
)
from bigbigan.data.images import Images
from bigbigan.data.order import Order
from bigbigan.data.pictures import why
from bigbigan.distributed import to_device
from bigbigan.errors import DataError
from bigbigan.noise import uniforms

PART = 16  # images that a thread reads in one go
log = logging.getLogger(__name__)


@dataclass
class RealImages:
    """Hold a batch of the stream.

    x: uint8 (n, 3, S, S).  labels: (n,), or None.  positions: the places of the images in the run, (n,).
    """

    x: Tensor
    labels: Tensor | None
    positions: np.ndarray


class Stream:
    """Serve batches of training images to one of several processes: process r takes positions r, r + processes, ...

    size: the edge of the images served, E's size.  augment: how they are cut.  workers: decoding processes.
    cache: keep all images decoded on the device: "auto" (if they have one size and fit in `cache_bytes`), "device"
    (always) or "none" (never).  max_unreadable: the share of unreadable images above which DataError is raised; see
    `Images.unreadable_allowed`.
    """

    def __init__(
        self,
        images: Images,
        size: int,
        seed: int,
        augment: Crop,
        *,
        rank: int = 0,
        processes: int = 1,
        workers: int = 0,
        device: torch.device | str = "cpu",
        cache: str = "auto",
        cache_bytes: float = 2**30,
        max_unreadable: float = 0.01,
    ):
        self.images, self.size, self.seed, self.augment = images, size, seed, augment
        self.rank, self.processes, self.workers = rank, processes, workers
        self.device, self.max_unreadable = torch.device(device), max_unreadable
        self.labels = None if images.labels is None else torch.from_numpy(images.labels)
        self.order = Order(seed, len(images))
        self.unreadable: set[str] = set()
        self.cached = self._fill_cache(cache, cache_bytes) if cache != "none" else None

    def batches(self, start: int, stop: int, batch: int) -> Iterator[RealImages]:
        """Yield this process's share of every batch of `batch` images that begins at a position in [start, stop)."""
        shares = (range(first + self.rank, first + batch, self.processes) for first in range(start, stop, batch))
        if self.cached is not None:
            yield from (self._from_cache(np.asarray(share)) for share in shares)
            return
        loader = DataLoader(
            _Decoded(
                self.images, self.size, self.seed, self.augment, self.images.unreadable_allowed(self.max_unreadable) + 1
            ),
            batch_sampler=shares,
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=4 if self.workers else None,
            worker_init_fn=_serve_the_main_process,
        )
        for x, indices, positions, broken in loader:
            self._count(broken)
            if (indices < 0).any():
                raise DataError(
                    f"{self.images.origin}: expected images that can be read, found none among {len(self.images)}"
                )
            labels = None if self.labels is None else self.labels[indices]
            yield RealImages(
                x.to(self.device, non_blocking=True),
                None if labels is None else to_device(labels, self.device),
                positions,
            )

    def _count(self, broken: list[tuple[str, str]]) -> None:
        """Log each unreadable image once, and raise DataError when they are too many."""
        for name, reason in broken:
            if name not in self.unreadable:
                self.unreadable.add(name)
                self.images.check_unreadable(len(self.unreadable), self.max_unreadable, f"{name} ({reason})")
                log.warning("unreadable image %s: skipped (%d so far): %s", name, len(self.unreadable), reason)

    def _fill_cache(self, cache: str, cache_bytes: float) -> Tensor | None:
        """Return all images as uint8 (n, 3, H, W) on the device, or None if they differ in size or are too many."""
        try:
            width, height = size_of(self.images.decoded(0))
        except Exception:  # the stream itself counts and reports a broken image
            return self._cannot_cache(cache, f"{self.images.name(0)} is unreadable")
        if cache == "auto" and 3 * width * height * len(self.images) > cache_bytes:
            return None
        pixels = np.empty((len(self.images), 3, height, width), np.uint8)
        for i in range(len(self.images)):
            try:
                image = self.images.decoded(i)
            except Exception:
                return self._cannot_cache(cache, f"{self.images.name(i)} is unreadable")
            if size_of(image) != (width, height):
                found = f"{self.images.name(i)} is {'×'.join(map(str, size_of(image)))}, the first is {width}×{height}"
                return self._cannot_cache(cache, found)
            pixels[i] = np.asarray(image).transpose(2, 0, 1)
        return torch.from_numpy(pixels).to(self.device)

    def _cannot_cache(self, cache: str, why: str) -> None:
        if cache == "device":
            raise DataError(
                f"--data.cache device: expected readable images of one size, found that {why}; use --data.cache none"
            )

    def _from_cache(self, positions: np.ndarray) -> RealImages:
        indices = torch.tensor([self.order[p] for p in positions])
        images = self.cached[to_device(indices, self.device)]
        height, width = images.shape[2:]
        u = uniforms(self.seed, "crop", positions, UNIFORMS)
        boxes = random_crops(u, width, height, self.augment.kind)
        if (boxes != (0, 0, self.size, self.size)).any() or (width, height) != (self.size, self.size):
            images = resample(images, torch.from_numpy(boxes), self.size, FILTER[self.augment.kind])
        if self.augment.flip:
            mirrored = to_device(torch.from_numpy(u[:, -1] < 0.5), self.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        labels = None if self.labels is None else to_device(self.labels[indices], self.device)
        return RealImages(images, labels, positions)


class _Decoded(Dataset):
    """Decode the images at given positions, in a worker process if there are any.

    Each gives (uint8 (3, S, S), index in the data set, position, [(name, why)] of unreadable images). In the place of
    an unreadable image stands the next readable one of the data set; after `tries` unreadable ones the index is −1.
    """

    def __init__(self, images: Images, size: int, seed: int, augment: Crop, tries: int):
        self.images, self.size, self.seed, self.augment, self.tries = images, size, seed, augment, tries
        self.order = Order(seed, len(images))

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, positions: list[int]) -> list:
        u = uniforms(self.seed, "crop", np.asarray(positions), UNIFORMS)
        return [self._one(position, row) for position, row in zip(positions, u, strict=True)]

    def _one(self, position: int, u: np.ndarray):
        broken = []
        first = self.order[position]
        for step in range(min(self.tries, len(self.images))):
            index = (first + step) % len(self.images)
            try:
                image = self.images.decoded(index)
            except Exception as error:  # decoders raise many types
                broken.append((self.images.name(index), why(error)))
                continue
            box = random_crop(u, *size_of(image), self.augment.kind)
            pixels = crop_and_resize(image, box, self.size, FILTER[self.augment.kind])
            if self.augment.flip and u[-1] < 0.5:
                pixels = pixels[:, :, ::-1]
            return pixels, index, position, broken
        return np.zeros((3, self.size, self.size), np.uint8), -1, position, broken


def _serve_the_main_process(_worker: int) -> None:
    """Make a decoding worker ignore signals, and silent when the main process is gone.

    Schedulers signal the whole process group: a worker that died of it would end the main process before it writes its
    last checkpoint. When the main process is gone, it has said why; the worker's broken connection is no further news.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    usual = sys.excepthook
    sys.excepthook = lambda kind, *rest: None if issubclass(kind, (ConnectionError, EOFError)) else usual(kind, *rest)


def _collate(samples):
    pixels, indices, positions, broken = zip(*samples, strict=True)
    # Decoded images have their channels last in memory. Stacked that way each is one copy, and the networks want it so.
    stacked = np.stack([picture.transpose(1, 2, 0) for picture in pixels])
    return (
        torch.from_numpy(stacked).permute(0, 3, 1, 2),
        torch.tensor(indices),
        np.asarray(positions),
        [n for b in broken for n in b],
    )


_said: set[str] = set()  # unreadable images that were warned of: a run evaluates the same ones many times


def evaluation_batches(images: Images, size: int, batch: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Yield the centre squares of `images` in order, uint8 (n, 3, size, size) with n ≤ batch, and their indices (n,).

    Unreadable images are left out with a warning, one for each in the life of this process.
    """

    def read(some: range) -> list[np.ndarray | str]:
        return [_centre_square(images, i, size) for i in some]

    pixels, indices = [], []
    parts = (range(first, min(first + PART, len(images))) for first in range(0, len(images), PART))
    for i, found in enumerate(itertools.chain.from_iterable(read_in_threads(read, parts))):
        if isinstance(found, str):
            if (name := images.name(i)) not in _said:
                _said.add(name)
                log.warning("unreadable image %s: left out of evaluations: %s", name, found)
            continue
        pixels.append(found)
        indices.append(i)
        if len(pixels) == batch:
            yield torch.from_numpy(np.stack(pixels)), np.asarray(indices)
            pixels, indices = [], []
    if pixels:
        yield torch.from_numpy(np.stack(pixels)), np.asarray(indices)


def _centre_square(images: Images, i: int, size: int) -> np.ndarray | str:
    """Return the centre square of image i, uint8 (3, size, size), or why it could not be read."""
    try:
        image = images.decoded(i)
        return crop_and_resize(image, centre_square(*size_of(image)), size)
    except Exception as error:  # decoders raise many types
        return why(error)
