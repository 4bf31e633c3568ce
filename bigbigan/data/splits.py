"""Choose a split by its name, and hold out a share of the images where a data set has no splits."""

import numpy as np

from bigbigan.data.images import Images
from bigbigan.errors import DataError

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "val", "valid", "validation")


def pick_split(split: str, found: list[str], where) -> str:
    """Return the name in `found` that is `split` or means the same ("val" for "test"), or the only one there is.

    where: the folder or data set, for the message.  Raises DataError.
    """
    alike = TRAIN_NAMES if split in TRAIN_NAMES else TEST_NAMES if split in TEST_NAMES else (split,)
    for name in (split, *alike):
        if name in found:
            return name
    if len(found) == 1:
        return found[0]
    raise DataError(
        f"{where}: expected a split {split!r}, found {', '.join(found)}; choose with --data.split and --data.test_split"
    )


def hold_out(images: Images, test: bool, share: float) -> Images:
    """Return a fixed `share` of the images if `test`, else the rest: the same images whatever the seed of the run."""
    if share > 0 and len(images) < 2:
        raise DataError(
            f"{images.origin}: expected two images or more, since one is held out for evaluation; found one"
        )
    order = np.random.default_rng(0).permutation(len(images))
    count = max(1, round(share * len(images))) if share > 0 and len(images) > 1 else 0
    return images.subset(np.sort(order[:count] if test else order[count:]))
