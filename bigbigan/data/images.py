"""Represent a data set: images by number, labels or none, and the names to call them by in messages."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass
class Images:
    """Hold one split of a data set. `images[i]` is a PIL image of any mode and size, decoded when it is asked for.

    items: an object with `__len__`, `__getitem__(i)` → PIL image and `name(i)` → str; every reader brings its own. It
    may have `keys` (see `data.splits.keys_of`) and `files` (see `data.fingerprint.files_of`) too; without these the
    pixels say what an image is.
    labels: int64 (n,), or None without labels.  class_names: one per class, or None.
    origin: where the images come from, and `formats`: what they are stored as; both for messages.
    note: what `data.classes.match_classes` found to differ between the classes of the two splits, "" for nothing.
    """

    items: object
    labels: np.ndarray | None
    class_names: list[str] | None
    origin: str
    formats: str
    note: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Image.Image:
        return self.items[i]

    def name(self, i: int) -> str:
        """Return what a message calls image i: its path, or its row in a table."""
        return self.items.name(i)

    def subset(self, indices: np.ndarray) -> "Images":
        """Return the images at `indices`, (m,), in that order, with their labels."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, items=_Selection(self.items, indices), labels=labels)

    def base(self) -> tuple[object, np.ndarray]:
        """Return the reader's items, and which of them these images are, int (n,): (items, indices)."""
        items, indices = self.items, np.arange(len(self.items))
        while isinstance(items, _Selection):
            items, indices = items.items, np.asarray(items.indices)[indices]
        return items, indices

    def summary(self) -> str:
        """Return one line with the number of images, the number of classes, the formats and the origin."""
        classes = f", {len(self.class_names)} classes" if self.class_names else ", no labels"
        return f"{len(self):,} images{classes} ({self.formats}) from {self.origin}"


class Arrays:
    """Serve images that are in memory: uint8 (n, H, W) or (n, H, W, 3)."""

    def __init__(self, arrays: np.ndarray):
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays)

    def __getitem__(self, i):
        return Image.fromarray(self.arrays[i])

    def name(self, i):
        return f"image {i}"


class _Selection:
    def __init__(self, items, indices):
        self.items, self.indices = items, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, i):
        return self.items[int(self.indices[i])]

    def name(self, i):
        return self.items.name(int(self.indices[i]))


@dataclass(frozen=True)
class Request:
    """Say which images a reader is asked for: the settings of `open_images`, which explains them."""

    path: str
    split: str
    image_column: str
    label_column: str
    test: bool
    subset: str
    follow_links: bool

    @property
    def location(self) -> Path:
        """The path as a file or folder of this machine, with ~ expanded; it need not exist."""
        return Path(os.path.expanduser(self.path))


@dataclass(frozen=True)
class Found:
    """Hold what a reader returns: the images, and whether the source has no splits of its own.

    whole: True if the images are all there are, so that `open_images` holds a share of them out for evaluation.
    """

    images: Images
    whole: bool
