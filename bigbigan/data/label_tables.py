"""Read the labels of image files from a .csv or .tsv file beside them, where --data.label_column names its column.

Which column names the images is found by its values: `ISIC_0024306`, `ISIC_0024306.jpg` and `part_1/ISIC_0024306.jpg`
all name one file. `metadata` reads the files that `datasets` knows, which need no such search.
"""

import csv
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from bigbigan.data.metadata import Metadata, typed
from bigbigan.errors import DataError
from bigbigan.files import printable

log = logging.getLogger(__name__)


def read_label_tables(
    paths: list[str], images: set[str], folder: Path, column: str, origin: str, quiet: bool
) -> Metadata:
    """Return the labels of images by the tables that have the column. Raises DataError.

    paths: of all tables in the data set.  images: paths of all images.  folder: the data set's.  quiet: log nothing.
    Images that no table names are left out where another image of their folder is named.
    """
    names, found = _names(images, folder), Metadata(column=column, asked=True)
    tables = {path: table for path in paths if column in (table := _rows(Path(path)))[0]}
    if not tables:
        there = ", ".join(printable(os.path.basename(path)) for path in paths[:6]) or "no such file"
        raise DataError(
            f"{origin}: expected metadata.csv, or another .csv or .tsv file beside the images, with the column "
            f"{column!r} of --data.label_column, found {there}"
        )
    for path, (columns, rows) in tables.items():
        counts = {name: sum(_image(row[name], names) is not None for row in rows) for name in columns if name != column}
        by = max(counts, key=counts.__getitem__, default="")
        if not counts.get(by):
            raise DataError(
                f"{printable(path)}: expected a column with names of the images, with or without their folders and "
                f"suffixes, found none; its columns are {', '.join(map(repr, columns))}"
            )
        if not quiet:
            log.warning(
                "%s: labels are read from column %r, and the names of images from %r", printable(path), column, by
            )
        for row, label in zip(rows, typed([{column: row[column]} for row in rows]), strict=True):
            image = _image(row[by], names)
            if image is None:
                found.missing.append(row[by])
            elif found.labels.setdefault(image, label[column]) != label[column]:
                raise DataError(
                    f"{printable(path)}: expected one label for each image in column {column!r}, found "
                    f"{found.labels[image]!r} and {label[column]!r} for {printable(image)}"
                )
    found.folders = sorted({os.path.dirname(image) for image in found.labels})
    return found


def _names(images: Iterable[str], folder: Path) -> dict[str, str | None]:
    """Return what may name each image → its path; None for what names several."""
    names: dict[str, str | None] = {}
    for path in images:
        relative = os.path.relpath(path, folder).replace(os.sep, "/")
        base = os.path.basename(path)
        for name in {relative, os.path.splitext(relative)[0], base, os.path.splitext(base)[0]}:
            names[name] = None if name in names else path
    return names


def _image(value: str, names: dict[str, str | None]) -> str | None:
    """Return the path of the image that a cell names, None if it names none or several."""
    value = value.strip().replace("\\", "/").removeprefix("./")
    return names.get(value) or names.get(value.rpartition("/")[2])


def _rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns of a table, and its rows with "" for what is absent. Raises DataError."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", restval="")
            return list(reader.fieldnames or ()), [{k: v for k, v in row.items() if k is not None} for row in reader]
    except (ValueError, csv.Error, OSError) as error:
        raise DataError(
            f"{printable(path)}: expected a readable {path.suffix} file, found {type(error).__name__}: {error}"
        ) from None
