"""Where images come from: the embedded digits, folders, Parquet and Arrow files, saved `datasets` folders, hub
names."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from bigbigan.data.folders import from_files
from bigbigan.data.images import Images
from bigbigan.data.tables import (
    TEST_NAMES,
    TRAIN_NAMES,
    from_hub,
    from_table,
    pick_split,
    read_saved,
    read_tables,
    tables_by_split,
)
from bigbigan.errors import DataError, Outside
from bigbigan.files import check_inside, printable

TABLE_SUFFIXES = (".parquet", ".arrow")


def open_images(
    path: str,
    split: str = "train",
    image_column: str = "",
    label_column: str = "",
    test: bool = False,
    test_share: float = 0.1,
    subset: str = "",
    follow_links: bool = False,
) -> Images:
    """The images of `path`: see the module's docstring for what it may be.

    split: the split's name where the data have splits.  test: whether this is the evaluation split; where the data have
    only one, a fixed `test_share` of its images is held out from training and given here.  subset: a hub data set's
    configuration.
    follow_links: take also what links that lead out of the folder lead to.  Raises DataError.
    """
    if path == "digits":
        return _digits(test)
    try:
        images, whole = _open(path, split, image_column, label_column, test, subset, follow_links)
    except OSError as error:
        raise DataError(f"--data.path {printable(path)}: expected data that can be read, found {error}") from None
    except Outside as error:
        raise DataError(f"{error}, or follow it with --data.follow_links True") from None
    if not len(images):
        raise DataError(f"--data.path {path}: expected images, found none")
    return _held_out(images, test, test_share) if whole else images


def _open(path, split, image_column, label_column, test, subset, follow_links) -> tuple[Images, bool]:
    """→ (images, whether the data have no splits of their own)."""
    if not path:
        raise DataError("--data.path: expected a folder, a file or a data set's name, found nothing")
    location = Path(os.path.expanduser(path))
    if location.is_file() and location.suffix in TABLE_SUFFIXES:
        own = None if follow_links else location.parent
        return from_table(read_tables([location]), str(location), image_column, label_column, own), True
    if location.is_dir():
        return _from_folder(location, split, image_column, label_column, test, follow_links)
    if location.exists():
        raise DataError(
            f"--data.path {path}: expected a folder, a .parquet or .arrow file or a data set's name, found another file"
        )
    if location.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1:
        raise DataError(
            f"--data.path {path}: expected a folder, a file or a data set's name, found no such folder or file"
        )
    return from_hub(path, split, image_column, label_column, subset)


def _held_out(images: Images, test: bool, share: float) -> Images:
    """A fixed share of a data set without splits: the same images whatever the seed of the run."""
    if share > 0 and len(images) < 2:
        raise DataError(
            f"{images.origin}: expected two images or more, since one is held out for evaluation; found one"
        )
    order = np.random.default_rng(0).permutation(len(images))
    count = max(1, round(share * len(images))) if share > 0 and len(images) > 1 else 0
    return images.subset(np.sort(order[:count] if test else order[count:]))


def _digits(test: bool) -> Images:
    """scikit-learn's 1,797 handwritten digits, 8×8 in 17 greys; every fifth image is the test split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    greys = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    chosen = (np.arange(len(greys)) % 5 == 4) == test
    labels = digits.target[chosen].astype(np.int64)
    return Images(
        _Arrays(greys[chosen]), labels, [str(d) for d in digits.target_names], "scikit-learn's digits", "8×8 grey"
    )


def _from_folder(
    folder: Path, split: str, image_column: str, label_column: str, test: bool, follow_links: bool
) -> tuple[Images, bool]:
    """→ (images, whether the folder has no splits of its own)."""
    own = None if follow_links else folder
    if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
        saved = read_saved(folder, follow_links)
        if not isinstance(saved, dict):
            return from_table(saved, str(folder), image_column, label_column, own), True
        table = saved[pick_split(split, list(saved), folder)]
        return from_table(table, str(folder), image_column, label_column, own), len(saved) == 1
    tables = sorted(p for p in folder.rglob("*") if p.suffix in TABLE_SUFFIXES and p.is_file())
    if tables:
        named = tables_by_split(tables)
        chosen = named[pick_split(split, list(named), folder)]
        for path in chosen if not follow_links else ():
            check_inside(path, folder)
        return from_table(read_tables(chosen), str(folder), image_column, label_column, own), len(named) == 1
    children = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    splits = [name for name in children if name in TRAIN_NAMES + TEST_NAMES]
    if any(name in TRAIN_NAMES for name in splits):
        wanted = children[pick_split(split, splits, folder) if not test or len(splits) > 1 else splits[0]]
        if not follow_links:
            check_inside(wanted, folder)
        return from_files(wanted, follow_links), len(splits) == 1
    return from_files(folder, follow_links), True


class _Arrays:
    def __init__(self, arrays: np.ndarray):
        self.arrays = arrays  # uint8 (n, H, W) or (n, H, W, 3)

    def __len__(self):
        return len(self.arrays)

    def __getitem__(self, i):
        return Image.fromarray(self.arrays[i])

    def name(self, i):
        return f"image {i}"
