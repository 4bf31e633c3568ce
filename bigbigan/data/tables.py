"""Read tables with a column of images: Parquet and Arrow files, and folders that `datasets` saved."""

import bisect
import contextlib
import dataclasses
import functools
import glob
import io
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bigbigan.data.array_columns import array_type, encoded_arrays
from bigbigan.data.columns import (
    Tally,
    choose_image_column,
    choose_label_columns,
    classes_of,
    is_plain,
    say_which_labels,
    tally,
)
from bigbigan.data.images import Found, Images, Request
from bigbigan.data.patients import choose_group_column, group_names
from bigbigan.data.pictures import PictureError, open_picture
from bigbigan.data.split_columns import choose_by_column
from bigbigan.data.split_names import choose_parts, read_name
from bigbigan.data.table_files import read_tables
from bigbigan.data.walk import METADATA, is_image, is_system, walk
from bigbigan.errors import DataError
from bigbigan.files import check_inside, listed, path_within, printable, state_of

log = logging.getLogger(__name__)
SUFFIXES = (".parquet", ".arrow")
PLAIN = ("string", "large_string", "int8", "int16", "int32", "int64", "bool")  # of a column that may hold splits
CELLS = 256  # rows of a table read at a time


def open_tables(request: Request) -> Found | None:
    """Return a split of a table file or of a folder of tables, else None. Raises DataError or Outside."""
    location = request.location
    if location.is_file() and location.suffix in SUFFIXES:
        named = {"all": [location]}
        return found_in_tables(
            request, _readers(named), {"all": location.name}, location.parent, _stamps(named, location.parent)
        )
    if not location.is_dir():
        return None
    if (location / "dataset_info.json").is_file() or (location / "dataset_dict.json").is_file():
        saved = _read_saved(location, request.follow_links)
        saved = saved if isinstance(saved, dict) else {"all": saved}
        tables = {name: lambda name=name: saved[name] for name in saved}
        written = {name: [location / file["filename"] for file in table.cache_files] for name, table in saved.items()}
        return found_in_tables(request, tables, {}, location, _stamps(written, location))
    paths = sorted(request.listing.files_with(SUFFIXES, str(location)))
    paths = [path for path in paths if _is_table(path, location)]
    if not paths:
        return None
    beside = len(walk(location, True, request.listing)[0])
    tars = request.listing.files_with((".tar",), str(location))
    if (beside or tars) and not request.image_column and not any(map(_may_hold_images, paths)):
        log.warning("%s: left out: %d tables without a column of images", printable(location), len(paths))
        return None  # tables about the images that lie here as files, or in tars, as img2dataset writes them
    for path in paths if not request.follow_links else ():
        check_inside(path, location)
    if request.by_path:
        chosen = location / request.split
        named = {request.split: [p for p in paths if p == chosen or chosen in p.parents]}
        if not named[request.split]:
            raise DataError(f"{printable(location)}: expected tables at {request.split}, found none")
    else:
        named = read_tables(paths, location, request.subset)
    sources = {name: _sources([p.relative_to(location) for p in files]) for name, files in named.items()}
    found = found_in_tables(request, _readers(named), sources, location, _stamps(named, location))
    note = (f"{beside:,} image files beside the tables",) if beside else ()
    return dataclasses.replace(found, images=dataclasses.replace(found.images, notes=(*found.images.notes, *note)))


def _readers(named: dict[str, list[Path]]) -> dict[str, Callable]:
    """Return for each split a function that reads its files as one table."""
    return {name: lambda name=name: _read_tables(named[name]) for name in named}


def _stamps(named: dict[str, list[Path]], folder: Path) -> dict[str, list[tuple[bytes, str]]]:
    """Return for each split its files' paths within the data set, each with its state."""
    return {name: [(path_within(folder, path), state_of(path)) for path in paths] for name, paths in named.items()}


