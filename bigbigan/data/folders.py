"""Read folders of image files in the layouts that `layout.py` describes."""

import functools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bigbigan.data import layout
from bigbigan.data.columns import classes_of, tally
from bigbigan.data.images import Found, Images, Request
from bigbigan.data.label_tables import groups_in_tables, read_label_tables, say_which_tables
from bigbigan.data.links import linked, real_paths, second_paths
from bigbigan.data.mask_folders import pictures, without_copies, without_mask_files
from bigbigan.data.metadata import Metadata, read_metadata
from bigbigan.data.pictures import EXTENSIONS, open_picture
from bigbigan.data.shards import are_bands, are_shards
from bigbigan.data.split_lists import part_of_list, parts_of_lists
from bigbigan.data.split_names import ALL, REST, TEST, VAL, choose_parts
from bigbigan.data.walk import INSTALL_HEIF, Census, Folder, Listing, walk
from bigbigan.errors import DataError
from bigbigan.files import counted, listed, paths_within, printable, state_of

log = logging.getLogger(__name__)

MANY = 8  # folders, from which on they are no classes if they hold fewer than two images each


def open_folder(request: Request) -> Found | None:
    """Return a split of a folder of image files, or None if the path is no folder. Raises DataError or Outside."""
    folder, where = request.location, printable(request.location)
    if not folder.is_dir():
        return None
    root, census = _walk(folder, request.follow_links, request.test, request.listing)
    root = without_copies(root, notes := [])
    metadata = _metadata(request, root, census)
    root = without_mask_files(root, notes)
    for phrase in notes if not request.test else ():
        log.warning("%s: left out: %s", where, phrase)
    groups = _groups(request, root, census)
    if request.by_path:
        part = _part_by_path(request, root, where)
        images = _Reader(folder, census, metadata, groups, [part], notes).images(part)
        _say_which_tables(request, images, census, root)
        return Found(images, whole=False)
    found = _read_layout(request, root, census, where)
    for phrase in found.left_out if not request.test else ():
        log.warning("%s: left out: %s", where, phrase)
    reader = _Reader(folder, census, metadata, groups, found.parts, notes + found.left_out)
    kinds = {part.name: part.split for part in found.parts}
    own, other, whole = choose_parts(request, kinds, reader.labelled, where)
    parts = {part.name: part for part in reader.parts}
    unused = [part for part in found.parts if part.name not in (own, other)]
    images = reader.images(parts[own], unused, None if request.test or own == other else parts.get(other))
    _say_which_tables(request, images, census, root)
    return Found(images, whole)


def _groups(request: Request, root: Folder, census: Census) -> dict[str, str]:
    """Return path of an image → its patient, or what else is asked for, as tables beside the images name it."""
    tables = [*(path for path in census.metadata if path.endswith((".csv", ".jsonl", ".parquet"))), *census.tables]
    asked, where = request.group_column, printable(request.location)
    if not (tables or asked):
        return {}
    kept = request.listing.groups
    if asked not in kept:
        kept[asked] = groups_in_tables(tables, set(pictures(root, [])), request.location, asked, where)
    return kept[asked]


def _say_which_tables(request: Request, images: Images, census: Census, root: Folder) -> None:
    """Log which tables name the images or their folders, if the user asked for no labels."""
    if not (request.label_column or request.test or census.metadata):
        labelled, where = images.labels is not None, printable(request.location)
        say_which_tables(census.tables, root, request.location, where, labelled)


def _part_by_path(request: Request, root: Folder, where: str) -> layout.Part:
    """Return the split that is a folder, or the images that a file lists. Raises DataError."""
    chosen, file = layout.find_folder(root, request.split), request.location / request.split
    if chosen is not None:
        return layout.Part(request.split, None, [("", chosen)], settled=True)
    if file.is_file():
        return part_of_list(root, file, request)
    raise DataError(
        f"{where}: expected {request.split} to be a folder with images in it, or a file that lists images, found none"
    )


