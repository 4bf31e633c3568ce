"""Describe the two splits of a run for the block that a run prints at its start."""

from bigbigan.data.images import Images
from bigbigan.files import counted

CLASSES = 12  # classes that are named with their number of images; more are summed up
NOTES = 8  # phrases about what is not taken


def split_line(images: Images) -> str:
    """Return which folder or files a split is, and how many images of which classes it has, in one line.

    Up to `CLASSES` classes are named; of more, the number and the smallest and largest count are given.
    """
    place = f"{images.source}: " if images.source else ""
    return f"{place}{counted(len(images))}, {classes_line(images)}"


def classes_line(images: Images) -> str:
    """Return each class with its number of images, or for many classes their number and the range of their sizes."""
    counts = images.per_class()
    if not counts:
        return "no labels"
    if len(counts) <= CLASSES:
        return f"{len(counts)} classes: " + ", ".join(f"{name} {n:,}" for name, n in counts)
    sizes = [n for _, n in counts]
    empty = [name for name, n in counts if not n]
    range_line = f"{len(counts):,} classes of {min(sizes):,} to {max(sizes):,}"
    return range_line + (f", {len(empty):,} of them without an image, such as {empty[0]}" if empty else "")


def data_rows(train: Images, test: Images) -> list[tuple[str, str]]:
    """Return rows (name, value): what the data are, which folder or file is which split, and what is left out.

    Notes that belong to one split alone are of that split.
    """
    shared = " (of the classes that both splits have)" if test.note and test.labels is not None else ""
    rows = [("data", train.summary()), ("train", split_line(train)), ("test", split_line(test) + shared)]
    notes = list(dict.fromkeys([*train.notes, *test.notes]))
    rows += [("left out" if i == 0 else "", note) for i, note in enumerate(notes[:NOTES])]
    if len(notes) > NOTES:
        rows.append(("", f"and {len(notes) - NOTES} more"))
    return rows
