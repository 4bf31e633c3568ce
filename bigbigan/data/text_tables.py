"""Read the tables that data sets have beside their image files: .csv, .tsv, and .txt with a line for each image."""

import csv
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bigbigan.data.columns import words
from bigbigan.data.image_names import NamesIn, is_image_name
from bigbigan.data.images import spread
from bigbigan.errors import DataError
from bigbigan.files import printable

SEPARATORS = ",;\t|"
SAMPLE = 1000  # rows by which a column is judged
ENOUGH = 0.9  # share of a column's values, from which on it names folders
MOST_TEXTS = 256  # .txt files, from which on they are taken to say something of one image each: boxes, captions


def read_lines(path: str | os.PathLike, most: int | None = None) -> list[list[str]]:
    """Return the fields of each line of a file that is not empty, at most `most` lines. Raises DataError.

    Fields lie between that one of SEPARATORS which the first line has most of; in a .txt without any, between spaces.
    """
    suffix = Path(path).suffix.lower()
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = list(itertools.islice((line for line in file if line.strip()), most))
            counts = Counter(mark for mark in (lines[0] if lines else "") if mark in SEPARATORS)
            between = "\t" if suffix == ".tsv" else max(counts, key=counts.__getitem__, default="")
            if not between and suffix == ".txt":
                return [line.split() for line in lines]
            return list(csv.reader(lines, delimiter=between or ","))
    except UnicodeDecodeError:
        raise DataError(
            f"{printable(path)}: expected a {suffix} file in UTF-8, found another encoding; save it as UTF-8, by "
            f"iconv -f {_encoding(path)} -t UTF-8 or, in a spreadsheet, as CSV UTF-8"
        ) from None
    except (ValueError, csv.Error, OSError) as error:
        raise DataError(
            f"{printable(path)}: expected a readable {suffix} file, found {type(error).__name__}: {error}"
        ) from None


def _encoding(path: str | os.PathLike) -> str:
    """Return what iconv calls the encoding of a text file that is not in UTF-8, by its first bytes."""
    with open(path, "rb") as file:
        head = file.read(4)
    marks = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
    return next((name for mark, name in marks.items() if head.startswith(mark)), "LATIN1")


