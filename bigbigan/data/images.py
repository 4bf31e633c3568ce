"""Represent a data set: images by number, labels or none, and the names to call them by in messages."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from bigbigan.data.pictures import decode_rgb, has_pages, is_deep, limits_of, to_rgb, why
from bigbigan.data.walk import Listing
from bigbigan.errors import DataError
from bigbigan.files import counted, expanded

T = TypeVar("T")
FEW = 3  # unreadable images are always allowed, if they are at most a tenth of all
LOOKED_AT = 64  # images in which colour is looked for
COLOUR = 24  # of 255: channels of a pixel that differ by more have colour; JPEG leaves less in a grey picture


@dataclass
class Images:
    """Hold one split of a data set. `images[i]` is a PIL image of any mode and size, decoded when it is asked for.

    items: an object with `__len__`, `__getitem__(i)` → PIL image and `name(i)` → str; every reader brings its own. It
    may have `keys` (see `data.splits.keys_of`) and `files` (see `data.fingerprint.files_of`) too; without these the
    pixels say what an image is. It may have `source(i)` → the encoded bytes of an image or the path of its file; and
    beside `keys` it may have `key_bytes()` → how many bytes these are, where they may be many. It may have
    `relative_paths(indices)` → the path of each image within the data set, or None.
    labels: int64 (n,), or None without labels.  class_names: one per class, or None.
    origin: where the images come from, and `formats`: what they are stored as; both for messages.
    source: the folder or files, within the data set, that this split is; notes: what was not taken; for the start of a
    run.
    value_range: the values of black and white in pictures of more than 8 bits or of floats; see `pictures.to_rgb`.
    groups: what a column of a table says of the patient, place or film of each image, (n,) texts, "" for nothing; None
    without such a column. group_column: that column, if --data.group_column named it, else "".
    note: what `data.classes.match_classes` found to differ between the classes of the two splits, "" for nothing.
    """

    items: object
    labels: np.ndarray | None
    class_names: list[str] | None
    origin: str
    formats: str
    source: str = ""
    notes: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    note: str = ""
    groups: np.ndarray | None = None
    group_column: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Image.Image:
        return self.items[i]

    def rgb(self, i: int) -> Image.Image:
        """Return image i as upright 8-bit RGB, a PIL image. Raises what `decoded` raises."""
        image = self.decoded(i)
        return image if isinstance(image, Image.Image) else Image.fromarray(image)

    def decoded(self, i: int, value_range: tuple[float, float] | None = None) -> Image.Image | np.ndarray:
        """Return image i as upright 8-bit RGB: a PIL image, or uint8 (H, W, 3) where that is faster.

        All pixels that reach a network are read here, so a subclass that reads otherwise overrides this method alone.
        value_range: that of the images in place of their own; None for their own.
        Raises what `pictures.to_rgb` raises.
        """
        items, limits = self.items, value_range or self.value_range
        while isinstance(items, _Selection):
            items, i = items.items, int(items.indices[i])
        if not hasattr(items, "source"):
            return to_rgb(items[i], limits)
        return decode_rgb(items.source(i), limits)

    def name(self, i: int) -> str:
        """Return what a message calls image i: its path, or its row in a table."""
        return self.items.name(i)

    def paths(self) -> list[str | None]:
        """Return each image's path within the data set, in printable characters; None where it has none."""
        items, indices = self.base()
        return list(items.relative_paths(indices)) if hasattr(items, "relative_paths") else [None] * len(indices)

    def subset(self, indices: np.ndarray) -> "Images":
        """Return the images at `indices`, (m,), in that order, with their labels."""
        labels, groups = (None if of is None else of[indices] for of in (self.labels, self.groups))
        return replace(self, items=_Selection(self.items, indices), labels=labels, groups=groups)

    def base(self) -> tuple[object, np.ndarray]:
        """Return the reader's items, and which of them these images are, int (n,): (items, indices)."""
        items, indices = self.items, np.arange(len(self.items))
        while isinstance(items, _Selection):
            items, indices = items.items, np.asarray(items.indices)[indices]
        return items, indices

    def check_unreadable(self, count: int, share: float, example: str) -> None:
        """Raise DataError if the `count` images that cannot be read are more than `unreadable_allowed`.

        example: the name of one of them, perhaps with its error.
        """
        if count > (allowed := self.unreadable_allowed(share)):
            raise DataError(
                f"{count} of {len(self)} images of {self.origin} are unreadable, as {example}: expected at most "
                f"{allowed}, by --data.max_unreadable {share:g}; are the data still there? Mend or remove these "
                "images, or allow a larger share"
            )

    def check_some_can_be_read(self, count: int = 32) -> None:
        """Raise DataError, with the reason of the first, if none of `count` of the images can be read."""
        reason = ""
        for i in map(int, looked_at := spread(len(self), count)):
            try:
                self.decoded(i)
                return
            except Exception as error:  # decoders raise many types
                reason = reason or f"{self.name(i)}: {why(error)}"
        if reason:
            raise DataError(
                f"{self.origin}: expected images that can be read, found none among the {len(looked_at)} looked at: "
                f"{reason}"
            )

    def unreadable_allowed(self, share: float) -> int:
        """Return how many images may be unreadable: this share, or `FEW` if they are at most a tenth; 0 at 0."""
        return max(int(share * len(self)), min(FEW, len(self) // 10) if share else 0)

    def per_class(self) -> list[tuple[str, int]]:
        """Return each class's name and number of images; none without labels."""
        if self.labels is None or not self.class_names:
            return []
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        return list(zip(self.class_names, counts.tolist(), strict=False))

    def stored_as(self) -> str:
        """Return the formats of the images: counted by suffix for files, else as the reader says."""
        suffixes = self.items.suffixes() if hasattr(self.items, "suffixes") else None
        if suffixes is None:
            return self.formats
        return ", ".join(f"{n:,} {suffix or 'without a suffix'}" for suffix, n in Counter(suffixes).most_common())

    def values_used(self, count: int = 32) -> tuple[float, float] | None:
        """Return where in their range, from 0 (black) to 1 (white), the values of `count` of the images lie.

        Returns the smallest and the largest value; None if no image can be read.
        """

        def extremes(i: int) -> tuple[float, float]:
            image = self.items[i]
            black, white = limits_of(image, self.value_range)
            values = np.asarray(image if is_deep(image) else to_rgb(image))
            return tuple((float(v) - black) / (white - black) for v in (values.min(), values.max()))

        found = self._of_some(extremes, count)
        return (min(low for low, _ in found), max(high for _, high in found)) if found else None

    def with_pages(self, count: int = 32) -> int:
        """Return how many of `count` of the images have several pages or frames, of which the first is read."""
        return sum(self._of_some(lambda i: has_pages(self.items[i]), count))

    def deep(self, count: int = 32) -> bool:
        """Return whether one of `count` of the images is grey with more than 8 bits, or of floats."""
        return any(self._of_some(lambda i: is_deep(self.items[i]), count))

    def coloured(self, count: int = LOOKED_AT) -> int:
        """Return how many of `count` of the images have colour; those that cannot be read have none.

        A pixel has colour where its channels differ by more than what JPEG leaves in a grey picture.
        """
        ranges = self._of_some(lambda i: np.ptp(np.asarray(self.rgb(i)).astype(np.int16), axis=2).max(), count)
        return sum(bool(widest > COLOUR) for widest in ranges)

    def _of_some(self, measure: Callable[[int], T], count: int) -> list[T]:
        """Return what a function of an image's number returns for `count` of the images, without unreadable ones."""
        found = []
        for i in spread(len(self), count):
            try:
                found.append(measure(int(i)))
            except Exception:  # decoders raise many types; the stream names and counts what cannot be read
                continue
        return found

    def summary(self) -> str:
        """Return one line with the number of images, the number of classes, the formats and the origin."""
        classes = f", {len(self.class_names)} classes" if self.class_names else ", no labels"
        return f"{counted(len(self))}{classes} ({self.stored_as()}) from {self.origin}"


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

    def suffixes(self) -> list[str] | None:
        all_of_them = self.items.suffixes() if hasattr(self.items, "suffixes") else None
        return None if all_of_them is None else [all_of_them[int(i)] for i in self.indices]


@dataclass(frozen=True)
class Request:
    """Say which images a reader is asked for: the settings of `open_images`, which explains them.

    split: of the images asked for.  other_split: the name of the evaluation split where these are for training, and
    of the training split where these are for evaluation.
    listing: what is known of the folders already; shared by the requests for both splits.
    nothing_held_out: all images are wanted, so that folders in a tar need not be told apart.
    no_labels: the images alone are wanted, so that nothing is said of labels.
    """

    path: str
    split: str
    image_column: str
    label_column: str
    test: bool
    subset: str
    follow_links: bool
    other_split: str = ""
    listing: Listing = field(default_factory=Listing, repr=False, compare=False)
    nothing_held_out: bool = False
    no_labels: bool = False
    group_column: str = ""

    @property
    def train_split(self) -> str:
        """The name of the split to train on."""
        return (self.other_split or "train") if self.test else self.split

    @property
    def test_split(self) -> str:
        """The name of the split to evaluate on."""
        return self.split if self.test else (self.other_split or "test")

    @property
    def by_path(self) -> bool:
        """Whether the split is named by its folder or file, such as "./archive/train"."""
        return self.split.startswith("./")

    @property
    def location(self) -> Path:
        """The path as a file or folder of this machine, with ~ expanded; it need not exist."""
        return expanded(self.path)


@dataclass(frozen=True)
class Found:
    """Hold what a reader returns: the images, and whether the source has no splits of its own.

    whole: True if the images are all there are, so that `open_images` holds a share of them out for evaluation.
    """

    images: Images
    whole: bool


def spread(n: int, most: int) -> np.ndarray:
    """Return `most` of the numbers 0 … n − 1, all of them if there are fewer or for 0, spread evenly over them.

    Data sets are often sorted by class, so their first images show few classes.
    """
    return np.linspace(0, n - 1, most).astype(int) if 0 < most < n else np.arange(n)


def pixels_of(items, i: int) -> bytes:
    """Return the pixels of image i with its size and mode; the name of an image that cannot be read."""
    try:
        image = items[i]
        return f"{image.mode} {image.size} ".encode() + image.tobytes()
    except Exception:  # decoders raise many types
        return items.name(i).encode()
