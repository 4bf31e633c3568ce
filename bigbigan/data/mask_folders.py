"""Tell images from the masks, annotations and copies that lie beside them, by the names of folders and files."""

import filecmp
import operator
import os
import re
from pathlib import Path

from bigbigan.data.columns import MASK_WORDS, is_mask, words
from bigbigan.data.images import spread
from bigbigan.data.split_names import PLAIN_WORDS, read_name
from bigbigan.data.walk import Folder, merge
from bigbigan.files import counted, printable

IMAGE_WORDS = {
    "image", "images", "img", "imgs", "pictures", "photos", "jpegimages", "input", "inputs", "rgb", "frames",
    "original", "originals", "jpg", "jpeg", "png",
}  # fmt: skip
SURE_IMAGES = {"image", "images", "img", "imgs", "jpegimages"}  # which name no class
# Words of folders that hold the same things seen otherwise: at another time, from another side, by another sensor.
VIEW_WORDS = IMAGE_WORDS | {
    "before", "after", "pre", "post", "left", "right", "first", "second", "old", "new", "past", "present", "time",
    "view", "event", "disaster", "date", "visible", "vis", "infrared", "ir", "nir", "thermal", "tir", "red", "green",
    "blue", "sar", "optical", "photo",
}  # fmt: skip
# Words that name what is drawn after an image and can hardly name a class; and those that can, unless they come last.
DRAWN_WORDS = {"gt", "groundtruth", "truth", "annotation", "annotations", "annot", "trimap", "trimaps", "bboxes"}
DRAWN_WORDS |= {"seg", "segmentation", "segmentations", "semantic"}
CLASS_WORDS = {"edge", "edges", "depth", "alpha", "overlay"}
LAST_WORD = re.compile(r"[-_. ]+\(?([A-Za-z]+)\)?$")
MAYBE_MASK = re.compile(rf"(?i)[-_. ](\w*[-_. ])?({'|'.join(sorted(MASK_WORDS))})[^/]*$")
NO_IMAGES = re.compile(r"(?i)(no|non|not|without)[-_. ]*(image|img)")  # the other class of a pair
LOOKED_AT = 8  # files by which folders are compared


def pictures(folder: Folder, left_out: list[str]) -> list[str]:
    """Return the images in a folder and below, without those in folders of masks beside folders of images."""
    kept = without_mask_folders(folder.folders, left_out, folder.name, "")
    folders = folder.folders if kept is None else kept
    return [*folder.files, *(path for child in folders for path in pictures(child, left_out))]


def without_mask_folders(
    folders: list[Folder], left_out: list[str], above: str, doubt: str | None
) -> list[Folder] | None:
    """Return the folders of images where the others, by their names, hold masks; None where that is not so.

    doubt: what to add to the phrase for masks beside folders that no word calls images; None takes these for no masks.
    left_out: gets the phrases.  above: the name of the folder that they lie in.
    """
    masks = [f for f in folders if is_mask(f.name)]
    pictures = [f for f in folders if not is_mask(f.name) and set(words(f.name)) & IMAGE_WORDS]
    others = [f for f in folders if f not in masks and f not in pictures]
    place = f"{printable(above)}/" if above else ""
    if doubt is not None and not masks and (found := _images_and_copies(folders)):
        pictures, copies = found
        named = " and ".join(f"{place}{printable(f.name)}/" for f in copies)
        count = counted(sum(map(len, copies)))
        left_out.append(f"{named} ({count} of the same names as those of {printable(pictures.name)}/{doubt})")
        return [pictures]
    if masks and not pictures and doubt is not None and _are_drawn_after(masks, others):
        named, seen = (" and ".join(f"{place}{printable(f.name)}/" for f in some) for some in (masks, others))
        left_out.append(f"{named} ({sum(map(len, masks)):,} masks or the like of {seen}, by their names{doubt})")
        return [others[0] if len(others) == 1 else merge(others[0], others)]
    if not masks or not pictures or (others and len(pictures) > 1):
        return None
    left_out.extend(f"{place}{printable(f.name)}/ ({len(f):,} masks or the like, by its name)" for f in masks)
    left_out.extend(f"{place}{printable(f.name)}/ ({counted(len(f))}, beside those and masks)" for f in others)
    return pictures


def _images_and_copies(folders: list[Folder]) -> tuple[Folder, list[Folder]] | None:
    """Return the folder `images` and those beside it, if all of these hold files of its names alone; else None."""
    pictures = [f for f in folders if set(words(f.name)) & SURE_IMAGES and read_name(f.name).plain]
    others = [f for f in folders if f not in pictures]
    if len(pictures) != 1 or not others or any(NO_IMAGES.match(f.name) for f in others):
        return None
    stem = lambda f, path: os.path.splitext(path[len(f.path) :])[0]  # noqa: E731
    names = {stem(pictures[0], path) for path in pictures[0].images()}
    drawn = all(not names.isdisjoint(_with_less(stem(f, path))) for f in others for path in f.images())
    return (pictures[0], others) if drawn else None


