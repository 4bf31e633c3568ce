"""Make small data sets of image files and of the tables and lists beside them."""

from pathlib import Path

from tests.conftest import picture


def make(folder: Path, *names: str) -> None:
    """Write a different small picture under each name, with the folders above it."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i, (8, 8)).save(folder / name)


def write(path: Path, *lines: str) -> None:
    """Write the lines of a text file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