def _may_hold_images(path: Path) -> bool:
    """Return whether a Parquet file has a column of bytes; True for other files and for damaged ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix != ".parquet":
        return True
    try:
        with open(path, "rb") as file:
            schema = pq.read_schema(file)
    except (pa.ArrowException, OSError):
        return True  # reading it says what is wrong
    kinds = [[f.type for f in field.type] if pa.types.is_struct(field.type) else [field.type] for field in schema]
    return any(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) for parts in kinds for kind in parts)


def _is_table(path: Path, folder: Path) -> bool:
    """Return whether a file holds images, by its name: not metadata beside images, not what `datasets` caches."""
    above = path.relative_to(folder).parts[:-1]
    return (
        path.is_file()
        and path.name not in METADATA
        and not path.name.startswith((".", "cache-"))
        and not any(is_system(name) for name in above)
    )


def _sources(paths: list[Path]) -> str:
    """Return the files of a split for the start of a run."""
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} … {paths[-1].name} ({len(paths)} files)"


def found_in_tables(
    request: Request,
    tables: dict[str, Callable],
    sources: dict[str, str],
    folder: Path | None,
    files: dict[str, list[tuple[bytes, str]]] | None = None,
) -> Found:
    """Return the split that is asked for. Raises DataError or Outside.

    tables: split → a function that returns its `datasets` table.  sources: split → its files, for messages.
    folder: where the files lie that rows may name; None for any place.
    files: split → its files, each with its state; None for what `datasets` itself calls a table.
    """
    tables = {name: functools.cache(table) for name, table in tables.items()}
    where = printable(request.location)

    def images(name: str, other: str = "", quiet: bool = True, groups: bool = True) -> Images:
        others = [tables[other]()] if other and other != name else []
        label, group = None if request.no_labels else request.label_column, request.group_column
        lacks = request.test and (others or request.by_path) and group not in tables[name]().features
        if not groups or (group and lacks):  # the training images have such a column, or raise the error
            group = None
        columns = Columns(request.image_column, label, others, quiet, group)
        own_folder = None if request.follow_links else folder
        return from_table(tables[name](), str(request.location), columns, own_folder, (files or {}).get(name))

    if request.by_path and request.split in tables:
        found = images(request.split, quiet=request.test)
        return Found(_named(found, sources, request.split, ()), whole=False)
    if len(tables) == 1:
        name, table = next(iter(tables.items()))
        every = lambda: _named(images(name, quiet=request.test), sources, name, ())  # noqa: E731
        if found := choose_by_column(request, every, partial(_values, table()), table().features):
            return found
    kinds = {name: read_name(name).split for name in tables}
    own, other, whole = choose_parts(request, kinds, lambda name: images(name, groups=False).labels is not None, where)
    unused = [f"{sources.get(name) or name} (another split)" for name in tables if name not in (own, other)]
    return Found(_named(images(own, other, quiet=request.test), sources, own, unused), whole)


def _values(table, column: str) -> Tally | None:
    """Return the values of a column of words, whole numbers or classes, whose names they are then; None for others."""
    names = getattr(table.features[column], "names", None)
    if getattr(table.features[column], "dtype", "") not in PLAIN:
        return None
    found = tally(_rows(table, column))
    if names is not None:
        found = found._replace(values=[None if v is None or v < 0 else names[v] for v in found.values])
    return found


def _named(images: Images, sources: dict[str, str], name: str, unused) -> Images:
    """Return the images with the file or split that they are, and those that are not used."""
    source = "" if name == "all" and len(sources) < 2 else sources.get(name, name)
    return dataclasses.replace(images, source=source, notes=(*images.notes, *unused))


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

    if len({path.suffix for path in paths}) > 1:
        raise DataError(
            f"{printable(paths[0].parent)}: expected .parquet or .arrow files, found both for one split, which may be "
            f"two copies: {listed(path.name for path in paths)}; keep one kind"
        )
    kind = {".parquet": "parquet", ".arrow": "arrow"}[paths[0].suffix]
    try:
        table = load_dataset(kind, data_files=[glob.escape(str(p)) for p in paths], split="train")
    except Exception as error:  # `datasets` wraps the cause in errors of its own
        cause = error.__cause__ or error
        found = f"{type(cause).__name__}: {_first_line(cause)}"
        if isinstance(cause, OSError) and cause.filename and os.fsdecode(cause.filename) not in map(str, paths):
            raise DataError(
                f"{printable(paths[0])}: expected a folder for the cache of `datasets` that can be written to, found "
                f"{found}; name one by the variable HF_HOME"
            ) from None
        raise DataError(
            f"{printable(paths[0])}: expected a readable {kind} file, found {found}; is it cut short, or empty?"
        ) from None
    assert isinstance(table, Dataset)
    return table


@dataclass(frozen=True)
class Columns:
    """Say which columns of a table to read.

    image, label, group: names, or "" to choose by their types and names; None for no labels, or groups.  others: tables
    of other splits, whose labels tell ids from classes.  quiet: whether the choice is not logged.
    """

    image: str = ""
    label: str | None = ""
    others: list = dataclasses.field(default_factory=list)
    quiet: bool = False
    group: str | None = ""


def from_table(
    table,
    origin: str,
    columns: Columns = Columns(),
    folder: Path | None = None,
    files: list[tuple[bytes, str]] | None = None,
) -> Images:
    """Return the images and labels of a `datasets` table, whatever format or transform it has.

    origin: the file or folder, for messages.  folder: see `_Table`.  files: the files of the table, each with its
    state; None for what `datasets` itself calls the table.
    Raises DataError, or Outside if the first row names a file outside `folder`.
    """
    if not hasattr(table, "with_format") or not hasattr(table, "__len__") or not hasattr(table, "select_columns"):
        raise DataError(
            f"{origin}: expected a table with a known number of rows, found {type(table).__name__}, which streams; "
            "load it without streaming=True, or collect some rows: datasets.Dataset.from_list(list(rows.take(1000)))"
        )
    table = table.with_format(None)  # a format or a transform may hide columns and change values
    _check_one_picture_a_row(table, columns.image, origin)
    with _muted(columns.quiet):
        column = choose_image_column(_image_columns(table), list(table.features), columns.image, origin)
        labels, names = (None, None) if columns.label is None else _table_labels(table, column, columns, origin)
    groups = None if columns.group is None else _groups(table, column, columns.group, origin)
    if files is None:
        files = [(b"table", table._fingerprint)]
    if (dtype := array_type(table.features[column])) is not None:
        table = encoded_arrays(table.select_columns([column]), column, dtype, origin)
    try:
        items = _Table(table, column, folder, files)
    except (TypeError, ValueError, NotImplementedError) as error:  # Arrow's errors, for a column of numbers say
        found = f"{table.features[column]} ({_first_line(error)})"
        raise DataError(
            f"{origin}: expected images in column {column!r}, found {found}; see --data.image_column"
        ) from None
    with contextlib.suppress(PictureError):
        items.source(0) if len(items) else None  # refuses a table of paths that lead out of the folder at once
    return Images(items, labels, names, origin, f"column {column!r}", groups=groups)


def _check_one_picture_a_row(table, asked: str, origin: str) -> None:
    """Raise DataError if the column that is asked for, or the only one that holds images, holds lists of them."""
    lists = [name for name, kind in table.features.items() if _lists_images(kind)]
    found = [name for name in lists if name == asked] if asked else lists
    if found and (asked or not _image_columns(table)):
        raise DataError(
            f"{origin}: expected one image in each row, found lists of images in column {found[0]!r}; write a row for "
            f"each image, or keep one of each list: table.map(lambda row: {{'image': row[{found[0]!r}][0]}}, "
            f"remove_columns={found[0]!r})"
        )


def _lists_images(feature) -> bool:
    """Return whether a column's type is a list of images."""
    from datasets import Image as ImageFeature

    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return isinstance(inner, ImageFeature) or (isinstance(inner, dict) and "bytes" in inner)