def _read_layout(request: Request, root: Folder, census: Census, where: str) -> layout.Layout:
    """Return the splits that folders say or, where they say none, files that list images. Raises DataError."""
    found = layout.read_folder(root, request.train_split, request.subset, where)
    if len(found.parts) > 1 or request.train_split in (ALL, REST):
        return found
    only, top = found.parts[0], found.parts[0].folders[0][1]
    parts = parts_of_lists(top, census, request, where)
    if not parts:
        if only.split in (VAL, TEST) and not request.test:
            log.warning("%s: the only split is %s, so these images are trained on", where, only.paths())
        return found
    if unlisted := len(top) - sum(part.images for part in parts):
        found.left_out.append(f"{counted(unlisted)} in no split's list")
    return layout.Layout(parts, found.left_out)


def _metadata(request: Request, root: Folder, census: Census) -> Metadata:
    """Return the labels that metadata files give or, where these name no images, the column that is asked for."""
    column, where = request.label_column, printable(request.location)
    found = Metadata()
    if census.metadata:
        found = read_metadata(census.metadata, set(root.images()), column, where, request.group_column)
    if not column or found.folders:
        return found
    tables = [*(path for path in census.metadata if path.endswith(".csv")), *census.tables]
    images = set(pictures(root, []))  # masks have the names of their images
    return read_label_tables(tables, images, request.location, column, where, quiet=request.test)


def _walk(
    folder: Path, follow_links: bool, quiet: bool = False, listing: Listing | None = None
) -> tuple[Folder, Census]:
    """Return the folder's images; unless `quiet`, log what was left out that may hold images.

    Raises DataError, without a line in the log, if there are none: another reader may find some.
    """
    root, census = walk(folder, follow_links, listing)
    if not len(root):
        others = ", ".join(f"{n:,} {s}" for s, n in (census.other + census.unread).most_common(4))
        advice = INSTALL_HEIF if census.lacks_heif() else "save these images as PNG files, or unpack them"
        others += f"{', ' * bool(others)}{len(census.odd)} that are no files" if census.odd else ""
        but = f", but {others}; {advice}" if others else ""
        raise DataError(
            f"{printable(folder)}: expected images ({', '.join(EXTENSIONS)}), found none in it or its subfolders{but}"
        )
    for sentence in census.sentences() if not quiet else ():
        _say_what_is_left_out(printable(folder), sentence)
    return root, census


@functools.cache  # once for a process, which opens its data more than once
def _say_what_is_left_out(folder: str, what: str) -> None:
    log.warning("%s: left out: %s", folder, what)


