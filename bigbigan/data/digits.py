"""Read the embedded data set, scikit-learn's handwritten digits: `--data.path digits`."""

import numpy as np

from bigbigan.data.images import Arrays, Found, Images, Request


def open_digits(request: Request) -> Found | None:
    """Return the digits if the path is the word "digits", else None.

    There are 1,797 images of 8×8 pixels in 17 greys; every fifth image is the test split.
    """
    if request.path != "digits":
        return None
    from sklearn.datasets import load_digits

    digits = load_digits()
    greys = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    chosen = (np.arange(len(greys)) % 5 == 4) == request.test
    labels = digits.target[chosen].astype(np.int64)
    names = [str(digit) for digit in digits.target_names]
    return Found(Images(Arrays(greys[chosen]), labels, names, "scikit-learn's digits", "8×8 grey"), whole=False)
