"""Read tables with a column of images: Parquet and Arrow files, and folders that `datasets` saved."""

import contextlib
import glob
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bigbigan.data.images import Found, Images, Request
from bigbigan.data.pictures import PictureError, open_picture
from bigbigan.data.splits import TEST_NAMES, TRAIN_NAMES, pick_split
from bigbigan.errors import DataError
from bigbigan.files import check_inside, path_within, printable, state_of

log = logging.getLogger(__name__)
SUFFIXES = (".parquet", ".arrow")
CELLS = 256  # rows of a table read at a time
LABEL_COLUMNS = ["label", "labels", "fine_label", "class"]  # taken as labels where no column is of datasets' ClassLabel


def open_tables(request: Request) -> Found | None:
    """Return a split of a table file or of a folder of tables, else None. Raises DataError or Outside."""
    location, columns = request.location, (request.image_column, request.label_column)
    if location.is_file() and location.suffix in SUFFIXES:
        own = None if request.follow_links else location.parent
        files = _stamped([location], location.parent)
        return Found(from_table(_read_tables([location]), str(location), *columns, own, files), whole=True)
    if not location.is_dir():
        return None
    own = None if request.follow_links else location
    if (location / "dataset_info.json").is_file() or (location / "dataset_dict.json").is_file():
        saved = _read_saved(location, request.follow_links)
        if not isinstance(saved, dict):
            return Found(from_table(saved, str(location), *columns, own, _stamped_cache(saved, location)), whole=True)
        table = saved[pick_split(request.split, list(saved), location)]
        files = _stamped_cache(table, location)
        return Found(from_table(table, str(location), *columns, own, files), whole=len(saved) == 1)
    paths = sorted(p for p in location.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    if not paths:
        return None
    named = _by_split(paths)
    chosen = named[pick_split(request.split, list(named), location)]
    for path in chosen if not request.follow_links else ():
        check_inside(path, location)
    files = _stamped(chosen, location)
    return Found(from_table(_read_tables(chosen), str(location), *columns, own, files), whole=len(named) == 1)


def _stamped(paths: list[Path], folder: Path) -> list[tuple[bytes, str]]:
    """Return the files' paths within the data set, each with its state."""
    return [(path_within(folder, path), state_of(path)) for path in paths]


def _stamped_cache(table, folder: Path) -> list[tuple[bytes, str]]:
    """Return the Arrow files of a saved table, each with its state."""
    return _stamped([folder / file["filename"] for file in table.cache_files], folder)


def _read_saved(folder: Path, follow_links: bool):
    """Return what `save_to_disk` of `datasets` wrote: a table, or a dictionary of tables by split."""
    from datasets import load_from_disk

    try:
        saved = load_from_disk(str(folder))
    except Exception as error:  # damaged JSON and Arrow files raise many types
        raise DataError(
            f"{folder}: expected a folder that `datasets` saved, found {type(error).__name__}: {_first_line(error)}"
        ) from None
    for table in saved.values() if isinstance(saved, dict) else [saved]:
        for file in table.cache_files if not follow_links else ():
            check_inside(folder / file["filename"], folder)
    return saved


def _read_tables(paths: list[Path]):
    """Return the rows of all files, which are of one kind, as one `datasets` table. Raises DataError."""
    from datasets import Dataset, load_dataset

    kind = {".parquet": "parquet", ".arrow": "arrow"}[paths[0].suffix]
    try:
        table = load_dataset(kind, data_files=[glob.escape(str(p)) for p in paths], split="train")
    except Exception as error:  # `datasets` wraps the cause in errors of its own
        cause = error.__cause__ or error
        found = f"{type(cause).__name__}: {_first_line(cause)}"
        raise DataError(
            f"{printable(paths[0])}: expected a readable {kind} file, found {found}; is it cut short, or empty?"
        ) from None
    assert isinstance(table, Dataset)
    return table


def _by_split(paths: list[Path]) -> dict[str, list[Path]]:
    """Group table files by the split in their names or their folders' names ("all" for those without one)."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        words = [path.name.lower().split("-")[0].split(".")[0], path.parent.name.lower()]
        name = next((w for w in words if w in TRAIN_NAMES + TEST_NAMES), "all")
        groups.setdefault(name, []).append(path)
    return groups


def from_table(
    table,
    origin: str,
    image_column: str,
    label_column: str,
    folder: Path | None = None,
    files: list[tuple[bytes, str]] | None = None,
) -> Images:
    """Return the images and labels of a `datasets` table.

    image_column, label_column: names, or "" to take the first column that looks like images or labels.
    origin: the file or folder, for messages.  folder, files: see `_Table`.
    Raises DataError, or Outside if the first row names a file outside `folder`.
    """
    column = _image_column(table.features, image_column, origin)
    label = _label_column(table.features, label_column, origin)
    labels, names = None, None
    try:
        if label:
            labels, names = _labels(table[label], table.features[label], origin, label)
    except DataError as error:
        if label_column:
            raise
        log.warning("%s; no labels are taken", error)  # the column was our guess, not the user's wish
    try:
        items = _Table(table, column, folder, files)
    except (TypeError, ValueError, NotImplementedError) as error:  # Arrow's errors, for a column of numbers say
        found = f"{table.features[column]} ({_first_line(error)})"
        raise DataError(
            f"{origin}: expected images in column {column!r}, found {found}; see --data.image_column"
        ) from None
    with contextlib.suppress(PictureError):
        items.source(0) if len(items) else None  # refuses a table of paths that lead out of the folder at once
    return Images(items, labels, names, origin, f"column {column!r}")


def _image_column(features, asked: str, origin: str) -> str:
    from datasets import Image as ImageFeature

    looks_like_images = [
        name for name, kind in features.items()
        if isinstance(kind, ImageFeature) or (isinstance(kind, dict) and "bytes" in kind)
    ]  # fmt: skip
    column = asked or next(iter(looks_like_images), "")
    if column not in features:
        wanted = f"a column of images{f' {column!r}' if column else ''}"
        raise DataError(
            f"{origin}: expected {wanted}, found the columns {', '.join(features)}; name it with --data.image_column"
        )
    return column


def _label_column(features, asked: str, origin: str) -> str:
    """Return the name of the column of labels, "" if there seems to be none."""
    from datasets import ClassLabel

    if asked and asked not in features:
        found = ", ".join(features)
        raise DataError(f"{origin}: expected a column of labels {asked!r}, found {found}; see --data.label_column")
    guesses = [name for name, kind in features.items() if isinstance(kind, ClassLabel)] + LABEL_COLUMNS
    return asked or next((name for name in guesses if name in features), "")


def _labels(values, feature, origin: str, column: str) -> tuple[np.ndarray | None, list[str] | None]:
    """Return the labels, int64 (n,), and the class names; (None, None) if the table marks labels as unknown."""
    values = list(values)
    if any(v is None for v in values):
        without = sum(v is None for v in values)
        raise DataError(f"{origin}: expected a label in every row of column {column!r}, found {without} without")
    if not all(isinstance(v, (str, int, float)) and v == v for v in values):
        raise DataError(
            f"{origin}: expected a number or a word in every row of the label column {column!r}, found {feature}; "
            "see --data.label_column"
        )
    if getattr(feature, "names", None):
        labels = np.asarray(values, dtype=np.int64)
        if (labels >= len(feature.names)).any():
            raise DataError(
                f"{origin}: expected labels below {len(feature.names)} in column {column!r}, "
                f"which has as many names; found {labels.max()}"
            )
        if (labels < 0).any():  # test sets of the hub whose labels are kept secret have −1
            return None, None
        return labels, list(feature.names)
    names, labels = np.unique(np.asarray(values), return_inverse=True)
    return labels.astype(np.int64), [printable(str(n)) for n in names]


class _Table:
    """Serve the images of a `datasets` table, decoded one by one so that a broken image does not end an epoch.

    folder: the folder in which the files named by rows must lie; None allows any place.
    files: the files of the table, each with its state; None for what `datasets` itself calls the table.
    """

    def __init__(self, table, column: str, folder: Path | None = None, files: list[tuple[bytes, str]] | None = None):
        from datasets import Image as ImageFeature

        self.table_files = [(b"table", table._fingerprint)] if files is None else files

        self.table = table.select_columns([column]).cast_column(column, ImageFeature(decode=False))
        self.column, self.folder = column, folder

    def __len__(self):
        return len(self.table)

    def __getitem__(self, i):
        source = self.source(i)
        return open_picture(io.BytesIO(source) if isinstance(source, bytes) else source)

    def source(self, i) -> bytes | Path:
        """Return the encoded bytes of image i, or the path of its file. Raises PictureError or Outside."""
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

    def _cells(self, indices) -> Iterator[dict]:
        for first in range(0, len(indices), CELLS):
            cells = self.table[[int(i) for i in indices[first : first + CELLS]]][self.column]
            yield from (cell or {} for cell in cells)

    def keys(self, indices) -> Iterator[bytes]:
        """Yield the images' encoded bytes, or the paths that rows name."""
        for cell in self._cells(indices):
            found = cell.get("bytes")
            yield path_within(self.folder or "", cell.get("path") or "") if found is None else found

    def files(self, indices) -> tuple[list[tuple[bytes, str]], bytes]:
        """Return the files of the table and those that its rows name, each with its state; and which rows are meant."""
        files = list(self.table_files)
        if self._names_files():
            root = self.folder or Path()
            named = (cell["path"] for cell in self._cells(indices) if cell.get("bytes") is None and cell.get("path"))
            files += [(path_within(root, path), state_of(root / path)) for path in named]
        return files, f"{len(self.table)} rows".encode() + np.asarray(indices, dtype=np.int64).tobytes()

    def _names_files(self) -> bool:
        """Return whether some rows have no bytes, without reading those of the others."""
        chunks = self.table.data.column(self.column).chunks
        return any(chunk.field("bytes").null_count for chunk in chunks)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
