"""Open the images that `--data.path` names, by the first reader that takes the path."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from bigbigan.config import check_value_range
from bigbigan.data.digits import open_digits
from bigbigan.data.folders import open_folder
from bigbigan.data.hub import open_hub
from bigbigan.data.images import Found, Images, Request
from bigbigan.data.pictures import EXTENSIONS
from bigbigan.data.splits import hold_out
from bigbigan.data.tables import open_tables
from bigbigan.errors import DataError, Outside
from bigbigan.files import printable

# Each returns the images of a path of its kind, and None of any other path. They are asked from the top down.
# Another kind of data, such as tar files, is a new file with such a function, and a row here.
READERS: tuple[Callable[[Request], Found | None], ...] = (
    open_digits,  # the word "digits"
    open_tables,  # .parquet and .arrow files, folders with some in them, folders that `datasets` saved
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
    """
    try:
        limits = check_value_range(value_range, "--data.value_range")
    except ValueError as error:
        raise DataError(str(error)) from None
    request = Request(path, split, image_column, label_column, test, subset, follow_links, other_split)
    try:
        found = _open(request)
    except OSError as error:
        raise DataError(f"--data.path {printable(path)}: expected data that can be read, found {error}") from None
    except Outside as error:
        raise DataError(f"{error}, or follow it with --data.follow_links True") from None
    if not len(found.images):
        raise DataError(f"--data.path {path}: expected images, found none")
    found.images.value_range = limits
    if not found.whole:
        return found.images
    images = hold_out(found.images, test, test_share)
    place = f"held out of {images.source or 'the training images'}" if test else images.source
    return dataclasses.replace(images, source=place)


def _open(request: Request) -> Found:
    path = request.path
    if not path:
        raise DataError("--data.path: expected a folder, a file or a data set's name, found nothing")
    for read in READERS:
        if (found := read(request)) is not None:
            return found
    if request.location.exists():
        raise DataError(
            f"--data.path {printable(path)}: expected a folder, a .parquet or .arrow file or a data set's name, "
            f"found another file{_advice(request.location)}"
        )
    raise DataError(f"--data.path {path}: expected a folder, a file or a data set's name, found no such folder or file")


def _advice(file: Path) -> str:
    """Return what to do with a file that no reader takes."""
    suffix = file.suffix.lower()
    if suffix in (".npz", ".npy", ".mat", ".h5", ".hdf5", ".pkl", ".bin", ".tfrecord", ".mdb"):
        return f" ({suffix}); save its images as files, a folder a class, or with `datasets` as Parquet"
    if suffix in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"):
        return f" ({suffix}); unpack it and name the folder"
    if suffix in EXTENSIONS:
        return "; name the folder of the images"
    return ""
