"""Choose the columns of images and of labels in a table by their names, and turn a column of values into classes.

Tables, the Hugging Face hub and `metadata.csv` beside images share these rules. Names are compared in lower case.
"""

import functools
import logging
import re
import unicodedata
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from bigbigan.errors import DataError
from bigbigan.files import printable

log = logging.getLogger(__name__)

# From the most usual name on. Those in the second row are what WebDataset calls a sample's files.
IMAGE_NAMES = (
    "image", "img", "images", "picture", "photo", "pixels", "pixel_values", "image_bytes", "image_data",
    "jpg", "jpeg", "png", "webp", "tiff", "tif", "bmp", "ppm",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "fine_label", "class", "cls", "class_label", "label_id", "class_id", "category", "target", "y",
    "category_id", "class_name", "label_name", "classname", "species", "diagnosis", "dx",
)  # fmt: skip
# A column with one of these words holds no pictures to train on, whatever its type.
MASK_WORDS = {
    "mask", "masks", "label", "labels", "annotation", "annotations", "annot", "gt", "groundtruth", "truth", "seg",
    "segmentation", "segmentations", "semantic", "segmented", "depth", "edge", "edges", "trimap", "trimaps", "alpha",
    "matte", "heatmap", "overlay", "saliency", "normals", "bbox", "bboxes", "conditioning",
}  # fmt: skip
# What pandas, R and spreadsheets write in the place of a value, in lower case.
MISSING = {"na", "n/a", "#n/a", "nan", "<na>", "null", "none", "nil", "missing"}
IDS = 0.9  # share of different values in a column from which on they are ids, not classes


def words(name: str) -> list[str]:
    """Return a name's words and numbers in lower case: "imagesTr_02" gives images, tr, 02."""
    found = re.findall(r"[^\W\d_]+|\d+", name)
    return [word.lower() for part in found for word in re.sub(r"(?<=[a-z])(?=[A-Z])", " ", part).split()]


def is_missing(value: object) -> bool:
    """Return whether a value of a table looks like the mark for no value."""
    return isinstance(value, str) and value.strip().lower() in MISSING


def is_mask(name: str) -> bool:
    """Return whether a column's or folder's name says that it holds masks or other annotations drawn as images."""
    return any(word in MASK_WORDS for word in words(name))


def choose_image_column(candidates: Sequence[str], columns: Sequence[str], asked: str, origin: str) -> str:
    """Return the name of the column of images, and log which others there are. Raises DataError.

    candidates: the columns that hold images, by their type.  columns: all.  asked: --data.image_column, or "".
    """
    if asked in columns:
        return asked
    if asked or not candidates:
        wanted = f"a column of images{f' {asked!r}' if asked else ''}"
        found = ", ".join(map(str, columns))
        raise DataError(f"{origin}: expected {wanted}, found the columns {found}; name it with --data.image_column")
    pictures = [name for name in candidates if not is_mask(name)]
    named = sorted((n for n in pictures if n.lower() in IMAGE_NAMES), key=lambda n: IMAGE_NAMES.index(n.lower()))
    if not named and len(pictures) != 1:
        found = ", ".join(map(repr, candidates))
        doubt = "looks like a mask by its name" if len(candidates) == 1 else "none of which has a usual name"
        raise DataError(
            f"{origin}: expected a column of images such as 'image', found {found}, {doubt}; "
            "name it with --data.image_column"
        )
    chosen = (named or pictures)[0]
    if len(candidates) > 1:
        others = ", ".join(repr(name) for name in candidates if name != chosen)
        log.warning("%s: images are read from column %r, not from %s; --data.image_column", origin, chosen, others)
    return chosen


def choose_label_columns(columns: Sequence[str], declared: Sequence[str], asked: str, origin: str) -> list[str]:
    """Return the columns that may hold labels, the best first; none if there seems to be none. Raises DataError.

    declared: the columns whose type says that they hold classes (ClassLabel).  asked: --data.label_column, or "".
    """
    if asked:
        if asked not in columns:
            found = ", ".join(columns) or "no column that could hold any"
            raise DataError(f"{origin}: expected a column of labels {asked!r}, found {found}; see --data.label_column")
        return [asked]
    named = sorted((n for n in columns if n.lower() in LABEL_NAMES), key=lambda n: LABEL_NAMES.index(n.lower()))
    if named:  # a declared one is more certain than another of the usual names, but `label` is always the first
        first = [n for n in named if n.lower() in LABEL_NAMES[:2]] + [n for n in named if n in declared]
        return list(dict.fromkeys([*first, *named]))
    if len(declared) > 1:
        found = ", ".join(map(repr, declared))
        log.warning(
            "%s: no labels are taken, since %s all hold classes; choose with --data.label_column", origin, found
        )
        return []
    return list(declared)