@contextlib.contextmanager
def _muted(quiet: bool):
    """Log nothing about columns inside, if `quiet`."""
    columns_log = logging.getLogger(choose_image_column.__module__)
    for logger in (columns_log, log):
        logger.disabled = quiet
    try:
        yield
    finally:
        for logger in (columns_log, log):
            logger.disabled = False


def _image_columns(table) -> list[str]:
    """Return the columns that hold images: by their type, or plain bytes that begin as an image file does."""
    from datasets import Image as ImageFeature

    return [
        name
        for name, kind in table.features.items()
        if isinstance(kind, ImageFeature)
        or (isinstance(kind, dict) and "bytes" in kind)
        or (getattr(kind, "dtype", "") in ("binary", "large_binary") and len(table) and _holds_image(table, name))
    ]


def _holds_image(table, name: str) -> bool:
    first = next((cell for cell in table.select_columns([name])[: min(20, len(table))][name] if cell), None)
    return first is not None and is_image(first[:16])


def _table_labels(table, image: str, columns: Columns, origin: str) -> tuple[np.ndarray | None, list[str] | None]:
    """Return the labels of the best column that holds classes, and the class names; (None, None) without one."""
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    others = (image, columns.group)  # unless they are asked for
    features = {n: kind for n, kind in table.features.items() if n not in others and not isinstance(kind, ImageFeature)}
    declared = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    for name in choose_label_columns(
        list(table.features if columns.label else features), declared, columns.label, origin
    ):
        names = getattr(table.features[name], "names", None)
        own, *others = [tally(_rows(t, name)) for t in (table, *columns.others) if name in t.features]
        try:
            found = classes_of(own, names, name, origin, bool(columns.label), [own, *others])
        except DataError as error:
            if columns.label:
                raise
            log.warning("%s; no labels are taken", error)  # the column was our guess, not the user's wish
            continue
        if found[0] is not None:
            say_which_labels(name, list(features), declared, origin)
        return found
    return None, None