@dataclass
class TextTable:
    """Hold a table whose first line names its columns. rows: as many fields each as there are columns."""

    columns: list[str]
    rows: list[list[str]]

    @classmethod
    def read(cls, path: str | os.PathLike, most: int | None = None) -> "TextTable":
        """Return the table in a file, of its first `most` lines. Raises DataError.

        A line with the number of rows may come first, and the first column may have no name, as in CelebA's.
        """
        lines = read_lines(path, most)
        if len(lines) > 1 and len(lines[0]) == 1 and lines[0][0].strip().isdecimal():
            lines = lines[1:]
        columns = [name.strip() for name in lines[0]] if lines else []
        if len(lines) > 1 and len(lines[1]) == len(columns) + 1:
            columns = ["", *columns]
        width = len(columns)
        return cls(columns, [[*line, *[""] * (width - len(line))][:width] for line in lines[1:]])

    def column(self, name: str) -> list[str]:
        """Return the values of a column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def column_of_names(self, names: NamesIn, but: Iterable[str] = ()) -> str | None:
        """Return the column that names the images, None if no column names any. but: columns that do not.

        Raises DataError where two columns without suffixes name images equally well, and not the same ones.
        """
        columns = [name for name in dict.fromkeys(self.columns) if name not in but]
        columns.sort(key=lambda name: not name or name.lower().startswith("unnamed:"))  # pandas' numbers of rows
        values = [self.column(name) for name in columns]
        best = most_named(values, names)
        if best is None:
            return None
        rank = _rank(values[best], names)
        for name, others in zip(columns[best + 1 :], values[best + 1 :], strict=True):
            if not name or rank.explicit or _rank(others, names) != rank:
                continue
            if any(names.find(a) != names.find(b) for a, b in zip(values[best], others, strict=True)):
                raise DataError(
                    f"expected one column that names images, found {printable(columns[best])!r} and "
                    f"{printable(name)!r}, which name different ones; write names with their suffixes, as in 17.png, "
                    "or take one of the columns out"
                )
        return columns[best]

    def names_with_suffixes(self, column: str, names: NamesIn) -> bool:
        """Return whether most names of images in a column have a suffix or a folder: "17.png", not "17"."""
        return _rank(self.column(column), names).explicit

    def column_of_folders(self, names: NamesIn) -> str | None:
        """Return the first column whose values are names of folders of images, None if there is none."""
        return next((name for name in self.columns if name and self.names_folders(name, names)), None)

    def names_folders(self, column: str, names: NamesIn) -> bool:
        """Return whether nearly all values of a column, of two or more, are names of folders of images."""
        return _name_folders(self.column(column)[:SAMPLE], names)


def of_folders(table: TextTable, names: NamesIn) -> str:
    """Return a clause for a message that says which column of a table names folders, "" if none does."""
    column = table.column_of_folders(names)
    return "" if column is None else f", and {printable(column)!r} names folders"


class Rank(NamedTuple):
    """Say how well a column names images; the larger the better.

    explicit: whether most of its names have an image's suffix or a folder: bare numbers and words may mean something
    else.  images: how many different ones it names.
    """

    explicit: bool
    images: int


def _rank(column: Sequence[str], names: NamesIn, most: int = SAMPLE) -> Rank:
    """Return how well a column names images, by `most` of its rows; 0 for all."""
    found = {i: image for i in spread(len(column), most) if (image := names.find(column[i])) is not None}
    explicit = sum(bool(re.search(r"[/\\]", column[i])) or is_image_name(column[i]) for i in found)
    if found and not explicit and _number_folders([column[i] for i in spread(len(column), most)], found, names, column):
        return Rank(False, 0)
    return Rank(2 * explicit > len(found), len(set(found.values())))


def _name_folders(values: Sequence[str], names: NamesIn) -> bool:
    """Return whether nearly all values, of two or more, are names of folders of images, or ends of their paths."""
    found = [names.names.find_folder(value) for value in {value.strip() for value in values} - {""}]
    return len(set(found) - {""}) > 1 and len(found) - found.count("") >= ENOUGH * len(found)


def _number_folders(values: Sequence[str], found: dict[int, str], names: NamesIn, column: Sequence[str]) -> bool:
    """Return whether bare numbers are those of folders, as of patients, though some images have the same numbers.

    So they are if they name fewer than half of the images, or one in the folder of another number.
    found: row of `column` → the image of that number.
    """
    values = [value.strip() for value in values if value.strip()]
    if not (all(map(str.isdecimal, values)) and _name_folders(values, names)):
        return False
    above = {i: os.path.basename(os.path.dirname(path)) for i, path in found.items()}
    elsewhere = any(above[i] != column[i].strip() and above[i] in set(values) for i in found)
    return elsewhere or 2 * len(set(found.values())) < names.names.count


def most_named(columns: Sequence[Sequence[str]], names: NamesIn) -> int | None:
    """Return which column names images best, the first of equals; None if none names any.

    It is judged by SAMPLE of the rows, or by all where these name none.
    """
    for most in (SAMPLE, 0):
        ranks = [_rank(column, names, most) for column in columns]
        if any(rank.images for rank in ranks):
            return ranks.index(max(ranks))
    return None


def worth_reading(paths: Iterable[str]) -> list[str]:
    """Return the files of a data set that may say something true of its images.

    Left out are .txt files that are too many for that, and forms to submit predictions on (`sample_submission.csv`),
    whose labels stand for nothing.
    """
    paths = [path for path in paths if not {"submission", "submissions"} & set(words(Path(path).stem))]
    texts = {path for path in paths if path.lower().endswith(".txt")}
    return paths if len(texts) <= MOST_TEXTS else [path for path in paths if path not in texts]


def columns_of(path: str) -> list[str]:
    """Return the columns of a table by its first lines; none of a .txt that is no text. Raises DataError."""
    try:
        return TextTable.read(path, most=3).columns
    except DataError:
        if path.lower().endswith(".txt"):
            return []
        raise
