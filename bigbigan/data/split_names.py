"""Read splits from names of folders, files and columns, and choose the split that is asked for.

A *split word* is train, val or test, or a synonym (`SPLIT_WORDS`), between characters that are no letters or at a
change from lower to upper case: `seg_train`, `train2017`, `ISIC_2019_Training_Input`, `trainA`. A name with words of
two splits has none.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bigbigan.data.columns import words
from bigbigan.data.images import Request
from bigbigan.errors import DataError
from bigbigan.files import listed, printable

TRAIN, VAL, TEST = "train", "val", "test"
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset", "trainval", "trn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "valset", "dev"), VAL),
    **dict.fromkeys(("test", "testing", "testset", "tst", "eval", "evaluation", "holdout", "heldout"), TEST),
}
SHORT_WORDS = {"tr": TRAIN, "te": TEST, "ts": TEST, "va": VAL}  # count only where the other splits are there too
ALL, REST = "all", "rest"  # names of splits that say how to read the folders; see `layout`
# Words that say whether images have labels; a folder that is named by them alone is no class.
UNLABELLED = {"unlabeled", "unlabelled", "unsup", "unsupervised", "nolabel", "nolabels", "unannotated"}
LABELLED = {"labeled", "labelled", "annotated", "supervised"}
# Words that say nothing about what a folder holds.
PLAIN_WORDS = UNLABELLED | LABELLED | {
    "image", "images", "img", "imgs", "pic", "pics", "picture", "pictures", "photo", "photos", "jpg", "jpeg", "png",
    "jpegs", "jpegimages", "data", "dataset", "datasets", "set", "split", "input", "inputs", "sample", "samples",
    "full", "raw", "original", "originals", "rgb", "frames", "part", "parts", "batch", "batches", "chunk", "shard",
    "archive", "folder", "files", "x", "px",
}  # fmt: skip
PART_WORDS = {
    "image", "images", "img", "imgs", "photos", "pictures", "part", "parts", "batch", "batches", "chunk", "shard",
    "archive", "folder", "files", "data",
}  # fmt: skip


@dataclass(frozen=True)
class Name:
    """Hold what a name says: its split (None without one), and its other words.  short: by a two-letter word."""

    split: str | None
    rest: tuple[str, ...]
    short: bool = False

    @property
    def plain(self) -> bool:
        """Whether the other words say nothing."""
        return all(word in PLAIN_WORDS or word.isdigit() for word in self.rest)


def name_words(name: str) -> list[str]:
    """Return a name's words, in which train and val beside each other are one: trainval."""
    parts = words(name)
    for i in range(len(parts) - 1):
        if SPLIT_WORDS.get(parts[i]) == TRAIN and SPLIT_WORDS.get(parts[i + 1]) == VAL:
            return [*parts[:i], "trainval", *parts[i + 2 :]]
    return parts


def read_name(name: str) -> Name:
    """Return the split that a file's or folder's name stands for. "train_val" is a training split, as in VOC."""
    parts = name_words(name)
    for table, short in ((SPLIT_WORDS, False), (SHORT_WORDS, True)):
        found = {table[word] for word in parts if word in table}
        if len(found) == 1:
            return Name(found.pop(), tuple(word for word in parts if word not in table), short)
        if found:
            break
    return Name(None, tuple(parts))


def split_names(train: str, test: str, evaluate: bool) -> tuple[str, str]:
    """Return the name of the split that is wanted, for evaluation or for training, and that of the other one.

    "all" has no splits, so it is read the same way for both: a share is held out.
    """
    test = ALL if train == ALL and test in ("test", "") else test
    return (test, train) if evaluate else (train, test)


def choose_parts(
    request: Request, parts: dict[str, str | None], labelled: Callable[[str], bool], where: str
) -> tuple[str, str, bool]:
    """Return the name of the part that is asked for, that of the other one, and whether they share one part.

    The other one is that of evaluation where the request is for training, and the reverse; "" if there is none.  Where
    the data have nothing to evaluate on, both are the training part, True: a share of it is to be held out.
    parts: names → their split.  labelled: tells of a part whether it has labels; asked only where that decides.
    A part is chosen by its name; or it is the one that means the same; for evaluation on "test", the default, one with
    labels if there is any, so that a val with labels is preferred to a test without.  Raises DataError.
    """
    parts = _without_copies(parts, request.train_split, request.test_split)
    if len(parts) == 1:
        return next(iter(parts)), next(iter(parts)), True
    train = _named(request.train_split, parts)
    tests = [name for name in _alike(request.test_split, parts) if name != train]
    default = request.test_split in ("test", "")
    if default and not tests and train:
        return train, train, True
    if default and len(tests) > 1 and len({parts[name] for name in tests}) == len(tests):
        test = next((name for name in tests if labelled(name)), tests[0])
    else:
        test = _named(request.test_split, {n: k for n, k in parts.items() if n != train} if default else parts)
    own, other = (test, train) if request.test else (train, test)
    if own and own == other and not request.nothing_held_out:
        raise DataError(
            f"{where}: expected different images to train on and to evaluate on, found {printable(own)} for both "
            f"--data.split {printable(request.train_split)} and --data.test_split {printable(request.test_split)}; "
            f"name another of {listed(parts)}, or leave one of the flags out"
        )
    if not own:
        same = [name for name in _alike(request.split, parts) if name != other] or list(parts)
        if request.split == ALL:
            raise DataError(
                f"{where}: expected images of one split, found {listed(same)}; name one, by its folder or by "
                f"--data.split {same[0]}"
            )
        raise DataError(
            f"{where}: expected a split {request.split!r}, found {listed(same)}; "
            "choose with --data.split and --data.test_split"
        )
    return own, other, False


def _without_copies(parts: dict[str, str | None], train: str, test: str) -> dict[str, str | None]:
    """Return the parts without trainval or, where it is what the run trains on, without val, which it holds.

    train, test: the names that were asked for; a part of that very name stays.
    """
    joined = [name for name in parts if "trainval" in name_words(name)]
    val = [name for name, split in parts.items() if split == VAL]
    if not joined or not val:
        return parts
    others = [name for name, split in parts.items() if split == TRAIN and name not in joined]
    trained_on = not others or any(name.lower() == train.lower() for name in joined)
    copies = [name for name in (val if trained_on else joined) if name.lower() not in (train.lower(), test.lower())]
    return {name: split for name, split in parts.items() if name not in copies}


def _alike(asked: str, parts: dict[str, str | None]) -> list[str]:
    """Return the parts that the name may mean: that of the name first, then its split's, then val for test."""
    wanted = read_name(asked).split
    order = {TEST: (TEST, VAL), VAL: (VAL, TEST), TRAIN: (TRAIN,)}.get(wanted, ())
    exact = [name for name in parts if name.lower() == asked.lower()]
    return list(dict.fromkeys([*exact, *(name for kind in order for name in parts if parts[name] == kind)]))


def _named(asked: str, parts: dict[str, str | None]) -> str:
    """Return the one part that a name means, "" if there is none or there are several."""
    alike = _alike(asked, parts)
    same = [name for name in alike if parts[name] == parts[alike[0]]]
    return alike[0] if alike and (alike[0].lower() == asked.lower() or len(same) == 1) else ""
