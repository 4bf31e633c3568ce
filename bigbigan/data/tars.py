"""Read tar files as WebDataset packs them: members of one key, such as 0001.jpg and 0001.cls, are one sample.

A tar is read from its beginning once, for an index of where each member lies. The index is kept in the cache folder and
made anew when the tar changes; images are then read at their places, in any order. Nothing is unpacked.
"""

import glob
import io
import json
import logging
import os
import re
import shlex
import tarfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bigbigan.data.columns import (
    LABEL_NAMES,
    Tally,
    choose_image_column,
    choose_label_columns,
    classes_of,
    is_plain,
    say_which_labels,
    tally,
)
from bigbigan.data.images import Found, Images, Request
from bigbigan.data.metadata import are_measurements
from bigbigan.data.patients import choose_group_column, group_names
from bigbigan.data.pictures import EXTENSIONS, PictureError, open_picture
from bigbigan.data.split_columns import choose_by_column
from bigbigan.data.split_names import ALL, choose_parts, read_name
from bigbigan.data.table_files import read_tables
from bigbigan.data.walk import is_system, walk
from bigbigan.errors import DataError
from bigbigan.files import (
    LARGEST_TEXT,
    cache_folder,
    check_inside,
    counted,
    listed,
    path_within,
    printable,
    state_of,
    write_whole,
)

FORMAT = "2"  # of the index
LOOKED_AT = 50  # members by which a compressed tar is judged
OPEN_FILES = 64  # tars that a process keeps open
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
TOOLS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}  # by first bytes
KEY, OFFSET, SIZE = "__key__", "offset of ", "size of "  # columns of the index; the latter two before a member's suffix
SHOWN = 40  # letters of a label that is kept and shown though it is none
# Several classes in one label: the text of a list or dictionary of JSON, or numbers with commas or blanks between.
SEVERAL = re.compile(r"[\[{].*|-?\d+(?:(?:\s*[,;]\s*|\s+)-?\d+)+", re.DOTALL)
log = logging.getLogger(__name__)


def open_tars(request: Request) -> Found | None:
    """Return a split of a tar, of a folder of tars or of a pattern, else None. Raises DataError or Outside.

    A pattern ends in .tar and has *, ? or braces: "shards/train-{0000..0099}.tar". A folder with image files in it is
    one of images.
    """
    found = _find(request)
    return None if found is None else _choose(request, *found)


def all_samples(path: Path) -> Images | None:
    """Return the samples of all tars that a path names, as of `open_tars`, whatever split they are of; else None.

    Raises DataError or Outside.
    """
    request = Request(str(path), ALL, "", "", False, "", False, no_labels=True)
    found = _find(request)
    return None if found is None else _images(request, {ALL: found[0]}, ALL, found[1])


def _find(request: Request) -> tuple[list[Path], Path] | None:
    """Return the tars that the path names and the folder in which they lie; None if it names none.

    Raises Outside, or DataError for compressed tars.
    """
    location = request.location
    if location.is_dir():
        found = sorted(request.listing.files_with((".tar", *COMPRESSED), str(location)))
        found = [p for p in found if not any(map(is_system, p.relative_to(location).parts))]
        if not found or len(walk(location, True, request.listing)[0]):
            return None
        root = location
        found = _without_compressed(found)
    elif is_tar(location):
        found = [location] if location.is_file() else _matching(str(location))
        found = _without_compressed(found)
        if not found:
            return None
        root = Path(os.path.commonpath([p.parent for p in found]))
    else:
        return None
    for path in found if not request.follow_links else ():
        check_inside(path, root)
    return found, root


