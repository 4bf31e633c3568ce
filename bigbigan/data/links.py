"""Count an image once that lies in a folder and is named by a link in the same folder too."""

import os
from collections.abc import Sequence

from bigbigan.data.walk import Census


def linked(census: Census) -> bool:
    """Return whether a walk found links by which one file may be found at two paths."""
    return bool(census.links) or census.entered


def real_paths(paths: Sequence[str], census: Census) -> list[str]:
    """Return the path of the file itself for each path of an image that the walk of `census` found."""
    folders: dict[str, str] = {}
    found = []
    for path in paths:
        if path in census.links:
            found.append(census.links[path])
            continue
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        found.append(os.path.join(folders[folder], name))
    return found


def second_paths(paths: Sequence[str], census: Census) -> set[str]:
    """Return those of the paths of images that name a file once more, so that each file is left with one path.

    Of the file itself and of links to it, those stay that lie in more folders: `cat/` and `dog/` with links into
    `pool/`, and `cat/` and `dog/` beside `all/` with links into them. The file itself stays where these are as many.
    """
    if not linked(census):
        return set()
    by_file: dict[str, list[tuple[bool, str]]] = {}
    root = os.path.dirname(os.path.commonpath(paths)) if paths else ""
    real_root = os.path.realpath(root)
    for path, real in zip(paths, real_paths(paths, census), strict=True):
        itself = os.path.join(real_root, os.path.relpath(path, root)) == real
        by_file.setdefault(real, []).append((not itself, path))
    several = [sorted(found) for found in by_file.values() if len(found) > 1]
    both = [(is_link, os.path.dirname(path)) for found in several if not found[0][0] for is_link, path in found]
    of_links, of_files = ({folder for link, folder in both if link is kind} for kind in (True, False))
    if len(of_links) > len(of_files):
        several = [sorted(found, key=lambda item: (not item[0], item[1])) for found in several]
    return {path for found in several for _, path in found[1:]}
