"""Choose a split by its name, and hold out images: for tests where a data set has no splits, for choices in a run."""

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


MOST_FOR_CHOICES = 10_000  # images: the paper's train_val (BigBiGAN, section 3)


def hold_out_for_choices(images: Images, share: float) -> tuple[Images, Images]:
    """Return (the images to train on, those that choices during a run look at): the same ones whatever the run's seed.

    share: of the images that is held out, at most `MOST_FOR_CHOICES` and at least two. With labels every class gives
    about the same share, and keeps at least one image to train on.  Raises DataError.
    """
    if len(images) < 4:
        raise DataError(
            f"{images.origin}: expected four training images or more, since --run.selection_share holds at least two "
            f"of them out; found {len(images)}"
        )
    count = min(max(2, round(share * len(images))), MOST_FOR_CHOICES)
    order = np.random.default_rng(1).permutation(len(images))
    if images.labels is not None:
        order = order[np.argsort(images.labels[order], kind="stable")]  # by class, in a random order within each
    chosen = order[np.linspace(0, len(order) - 1, count + 2)[1:-1].astype(int)]  # evenly spaced, so alike by class
    if images.labels is not None:
        counts, held = (np.bincount(labels, minlength=1) for labels in (images.labels, images.labels[chosen]))
        held = np.pad(held, (0, len(counts) - len(held)))
        used_up = np.flatnonzero((held == counts) & (held > 0))
        for label in used_up:
            chosen = np.delete(chosen, np.flatnonzero(images.labels[chosen] == label)[0])
    rest = np.ones(len(images), dtype=bool)
    rest[chosen] = False
    return images.subset(np.flatnonzero(rest)), images.subset(np.sort(chosen))
