"""Folders of image files, with a subfolder per class or flat."""

import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np

from bigbigan.data.images import Images
from bigbigan.data.pictures import EXTENSIONS, open_picture
from bigbigan.errors import DataError
from bigbigan.files import check_inside, printable

log = logging.getLogger(__name__)


class Files:
    def __init__(self, paths: list[str]):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return open_picture(self.paths[i])

    def name(self, i):
        return printable(self.paths[i])


def from_files(folder: Path, follow_links: bool = False) -> Images:
    """Class folders, however deep, or a flat folder; hidden files and other extensions are left out."""
    found: list[tuple[str, str]] = []  # (class, path)
    odd: list[str] = []  # neither file nor folder: pipes, devices, links to nothing and to themselves
    _walk(str(folder), "", folder, follow_links, {os.path.realpath(folder)}, found, odd)
    if odd:
        log.warning("%s: %d that are no files left out, such as %s", printable(folder), len(odd), printable(odd[0]))
    if not found:
        raise DataError(
            f"{printable(folder)}: expected images ({', '.join(EXTENSIONS)}), found none in it or its subfolders"
        )
    names = sorted({top for top, _ in found})
    labelled = len(names) > 1 and "" not in names
    if len(names) > 2 and not labelled:
        loose = sum(not top for top, _ in found)
        log.warning(
            "%s: no labels, since %d images, such as %s, lie beside the %d folders; move them into one if the folders are classes",
            printable(folder), loose, printable(found[0][1]), len(names) - 1,
        )  # fmt: skip
    labels = np.asarray([names.index(top) for top, _ in found], dtype=np.int64) if labelled else None
    counts = Counter(os.path.splitext(path)[1].lower() for _, path in found)
    formats = ", ".join(f"{count:,} {extension}" for extension, count in counts.most_common())
    class_names = [printable(name) for name in names] if labelled else None
    return Images(Files([path for _, path in found]), labels, class_names, str(folder), formats)


def _walk(path: str, top: str, folder: Path, follow_links: bool, seen: set[str], found: list, odd: list) -> None:
    """Gather (class, path) of all images below `path`, its own before those of its folders. Raises Outside."""
    entries = sorted((e for e in os.scandir(path) if not e.name.startswith(".")), key=lambda e: e.name)
    for entry in entries:
        if os.path.splitext(entry.name)[1].lower() in EXTENSIONS and not _is_dir(entry):
            if entry.is_symlink() and not follow_links:
                check_inside(entry.path, folder)
            if entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path):
                found.append((top, entry.path))
            else:
                odd.append(entry.path)
    for entry in entries:
        if not _is_dir(entry):
            continue
        if entry.is_symlink():
            if not follow_links:
                check_inside(entry.path, folder)
                continue  # what lies inside is found there
            if os.path.realpath(entry.path) in seen:
                continue  # a loop
            seen.add(os.path.realpath(entry.path))
        _walk(entry.path, top or entry.name, folder, follow_links, seen, found, odd)


def _is_dir(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
