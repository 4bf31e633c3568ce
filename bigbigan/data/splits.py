"""Hold out a share of the images where a data set has no splits of its own."""

import numpy as np

from bigbigan.data.images import Images
from bigbigan.errors import DataError


def hold_out(images: Images, test: bool, share: float) -> Images:
    """Return a fixed `share` of the images if `test`, else the rest: the same images whatever the seed of the run."""
    if share > 0 and len(images) < 2:
        raise DataError(
            f"{images.origin}: expected two images or more, since one is held out for evaluation; found one"
        )
    order = np.random.default_rng(0).permutation(len(images))
    count = max(1, round(share * len(images))) if share > 0 and len(images) > 1 else 0
    return images.subset(np.sort(order[:count] if test else order[count:]))
