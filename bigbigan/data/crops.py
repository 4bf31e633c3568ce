"""Choose crops that never leave the image, and cut and resize them, one image at a time or a batch on its device."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from bigbigan.distributed import to_device

TRIES = 10  # of a random crop (tensorflow/tpu resnet_preprocessing, which the official notebook names)
UNIFORMS = 4 * TRIES + 1  # random numbers of one image: four a try, and one for the flip
AREA = {"resnet": (0.08, 1.0), "light": (0.5, 1.0), "tf_resnet": (0.08, 1.0)}
ASPECT = {"resnet": (3 / 4, 4 / 3), "light": (1.0, 1.0), "tf_resnet": (3 / 4, 4 / 3)}
FILTER = {"resnet": "bicubic", "light": "bilinear", "tf_resnet": "bicubic", "none": "bicubic"}
COVERED = 0.1  # least share of the image in a "tf_resnet" crop (min_object_covered, the object being the whole image)


@dataclass
class Crop:
    """Say how training images are cut: by `random_crop` of this kind, then flipped with probability 1/2 if `flip`."""

    kind: str
    flip: bool = True


def centre_square(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the box of the largest centred square, (left, top, right, bottom)."""
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    return left, top, left + edge, top + edge


class Maths(NamedTuple):
    """Hold the functions that a crop's law needs, for numbers or for arrays, so that the law is written once."""

    sqrt: Callable
    rounded: Callable  # to whole numbers, halves to even ones
    floor: Callable
    smaller: Callable


NUMBERS = Maths(math.sqrt, round, int, min)
ARRAYS = Maths(np.sqrt, lambda x: np.rint(x).astype(int), lambda x: x.astype(int), np.minimum)


def random_crop(u: np.ndarray, width: int, height: int, augment: str) -> tuple[int, int, int, int]:
    """Return the box of a random crop inside the image, (left, top, right, bottom).

    u: `UNIFORMS` numbers in (0, 1), which decide the crop.
    augment: "resnet" or "light": torchvision's law in the ranges of `AREA` and `ASPECT`. "tf_resnet": TensorFlow's law.
    The first of ten tries that fits into the image is taken, else the centre square. "none": the centre square.
    """
    if augment == "none":
        return centre_square(width, height)
    for one, two, horizontal, vertical in u[: 4 * TRIES].reshape(TRIES, 4).tolist():
        w, h, fits = _try(one, two, width, height, augment, NUMBERS)
        if fits:
            left, top = int(horizontal * _places(width - w, augment)), int(vertical * _places(height - h, augment))
            return left, top, left + w, top + h
    return centre_square(width, height)


def random_crops(u: np.ndarray, width: int, height: int, augment: str) -> np.ndarray:
    """Return the boxes, (n, 4), of `random_crop` for n images of one size at once; u: (n, UNIFORMS)."""
    boxes = np.tile(centre_square(width, height), (len(u), 1))
    if augment == "none":
        return boxes
    one, two, horizontal, vertical = np.moveaxis(u[:, : 4 * TRIES].reshape(len(u), TRIES, 4), 2, 0)
    w, h, fits = _try(one, two, width, height, augment, ARRAYS)
    found = fits.any(1)
    at = np.arange(len(u))[found], fits.argmax(1)[found]  # the first try that fits
    left = (horizontal * _places(width - w, augment)).astype(int)[at]
    top = (vertical * _places(height - h, augment)).astype(int)[at]
    boxes[found] = np.stack([left, top, left + w[at], top + h[at]], 1)
    return boxes


def _try(one, two, width: int, height: int, augment: str, maths: Maths):
    """Return the width and height that one try draws from two uniform numbers, and whether it may be taken."""
    law = _tensorflow_size if augment == "tf_resnet" else _torchvision_size
    return law(one, two, width, height, augment, maths)


def _places(room, augment: str):
    """Return between how many places of one axis a crop's beginning is drawn; room: pixels that it leaves free.

    TensorFlow never draws the last place.
    """
    return room if augment == "tf_resnet" else room + 1


def _torchvision_size(area, aspect, width: int, height: int, augment: str, maths: Maths):
    """Draw the size as torchvision's RandomResizedCrop does: the area uniformly, the aspect log-uniformly."""
    (low, high), (narrow, wide) = AREA[augment], ASPECT[augment]
    area = width * height * (low + area * (high - low))
    aspect = narrow * (wide / narrow) ** aspect
    w, h = maths.rounded(maths.sqrt(area * aspect)), maths.rounded(maths.sqrt(area / aspect))
    return w, h, (w > 0) & (w <= width) & (h > 0) & (h <= height)


def _tensorflow_size(tall, aspect, width: int, height: int, augment: str, maths: Maths):
    """Draw the size as tf.image.sample_distorted_bounding_box does, around the whole image.

    The aspect is uniform. Then the height is a uniform whole number, from the one that gives the least area to the one
    that gives the largest area which fits into the image; the width follows. So small crops are more frequent than with
    a uniform area. A crop of less than `COVERED` of the image is refused.
    Source: tensorflow/core/kernels/image/sample_distorted_bounding_box_op.cc, there in float32.
    """
    (low, high), (narrow, wide) = AREA[augment], ASPECT[augment]
    least, most = low * width * height, high * width * height
    aspect = narrow + aspect * (wide - narrow)
    widest = maths.floor((width + 0.5 - 1e-7) / aspect)  # the height from which on the width would not fit
    tallest = maths.rounded(maths.sqrt(most / aspect))
    tallest = maths.smaller(maths.smaller(tallest, widest), height)
    shortest = maths.smaller(maths.rounded(maths.sqrt(least / aspect)), tallest)
    h = shortest + maths.floor(tall * (tallest - shortest + 1))
    h = h + (maths.rounded(h * aspect) * h < least)  # rounding may have led out of the range by a row
    h = h - (maths.rounded(h * aspect) * h > most)
    w = maths.rounded(h * aspect)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height) & (w * h >= least) & (w * h <= most)
    return w, h, fits & (w * h >= COVERED * width * height)


