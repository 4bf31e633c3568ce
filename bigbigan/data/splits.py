"""Hold out images: for tests where a data set has no splits of its own, and for choices during a run.

Whether an image is held out is decided by a hash of what it is: its path within the data set, or the bytes of a table
row's image; or of its group: its patient, where enough of them are named, or what --data.group_column says of it. So an
image stays on its side while others are added or deleted, and wherever the data set is moved.
"""

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b, sha256

import numpy as np

from bigbigan.data.fingerprint import fingerprint
from bigbigan.data.images import Images, pixels_of
from bigbigan.data.patients import groups_of
from bigbigan.errors import DataError
from bigbigan.files import cache_folder, printable, write_whole

SALT = b"9"  # of the hashes: any would do, but another one holds out other images
KEPT_FROM = 2**26  # bytes of images in a table, a tenth of a second's work, from which on their hashes are kept
MOST_FOR_CHOICES = 10_000  # images: the paper's train_val (BigBiGAN, section 3)
log = logging.getLogger(__name__)


def hold_out(images: Images, share: float, rule: str = "patient") -> tuple[Images, Images]:
    """Divide the images into those to train on and a `share` of them to evaluate on: (train, test).

    The result does not depend on the run or its seed.  rule: "patient", see `held_out_groups`, and "hash" where too
    few patients are named; "hash", see `held_out`; or "permutation", a permutation of all positions, which deals
    all images anew when one is added or deleted: the rule of runs of earlier versions.
    """
    if share > 0 and len(images) < 2:
        raise DataError(
            f"{images.origin}: expected two images or more, since one is held out for evaluation; found one"
        )
    chosen = held_out_groups(images, share) if rule == "patient" and share > 0 else None
    if chosen is None:
        chosen = _permuted(len(images), share) if rule == "permutation" else held_out(images, share)
    return images.subset(np.flatnonzero(~chosen)), images.subset(np.flatnonzero(chosen))


def hold_out_for_choices(images: Images, share: float, rule: str = "patient") -> tuple[Images, Images]:
    """Return (the images to train on, those that choices during a run look at): the same ones whatever the run's seed.

    share: of the images that is held out, at most `MOST_FOR_CHOICES` and at least two. With labels every class gives
    the same share, up to one image, and keeps at least one to train on. Of each class the images with the lowest hashes
    are held out, so that one image more or less changes at most a few of them.  rule: "patient" holds out whole
    patients or groups instead, those with the lowest hashes, where enough of them are named; but none that has more
    than twice the share of the images.  Raises DataError.
    """
    if len(images) < 4:
        raise DataError(
            f"{images.origin}: expected four training images or more, since --run.selection_share holds at least two "
            f"of them out; found {len(images)}"
        )
    count = min(max(2, round(share * len(images))), MOST_FOR_CHOICES)
    if rule == "patient" and (groups := _by_group(images, share, "choices", math.ceil(1 / share))):
        _, of_image = groups
        sizes = np.bincount(of_image)
        small = sizes <= max(2, 2 * share * len(images))  # a group of most images is trained on
        reached = np.cumsum(sizes * small)  # images of the small groups up to each
        first = np.arange(len(sizes)) < max(np.searchsorted(reached, count, "right"), np.searchsorted(reached, 2) + 1)
        out = small & first
        chosen = _with_every_class(images, out, of_image)[of_image]
        if chosen.sum() >= 2:
            return images.subset(np.flatnonzero(~chosen)), images.subset(np.flatnonzero(chosen))
    if rule == "patient" and images.group_column:
        log.warning(
            "%s: column %r has too few small groups to hold some out for choices too, so single images are",
            images.origin, images.group_column,
        )  # fmt: skip
    _, order, ranks, sizes = _ranked(images, share, "choices")
    quantile = np.where(ranks < sizes - 1, (ranks + 0.5) / sizes, np.inf)  # of the hash within the class
    chosen = order[np.argsort(quantile, kind="stable")[: min(count, np.isfinite(quantile).sum())]]
    rest = np.ones(len(images), dtype=bool)
    rest[chosen] = False
    return images.subset(np.flatnonzero(rest)), images.subset(np.sort(chosen))


def held_out(images: Images, share: float, purpose: str = "test") -> np.ndarray:
    """Return which images are held out, bool (n,): each with probability `share`, by a hash of what it is.

    Of each class with two images or more, at least one is held out and at least one is not; images without labels are
    one class. Equal images of a table and of one class have one hash, and so lie on one side, with two exceptions:
    where they alone are more than the share of their class, each has a hash of its own; and the one image that a class
    must hold out, or keep, may be one of several equal ones. Equal files of a folder have a hash each, by their paths.
    purpose: at most 16 letters; another purpose holds out other images, independently.
    """
    if not share > 0:
        return np.zeros(len(images), bool)
    place, order, ranks, sizes = _ranked(images, share, purpose)
    chosen = place < share * 2.0**64
    chosen[order[ranks == 0]] = True
    chosen[order[ranks == sizes - 1]] = False
    return chosen


