"""Read arrays and tensors of images: which axis is which, and which values are black and white.

uint8 has its own range, 0 … 255, and floats are in [−1, 1]. A caller names any other range. An image in another range
than it is read in would give a wrong feature and no error, so what looks like one is refused, or doubted in a warning.
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bigbigan.config import check_value_range
from bigbigan.data.pictures import PictureError, scale_to_8_bits
from bigbigan.errors import InputError, warn_caller
from bigbigan.files import printable

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SIGNED, BYTES = (-1.0, 1.0), (0.0, 255.0)
SLACK = 0.001  # beyond a range, of rounding
OVERSHOOT = 0.1  # beyond a range, of bicubic resizing
ENOUGH = 1_000_000  # values by which a range is suggested
FEWEST_COLUMNS = 8  # of grey images without a channel axis
SMALLEST_ROW = 196  # pixels: of images of 14×14
WHITES = (16, 255, 4095, 65535)  # usual ones: scikit-learn's digits, and 8, 12 and 16 bits, perhaps rounded to bf16
DARK = 1 / 15  # of a range: values that reach no further are doubted; 12 bits in 16, the 16 of the digits in 255


class Ranges(NamedTuple):
    """Hold the values of black and white: `asked` by the caller for all deep images, `trained_on` for those without."""

    asked: tuple[float, float] | None
    trained_on: tuple[float, float] | None

    @staticmethod
    def of(value_range, trained_on) -> "Ranges":
        """Return the checked ranges. Raises InputError."""
        given = value_range.tolist() if isinstance(value_range, (np.ndarray, Tensor)) else value_range
        try:
            return Ranges(check_value_range(given, "value_range"), check_value_range(trained_on, "value_range"))
        except ValueError:
            raise InputError(
                "value_range: expected the values of black and of white, the smaller first, such as (0, 4095); "
                f"found {printable(repr(value_range))}"
            ) from None

    def limits(self, dtype: torch.dtype) -> tuple[float, float] | None:
        """Return black and white for arrays of this type; None for uint8 in 0 … 255 and floats in [−1, 1].

        A range that uint8 cannot hold is not about uint8, which is then 0 … 255.
        """
        asked = self.asked
        if dtype in FLOATS:
            return None if asked == SIGNED else asked
        if dtype == torch.uint8:
            return asked if asked and asked[0] >= 0 and asked[1] <= 255 and asked != BYTES else None
        return asked or (None if dtype == torch.bool else self.trained_on)


class Seen(NamedTuple):
    """Describe the values of n images. limits: their black and white, None for floats in [−1, 1].

    cut: the share of values beyond the limits.
    """

    n: int
    low: float
    high: float
    limits: tuple[float, float] | None
    cut: float


def as_images(images: np.ndarray | Tensor, size: int = 0) -> Tensor:
    """Return an array or tensor of one image or a batch as (n, C, H, W), C 1 or 3, of any real type. Raises InputError.

    Arrays are read as channels-last and tensors as channels-first, unless only the other order has 1, 3 or 4 channels.
    Three axes are one image with channels if the first or last is that short, else a stack of grey images.
    size: the edge of the images that the network sees, if it is known: rows of so many pixels are no picture.
    """
    x, channels_last = array_as_tensor(images), isinstance(images, np.ndarray)
    found = f"found the shape {tuple(images.shape)}"
    if x.ndim == 2 and _are_rows(*x.shape, size):
        raise InputError(
            f"expected one image or a batch of images, {found}, which looks like an image's pixels in each row; "
            "reshape it first, such as to (N, 28, 28), or with the colours first x.reshape(-1, 3, 32, 32); if it is "
            "one picture, give x[None]"
        )
    if x.ndim == 2 or (x.ndim == 3 and not is_single(images)):  # grey, without a channel axis
        x, channels_last = x[None, None] if x.ndim == 2 else x[:, None], False
    elif x.ndim == 3:
        x = x[None]
    if x.ndim == 4 and len(x) == 0:
        raise InputError(f"expected at least one image, {found}")
    if x.ndim != 4 or 0 in x.shape:
        labels = "; these may be labels: give the images alone" if x.ndim == 1 and len(x) else ""
        raise InputError(f"expected one image or a batch of images, {found}{labels}")
    first_fits, last_fits = x.shape[1] in (1, 3, 4), x.shape[3] in (1, 3, 4)
    if not (first_fits or last_fits):
        grey = f"; grey images are {(len(images), 1, *images.shape[1:])}" if images.ndim == 3 else ""
        raise InputError(f"expected 1 or 3 channels, first or last; {found}{grey}; of more bands give 1 or 3")
    if last_fits and (channels_last or not first_fits):
        x = x.permute(0, 3, 1, 2)
    if x.shape[1] == 4:
        four = "; if these are four grey images, give (4, 1, H, W)" if images.ndim == 3 and len(images) == 4 else ""
        raise InputError(
            f"expected 1 or 3 channels, found 4 in the shape {tuple(images.shape)}; blend or drop the alpha channel "
            f"first, or give PIL images, which are laid over white{four}"
        )
    return x


def _are_rows(height: int, width: int, size: int) -> bool:
    """Return whether two axes are rather rows of square images' pixels than a picture: a strip, S² or 3·S² wide.

    Of images of the network's own size any number of rows, but as many as make a square.
    """
    if width in (size**2, 3 * size**2) and height not in (1, width):
        return True
    squares = {math.isqrt(width) ** 2, 3 * math.isqrt(width // 3) ** 2}
    long = width >= SMALLEST_ROW or height > 4 * width
    return long and width in squares and not width / 2 <= height <= 2 * width


def array_as_tensor(images: np.ndarray | Tensor) -> Tensor:
    """Return an array or tensor of real numbers as a tensor that torch can work on. Raises InputError."""
    if isinstance(images, np.ndarray):
        if images.dtype.kind not in "buif" or images.dtype.itemsize > 8 or np.ma.is_masked(images):
            found = "masked values" if np.ma.is_masked(images) else images.dtype
            raise InputError(f"expected an array of uint8 or float, found {found}")
        if not images.dtype.isnative or any(s < 0 for s in images.strides):  # which torch refuses
            images = np.array(images, dtype=images.dtype.newbyteorder("="), order="C")
        if not images.flags.writeable:  # a file mapped into memory, perhaps, which must not be copied as a whole
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns that one could write to it
                return torch.from_numpy(images)
    elif images.layout is not torch.strided or images.device.type == "meta" or images.is_nested:
        kind = "a nested tensor" if images.is_nested else f"layout {images.layout} on the device {images.device}"
        raise InputError(f"expected a dense tensor with values, found {kind}")
    elif images.is_complex() or (images.is_floating_point() and images.dtype not in FLOATS) or images.is_quantized:
        raise InputError(f"expected a tensor of uint8 or float, found {images.dtype}")
    return torch.as_tensor(images)


def is_single(x: np.ndarray | Tensor) -> bool:
    """Return whether three axes are one image with channels, rather than a batch of grey images."""
    if x.shape[2] < FEWEST_COLUMNS:  # so short a last axis means channels, if a wrong number
        return True
    return x.shape[0] in ((1, 3, 4) if isinstance(x, Tensor) else (1, 3))


def doubt_channels(images: np.ndarray | Tensor) -> None:
    """Warn where three axes may be grey images as well as the channels of one: the first is 3, or the last is short."""
    shape = tuple(images.shape)
    if len(shape) != 3:
        return
    n, height, width = shape
    if not is_single(images) and 2 * width <= min(n, height):
        doubt_stack(shape)
    if n == 3 and width not in (1, 3, 4):
        warn_caller(
            f"the shape {shape} is read as one colour image, channels first: give (1, {n}, {height}, {width}) to say "
            f"so, or ({n}, 1, {height}, {width}) for {n} grey images"
        )


def doubt_stack(shape: tuple[int, ...], name: str = "") -> None:
    """Warn that an array with three axes is read as several grey images. name: what the message calls the array."""
    n, height, width = shape
    warn_caller(
        f"{name}{': ' * bool(name)}the shape {shape} is read as {n} grey images of {height}×{width} pixels: give ({n}, "
        f"1, {height}, {width}) to say so; of one picture of many bands or slices give 1 or 3"
    )


def read_values(x: Tensor, ranges: Ranges) -> tuple[Tensor, Seen | None]:
    """Return images (n, C, H, W) as uint8, or as float in [−1, 1], and what values they had. Raises InputError.

    Images with limits are scaled to 8 bits, as a file of their values would be read. None for uint8 images of a caller
    who named a range: these are not doubted. `Values` checks the range of floats.
    """
    limits = ranges.limits(x.dtype)
    if limits is None and x.dtype not in (torch.uint8, *FLOATS):
        first = x.flatten()[:ENOUGH].double()  # torch knows no largest uint16
        fits = next((white for white in (1, *WHITES) if first.max() <= white), int(first.max()))
        example = f"(0, {fits})" if first.min() >= 0 else f"({int(first.min())}, {int(first.max())})"
        raise InputError(
            f"expected uint8 in 0 … 255 or float in [−1, 1], found {x.dtype}; give value_range=, the values of black "
            f"and white, such as {example}, or convert it"
        )
    if limits is None:
        own = BYTES if x.dtype == torch.uint8 else None
        if own and (ranges.asked or x[0].max() > 255 * DARK):  # one bright image is enough, so the rest is not read
            return x, None if ranges.asked else Seen(len(x), 0.0, 255.0, own, 0.0)
        low, high = (float(value) for value in torch.aminmax(x.detach()))  # NaN if there is any
        return x, Seen(len(x), low, high, own, 0.0)
    values = x.detach().cpu().double().numpy()
    try:
        grey = scale_to_8_bits(values, limits, "an array", cut=True)
    except PictureError as error:
        raise InputError(str(error)) from None
    return torch.from_numpy(grey), seen_in(values, limits, len(x))


def seen_in(values: np.ndarray, limits: tuple[float, float], n: int = 1) -> Seen:
    """Describe the values of n images with these limits."""
    low, high = float(values.min()), float(values.max())
    beyond = 0
    if low < limits[0] or high > limits[1]:
        beyond = np.count_nonzero((values < limits[0]) | (values > limits[1]))
    return Seen(n, low, high, limits, beyond / values.size)


class Values:
    """Collect the values of all arrays of one call, and refuse or doubt those that another range would explain."""

    def __init__(self, ranges: Ranges):
        self.ranges = ranges
        self.low, self.high = math.inf, -math.inf  # of floats that are read as [−1, 1]
        self.beyond = ""  # the name of the first array beyond [−1, 1]
        self.limited: dict[tuple[float, float], Seen] = {}  # black and white → what was seen

    def add(self, seen: Seen | None, name: str = "") -> None:
        """Take note of the values of an array. Raises InputError for NaN and infinity.

        name: what a message calls the array.
        """
        if seen is None:
            return
        if seen.limits:
            old = self.limited.get(seen.limits, seen._replace(n=0))
            n = old.n + seen.n
            cut = (old.cut * old.n + seen.cut * seen.n) / n
            self.limited[seen.limits] = Seen(n, min(old.low, seen.low), max(old.high, seen.high), seen.limits, cut)
            return
        if not (math.isfinite(seen.low) and math.isfinite(seen.high)):
            raise InputError(f"{name}{': ' * bool(name)}expected finite values in [−1, 1], found NaN or infinity")
        if max(-seen.low, seen.high) > 1 + SLACK and not self.beyond:
            self.beyond = name
        self.low, self.high = min(self.low, seen.low), max(self.high, seen.high)

    def check(self) -> None:
        """Raise InputError if the floats seen so far are not in [−1, 1], or if all of them are in about [0, 1].

        All-white images are the same in both, and are taken.
        """
        if self.low < -1 - SLACK or self.high > 1 + SLACK:
            first = f", first in {self.beyond}" if self.beyond else ""
            raise InputError(_not_signed(self.low, self.high, first))
        if self.ranges.asked is None and -OVERSHOOT <= self.low < 1:
            about = "" if self.low >= -SLACK else "about "
            raise InputError(
                f"expected float images in [−1, 1], found {about}[0, 1] (values from {self.low:.5g} to "
                f"{self.high:.5g}); pass value_range=(0, 1), or value_range=(-1, 1) if they are in [−1, 1] and bright"
            )

    def doubt(self) -> None:
        """Warn if most values lie beyond the range of their images, one far beyond a usual range, or all near black."""
        for (black, white), seen in self.limited.items():
            found = f"images are read as {black:g} … {white:g}, and the values of these go from {seen.low:.5g} to "
            usual = black == 0 and white in (1, *WHITES) and seen.high > 1.5 * white  # one such value is enough
            if usual or seen.cut > 0.5:
                cut = f"{_share(seen.cut)} of them were cut to black or white"
                warn_caller(f"{found}{seen.high:.5g}: {cut}; is value_range right?")
            elif black < seen.high <= black + (white - black) * DARK:
                warn_caller(
                    f"{found}{seen.high:.5g}, almost black; if {seen.high:.5g} is white, say so by value_range="
                )


def _share(share: float) -> str:
    """Return a share above 0 in percent."""
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"


def _not_signed(low: float, high: float, first: str) -> str:
    """Return the sentence that refuses floats beyond [−1, 1], with the range that they seem to have."""
    values = f"values from {low:.5g} to {high:.5g}{first}"
    if low < -0.8 and low >= -1.2 and high <= 1.2:
        found, cure = f"{values}, a little beyond, as resizing leaves them", "clip them to [−1, 1]"
    elif low > -0.2 and high < 1.2:
        found, cure = f"about [0, 1] ({values})", "pass value_range=(0, 1)"
    elif -2.2 < low < 0 and high < 2.7:
        found = f"{values}, which looks like ImageNet's mean and standard deviation"
        cure = "undo the normalisation, or give uint8, PIL images or paths"
    elif low >= 0 and high > 8 and (white := next((w for w in WHITES if high <= w * 1.004), None)):
        found, cure = f"[0, {white}] ({values})", f"pass value_range=(0, {white})"
    else:
        found, cure = values, "pass value_range=, the values of black and white, or give uint8, PIL images or paths"
    return f"expected float images in [−1, 1], found {found}; {cure}"