def vertical_first(width, height, size: int):
    """Return whether the vertical pass comes first when width × height pixels become size × size.

    Each of the two passes ends in values of 8 bits, so their order shows where the first one overshoots. It is that of
    Pillow from version 13 on: vertical for tall images, horizontal for all others (versions before: for all).
    """
    return (height > size) & (height + size > 2 * width)


def size_of(image: Image.Image | np.ndarray) -> tuple[int, int]:
    """Return the width and height of a PIL image or of an array (H, W, 3)."""
    return image.shape[1::-1] if isinstance(image, np.ndarray) else image.size


def crop_and_resize(
    image: Image.Image | np.ndarray, box: tuple[int, int, int, int], size: int, filter: str = "bicubic"
) -> np.ndarray:
    """Cut `box` out of an RGB image, PIL or uint8 (H, W, 3), and resize it to uint8 (3, size, size), antialiased.

    The result is within 2/255 of what `image.crop(box).resize((size, size), filter)` gives with Pillow 13. JPEGs are
    always decoded at full size, never in the draft mode that gives smaller images.
    """
    left, top, right, bottom = box
    pixels = image[top:bottom, left:right].copy() if isinstance(image, np.ndarray) else np.array(image.crop(box))
    if pixels.shape[:2] == (size, size):
        return pixels.transpose(2, 0, 1)
    return resize(torch.from_numpy(pixels).permute(2, 0, 1)[None], size, filter)[0].numpy()


def resize(x: Tensor, size: int, filter: str = "bicubic") -> Tensor:
    """Resize (N, 3, H, W), uint8 or float in [−1, 1], to size × size: in two antialiased passes, as Pillow does.

    torch's versions of Pillow's filters are several times as fast. Values are cut to the range after each pass; floats
    are not rounded, so they are within 2/255 of what 8 bits give.
    """
    height, width = x.shape[2:]
    first = (size, width) if vertical_first(width, height, size) else (height, size)
    if not x.is_floating_point() and first == (height, size):
        return F.interpolate(x, size=(size, size), mode=filter, antialias=True)  # both passes in one call
    for shape in (first, (size, size)):
        if x.shape[2:] != shape:
            x = F.interpolate(x, size=shape, mode=filter, antialias=True)
            x = x.clamp(-1, 1) if x.is_floating_point() else x
    return x


def resample(images: Tensor, boxes: Tensor, size: int, filter: str) -> Tensor:
    """Crop and resize a batch at once on its device: as `crop_and_resize` does one by one, within 2/255.

    images: uint8 (N, 3, H, W).  boxes: (N, 4) of left, top, right, bottom.  Returns uint8 (N, 3, size, size).
    """
    boxes = boxes.cpu()
    tall = vertical_first(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1], size)
    orders = [order for order in (True, False) if bool((tall == order).any())]
    found = [_two_passes(images, boxes, size, filter, order) for order in orders]
    if len(found) == 1:
        return found[0]
    # Both orders for all images: parts of a batch would have another shape each time, which XLA compiles anew.
    return torch.where(to_device(tall, images.device)[:, None, None, None], *found)


def _two_passes(images: Tensor, boxes: Tensor, size: int, filter: str, tall: bool) -> Tensor:
    """Resample `images` with their boxes, the vertical pass first if `tall`; rounded to 8 bits after each pass."""
    height, width = images.shape[2:]
    boxes = to_device(boxes.float(), images.device)
    with torch.autocast(images.device.type, enabled=False):
        horizontal = _filter_matrix(boxes[:, 0], boxes[:, 2], width, size, filter).mT[:, None]  # (N, 1, W, size)
        vertical = _filter_matrix(boxes[:, 1], boxes[:, 3], height, size, filter)[:, None]  # (N, 1, size, H)
        x = images.float()
        x = _to_8_bits(vertical @ x) @ horizontal if tall else vertical @ _to_8_bits(x @ horizontal)
    return _to_8_bits(x).to(torch.uint8)


def _to_8_bits(x: Tensor) -> Tensor:
    """Round halves up, in place, and cut to 0 … 255, as Pillow does after each pass."""
    return x.add_(0.5).floor_().clamp_(0, 255)


def _filter_matrix(start: Tensor, stop: Tensor, length: int, size: int, filter: str) -> Tensor:
    """Return, for each box, the weights of `length` input pixels in each of `size` output pixels, (N, size, length)."""
    scale = ((stop - start) / size)[:, None, None]
    stretch = scale.clamp_min(1.0)  # antialiasing: the filter widens when the image shrinks
    centre = start[:, None, None] + (torch.arange(size, device=start.device)[None, :, None] + 0.5) * scale
    pixel = torch.arange(length, device=start.device)[None, None, :] + 0.5
    distance = ((pixel - centre) / stretch).abs()
    if filter == "bilinear":
        weight = (1 - distance).clamp_min(0)
    else:  # Keys' cubic with a = −1/2
        near = (1.5 * distance - 2.5) * distance.square() + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weight = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
    inside = (pixel > start[:, None, None]) & (pixel < stop[:, None, None])
    weight = weight * inside
    return weight / weight.sum(2, keepdim=True)
