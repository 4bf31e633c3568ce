"""What is kept on the disk to spare a later run the work: whole or absent, and never a reason to end a run."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where classifiers and reference statistics are kept: $BIGBIGAN_CACHE, or ~/.cache/bigbigan."""
    return Path(os.environ.get("BIGBIGAN_CACHE") or Path.home() / ".cache" / "bigbigan").expanduser()


def store(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write under a name of its own beside `path`, then rename; a warning tells where that fails, as on a
    full disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:  # the latter is what safetensors makes of a full disk
        log.warning("%s: could not be kept, the next run will make it again (%s)", path, error)
        with suppress(OSError):  # it may not even be there
            beside.unlink()
