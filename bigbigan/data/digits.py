"""Read the embedded data sets: scikit-learn's handwritten digits, with or without their negatives."""

import numpy as np

from bigbigan.data.images import Arrays, Found, Images, Request

NAMES = ("digits", "digits_negatives")


def open_digits(request: Request) -> Found | None:
    """Return the embedded data set that the path names, "digits" or "digits_negatives"; None for another path.

    "digits": 1,797 images of 8×8 pixels in 17 greys, white on black; every fifth image is the test split.
    "digits_negatives": each of these digits twice, white on black and black on white, one after the other. A digit and
    its negative are in the same split.
    """
    if request.path not in NAMES:
        return None
    from sklearn.datasets import load_digits

    digits = load_digits()
    greys = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    chosen = (np.arange(len(greys)) % 5 == 4) == request.test
    greys, labels = greys[chosen], digits.target[chosen].astype(np.int64)
    names = [str(digit) for digit in digits.target_names]
    origin = "scikit-learn's digits"
    if request.path == "digits_negatives":
        greys, labels = np.stack([greys, 255 - greys], axis=1).reshape(-1, 8, 8), labels.repeat(2)
        origin += " and their negatives"
    return Found(Images(Arrays(greys), labels, names, origin, "8×8 grey"), whole=False)
