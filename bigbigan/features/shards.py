"""Say what a folder of features holds, and read and write it.

    FOLDER/_manifest.json                      the model, the data and the options that the features come from
    FOLDER/part-00000-of-00010.parquet, ...    the images in order, `shard_images` of them a file
    FOLDER/_unreadable.csv                     the images that could not be read, once all files are there

A row is an image: `id`, its number in the data set; `path`, within the data set, null where it has none; `label` and
`class_name` where the data have classes; and a list of fixed length for each feature. Each file is written beside its
place, flushed to the disk and renamed, so it is whole or absent. Its metadata name the images left out of it.
"""

import csv
import dataclasses
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bigbigan.errors import FeatureError
from bigbigan.files import printable, read_json, write_text_whole, write_whole

FORMAT = 1
# Readers of Parquet folders, such as pandas.read_parquet, pass over names that begin with an underscore.
MANIFEST, UNREADABLE = "_manifest.json", "_unreadable.csv"
METADATA = b"bigbigan"  # key of a file's metadata
log = logging.getLogger(__name__)
ROWS = 1000  # rows of a row group, which are in memory at a time
TYPES = {"float16": pa.float16(), "float32": pa.float32()}

# What must be the same for an extraction to go on, and what a message says was found instead.
BOUND = {
    "format": "another format of the folder",
    "model": "another model",
    "data": "other images, or files, labels or classes that changed",
    "images": "another number of images",
    "transform": "another way of decoding, of another version of this library",
    "image_size": "another size of images",
    "value_range": "another --data.value_range",
    "outputs": "other --outputs",
    "dtype": "another --dtype",
    "shard_images": "another --shard_images",
}


@dataclass(frozen=True)
class Manifest:
    """Hold what the features of a folder come from.

    model: SHA-256 of E's weights.  data: fingerprint of the images, `data.fingerprint`.  images: how many there are.
    outputs, dtype: of the columns of features.  shard_images: images of a file, those that cannot be read included.
    checkpoint, path: what the model and the data were called, for readers; they may change.
    """

    model: str
    data: str
    images: int
    transform: str
    image_size: int
    value_range: tuple[float, float] | None
    outputs: tuple[str, ...]
    dtype: str
    shard_images: int
    checkpoint: str = ""
    path: str = ""
    format: int = FORMAT

    @property
    def shards(self) -> int:
        """The number of files."""
        return -(-self.images // self.shard_images)

    def name(self, k: int) -> str:
        """Return the name of file k."""
        return f"part-{k:05d}-of-{self.shards:05d}.parquet"

    def span(self, k: int) -> range:
        """Return the numbers of the images of file k."""
        return range(k * self.shard_images, min((k + 1) * self.shard_images, self.images))

    def bound(self) -> dict:
        """Return what must be the same for an extraction to go on, as JSON gives it back."""
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        return {name: values[name] for name in BOUND}

    def key(self) -> str:
        """Return a SHA-256 of what `bound` returns, by which a file is known to belong here."""
        return hashlib.sha256(json.dumps(self.bound(), sort_keys=True).encode()).hexdigest()


class Unread(NamedTuple):
    """Name an image that could not be read. path: within the data set, or None.  reason: in one line."""

    id: int
    path: str | None
    reason: str


def begin(folder: Path, manifest: Manifest) -> None:
    """Create the folder with its manifest, or check that it holds the same extraction. Raises FeatureError or OSError.

    Any number of processes may call it at once.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise FeatureError(f"--out {printable(folder)}: expected a folder, which may be a new one, found a file")
    folder.mkdir(parents=True, exist_ok=True)
    foreign = next(folder.glob("*.parquet"), None)  # before the manifest is looked for: another process may write both
    if not (folder / MANIFEST).exists():
        if foreign is not None:
            raise FeatureError(
                f"--out {printable(folder)}: expected an empty folder or one that this command began, found "
                f"{printable(foreign.name)} without {MANIFEST}; choose another --out"
            )
        text = json.dumps(dataclasses.asdict(manifest), indent=1) + "\n"
        write_text_whole(folder / MANIFEST, text, sync=True)
    found, wanted = read_manifest(folder).bound(), manifest.bound()
    for name, what in BOUND.items():
        if found[name] != wanted[name]:
            raise FeatureError(
                f"--out {printable(folder)}: expected an extraction that this command can go on with, found {what}: "
                f"{_short(found[name])} there, {_short(wanted[name])} now; choose another --out, or delete it"
            )


def _short(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text  # a SHA-256


def read_manifest(folder: Path) -> Manifest:
    """Return what the features of a folder come from. Raises FeatureError."""
    try:
        content = read_json(folder / MANIFEST)
        if content.get("format") != FORMAT:
            raise ValueError(f"found format {content.get('format')!r}, expected {FORMAT}")
        found = Manifest(**content)
        whole = all(type(n) is int and n > 0 for n in (found.images, found.shard_images))
        if not whole or found.dtype not in TYPES or not all(isinstance(name, str) for name in found.outputs):
            raise ValueError("found values that do not fit")
    except (OSError, ValueError, TypeError) as error:
        raise FeatureError(
            f"{printable(folder)}: expected what bigbigan-extract wrote, found no readable {MANIFEST} ({error})"
        ) from None
    limits = found.value_range and tuple(found.value_range)
    return dataclasses.replace(found, outputs=tuple(found.outputs), value_range=limits)


def is_done(folder: Path, manifest: Manifest, k: int) -> bool:
    """Return whether file k is there and whole. Raises FeatureError if it is of another extraction."""
    path = folder / manifest.name(k)
    if not path.exists():
        return False
    try:
        notes, rows = _notes(path)
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s: expected a Parquet file of this extraction, found a damaged one; it is made anew", path)
        return False
    if notes["key"] != manifest.key():
        raise FeatureError(f"{printable(path)}: expected a part of this extraction, found one of another; delete it")
    return rows + len(notes["unreadable"]) == len(manifest.span(k))


def unreadable(folder: Path, manifest: Manifest, numbers: Iterable[int]) -> Iterator[Unread]:
    """Yield the images that the files of these numbers leave out, in order. Raises OSError or ValueError."""
    for k in numbers:
        yield from (Unread(*entry) for entry in _notes(folder / manifest.name(k))[0]["unreadable"])


def _notes(path: Path) -> tuple[dict, int]:
    """Return what a file's metadata say, and its number of rows. Raises OSError, ValueError (Arrow's too), KeyError."""
    found = pq.read_metadata(path)
    return json.loads(found.metadata[METADATA]), found.num_rows


def schema(manifest: Manifest, widths: dict[str, int], labels: bool, classes: bool) -> pa.Schema:
    """Return the columns of a file. widths: {feature: numbers of a row}."""
    fields = [pa.field("id", pa.int64(), False), pa.field("path", pa.string())]
    fields += [pa.field("label", pa.int64(), False)] * labels + [pa.field("class_name", pa.string(), False)] * classes
    return pa.schema(fields + [pa.field(n, pa.list_(TYPES[manifest.dtype], widths[n]), False) for n in widths])


def feature_column(values: np.ndarray) -> pa.Array:
    """Return rows (n, C) as a column of lists of length C."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def write_shard(
    folder: Path, manifest: Manifest, k: int, columns: pa.Schema, batches: Iterable[pa.Table], left_out: list[Unread]
) -> None:
    """Write file k, batch by batch, so that it is whole or absent. left_out: is read when the batches have ended."""

    def write(beside: Path) -> None:
        with pq.ParquetWriter(beside, columns, use_dictionary=["class_name"]) as writer:
            waiting: list[pa.Table] = []
            for table in batches:
                waiting.append(table)
                if sum(map(len, waiting)) >= ROWS:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
            notes = {"key": manifest.key(), "unreadable": left_out}
            writer.add_key_value_metadata({METADATA: json.dumps(notes).encode()})

    write_whole(folder / manifest.name(k), write, sync=True)


