"""Read files that may come from somebody else, write files that are never seen half-written, and print file names."""

import hashlib
import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from bigbigan.errors import InputError, Outside

LARGEST_TEXT = 2**20  # largest JSON or YAML file we read, in bytes; our own have a few thousand
SHOWN = 6  # names that a message lists


def cache_folder() -> Path:
    """Return the cache folder, of classifiers and the like: $BIGBIGAN_CACHE, or ~/.cache/bigbigan."""
    return expanded(os.environ.get("BIGBIGAN_CACHE") or "~/.cache/bigbigan")


def expanded(path: str | os.PathLike) -> Path:
    """Return the path with the home folder in the place of a leading ~, which a shell leaves in --flag=~/x and YAML."""
    return Path(os.path.expanduser(os.fsdecode(path)))


def check_inside(path: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Raise Outside if `path`, found in `folder`, is a symbolic link out of that folder or lies behind one.

    A folder received from somebody else must not make us read or overwrite files outside it. `folder` itself may be
    reached through links. The snapshots of a Hugging Face cache are links into the same cache and stay usable.
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
    """Call `check_inside` on every link in `folder`, and with `deep` in its subfolders too.

    Call it before writing into a folder that may come from somebody else. Raises Outside.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            if os.path.islink(path):
                check_inside(path, folder)
        if not deep:
            return


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file of at most `LARGEST_TEXT` bytes. Raises ValueError or OSError."""
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
    """Return the object that a JSON file holds. Raises ValueError (not a JSON object) or OSError."""
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


def counted(n: int, noun: str = "image", plural: str = "s") -> str:
    """Return "1 image", "1,438 images"."""
    return f"{n:,} {noun}{plural if n != 1 else ''}"


def significant(number: float, digits: int = 3) -> str:
    """Return a number of any size with that many significant digits, at most six: 3.68 or 1,480, not 1.48e+03."""
    return f"{float(f'{number:.{digits}g}'):,g}"


def printable(name: str | os.PathLike) -> str:
    """Return a file's name with control characters and bytes that are not UTF-8 escaped, safe for a terminal."""
    characters = os.fsdecode(name)
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Cs") else c for c in characters
    )


def listed(names: Iterable[str]) -> str:
    """Return the first names and the number of the others: "a, b and 3 more"."""
    names = [printable(name) for name in names]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def path_within(folder: str | os.PathLike, path: str | os.PathLike) -> bytes:
    """Return a path relative to `folder`, the same on every system; a path that lies elsewhere stays as it is.

    Names are in Unicode's form NFC, which some file systems change, and folders are divided by "/".
    """
    folder, path = os.fsdecode(folder), os.fsdecode(path)
    inside = os.path.join(folder, "")
    relative = path[len(inside) :] if path.startswith(inside) else path
    return unicodedata.normalize("NFC", relative).replace(os.sep, "/").encode("utf-8", "surrogateescape")


def paths_within(folder: str | os.PathLike, paths: Iterable[str]) -> Iterator[bytes]:
    """Yield what `path_within` returns for each path, faster for very many."""
    inside = os.path.join(os.fsdecode(folder), "")
    for path in paths:
        plain = os.sep == "/" and path.isascii() and path.startswith(inside)
        yield path[len(inside) :].encode() if plain else path_within(folder, path)


def state_of(path: str | os.PathLike) -> str:
    """Return a file's size and time of change, "SIZE NANOSECONDS"; "missing" if there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, write: Callable[[Path], object], sync: bool = False) -> None:
    """Write a file so that `path` holds either its old content or the whole new content, never a part.

    write: called with a temporary path in the same folder (`.NAME.PROCESS-RANDOM.tmp`), which then becomes `path`.
    sync: flush the content to the disk (fsync) before the rename, so that it also survives a power failure.
    If `write` or the rename fails, the temporary file is removed and the error is raised again. A killed process
    leaves at most that hidden file.
    """
    # A number is not enough: two containers that share a disk often give their processes the same one.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(3).hex()}.tmp")
    try:
        write(temporary)
        give_usual_rights(temporary)
        if sync:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C too
        with suppress(OSError):  # `write` may not have created it
            temporary.unlink()
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None  # the name that the caller knows
        raise


def give_usual_rights(path: Path) -> None:
    """Let others read a file as far as the umask lets them: `safetensors` keeps what it writes to its owner."""
    with suppress(OSError):  # a file system without rights, or a writer that wrote nothing
        if path.stat().st_mode & 0o077:
            return
        probe = path.with_name(f"{path.name}.{os.urandom(3).hex()}")  # to ask for the umask is to set it
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL, 0o666))
        os.chmod(path, probe.stat().st_mode & 0o777)
        probe.unlink()


def check_writable(path: Path, flag: str = "") -> None:
    """Raise InputError where a file cannot be written, before the work whose result it gets. Creates nothing.

    flag: the one that gave the path, for the sentence; "" where none did.
    """
    above = next(folder for folder in path.absolute().parents if folder.exists())
    found = ""
    if path.is_dir():
        found = "a folder of this name"
    elif not above.is_dir():
        found = f"{printable(above)}, which is no folder"
    elif not os.access(above, os.W_OK | os.X_OK):
        found = f"{printable(above)}, which cannot be written to"
    if found:
        named = f"{flag} {printable(path)}".lstrip()
        raise InputError(f"{named}: expected a place to write it, found {found}; choose another one")


def write_text_whole(path: Path, text: str, sync: bool = False, errors: str = "strict") -> None:
    """Write a UTF-8 text file by `write_whole`. errors: as of `open`, such as "backslashreplace"."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors=errors), sync)
