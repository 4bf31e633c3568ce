"""Tables with a column of images: Parquet and Arrow files, what `datasets` saved, and data sets of the hub."""

import contextlib
import glob
import io
import logging
from pathlib import Path

import numpy as np

from bigbigan.data.images import Images
from bigbigan.data.pictures import PictureError, open_picture
from bigbigan.errors import DataError
from bigbigan.files import check_inside, printable

log = logging.getLogger(__name__)
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "val", "valid", "validation")


class _Table:
    """A `datasets` table whose image column is left undecoded, so that one broken image does not end an epoch.

    folder: where rows that name files must name them; None for anywhere.
    """

    def __init__(self, table, column: str, folder: Path | None = None):
        from datasets import Image as ImageFeature

        self.table = table.select_columns([column]).cast_column(column, ImageFeature(decode=False))
        self.column, self.folder = column, folder

    def __len__(self):
        return len(self.table)

    def __getitem__(self, i):
        source = self.source(i)
        return open_picture(io.BytesIO(source) if isinstance(source, bytes) else source)

    def source(self, i) -> bytes | Path:
        """A file's bytes or its path. Raises PictureError or Outside."""
        cell = self.table[i][self.column] or {}
        if cell.get("bytes") is not None:
            return cell["bytes"]
        if not cell.get("path"):
            raise PictureError("expected an image, found an empty cell")
        path = (self.folder or Path()) / cell["path"]
        if self.folder is not None:
            check_inside(path, self.folder)
        return path

    def name(self, i):
        return f"row {i}"


def read_saved(folder: Path, follow_links: bool):
    """What `datasets` saved with save_to_disk: a table, or a dictionary of them."""
    from datasets import load_from_disk

    try:
        saved = load_from_disk(str(folder))
    except Exception as error:  # whatever torn JSON and Arrow files raise
        raise DataError(
            f"{folder}: expected a folder that `datasets` saved, found {type(error).__name__}: {_first_line(error)}"
        ) from None
    for table in saved.values() if isinstance(saved, dict) else [saved]:
        for file in table.cache_files if not follow_links else ():
            check_inside(folder / file["filename"], folder)
    return saved


def read_tables(paths: list[Path]):
    from datasets import Dataset, load_dataset

    kind = {".parquet": "parquet", ".arrow": "arrow"}[paths[0].suffix]
    try:
        table = load_dataset(kind, data_files=[glob.escape(str(p)) for p in paths], split="train")
    except Exception as error:  # the builder wraps whatever went wrong in errors of its own
        cause = error.__cause__ or error
        found = f"{type(cause).__name__}: {_first_line(cause)}"
        raise DataError(
            f"{printable(paths[0])}: expected a readable {kind} file, found {found}; is it cut short, or empty?"
        ) from None
    assert isinstance(table, Dataset)
    return table


def from_table(table, origin: str, image_column: str, label_column: str, folder: Path | None = None) -> Images:
    """The images and labels of a table.  folder: see `_Table`. Raises DataError, or Outside if its first row does."""
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
    guesses = [n for n, kind in features.items() if isinstance(kind, ClassLabel)] + [
        "label",
        "labels",
        "fine_label",
        "class",
    ]
    label = label_column or next((name for name in guesses if name in features), "")
    labels, names = None, None
    try:
        labels, names = (None, None) if not label else _labels(table[label], features[label], origin, label)
    except DataError as error:
        if label_column:
            raise
        log.warning("%s; no labels are taken", error)  # nobody asked for that column
    try:
        items = _Table(table, column, folder)
    except (
        TypeError,
        ValueError,
        NotImplementedError,
    ) as error:  # of numbers, say: Arrow's own errors are of these kinds
        raise DataError(
            f"{origin}: expected images in column {column!r}, found {features[column]} ({_first_line(error)}); "
            "see --data.image_column"
        ) from None
    with contextlib.suppress(PictureError):
        items.source(0) if len(items) else None  # a table of paths that lead away is refused at once
    return Images(items, labels, names, origin, f"column {column!r}")


def _labels(values, feature, origin: str, column: str) -> tuple[np.ndarray | None, list[str] | None]:
    values = list(values)
    if any(v is None for v in values):
        raise DataError(
            f"{origin}: expected a label in every row of column {column!r}, found {sum(v is None for v in values)} without"
        )
    if not all(isinstance(v, (str, int, float)) and v == v for v in values):
        raise DataError(
            f"{origin}: expected a number or a word in every row of the label column {column!r}, found {feature}; "
            "see --data.label_column"
        )
    if getattr(feature, "names", None):
        labels = np.asarray(values, dtype=np.int64)
        if (labels >= len(feature.names)).any():
            raise DataError(
                f"{origin}: expected labels below {len(feature.names)} in column {column!r}, which has as many names; "
                f"found {labels.max()}"
            )
        return (
            (None, None) if (labels < 0).any() else (labels, list(feature.names))
        )  # hub test sets without labels say −1
    names, labels = np.unique(np.asarray(values), return_inverse=True)
    return labels.astype(np.int64), [printable(str(n)) for n in names]


def from_hub(name: str, split: str, image_column: str, label_column: str, subset: str) -> tuple[Images, bool]:
    from datasets import get_dataset_split_names, load_dataset

    try:
        splits = get_dataset_split_names(name, subset or None)
        table = load_dataset(name, subset or None, split=pick_split(split, splits, name))
    except DataError:
        raise
    except Exception as error:  # no network, no such name, no permission: all reach the user as one sentence
        raise DataError(
            f"--data.path {name}: neither a folder or file here nor a data set that the hub would give "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        ) from None
    return from_table(table, name, image_column, label_column), len(splits) == 1


def tables_by_split(paths: list[Path]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in paths:
        words = [path.name.lower().split("-")[0].split(".")[0], path.parent.name.lower()]
        name = next((w for w in words if w in TRAIN_NAMES + TEST_NAMES), "all")
        groups.setdefault(name, []).append(path)
    return groups


def pick_split(split: str, found: list[str], where) -> str:
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


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
