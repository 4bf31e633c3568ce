"""Read a data set of the Hugging Face hub by its name, such as `--data.path uoft-cs/cifar10`."""

from functools import partial
from pathlib import Path

from bigbigan.data.images import Found, Request
from bigbigan.data.tables import found_in_tables
from bigbigan.errors import DataError
from bigbigan.files import printable

PATIENCE = 10  # seconds for the hub's first answer
WILDCARDS = frozenset("*?[{")  # of patterns of files; no name on the hub has one


def open_hub(request: Request) -> Found | None:
    """Return a split of a hub data set, or None if the path looks like a file's or folder's. Raises DataError."""
    path, location = request.path, request.location
    no_name = path.startswith((".", "~")) or path.count("/") > 1 or WILDCARDS & set(path)
    if no_name or location.exists() or location.is_absolute():
        return None
    from datasets import get_dataset_split_names, load_dataset

    def load(name: str):
        return load_dataset(path, request.subset or None, split=name)

    try:
        ask_once(path)
        splits = get_dataset_split_names(path, request.subset or None)
        return found_in_tables(request, {name: partial(load, name) for name in splits}, {}, None)
    except DataError:
        raise
    except Exception as error:  # no network, no such name, no permission: each becomes one sentence
        advice = "; choose one with --data.subset" if "config name" in str(error).lower() else ""
        raise DataError(
            f"--data.path {printable(path)}: expected a folder, a file or the name of a hub data set; no such file or "
            f"folder as {printable(location.absolute())}, and the hub gave none "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}){advice}"
        ) from None


def ask_once(name: str) -> None:
    """Ask the hub once whether it has a data set, since `datasets` repeats its questions for half a minute.

    Raises what `huggingface_hub` raises if it has none or cannot be reached. A data set in the cache is not asked for.
    """
    import datasets
    from huggingface_hub import HfApi, constants

    tables = Path(datasets.config.HF_DATASETS_CACHE) / name.replace("/", "___")
    files = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
    if not tables.exists() and not files.exists():
        HfApi().dataset_info(name, timeout=PATIENCE)
