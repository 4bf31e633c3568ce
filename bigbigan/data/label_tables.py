"""Read the labels of image files from a table beside them, where --data.label_column names its column.

Which column names the images is found by its values. Several columns, `MEL,NV,BCC`, are one label: the column that
holds the 1. `metadata` reads the files that `datasets` knows, whose column of names is known.
"""

import difflib
import logging
import os
import re
from pathlib import Path

from bigbigan.data.columns import LABEL_NAMES, columns_asked, the_one
from bigbigan.data.image_names import ImageNames, NamesIn
from bigbigan.data.metadata import Metadata, columns_in, read_rows, typed
from bigbigan.data.patients import choose_group_column, group_names, patient_column
from bigbigan.data.split_columns import split_columns
from bigbigan.data.text_tables import SAMPLE, TextTable, columns_of, of_folders, worth_reading
from bigbigan.data.walk import Folder
from bigbigan.errors import DataError
from bigbigan.files import listed, printable

log = logging.getLogger(__name__)

MOST_SAID = 8  # tables that are looked into where no labels are asked for, and columns of an error
MOST_SHOWN = 40  # letters of a table's value in an error


def read_label_tables(
    paths: list[str], images: set[str], folder: Path, column: str, origin: str, quiet: bool
) -> Metadata:
    """Return the labels of images by the tables that have the column. Raises DataError.

    paths: of all tables in the data set.  images: paths of all images.  folder: the data set's.  quiet: log nothing.
    Images that no table names are left out where another image of their split is named.
    """
    names, found = ImageNames(images, folder), Metadata(column=column, asked=True)
    tables = [path for path in worth_reading(paths) if columns_asked(column, columns_of(path))]
    if not tables:
        columns = list(dict.fromkeys(name for path in worth_reading(paths) for name in columns_of(path)))
        near = "".join(f"; did you mean {name}?" for name in difflib.get_close_matches(column, columns, 1))
        there = ", ".join(printable(os.path.basename(path)) for path in paths[:6]) or "no such file"
        there += f" with {listed(columns)}{near}" if columns else ""
        raise DataError(
            f"{origin}: expected metadata.csv, or another .csv, .tsv or .txt file beside the images, with the column "
            f"{column!r} of --data.label_column, found {there}"
        )
    without: list[DataError] = []  # of tables that name no image, as of the classes
    for path in tables:
        table, here = TextTable.read(path), names.of(path)
        asked = columns_asked(column, table.columns)
        by = _column_of_names(table, here, asked, path)
        if by is None:
            _refuse_unclear(table, here, path)
            without.append(
                DataError(
                    f"{printable(path)}: expected a column with names of the images, such as "
                    f"{printable(os.path.relpath(min(images), folder))!r}, with or without their folders and suffixes, "
                    f"found none{of_folders(table, here)}; its columns begin {_beginnings(table)}"
                )
            )
            continue
        if not quiet:
            log.warning(
                "%s: labels are read from column %r, and the names of images from %s",
                printable(path), column, repr(by) if by else "the first",
            )  # fmt: skip
        labels = _labels(table, asked, path)
        for name, label in zip(table.column(by), labels, strict=True):
            image = here.find(name)
            if image is None:
                (found.unclear if names.all_of(name) else found.missing).append(name)
            elif found.labels.setdefault(image, label) != label:
                raise DataError(
                    f"{printable(path)}: expected one label for each image in column {column!r}, found "
                    f"{found.labels[image]!r} and {label!r} for {printable(image)}"
                )
    if without and not found.labels:
        raise without[0]
    for error in without if not quiet else ():
        log.warning("%s; no labels are read from it", error)
    found.folders = sorted({os.path.dirname(image) for image in found.labels})
    return found


