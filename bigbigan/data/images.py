"""What a data set is to the rest of the library: pictures by number, labels or none, and names to speak of them."""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass
class Images:
    """A split of a data set. `images[i]` is a PIL image of any mode and size; `labels` is int64 (n,) or None."""

    items: object
    labels: np.ndarray | None
    class_names: list[str] | None
    origin: str
    formats: str

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Image.Image:
        return self.items[i]

    def name(self, i: int) -> str:
        """What to call image i in a log."""
        return self.items.name(i)

    def subset(self, indices: np.ndarray) -> "Images":
        labels = None if self.labels is None else self.labels[indices]
        return Images(_Selection(self.items, indices), labels, self.class_names, self.origin, self.formats)

    def summary(self) -> str:
        classes = f", {len(self.class_names)} classes" if self.class_names else ", no labels"
        return f"{len(self):,} images{classes} ({self.formats}) from {self.origin}"


class _Selection:
    def __init__(self, items, indices):
        self.items, self.indices = items, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, i):
        return self.items[int(self.indices[i])]

    def name(self, i):
        return self.items.name(int(self.indices[i]))
