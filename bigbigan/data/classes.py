"""Make a class the same number in both splits: test labels are matched with the training split's by name."""

import logging
import re
import unicodedata
from dataclasses import replace

import numpy as np

from bigbigan.data.images import Images
from bigbigan.files import counted

NAMED = 10  # classes that a message names, at most
log = logging.getLogger(__name__)


def match_classes(train: Images, test: Images) -> Images:
    """Return the test images whose class has training images, with the training split's class names and numbers.

    The images of other classes are left out, since no classifier of the training split can name them. If no class is
    left, all images stay, without labels. `note` of the result says which classes one of the splits lacks; a class name
    without images is none that a split has.  Splits without labels are returned as they are.
    """
    if train.labels is None or test.labels is None:
        return test
    names, test_names = _names(train), _names(test)
    numbers = _numbers(names, test_names)
    in_train = np.bincount(train.labels, minlength=len(names)) > 0
    labels = numbers[test.labels]
    known = (labels >= 0) & in_train[labels]
    unknown = [test_names[k] for k in np.unique(test.labels[~known])]
    if not known.any():
        trained = listed([names[k] for k in np.flatnonzero(in_train)])
        note = (
            f"the test split's classes ({listed(unknown)}) are none of the training split's ({trained}): "
            "its images count as unlabelled, and there are no figures of classes"
        )
        return replace(test, labels=None, class_names=None, note=note)
    in_test = np.bincount(labels[known], minlength=len(names)) > 0
    missing = [names[k] for k in np.flatnonzero(in_train & ~in_test)]
    kept = test if known.all() else test.subset(np.flatnonzero(known))
    return replace(
        kept, labels=labels[known], class_names=names, note=_note(missing, unknown, int((~known).sum()), in_test.sum())
    )


def without_ids(images: Images) -> Images:
    """Return the images without labels, and say so, if every one of them has a class of its own: these are ids.

    None of them could be held out, since each class keeps one image to train on.
    """
    if images.labels is None or len(images) < 2 or len(np.unique(images.labels)) < len(images):
        return images
    log.warning(
        "%s: no labels are taken, since each of the %s images has a class of its own", images.origin, f"{len(images):,}"
    )
    return replace(images, labels=None, class_names=None)


def why_no_classes(train: Images, test: Images) -> str:
    """Return why no figure can be of classes, as a clause for a message; "" if both splits have labels that tell.

    Then the training images are of two classes or more, and the test images of some of them.
    """
    if test.labels is None and test.note:
        return test.note
    without = [name for name, images in (("training", train), ("test", test)) if images.labels is None]
    if len(without) == 2:
        return "the images have no labels"
    if without:
        return f"the {without[0]} split has no labels, while the other one has"
    if len(np.unique(train.labels)) < 2:
        return "the training images are of one class"
    return "" if len(test) else "the test split has no images"


def _names(images: Images) -> list[str]:
    """Return the class names; the numbers themselves where classes have none."""
    count = int(images.labels.max()) + 1 if len(images.labels) else 0
    return images.class_names or [str(k) for k in range(count)]


def _numbers(names: list[str], test_names: list[str]) -> np.ndarray:
    """Return the number of each of `test_names` among `names`, int64; −1 for one that is not there.

    Accents may be characters of their own, as macOS writes them, or not.
    A name that is not there itself may be there as the same integer, written otherwise: 3, 3.0, 03.
    """
    exact = {_composed(name): k for k, name in enumerate(names)}
    integers: dict[int, list[int]] = {}
    for k, name in enumerate(names):
        integers.setdefault(_integer(name), []).append(k)
    found = []
    for name in test_names:
        alike = integers.get(_integer(name), []) if _integer(name) is not None else []
        found.append(exact.get(_composed(name), alike[0] if len(alike) == 1 else -1))
    return np.asarray(found, dtype=np.int64)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _integer(name: str) -> int | None:
    return int(name.split(".")[0]) if re.fullmatch(r"-?[0-9]{1,18}(\.0+)?", name) else None


def _note(missing: list[str], unknown: list[str], left_out: int, common: int) -> str:
    if not missing and not unknown:
        return ""
    parts = []
    if missing:
        parts.append(f"{_count(missing)} in the training split alone: {listed(missing)}")
    if unknown:
        parts.append(f"{_count(unknown)} in the test split alone: {listed(unknown)} ({counted(left_out)} left out)")
    both = f"the {common:,} classes" if common > 1 else "the one class"
    return (
        "; ".join(parts)
        + f"; figures are of the test images of {both} that both splits have, by classifiers of all training classes"
    )


def _count(names: list[str]) -> str:
    return f"{len(names):,} class{'es' * (len(names) > 1)}"


def listed(names: list[str]) -> str:
    """Return the first `NAMED` names for a message, and how many more there are."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
