"""Tell folders that keep a long series of images in parts (00000/, 01000/, ...) from folders that are classes."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Sequence

WIDTH = 5  # digits that the folders of StyleGAN's dataset tool and of img2dataset have
BLOCK = 1000  # numbers that begin alike, at least, in these
FULL = 0.5  # share of these numbers that there are images of


def are_shards(folders: Sequence[str], paths: Sequence[str]) -> bool:
    """Return whether folders are parts of one series, so that the name of each image tells in which of them it lies.

    folders: the folder's name, of each image.  paths: of the images. One of these rules must hold for all of them:

    - The image's number is at least the folder's and less than the next folder's: `01000/01234.png` (FFHQ).
    - The image's number begins with the folder's, which has five digits: `00001/img00001234.png` (StyleGAN's dataset
      tool), `00001/000012345.jpg` (img2dataset); and the folders are half full, but for the last one, since images of a
      class may be named after it, too.
    - The last two or more digits of the image's number are the folder's: `0234/1991234.jpg` (Danbooru).
    - The image's hash begins with the folder's name: `3f/3f9a61c2.jpg`.

    More may follow the number, as in IMDB-WIKI's `00/nm0000100_rm12818944_1955-1-6_2003.jpg`, if most numbers differ.
    """
    counts = Counter(folders)
    if len(counts) < 2 or len(paths) < 2 * len(counts):  # an image or so a folder tells nothing
        return False
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    places = list(zip(folders, stems, strict=True))
    if all(map(str.isdecimal, counts)):
        found = [re.fullmatch(r"[A-Za-z]*(\d+)([-_].*)?", stem) for stem in stems]
        numbers = [(folder, match[1]) for folder, match in zip(folders, found, strict=True) if match]
        differ = 2 * len({number for _, number in numbers}) > len(paths) or not any(
            match and match[2] for match in found
        )
        return (
            differ
            and len(numbers) == len(paths)
            and any(rule(counts, numbers) for rule in (_ranges, _beginnings, _ends))
        )
    hashed = all(re.fullmatch(r"[0-9a-f]{1,4}", name) for name in counts) and len(set(map(len, counts))) == 1
    return hashed and all(re.fullmatch(r"[0-9a-f-]{8,}", stem) and stem.startswith(name) for name, stem in places)


def are_bands(folders: Sequence[str], paths: Sequence[str]) -> bool:
    """Return whether each folder is one scene, and its images are named after it and a band: `S2A_87_48_B8A.tif`.

    A scene has a number in its name; `wall/wall_B1.png` is of a class.
    """
    if not all(re.search(r"\d", folder) for folder in set(folders)):
        return False
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    bands = [stem.removeprefix(folder) for folder, stem in zip(folders, stems, strict=True)]
    return len(set(bands)) > 1 and all(re.fullmatch(r"[-_.]B\d{1,2}A?", band) for band in bands)


def _ranges(counts: Counter, numbers: list[tuple[str, str]]) -> bool:
    first = sorted(map(int, counts))
    after = dict(itertools.zip_longest(first, first[1:], fillvalue=float("inf")))
    return all(int(folder) <= int(number) < after[int(folder)] for folder, number in numbers)


def _beginnings(counts: Counter, numbers: list[tuple[str, str]]) -> bool:
    widths = {(len(folder), len(number)) for folder, number in numbers}
    if len(widths) > 1 or not all(number.startswith(folder) for folder, number in numbers):
        return False
    width, digits = next(iter(widths))
    block = 10 ** (digits - width)
    return width == WIDTH and block >= BLOCK and all(counts[name] >= FULL * block for name in sorted(counts)[:-1])


def _ends(counts: Counter, numbers: list[tuple[str, str]]) -> bool:
    width = max(map(len, counts))
    return any(all(int(number) % 10**k == int(folder) for folder, number in numbers) for k in range(2, width + 1))
