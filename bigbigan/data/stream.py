"""The endless stream of training images: what stands at each position is a function of (seed, position) alone."""

import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bigbigan.data.images import Images
from bigbigan.data.pictures import (
    FILTER,
    UNIFORMS,
    centre_square,
    crop_and_resize,
    random_crop,
    random_crops,
    resample,
    to_rgb,
    why,
)
from bigbigan.distributed import to_device
from bigbigan.errors import DataError
from bigbigan.noise import uniforms

log = logging.getLogger(__name__)


@dataclass
class Crop:
    """How a training picture is cut: see `random_crop`; then a horizontal flip with probability 1/2 if `flip`."""

    kind: str = "resnet"
    flip: bool = True


@dataclass
class RealImages:
    """A batch of the stream. x: uint8 (n, 3, S, S); labels: (n,) or None; positions: its places in the run, (n,)."""

    x: Tensor
    labels: Tensor | None
    positions: np.ndarray


class Order:
    """Position in the run → index in the data set: every epoch a new permutation, a function of (seed, epoch)."""

    def __init__(self, seed: int, length: int):
        self.seed, self.length = seed, length
        self.epoch, self.permutation = -1, None

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(int(position), self.length)
        if epoch != self.epoch:
            self.epoch = epoch
            self.permutation = np.random.default_rng([self.seed, epoch]).permutation(self.length)
        return int(self.permutation[place])


class Stream:
    """Batches of training images for one of `processes` processes: process r takes the positions r, r + processes, ...

    images: the data set.  size: of the pictures given, E's.  cache: "auto", "device" or "none", see `config.Data`.
    """

    def __init__(
        self,
        images: Images,
        size: int,
        seed: int,
        augment: Crop,
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
        """Yield this process's share of every global batch of `batch` images that begins at `start` or later and before
        `stop`."""
        shares = (range(first + self.rank, first + batch, self.processes) for first in range(start, stop, batch))
        if self.cached is not None:
            yield from (self._from_cache(np.asarray(share)) for share in shares)
            return
        loader = DataLoader(
            _Decoded(self.images, self.size, self.seed, self.augment, int(self.max_unreadable * len(self.images)) + 1),
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
        for name, reason in broken:
            if name not in self.unreadable:
                self.unreadable.add(name)
                log.warning("unreadable image %s: skipped (%d so far): %s", name, len(self.unreadable), reason)
        if len(self.unreadable) > self.max_unreadable * len(self.images):
            raise DataError(
                f"{len(self.unreadable)} of {len(self.images)} images of {self.images.origin} are unreadable, as {broken[-1][0]}: "
                f"expected at most a share of {self.max_unreadable} (--data.max_unreadable); are the data still there?"
            )

    def _fill_cache(self, cache: str, cache_bytes: float) -> Tensor | None:
        """All images as uint8 (n, 3, H, W) on the device, if they have one size (and are few enough, for "auto")."""
        try:
            width, height = self.images[0].size
        except Exception:  # a broken first image is the stream's business, which counts it
            return None
        if cache == "auto" and 3 * width * height * len(self.images) > cache_bytes:
            return None
        pixels = np.empty((len(self.images), 3, height, width), np.uint8)
        for i in range(len(self.images)):
            try:
                image = to_rgb(self.images[i])
            except Exception:
                return self._cannot_cache(cache, f"{self.images.name(i)} is unreadable")
            if image.size != (width, height):
                found = f"{self.images.name(i)} is {image.size[0]}×{image.size[1]}, the first is {width}×{height}"
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
            images = resample(
                images, to_device(torch.from_numpy(boxes), self.device), self.size, FILTER[self.augment.kind]
            )
        if self.augment.flip:
            mirrored = to_device(torch.from_numpy(u[:, -1] < 0.5), self.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        labels = None if self.labels is None else to_device(self.labels[indices], self.device)
        return RealImages(images, labels, positions)


class _Decoded(Dataset):
    """Positions in the run → for each (uint8 (3, S, S), index, position, images that could not be read on the way and
    why).

    tries: images after which it gives up, with the index −1: so many unreadable ones end the run.
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
            index = (first + step) % len(self.images)  # an unreadable image is replaced by the next of the data set
            try:
                image = to_rgb(self.images[index])
            except Exception as error:  # whatever a decoder raises
                broken.append((self.images.name(index), why(error)))
                continue
            box = random_crop(u, *image.size, self.augment.kind)
            pixels = crop_and_resize(image, box, self.size, FILTER[self.augment.kind])
            if self.augment.flip and u[-1] < 0.5:
                pixels = pixels[:, :, ::-1]
            return pixels, index, position, broken
        return np.zeros((3, self.size, self.size), np.uint8), -1, position, broken


def _serve_the_main_process(_worker: int) -> None:
    """What a worker is besides a decoder. A scheduler signals the whole group; a worker that dies of it would take the
    run's last checkpoint with it. And where the main process is gone, it has said why: the thread that hands pictures
    over need not too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    usual = sys.excepthook
    sys.excepthook = lambda kind, *rest: None if issubclass(kind, (ConnectionError, EOFError)) else usual(kind, *rest)


def _collate(samples):
    pixels, indices, positions, broken = zip(*samples, strict=True)
    # Pictures lie in memory with their channels last: stacked so, they are copied whole, and the networks want them so.
    stacked = np.stack([picture.transpose(1, 2, 0) for picture in pixels])
    return (
        torch.from_numpy(stacked).permute(0, 3, 1, 2),
        torch.tensor(indices),
        np.asarray(positions),
        [n for b in broken for n in b],
    )


def evaluation_batches(
    images: Images, size: int, batch: int, limit: int | None = None
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """The centre squares of `images` in order: yields uint8 (n, 3, size, size) and their indices; unreadable ones are
    left out."""
    pixels, indices = [], []
    for i in range(len(images) if limit is None else min(limit, len(images))):
        try:
            image = to_rgb(images[i])
        except Exception as error:
            log.warning("unreadable image %s: left out of the evaluation: %s", images.name(i), why(error))
            continue
        pixels.append(crop_and_resize(image, centre_square(*image.size), size))
        indices.append(i)
        if len(pixels) == batch:
            yield torch.from_numpy(np.stack(pixels)), np.asarray(indices)
            pixels, indices = [], []
    if pixels:
        yield torch.from_numpy(np.stack(pixels)), np.asarray(indices)
