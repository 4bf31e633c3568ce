"""Read `metadata.csv`, `metadata.jsonl` or `metadata.parquet` beside images, as the imagefolder of `datasets` does.

Its column `file_name` (or one that ends in `_file_name`) holds paths relative to the file's own folder; another column
may hold labels. Images below a folder with such a file are those that it names. `val_annotations.txt`, which Tiny
ImageNet has beside its validation images, is read in the same way, and so is the `dataset.json` of StyleGAN's data.
"""

import functools
import itertools
import json
import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from bigbigan.data.columns import (
    choose_label_columns,
    columns_asked,
    is_mask,
    is_missing,
    say_which_labels,
    the_one,
)
from bigbigan.data.text_tables import TextTable
from bigbigan.errors import DataError
from bigbigan.files import printable

# With a point, or whole beside others with one: 1, 1.5 and 1e-05, as programs write a column of floats. 007 is none.
NUMBER = re.compile(r"-?(?:\d+\.\d*|\.\d+|0|[1-9]\d*)(?:[eE][-+]?\d+)?")
log = logging.getLogger(__name__)


@dataclass
class Metadata:
    """Hold what the metadata files of a folder say.

    labels: path of an image → its label, None without one.  column: the column of the labels, "" without one.
    asked: whether the user named that column.
    folders: the folders that have a metadata file.  missing: paths named there that are no images here.  unclear: those
    that several images have.
    """

    labels: dict[str, object] = field(default_factory=dict)
    column: str = ""
    asked: bool = False
    folders: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)

    def missing_lines(self) -> list[str]:
        """Return how many names stand for no image here, and how many for several, with the first of each."""
        found = []
        if self.missing:
            first = printable(self.missing[0])
            found.append(f"{len(self.missing):,} names in metadata files are no images here, such as {first}")
        if self.unclear:
            first = printable(self.unclear[0])
            found.append(
                f"{len(self.unclear):,} names in metadata files stand for several images each, such as {first}; write "
                f"them with their folders, as in train/{first}"
            )
        return found

    def covers(self, path: str) -> bool:
        """Return whether an image lies below a folder with a metadata file, which then decides about it."""
        return any(path.startswith(folder + os.sep) for folder in self.folders)


def read_metadata(
    paths: list[str], images: set[str], label_column: str, origin: str, group_column: str = ""
) -> Metadata:
    """Return what the metadata files say about the images. Raises DataError.

    paths: the metadata files.  images: paths of all images.  label_column: as asked for, or "".
    group_column: that of --data.group_column, which gives labels only where it is asked for.
    """
    tables = {path: read_rows(Path(path)) for path in paths}
    tables = {
        path: rows for path, rows in tables.items() if not path.endswith(".json") or _names_one(rows, path, images)
    }
    found, kinds = Metadata(asked=bool(label_column)), {os.path.splitext(path)[1] for path in tables}
    if len(kinds) > 1:
        raise DataError(f"{origin}: expected metadata files of one kind, found {', '.join(sorted(kinds))}; keep one")
    files = {path: _file_column(rows, path) for path, rows in tables.items()}
    tables = {path: rows for path, rows in tables.items() if files[path]}
    columns = list(dict.fromkeys(name for rows in tables.values() for name in columns_in(rows)))
    if not tables:
        return found
    others = [c for c in columns if c not in files.values()]
    if not label_column:
        others = [c for c in others if c != group_column]
    several = [] if label_column in others else columns_asked(label_column, others)
    labels = [label_column] if several else choose_label_columns(others, [], label_column, origin)
    found.column = labels[0] if labels else ""
    if found.column:
        say_which_labels(found.column, columns, [], origin)
    for path, rows in tables.items():
        _add_labels(found, path, [(row.get(files[path]) or "", row) for row in rows], several, images)
    if not found.labels:
        first = next(iter(tables))
        raise DataError(
            f"{printable(first)}: expected names of images in column {files[first]!r}, as paths from its own folder, "
            f"found none that is there{f', such as {printable(found.missing[0])}' if found.missing else ''}"
        )
    for line in found.missing_lines():
        log.warning("%s: %s", origin, line)
    return found


def columns_in(rows: list[dict]) -> list[str]:
    """Return the names of all columns: a row of a .jsonl file may lack some."""
    return [name for name in dict.fromkeys(itertools.chain.from_iterable(rows)) if isinstance(name, str)]