def _matching(pattern: str) -> list[Path]:
    """Return the files that a pattern with *, ? or braces names; none for a path that has none of these."""
    parts = re.split(r"\{(\d+)\.\.(\d+)\}", pattern)
    ranges = [range(int(a), int(b) + 1) for a, b in zip(parts[1::3], parts[2::3], strict=True)]
    widths = [len(digits) for digits in parts[1::3]]
    paths = []
    for numbers in product(*ranges):
        filled = [f"{number:0{width}}" for number, width in zip(numbers, widths, strict=True)]
        path = "".join(text + digits for text, digits in zip(parts[::3], [*filled, ""], strict=True))
        paths += [path] if Path(path).is_file() else glob.glob(path)
    return sorted(Path(path) for path in set(paths) if Path(path).is_file())


def is_tar(path: Path) -> bool:
    """Return whether a file is a tar by its name, plain or compressed."""
    return path.name.endswith((".tar", *COMPRESSED))


def _without_compressed(found: list[Path]) -> list[Path]:
    """Return the plain tars of `found`; a compressed one may lie beside the tar that was made of it.

    Raises DataError for other compressed tars.
    """
    plain = [path for path in found if path.suffix == ".tar"]
    for path in found:
        if path.suffix != ".tar" and _decompressed(path) not in plain:
            _refuse_compressed(path, _tool(path) or "gzip")
    return plain


def _decompressed(path: Path) -> Path:
    """Return the path of the plain tar that a compressed one is unpacked to."""
    name = path.name
    stem = next((name.removesuffix(suffix) for suffix in COMPRESSED if name.endswith(suffix)), path.stem + "-plain")
    return path.with_name(f"{stem}.tar")


