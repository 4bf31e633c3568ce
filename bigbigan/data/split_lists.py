"""Read splits from files that list images, where all images lie together.

Three kinds of files are read, whatever folder they lie in:

- lists whose names have split words: `meta/train.txt` and `meta/test.txt` (Food-101), `train_val_list.txt` and
  `test_list.txt` (NIH chest X-rays), `train.csv` and `test.csv`; each line names an image;
- a table with a column `split` (or `partition`, `subset`, `set`, ...) of split words, or of 0, 1 and 2 for train, val
  and test, as WILDS has it; or a column of any name that holds split words alone;
- `list_eval_partition` of CelebA, with the same numbers, or of DeepFashion, with words; and `train_test_split.txt` of
  CUB, which has a 1 for training beside the numbers of `images.txt`.

They are taken where folders say nothing of splits, no image is in two lists, lists name nearly all images, and no other
lists say otherwise. Lists that are not taken are reported, with the flags that take them.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

from bigbigan.data.columns import columns_asked
from bigbigan.data.image_names import ImageNames, NamesIn
from bigbigan.data.images import Request
from bigbigan.data.layout import Part, top_of
from bigbigan.data.metadata import columns_in, read_rows
from bigbigan.data.split_columns import NUMBERED, columns_of_split_words, kinds_of, split_columns
from bigbigan.data.split_names import TEST, TRAIN, VAL, read_name
from bigbigan.data.text_tables import SAMPLE, TextTable, columns_of, most_named, of_folders, read_lines, worth_reading
from bigbigan.data.walk import METADATA, Census, Folder
from bigbigan.errors import DataError
from bigbigan.files import counted, listed, printable

log = logging.getLogger(__name__)

ENOUGH = 0.95  # share of the images, from which on lists are taken to be of the whole data set
CELEBA, CUB = "list_eval_partition", "train_test_split.txt"
CUB_SPLITS = {"1": TRAIN, "0": TEST}
SEARCHED = {"query": TEST, "gallery": TEST}  # DeepFashion's words for what is searched with, and among what


@dataclass
class Lists:
    """Hold the images of each split by one table, or by lists that belong together.

    images: split → paths.  files: split → the file that says so, relative to the data set.
    partial: whether images that they do not name may belong to the data set all the same.
    """

    images: dict[str, set[str]]
    files: dict[str, str]
    partial: bool = False

    @property
    def complete(self) -> bool:
        """Whether there is a training and another split, and no image in two of them."""
        return TRAIN in self.images and len(self.images) > 1 and not self.in_two

    @property
    def in_two(self) -> int:
        """The number of images that are in two splits."""
        return len(set().union(*(a & b for a, b in combinations(self.images.values(), 2))))

    def share(self, total: int) -> float:
        """Return the share of all images that they name."""
        return len(set().union(*self.images.values())) / total


def parts_of_lists(images: Folder, census: Census, request: Request, where: str) -> list[Part]:
    """Return the splits that tables or lists give, [] if there are none, or if they can be read in several ways.

    images: all of the data set.  census: what else lies there.
    """
    kept, total = request.listing.lists, len(images)
    if images.path not in kept:
        every = _find(images, census, request.location, request.label_column)
        kept[images.path] = [lists for lists in every if lists.complete]
        for lists in [] if kept[images.path] or request.test else every:
            if count := lists.in_two:
                log.warning(
                    "%s: no splits are read from %s, since %s %s in two of them",
                    where, printable(" and ".join(dict.fromkeys(lists.files.values()))), counted(count),
                    "lies" if count == 1 else "lie",
                )  # fmt: skip
    found = kept[images.path]
    taken = [lists for lists in found if not lists.partial or lists.share(total) >= ENOUGH]
    if not taken or any(lists.images != taken[0].images for lists in taken[1:]):
        if found and not request.test:
            _say_how_to_take(taken or found, total, where)
        return []
    files = taken[0].files
    if not request.test:
        named = " and ".join(printable(name) for name in dict.fromkeys(files.values()))
        log.warning("%s: splits are read from %s; --data.split all reads none", where, named)
    one_file = len(set(files.values())) == 1
    return [
        Part(kind, kind, [("", only(images, paths))], lists=files[kind] + f" ({kind})" * one_file)
        for kind, paths in taken[0].images.items()
    ]


def part_of_list(root: Folder, path: Path, request: Request) -> Part:
    """Return the split of the images that a file lists, one a line. Raises DataError.

    Of a table that says the split of each image, it is that of training or of evaluation.
    root: all images.  request: its `split` is what the user called the file, such as "./meta/train.txt".
    """
    folder, name = request.location, request.split
    pictures = top_of(root, request.subset, [])
    names = ImageNames(pictures.images(), folder).of(str(path))
    lists = os.path.relpath(path, folder)
    by_name = path.stem != CELEBA and read_name(path.stem).split  # train.csv lists what is trained on, whatever it says
    if not by_name and (read := _reader_of(str(path), request.label_column)) and len(splits := read(names)) > 1:
        kinds = [kind for kind in ((TEST, VAL) if request.test else (TRAIN,)) if kind in splits]
        if kinds:
            return Part(name, kinds[0], [("", only(pictures, splits[kinds[0]]))], lists=f"{lists} ({kinds[0]})")
    images, unknown = _listed(str(path), names)
    if not images:
        raise DataError(f"{printable(path)}: expected lines that name images in {printable(folder)}, found none")
    if unknown and path.suffix.lower() in (".csv", ".tsv") and any(unknown[0] in line for line in read_lines(path, 1)):
        unknown = unknown[1:]  # names of columns
    if unknown:
        log.warning(
            "%s: %s lines name no image that is here, such as %s",
            printable(path), f"{len(unknown):,}", printable(unknown[0]),
        )  # fmt: skip
    return Part(name, read_name(path.stem).split, [("", only(pictures, images))], lists=lists)


def only(folder: Folder, paths: set[str]) -> Folder:
    """Return the folder with these of its images, and with the subfolders that have one of them."""
    below = [kept for child in folder.folders if len(kept := only(child, paths))]
    return Folder(folder.name, folder.path, [path for path in folder.files if path in paths], below)


def _say_how_to_take(found: list[Lists], total: int, where: str) -> None:
    """Log which lists or tables are not taken, why, and how to take them."""
    first = found[0]
    why = "other files say otherwise" if len(found) > 1 else f"they name {first.share(total):.0%} of the images"
    files = [first.files[kind] for kind in (TRAIN, *(kind for kind in (TEST, VAL) if kind in first.files))][:2]
    how = f"; to take them: --data.split ./{files[0]} --data.test_split ./{files[1]}"
    named = " and ".join(printable(name) for name in dict.fromkeys(files))
    log.warning("%s: no splits are read from %s, since %s%s", where, named, why, printable(how))


def _find(images: Folder, census: Census, folder: Path, label_column: str) -> list[Lists]:
    """Return everything that gives splits of the images, whether complete or not."""
    tables = [path for path in worth_reading(census.tables) if _is_text(path)]
    known = [path for path in tables if Path(path).stem == CELEBA or os.path.basename(path) == CUB]
    lists = [p for p in tables if p not in known and (name := read_name(Path(p).stem)).split and not name.short]
    readers = {path: read for path in (*tables, *census.metadata) if (read := _reader_of(path, label_column))}
    if not (lists or readers):
        return []
    names = ImageNames(images.images(), folder)
    found = {path: read(names.of(path)) for path, read in readers.items()}
    of_one_file = [Lists(f, dict.fromkeys(f, os.path.relpath(path, folder))) for path, f in found.items() if f]
    return of_one_file + _by_name([path for path in lists if not found.get(path)], names, folder)


def _reader_of(path: str, label_column: str) -> Callable[[NamesIn], dict[str, set[str]]] | None:
    """Return what reads the images of each split from a file that says the splits of images, None of other files.

    label_column: the column that holds labels, so no splits.
    """
    if Path(path).stem == CELEBA:
        return partial(_celeba, path)
    if os.path.basename(path) == CUB:
        return partial(_cub, path)
    table = _of_metadata(path) if os.path.basename(path) in METADATA else _with_splits(path)
    return None if table is None else partial(_by_column, table, path, columns_asked(label_column, table.columns))


def _with_splits(path: str) -> TextTable | None:
    """Return the table in a text file if it has a column of splits, by its name or its first values, else None."""
    with suppress(DataError):  # of what is no text
        if split_columns(columns_of(path)) or _of_words(TextTable.read(path, most=SAMPLE)):
            return TextTable.read(path)
    return None


def _of_words(table: TextTable) -> list[str]:
    return columns_of_split_words((name, table.column(name)) for name in table.columns if name)


def _is_text(path: str) -> bool:
    """Return whether a file can be read as text. Others are no tables, whatever their suffix."""
    try:
        read_lines(path, most=3)
    except DataError:
        return False
    return True


def _of_metadata(path: str) -> TextTable | None:
    """Return a metadata file with a column of splits as a table, None without one or if it cannot be read."""
    try:
        rows = read_rows(Path(path))
    except DataError:
        return None  # `metadata` has raised it, unless the folders say all
    columns = columns_in(rows)
    if not split_columns(columns):
        return None
    text = lambda value: "" if value is None else str(value)  # noqa: E731
    return TextTable(columns, [[text(row.get(name)) for name in columns] for row in rows])


def _by_column(table: TextTable, path: str, labels: list[str], names: NamesIn) -> dict[str, set[str]]:
    """Return the images of each split by a column of splits, {} without one. Log values that name no split.

    labels: the columns of labels, which say no splits.
    """
    by_name = split_columns(table.columns)
    for column in dict.fromkeys([*by_name, *_of_words(table)]):
        values = Counter(value.strip() for value in table.column(column) if value.strip())
        said = {read_name(value).split for value in values}
        if column in labels or (column not in by_name and not (TRAIN in said and len(said) > 1)):
            continue
        if not (kinds := kinds_of(values, column, printable(path))):
            continue
        try:
            by = table.column_of_names(names, but=[column])
        except DataError as error:
            raise DataError(f"{printable(path)}: {error}; or give --data.split all") from None
        if by is None:
            log.warning(
                "%s: no splits are read from column %r, since no column names the images%s; write a row for each "
                "image, with its path in a column",
                printable(path), column, of_folders(table, names),
            )  # fmt: skip
            continue
        if others := [value for value in values if kinds[value] is None]:
            log.warning("%s: images that column %r calls %s are left out", printable(path), column, listed(others))
        rows = zip(table.column(column), table.column(by), strict=True)
        return _grouped((kinds[value.strip()], names.find(image)) for value, image in rows if value.strip())
    return {}


def _celeba(path: str, names: NamesIn) -> dict[str, set[str]]:
    """Return the images of each split by `000001.jpg 0` or `img/1.jpg id_1 train`, below a header or none."""
    rows = [(line[0], line[-1].strip()) for line in read_lines(path) if len(line) > 1]
    kinds = NUMBERED | SEARCHED
    return _grouped((kinds.get(word) or read_name(word).split, names.find(image)) for image, word in rows)


def _cub(path: str, names: NamesIn) -> dict[str, set[str]]:
    """Return the images of each split by `1 0`, the number of an image and whether it is for training."""
    beside = os.path.join(os.path.dirname(path), "images.txt")
    if not os.path.isfile(beside) or not _is_text(beside):
        return {}
    image_of = dict(line for line in read_lines(beside) if len(line) == 2)
    rows = [line for line in read_lines(path) if len(line) == 2]
    return _grouped((CUB_SPLITS.get(split), names.find(image_of.get(number, ""))) for number, split in rows)


def _grouped(pairs: Iterable[tuple[str | None, str | None]]) -> dict[str, set[str]]:
    """Return the images of each split, train first; without pairs that lack one of both."""
    found: dict[str, set[str]] = {TRAIN: set(), VAL: set(), TEST: set()}
    for split, image in pairs:
        if split and image:
            found[split].add(image)
    return {split: images for split, images in found.items() if images}


def _by_name(paths: list[str], names: ImageNames, folder: Path) -> list[Lists]:
    """Return the lists that belong together: of one folder, with names that differ in the split word alone."""
    together: dict[tuple, dict[str, dict[str, set[str]]]] = {}
    for path in paths:
        images, _ = _listed(path, names.of(path))
        name = read_name(Path(path).stem)
        kinds = together.setdefault((os.path.dirname(path), name.rest), {TRAIN: {}, VAL: {}, TEST: {}})
        if images and images not in kinds[name.split].values():
            kinds[name.split][path] = images
    found = []
    for _, kinds in sorted(together.items(), key=lambda item: len(item[0][1])):  # train.txt before cat_train.txt
        others = set().union(*kinds[VAL].values(), *kinds[TEST].values())
        if len(kinds[TRAIN]) > 1:  # of train and trainval, train
            kinds[TRAIN] = {path: images for path, images in kinds[TRAIN].items() if not images & others}
        if all(len(lists) <= 1 for lists in kinds.values()):
            one = {kind: next(iter(lists.items())) for kind, lists in kinds.items() if lists}
            files = {kind: os.path.relpath(path, folder) for kind, (path, _) in one.items()}
            found.append(Lists({kind: images for kind, (_, images) in one.items()}, files, partial=True))
    return found


def _listed(path: str, names: NamesIn) -> tuple[set[str], list[str]]:
    """Return the images that a file names, one a line, and the lines that name none. Raises DataError.

    The name may be the whole line, so with spaces in it, or one of its fields.
    """
    lines = read_lines(path)
    columns = [[" ".join(line) for line in lines]]
    columns += [[line[i] if i < len(line) else "" for line in lines] for i in range(max(map(len, lines), default=0))]
    best = most_named(columns, names)
    if best is None:
        return set(), []
    found = [(value, names.find(value)) for value in columns[best]]
    return {image for _, image in found if image}, [value for value, image in found if not image]
