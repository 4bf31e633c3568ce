"""Read a data set of the Hugging Face hub by its name, such as `--data.path uoft-cs/cifar10`."""

from bigbigan.data.images import Found, Request
from bigbigan.data.splits import pick_split
from bigbigan.data.tables import from_table
from bigbigan.errors import DataError


def open_hub(request: Request) -> Found | None:
    """Return a split of a hub data set, or None if the path looks like a file's or folder's. Raises DataError."""
    path, location = request.path, request.location
    if location.exists() or location.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1:
        return None
    from datasets import get_dataset_split_names, load_dataset

    try:
        splits = get_dataset_split_names(path, request.subset or None)
        table = load_dataset(path, request.subset or None, split=pick_split(request.split, splits, path))
    except DataError:
        raise
    except Exception as error:  # no network, no such name, no permission: each becomes one sentence
        raise DataError(
            f"--data.path {path}: neither a folder or file here nor a data set that the hub would give "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        ) from None
    images = from_table(table, path, request.image_column, request.label_column)
    return Found(images, whole=len(splits) == 1)