def _tool(path: Path) -> str:
    """Return the program that a file is compressed by, as its first bytes tell; "" for a plain one. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(8)
    return next((tool for start, tool in TOOLS.items() if head.startswith(start)), "")


def _refuse_compressed(path: Path, tool: str) -> NoReturn:
    if _packs_folders(path):
        raise DataError(
            f"{printable(path)}: expected a folder, found one that is packed; unpack it: tar -xf {_quoted(path)}"
        )
    raise DataError(
        f"{printable(path)}: expected a plain tar, whose images are read at their places in any order, found one that "
        f"{tool} compressed; decompress it once: {tool} -dc {_quoted(path)} > {_quoted(_decompressed(path))}"
    )


def _packs_folders(path: Path) -> bool:
    """Return whether one of the first members of a compressed tar is a folder, which WebDataset packs none of."""
    with suppress(tarfile.TarError, OSError, EOFError, ValueError), tarfile.open(path, "r|*") as tar:
        return any(member.isdir() for member, _ in zip(tar, range(LOOKED_AT), strict=False))
    return False


def _check_no_folders(keys: list[str], path: Path, where: str) -> None:
    """Raise DataError for images in several folders within tars, which may be splits or classes."""
    folders = sorted({key.rpartition("/")[0] for key in keys})
    if len(folders) > 1:
        raise DataError(
            f"{where}: expected samples as WebDataset packs them, found images without labels in folders: "
            f"{listed(folder or '.' for folder in folders)}; unpack the tar, so that folders are splits and "
            f"classes: tar -xf {_quoted(path)}; or take all images, without labels: --data.split all"
        )


def _quoted(path: Path) -> str:
    return shlex.quote(printable(path))


def _choose(request: Request, found: list[Path], root: Path) -> Found:
    """Return the split that is asked for; splits are named by the files and folders, as those of tables are."""
    where = printable(request.location)
    if request.by_path:
        chosen = root / request.split
        named = {request.split: [p for p in found if p == chosen or chosen in p.parents]}
        if not named[request.split]:
            raise DataError(f"{where}: expected tar files at {request.split}, found none")
        return Found(_images(request, named, request.split, root), whole=False)
    named = read_tables(found, root, request.subset)
    if len(named) == 1:
        name, files = next(iter(named.items()))
        table, *_ = _samples(request, files)
        columns = [column for column in table.column_names if _is_field(column)]
        every = lambda: _images(request, named, name, root)  # noqa: E731
        if by_column := choose_by_column(request, every, lambda column: _typed(table.column(column)), columns):
            return by_column
    kinds = {name: read_name(name).split for name in named}
    plain = replace(request, group_column="")  # which a split without it has no part in
    labelled = lambda name: _images(plain, named, name, root).labels is not None  # noqa: E731
    own, other, whole = choose_parts(request, kinds, labelled, where)
    unused = [f"{name} (another split)" for name in named if name not in (own, other)]
    images = _images(request, named, own, root, other)
    return Found(replace(images, notes=(*images.notes, *unused)), whole)


def _images(request: Request, named: dict[str, list[Path]], name: str, root: Path, other: str = "") -> Images:
    """Return the samples of a split that have an image, with their labels. Raises DataError.

    other: the other split of the run, whose labels too tell ids from classes; "" for none.
    """
    files, where = named[name], printable(request.location)
    table, suffix, shards, without = _samples(request, files)
    notes = (f"{counted(without, 'sample')} without a .{suffix}",) if without else ()
    places = [table.column(kind + suffix).to_numpy() for kind in (OFFSET, SIZE)]
    beside = [_joined([read_index(path) for path in named[other]])] if other and other != name else []
    labels, names = (None, None) if request.no_labels else _labels(table, beside, request, where)
    if labels is None and ALL not in (request.split, request.other_split) and not request.nothing_held_out:
        _check_no_folders(table.column(KEY).to_pylist(), files[0], where)
    lacks = request.test and (beside or request.by_path) and request.group_column not in table.column_names
    groups = None  # where the training images have such a field, or raise the error
    if not (request.group_column and lacks):
        groups = _groups(table, request.group_column, where)
    items = Tars(files, root, shards, *places, [f"{key}.{suffix}" for key in table.column(KEY).to_pylist()])
    source = files[0].name if len(files) == 1 else f"{files[0].name} … {files[-1].name} ({len(files)} files)"
    return Images(items, labels, names, str(request.location), f".{suffix} in tars", source, notes, groups=groups)


def _samples(request: Request, files: list[Path]) -> tuple[pa.Table, str, np.ndarray, int]:
    """Return the samples with an image, its suffix, the number of each one's tar, and how many samples have none."""
    tables = [read_index(path) for path in files]
    table = _joined(tables)
    shards = np.repeat(np.arange(len(tables)), [len(part) for part in tables])
    suffixes = [column.removeprefix(OFFSET) for column in table.column_names if column.startswith(OFFSET)]
    if not suffixes:
        raise DataError(
            f"{printable(request.location)}: expected images in tar files, found none in {printable(files[0].name)}; "
            "if it holds other tars, as ImageNet's do, unpack each into a folder of its name"
        )
    suffix = choose_image_column(suffixes, suffixes, request.image_column, printable(request.location))
    rows = np.flatnonzero(table.column(OFFSET + suffix).is_valid().to_numpy())
    return table.take(pa.array(rows)), suffix, shards[rows], len(table) - len(rows)


