"""Open the images that `--data.path` names, by the first reader that takes the path."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from bigbigan.config import Data, check_value_range
from bigbigan.data.classes import match_classes, without_ids
from bigbigan.data.digits import open_digits
from bigbigan.data.fingerprint import files_of
from bigbigan.data.folders import open_folder
from bigbigan.data.hub import WILDCARDS, open_hub
from bigbigan.data.images import Found, Images, Request
from bigbigan.data.patients import (
    add_missing_patients,
    certain_patients,
    choose_group_column,
    classes_are_groups,
    groups_of,
)
from bigbigan.data.pictures import EXTENSIONS, how_to_read
from bigbigan.data.split_names import ALL, REST, TEST, VAL, read_name, split_names
from bigbigan.data.splits import hold_out
from bigbigan.data.tables import open_tables
from bigbigan.data.tars import open_tars
from bigbigan.data.walk import Listing
from bigbigan.errors import DataError, Outside
from bigbigan.files import counted, printable

FAR = 3  # how many times the share that is asked for is held out, from which on a warning says so
log = logging.getLogger(__name__)

# Each returns the images of a path of its kind, and None of any other path. They are asked from the top down.
# Another kind of data is a new file with such a function, and a row here.
READERS: tuple[Callable[[Request], Found | None], ...] = (
    open_digits,  # the word "digits"
    open_tables,  # .parquet and .arrow files, folders with some in them, folders that `datasets` saved
    open_tars,  # .tar files, folders and patterns of them, as WebDataset packs samples
    open_folder,  # folders of image files
    open_hub,  # names of hub data sets; the last, since it takes any word that is no file or folder
)


def open_images(
    path: str,
    split: str = "train",
    image_column: str = "",
    label_column: str = "",
    test: bool = False,
    test_share: float = 0.1,
    *,
    subset: str = "",
    follow_links: bool = False,
    other_split: str = "",
    value_range: tuple[float, ...] = (),
    split_rule: str = "patient",
    group_column: str = "",
) -> Images:
    """Return a split of the data set that `path` names. Raises DataError.

    path: "digits", a folder, a Parquet or Arrow file, or a hub name; see `READERS`.
    split: the split's name, where the data have splits, or its folder or file, as in "./archive/train". "all" takes all
    folders as classes, "rest" all that is no split.
    test: whether this is the evaluation split. Where the data have only one split, a fixed `test_share` of its images
    is held out from training and returned here.
    subset: the configuration of a hub data set, or the folder of one of several data sets.
    follow_links: also take what links lead to that point out of the folder.
    other_split: the name of the split that is evaluated on, or with `test` that is trained on, since both decide how a
    folder is read; "" for "test" and "train".
    value_range: the values of black and white in grey pictures of more than 8 bits or of floats; see `Data`.
    split_rule: how images are held out, "patient", "hash" or "permutation"; see `data.splits`.
    group_column: the column whose equal values are held out together; "" for that of patients, if there is one.
    """
    request = Request(
        path, split, image_column, label_column, test, subset, follow_links, other_split, group_column=group_column
    )
    if any(name.startswith("./") for name in (split, other_split)):  # which may lie in one another
        return _open_both(request, value_range, test_share, split_rule)[test]
    found = _open(request, value_range)
    return _hold_out(found.images, test_share, split_rule)[test] if found.whole else found.images


def open_whole_split(data: Data) -> Found:
    """Return all images of the split that `data.split` names, of which none is held out. Raises DataError.

    Where the data have no splits, these are all images, and `whole` is True.
    """
    test = read_name(data.split).split in (VAL, TEST)
    other = data.test_split if not test else "train"
    columns = data.image_column, data.label_column
    request = Request(
        data.path, data.split, *columns, test, data.subset, data.follow_links, other,
        nothing_held_out=True, group_column=data.group_column,
    )  # fmt: skip
    found = _open(request, data.value_range)
    if found.whole and test:
        raise DataError(
            f"--data.path {printable(data.path)}: expected a split {data.split!r}, found data without splits; "
            "leave --data.split out for all images"
        )
    return dataclasses.replace(found, images=without_ids(found.images))


def open_splits(data: Data, common_classes: bool = True) -> tuple[Images, Images]:
    """Return the training and the evaluation images that the settings name: (train, test). Raises DataError.

    A class is the same number in both: see `data.classes.match_classes`, which leaves test images out and says so.
    common_classes: False leaves the labels of the two splits as they are, each with numbers of its own.
    """

    columns, listing = (data.image_column, data.label_column), Listing()
    split, other = split_names(data.split, data.test_split, evaluate=False)
    request = Request(
        data.path, split, *columns, False, data.subset, data.follow_links, other, listing,
        group_column=data.group_column,
    )  # fmt: skip
    train, test = _open_both(request, data.value_range, data.test_share, data.split_rule)
    _say_common_groups(train, test)
    return train, match_classes(train, test) if common_classes else test


def _open_both(request: Request, value_range: tuple[float, ...], share: float, rule: str) -> tuple[Images, Images]:
    """Return the images to train on and those to evaluate on: (train, test), without an image in both.

    request: for either. Where it names a training split by its path and no evaluation split, and the data have none
    apart from it, a share of the training split is held out.  Raises DataError.
    """
    names = request.train_split, request.test_split
    for_train = dataclasses.replace(request, test=False, split=names[0], other_split=names[1])
    split, other = split_names(*names, evaluate=True)
    for_test = dataclasses.replace(request, test=True, split=split, other_split=other)
    default = for_train.test_split in ("test", "")
    found = _open(for_train, value_range)
    if for_test.by_path or (for_train.by_path and not default):
        test = _open(for_test, value_range).images
        return _without(found.images, test), test
    if for_train.by_path:
        with suppress(DataError):  # such as several readings, of which the training split's path chose one
            beside = _open(for_test, value_range)
            if not (beside.whole or _in_common(found.images, beside.images)):
                return found.images, beside.images
        return _hold_out(found.images, share, rule)
    if not found.whole:
        train, test = found.images, _open(for_test, value_range).images
        common = set(train.class_names or ()) & set(test.class_names or ())
        if not common:  # with classes in common, one image of each class is a set for one-shot learning
            train, test = without_ids(train), without_ids(test)
        if train.labels is not None and test.labels is None and not request.test:
            log.warning(
                "%s has no labels, so features are not measured on it; --data.test_split names another split, and "
                "--data.path with the folder of the training images alone holds a share of these out",
                test.source or test.origin,
            )  # fmt: skip
        return train, test
    if not default and for_test.split not in (ALL, REST):
        log.warning(
            "%s: found no split %r of --data.test_split; a share of all images is held out (--data.test_share)",
            found.images.origin, for_test.split,
        )  # fmt: skip
    return _hold_out(found.images, share, rule)


def _in_common(train: Images, test: Images) -> set[bytes]:
    """Return the files in which images of both lie."""
    named = [{name for name, _ in files_of(*images.base())[0]} for images in (train, test)]
    return named[0] & named[1]


def _without(train: Images, test: Images) -> Images:
    """Return the training images that are no test images, with a warning if some are. Raises DataError."""
    common = _in_common(train, test)
    if not common:
        return train
    files = [name for name, _ in files_of(*train.base())[0]]
    if len(files) != len(train):  # tables and tars, of which a file has many images
        raise DataError(
            f"{train.origin}: expected training and test images in different files, found both in "
            f"{printable(min(common))}; name the files of both with --data.split and --data.test_split"
        )
    kept = np.flatnonzero([name not in common for name in files])
    if not len(kept):
        raise DataError(
            f"{train.origin}: expected training images beside the test images of --data.test_split, found none; name "
            "them with --data.split"
        )
    log.warning("%s: %s test images are not trained on", train.origin, f"{len(train) - len(kept):,}")
    return train.subset(kept)


def _hold_out(images: Images, share: float, rule: str) -> tuple[Images, Images]:
    """Return the images to train on and those held out, which say what they are a part of."""
    images = without_ids(images)
    if images.group_column and rule != "patient":
        log.warning(
            "%s: column %r has no part in which images are held out, since these were divided by --data.split_rule %s",
            images.origin, images.group_column, rule,
        )  # fmt: skip
        images = dataclasses.replace(images, groups=None, group_column="")
    train, test = hold_out(dataclasses.replace(images, groups=groups_of(images)), share, rule)
    source = f"held out of {images.source or 'the training images'}"
    in_test = [name for name in test.groups if name]
    if set(in_test) & set(train.groups):
        both = set.intersection(*(certain_patients(side, images.groups is not None) for side in (train, test)))
        if both:
            _say_in_both(images.origin, min(both), len(both))
    elif len(set(in_test)) < len(in_test) or (in_test and images.group_column):
        kind = f"groups of column {images.group_column!r}" if images.group_column else "patients or scans"
        source += f", whole {kind} such as {printable(min(in_test))}"
        if not 1 / FAR < len(test) / (share * len(images)) < FAR:
            _say(
                f"{images.origin}: the {kind} that are held out have {len(test):,} of {counted(len(images))}, where "
                f"--data.test_share {share:g} asks for {round(share * len(images)):,}; name another column, or list "
                "the test images: --data.split ./train.txt --data.test_split ./test.txt"
            )
    return train, dataclasses.replace(test, source=source)


@functools.cache  # once for a process, which opens both splits
def _say(sentence: str) -> None:
    log.warning("%s", sentence)


def _say_what_has_no_group(images: Images) -> None:
    """Log a warning if --data.group_column says nothing of some images, or keeps none of them together."""
    if not images.group_column:
        return
    column, named = images.group_column, [name for name in images.groups if name]
    of = f"{len(images):,} images" + f" of {images.source}" * bool(images.source)
    if len(named) < len(images):
        _say(
            f"{images.origin}: column {column!r} has no value for {len(images) - len(named):,} of {of}, each of which "
            "stands alone"
        )
    if len(set(named)) == len(named) > 1:
        _say(f"{images.origin}: column {column!r} has another value for each image, so it keeps none together")


@functools.cache  # once for a process, which opens both splits
def _say_in_both(origin: str, example: str, count: int) -> None:
    log.warning(
        "%s: images of %s, such as %s, are both trained on and held out; to keep the images of each patient together, "
        "name a column that tells them apart by --data.group_column, put them in folders train and test, or list them: "
        "--data.split ./train.txt --data.test_split ./test.txt",
        origin, counted(count, "patient"), printable(example),
    )  # fmt: skip


def _say_common_groups(train: Images, test: Images) -> None:
    """Log a warning if the data's own splits have groups of --data.group_column in common."""
    if not train.group_column or classes_are_groups(train) or classes_are_groups(test):
        return
    if common := (set(train.groups) & set(test.groups)) - {""}:
        log.warning(
            "%s: the splits have %s of column %r in common, such as %s, so test images have relatives among the "
            "training images; put all images of a group into one split",
            train.origin, counted(len(common), "group"), train.group_column, printable(min(common)),
        )  # fmt: skip


