"""Turn the images a caller passes into batches of float (n, 3, S, S) in [−1, 1].

The caller may pass paths, PIL images, arrays, tensors or table columns. The library does the preprocessing: the centre
square, resized to the size the network was trained on. Values are checked, because an image in another range would
give a wrong feature and no error.
"""

import itertools
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bigbigan.config import check_value_range
from bigbigan.data.crops import centre_square, crop_and_resize, resize
from bigbigan.data.folders import image_paths
from bigbigan.data.images import Images
from bigbigan.data.pictures import (
    PictureError,
    open_picture,
    scale_to_8_bits,
    to_rgb,
    to_signed,
    why,
)
from bigbigan.errors import DataError, InputError, Outside
from bigbigan.files import printable

DECODERS = min(8, os.cpu_count() or 1)


def image_batches(
    images,
    size: int | None,
    batch_size: int,
    ahead: int = 2,
    value_range: tuple[float, ...] | float | None = None,
    trained_on: tuple[float, ...] | None = None,
) -> Iterator[Tensor]:
    """Yield float (n, 3, size, size) in [−1, 1], n ≤ batch_size, in the order of `images`. Raises InputError.

    images: a path of an image or of a folder; a PIL image; an array or tensor of one image or a batch, uint8, or float
    in [−1, 1]; or a list, `datasets` column or other iterable of any of these single images.
    size: the edge to resize to; None, for arrays and tensors only, leaves them as they are.
    ahead: batches to decode while the caller works on one; 0 where both would compete for the same cores.
    value_range: the values of black and white in grey pictures of more than 8 bits or of floats, and in arrays that are
    not uint8.  trained_on: those of pictures, and of arrays of whole numbers, where `value_range` is None.
    """
    ranges = _Ranges.of(value_range, trained_on)
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise InputError(f"batch_size: expected a whole number of at least 1, found {batch_size!r}")
    if isinstance(images, (np.ndarray, Tensor)):
        batch = _as_batch(ranges.scaled(images))
        _check_range(batch)
        _doubt_channels(images)
        for part in batch.split(batch_size):
            yield _fit(part, size)
        return
    if size is None:
        raise InputError(f"expected an array or tensor, found {type(images).__name__}")
    with ThreadPoolExecutor(DECODERS) as pool:  # decoding releases the GIL, so it overlaps with the network
        items, waiting = iter(_single_items(images)), deque()
        try:
            while (part := list(islice(items, batch_size))) or waiting:
                if part:
                    waiting.append([pool.submit(_read, item, size, ranges) for item in part])
                if len(waiting) > ahead or not part:
                    yield torch.cat([future.result() for future in waiting.popleft()])
        finally:
            for future in itertools.chain.from_iterable(waiting):
                future.cancel()


def count_images(images) -> int | None:
    """Return the number of images, or None if only reading them would tell."""
    if isinstance(images, Tensor) and (images.is_nested or images.layout is not torch.strided):
        return None
    if isinstance(images, (np.ndarray, Tensor)):
        return len(images) if images.ndim == 4 or (images.ndim == 3 and not _single_3d(images)) else 1
    if isinstance(images, (str, os.PathLike)):
        return len(_paths(images))
    if isinstance(images, Image.Image):
        return 1
    return len(images) if hasattr(images, "__len__") else None


def _single_items(images) -> Iterable:
    if isinstance(images, (str, os.PathLike)):
        return _paths(images)
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, Images):
        return (_Row(images, i) for i in range(len(images)))
    if hasattr(images, "features") and hasattr(images, "column_names"):  # a whole `datasets` table
        from bigbigan.data.tables import from_table

        try:
            table = from_table(images, "the data set")
        except DataError as error:
            raise InputError(str(error)) from None
        return (_Row(table, i) for i in range(len(table)))
    if isinstance(images, Iterable) and not isinstance(images, (bytes, bytearray, memoryview, Mapping, Set)):
        return images
    split = (
        f"; give one of its splits, {', '.join(map(repr, images))}" if type(images).__name__.endswith("Dict") else ""
    )
    raise InputError(
        f"expected a path, an image, an array, a tensor or a list of these, found {type(images).__name__}{split}"
    )


