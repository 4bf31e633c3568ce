"""Read a data set of the Hugging Face hub by its name, such as `--data.path uoft-cs/cifar10`."""

from functools import partial

from bigbigan.data.images import Found, Request
from bigbigan.data.tables import found_in_tables
from bigbigan.errors import DataError


def open_hub(request: Request) -> Found | None:
    """Return a split of a hub data set, or None if the path looks like a file's or folder's. Raises DataError."""
    path, location = request.path, request.location
    if location.exists() or location.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1:
        return None
    from datasets import get_dataset_split_names, load_dataset

    def load(name: str):
        return load_dataset(path, request.subset or None, split=name)

    try:
        splits = get_dataset_split_names(path, request.subset or None)
        return found_in_tables(request, {name: partial(load, name) for name in splits}, {}, None)
    except DataError:
        raise
    except Exception as error:  # no network, no such name, no permission: each becomes one sentence
        advice = "; choose one with --data.subset" if "config name" in str(error).lower() else ""
        raise DataError(
            f"--data.path {path}: neither a folder or file here nor a data set that the hub would give "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}){advice}"
        ) from None
