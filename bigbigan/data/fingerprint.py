"""Say what a data set is: its files with their sizes and times of change, its labels and class names.

By that, figures cached for a data set are never used for another one, and a run that resumes notices that its data
changed. A copy whose files have new times of change resumes: there names, sizes, labels and some pixels decide. Cheap
for a million images: no file is read but those of a few pictures.
"""

import hashlib
import json
from base64 import b64decode, b64encode
from dataclasses import dataclass

import numpy as np

from bigbigan.data.classes import listed
from bigbigan.data.images import Images, pixels_of, spread

LONGEST = 250_000  # characters of class names that state.json takes, a file that is read up to 1 MiB
PICTURES = 32  # images whose pixels enter the fingerprint: files of two data sets may have the same names and sizes


@dataclass(frozen=True)
class DataRecord:
    """Hold what a split of a data set was at one moment.

    fingerprint: a SHA-256 of all of it.  count: of images.  class_names: one per class, or None.
    content: a SHA-256 of all but the times of change; None if not known.
    names, states: hashes of the names of its files, and of each one's size and time of change, int64 (files,); None if
    not known.
    """

    fingerprint: str
    count: int
    class_names: list[str] | None
    content: str | None = None
    names: np.ndarray | None = None
    states: np.ndarray | None = None


def fingerprint(images: Images) -> str:
    """Return the SHA-256 of a data set's files, labels, class names and some of its pixels."""
    return record(images).fingerprint


def record(images: Images) -> DataRecord:
    """Return what the data set is now."""
    items, indices = images.base()
    files, rest = files_of(items, indices)
    names = _hashes(name for name, _ in files)
    states = _hashes(state.encode() for _, state in files)
    sizes = _hashes(state.partition(" ")[0].encode() for _, state in files)
    labels = b"" if images.labels is None else images.labels.tobytes()
    pixels = [hashlib.sha256(pixels_of(items, int(indices[i]))).digest() for i in spread(len(images), PICTURES)]

    def digest(of_files: np.ndarray) -> str:
        found = hashlib.sha256(json.dumps([len(images), images.class_names]).encode())
        for part in (names.tobytes(), of_files.tobytes(), rest, labels):
            found.update(hashlib.sha256(part).digest())
        for part in pixels:
            found.update(part)
        return found.hexdigest()

    return DataRecord(digest(states), len(images), images.class_names, digest(sizes), names, states)


def files_of(items, indices: np.ndarray) -> tuple[list[tuple[bytes, str]], bytes]:
    """Return [(name, state)] of the files that the images at `indices` lie in, and bytes of what else makes them these.

    From the reader's `files(indices)`. A state is a size and a time, with a space between them, or a hash. Images in
    memory count as a file each, whose state is a hash of its pixels.
    """
    if hasattr(items, "files"):
        return items.files(indices)
    content = lambda i: hashlib.blake2b(pixels_of(items, i), digest_size=8).hexdigest()  # noqa: E731
    return [(f"image {i}".encode(), content(int(i))) for i in indices], b""


def _hashes(texts) -> np.ndarray:
    return np.asarray(
        [int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), signed=True) for text in texts], dtype=np.int64
    )


def data_changes(before: dict[str, DataRecord], now: dict[str, DataRecord]) -> list[str]:
    """Return a line for each way in which the splits differ from what they were; none if they are the same.

    Times of change make no difference where all else is the same.
    before, now: records by split, "train" and "test".
    """
    lines = []
    for split, title in (("train", "training images"), ("test", "test images")):
        if not _same(before[split], now[split]):
            lines.append(f"{title}: {_file_changes(before[split], now[split])}")
    return lines + _class_changes(before["train"].class_names, now["train"].class_names)


def new_times(before: dict[str, DataRecord], now: dict[str, DataRecord]) -> bool:
    """Tell whether files have other times of change than they had, in data that are the same otherwise."""
    return not data_changes(before, now) and any(before[s].fingerprint != now[s].fingerprint for s in before)


def _same(before: DataRecord, now: DataRecord) -> bool:
    return before.fingerprint == now.fingerprint or (before.content is not None and before.content == now.content)


def _file_changes(before: DataRecord, now: DataRecord) -> str:
    text = f"{before.count:,} → {now.count:,}" if before.count != now.count else f"{now.count:,} as before"
    if before.names is None or now.names is None:
        return f"{text}, with other files, labels or classes"
    (old, old_at), (new, new_at) = (np.unique(r.names, return_index=True) for r in (before, now))
    common, i, j = np.intersect1d(old, new, assume_unique=True, return_indices=True)
    changed = int((before.states[old_at[i]] != now.states[new_at[j]]).sum())
    counts = (
        (len(new) - len(common), "added"),
        (len(old) - len(common), "removed"),
        (changed, "changed (size or time)"),
    )
    if not any(count for count, _ in counts):
        return f"{text}, in the same files, with other labels or classes or in another order"
    return f"{text}; of their files " + ", ".join(f"{count:,} {what}" for count, what in counts if count)


def _class_changes(before: list[str] | None, now: list[str] | None) -> list[str]:
    if before == now or before is None or now is None:
        return []
    gone, new = (sorted(set(a) - set(b)) for a, b in ((before, now), (now, before)))
    if not gone and not new:
        return ["classes: the same names in another order"]
    parts = [f"{what} {listed(names)}" for what, names in (("gone", gone), ("new", new)) if names]
    return [f"classes: {'; '.join(parts)}"]


def records_to_json(records: dict[str, DataRecord]) -> dict:
    """Return what state.json of a checkpoint says of the data. Class names are left out where they are very many."""
    names = records["train"].class_names
    short = names is None or sum(map(len, names)) + 10 * len(names) <= LONGEST
    by_split = {
        split: {"fingerprint": r.fingerprint, "content": r.content, "images": r.count} for split, r in records.items()
    }
    return by_split | {"class_names": names if short else None}


def records_to_hashes(records: dict[str, DataRecord]) -> dict[str, str]:
    """Return the hashes of the files' names and states, by which a checkpoint tells how many files changed, as text."""
    return {
        f"{split}.{kind}": b64encode(getattr(record, kind).astype("<i8").tobytes()).decode()
        for split, record in records.items()
        for kind in ("names", "states")
        if getattr(record, kind) is not None
    }


def records_from_json(entry: object, hashes: object) -> dict[str, DataRecord]:
    """Return the records that `records_to_json` and `records_to_hashes` were given.

    hashes: {} if they were not kept.  Raises ValueError for an entry that is none.
    """
    names = entry.get("class_names") if isinstance(entry, dict) else None
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"expected class names, found {names!r}")
    records = {}
    for split in ("train", "test"):
        found = entry.get(split) if isinstance(entry, dict) else None
        known = isinstance(found, dict) and isinstance(found.get("fingerprint"), str)
        if not known or type(found.get("images")) is not int:
            raise ValueError(f"expected the fingerprint and the number of {split} images, found {found!r}")
        content = found.get("content")  # an earlier version's checkpoint has none
        if not isinstance(content, str | None):
            raise ValueError(f"expected the content of the {split} images as a hash, found {content!r}")
        records[split] = DataRecord(found["fingerprint"], found["images"], names, content, *_decoded(hashes, split))
    return records


def _decoded(hashes: object, split: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the hashes of names and states of a split, int64 (files,) each; None for both if they are damaged."""
    try:
        found = [np.frombuffer(b64decode(hashes[f"{split}.{kind}"]), "<i8") for kind in ("names", "states")]
    except (KeyError, TypeError, ValueError):  # not kept, or not by us
        return None, None
    return tuple(found) if len(found[0]) == len(found[1]) else (None, None)