class _Ranges(NamedTuple):
    """Hold the values of black and white: `asked` by the caller for all deep images, `trained_on` for those without."""

    asked: tuple[float, float] | None
    trained_on: tuple[float, float] | None

    @staticmethod
    def of(value_range, trained_on) -> "_Ranges":
        try:
            return _Ranges(check_value_range(value_range, "value_range"), check_value_range(trained_on, "value_range"))
        except ValueError as error:
            raise InputError(str(error)) from None

    def scaled(self, images: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """Return an array or tensor as uint8 if it has such a range, as a file of its values would be read.

        uint8 has its own range, and floats are in [−1, 1] unless the caller asked for another one. What is no dense
        array of numbers is returned as it is, to be refused.
        """
        if isinstance(images, Tensor):
            dense = images.layout is torch.strided and images.device.type != "meta" and not images.is_nested
            kind = "f" if images.is_floating_point() else "c" if images.is_complex() else "i"
        else:
            dense = not np.ma.is_masked(images) and images.dtype.itemsize <= 8
            kind = images.dtype.kind.replace("u", "i")
        limits = self.asked or (None if kind == "f" else self.trained_on)
        if not limits or images.dtype in (np.uint8, torch.uint8, torch.bool) or kind not in "if" or not dense:
            return images
        if 0 in images.shape:
            return images
        tensor = isinstance(images, Tensor)
        values = images.detach().cpu().double().numpy() if tensor else np.asarray(images)
        try:
            grey = scale_to_8_bits(values, limits, "an array", cut=True)
        except PictureError as error:
            raise InputError(str(error)) from None
        return torch.from_numpy(grey) if tensor else grey


class _Row(NamedTuple):
    """Point to an image of a data set that is not read yet."""

    images: Images
    i: int


def _paths(path: str | os.PathLike) -> list[str]:
    path = Path(os.path.expanduser(os.fsdecode(path)))
    try:
        if path.is_dir():
            return image_paths(path)
        if path.is_file():
            return [str(path)]
    except Outside as error:
        raise InputError(f"{error}, or give a list of paths") from None
    except (DataError, OSError) as error:
        raise InputError(str(error)) from None
    raise InputError(f"{printable(path)}: expected an image or a folder of images, found no such file")


def _read(item, size: int, ranges: _Ranges) -> Tensor:
    """Turn one image of any kind into float (1, 3, size, size)."""
    if isinstance(item, (np.ndarray, Tensor)):
        batch = _as_batch(ranges.scaled(item))
        if len(batch) != 1:
            raise InputError(f"expected one image per item of the list, found a batch of {len(batch)}")
        _check_range(batch)
        return _fit(batch, size)
    if not isinstance(item, (str, os.PathLike, Image.Image, _Row)):
        raise InputError(f"expected a path, a PIL image, an array or a tensor, found {type(item).__name__}")
    try:
        own = item.images.value_range if isinstance(item, _Row) else None
        return _fit_picture(_picture(item), size, ranges.asked or own or ranges.trained_on)
    except Exception as error:  # decoders raise many types
        raise InputError(f"{_name(item)}: expected a readable image; {why(error)}; mend it or leave it out") from None


def _picture(item) -> Image.Image:
    if isinstance(item, _Row):
        return item.images[item.i]
    return item if isinstance(item, Image.Image) else open_picture(item)


def _name(item) -> str:
    if isinstance(item, _Row):
        return f"{item.images.origin}, {item.images.name(item.i)}"
    return getattr(item, "filename", "") or "a PIL image" if isinstance(item, Image.Image) else printable(item)


def _fit_picture(image: Image.Image, size: int, value_range: tuple[float, float] | None = None) -> Tensor:
    image = to_rgb(image, value_range)
    pixels = crop_and_resize(image, centre_square(*image.size), size)
    return to_signed(torch.from_numpy(np.ascontiguousarray(pixels))[None])


def _single_3d(x) -> bool:
    """Return whether three axes are one image with channels, rather than a batch of grey images."""
    if isinstance(x, Tensor):
        return x.shape[0] in (1, 3, 4) or x.shape[2] in (1, 3)
    return x.shape[2] < 8 or x.shape[0] in (1, 3)  # so small a last axis means channels, if a wrong number


def _doubt_channels(images: np.ndarray | Tensor) -> None:
    """Warn where three axes, the first of them 3, may be three grey images as well as the channels of one image."""
    shape = tuple(images.shape)
    if len(shape) == 3 and shape[0] == 3 and shape[2] not in (1, 3, 4):
        n, height, width = shape
        warnings.warn(
            f"the shape {shape} is read as one colour image, channels first: give (1, {n}, {height}, {width}) to say "
            f"so, or ({n}, 1, {height}, {width}) for {n} grey images",
            stacklevel=3,
        )


def _as_tensor(images: np.ndarray | Tensor) -> Tensor:
    """Return an array or tensor of images as a tensor of uint8 or float that torch can work on. Raises InputError."""
    if isinstance(images, np.ndarray):
        if images.dtype.kind not in "buif" or images.dtype.itemsize > 8 or np.ma.is_masked(images):
            found = "masked values" if np.ma.is_masked(images) else images.dtype
            raise InputError(f"expected an array of uint8 or float, found {found}")
        if not (images.flags.writeable and images.dtype.isnative and all(s >= 0 for s in images.strides)):
            # torch refuses negative strides and foreign byte orders, and warns of memory that it may not write to
            images = np.array(images, dtype=images.dtype.newbyteorder("="), order="C")
    elif images.layout is not torch.strided or images.device.type == "meta" or images.is_nested:
        raise InputError(
            f"expected a dense tensor with values, found layout {images.layout} on the device {images.device}"
        )
    x = torch.as_tensor(images)
    if x.dtype not in (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise InputError(
            f"expected uint8 in 0 … 255 or float in [−1, 1], found {x.dtype}; give value_range=, the values of black "
            "and white such as (0, 4095), or convert it"
        )
    return x


def _as_batch(images: np.ndarray | Tensor) -> Tensor:
    """Return an array or tensor of one image or a batch as (N, 3, H, W). Raises InputError.

    Arrays are read as channels-last and tensors as channels-first, unless only the other order has 1, 3 or 4 channels.
    Three axes are one image with channels if the first or last is that short, else a stack of grey images.
    """
    x, channels_last = _as_tensor(images), isinstance(images, np.ndarray)
    if x.ndim == 2 or (x.ndim == 3 and not _single_3d(images)):  # grey, without a channel axis
        x, channels_last = x[None, None] if x.ndim == 2 else x[:, None], False
    elif x.ndim == 3:
        x = x[None]
    if x.ndim != 4 or 0 in x.shape:
        raise InputError(f"expected one image or a batch of images, found the shape {tuple(images.shape)}")
    first_fits, last_fits = x.shape[1] in (1, 3, 4), x.shape[3] in (1, 3, 4)
    if not (first_fits or last_fits):
        raise InputError(f"expected 1, 3 or 4 channels, first or last; found the shape {tuple(images.shape)}")
    if last_fits and (channels_last or not first_fits):
        x = x.permute(0, 3, 1, 2)
    channels = x.shape[1]
    if channels == 4:
        found = f"found 4 in the shape {tuple(images.shape)}"
        raise InputError(f"expected 1 or 3 channels, {found}; blend or drop the alpha channel first")
    return x.expand(-1, 3, -1, -1) if channels == 1 else x


def _check_range(x: Tensor) -> None:
    """Raise InputError for float images outside [−1, 1], and warn of those that look like [0, 1]."""
    if x.dtype == torch.uint8:
        return
    low, high = float(x.min()), float(x.max())
    if not torch.isfinite(x).all():
        raise InputError("expected finite values in [−1, 1], found NaN or infinity")
    if low < -1.001 or high > 1.001:
        looks = ""
        if low >= 0 and high > 2:
            looks = ", which looks like 0 … 255 in float"
        elif -2.2 < low < 0 and high < 2.7:
            looks = ", which looks like ImageNet's mean and standard deviation"
        raise InputError(
            f"expected float images in [−1, 1] (x/127.5 − 1), found values from {low:.3g} to {high:.3g}{looks}; "
            "undo the normalisation, or give uint8, PIL images or paths"
        )
    if low >= 0 and high > 0 and x.numel() > 3 and len(x) > 1:
        warnings.warn(
            f"float images are read as [−1, 1], and these lie from {low:.3g} to {high:.3g}: "
            "if they are in [0, 1], give 2x − 1",
            stacklevel=3,
        )


def _fit(x: Tensor, size: int | None) -> Tensor:
    """Cut the centre square of (N, 3, H, W), uint8 or float, resize it to `size` and return float in [−1, 1].

    uint8 images give exactly what a file with the same pixels would.
    """
    if size is not None and tuple(x.shape[2:]) != (size, size):
        if x.dtype == torch.uint8:
            return torch.cat(
                [_fit_picture(Image.fromarray(i.permute(1, 2, 0).contiguous().cpu().numpy()), size) for i in x]
            )
        left, top, right, bottom = centre_square(x.shape[3], x.shape[2])
        x = resize(x.float()[:, :, top:bottom, left:right], size)
    return to_signed(x) if x.dtype == torch.uint8 else x.float().clamp(-1, 1)