def _joined(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of all tables. A field that has values of several types is text."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:
        text = [
            pa.table({n: t.column(n).cast(pa.string()) if _is_field(n) else t.column(n) for n in t.column_names})
            for t in tables
        ]
        return pa.concat_tables(text, promote_options="permissive")


def _is_field(column: str) -> bool:
    return not column.startswith((KEY, OFFSET, SIZE))


def _labels(
    table: pa.Table, beside: list[pa.Table], request: Request, where: str
) -> tuple[np.ndarray | None, list[str] | None]:
    """Return the labels and class names that .cls files or fields of .json files give; (None, None) without any."""
    columns = [name for name in table.column_names if _is_field(name)]
    if not request.label_column:
        columns = [name for name in columns if name != request.group_column]
    for name in choose_label_columns(columns, [], request.label_column, where):
        own, *others = [_typed(t.column(name)) for t in (table, *beside) if name in t.column_names]
        try:
            _check_one_class(own, name, where)
            found = classes_of(own, None, name, where, bool(request.label_column), [own, *others])
            if found[0] is not None and not request.test:
                say_which_labels(name, columns, [], where)
            return found
        except DataError as error:
            if request.label_column:
                raise
            log.warning("%s; no labels are taken", error)  # the column was our guess, not the user's wish
    return None, None


def _groups(table: pa.Table, asked: str, where: str) -> np.ndarray | None:
    """Return the group of each sample by the field of .json that is asked for, or else that of patients, or None."""
    name = choose_group_column([name for name in table.column_names if _is_field(name)], asked, where)
    return group_names(table.column(name).to_pylist()) if name else None


def _check_one_class(found: Tally, name: str, where: str) -> None:
    """Raise DataError if a label says several classes, such as "0 1" or [0, 1]."""
    several = next((v for v in found.values if isinstance(v, str) and SEVERAL.fullmatch(v)), None)
    if several is not None:
        raise DataError(
            f"{where}: expected one class for each image in {name!r}, found several: {printable(several[:SHOWN])}; "
            "write one class, or name another field with --data.label_column"
        )


def _typed(column: pa.ChunkedArray) -> Tally:
    """Return the values of a column; words that are all numbers are numbers, whole ones or measurements."""
    found = tally(column) if is_plain(column.type) else tally(column.to_pylist())
    words = [v for v in found.values if v is not None]
    if words and all(isinstance(v, str) for v in words):
        whole = all(re.fullmatch(r"-?\d{1,18}", v) for v in words)
        if whole or are_measurements(words):
            kind = int if whole else float
            found = Tally([None if v is None else kind(v) for v in found.values], found.codes)
    return found


def read_index(path: Path) -> pa.Table:
    """Return the samples of a tar, a row each; from the cache folder where it is kept there. Raises DataError.

    Columns: the key, offset and size of the image of each suffix, the text of .cls and the plain fields of .json; of a
    list in a field for labels the beginning of its text.
    """
    known = f"{FORMAT} {os.path.realpath(path)} {state_of(path)}"
    kept = cache_folder() / f"tar-{sha256(os.fsencode(known)).hexdigest()[:24]}.parquet"
    with suppress(OSError, pa.ArrowException):  # not there, or cut short
        return pq.read_table(kept)
    table = _make_index(path)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, lambda beside: pq.write_table(table, beside))
    except OSError as error:
        log.warning("%s: could not be kept, the next run will read the tar again (%s)", printable(kept), error)
    return table


def _make_index(path: Path) -> pa.Table:
    samples: dict[str, dict] = {}
    try:
        if tool := _tool(path):
            _refuse_compressed(path, tool)
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # which would keep all of them in memory
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if member.isreg() and not member.issparse() and stem and suffix:
                    sample = samples.setdefault(f"{folder}/{stem}".lstrip("/"), {})
                    _add(sample, suffix.lower(), member, tar)
            end = os.path.getsize(path)
            tar.fileobj.seek(tar.offset)
            mark = tar.fileobj.read(tarfile.BLOCKSIZE)
    except DataError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{printable(path)}: expected a readable tar file, found {type(error).__name__}: {error}; is it cut short "
            "or empty?"
        ) from None
    if mark.strip(b"\0") or 0 < len(mark) < tarfile.BLOCKSIZE:  # `tarfile` takes a damaged header for the end
        raise DataError(f"{printable(path)}: expected a whole tar file, found a damaged member; is it cut short?")
    if not mark:
        log.warning("%s: has no mark at its end; if it was cut short, images are missing", printable(path))
    rows = list(samples.values())
    suffixes = {column.removeprefix(OFFSET) for sample in rows for column in sample if column.startswith(OFFSET)}
    if any(sample[OFFSET + s] + sample[SIZE + s] > end for s in suffixes for sample in rows if OFFSET + s in sample):
        raise DataError(f"{printable(path)}: expected a whole tar file, found members beyond its end; is it cut short?")
    found = {KEY: pa.array(samples.keys(), pa.string())}
    for column in dict.fromkeys(column for sample in rows for column in sample):
        with suppress(pa.ArrowException):  # a field of JSON with values of several types is no label
            found[column] = _array([sample.get(column) for sample in rows])
    return pa.table(found)


