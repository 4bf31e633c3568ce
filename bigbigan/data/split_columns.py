"""Read splits from a column of a table: `split`, `partition`, `subset`, ... with the words train, val and test."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from bigbigan.data.columns import LABEL_NAMES, Tally, words
from bigbigan.data.images import Found, Images, Request
from bigbigan.data.split_names import ALL, TEST, TRAIN, VAL, choose_parts, read_name
from bigbigan.files import counted, listed, printable

log = logging.getLogger(__name__)
# Words in the name of a column of splits.
COLUMNS = {"split", "splits", "partition", "subset", "phase", "usage", "set", "dataset"}
SURE = {"split", "splits", "partition"}  # names of columns that hold nothing else
NUMBERED = {"0": TRAIN, "1": VAL, "2": TEST}  # as in CelebA and WILDS


def split_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns whose names say that they may hold splits; those of yes and no come last."""
    columns = list(columns)
    named = [name for name in columns if set(words(name)) & COLUMNS and not _asks(name)]
    return named + [name for name in columns if _asks(name)]


def _asks(column: str) -> str | None:
    """Return the split that a column of yes and no is about, as `is_valid` of fastai; None for other columns."""
    if words(column)[:1] != ["is"]:
        return None
    return name.split if (name := read_name(" ".join(words(column)[1:]))).plain else None


def _answers(counts: Mapping[str, int], split: str) -> dict[str, str | None]:
    """Return the split that yes and no stand for; {} for other values, and where most images are said to be held out.

    Then `is_valid` says that an image can be used.
    """
    yes = [value for value in counts if value.lower() in ("true", "1", "yes")]
    no = [value for value in counts if value.lower() in ("false", "0", "no")]
    if len(yes) != 1 or len(no) != 1 or len(counts) != 2:
        return {}
    if split == TRAIN:
        return {yes[0]: TRAIN, no[0]: TEST}
    return {yes[0]: split, no[0]: TRAIN} if counts[yes[0]] < counts[no[0]] else {}


def columns_of_split_words(columns: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """Return the columns that hold train, val and test and nothing else, whatever they are called, but for labels.

    columns: name and values of each.
    """
    found = []
    for name, values in columns:
        said = [read_name(value) for value in {value.strip() for value in values} - {""}]
        if (
            name.lower() not in LABEL_NAMES
            and said
            and all(one.split and not one.rest and not one.short for one in said)
        ):
            found.append(name)
    return found


def kinds_of(counts: Mapping[str, int], column: str, where: str) -> dict[str, str | None]:
    """Return the split that each value of a column stands for; {} for a column that does not hold splits.

    counts: value → rows.  where: what a warning calls the table whose values are partly splits.
    """
    if split := _asks(column):
        return _answers(counts, split)
    values = list(counts)
    kinds = {value: read_name(value).split for value in values}
    if set(values) == set(NUMBERED):
        kinds = dict(NUMBERED)
    if TRAIN in kinds.values() and len(set(kinds.values()) - {None}) > 1:
        return kinds
    sure = column.lower() in SURE and len(values) > 1
    if set(kinds.values()) - {None} or (values and set(values) <= set(NUMBERED)) or sure:
        log.warning(
            "%s: no splits are read from column %r, whose values %s are not train, val and test",
            where, column, listed(values),
        )  # fmt: skip
    return {}


def choose_by_column(
    request: Request, images: Callable[[], Images], columns: Callable[[str], Tally | None], names: Iterable[str]
) -> Found | None:
    """Return the split of one table's rows that is asked for; None if no column of the table holds splits.

    images: returns those of all rows.  columns: returns the values of a column, None if it is none of words or whole
    numbers.  names: of all columns.  Raises DataError.
    """
    if request.by_path or ALL in (request.split, request.other_split):
        return None
    where = printable(request.location)
    for column in split_columns(name for name in names if name != request.label_column):
        if (found := columns(column)) is None:
            if column.lower() in SURE and not request.test:
                log.warning(
                    "%s: no splits are read from column %r, which holds neither words nor whole numbers; write train, "
                    "val and test",
                    where, column,
                )  # fmt: skip
            continue
        values = ["" if value is None else str(value).strip() for value in found.values]
        rows = Counter(dict(zip(values, np.bincount(found.codes, minlength=len(values)).tolist(), strict=True)))
        kinds = kinds_of({value: n for value, n in rows.items() if value}, column, where)
        if not kinds:
            continue
        if not request.test:
            log.warning("%s: splits are read from column %r; --data.split all reads none", where, column)
        codes = np.asarray(found.codes)
        parts = {
            kind: np.flatnonzero(np.isin(codes, [k for k, v in enumerate(values) if kinds.get(v) == kind]))
            for kind in (TRAIN, VAL, TEST)
            if kind in kinds.values()
        }
        # Rows of one table have labels or none; so no part is preferred for having them.
        own, other, whole = choose_parts(request, dict(zip(parts, parts, strict=True)), lambda _: True, where)
        left = len(codes) - sum(map(len, parts.values()))
        notes = [
            f"{counted(len(rows))} of the split {kind}" for kind, rows in parts.items() if kind not in (own, other)
        ]
        notes += [f"{counted(left)} that column {column!r} gives no split"] * bool(left)
        every = images()
        source = f"{every.source}, {column} {own}".lstrip(", ")
        return Found(replace(every.subset(parts[own]), source=source, notes=(*every.notes, *notes)), whole)
    return None
