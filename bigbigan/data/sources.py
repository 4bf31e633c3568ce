"""Where images come from: the embedded digits, folders, Parquet and Arrow files, saved `datasets` folders, hub names."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bigbigan.data.pictures import EXTENSIONS

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "val", "valid", "validation")
TABLE_SUFFIXES = (".parquet", ".arrow")


class DataError(ValueError):
    """Data that cannot be used; the message says what was expected, what was found, and what to do."""


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


class _Arrays:
    def __init__(self, arrays: np.ndarray):
        self.arrays = arrays  # uint8 (n, H, W) or (n, H, W, 3)

    def __len__(self):
        return len(self.arrays)

    def __getitem__(self, i):
        return Image.fromarray(self.arrays[i])

    def name(self, i):
        return f"image {i}"


class _Files:
    def __init__(self, paths: list[str]):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return Image.open(self.paths[i])

    def name(self, i):
        return self.paths[i]


class _Table:
    """A `datasets` table whose image column is left undecoded, so that one broken image does not end an epoch."""

    def __init__(self, table, column: str):
        from datasets import Image as ImageFeature

        self.table = table.select_columns([column]).cast_column(column, ImageFeature(decode=False))
        self.column = column

    def __len__(self):
        return len(self.table)

    def __getitem__(self, i):
        import io

        cell = self.table[i][self.column]
        if cell.get("bytes") is None:
            return Image.open(cell["path"])
        return Image.open(io.BytesIO(cell["bytes"]))

    def name(self, i):
        return f"row {i}"


def open_images(
    path: str,
    split: str = "train",
    image_column: str = "",
    label_column: str = "",
    test: bool = False,
    test_share: float = 0.1,
    subset: str = "",
) -> Images:
    """The images of `path`: see the module's docstring for what it may be.

    split: the split's name where the data have splits.  test: whether this is the evaluation split; where the data have only one,
    a fixed `test_share` of its images is held out from training and given here.  subset: a hub data set's configuration.
    Raises DataError.
    """
    if path == "digits":
        return _digits(test)
    location = Path(path).expanduser()
    if location.is_file() and location.suffix in TABLE_SUFFIXES:
        images, whole = _from_table(_read_tables([location]), str(location), image_column, label_column), True
    elif location.is_dir():
        images, whole = _from_folder(location, split, image_column, label_column, test)
    elif location.exists():
        raise DataError(
            f"--data.path {path}: expected a folder, a .parquet or .arrow file or a data set's name, found another file"
        )
    elif location.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1:
        raise DataError(f"--data.path {path}: expected a folder, a file or a data set's name, found no such folder or file")
    else:
        images, whole = _from_hub(path, split, image_column, label_column, subset)
    if not len(images):
        raise DataError(f"--data.path {path}: expected images, found none")
    return _held_out(images, test, test_share) if whole else images


def _held_out(images: Images, test: bool, share: float) -> Images:
    """A fixed share of a data set without splits: the same images whatever the seed of the run."""
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
    return Images(_Arrays(greys[chosen]), labels, [str(d) for d in digits.target_names], "scikit-learn's digits", "8×8 grey")


def _from_folder(folder: Path, split: str, image_column: str, label_column: str, test: bool) -> tuple[Images, bool]:
    """→ (images, whether the folder has no splits of its own)."""
    if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
        from datasets import DatasetDict, load_from_disk

        saved = load_from_disk(str(folder))
        if not isinstance(saved, DatasetDict):
            return _from_table(saved, str(folder), image_column, label_column), True
        return _from_table(saved[_pick(split, list(saved), folder)], str(folder), image_column, label_column), len(saved) == 1
    tables = sorted(p for p in folder.rglob("*") if p.suffix in TABLE_SUFFIXES)
    if tables:
        named = _tables_by_split(tables)
        chosen = named[_pick(split, list(named), folder)]
        return _from_table(_read_tables(chosen), str(folder), image_column, label_column), len(named) == 1
    children = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    splits = [name for name in children if name in TRAIN_NAMES + TEST_NAMES]
    if any(name in TRAIN_NAMES for name in splits):
        wanted = _pick(split, splits, folder) if not test or len(splits) > 1 else splits[0]
        return _from_files(children[wanted]), len(splits) == 1
    return _from_files(folder), True


def _pick(split: str, found: list[str], where) -> str:
    """The split called `split`, or the one that means the same ("val" for "test"), or the only one."""
    alike = TRAIN_NAMES if split in TRAIN_NAMES else TEST_NAMES if split in TEST_NAMES else (split,)
    for name in (split, *alike):
        if name in found:
            return name
    if len(found) == 1:
        return found[0]
    raise DataError(
        f"{where}: expected a split {split!r}, found {', '.join(found)}; choose with --data.split and --data.test_split"
    )


def _tables_by_split(paths: list[Path]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in paths:
        words = [path.name.lower().split("-")[0].split(".")[0], path.parent.name.lower()]
        name = next((w for w in words if w in TRAIN_NAMES + TEST_NAMES), "all")
        groups.setdefault(name, []).append(path)
    return groups


def _read_tables(paths: list[Path]):
    from datasets import Dataset, load_dataset

    kind = {".parquet": "parquet", ".arrow": "arrow"}[paths[0].suffix]
    try:
        table = load_dataset(kind, data_files=[str(p) for p in paths], split="train")
    except Exception as error:  # the builder wraps whatever went wrong in errors of its own
        cause = error.__cause__ or error
        raise DataError(f"{paths[0]}: expected a readable {kind} file, found {type(cause).__name__}: {cause}") from None
    assert isinstance(table, Dataset)
    return table


def _from_table(table, origin: str, image_column: str, label_column: str) -> Images:
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    features = table.features
    looks_like_image = [
        name for name, kind in features.items()
        if isinstance(kind, ImageFeature) or (isinstance(kind, dict) and "bytes" in kind)
    ]  # fmt: skip
    column = image_column or next(iter(looks_like_image), "")
    if column not in features:
        raise DataError(
            f"{origin}: expected a column of images{f' {column!r}' if column else ''}, found the columns {', '.join(features)}; "
            "name it with --data.image_column"
        )
    if label_column and label_column not in features:
        raise DataError(
            f"{origin}: expected a column of labels {label_column!r}, found {', '.join(features)}; see --data.label_column"
        )
    guesses = [n for n, kind in features.items() if isinstance(kind, ClassLabel)] + ["label", "labels", "fine_label", "class"]
    label = label_column or next((name for name in guesses if name in features), "")
    labels, names = (None, None) if not label else _labels(table[label], features[label], origin, label)
    return Images(_Table(table, column), labels, names, origin, f"column {column!r}")


def _labels(values, feature, origin: str, column: str) -> tuple[np.ndarray | None, list[str] | None]:
    values = list(values)
    if any(v is None for v in values):
        raise DataError(
            f"{origin}: expected a label in every row of column {column!r}, found {sum(v is None for v in values)} without"
        )
    if getattr(feature, "names", None):
        labels = np.asarray(values, dtype=np.int64)
        return (None, None) if (labels < 0).any() else (labels, list(feature.names))  # hub test sets without labels say −1
    names, labels = np.unique(np.asarray(values), return_inverse=True)
    return labels.astype(np.int64), [str(n) for n in names]


def _from_hub(name: str, split: str, image_column: str, label_column: str, subset: str) -> tuple[Images, bool]:
    from datasets import get_dataset_split_names, load_dataset

    try:
        splits = get_dataset_split_names(name, subset or None)
        table = load_dataset(name, subset or None, split=_pick(split, splits, name))
    except DataError:
        raise
    except Exception as error:  # no network, no such name, no permission: all reach the user as one sentence
        raise DataError(
            f"--data.path {name}: neither a folder or file here nor a data set that the hub would give "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        ) from None
    return _from_table(table, name, image_column, label_column), len(splits) == 1


def _from_files(folder: Path) -> Images:
    """Class folders, however deep, or a flat folder; hidden files and other extensions are left out."""
    found: list[tuple[str, str]] = []  # (class, path)
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        relative = os.path.relpath(parent, folder)
        top = "" if relative == "." else relative.split(os.sep)[0]
        for file in sorted(files):
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in EXTENSIONS:
                found.append((top, os.path.join(parent, file)))
    if not found:
        raise DataError(f"{folder}: expected images ({', '.join(EXTENSIONS)}), found none in it or its subfolders")
    names = sorted({top for top, _ in found})
    labelled = len(names) > 1 and "" not in names
    labels = np.asarray([names.index(top) for top, _ in found], dtype=np.int64) if labelled else None
    counts = Counter(os.path.splitext(path)[1].lower() for _, path in found)
    formats = ", ".join(f"{count:,} {extension}" for extension, count in counts.most_common())
    return Images(_Files([path for _, path in found]), labels, names if labelled else None, str(folder), formats)