class _Reader:
    """Turn the parts of one folder into images.

    groups: path of an image → what `_groups` found for it.  left_out: gets phrases for what is not taken.
    """

    def __init__(
        self,
        folder: Path,
        census: Census,
        metadata: Metadata,
        groups: dict[str, str],
        parts: list[layout.Part],
        left_out: list[str],
    ):
        self.folder, self.census, self.metadata, self.left_out = folder, census, metadata, left_out
        self.groups = groups
        self.where, self.parts = printable(folder), parts
        if metadata.column:
            self.parts = parts = [replace(part, settled=True) for part in parts]
        self.classes = layout.known_classes(parts, self.where)

    def known(self, part: layout.Part) -> set[str]:
        """Return the class folders of the other splits."""
        return set().union(*(names for name, names in self.classes.items() if name != part.name))

    def labelled(self, name: str) -> bool:
        """Return whether a split has labels: those of metadata, or class folders that another split has too."""
        part = next(part for part in self.parts if part.name == name)
        paths = [path for _, folder in part.folders for path in folder.images()]
        if self.metadata.column and any(self.metadata.covers(path) for path in paths):
            return all(self.metadata.labels.get(path) is not None for path in self._listed(paths))
        return bool(self.classes[name] & self.known(part))

    def images(self, part: layout.Part, unused: Sequence[layout.Part] = (), test: layout.Part | None = None) -> Images:
        """Return the images of a split with their labels. Raises DataError.

        unused: the splits that the run takes no images of.  test: the split of evaluation, None for this one; the files
        that links in it lead to are no training images.
        """
        notes = list(self.left_out)
        items = layout.items_of(part, self.known(part), notes, self.where)
        for phrase in notes[len(self.left_out) :]:
            if phrase.endswith(f"{layout.IF_CLASSES})"):
                _say_what_is_left_out(self.where, phrase)
        tops, paths = [top for top, _ in items], [path for _, path in items]
        listed = set(self._listed(paths))
        if len(listed) < len(paths) and (listed or not self.metadata.asked):
            without = [path for path in paths if path not in listed]
            notes.append(f"{counted(len(without))} that no metadata file names, such as {printable(without[0])}")
            log.warning("%s: left out: %s", self.where, notes[-1])
            tops = [top for top, path in items if path in listed]
            paths = [path for path in paths if path in listed]
        tops, paths = self._each_once(tops, paths, notes, test)
        labels, names = self._labels(tops, paths, part)
        notes += [f"{other.paths()} ({counted(other.images)} of another split)" for other in unused]
        notes += self.metadata.missing_lines()
        notes += [*self.census.sentences(), *self.census.quiet()]
        only = part.folders[0][1].path if len(part.folders) == 1 else str(self.folder)
        groups = np.array([self.groups.get(path, "") for path in paths], object) if self.groups else None
        items, source = Files(paths, self.folder), self._source(part)
        return Images(items, labels, names, only, "", source, tuple(notes), groups=groups)

    def _each_once(
        self, tops: list[str], paths: list[str], notes: list[str], test: layout.Part | None
    ) -> tuple[list[str], list[str]]:
        """Return the images without second paths of one file, by links, and without files of the test split."""
        if not linked(self.census):
            return tops, paths
        second, why = second_paths(paths, self.census), "second paths of the same files, by links"
        if test is not None:
            tested = {path for _, folder in test.folders for path in folder.images()}
            tested = set(real_paths(self._listed(list(tested)), self.census))
            real = real_paths(paths, self.census)
            common = {path for path, file in zip(paths, real, strict=True) if file in tested} - second
            second, why = second | common, why + (", or files of the test split" if common else "")
        if not second:
            return tops, paths
        if len(second) == len(paths):
            raise DataError(
                f"{self.where}: expected training images beside those of the test split, found links to the same "
                "files in both; name other ones with --data.split"
            )
        notes.append(f"{counted(len(second))} ({why}), such as {printable(min(second))}")
        _say_what_is_left_out(self.where, notes[-1])
        kept = [(top, path) for top, path in zip(tops, paths, strict=True) if path not in second]
        return [top for top, _ in kept], [path for _, path in kept]

    def _listed(self, paths: list[str]) -> list[str]:
        """Return the images that are taken: those that metadata name, and those that no metadata file covers.

        Where the user named the column, these are only those that are named, of a split that has one.
        """
        if not self.metadata.folders:
            return paths
        if self.metadata.asked and (named := [path for path in paths if path in self.metadata.labels]):
            return named
        return [path for path in paths if path in self.metadata.labels or not self.metadata.covers(path)]

    def _labels(
        self, tops: list[str], paths: list[str], part: layout.Part
    ) -> tuple[np.ndarray | None, list[str] | None]:
        """Return the labels that metadata give, else those of the class folders, else None; and the class names."""
        if self.metadata.column and any(path in self.metadata.labels for path in paths):
            values = [self.metadata.labels.get(path) for path in paths]
            try:
                everywhere = [tally(list(self.metadata.labels.values()))]
                return classes_of(values, None, self.metadata.column, self.where, self.metadata.asked, everywhere)
            except DataError as error:
                if self.metadata.asked:
                    raise
                log.warning("%s; no labels are taken", error)
                return None, None
        names = sorted(set(tops))
        if not part.certain and (why := self._why_no_classes(names, tops, paths, self.known(part))):
            log.warning("%s: no labels, since %s; if the folders are classes: --data.split all", self.where, why)
            return None, None
        if "" in names and len(names) > 2:
            loose = [path for top, path in zip(tops, paths, strict=True) if not top]
            log.warning(
                "%s: no labels, since %d images, such as %s, lie beside the %d folders; "
                "if the folders are classes, move these images into the folder of their class, or out of here",
                self.where, len(loose), printable(loose[0]), len(names) - 1,
            )  # fmt: skip
        if "" in names or not (len(names) > 1 or set(names) & self.known(part)):
            return None, None
        number = {name: i for i, name in enumerate(names)}
        return np.asarray([number[top] for top in tops], dtype=np.int64), [printable(name) for name in names]

    def _why_no_classes(self, names: list[str], tops: list[str], paths: list[str], known: set[str]) -> str:
        """Return why folders are no classes, "" if they may be. known: the classes of the other splits."""
        if len(names) >= MANY and len(names) > len(paths) / 2 and not set(names) & known:
            return f"{len(names):,} folders hold {len(paths):,} images, as those of patients or scenes do"
        if layout.are_dates(names):
            return f"the {len(names)} folders, such as {printable(names[0])}, are named by dates"
        places = zip(tops, (os.path.basename(os.path.dirname(path)) for path in paths), strict=True)
        if layout.are_editions(names) and not set(names) & known and any(top != place for top, place in places):
            return f"the {len(names)} folders, such as {printable(names[0])}, are named by years"
        if layout.are_folds(names) and not set(names) & known:
            return f"the {len(names)} folders, such as {printable(names[0])}, are named as folds"
        several = layout.are_patients(names) or layout.are_patients([*names, *known])  # a test split may have few
        if several and not set(names) & known:
            return f"the {len(names)} folders, such as {printable(names[0])}, are named by the numbers of patients"
        named = self.groups and all(self.groups.get(path) == top for top, path in zip(tops, paths, strict=True))
        if named and not set(names) & known:
            return f"the {len(names)} folders, such as {printable(names[0])}, are the patients or groups of a table"
        if are_bands(tops, paths):
            return "the images are single bands of satellite images; save the three to see of each as one picture"
        if are_shards(tops, paths):
            first = printable(names[0])
            return f"the names of the images say in which of the {len(names)} folders, such as {first}, they lie"
        return ""

    def _source(self, part: layout.Part) -> str:
        """Return the folders of a split relative to the data set's, for the start of a run."""
        if part.lists:
            return printable(part.lists)
        found = [os.path.relpath(folder.path, self.folder) + "/" for _, folder in part.folders]
        return "" if found == ["./"] else listed(found)


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

    def source(self, i) -> str:
        """Return the path of image i."""
        return self.paths[i]

    def name(self, i):
        return printable(self.paths[i])

    def suffixes(self):
        return [os.path.splitext(path)[1].lower() for path in self.paths]

    def keys(self, indices) -> Iterator[bytes]:
        """Yield the images' paths within the data set."""
        return paths_within(self.folder, (self.paths[i] for i in indices))

    def relative_paths(self, indices) -> Iterator[str]:
        """Yield the images' paths within the data set, printable."""
        return map(printable, self.keys(indices))

    def files(self, indices) -> tuple[list[tuple[bytes, str]], bytes]:
        """Return the images' paths within the data set, each with its state."""
        paths = [self.paths[i] for i in indices]
        return list(zip(paths_within(self.folder, paths), map(state_of, paths), strict=True)), b""


def image_paths(folder: Path, follow_links: bool = False) -> list[str]:
    """Return the paths of all images in a folder and below, whatever split or class. Raises DataError or Outside."""
    return list(_walk(folder, follow_links)[0].images())