def _groups(table, image: str, asked: str, origin: str) -> np.ndarray | None:
    """Return the group of each row, (n,) texts, by the column that is asked for, or else that of patients, or None."""
    from datasets import ClassLabel, Value

    name = choose_group_column([name for name in table.features if name != image], asked, origin)
    kind = table.features[name] if name else None
    if not isinstance(kind, (Value, ClassLabel)):
        if asked:
            raise DataError(
                f"{origin}: expected words, numbers or dates in column {name!r} of --data.group_column, found {kind}"
            )
        return None
    values = rows if isinstance(rows := _rows(table, name), list) else rows.to_pylist()
    if isinstance(kind, ClassLabel):
        values = [None if v is None or v < 0 else kind.names[v] for v in values]
    return group_names(values)


def _rows(table, name: str):
    """Return a column's values of a table of any format: a column of Arrow, or a list of what is no number or word."""
    column = table.with_format("arrow").select_columns([name])[:].column(name)
    return column if is_plain(column.type) else table.with_format(None).select_columns([name])[:][name]


class _Table:
    """Serve the images of a `datasets` table, decoded one by one so that a broken image does not end an epoch.

    folder: the folder in which the files named by rows must lie; None allows any place.
    files: the files of the table, each with its state.
    """

    def __init__(self, table, column: str, folder: Path | None, files: list[tuple[bytes, str]]):
        from datasets import Image as ImageFeature

        self.table_files = files
        self.cells = Cells(table.select_columns([column]).cast_column(column, ImageFeature(decode=False)), column)
        self.folder = folder

    def __len__(self):
        return len(self.cells)

    def __getitem__(self, i):
        source = self.source(i)
        return open_picture(io.BytesIO(source) if isinstance(source, bytes) else source)

    def source(self, i) -> bytes | Path:
        """Return the encoded bytes of image i, or the path of its file. Raises PictureError or Outside."""
        content, named = self.cells[i]
        if content is not None:
            return content
        if not named:
            raise PictureError("expected an image, found an empty cell")
        path = (self.folder or Path()) / named
        if self.folder is not None:
            check_inside(path, self.folder)
        return path

    def name(self, i):
        return f"row {i}"

    def keys(self, indices) -> Iterator[bytes]:
        """Yield the images' encoded bytes, or the paths that rows name."""
        for content, named in self.cells.read(indices):
            yield path_within(self.folder or "", named or "") if content is None else content

    def relative_paths(self, indices) -> Iterator[str | None]:
        """Yield the paths that rows name, printable; None for rows that name none."""
        return (printable(named) if named else None for _, named in self.cells.read(indices))

    def key_bytes(self) -> int:
        """Return the size of all encoded images."""
        return self.cells.content_bytes()

    def files(self, indices) -> tuple[list[tuple[bytes, str]], bytes]:
        """Return the files of the table and those that its rows name, each with its state; and which rows are meant."""
        files = list(self.table_files)
        if self.cells.name_files():
            root = self.folder or Path()
            named = [named for content, named in self.cells.read(indices) if content is None and named]
            files += [(path_within(root, path), state_of(root / path)) for path in named]
        return files, f"{len(self)} rows".encode() + np.asarray(indices, dtype=np.int64).tobytes()


