"""One picture: any file or PIL mode → RGB, crops that never leave the picture, resizing, and the range [−1, 1]."""

import math
import os
import stat

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from bigbigan.errors import Outside
from bigbigan.files import printable

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif")
FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "BMP",
    "DIB",
    "GIF",
    "TIFF",
    "WEBP",
    "PPM",
    "JPEG2000",
    "AVIF",
)  # what Pillow may read for us
LARGEST_PICTURE = 178_956_970  # pixels, as Pillow's own limit: half a gigabyte decoded; above it a file is a bomb
TRIES = 10  # of a random crop (tensorflow/tpu resnet_preprocessing, which the official notebook names)
UNIFORMS = 4 * TRIES + 1  # random numbers a picture may consume
AREA = {"resnet": (0.08, 1.0), "light": (0.5, 1.0)}
ASPECT = {"resnet": (3 / 4, 4 / 3), "light": (1.0, 1.0)}
FILTER = {"resnet": "bicubic", "light": "bilinear", "none": "bicubic"}
ORIENTED = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # keys of a JPEG that may tell how to turn it


class PictureError(ValueError):
    """A picture that cannot be used; the message says what was expected and what was found."""


def open_picture(source) -> Image.Image:
    """The picture in a file, by its path or as a binary stream, not decoded yet. Raises PictureError, or what Pillow
    raises.

    Only the formats above: Pillow would hand a PostScript file, whatever its name, to another program. The path must be
    a file's: opening a pipe would wait for ever.
    """
    if isinstance(source, (str, os.PathLike)) and not stat.S_ISREG(mode := os.stat(source).st_mode):
        raise PictureError(f"expected a file, found {'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'}")
    image = Image.open(source)
    if image.format not in FORMATS:
        raise PictureError(f"expected one of {', '.join(FORMATS)}; found {image.format}")
    check_size(image)
    return image


def why(error: Exception) -> str:
    """What kept a picture from being read, in one line."""
    text = printable(str(error).strip())
    return text if isinstance(error, (PictureError, Outside)) else f"{type(error).__name__}: {text}"


def check_size(image: Image.Image) -> None:
    width, height = image.size
    if width < 1 or height < 1 or width * height > LARGEST_PICTURE:
        raise PictureError(
            f"expected from 1 to {LARGEST_PICTURE:,} pixels, found {width:,} × {height:,}; make it smaller"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image → upright 8-bit RGB; transparency over white, 16 bits scaled to 8, an animation's first frame.

    Raises PictureError for numbers whose range is none of a picture's, or what Pillow raises for a broken file.
    """
    check_size(image)
    if image.format != "JPEG" or image.info.keys() & ORIENTED:
        image = ImageOps.exif_transpose(image)
    elif image.mode == "RGB":
        image.load()  # here, where a broken file is expected to show
        return image  # the common case, without a copy
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float32 if image.mode == "F" else None)
        low, high = float(values.min()), float(values.max())  # NaN if there is any
        most = 255.5 if image.mode == "F" else 65535
        if not -0.5 <= low <= high <= most or (image.mode == "F" and 0 < high <= 1):
            raise PictureError(
                f"expected a picture of mode {image.mode} in 0 … {most:g}, found values from {low:g} to {high:g}; scale it first"
            )
        top = 65535 if image.mode.startswith("I") and high > 255 else 255
        image = Image.fromarray(np.clip(np.rint(values * (255 / top)), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def centre_square(width: int, height: int) -> tuple[int, int, int, int]:
    """The largest centred square, (left, top, right, bottom)."""
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    return left, top, left + edge, top + edge


def random_crop(u: np.ndarray, width: int, height: int, augment: str) -> tuple[int, int, int, int]:
    """The box of a ResNet-style random crop, (left, top, right, bottom), inside the picture.

    u: `UNIFORMS` numbers in (0, 1). Area uniform and aspect log-uniform in the ranges of `augment`; after ten tries
    that do not fit, the centre square. "none" is the centre square.
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
    """`random_crop` of many pictures of one size at once: u (n, UNIFORMS) → boxes (n, 4)."""
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
    """RGB image, box → uint8 (3, size, size), antialiased: Pillow's filters as torch computes them, several times as
    fast.

    Decoding is always at full size: a JPEG's draft mode, which would hand out a smaller picture, is never asked for.
    """
    pixels = np.array(image.crop(box))
    if pixels.shape[:2] == (size, size):
        return pixels.transpose(2, 0, 1)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return F.interpolate(x, size=(size, size), mode=filter, antialias=True)[0].numpy()


def to_signed(x: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) → float32 in [−1, 1]: x/127.5 − 1, as the official notebook feeds the released model."""
    return x.float().div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """float in [−1, 1] → uint8, rounded; the inverse of `to_signed`."""
    return x.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def resample(images: Tensor, boxes: Tensor, size: int, filter: str) -> Tensor:
    """Crop and resize a batch at once on its device, with Pillow's filters: antialiased, a = −0.5 for the bicubic.

    Pillow also rounds to 8 bits between its two passes; we round once, so single values differ by a few units.

    images: uint8 (N, 3, H, W).  boxes: (N, 4) left, top, right, bottom → uint8 (N, 3, size, size).
    """
    height, width = images.shape[2:]
    boxes = boxes.to(images.device, torch.float32)
    horizontal = _filter_matrix(boxes[:, 0], boxes[:, 2], width, size, filter)  # (N, size, W)
    vertical = _filter_matrix(boxes[:, 1], boxes[:, 3], height, size, filter)  # (N, size, H)
    return (vertical[:, None] @ images.float() @ horizontal.mT[:, None]).round_().clamp_(0, 255).to(torch.uint8)


def _filter_matrix(start: Tensor, stop: Tensor, length: int, size: int, filter: str) -> Tensor:
    scale = ((stop - start) / size)[:, None, None]
    stretch = scale.clamp_min(1.0)  # antialiasing: the filter widens when the picture shrinks
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
