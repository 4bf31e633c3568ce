"""Open the images that `--data.path` names, by the first reader that takes the path."""

from collections.abc import Callable

from bigbigan.config import Data
from bigbigan.data.classes import match_classes
from bigbigan.data.digits import open_digits
from bigbigan.data.folders import open_folder
from bigbigan.data.hub import open_hub
from bigbigan.data.images import Found, Images, Request
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
    subset: str = "",
    follow_links: bool = False,
    split_rule: str = "hash",
) -> Images:
    """Return a split of the data set that `path` names. Raises DataError.

    path: "digits", a folder, a Parquet or Arrow file, or a hub name; see `READERS`.
    split: the split's name, where the data have splits.
    test: whether this is the evaluation split. Where the data have only one split, a fixed `test_share` of its images
    is held out from training and returned here.
    subset: the configuration of a hub data set.
    follow_links: also take what links lead to that point out of the folder.
    split_rule: how images are held out, "hash" or "permutation"; see `data.splits`.
    """
    found = _open(Request(path, split, image_column, label_column, test, subset, follow_links))
    return hold_out(found.images, test_share, split_rule)[test] if found.whole else found.images


def open_splits(data: Data, common_classes: bool = True) -> tuple[Images, Images]:
    """Return the training and the evaluation images that the settings name: (train, test). Raises DataError.

    A class is the same number in both: see `data.classes.match_classes`, which leaves test images out and says so.
    common_classes: False leaves the labels of the two splits as they are, each with numbers of its own.
    """
    columns = data.image_column, data.label_column
    requests = [
        Request(data.path, split, *columns, test, data.subset, data.follow_links)
        for split, test in ((data.split, False), (data.test_split, True))
    ]
    found = _open(requests[0])
    if found.whole:
        train, test = hold_out(found.images, data.test_share, data.split_rule)
    else:
        train, test = found.images, _open(requests[1]).images
    return train, match_classes(train, test) if common_classes else test


def _open(request: Request) -> Found:
    """Return what the first reader that takes the path finds. Raises DataError."""
    path = request.path
    try:
        found = _read(request)
    except OSError as error:
        raise DataError(f"--data.path {printable(path)}: expected data that can be read, found {error}") from None
    except Outside as error:
        raise DataError(f"{error}, or follow it with --data.follow_links True") from None
    if not len(found.images):
        raise DataError(f"--data.path {path}: expected images, found none")
    return found


def _read(request: Request) -> Found:
    path = request.path
    if not path:
        raise DataError("--data.path: expected a folder, a file or a data set's name, found nothing")
    for read in READERS:
        if (found := read(request)) is not None:
            return found
    if request.location.exists():
        raise DataError(
            f"--data.path {path}: expected a folder, a .parquet or .arrow file or a data set's name, found another file"
        )
    raise DataError(f"--data.path {path}: expected a folder, a file or a data set's name, found no such folder or file")