def _add_labels(
    found: Metadata, path: str, named: list[tuple[object, dict]], several: list[str], images: set[str]
) -> None:
    """Add the labels of a metadata file's images to `found`. Raises DataError.

    path: of the file.  named: (name of the image, row).  several: the columns that are one label together, or [].
    """
    folder = os.path.dirname(path)
    found.folders.append(folder)
    for name, row in named:
        image = _path(folder, str(name), images)
        if image not in images:
            found.missing.append(image)
            continue
        label = row.get(found.column) if found.column else None
        if several:
            label = the_one(several, [row.get(name) for name in several], printable(image))
        before = found.labels.setdefault(image, label)
        if before is not label and before != label:  # NaN differs from itself
            raise DataError(
                f"{printable(path)}: expected one label for each image in column {found.column!r}, found {before!r} "
                f"and {label!r} for {printable(image)}"
            )


def _path(folder: str, name: str, images: set[str]) -> str:
    """Return the path that a name stands for; \\ is taken for / where only that makes it an image's."""
    found, other = (os.path.normpath(os.path.join(folder, n)) for n in (name, name.replace("\\", "/")))
    return other if other in images and found not in images else found


def _file_column(rows: list[dict], path: str) -> str:
    """Return the column with the images' paths; log a warning and return "" if the file has none."""
    names = columns_in(rows)
    best = [n for n in names if n == "file_name"] + [n for n in names if n.endswith("_file_name")]
    best = sorted(best, key=is_mask)  # which keeps the order otherwise
    if not best:
        _say_not_read(printable(path))
    elif len(best) > 1:
        log.warning("%s: images are named by column %r, not by %s", printable(path), best[0], ", ".join(best[1:]))
    return best[0] if best else ""


@functools.cache  # once for a process, which opens its data more than once
def _say_not_read(path: str) -> None:
    log.warning(
        "%s: no labels are read from it, since it has no column file_name; where another one names the images, "
        "--data.label_column takes a column of labels",
        path,
    )  # fmt: skip


def read_rows(path: Path) -> list[dict]:
    """Return the rows of a metadata file. Raises DataError."""
    try:
        if path.suffix == ".txt":
            return _tiny_imagenet(path)
        if path.suffix == ".json":
            return _stylegan(path)
        if path.suffix == ".csv":
            table = TextTable.read(path)
            return typed([dict(zip(table.columns, row, strict=True)) for row in table.rows])
        if path.suffix == ".jsonl":
            with open(path, encoding="utf-8") as file:
                rows = [json.loads(line) for line in file if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a line that is no JSON object")
            return rows
        import pyarrow.parquet as pq

        with open(path, "rb") as file:
            return pq.read_table(file).to_pylist()
    except DataError:
        raise
    except (ValueError, RecursionError, OSError) as error:  # Arrow's errors are ValueErrors or OSErrors
        text = str(error).strip().splitlines()
        raise DataError(
            f"{printable(path)}: expected a readable {path.suffix} file, found "
            f"{type(error).__name__}: {text[0] if text else ''}"
        ) from None


def _tiny_imagenet(path: Path) -> list[dict]:
    """Return the rows of a `val_annotations.txt`: the image's name, its class, and a box, with tabs between."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not all(len(line) == 6 for line in lines):
        raise ValueError("a line that is not a name, a class and the four numbers of a box, with tabs between")
    folder = "images/" if (path.parent / "images").is_dir() else ""
    return [{"file_name": folder + name, "label": label} for name, label, *_ in lines]


def _names_one(rows: list[dict], path: str, images: set[str]) -> bool:
    """Return whether any row names an image, relative to the file at `path`."""
    folder = os.path.dirname(path)
    return any(os.path.normpath(os.path.join(folder, str(row["file_name"]))) in images for row in rows)


def _stylegan(path: Path) -> list[dict]:
    """Return the rows of StyleGAN's `dataset.json`, {"labels": [[name, class], ...]}.

    Returns none where it is null, and of other files of this name; a warning says so if the file is no JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        log.warning("%s: no labels are read from it: %s: %s", printable(path), type(error).__name__, error)
        return []
    pairs = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return []
    return [{"file_name": name, "label": label} for name, label in pairs]


def are_measurements(values: list[str]) -> bool:
    """Return whether all texts are numbers, and some of them have a point."""
    return all(map(NUMBER.fullmatch, values)) and any("." in v for v in values)


def typed(rows: list[dict[str, str]]) -> list[dict]:
    """Turn the columns of a CSV file that hold only whole numbers into int, or only numbers into float; "" to None.

    Blanks around a value do not count. Beside numbers, NA and the like stand for no value, as "" does.
    """
    for column in rows[0] if rows else ():
        for row in rows:
            row[column] = (row.get(column) or "").strip()
        values = [row[column] for row in rows if row[column] and not is_missing(row[column])]
        whole = values and all(re.fullmatch(r"-?(0|[1-9]\d*)", v) for v in values)
        number = are_measurements(values)
        for row in rows:
            text = row[column]
            nothing = not text or ((whole or number) and is_missing(text))
            row[column] = None if nothing else int(text) if whole else float(text) if number else text
    return rows
