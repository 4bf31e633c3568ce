"""Walk through a folder, gather its image files, and count every file that is not taken.

What is an image file: one with a suffix of `pictures.EXTENSIONS` in any case; or one whose suffix is missing or
unknown and whose first bytes are those of an image format. System folders, hidden files and thumbnail caches are not
entered. What is not taken is counted by its reason, and images among them are reported.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from bigbigan.data.pictures import EXTENSIONS, HEIF, HEIF_EXTENSIONS
from bigbigan.errors import Outside
from bigbigan.files import check_inside, printable

# Folders that file servers, desktops and archivers add, in lower case; names that begin with a dot are hidden anyway.
SYSTEM_FOLDERS = {
    "__macosx", "@eadir", "@tmp", "@recycle", "@recently-snapshot", "@synoresource", "#recycle", "#snapshot",
    "~snapshot", "$recycle.bin", "recycler", "system volume information", "lost+found", "__pycache__",
    "network trash folder", "temporary items", "thumbnails", "_thumbnails", "_thumbs", "_vti_cnf",
}  # fmt: skip
# Image formats that this library does not decode: a folder of these is a mistake to report, not an empty folder.
OTHER_IMAGES = {
    ".dcm", ".dicom", ".nii", ".svg", ".psd", ".tga", ".ico", ".exr", ".hdr", ".raw", ".dng", ".nef", ".cr2", ".cr3",
    ".arw", ".orf", ".rw2", ".raf", ".jxl", ".jxr", ".eps", ".ai", ".fits", ".fit", ".pcx", ".sgi", ".xcf", ".czi",
    ".pfm", ".npy", ".npz",
}  # fmt: skip
# Suffixes whose files are not opened to see whether they hold an image.
KNOWN_SUFFIXES = {
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".rst", ".html", ".htm", ".css", ".js",
    ".py", ".ipynb", ".sh", ".m", ".mat", ".pkl", ".pt", ".pth", ".h5", ".hdf5", ".safetensors", ".parquet", ".arrow",
    ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".db", ".ini", ".log", ".lock", ".pdf", ".mp4",
    ".avi", ".mov", ".mkv", ".wav", ".mp3", ".doc", ".docx", ".xls", ".xlsx", ".bak", ".tmp", ".part", ".crdownload",
    ".old", ".orig", ".swp",
}  # fmt: skip
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"}
# Suffixes in the two cases that nearly all files have, so that these are recognised without a call.
USUAL = {*EXTENSIONS, *map(str.upper, EXTENSIONS)}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "val_annotations.txt", "dataset.json")


ENTER = "; --data.follow_links True enters such links"
INSTALL_HEIF = "install bigbigan[heif] (pillow-heif) to read HEIC"


@dataclass
class Folder:
    """Hold a folder with an image in it or below. files: images directly in it.  folders: those with one below."""

    name: str
    path: str
    files: list[str] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)

    def images(self) -> Iterator[str]:
        """Yield the paths of all images in it and below: its own, then those of its subfolders, each by name."""
        yield from self.files
        for folder in self.folders:
            yield from folder.images()

    def __len__(self) -> int:
        return len(self.files) + sum(map(len, self.folders))


def merge(folder: Folder, parts: list[Folder]) -> Folder:
    """Return one folder with the images of all parts; subfolders of one name are joined."""
    joined: dict[str, list[Folder]] = {}
    for part in parts:
        for child in part.folders:
            joined.setdefault(child.name, []).append(child)
    children = [same[0] if len(same) == 1 else merge(same[0], same) for _, same in sorted(joined.items())]
    return Folder(folder.name, folder.path, [path for part in parts for path in part.files], children)


@dataclass
class Census:
    """Count what a walk did not take.

    hidden: images in hidden files and system folders.  unread: image files of formats that are not decoded, by suffix.
    other: further files, by suffix.  odd: paths with an image's suffix that are no files (pipes, broken links).
    empty: folders without an image in them or below.
    skipped: links to folders that are not entered.  advice: how to enter them, "" for those of a loop.
    links: image files that are links → the real path of the file in the same folder that they lead to.
    entered: whether a link to a folder was entered.
    metadata: files named as in METADATA.  tables: other .csv, .tsv and .txt files, which are counted in `other` too.
    """

    hidden: int = 0
    unread: Counter = field(default_factory=Counter)
    other: Counter = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    advice: str = ""
    links: dict[str, str] = field(default_factory=dict)
    entered: bool = False
    metadata: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    def lacks_heif(self) -> bool:
        """Return whether there are HEIC files, and nothing installed that reads them."""
        return not HEIF and any(suffix in HEIF_EXTENSIONS for suffix in self.unread)

    def sentences(self) -> list[str]:
        """Return one short phrase for each kind of thing that was left out and holds, or may hold, images."""
        found = []
        if self.odd:
            found.append(f"{len(self.odd)} that are no files, such as {printable(self.odd[0])}")
        if self.skipped:
            links = "1 link to a folder" if len(self.skipped) == 1 else f"{len(self.skipped):,} links to folders"
            found.append(f"{links} whose images are found elsewhere, such as {printable(self.skipped[0])}{self.advice}")
        if self.unread:
            advice = INSTALL_HEIF if self.lacks_heif() else "convert them to PNG"
            found.append(f"{_listed(self.unread)}, which this library does not read; {advice}")
        if archives := self.archives():
            found.append(f"{_listed(archives)}; unpack them if they hold images")
        if self.empty:
            folders = "1 folder" if len(self.empty) == 1 else f"{len(self.empty)} folders"
            found.append(f"{folders} without a readable image, such as {printable(self.empty[0])}")
        return found

    def quiet(self) -> list[str]:
        """Return phrases for the start of a run about files that nobody expects among the images."""
        hidden = [f"{self.hidden:,} in hidden files and system folders"] if self.hidden else []
        other = self.other - self.archives()
        return hidden + ([f"{_listed(other)} (no images)"] if other else [])

    def archives(self) -> Counter:
        """Return the packed files by suffix."""
        return Counter({suffix: count for suffix, count in self.other.items() if suffix in ARCHIVES})


def _listed(counts: Counter) -> str:
    shown = [f"{count:,} {printable(suffix)}" for suffix, count in counts.most_common(4)]
    more = sum(counts.values()) - sum(count for _, count in counts.most_common(4))
    return ", ".join([*shown, f"{more:,} of other suffixes"] if more else shown)


class Listing:
    """Keep what folders hold, so that the readers of one data set list each of them once.

    walks: what `walk` found, by its folder and `follow_links`.  lists: what `split_lists` found, by its folder.
    groups: what tables say of the groups of images, by the column that was asked for.
    """

    def __init__(self):
        self.scanned: dict[str, tuple[list[str], list[os.DirEntry]]] = {}
        self.walks: dict[tuple[str, bool], tuple[Folder, Census]] = {}
        self.lists: dict[str, list] = {}
        self.groups: dict[str, dict[str, str]] = {}

    def scan(self, path: str) -> tuple[list[str], list[os.DirEntry]]:
        """Return the paths of the plain image files in a folder, and all else in it, both by name. Raises OSError.

        Plain are files, not links, with a usual suffix and a name that does not begin with a dot.
        """
        if path not in self.scanned:
            images, others = [], []
            with os.scandir(path) as entries:
                for entry in entries:
                    name = entry.name
                    if name[name.rfind(".") :] in USUAL and name[0] != "." and entry.is_file(follow_symlinks=False):
                        images.append(entry.path)
                    else:
                        others.append(entry)
            self.scanned[path] = sorted(images), sorted(others, key=attrgetter("name"))
        return self.scanned[path]

    def files_with(self, suffixes: tuple[str, ...], path: str) -> list[Path]:
        """Return the files below a folder with one of the suffixes; without entering links and unreadable folders."""
        try:
            _, others = self.scan(path)
        except OSError:
            return []
        found = [Path(e.path) for e in others if e.name.endswith(suffixes) and not _is_dir(e)]
        for entry in [e for e in others if e.is_dir(follow_symlinks=False)]:
            found += self.files_with(suffixes, entry.path)
        return found


def walk(folder: Path, follow_links: bool = False, listing: Listing | None = None) -> tuple[Folder, Census]:
    """Return all images below `folder` and a count of what was not taken. Raises Outside or OSError.

    follow_links: enter links that lead out of the folder; otherwise these raise Outside.
    listing: what is known of the folder already, and gets to know what is found.
    """
    listing, key = Listing() if listing is None else listing, (str(folder), follow_links)
    if key not in listing.walks:
        walker = _Walk(folder, follow_links, listing)
        listing.walks[key] = walker.visit(str(folder), folder.name), walker.census
    return listing.walks[key]


class _Walk:
    """Walk once. visited: the real paths that links have led to.  linked: those entered through a link inside."""

    def __init__(self, folder: Path, follow_links: bool, listing: Listing):
        self.root, self.follow_links, self.scan = folder, follow_links, listing.scan
        self.visited = {os.path.realpath(folder)}
        self.linked: set[str] = set()
        self.census = Census()
        self.real_root = os.path.realpath(folder)

    def visit(self, path: str, name: str) -> Folder:
        """Return the folder `path` with its images and those of its subfolders, both by name. Raises Outside."""
        found = Folder(name, path)
        found.files, others = self.scan(path)
        inside = [e for e in others if _is_dir(e)]
        if files := [e for e in others if not _is_dir(e)]:
            found.files = list(found.files)
            for entry in files:
                self._add(entry, found)
            found.files.sort()
        for entry in sorted(inside, key=lambda e: not e.is_symlink()) if path == str(self.root) else inside:
            if is_system(entry.name):
                self.census.hidden += _count_hidden(entry)
            elif self._may_enter(entry, top=path == str(self.root)):
                before = len(self.census.empty)
                child = self.visit(entry.path, entry.name)
                if len(child):
                    found.folders.append(child)
                else:
                    self.census.empty[before:] = [entry.path]  # in the place of the folders in it
        found.folders.sort(key=lambda child: child.name)
        return found

    def _add(self, entry: os.DirEntry, found: Folder) -> None:
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            self.census.hidden += suffix in EXTENSIONS
        elif suffix in EXTENSIONS:
            if self._is_file(entry):
                self._add_image(entry, found)
            else:
                self.census.odd.append(entry.path)
        elif entry.name in METADATA and self._is_file(entry):
            self.census.metadata.append(entry.path)
        elif suffix in OTHER_IMAGES or suffix in HEIF_EXTENSIONS:
            self.census.unread[suffix] += 1
        elif suffix not in KNOWN_SUFFIXES and self._may_open(entry) and begins_as_image(entry.path):
            self._add_image(entry, found)
        else:
            self.census.other[suffix or "without a suffix"] += 1
            if suffix in (".csv", ".tsv", ".txt") and self._may_open(entry):
                self.census.tables.append(entry.path)

    def _add_image(self, entry: os.DirEntry, found: Folder) -> None:
        found.files.append(entry.path)
        if entry.is_symlink() and (real := os.path.realpath(entry.path)).startswith(self.real_root + os.sep):
            self.census.links[entry.path] = real

    def _is_file(self, entry: os.DirEntry) -> bool:
        if entry.is_symlink() and not self.follow_links:
            check_inside(entry.path, self.root)
        return entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path)

    def _may_open(self, entry: os.DirEntry) -> bool:
        try:
            return self._is_file(entry)
        except Outside:  # a link without an image's suffix need not be an image
            return False

    def _may_enter(self, entry: os.DirEntry, top: bool) -> bool:
        """Return whether the folder is still to be visited.

        A link to a folder inside is skipped, since its images are found there; but at the top a link such as
        `train` names the folder, so the link is entered and the folder behind it is not.
        """
        if not entry.is_symlink():
            return not self.linked or os.path.realpath(entry.path) not in self.linked
        target = os.path.realpath(entry.path)
        if not self.follow_links:
            check_inside(entry.path, self.root)
            loop = Path(self.real_root).is_relative_to(target)
            if not top or target in self.linked or loop:
                self.census.skipped.append(entry.path)
                self.census.advice = self.census.advice if loop else ENTER
                return False
            self.linked.add(target)
            return True
        if target in self.visited:  # links in a loop
            self.census.skipped.append(entry.path)
            return False
        self.visited.add(target)
        self.census.entered = True
        return True


def is_system(name: str) -> bool:
    """Return whether a folder is hidden or one that a file server, a desktop or an archiver adds."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


def begins_as_image(path: str) -> bool:
    """Return whether a file can be opened and begins as an image file does."""
    try:
        with open(path, "rb") as file:
            return is_image(file.read(16))
    except OSError:
        return False


def is_image(head: bytes) -> bool:
    """Return whether the first 16 bytes of a file are those of an image format that this library decodes."""
    return (
        head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"))
        or (head[:2] == b"BM" and head[6:10] == b"\0\0\0\0")
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b"\n\r \t" and len(head) > 8)
        or head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"))
        or (head[4:8] == b"ftyp" and (head[8:12] in (b"avif", b"avis") or (HEIF and head[8:12] in HEIF_BRANDS)))
    )


def _count_hidden(entry: os.DirEntry) -> int:
    if entry.is_symlink():
        return 0
    return sum(os.path.splitext(name)[1].lower() in EXTENSIONS for _, _, names in os.walk(entry.path) for name in names)


def _is_dir(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