def _open(request: Request, value_range: tuple[float, ...] = ()) -> Found:
    """Return what the first reader that takes the path finds. Raises DataError."""
    path = request.path
    try:
        limits = check_value_range(value_range, "--data.value_range")
    except ValueError as error:
        raise DataError(str(error)) from None
    try:
        found = _read(request)
    except OSError as error:
        raise DataError(f"--data.path {printable(path)}: expected data that can be read, found {error}") from None
    except Outside as error:
        raise DataError(f"{error}, or follow it with --data.follow_links True") from None
    if not len(found.images):
        raise DataError(f"--data.path {path}: expected images, found none")
    if request.group_column and found.images.groups is None:
        if found.whole or not request.test:
            choose_group_column([], request.group_column, printable(path))
        found.images.groups = np.full(len(found.images), "", object)
    elif found.images.groups is not None and not request.group_column:
        add_missing_patients(found.images)
    found.images.group_column = request.group_column
    _say_what_has_no_group(found.images)
    found.images.value_range = limits
    return found


def _read(request: Request) -> Found:
    path = request.path
    if not path:
        raise DataError("--data.path: expected a folder, a file or a data set's name, found nothing")
    for read in READERS:
        if (found := read(request)) is not None:
            return found
    if request.location.exists():
        advice = how_to_read(request.location)
        if request.location.suffix.lower() in EXTENSIONS:
            advice = "; name the folder of the images"
        raise DataError(
            f"--data.path {printable(path)}: expected a folder, a .parquet, .arrow or .tar file or a data set's name, "
            f"found another file{advice}"
        )
    pattern = "; a pattern names .tar files alone: give the folder of the images" if WILDCARDS & set(path) else ""
    raise DataError(
        f"--data.path {printable(path)}: expected a folder, a file or a data set's name, found no such folder or "
        f"file{pattern}"
    )