def columns_asked(asked: str, columns: Sequence[str]) -> list[str]:
    """Return the columns of a table that --data.label_column names: one, or several with commas between; else []."""
    if asked in columns:
        return [asked]
    several = [name.strip() for name in asked.split(",")]
    return several if len(several) > 1 and set(several) <= set(columns) else []


def the_one(columns: Sequence[str], values: Sequence, row: str) -> str | None:
    """Return the name of the only column that holds 1 where the others hold 0; None if all are 0. Raises DataError.

    row: what to call the row in the error.
    """
    cells = ["" if value is None else str(value).strip() for value in values]
    ones = [name for name, word in zip(columns, cells, strict=True) if word in ("1", "1.0", "True")]
    zeros = [word for word in cells if word in ("0", "0.0", "False", "-1", "-1.0", "")]
    if len(ones) > 1 or len(ones) + len(zeros) < len(columns):
        given = ", ".join(f"{name} {word or None}" for name, word in zip(columns, cells, strict=True))
        raise DataError(
            f"{row}: expected 1 in one of the columns of --data.label_column {','.join(columns)}, and 0 in the "
            f"others, found {given}"
        )
    return ones[0] if ones else None


def say_which_labels(chosen: str, columns: Sequence[str], declared: Sequence[str], origin: str) -> None:
    """Log the chosen column of labels and the others that hold classes or have a usual name, if there are any."""
    others = [name for name in columns if name != chosen and (name.lower() in LABEL_NAMES or name in declared)]
    if others:
        found = ", ".join(map(repr, others))
        log.warning("%s: labels are read from column %r, not from %s; --data.label_column", origin, chosen, found)


class Tally(NamedTuple):
    """Hold a column by its different values. codes: which of `values` each row has, int64 (n,).

    Values of different types are different, so that 1, 1.0 and True are three.
    """

    values: list
    codes: np.ndarray

    def count(self, chosen: Callable[[object], bool]) -> int:
        """Return the number of rows whose value is chosen."""
        return int(np.isin(self.codes, [k for k, value in enumerate(self.values) if chosen(value)]).sum())


def tally(rows: Sequence) -> Tally:
    """Return the different values of a column, in the order in which they appear first.

    rows: a list; or a column of Arrow (`pyarrow.ChunkedArray`) that `is_plain`, which is counted without Python.
    """
    if hasattr(rows, "dictionary_encode") and len(rows):
        encoded = rows.dictionary_encode(null_encoding="encode").combine_chunks()
        encoded = encoded if hasattr(encoded, "indices") else encoded.unify_dictionaries().chunk(0)
        return Tally(encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64))
    numbers: dict[tuple, int] = {}
    values, codes = [], []
    for value in rows:
        value = value.item() if isinstance(value, np.generic) else value
        key = (type(value), value) if isinstance(value, Hashable) else (type(value), id(value))
        if (code := numbers.setdefault(key, len(values))) == len(values):
            values.append(value)
        codes.append(code)
    return Tally(values, np.asarray(codes, dtype=np.int64))


def is_plain(kind) -> bool:
    """Return whether `tally` counts an Arrow column of this type: words, whole numbers, floats or booleans."""
    import pyarrow.types as types

    plain = types.is_string, types.is_large_string, types.is_integer, types.is_boolean, types.is_float32
    return any(is_kind(kind) for is_kind in (*plain, types.is_float64))


