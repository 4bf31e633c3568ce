"""Read folders of image files: flat, with a subfolder for each class, or with `train/` and `val/` above these."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bigbigan.data.images import Found, Images, Request
from bigbigan.data.pictures import EXTENSIONS, open_picture
from bigbigan.data.splits import TEST_NAMES, TRAIN_NAMES, pick_split
from bigbigan.errors import DataError
from bigbigan.files import check_inside, path_within, printable, state_of

log = logging.getLogger(__name__)


def open_folder(request: Request) -> Found | None:
    """Return a split of a folder of image files, or None if the path is no folder. Raises DataError or Outside."""
    folder, follow_links = request.location, request.follow_links
    if not folder.is_dir():
        return None
    children = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    splits = [name for name in children if name in TRAIN_NAMES + TEST_NAMES]
    if not any(name in TRAIN_NAMES for name in splits):
        return Found(from_files(folder, follow_links), whole=True)
    choose = not request.test or len(splits) > 1
    wanted = children[pick_split(request.split, splits, folder) if choose else splits[0]]
    if not follow_links:
        check_inside(wanted, folder)
    return Found(from_files(wanted, follow_links), whole=len(splits) == 1)


class Files:
    """Serve image files by their paths.

    folder: the data set's own folder, in which all paths begin.
    """

    def __init__(self, paths: list[str], folder: str | os.PathLike):
        self.paths, self.folder = paths, str(folder)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return open_picture(self.paths[i])

    def name(self, i):
        return printable(self.paths[i])

    def keys(self, indices) -> Iterator[bytes]:
        """Yield the images' paths within the data set."""
        return (path_within(self.folder, self.paths[i]) for i in indices)

    def files(self, indices) -> tuple[list[tuple[bytes, str]], bytes]:
        """Return the images' paths within the data set, each with its state."""
        return [(path_within(self.folder, self.paths[i]), state_of(self.paths[i])) for i in indices], b""


def from_files(folder: Path, follow_links: bool = False) -> Images:
    """Return the images of a flat folder, or of class folders at any depth. Raises DataError or Outside.

    The classes are the folders directly in `folder`. Hidden files and files with other extensions are left out.
    """
    walk = _Walk(folder, follow_links)
    walk.visit(str(folder), "")
    found, odd = walk.found, walk.odd
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
            "%s: no labels, since %d images, such as %s, lie beside the %d folders; "
            "move them into one if the folders are classes",
            printable(folder), loose, printable(found[0][1]), len(names) - 1,
        )  # fmt: skip
    labels = np.asarray([names.index(top) for top, _ in found], dtype=np.int64) if labelled else None
    counts = Counter(os.path.splitext(path)[1].lower() for _, path in found)
    formats = ", ".join(f"{count:,} {extension}" for extension, count in counts.most_common())
    class_names = [printable(name) for name in names] if labelled else None
    return Images(Files([path for _, path in found], folder), labels, class_names, str(folder), formats)


class _Walk:
    """Gather the images below a folder.

    found: [(class, path)] of all images.  odd: paths with an image's extension that are no files: pipes, devices,
    broken links.
    """

    def __init__(self, folder: Path, follow_links: bool):
        self.folder, self.follow_links = folder, follow_links
        self.visited = {os.path.realpath(folder)}  # where links have led to
        self.found: list[tuple[str, str]] = []
        self.odd: list[str] = []

    def visit(self, path: str, top: str) -> None:
        """Gather the images of the folder `path`, then those of its subfolders. Raises Outside.

        top: the class folder that `path` lies in, "" for the data set's own folder.
        """
        entries = sorted((e for e in os.scandir(path) if not e.name.startswith(".")), key=lambda e: e.name)
        for entry in entries:
            if os.path.splitext(entry.name)[1].lower() in EXTENSIONS and not _is_dir(entry):
                self._add(entry, top)
        for entry in entries:
            if _is_dir(entry) and self._may_enter(entry):
                self.visit(entry.path, top or entry.name)

    def _add(self, entry: os.DirEntry, top: str) -> None:
        if entry.is_symlink() and not self.follow_links:
            check_inside(entry.path, self.folder)
        if entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path):
            self.found.append((top, entry.path))
        else:
            self.odd.append(entry.path)

    def _may_enter(self, entry: os.DirEntry) -> bool:
        if not entry.is_symlink():
            return True
        if not self.follow_links:
            check_inside(entry.path, self.folder)
            return False  # it leads to a folder inside, where its images are found anyway
        target = os.path.realpath(entry.path)
        if target in self.visited:
            return False  # links in a loop
        self.visited.add(target)
        return True


def _is_dir(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