class Cells:
    """Serve the cells of a table's column of images straight from Arrow's memory, which is mapped from a file.

    That takes about 3 µs a row where `table[i]` takes 23 to 34.
    table: of `datasets`, whose column is a struct of bytes and path.
    """

    def __init__(self, table, column: str):
        self.table, self.column = table, column
        self._parts = None

    def __len__(self):
        return len(self.table)

    def __getstate__(self) -> dict:
        """Leave out what lies in mapped memory: another process maps the table's files itself."""
        return self.__dict__ | {"_parts": None}

    def _opened(self) -> tuple:
        """Return the first row of each chunk, the chunks with their bytes and paths, and which rows are meant.

        The last is int64 (n,), or None for all: `datasets` keeps it beside a table that was shuffled or filtered.
        """
        if self._parts is None:
            chunks = [chunk for chunk in self.table.data.column(self.column).chunks if len(chunk)]
            starts = np.cumsum([0, *map(len, chunks)])[:-1].tolist()
            parts = [(c if c.null_count else None, c.field("bytes"), c.field("path")) for c in chunks]
            rows = self.table._indices
            self._parts = starts, parts, None if rows is None else rows.column(0).to_numpy()
        return self._parts

    def __getitem__(self, i: int) -> tuple[bytes | None, str | None]:
        """Return the image's bytes and the path that the cell holds, each None if there is none."""
        starts, parts, rows = self._parts or self._opened()
        row = int(i if rows is None else rows[i])
        k = bisect.bisect_right(starts, row) - 1
        row -= starts[k]
        whole, contents, paths = parts[k]
        if whole is not None and not whole[row].is_valid:
            return None, None
        return contents[row].as_py(), paths[row].as_py()

    def read(self, indices) -> Iterator[tuple[bytes | None, str | None]]:
        """Yield the cells at `indices`, ints (m,): as one by one, but faster where they lie beside each other."""
        import pyarrow as pa

        starts, parts, rows = self._opened()
        places = np.asarray(indices, dtype=np.int64) if rows is None else rows[indices]
        chunk = np.searchsorted(starts, places, side="right") - 1
        edges = np.flatnonzero(np.diff(chunk)) + 1
        for some in np.split(places, edges) if len(places) else ():
            k = bisect.bisect_right(starts, some[0]) - 1
            for first in range(0, len(some), CELLS):
                local = pa.array(some[first : first + CELLS] - starts[k])
                whole, contents, paths = (part if part is None else part.take(local) for part in parts[k])
                valid = itertools.repeat(True) if whole is None else whole.is_valid().to_pylist()
                cells = zip(valid, contents.to_pylist(), paths.to_pylist(), strict=False)
                yield from ((content, named) if there else (None, None) for there, content, named in cells)

    def content_bytes(self) -> int:
        """Return the size of all images' bytes, those of all rows of the table."""
        return sum(contents.nbytes for _, contents, _ in self._opened()[1])

    def name_files(self) -> bool:
        """Return whether some rows have no bytes, without reading those of the others."""
        chunks = self.table.data.column(self.column).chunks
        return any(chunk.field("bytes").null_count for chunk in chunks)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
