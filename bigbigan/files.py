"""Files from elsewhere: read as data only, found where they seem to lie, named so that the name can be printed."""

import hashlib
import json
import os
import unicodedata
from pathlib import Path

from bigbigan.errors import Outside

LARGEST_TEXT = 2**20  # bytes of a JSON or YAML file; ours have some thousand


def check_inside(path: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Raise Outside if `path`, found in `folder`, is a link to elsewhere, or lies behind one.

    Who is given a folder by somebody else must be able to trust that reading it shows, and writing it changes, nothing
    beside it. `folder` itself may be reached by links. The snapshots of a hub cache are links into the same cache, and
    stay usable.
    """
    root = os.path.realpath(folder)
    above, kind = os.path.split(os.path.dirname(root))
    if kind == "snapshots":
        root = above
    found = os.path.realpath(path)
    if not Path(found).is_relative_to(root):
        raise Outside(
            f"{printable(path)}: expected a file or folder of {printable(folder)} itself, found that it leads to "
            f"{printable(found)}; copy it, or name that place"
        )


def check_links(folder: str | os.PathLike, deep: bool = False) -> None:
    """`check_inside` for all that lies directly in `folder`, or in its subfolders too: before anything is written
    there."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            if os.path.islink(path):
                check_inside(path, folder)
        if not deep:
            return


def read_text(path: Path) -> str:
    """A UTF-8 file of a size that settings can have; ValueError or OSError."""
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("expected a file, found a folder or a device")
    if size > LARGEST_TEXT:
        raise ValueError(f"expected a text of at most {LARGEST_TEXT // 2**20} MiB, found {size:,} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"expected text in UTF-8, found the byte 0x{error.object[error.start]:02x} at {error.start}"
        ) from None


def read_json(path: Path) -> dict:
    """The object in a JSON file; ValueError or OSError."""
    text = read_text(path)
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("expected JSON, found brackets nested too deeply") from None
    except ValueError as error:  # not JSON, or a number of thousands of digits
        raise ValueError(f"expected JSON, found something else: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, found {type(content).__name__}")
    return content


def printable(name: str | os.PathLike) -> str:
    """A file's name with escapes for what no terminal should get: control characters, and bytes that are no UTF-8."""
    characters = os.fsdecode(name)
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Cs") else c for c in characters
    )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