def groups_in_tables(
    paths: list[str], images: set[str], folder: Path, asked: str = "", origin: str = ""
) -> dict[str, str]:
    """Return path of an image → its group, by the tables that name images, or their folders, and have such a column.

    The labels that are asked for have no part in it, since groups decide which images are held out. Arguments: as of
    `read_label_tables`; asked: --data.group_column, or "" for columns of patients.  Raises DataError if a column is
    asked for that no table has, or only one that names no image or has no value.
    """
    found: dict[str, str] = {}
    names, columns, errors = None, [], []
    for path in worth_reading(paths):
        try:
            table, column = _with_groups(path, asked, columns)
            if not column:
                continue
            names = names or ImageNames(images, folder)
            named = _images_named(table, names.of(path), column, images, path)
        except DataError as error:  # another table may say all
            errors.append(error)
            continue
        for image, group in named:
            if group and found.setdefault(image, group) != group and asked:
                raise DataError(
                    f"{printable(path)}: expected one value for each image in the column {asked!r} of "
                    f"--data.group_column, found {found[image]!r} and {group!r} for {printable(image)}"
                )
    if asked and not found:
        if errors:
            raise errors[0]
        if not paths:
            raise DataError(
                f"{origin}: expected the column {asked!r} of --data.group_column, found no .csv, .tsv or metadata file "
                "beside the images"
            )
        choose_group_column(list(dict.fromkeys(columns)), asked, origin)
        raise DataError(f"{origin}: expected values in the column {asked!r} of --data.group_column, found none")
    return found


def _with_groups(path: str, asked: str, known: list[str]) -> tuple[TextTable, str]:
    """Return the table in a file and its column of groups, as of `_group_column`. Raises DataError."""
    if path.endswith((".jsonl", ".parquet")):
        table = _text_table(read_rows(Path(path)))
        return table, _group_column(table.columns, asked, known)
    columns = columns_of(path)
    column = _group_column(columns, asked, known)
    return TextTable.read(path) if column else TextTable(columns, []), column


def _group_column(columns: list[str], asked: str, known: list[str]) -> str:
    """Return the column of groups among a table's columns, which are added to the `known` ones; "" for none."""
    known += columns
    return (asked if asked in columns else "") if asked else patient_column(columns)


def _images_named(table: TextTable, here: NamesIn, column: str, images: set[str], path: str) -> list[tuple[str, str]]:
    """Return (image, value of the column) for the images that rows name, or that lie in folders that have a row each.

    Where the column itself names folders, bare numbers beside it, as of years of age, name no images. Raises DataError
    if neither is named.
    """
    values, by = group_names(table.column(column)), _column_of_names(table, here, [column], path)
    itself = table.names_folders(column, here)
    if by is not None and (not itself or table.names_with_suffixes(by, here)):
        pairs = ((here.find(name), value) for name, value in zip(table.column(by), values, strict=True))
        return [(image, value) for image, value in pairs if image is not None]
    naming = [column] if itself else [name for name in table.columns if name and table.names_folders(name, here)]
    for by in naming:
        pairs = zip(map(here.names.find_folder, table.column(by)), values, strict=True)
        of_folder = dict(named := {(name, value) for name, value in pairs if name and value})
        if len(of_folder) == len(named):  # not several values for a folder, as patients have for that of their class
            return _images_in(of_folder, images, len(here.names.folder) + 1)
    if not naming:
        _refuse_unclear(table, here, path)
    raise DataError(
        f"{printable(path)}: expected a column that names images, or a row for each of their folders, beside the "
        f"column {printable(column)!r} of --data.group_column, found neither"
    )


def _images_in(of_folder: dict[str, str], images: set[str], within: int) -> list[tuple[str, str]]:
    """Return (image, value) for the images below folders that have a value, the innermost of them.

    of_folder: name of a folder, or end of its path → value.  within: letters of a path before the data set's own.
    """
    values: dict[str, str] = {}  # of the folders that images lie in
    found = []
    for path in images:
        folder = path.rpartition(os.sep)[0]
        if folder not in values:
            parts = folder[within:].split(os.sep)
            ends = ("/".join(parts[i:k]) for k in range(len(parts), 0, -1) for i in range(k))
            values[folder] = next((of_folder[end] for end in ends if end in of_folder), "")
        if value := values[folder]:
            found.append((path, value))
    return found


