"""What is kept on the disk to spare a later run the work: whole or absent, and never a reason to end a run."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where classifiers and reference statistics are kept: $BIGBIGAN_CACHE, or ~/.cache/bigbigan."""
    return Path(os.environ.get("BIGBIGAN_CACHE") or Path.home() / ".cache" / "bigbigan").expanduser()


@contextmanager
def keeping(path: Path) -> Iterator[Path]:
    """A name of one's own beside `path`, to write under and then to rename; where that fails, a full disk say, a warning tells."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
    except (OSError, SafetensorError) as error:  # the latter is what safetensors makes of a full disk
        log.warning("%s: could not be kept, the next run will make it again (%s)", path, error)
        beside.unlink(missing_ok=True)
