"""Choose crops that never leave the image, and cut and resize them, one image at a time or a batch on its device."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

TRIES = 10  # of a random crop (tensorflow/tpu resnet_preprocessing, which the official notebook names)
UNIFORMS = 4 * TRIES + 1  # random numbers of one image: four a try, and one for the flip
AREA = {"resnet": (0.08, 1.0), "light": (0.5, 1.0)}
ASPECT = {"resnet": (3 / 4, 4 / 3), "light": (1.0, 1.0)}
FILTER = {"resnet": "bicubic", "light": "bilinear", "none": "bicubic"}


@dataclass
class Crop:
    """Say how training images are cut: by `random_crop` of this kind, then flipped with probability 1/2 if `flip`."""

    kind: str = "resnet"
    flip: bool = True


def centre_square(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the box of the largest centred square, (left, top, right, bottom)."""
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    return left, top, left + edge, top + edge


def random_crop(u: np.ndarray, width: int, height: int, augment: str) -> tuple[int, int, int, int]:
    """Return the box of a ResNet-style random crop inside the image, (left, top, right, bottom).

    u: `UNIFORMS` numbers in (0, 1), which decide the crop.
    augment: "resnet" or "light": the area is uniform and the aspect log-uniform in the ranges of `AREA` and `ASPECT`;
    the first of ten tries that fits into the image is taken, else the centre square. "none": the centre square.
    """
    if augment == "none":
        return centre_square(width, height)
    (low, high), (narrow, wide) = AREA[augment], ASPECT[augment]
    for area, aspect, horizontal, vertical in u[: 4 * TRIES].reshape(TRIES, 4):
        area = width * height * (low + area * (high - low))
        aspect = narrow * (wide / narrow) ** aspect
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(horizontal * (width - w + 1)), int(vertical * (height - h + 1))
            return left, top, left + w, top + h
    return centre_square(width, height)


def random_crops(u: np.ndarray, width: int, height: int, augment: str) -> np.ndarray:
    """Return the boxes, (n, 4), of `random_crop` for n images of one size at once; u: (n, UNIFORMS)."""
    boxes = np.tile(centre_square(width, height), (len(u), 1))
    if augment == "none":
        return boxes
    (low, high), (narrow, wide) = AREA[augment], ASPECT[augment]
    area, aspect, horizontal, vertical = np.moveaxis(u[:, : 4 * TRIES].reshape(len(u), TRIES, 4), 2, 0)
    area = width * height * (low + area * (high - low))
    aspect = narrow * (wide / narrow) ** aspect
    w, h = np.rint(np.sqrt(area * aspect)).astype(int), np.rint(np.sqrt(area / aspect)).astype(int)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    found = fits.any(1)
    at = np.arange(len(u))[found], fits.argmax(1)[found]  # the first try that fits
    left, top = (horizontal * (width - w + 1)).astype(int)[at], (vertical * (height - h + 1)).astype(int)[at]
    boxes[found] = np.stack([left, top, left + w[at], top + h[at]], 1)
    return boxes


def crop_and_resize(
    image: Image.Image, box: tuple[int, int, int, int], size: int, filter: str = "bicubic"
) -> np.ndarray:
    """Cut `box` out of an RGB image and resize it to uint8 (3, size, size), antialiased.

    torch's versions of Pillow's filters give the same pixels several times as fast. JPEGs are always decoded at full
    size, never in the draft mode that gives smaller images.
    """
    pixels = np.array(image.crop(box))
    if pixels.shape[:2] == (size, size):
        return pixels.transpose(2, 0, 1)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return F.interpolate(x, size=(size, size), mode=filter, antialias=True)[0].numpy()


def resample(images: Tensor, boxes: Tensor, size: int, filter: str) -> Tensor:
    """Crop and resize a batch at once on its device, with Pillow's filters: antialiased, a = −0.5 for the bicubic.

    images: uint8 (N, 3, H, W).  boxes: (N, 4) of left, top, right, bottom.  Returns uint8 (N, 3, size, size).
    Pillow also rounds to 8 bits between its two passes and we round once, so single values differ by a few units.
    """
    height, width = images.shape[2:]
    boxes = boxes.to(images.device, torch.float32)
    horizontal = _filter_matrix(boxes[:, 0], boxes[:, 2], width, size, filter)  # (N, size, W)
    vertical = _filter_matrix(boxes[:, 1], boxes[:, 3], height, size, filter)  # (N, size, H)
    return (vertical[:, None] @ images.float() @ horizontal.mT[:, None]).round_().clamp_(0, 255).to(torch.uint8)


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