def classes_of(
    rows: Sequence | Tally,
    names: list[str] | None,
    column: str,
    origin: str,
    asked: bool = False,
    everywhere: Sequence[Tally] = (),
) -> tuple[np.ndarray | None, list[str] | None]:
    """Return labels, int64 (n,), and class names; (None, None) if the values mark labels as unknown.

    rows: numbers or words, one a row.  names: of the classes that the integers stand for, where the type declares
    them.  asked: whether the user named the column, so that whole floats and ids are classes too.
    everywhere: the values of all splits, by which it is judged whether they are ids; `rows` if empty.
    Raises DataError for values that are no classes.
    """
    found = _tidied(rows if isinstance(rows, Tally) else tally(rows), column, origin)
    if without := found.count(lambda v: v is None):
        raise DataError(
            f"{origin}: expected a label in every row of column {column!r}, found {without} without; fill them in, or "
            "take these rows out"
        )
    if wrong := [v for v in found.values if not isinstance(v, (str, int, float)) or v != v]:
        raise DataError(
            f"{origin}: expected a number or a word in every row of the label column {column!r}, found "
            f"{type(wrong[0]).__name__}; see --data.label_column"
        )
    if _unknown(found, names is not None, column, origin):
        return None, None
    if names is not None:
        values = np.asarray(found.values, dtype=np.int64)
        if (values >= len(names)).any():
            raise DataError(
                f"{origin}: expected labels below {len(names)} in column {column!r}, "
                f"which has as many names; found {values.max()}"
            )
        return values[found.codes], list(names)
    _check_classes(found, everywhere or [found], column, origin, asked)
    values = found.values
    if any(isinstance(v, float) for v in values):
        values = [_whole(v) for v in values]
    distinct, numbers = np.unique(np.asarray(values), return_inverse=True)
    return numbers.astype(np.int64)[found.codes], [printable(str(name)) for name in distinct]


def _whole(value: float | str) -> int | str:
    """Return a whole float as an integer; words stay, but one that is a whole float is the word of that integer."""
    if isinstance(value, str):
        return value.partition(".")[0] if re.fullmatch(r"-?\d+\.0+", value) else value
    return int(value)


def _tidied(found: Tally, column: str, origin: str) -> Tally:
    """Return the same values with words in one spelling: without blanks around them, and é as one character.

    An empty word is None. Log what is changed, and words that look like the mark for no value.
    """
    tidy = [unicodedata.normalize("NFC", v.strip()) or None if isinstance(v, str) else v for v in found.values]
    if marks := [v for v in tidy if is_missing(v)]:
        log.warning(
            "%s: %s in column %r counts as a class; if it marks rows without a label, fill them in or take them out",
            origin, ", ".join(map(repr, marks)), column,
        )  # fmt: skip
    if several := _of_several(tidy):
        _say_several(origin, column, several[0])
    if tidy == found.values:
        return found
    if any(isinstance(v, str) and v != v.strip() for v in found.values):
        log.warning("%s: blanks around the labels in column %r are left out", origin, column)
    again = tally(tidy)
    return Tally(again.values, again.codes[found.codes])


def _of_several(values: list) -> list[str]:
    """Return the words that are several other values of a column at once: "A|B" where A or B is there too."""
    words = {value for value in values if isinstance(value, str)}
    found = []
    for value in sorted(words):
        parts = [{part.strip() for part in value.split(mark)} for mark in "|;,"]
        if any(len(some) > 1 and some & words for some in parts) or 1 < len(set(value.split())) <= len(
            words & set(value.split())
        ):
            found.append(value)
    return found


@functools.cache  # once for a process, which reads the labels of both splits
def _say_several(origin: str, column: str, example: str) -> None:
    log.warning(
        "%s: column %r has labels that are made of others, such as %r; each counts as one class of its own",
        origin, column, example,
    )  # fmt: skip


def _unknown(found: Tally, declared: bool, column: str, origin: str) -> bool:
    """Return whether −1 marks rows without a label: in declared classes, and beside other integers than 1.

    The values −1 and 1 alone are two classes.
    """
    unknown = found.count(lambda v: not isinstance(v, str) and v < 0)
    if not unknown:
        return False
    if not declared and (set(found.values) == {-1, 1} or not all(isinstance(v, int) and v >= -1 for v in found.values)):
        return False
    if unknown < len(found.codes):
        log.warning(
            "%s: %s of %s rows have −1, no label, in column %r; no labels are taken", origin, f"{unknown:,}",
            f"{len(found.codes):,}", column,
        )  # fmt: skip
    return True


def _check_classes(found: Tally, everywhere: Sequence[Tally], column: str, origin: str, asked: bool) -> None:
    """Raise DataError for measurements (fractions) and, unless the column was asked for, for ids and other floats."""
    floats = [v for v in found.values if isinstance(v, float)]
    if floats and (not asked or not all(v.is_integer() for v in floats)):
        example = next((v for v in floats if not v.is_integer()), floats[0])
        raise DataError(
            f"{origin}: expected classes in column {column!r}, found numbers such as {example:g}; "
            "see --data.label_column"
        )
    distinct, count = len(set().union(*(part.values for part in everywhere))), sum(len(p.codes) for p in everywhere)
    if not asked and distinct > 2 and distinct > IDS * count:
        raise DataError(
            f"{origin}: expected classes in column {column!r}, found {distinct:,} different values in "
            f"{count:,} rows, which look like ids; see --data.label_column"
        )