def is_complete(folder: Path, manifest: Manifest) -> bool:
    """Return whether all files are there."""
    return all((folder / manifest.name(k)).exists() for k in range(manifest.shards))


def finish(folder: Path, manifest: Manifest, since: float) -> int:
    """List the images that could not be read in _unreadable.csv, and return how many they are; all files must be there.

    Also removes what killed processes have left half-written.
    since: seconds since 1970, when this process began. Another process may be in here too: a list that is younger is
    being written.
    """
    text, count = io.StringIO(), 0
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(Unread._fields)
    for entry in unreadable(folder, manifest, range(manifest.shards)):
        rows.writerow(entry)
        count += 1
    if count:
        write_text_whole(folder / UNREADABLE, text.getvalue(), sync=True, errors="backslashreplace")
    for leftover in (*folder.glob(".part-*.tmp"), *folder.glob(f".{MANIFEST}.*.tmp"), *folder.glob(".*.csv.*.tmp")):
        with suppress(OSError):
            if ".csv." not in leftover.name or leftover.stat().st_mtime < since:
                leftover.unlink()
    return count


class Rows(NamedTuple):
    """Hold some rows of a folder. values: float16 or float32 (n, C).  ids: (n,).  paths: None where there is none."""

    values: np.ndarray
    ids: np.ndarray
    paths: list[str | None]


def read_rows(folder: Path, output: str, rows: int = ROWS) -> Iterator[Rows]:
    """Yield one feature of all images, at most `rows` of them at a time, in order. Raises FeatureError."""
    manifest = read_manifest(folder)
    check_complete(folder, manifest)
    for k in range(manifest.shards):
        with _readable(folder / manifest.name(k)) as file:
            for batch in file.iter_batches(rows, columns=["id", "path", output]):
                values = batch.column(output)
                numbers = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)
                yield Rows(numbers, batch.column("id").to_numpy(), batch.column("path").to_pylist())


def paths_of(folder: Path, manifest: Manifest, ids: np.ndarray) -> dict[int, str | None]:
    """Return the paths of images, ids (n,) in order, None for images without one. Raises FeatureError."""
    found: dict[int, str | None] = {}
    for k in np.unique(ids // manifest.shard_images).tolist():
        with _readable(folder / manifest.name(k)) as file:
            table = file.read(columns=["id", "path"])
            rows = np.flatnonzero(np.isin(table.column("id").to_numpy(), ids))
            part = table.take(pa.array(rows))
            found |= dict(zip(part.column("id").to_pylist(), part.column("path").to_pylist(), strict=True))
    return found


@contextmanager
def _readable(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; raise FeatureError where it, or what is read of it, is damaged."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, ValueError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise FeatureError(f"{printable(path)}: expected a readable Parquet file, found {reason}") from None


def check_complete(folder: Path, manifest: Manifest) -> None:
    """Raise FeatureError unless all files are there."""
    there = sum((folder / manifest.name(k)).exists() for k in range(manifest.shards))
    if there < manifest.shards:
        raise FeatureError(
            f"{printable(folder)}: expected all {manifest.shards} files of the extraction, found {there}; run the same "
            "bigbigan-extract again, which goes on"
        )
