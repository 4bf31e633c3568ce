"""Describe a figure by its key in stats.jsonl or probe.json: title, unit and direction.

This is where a key becomes words: each metric describes its own figures, and `title_of` puts the rest of a key, which
says what the figure was measured on, into words too.
"""

import re

from bigbigan.metrics import reconstruction
from bigbigan.metrics.generation import OF_FEATURES, OF_PIXELS
from bigbigan.training import records
from eval_linear import result
from eval_linear.result import FigureInfo

FIGURES = (
    *result.FIGURES,
    *records.FIGURES,
    *reconstruction.FIGURES,
    *(info for metric in (*OF_FEATURES, *OF_PIXELS) for info in metric.figures),
)


def describe(key: str) -> FigureInfo | None:
    """Return the description of a figure, of several that cover its key the one with the longest name; None without."""
    return max((info for info in FIGURES if info.covers(key)), key=lambda info: len(info.name), default=None)


def is_share(key: str) -> bool:
    """Return whether a figure is a share in [0, 1], which is shown in per cent."""
    info = describe(key)
    return info is not None and info.unit == "share"


def title_of(key: str, known: str = "") -> str:
    """Return a figure in words, such as "FID, features of a classifier of digits, against training images, n = 1,438".

    known: the name of an extractor that is said elsewhere, and left out here. A key that nothing describes stays.
    """
    info = describe(key)
    if info is None:
        return key
    rest = key.removeprefix(info.name)
    if not rest or rest.startswith(","):
        return info.title + rest
    return ", ".join([info.title, *_measured_on(rest.removeprefix("_"), known)])


def _measured_on(rest: str, known: str) -> list[str]:
    """Return in words what follows a figure's name: `real_EXTRACTOR_test_train_n359`, `8px_train_n64`."""
    parts = []
    for word, text in (("sd", "standard deviation"), ("real", "of real images")):
        if re.match(rf"{word}(_|$)", rest):
            parts, rest = [*parts, text], rest[len(word) :].removeprefix("_")
    if point := re.match(r"at_(min_fid|valid_is|max_is)(_|$)", rest):
        parts, rest = [*parts, POINTS[point[1]]], rest[point.end() :]
    count = re.search(r"_?n(\d+)$", rest)
    rest = rest[: count.start()] if count else rest
    split = re.search(r"(?:^|_)(test_train|train|test)$", rest)
    rest = rest[: split.start()] if split else rest
    if size := re.fullmatch(r"(\d+)px", rest):
        parts.append(f"at {size[1]} px")
    elif rest == "mean":
        parts.append("mean over the sizes")
    elif rest and rest != known:
        parts.append(f"features of {extractor_in_words(rest)}")
    if split:
        parts.append(SPLITS[split[1]])
    return [*parts, f"n = {int(count[1]):,}"] if count else parts


POINTS = {  # of the truncation curve
    "min_fid": "truncated to the least FID",
    "valid_is": "truncated to the Inception score of real images",
    "max_is": "truncated to the greatest Inception score",
}
SPLITS = {
    "test_train": "test images against training images",
    "train": "against training images",
    "test": "against test images",
}


def extractor_in_words(name: str) -> str:
    """Return the name of an extractor in words: `classifier_digits` is "a classifier of digits"."""
    if name.startswith("classifier_"):
        return f"a classifier of {name.removeprefix('classifier_')}"
    return {"inception2015": "Inception of 2015"}.get(name, name)


def lower_is_better(key: str) -> bool:
    """Return whether a smaller value of a figure is the better one."""
    info = describe(key)
    return info is not None and info.better == "lower"