def held_out_groups(images: Images, share: float, purpose: str = "test") -> np.ndarray | None:
    """Return which images are held out, bool (n,), those of a group together; each group with probability `share`.

    A group is a patient, or what has the same value in --data.group_column. An image without one stands alone. Of each
    class with two groups or more, at least one is held out, if those of other classes allow it, and of every class at
    least one is not. None where fewer patients are named than `share` holds one of (ten for a tenth), or each class has
    one patient alone. purpose: as of `held_out`.  Raises DataError if there are no two groups of a column that was
    asked for, or each class has one alone.
    """
    groups = _by_group(images, share, purpose, 2 if images.group_column else math.ceil(1 / share))
    chosen = np.zeros(len(images), bool)
    if groups is not None:
        place, of_image = groups
        chosen = _with_every_class(images, place < share * 2.0**64, of_image)[of_image]
    if images.group_column and not chosen.any():
        several = "one group in each class, so that none can be held out"
        found = several if groups else "one group alone" if any(groups_of(images)) else "none"
        raise DataError(
            f"{images.origin}: expected several groups in the column {images.group_column!r} of --data.group_column, "
            f"found {found}; name another column, or leave it out"
        )
    return chosen if chosen.any() else None


def _by_group(images: Images, share: float, purpose: str, least: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the hash of each group, uint64 (g,), ascending, and which of them each image is of, int (n,).

    None where fewer than `least` are named. An image without a group is one of its own.
    """
    names = groups_of(images)
    if len(set(names) - {""}) < least:
        return None
    named, place = names != "", np.empty(len(images), np.uint64)
    place[named] = _digests((name.encode() for name in names[named]), purpose)
    place[~named] = _kept(images.subset(np.flatnonzero(~named)), purpose)
    return np.unique(place, return_inverse=True)


def _with_every_class(images: Images, out: np.ndarray, of_image: np.ndarray) -> np.ndarray:
    """Return which groups are held out, bool (g,), changed so that each class is on both sides, if it can be.

    Of a class that is on one side alone the first group is held out, or the last one is not: by their hashes; or those
    of --data.group_column, which may be few and large, by the numbers of their images.
    out: which would be, by ascending hash. of_image: which of them each image is of, int (n,).
    """
    labels = np.zeros(len(images), np.int64) if images.labels is None else images.labels
    order = np.argsort(np.bincount(of_image), kind="stable") if images.group_column else np.arange(len(out))
    pairs = np.unique(np.stack([labels, np.argsort(order)[of_image]], axis=1), axis=0)  # (class, place of the group)
    first = np.flatnonzero(np.diff(pairs[:, 0], prepend=pairs[0, 0] - 1))
    last = np.append(first[1:], len(pairs)) - 1
    out, groups, several = out.copy(), order[pairs[:, 1]], last > first
    out[groups[first[several & ~np.logical_or.reduceat(out[groups], first)]]] = True
    out[groups[last[np.logical_and.reduceat(out[groups], first)]]] = False
    return out


def _ranked(images: Images, share: float, purpose: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the hash of each image, and the images class by class, each class by hash, all (n,).

    The latter as three arrays: indices of images, the rank of each in its class from 0, and the size of its class.
    """
    labels = np.zeros(len(images), np.int64) if images.labels is None else images.labels
    _, of_class, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    place = _places(images, purpose, np.maximum(1, share * sizes[of_class]))
    order = np.lexsort((place, of_class))
    sorted_class = of_class[order]
    ranks = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[sorted_class]
    return place, order, ranks, sizes[sorted_class]


def _places(images: Images, purpose: str, most: np.ndarray) -> np.ndarray:
    """Return a hash of each image, uint64 (n,), uniform in 0 … 2^64 − 1.

    most: how many equal images share a hash, (n,); where there are more, each has its own, by how many came before.
    """
    found = _kept(images, purpose)
    _, which, copies = np.unique(found, return_inverse=True, return_counts=True)
    seen: dict[int, int] = {}
    for i in np.flatnonzero(copies[which] > most):
        before = seen[which[i]] = seen.get(which[i], -1) + 1
        found[i] = _digests([b"%d copy %d" % (found[i], before)], purpose)[0]
    return found


def _kept(images: Images, purpose: str) -> np.ndarray:
    """Return the hash of what each image is, uint64 (n,).

    They are kept in the cache folder where images lie in a table of many bytes, all of which must be read to hash them.
    The fingerprint of the data set tells whether these are the same images: a table that changed is hashed anew.
    """
    hashed = lambda: _digests(keys_of(images), purpose)  # noqa: E731
    if getattr(images.base()[0], "key_bytes", lambda: 0)() < KEPT_FROM:
        return hashed()
    path = cache_folder() / f"places-{sha256(f'{fingerprint(images)} {purpose}'.encode()).hexdigest()[:24]}.u8"
    with suppress(OSError, ValueError, EOFError):  # not there, or cut short
        kept = np.fromfile(path, np.uint64)
        if kept.shape == (len(images),):
            return kept
    found = hashed()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, found.tofile)
    except OSError as error:
        log.warning("%s: could not be kept, the next run will read all images again (%s)", printable(path), error)
    return found


def _digests(keys: Iterable[bytes], purpose: str) -> np.ndarray:
    person = purpose.encode()
    joined = b"".join([blake2b(key, digest_size=8, person=person, salt=SALT).digest() for key in keys])
    return np.frombuffer(joined, ">u8").astype(np.uint64)


def keys_of(images: Images) -> Iterator[bytes]:
    """Yield for each image, in order, what makes it this one: the reader's `keys(indices)`, else its pixels."""
    items, indices = images.base()
    if hasattr(items, "keys"):
        return items.keys(indices)
    return (pixels_of(items, int(i)) for i in indices)


def _permuted(count: int, share: float) -> np.ndarray:
    chosen = np.zeros(count, bool)
    if share > 0 and count > 1:
        chosen[np.random.default_rng(0).permutation(count)[: max(1, round(share * count))]] = True
    return chosen