def _text_table(rows: list[dict]) -> TextTable:
    """Return the rows of a metadata file as those of a text."""
    columns = columns_in(rows)
    return TextTable(columns, [["" if row.get(c) is None else str(row[c]) for c in columns] for row in rows])


def _column_of_names(table: TextTable, names: NamesIn, asked: list[str], path: str) -> str | None:
    try:
        return table.column_of_names(names, but=asked)
    except DataError as error:
        raise DataError(f"{printable(path)}: {error}") from None


def _refuse_unclear(table: TextTable, here: NamesIn, path: str) -> None:
    """Raise DataError if a column names images, but several by each name. Numbers may count something else."""
    names = here.names
    for column in table.columns:
        value = next((v for v in table.column(column)[:SAMPLE] if len(names.all_of(v)) > 1), None)
        if value is not None and not re.fullmatch(r"0|[1-9]\d*", value.strip()):
            found = [printable(os.path.relpath(image, names.folder)) for image in sorted(names.all_of(value))]
            raise DataError(
                f"{printable(path)}: expected names of one image each in column {printable(column)!r}, found "
                f"{printable(value)!r}, which may be {' or '.join(found[:2])}; write {found[0]}, or put the table "
                f"beside its images{', or call it by their split, as in train.csv' * (here.split is None)}"
            )


def _beginnings(table: TextTable) -> str:
    """Return the first value of each column, for a sentence."""
    values = {name: next(iter(table.column(name)), "") for name in table.columns}
    shown = [f"{printable(name)!r}: {printable(str(value))[:MOST_SHOWN]!r}" for name, value in values.items()]
    return ", ".join(shown[:MOST_SAID]) + ", …" * (len(shown) > MOST_SAID)


def say_which_tables(paths: list[str], images: Folder, folder: Path, where: str, labelled: bool) -> None:
    """Log which .csv or .tsv file names the images, and has columns that --data.label_column could take.

    So is a table logged that has such columns, but names folders, as of patients: none of its columns can be used.
    images: of the data set.  folder: the data set's.  labelled: whether the images have labels; then of tables that
    name images nothing is logged.
    """
    tables = [path for path in worth_reading(paths) if not path.lower().endswith(".txt")][:MOST_SAID]
    names = ImageNames(images.images(), folder) if tables else None
    for path in tables:
        try:
            table = TextTable.read(path, most=SAMPLE)
        except DataError:
            continue  # no labels are asked for
        try:
            by = table.column_of_names(names.of(path))
        except DataError:  # names images by several columns
            by = ""
        columns = [name for name in table.columns if name and name != by]
        if by is None and not split_columns(table.columns):  # of a column of splits `split_lists` has said it
            _say_that_folders_are_named(table, names.of(path), f"{where}: {printable(os.path.relpath(path, folder))}")
        if by is not None and columns and not labelled:
            log.warning(
                "%s: no labels are read from %s, which names images; --data.label_column takes one of its columns: %s",
                where, printable(os.path.relpath(path, folder)), listed(columns),
            )  # fmt: skip


def _say_that_folders_are_named(table: TextTable, names: NamesIn, where: str) -> None:
    """Log a table that gives labels to folders, if it is one by the names of its columns."""
    by = table.column_of_folders(names)
    columns = [name for name in table.columns if name != by and name.lower() in LABEL_NAMES]
    if by is not None and by.lower() not in LABEL_NAMES and columns:
        log.warning(
            "%s: no labels are read from column %r, since no column names the images, and %r names folders; write a "
            "row for each image, with its path in a column, and give --data.label_column %s",
            where, printable(columns[0]), printable(by), printable(columns[0]),
        )  # fmt: skip


def _labels(table: TextTable, asked: list[str], path: str) -> list[object]:
    """Return the label of each row, None for none."""
    if len(asked) == 1:
        return [row[asked[0]] for row in typed([{asked[0]: value} for value in table.column(asked[0])])]
    rows = zip(*map(table.column, asked), strict=True)
    return [the_one(asked, row, f"{printable(path)}, row {i}") for i, row in enumerate(rows, 1)]
