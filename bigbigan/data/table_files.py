"""Say which table file is which split, by the words in its name or in the names of the folders above it.

What is left of the name and path, without shard numbers, tells configurations apart; several are never joined.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from bigbigan.data.columns import words
from bigbigan.data.split_names import ALL, PART_WORDS, PLAIN_WORDS, SPLIT_WORDS, name_words, read_name
from bigbigan.errors import DataError
from bigbigan.files import listed, printable

SHARD = re.compile(r"[-_.]?\d+[-_]of[-_]\d+.*$")


def read_tables(paths: list[Path], root: Path, subset: str) -> dict[str, list[Path]]:
    """Return the table files of each split by its name ("all" without one). Raises DataError.

    subset: the configuration to take where there are several, or "".
    """
    years = _are_years(paths)
    files = [_place(path, root, years) for path in paths]
    _name_splits_by_folder(files)
    common = _common([file.folders for file in files])
    rests = {file.rest for file in files if file.split}
    configs: dict[str, dict[str, list[Path]]] = {}
    for file in files:
        rest = " ".join(file.rest)
        config = "/".join([*file.folders[common:], *([rest] if rest and file.split and len(rests) > 1 else [])])
        split = "trainval" if file.joined else file.split or rest or ALL
        configs.setdefault(config, {}).setdefault(split, []).append(file.path)
    return _one_config({name or "default": parts for name, parts in configs.items()}, root, subset)


@dataclass
class TableFile:
    """Hold what the path of a table file says.

    split: train, val or test, or another folder's name beside those of splits, or None.  above: the folders over the
    one that names the split.  folders: those that may tell configurations apart.  rest: the other words of its name.
    joined: whether the split is trainval.
    """

    path: Path
    split: str | None
    above: tuple[str, ...] | None
    folders: list[str]
    rest: tuple[str, ...]
    joined: bool


def _name_splits_by_folder(files: list[TableFile]) -> None:
    """Let folders beside `train/` and `test/` be splits too, such as `unsupervised/`."""
    places = {file.above for file in files if file.above is not None}
    for file in files:
        for place in places if file.split is None else ():
            depth = len(place)
            if tuple(file.folders[:depth]) == place and len(file.folders) > depth:
                file.split = file.folders.pop(depth)
                break


def _one_config(configs: dict, root: Path, subset: str) -> dict[str, list[Path]]:
    names = {name.lower(): name for name in configs}
    if len(configs) == 1:
        return next(iter(configs.values()))
    for asked in (subset.lower(), subset.lower().replace("_", " ").replace("-", " ")):
        if asked in names:
            return configs[names[asked]]
    raise DataError(
        f"{printable(root)}: expected one configuration, found {len(configs)}: {listed(sorted(configs))}; "
        "choose one with --data.subset, or name files with --data.split ./FILE and --data.test_split ./FILE"
    )


def _place(path: Path, root: Path, years: bool) -> TableFile:
    """Return what a table file's path says; years: its number is a year, not a shard's. Raises DataError."""
    stem = SHARD.sub("", path.stem)
    if not years:
        stem = re.sub(r"(?:[-_.]\d+)+$", "", stem)
        stem = re.sub(rf"(?i)(^|[^a-z])({'|'.join(SPLIT_WORDS)})\d+$", r"\1\2", stem)
    name, folders = read_name(stem), list(path.relative_to(root).parts[:-1])
    split, above, joined = name.split, None, "trainval" in name_words(stem)
    if split is None and len({SPLIT_WORDS[w] for w in words(stem) if w in SPLIT_WORDS}) > 1:
        raise DataError(
            f"{printable(path)}: expected a name with one split, found {printable(path.name)}; choose with "
            f"--data.split ./{printable(path.relative_to(root))} and --data.test_split"
        )
    if split is None:
        for i in reversed(range(len(folders))):
            named = read_name(folders[i])
            if named.split and not named.short:
                split, above, joined = named.split, tuple(folders[:i]), "trainval" in name_words(folders[i])
                folders[i] = " ".join(word for word in named.rest if word not in PLAIN_WORDS)
                break
    folders = [f for f in folders if f and "=" not in f and not _numbered(f)]
    rest = tuple(word for word in name.rest if word not in PLAIN_WORDS)
    rest = () if all(map(str.isdigit, rest)) and not years else rest
    return TableFile(path, split, above, folders, rest, joined)


def _numbered(folder: str) -> bool:
    """Return whether a folder is a numbered part, such as part_3, or says nothing, such as data."""
    letters = [word for word in words(folder) if not word.isdigit()]
    return bool(letters) and set(letters) <= PART_WORDS


def _are_years(paths: list[Path]) -> bool:
    """Return whether the files' numbers are years of several editions, rather than of shards."""
    found = [re.search(r"\d+$", path.stem) for path in paths if not SHARD.search(path.stem)]
    numbers = {match.group() for match in found if match}
    return len(numbers) > 1 and all(re.fullmatch(r"(19|20)\d\d", number) for number in numbers)


def _common(folders: list[list[str]]) -> int:
    """Return the number of leading folders that all have in common."""
    shortest = min(map(len, folders), default=0)
    return next((i for i in range(shortest) if len({f[i] for f in folders}) > 1), shortest)