def _array(values: list) -> pa.Array:
    """Return a column of the index; of text if some labels are lists. Raises `ArrowException` for unlike values."""
    if any(isinstance(value, _Several) for value in values):
        values = [None if value is None else str(value) for value in values]
    return pa.array(values)


def _add(sample: dict, suffix: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    """Add a member to its sample: where an image lies, or what a small text says. The first of a suffix counts."""
    if f".{suffix.rpartition('.')[2]}" in EXTENSIONS:
        sample.setdefault(OFFSET + suffix, member.offset_data)
        sample.setdefault(SIZE + suffix, member.size)
    elif suffix in ("cls", "json") and member.size <= LARGEST_TEXT:
        text = tar.extractfile(member).read().decode("utf-8", "replace").strip()
        fields: object = {"cls": text} if suffix == "cls" else None
        if suffix == "json":
            with suppress(ValueError, RecursionError):
                fields = json.loads(text)
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if isinstance(value, (list, dict)) and name.lower() in LABEL_NAMES:
                sample.setdefault(name, _Several(json.dumps(value)[:SHOWN]))
            elif isinstance(value, (str, int, float)) and _is_field(name):
                sample.setdefault(name, value)


class _Several(str):
    """Hold the text of a list or dictionary of JSON in the place of a label."""


class _OpenTar:
    """Hold a tar open until the last thread that reads from it lets go."""

    def __init__(self, path: Path):
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)


class Tars:
    """Serve images at their places in tar files, to several threads. Each process opens a tar when it first reads it.

    folder: the data set's own, in which all files lie.  shards, offsets, sizes: ints (n,), where each image lies.
    members: the images' names in their tars.
    """

    def __init__(self, files: list[Path], folder: Path, shards, offsets, sizes, members: list[str]):
        self.paths, self.folder, self.members = files, folder, members
        self.shards, self.offsets, self.sizes = shards, offsets, sizes
        self.opened: dict[int, _OpenTar] = {}  # by the number of the tar
        self.lock = threading.Lock()  # of `opened`: threads read together

    def __len__(self):
        return len(self.members)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("opened", "lock")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= state | {"opened": {}, "lock": threading.Lock()}

    def __getitem__(self, i):
        return open_picture(io.BytesIO(self.source(i)))

    def source(self, i) -> bytes:
        """Return the encoded bytes of image i. Raises PictureError or OSError."""
        shard, size = int(self.shards[i]), int(self.sizes[i])
        with self.lock:
            if (tar := self.opened.get(shard)) is None:
                if len(self.opened) >= OPEN_FILES:
                    del self.opened[next(iter(self.opened))]
                tar = self.opened[shard] = _OpenTar(self.paths[shard])
        content = os.pread(tar.descriptor, size, int(self.offsets[i]))
        if len(content) < size:
            raise PictureError(f"expected {size:,} bytes, found {len(content):,}; the tar was cut short")
        return content

    def name(self, i):
        return f"{printable(self.paths[self.shards[i]])}, {printable(self.members[i])}"

    def keys(self, indices) -> Iterator[bytes]:
        """Yield the path of each image's tar within the data set and its name there, as if the tar were a folder."""
        folders = [path_within(self.folder, path) for path in self.paths]
        return (folders[self.shards[i]] + b"/" + os.fsencode(self.members[i]) for i in indices)

    def relative_paths(self, indices) -> Iterator[str]:
        """Yield what `keys` yields, printable."""
        return map(printable, self.keys(indices))

    def files(self, indices) -> tuple[list[tuple[bytes, str]], bytes]:
        """Return the tars, each with its state; and which of their images are meant."""
        used = [self.paths[k] for k in np.unique(self.shards[np.asarray(indices, dtype=np.int64)])]
        files = [(path_within(self.folder, path), state_of(path)) for path in used]
        return files, f"{len(self)} images".encode() + np.asarray(indices, dtype=np.int64).tobytes()
