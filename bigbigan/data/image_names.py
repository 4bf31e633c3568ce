"""Find the image that a line of a table or list names: `ISIC_0024306`, `ISIC_0024306.jpg` or `part_1/ISIC_0024306`."""

import os
from collections.abc import Iterable
from pathlib import Path

from bigbigan.data.pictures import EXTENSIONS
from bigbigan.data.split_names import read_name

FILMS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv")  # whose frames a folder may hold


def is_image_name(name: str) -> bool:
    """Return whether a name ends as the files of images do."""
    return os.path.splitext(name.strip())[1].lower() in EXTENSIONS


class ImageNames:
    """Hold what may name each image of a folder: its path or the end of its path, with or without the suffix.

    paths: of the images.  folder: the data set's own, in which they begin.
    """

    def __init__(self, paths: Iterable[str], folder: Path):
        self.folder, self._within = str(folder), len(str(folder)) + 1
        self.count, self.folders = 0, set()  # of the images; the folders that they lie in, by all ends of their paths
        seen: set[str] = set()
        self._known: dict[str, str | list[str]] = {}  # what names an image → its path, or those of several
        for path in paths:
            rest = path[self._within :].replace(os.sep, "/")
            self.count += 1
            if (above := rest.rpartition("/")[0]) not in seen:
                seen.add(above)
                parts = above.split("/")
                self.folders.update("/".join(parts[i:k]) for k in range(len(parts) + 1) for i in range(k))
            suffix = len(os.path.splitext(rest)[1])
            while rest:
                self._add(rest, path)
                if suffix:
                    self._add(rest[:-suffix], path)
                rest = rest.partition("/")[2]

    def _add(self, name: str, path: str) -> None:
        before = self._known.setdefault(name, path)
        if isinstance(before, list):
            before.append(path)
        elif before is not path:
            self._known[name] = [before, path]

    def of(self, table: str) -> "NamesIn":
        """Return what the images are called in a table or list, whose place tells images of one name apart."""
        return NamesIn(self, table)

    def find(self, name: str, near: "NamesIn | None" = None) -> str | None:
        """Return the path of the image that a name stands for; None if it names none or several.

        Folders that the name begins with need not be there: `/home/me/data/cat/1.jpg` is also found as `cat/1.jpg`.
        Images may have been converted since: `1.tif` is also found as `1.png`.
        """
        found = self.all_of(name)
        if len(found) == 1:
            return found[0]
        return near.choose(found, name) if found and near else None

    def all_of(self, name: str) -> list[str]:
        """Return the paths of all images that a name may stand for; see `find`."""
        rest = _with_slashes(name)
        while rest:
            stem, suffix = os.path.splitext(rest)
            for known in (rest, stem) if suffix.lower() in EXTENSIONS else (rest,):
                if (found := self._known.get(known)) is not None:
                    return [found] if isinstance(found, str) else found
            rest = rest.partition("/")[2]
        return []

    def find_folder(self, name: str) -> str:
        """Return the end of a folder's path that a name stands for: of `dance`, `films/dance`, `dance.mp4`; or ""."""
        rest = _with_slashes(name).rstrip("/")
        while rest:
            stem, suffix = os.path.splitext(rest)
            for known in (rest, stem) if suffix.lower() in FILMS else (rest,):
                if known in self.folders:
                    return known
            rest = rest.partition("/")[2]
        return ""


def _with_slashes(name: str) -> str:
    return name.strip().replace("\\", "/").removeprefix("./").lstrip("/")


class NamesIn:
    """Find images by their names in one table.

    Of several images of a name it is the one in the table's own folder or, going up, in a folder above it, before those
    in folders below; or the only one in a folder of the split that the table's name says (`trainLabels.csv`,
    `train/1.png`).
    """

    def __init__(self, names: ImageNames, table: str):
        self.names, self.split = names, read_name(Path(table).stem).split
        above = os.path.dirname(table)
        self.folders = []
        while len(above) > len(names.folder):
            self.folders.append(above + os.sep)
            above = os.path.dirname(above)

    def find(self, name: str) -> str | None:
        """Return the path of the image that a name stands for; None if it names none or several."""
        return self.names.find(name, self)

    def choose(self, paths: list[str], name: str) -> str | None:
        """Return the only one of several images that can be meant by a name, else None."""
        rest = _with_slashes(name)
        stem = os.path.splitext(rest)[0] if is_image_name(rest) else rest
        for folder in (*self.folders, self.names.folder + os.sep):
            if inside := [path for path in paths if path.startswith(folder)]:
                whole = folder + stem.replace("/", os.sep)
                exact = [path for path in inside if path == whole or os.path.splitext(path)[0] == whole]
                chosen = exact or inside
                if len(chosen) == 1 or folder in self.folders:
                    return chosen[0] if len(chosen) == 1 else None
        inside = [path for path in paths if self.split and self.split in self._splits(path)]
        return inside[0] if len(inside) == 1 else None

    def _splits(self, path: str) -> set[str | None]:
        return {read_name(part).split for part in os.path.dirname(path[len(self.names.folder) + 1 :]).split(os.sep)}
