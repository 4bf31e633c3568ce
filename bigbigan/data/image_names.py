"""Find the image that a line of a table or list names: `ISIC_0024306`, `ISIC_0024306.jpg` or `part_1/ISIC_0024306`."""

import os
from collections.abc import Iterable
from pathlib import Path

from bigbigan.data.pictures import EXTENSIONS


class ImageNames:
    """Hold what may name each image of a folder: its path or the end of its path, with or without the suffix.

    paths: of the images.  folder: the data set's own, in which they begin.
    """

    def __init__(self, paths: Iterable[str], folder: Path):
        self._known: dict[str, str | None] = {}  # what names an image → its path, None for what names several
        known, within = self._known, len(str(folder)) + 1
        for path in paths:
            rest = path[within:].replace(os.sep, "/")
            suffix = len(os.path.splitext(rest)[1])
            while rest:
                known[rest] = None if rest in known else path
                if suffix:
                    known[stem] = None if (stem := rest[:-suffix]) in known else path
                rest = rest.partition("/")[2]

    def find(self, name: str) -> str | None:
        """Return the path of the image that a name stands for; None if it names none or several.

        Folders that the name begins with need not be there: `/home/me/data/cat/1.jpg` is also found as `cat/1.jpg`.
        Images may have been converted since: `1.tif` is also found as `1.png`.
        """
        rest = name.strip().replace("\\", "/").removeprefix("./").lstrip("/")
        while rest:
            stem, suffix = os.path.splitext(rest)
            for known in (rest, stem) if suffix.lower() in EXTENSIONS else (rest,):
                if known in self._known:
                    return self._known[known]
            rest = rest.partition("/")[2]
        return None
