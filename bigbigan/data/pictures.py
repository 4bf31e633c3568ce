"""Decode one image: any file or PIL mode to RGB, and uint8 to and from the range [−1, 1]."""

import os
import stat

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from bigbigan.errors import Outside
from bigbigan.files import printable

try:  # the extra bigbigan[heif]
    import pillow_heif

    pillow_heif.register_heif_opener()
    HEIF = True
except ImportError:
    HEIF = False

HEIF_EXTENSIONS = (".heic", ".heif", ".hif")
EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif",
    ".jfif", ".jpe", ".mpo", ".apng", ".dib", ".pbm", ".pnm", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c", ".avifs",
    *(HEIF_EXTENSIONS if HEIF else ()),
)  # fmt: skip
# The formats that Pillow may decode for us.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF") + ("HEIF",) * HEIF
LARGEST_PICTURE = 178_956_970  # pixels, Pillow's own limit: half a gigabyte decoded; beyond it a file may be a bomb
ORIENTED = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # JPEG metadata that may hold its orientation


class PictureError(ValueError):
    """Report an image that cannot be used; the message says what was expected and what was found."""


def open_picture(source) -> Image.Image:
    """Open an image file, given its path or a binary stream, without decoding it yet.

    Only `FORMATS` are accepted, since Pillow passes PostScript files, whatever their names, to another program; and
    only regular files, since opening a pipe would wait for ever. Raises PictureError, or what Pillow raises.
    """
    if isinstance(source, (str, os.PathLike)) and not stat.S_ISREG(mode := os.stat(source).st_mode):
        raise PictureError(f"expected a file, found {'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'}")
    image = Image.open(source)
    if image.format not in FORMATS:
        raise PictureError(f"expected one of {', '.join(FORMATS)}; found {image.format}")
    check_size(image)
    return image


def why(error: Exception) -> str:
    """Return in one line why an image could not be read."""
    text = printable(str(error).strip())
    return text if isinstance(error, (PictureError, Outside)) else f"{type(error).__name__}: {text}"


def check_size(image: Image.Image) -> None:
    """Raise PictureError for an image without pixels or with more than `LARGEST_PICTURE`."""
    width, height = image.size
    if width < 1 or height < 1 or width * height > LARGEST_PICTURE:
        raise PictureError(
            f"expected from 1 to {LARGEST_PICTURE:,} pixels, found {width:,} × {height:,}; make it smaller"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any PIL image to upright 8-bit RGB.

    Transparent pixels are laid over white, 16 bits are scaled to 8, and of an animation the first frame is taken.
    Raises PictureError for values in another range than an image's, or what Pillow raises for a broken file.
    """
    check_size(image)
    if image.format != "JPEG" or image.info.keys() & ORIENTED:
        image = ImageOps.exif_transpose(image)
    elif image.mode == "RGB":
        image.load()  # decodes now, where callers expect a broken file to raise
        return image  # the common case needs no copy
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float32 if image.mode == "F" else None)
        low, high = float(values.min()), float(values.max())  # NaN if there is any
        most = 255.5 if image.mode == "F" else 65535
        if not -0.5 <= low <= high <= most or (image.mode == "F" and 0 < high <= 1):
            found = f"values from {low:g} to {high:g}"
            raise PictureError(
                f"expected a picture of mode {image.mode} in 0 … {most:g}, found {found}; scale it first"
            )
        top = 65535 if image.mode.startswith("I") and high > 255 else 255
        image = Image.fromarray(np.clip(np.rint(values * (255 / top)), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def to_signed(x: Tensor) -> Tensor:
    """Map uint8 (N, 3, H, W) to float32 in [−1, 1]: x/127.5 − 1, as the official notebook feeds the released model."""
    return x.float().div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """Map float in [−1, 1] to uint8 with rounding: the inverse of `to_signed`."""
    return x.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