def _with_less(stem: str) -> list[str]:
    """Return a name and what is left of it without its last word: 1_post_target, 1_post."""
    return [stem, LAST_WORD.sub("", stem)]


def _are_drawn_after(masks: list[Folder], others: list[Folder]) -> bool:
    """Return whether flat folders hold files of the same names: views of the same things, and masks (A, B, label).

    Classes may have files of the same names too. They are told by names such as Edge-Ring, by a pair of the kind of
    mask and nomask, and by several folders whose names are no views: Center, Donut, Edge.
    """
    stems = [{Path(path).stem for path in folder.files} for folder in (*masks, *others)]
    flat = not any(folder.folders for folder in (*masks, *others))
    if not (flat and len(masks) < len(stems) and all(stems) and all(one == stems[0] for one in stems)):
        return False
    found = [words(f.name) for f in masks]
    denied = re.compile(
        rf"(?i)(no|non|un|not|without)[-_. ]*({'|'.join(word for name in found for word in name)})(ed)?"
    )
    if any(denied.fullmatch(f.name) for f in others) or any(map(_names_a_class, found)):
        return False
    return len(others) == 1 or all(DRAWN_WORDS & set(name) for name in found) or all(_is_view(f.name) for f in others)


def _names_a_class(name: list[str]) -> bool:
    """Return whether the words of a name with a word for masks are rather those of a class: edge ring."""
    saying = [word for word in name if word not in PLAIN_WORDS | {"map", "maps"} and not word.isdigit()]
    return set(saying) & MASK_WORDS <= CLASS_WORDS and saying[-1] not in MASK_WORDS


def _is_view(name: str) -> bool:
    """Return whether a name is one of several views of the same things: A, t1, im2, before."""
    return all(word.isdigit() or len(word) < 3 or word in VIEW_WORDS for word in words(name))


def without_mask_files(folder: Folder, left_out: list[str]) -> Folder:
    """Return the folder without the masks that lie beside their images: `1_mask.png` beside `1.jpg` or `1_sat.jpg`.

    left_out: gets one phrase for all of them, with the first.
    """
    found: list[str] = []
    kept = _without_mask_files(folder, found)
    if found:
        left_out.append(f"{len(found):,} masks or the like beside their images, such as {printable(found[0])}")
    return kept if found else folder


def _without_mask_files(folder: Folder, found: list[str]) -> Folder:
    stems = {path: Path(path).stem for path in folder.files if MAYBE_MASK.search(path)}
    masks = []
    if stems:
        others = {Path(path).stem for path in folder.files if path not in stems}
        others |= {re.sub(r"[^A-Za-z0-9]+[A-Za-z]+$", "", stem) for stem in others}  # 1_sat → 1
        for path, stem in stems.items():
            image, word = re.sub(r"[-_. ]*\d*$", "", stem), ""
            while (match := LAST_WORD.search(image)) and is_mask(match[1]):  # a_manual_mask_1
                image, word = image[: match.start()], match[1]
            masks += [path] if word and image and image in others else []
    found += masks
    folders = [_without_mask_files(child, found) for child in folder.folders]
    if not masks and all(map(operator.is_, folders, folder.folders)):
        return folder
    left = set(masks)
    return Folder(folder.name, folder.path, [path for path in folder.files if path not in left], folders)


def without_copies(folder: Folder, left_out: list[str]) -> Folder:
    """Return the folder without copies of its subfolders: of names that differ in case alone, with the same files.

    A data set that was packed where case does not count may have both. left_out: gets a phrase for each.
    """
    first: dict[str, Folder] = {}
    folders = []
    for child in folder.folders:
        before = first.setdefault(child.name.lower(), child)
        if before is not child and _same_files(before, child):
            left_out.append(f"{printable(child.name)}/ ({counted(len(child))}, a copy of {printable(before.name)}/)")
        else:
            folders.append(without_copies(child, left_out))
    same = len(folders) == len(folder.folders) and all(map(operator.is_, folders, folder.folders))
    return folder if same else Folder(folder.name, folder.path, folder.files, folders)


def _same_files(one: Folder, other: Folder) -> bool:
    """Return whether two folders hold files of the same names and, in those that are looked at, the same bytes."""
    paths = [sorted(folder.images()) for folder in (one, other)]
    if [path[len(one.path) :] for path in paths[0]] != [path[len(other.path) :] for path in paths[1]]:
        return False
    return all(filecmp.cmp(paths[0][i], paths[1][i], shallow=False) for i in spread(len(paths[0]), LOOKED_AT))
