"""Say which folder of a data set is which split and which folders are classes.

Split words are those of `split_names`, masks those of `mask_folders`; table files are read by `table_files`. Folders
are read from the top down:

1. A folder whose only content is one folder is a wrapper, and is entered, any number of times. So is `images` beside
   `masks`. Folders that differ in a number alone and are called parts (`images_001`, `part_2`) are one folder.
2. If train and test (or val) lie beside each other, they are the splits (`train/ val/`). What else lies there is left
   out and reported. A word that is a part of a longer name counts only if the rest is the same on both sides
   (`bedroom_train`, `bedroom_val`) or says nothing (`train_images`): `train_station` is a class. Where a split has
   several folders (`train_cats`, `train_dogs`), the rest of the name is the class.
3. If every folder has train and test in it, the folders are classes and the splits lie below them (`cat/train`).
4. Within a split, the folders below its wrappers are the classes.

Everything else is refused with its two readings and the flags that choose between them: `train` beside `bus` and `car`,
`test` beside classes, the same class folders below several others, several data sets in one folder.
`--data.split all` takes all splits together, or all folders as classes where there are none. `--data.split rest` trains
on what is no split, and `--data.split ./NAME` names a folder or file. `--data.subset` names one of several data sets.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bigbigan.data.columns import is_mask, words
from bigbigan.data.mask_folders import pictures, without_mask_folders
from bigbigan.data.patients import COLLECTED, PATIENTS, VISITS
from bigbigan.data.split_names import (
    ALL,
    LABELLED,
    PART_WORDS,
    PLAIN_WORDS,
    REST,
    SPLIT_WORDS,
    TEST,
    TRAIN,
    UNLABELLED,
    VAL,
    Name,
    name_words,
    read_name,
)
from bigbigan.data.walk import Folder, merge
from bigbigan.errors import DataError
from bigbigan.files import counted, listed, printable

MANY_VISITS = 8  # folders called case1, series2 or the like, from which on they are no classes
EDITION_WORDS = {"mini", "tiny", "small", "medium", "large", "big", "subset", "stg", "stage", "phase", "round"}
FOLDS = {"fold", "folds", "kfold"}
IF_CLASSES = "; if these folders are classes: --data.split all"


@dataclass
class Part:
    """Hold a split of a folder. folders: [(class, folder)]; the class is "" where the subfolders are the classes.

    certain: whether the user said that the subfolders are the classes, so that there is nothing to doubt.
    settled: whether they need not be classes, since a table has the labels or the user named the folder: then no
    reading of them is refused.
    lists: the file that lists the images, "" where folders say the split.
    """

    name: str
    split: str | None
    folders: list[tuple[str, Folder]]
    certain: bool = False
    settled: bool = False
    lists: str = ""

    @property
    def images(self) -> int:
        """The number of images in it."""
        return sum(len(folder) for _, folder in self.folders)

    def paths(self) -> str:
        """Return the names of its folders for the start of a run."""
        return printable(self.lists) or listed([folder.name + "/" for _, folder in self.folders])


@dataclass
class Layout:
    """Hold the splits of a folder, and what was left out and why, in short phrases."""

    parts: list[Part]
    left_out: list[str] = field(default_factory=list)


def read_folder(root: Folder, split: str, subset: str, where: str) -> Layout:
    """Return the splits of a folder of images. Raises DataError for what can be read in two ways.

    split: the training split's name as asked for; "all" and "rest" say how to read the folders.
    subset: the folder to read where several data sets lie side by side, or "".
    """
    left_out: list[str] = []
    top = top_of(root, subset, left_out, certain=split == ALL)
    if split == ALL:
        return Layout([_all_of(top, where, left_out)], left_out)
    parts = _splits_here(top, split, where, left_out) or _splits_below(top, where, left_out) or _splits_of_files(top)
    if not parts:
        _check_no_splits_below(top, where)
        _check_labelled(top, where, at_the_top=True)
        own = read_name(top.name).split if top.path != root.path else None
        parts = [Part(top.name if own else ALL, own, [("", top)])]
    return Layout(parts, left_out)


def top_of(root: Folder, subset: str, left_out: list[str], certain: bool = False) -> Folder:
    """Return the folder that holds the splits, classes or images; arguments as of `unwrap` and `read_folder`."""
    top = unwrap(root, left_out, certain=certain)
    if subset and (chosen := [f for f in top.folders if f.name.lower() == subset.lower()]):
        top = unwrap(chosen[0], left_out, certain=certain)
    return top


def _all_of(top: Folder, where: str, left_out: list[str]) -> Part:
    """Return all images as one part: those of all splits together, where these are certain, else of all folders."""
    try:
        parts = _splits_here(top, TRAIN, where, left_out)
    except DataError:
        named = _recognised([(f, read_name(f.name)) for f in top.folders])
        kinds = {name.split for _, name in named}
        certain = TRAIN in kinds and len(kinds) > 1 and None not in kinds  # such as train2014, train2017, val2014
        parts = [Part(ALL, None, [("", folder) for folder, _ in named])] if certain else []
    return Part(ALL, None, [named for part in parts for named in part.folders] or [("", top)], certain=True)


def _check_no_splits_below(top: Folder, where: str) -> None:
    """Raise DataError if train and test lie somewhere below, where the rules do not expect them."""
    for folder in top.folders:
        named = _recognised([(f, read_name(f.name)) for f in folder.folders])
        kinds = {name.split for _, name in named}
        if TRAIN in kinds and len(kinds - {None}) > 1:
            _refuse(
                where, f"train and test in {printable(folder.path)}, beside other images",
                "that folder is the data set", f"--data.path {printable(folder.path)}",
                "the folders directly in the path are classes, whatever lies below them", "--data.split all",
            )  # fmt: skip
        _check_no_splits_below(folder, where)


def _check_labelled(top: Folder, where: str, at_the_top: bool) -> None:
    """Raise DataError if a folder of images without labels lies beside others, as if it were a class.

    at_the_top: whether --data.subset finds these folders.
    """
    without = [f.name for f in top.folders if _without_labels(f.name)]
    others = [f.name for f in top.folders if f.name not in without]
    if without and others:
        named = listed(without)
        choice = f"--data.subset {named}" + (f" or {printable(others[0])}" if len(others) == 1 else "")
        out = f"move it out of {printable(top.path)}"
        _refuse(
            where, f"{named} beside {listed(others)}",
            f"{named} holds images without labels, apart from the others",
            f"{choice}, or {out}" if at_the_top and len(without) == 1 else out,
            f"{named} is a class like the others", "--data.split all",
        )  # fmt: skip


def _without_labels(name: str) -> bool:
    """Return whether a folder is named by nothing but that its images have no labels."""
    found = words(name)
    return bool(UNLABELLED & set(found)) and all(word in PLAIN_WORDS or word.isdigit() for word in found)


def unwrap(folder: Folder, left_out: list[str], classes: Iterable[str] = (), certain: bool = False) -> Folder:
    """Return the folder that holds splits, classes or images, below any number of wrappers.

    classes: names that are classes elsewhere, so that a folder of that name is no wrapper and holds no masks.
    certain: whether the user said that the folders are classes; then only masks beside `images` are left out.
    left_out: gets a phrase for folders of masks, which are left out.
    """
    while not folder.files:
        folders = folder.folders
        if len(folders) == 1 and folders[0].name not in classes:
            folder = folders[0]
            continue
        known = {f.name for f in folders} & set(classes)
        pictures = without_mask_folders(folders, left_out, folder.name, None if certain or known else IF_CLASSES)
        if pictures is not None:
            folder = Folder(folder.name, folder.path, [], pictures)
        elif (numbered_parts([f.name for f in folders]) or _hold_folds(folders)) and not known:
            folder = merge(folder, [unwrap(f, left_out, classes, certain) for f in folders])
        elif _initials(folders):
            joined = merge(folder, folders)
            uneven = any(f.files for f in joined.folders)  # abbey/1.jpg beside bazaar/indoor/1.jpg
            found = [c for f in joined.folders for c in _leaves(f)] if uneven else joined.folders
            folder = Folder(folder.name, folder.path, joined.files, found)
        else:
            break
    return folder


def are_dates(names: Sequence[str]) -> bool:
    """Return whether folders are named by dates or years: "2019", "2019-05 Rome". They hold photographs, no classes."""
    return len(names) > 1 and all(re.match(r"(19|20)\d\d(?!\d)([-_. ]|$)", name) for name in names)


def are_editions(names: Sequence[str]) -> bool:
    """Return whether folders are named by the years of one thing: "VOC2007", "VOC2012"; but so are models of a car."""
    editions = [re.fullmatch(r"(.*\D)(19|20)\d\d", name) for name in names]
    return len(names) > 1 and all(editions) and len({found[1] for found in editions if found}) == 1


def are_patients(names: Sequence[str], sure: bool = True) -> bool:
    """Return whether folders are named by numbers of patients or of their visits: patient00001, study2.

    sure: whether a few visits count only if their numbers begin with 0, since classes may be called series3, series5.
    """
    visits = not sure or len(names) >= MANY_VISITS or any(re.search(r"\D0\d", name) for name in names)
    kind = rf"({'|'.join(PATIENTS + VISITS * visits)})[-_. (#=]*\d+\)?([-_. ]+[a-z]*[-_. ]?\d+)*"
    return len(names) > 1 and all(re.fullmatch(kind, name.lower()) or COLLECTED.match(name) for name in names)


def numbered_parts(names: Sequence[str]) -> bool:
    """Return whether names differ in numbers alone and have a word such as "images" or "part"."""
    letters = {tuple(word for word in words(name) if not word.isdigit()) for name in names}
    return (
        len(names) > 1
        and len(letters) == 1
        and bool(set(next(iter(letters))) & PART_WORDS)
        and not any(word in SPLIT_WORDS for word in next(iter(letters)))
    )


def _hold_folds(folders: list[Folder]) -> bool:
    """Return whether folders hold the classes of a fold each; with splits in each they share images."""
    return (
        are_folds([f.name for f in folders])
        and not any(f.files for f in folders)
        and not any(read_name(child.name).split for f in folders for child in f.folders)
    )


def are_folds(names: Sequence[str]) -> bool:
    """Return whether folders are named as the folds of one data set: fold0, fold1."""
    found = [words(name) for name in names]
    letters = {tuple(word for word in name if not word.isdigit()) for name in found}
    return (
        len(names) > 1
        and len(letters) == 1
        and bool(set(next(iter(letters))) & FOLDS)
        and set(next(iter(letters))) <= FOLDS | PLAIN_WORDS | {"cv"}  # Galaxy Fold 3 is a class
        and all(any(map(str.isdigit, name)) for name in found)
    )


def _initials(folders: list[Folder]) -> bool:
    """Return whether folders are the initials of what is in them (a/abbey, a/airport, b/bakery)."""
    return len(folders) > 1 and all(
        len(f.name) == 1 and f.name.isalpha() and not f.files and f.folders
        and all(c.name.lower().startswith(f.name.lower()) and len(c.name) > 1 for c in f.folders)
        for f in folders
    )  # fmt: skip


def _leaves(folder: Folder) -> list[Folder]:
    """Return the classes that a folder holds below its initial: bazaar/indoor and bazaar/outdoor, or itself."""
    if folder.files or all(read_name(child.name).plain for child in folder.folders):
        return [folder]
    below = [leaf for child in folder.folders for leaf in _leaves(child)]
    return [Folder(f"{folder.name}/{leaf.name}", leaf.path, leaf.files, leaf.folders) for leaf in below]


def _splits_here(top: Folder, asked: str, where: str, left_out: list[str]) -> list[Part]:
    """Return the splits that the subfolders are, none if they are no splits. Raises DataError in doubt."""
    named = _recognised([(f, read_name(f.name)) for f in top.folders])
    splits = [(f, name) for f, name in named if name.split]
    others = [f for f, name in named if not name.split]
    if not splits:
        return []
    kinds = {name.split for _, name in splits}
    loose = f"{counted(len(top.files))} beside them" if top.files else ""
    if asked == REST:
        rest = Folder(top.name, top.path, top.files, others)
        return [Part(REST, TRAIN, [("", rest)]), *_group(splits, where, left_out)]
    if TRAIN not in kinds and not others and not top.files:
        return _group(splits, where, left_out)  # val and test; the choice of a split says that train is missing
    beside = listed([f.name for f in others]) or loose
    found = listed([f.name for f, _ in splits])
    masks = all(is_mask(f.name) for f in others)
    plain = all(read_name(f.name).plain or is_mask(f.name) for f in others)
    flat = not any(f.folders for f, _ in splits)
    if TRAIN not in kinds:
        _check_no_splits_below(Folder(top.name, top.path, top.files, others), where)
        _refuse(
            where, f"{found} beside {beside}",
            f"{found} is a split and the training images are {beside}", "--data.split rest",
            f"{found} is a class like the others", "--data.split all",
        )  # fmt: skip
    if (len(kinds) == 1 and not masks) or (flat and len(others) > 1 and not plain):
        _refuse(
            where, f"{found} beside {beside}",
            f"{found} is a split and {beside} are not used", _flags(splits, where),
            f"{found} is a class like {beside}", "--data.split all",
        )  # fmt: skip
    left_out.extend(f"{printable(f.name)}/ ({counted(len(f))}, beside the splits)" for f in others)
    if loose:
        left_out.append(f"{counted(len(top.files))}, such as {printable(top.files[0])}, beside the splits")
    return _group(splits, where, left_out)


def _recognised(named: list[tuple[Folder, Name]]) -> list[tuple[Folder, Name]]:
    """Return the same list, where a split word that does not stand for a split by what lies beside it counts as none.

    A longer name counts if its other words say nothing, or are the same for training and evaluation, or the same as in
    a folder of images or data (`data_large`, `val_large`), or if they say how large or which edition it is and all
    names have split words (`train_mini`, `val`); `train` beside `test_tube` is a class.
    """
    rests = {
        side: {name.rest for _, name in named if name.split and (name.split == TRAIN) == side} for side in (True, False)
    }
    pairs = rests[True] & rests[False]
    both = rests[True] and rests[False]
    complete = both and all(name.split for _, name in named)
    alone = {name.split for _, name in named if name.split and not name.rest}  # train beside train_mini
    without = [name.rest for _, name in named if not name.split and set(name.rest) & PLAIN_WORDS]  # data_large
    alike = {tuple(word for word in rest if word not in PLAIN_WORDS) for rest in without}

    def counts(name: Name) -> bool:
        if not name.split or (name.short and not (both and (complete or name.rest in pairs and name.rest))):
            return False
        edition = all(word in EDITION_WORDS | PLAIN_WORDS or word.isdigit() for word in name.rest)
        if complete and edition and name.split not in alone:
            return True
        return name.plain or name.rest in pairs or name.rest in alike or (bool(pairs) and is_mask(" ".join(name.rest)))

    return [(f, name if counts(name) else Name(None, name.rest)) for f, name in named]


def _group(splits: list[tuple[Folder, Name]], where: str, left_out: list[str]) -> list[Part]:
    """Return a part for each split; where a split has several folders, they are parts or classes by their names."""
    masks = [f for f, name in splits if is_mask(" ".join(name.rest))]
    if masks and len(masks) < len(splits):
        left_out.extend(f"{printable(f.name)}/ ({len(f):,} masks or the like, by its name)" for f in masks)
        splits = [(f, name) for f, name in splits if f not in masks]
    kinds = {kind: [(f, name) for f, name in splits if name.split == kind] for kind in (TRAIN, VAL, TEST)}
    kinds = {kind: found for kind, found in kinds.items() if found}
    _leave_out_copies(kinds, left_out)
    if all(len(found) == 1 for found in kinds.values()):
        return [Part(found[0][0].name, kind, [("", found[0][0])]) for kind, found in kinds.items()]
    rests = [{name.rest for _, name in found} for found in kinds.values()]
    sizes = all({"hr", "lr"} & set(name.rest) for _, name in splits)  # DIV2K_train_HR, DIV2K_train_LR
    if all(rest == rests[0] for rest in rests) and not (sizes or any(name.plain for _, name in splits)):
        return [Part(kind, kind, [(" ".join(name.rest), f) for f, name in found]) for kind, found in kinds.items()]
    parts = []
    for kind, found in kinds.items():
        if len(found) > 1 and not (kind == TRAIN and all(_shard(name) for _, name in found)):
            raise DataError(
                f"{where}: expected one folder for the split {kind!r}, found {listed(f.name for f, _ in found)}; "
                f"choose with {_flags(splits, where)}, or join them in one folder"
            )
        name = found[0][0].name if len(found) == 1 else kind
        parts.append(Part(name, kind, [("", f) for f, _ in found]))
    return parts


def _flags(splits: list[tuple[Folder, Name]], where: str) -> str:
    """Return the flags that take the first folder of training and the first of evaluation, if there are both."""
    train = [f for f, name in splits if name.split == TRAIN]
    tests = [f for f, name in splits if name.split != TRAIN]
    if not tests:
        return f"--data.path {printable(train[0].path)}"
    flags = {"split": train, "test_split": tests}
    inside = lambda f: printable(f.path).removeprefix(where.rstrip("/") + "/")  # noqa: E731
    return " ".join(f"--data.{flag} ./{inside(found[0])}" for flag, found in flags.items() if found)


def _leave_out_copies(kinds: dict[str, list[tuple[Folder, Name]]], left_out: list[str]) -> None:
    """Take away trainval where train and val are there too; else val, which trainval holds. Say so in `left_out`."""
    both = [(f, name) for f, name in kinds.get(TRAIN, []) if "trainval" in name_words(f.name)]
    if not both or VAL not in kinds:
        return
    if len(both) < len(kinds[TRAIN]):
        copies, kinds[TRAIN] = both, [item for item in kinds[TRAIN] if item not in both]
        why = "train and val once more, by its name"
    else:
        copies, why = kinds.pop(VAL), f"a part of {printable(both[0][0].name)}/, by its name"
    left_out.extend(f"{printable(f.name)}/ ({counted(len(f))}, {why})" for f, _ in copies)


def _shard(name: Name) -> bool:
    """Return whether a name is that of a numbered part of a split; years and words on labels tell editions apart."""
    edition = re.compile(rf"(19|20)\d\d|{'|'.join(UNLABELLED | LABELLED)}")
    return name.plain and not any(edition.fullmatch(word) for word in name.rest)


def _splits_below(top: Folder, where: str, left_out: list[str]) -> list[Part]:
    """Return the splits that lie below the classes (cat/train, dog/train), none if there are none."""
    if top.files and len(top.folders) == 1:
        parts = _splits_here(unwrap(top.folders[0], left_out), TRAIN, where, left_out)
        if parts:
            left_out.append(f"{counted(len(top.files))}, such as {printable(top.files[0])}, beside the splits")
        return parts
    if top.files:
        return []
    found = {}
    for folder in top.folders:
        inside = unwrap(folder, [])
        named = _recognised([(f, read_name(f.name)) for f in inside.folders])
        splits = [(f, name) for f, name in named if name.split]
        if {name.split for _, name in splits} - {TRAIN} and any(name.split == TRAIN for _, name in splits):
            found[folder.name] = _group(splits, where, [])
    if not found:
        return []
    without = [f.name for f in top.folders if f.name not in found]
    deep = [n for n, parts in found.items() if any(len(unwrap(f, []).folders) > 1 for p in parts for _, f in p.folders)]
    versions = all(re.fullmatch(r"(?i)\d+(k|px)|\d{3,}p|png|jpe?g|tiff?|bmp", name) for name in found)  # sizes, formats
    if versions and len(found) > 1 and not deep:
        _refuse(
            where, f"train and test within each of {listed(found)}",
            "these are several versions of a data set", f"--data.subset {printable(next(iter(found)))}",
            "they are classes", "rename them, or take all splits together: --data.split all",
        )  # fmt: skip
    if deep:
        raise DataError(
            f"{where}: expected one data set, found several, each with splits and classes of its own: "
            f"{listed(f.name for f in top.folders)}; choose one with --data.subset {printable(deep[0])}"
        )
    if without:
        found_name = printable(next(iter(found)))
        _refuse(
            where, f"train and test within {listed(found)}, and none within {listed(without)}",
            f"the data set is {found_name}, without the others", f"--data.subset {found_name}",
            "all folders are classes, whatever lies below them", "--data.split all",
        )  # fmt: skip
    kinds = dict.fromkeys(part.split for parts in found.values() for part in parts)
    return [
        Part(kind, kind, [(n, f) for n, ps in found.items() for p in ps if p.split == kind for _, f in p.folders])
        for kind in kinds
    ]


def _splits_of_files(top: Folder) -> list[Part]:
    """Return the splits that the names of files in a flat folder tell apart (train_1.png, test_1.png), or none."""
    if top.folders or not top.files:
        return []
    kinds: dict[str, list[str]] = {}
    for path in top.files:
        name = read_name(Path(path).stem)
        if not name.split or name.short:
            return []
        kinds.setdefault(name.split, []).append(path)
    if TRAIN not in kinds or len(kinds) == 1:
        return []
    return [Part(kind, kind, [("", Folder(f"{kind}*", top.path, files))]) for kind, files in kinds.items()]


def _check_classes_once(top: Folder, where: str) -> None:
    """Raise DataError if the same class folders lie below several folders, or a copy of the classes beside them."""
    inside = {folder.name: {f.name for f in unwrap(folder, []).folders} for folder in top.folders}
    below = {name: names for name, names in inside.items() if len(names) > 1}
    siblings = {folder.name for folder in top.folders}
    for name, names in below.items():
        if len(names & siblings) > 1 and len(names & siblings) >= 0.5 * len(names):
            raise DataError(
                f"{where}: expected each class once, found a copy of the classes in {printable(name)}/; "
                f"choose it with --data.subset {printable(name)}, take it away, or keep it as a class of its own with "
                "--data.split all"
            )
    if len(below) < 2 or len(below) < 0.5 * len(inside):
        return
    distinct, largest = set.union(*below.values()), max(below.values(), key=len)
    shared = [name for name in distinct if sum(name in names for names in below.values()) > 0.5 * len(below)]
    if len(shared) > 1 and len(distinct) <= 1.5 * len(largest) and not are_patients(shared, sure=False):
        _refuse(
            where, f"the folders {listed(sorted(shared))} below each of {listed(sorted(below))}",
            f"{listed(sorted(below))} are versions or groups of the same classes",
            f"--data.subset {printable(min(below))}", f"they are the classes: {len(inside)} of them",
            "--data.split all",
        )  # fmt: skip


def _check_no_split_among(folder: Folder, known: set[str], where: str) -> None:
    """Raise DataError if a folder called test, say, lies beside the classes of a split, and is no class elsewhere."""
    for child in folder.folders:
        name = read_name(child.name)
        if name.split and not name.rest and not name.short and child.name not in known and len(folder.folders) > 1:
            _refuse(
                where, f"{printable(child.name)} among the classes of {printable(folder.path)}",
                "it is a split", "move it beside the other splits",
                "it is a class", f"--data.path {printable(folder.path)} --data.split all",
            )  # fmt: skip


def _refuse(where: str, found: str, first: str, flag: str, second: str, other: str) -> None:
    raise DataError(
        f"{where}: expected splits and classes that can be told apart, found {found}. Either {first}: {flag}; "
        f"or {second}: {other}"
    )


def items_of(part: Part, known: set[str] | None, left_out: list[str], where: str) -> list[tuple[str, str]]:
    """Return [(class, path)] of a split; the class is "" for an image that lies in no class folder.

    known: the classes of the other splits; None while they are not known yet.
    Raises DataError if folders can be classes or groups of them.
    """
    if any(name for name, _ in part.folders):
        return [(name, path) for name, folder in part.folders for path in pictures(folder, left_out)]
    folders = [folder for _, folder in part.folders]
    whole = (
        folders[0]
        if len(folders) == 1
        else merge(folders[0], [unwrap(f, left_out, known or (), part.certain) for f in folders])
    )
    inner = unwrap(whole, left_out, known or (), part.certain)
    names = [folder.name for folder in inner.folders]
    if not (part.certain or part.settled or are_dates(names) or are_patients(names)):
        _check_classes_once(inner, where)
        _check_labelled(inner, where, at_the_top=False)
        if known is not None:
            _check_no_split_among(inner, known, where)
    below = [(folder.name, path) for folder in inner.folders for path in pictures(folder, left_out)]
    return [("", path) for path in inner.files] + below


def known_classes(parts: list[Part], where: str) -> dict[str, set[str]]:
    """Return the class folders of each split: those of a split with at least two, and no image beside them."""
    found = {}
    for part in parts:
        names = {top for top, _ in items_of(part, None, [], where)}
        found[part.name] = names if (len(names) > 1 or any(n for n, _ in part.folders)) and "" not in names else set()
    return found


def find_folder(root: Folder, path: str) -> Folder | None:
    """Return the folder below `root` that a path such as "./archive/train" names, None if there is none."""
    parts = [part for part in Path(path).parts if part != "."]
    for part in parts:
        found = [folder for folder in root.folders if folder.name == part]
        if not found:
            return None
        root = found[0]
    return root
