"""Decode one image: any file or PIL mode to RGB, and uint8 to and from the range [−1, 1]."""

import errno
import functools
import io
import math
import os
import re
import stat
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
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
ALLOWED = f"expected from 1 to {LARGEST_PICTURE:,} pixels"
TOO_LARGE = "; cut it into tiles, or make it smaller"
ORIENTED = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # JPEG metadata that may hold its orientation

RGB_MODE = 3  # torchvision's ImageReadMode.RGB
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, PLANAR, SAMPLE_FORMAT = 258, 262, 277, 284, 339  # TIFF tags
EXTRA_SAMPLES = 338
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # bands by PHOTOMETRIC: grey, RGB, palette, CMYK, YCbCr, Lab
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PAGE_KIND, SMALLER, MASK = 254, 1, 4  # a TIFF tag, and its bits for a copy of fewer pixels and for a mask
FAILURES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)  # a machine's
SEVERAL_PAGES = "bigbigan: pages"  # of `Image.info`: the file has several pages or frames, of which this is the first
DEEP_VALUES = "bigbigan: values"  # of `Image.info`: those of a picture of more than 8 bits, and its black and white
SMALL_GREYS = {"L;2": 85, "L;4": 17}  # what Pillow multiplies greys of 2 and 4 bits by


class PictureError(ValueError):
    """Report an image that cannot be used; the message says what was expected and what was found."""


class ValuesError(PictureError):
    """Report an image whose values have no meaning without a range, or lie beyond it."""


def how_to_read(file: Path) -> str:
    """Return, for a message that a file is no image, what it is by its suffix and what to do; "" for other files."""
    suffix = file.suffix.lower()
    if suffix in (".npy", ".npz"):
        return f" ({suffix}); in Python pass the array in it; else save its images as files, a folder a class"
    if suffix in (".mat", ".h5", ".hdf5", ".pkl", ".bin", ".pt", ".pth", ".tfrecord", ".mdb", ".lmdb", ".csv", ".json"):
        return f" ({suffix}); save its images as files, a folder a class, or with `datasets` as Parquet"
    if suffix in (".dcm", ".dicom", ".nii"):
        return f" ({suffix}); save its images as PNG files of 16 bits, and give the values of black and white"
    if suffix in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"):
        return f" ({suffix}); unpack it and name the folder"
    return ""


def open_picture(source) -> Image.Image:
    """Open an image file, given its path or a binary stream, without decoding it yet.

    Only `FORMATS` are accepted, since Pillow passes PostScript files, whatever their names, to another program; and
    only regular files, since opening a pipe would wait for ever. Raises PictureError, or what Pillow raises.
    """
    if isinstance(source, (str, os.PathLike)):
        _check_file(source)
    try:
        image = Image.open(source)
    except Image.DecompressionBombError as error:
        found = "".join(re.findall(r"\((\d+) pixels", str(error))[:1])
        raise PictureError(f"{ALLOWED}, found {f'{int(found):,}' if found else 'more'}{TOO_LARGE}") from None
    except UnidentifiedImageError:
        if bands := _unknown_tiff(source):
            raise PictureError(_unreadable_bands(bands)) from None
        raise
    if image.format not in FORMATS:
        raise PictureError(f"expected one of {', '.join(FORMATS)}; found {image.format}")
    check_size(image)
    if image.format == "TIFF":
        _check_bands(image)
    return image


def _unreadable_bands(bands: str) -> str:
    """Return the sentence about a TIFF of these bands: "13 bands of 16 bits", "one band of 64 bits as floats"."""
    if bands.startswith("one band"):
        cure = "save it as float32, or as unsigned 8 or 16 bits, and give the values of black and white"
        return f"expected a TIFF of one band of 8, 12, 16 or 32 bits, found {bands}; {cure}"
    return (
        f"expected a TIFF of one band, or of three or four of 8 bits, found {bands}; save three as 8 bits, "
        "as of Sentinel-2: gdal_translate -b 4 -b 3 -b 2 -ot Byte -scale 0 3000 0 255"
    )


def _check_bands(image: Image.Image) -> None:
    """Raise PictureError for a TIFF that Pillow reads wrong, or whose further bands it drops."""
    tags = image.tag_v2
    bits, count = tuple(tags.get(BITS_PER_SAMPLE, ())), int(tags.get(SAMPLES_PER_PIXEL, 1))
    if 2 in tags.get(SAMPLE_FORMAT, ()) and max(bits, default=0) == 8:
        raise PictureError(_unreadable_bands("one band of 8 bits with a sign" if count == 1 else "bands with a sign"))
    transparency = any(kind in (1, 2) for kind in tags.get(EXTRA_SAMPLES, ()))
    further = count - COLOURS.get(tags.get(PHOTOMETRIC, 1), count) - transparency
    if further > 0:
        found = "one that is no colour" if further == 1 else f"{further} that are no colours"
        raise PictureError(
            f"expected bands of grey, or of red, green and blue, found {count} bands, with {found}; save the ones to "
            f"see: gdal_translate -b 1{' -b 2 -b 3' * (count > 3)}"
        )
    if len(bits) > 1 and max(bits) > 8 and image.tag_v2.get(PLANAR) == 2:
        raise PictureError(
            f"expected bands of 8 bits, or of 16 bits pixel by pixel, found {len(bits)} bands of {max(bits)} bits, one "
            "after the other; scale them to 8 bits and save them as PNG"
        )


def _unknown_tiff(source) -> str:
    """Return the bands of a TIFF that Pillow does not know, such as "13 bands of 16 bits"; "" for what is no TIFF.

    source: as of `open_picture`.
    """
    try:
        with open(source, "rb") if isinstance(source, (str, os.PathLike)) else nullcontext(source) as file:
            file.seek(0)
            header = file.read(8)
            if header[:4] not in TIFF_BEGINNINGS:
                return ""
            header += file.read(8) if 43 in header[2:4] else b""
            directory = TiffImagePlugin.ImageFileDirectory_v2(header)
            file.seek(directory.next)
            with warnings.catch_warnings(action="error"):
                directory.load(file)
        bits, count = directory[BITS_PER_SAMPLE], directory[SAMPLES_PER_PIXEL]
        is_float = 3 in directory.get(SAMPLE_FORMAT, ())
        usual = bits[0] == 32 if is_float else bits[0] in (1, 2, 4, 8, 12, 16, 32)
        colours = count in (3, 4) and max(bits) == 8 and directory.get(PHOTOMETRIC) != 1
        if colours or (count == 1 and usual):  # then it is something else that Pillow lacks
            return ""
        return f"{'one band' if count == 1 else f'{count} bands'} of {max(bits)} bits{' as floats' * is_float}"
    except Exception:  # a file that is torn or was made to mislead: Pillow's own words follow
        return ""


def _check_file(path: str | os.PathLike) -> None:
    if not stat.S_ISREG(mode := os.stat(path).st_mode):
        raise PictureError(f"expected a file, found {'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'}")


def decode_rgb(
    source: bytes | str | os.PathLike, value_range: tuple[float, float] | None = None
) -> Image.Image | np.ndarray:
    """Decode an encoded image, its bytes or the path of its file, to upright 8-bit RGB.

    Returns a PIL image, or uint8 (H, W, 3) where that is faster. `crops.crop_and_resize` takes both. The image's `info`
    has SEVERAL_PAGES if the file has more than this one.
    value_range: see `to_rgb`.  Raises PictureError, or what Pillow raises.
    """
    content = source if isinstance(source, bytes) else b""
    if not isinstance(source, bytes) and os.fspath(source).lower().endswith(".webp"):
        _check_file(source)
        with open(source, "rb") as file:
            content = file.read()
    pixels = _decode_webp(content)
    if pixels is not None:
        return pixels
    with open_picture(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        rgb = to_rgb(image, value_range)
        if has_pages(image):
            rgb.info[SEVERAL_PAGES] = True
        return rgb


def _decode_webp(content: bytes) -> np.ndarray | None:
    """Return a plain lossy WebP image as uint8 (H, W, 3); None for all others, and for damaged ones.

    The values are Pillow's, which goes through WebP's decoder of animations and takes 1.4 times as long. Plain are
    files of one chunk, "VP8 ": without transparency, animation, orientation or colour profile. The chunk must be whole,
    since the decoder fills what is missing with grey.
    """
    if content[:4] != b"RIFF" or content[8:16] != b"WEBPVP8 ":
        return None
    riff, chunk = (int.from_bytes(content[at : at + 4], "little") for at in (4, 16))
    width, height = (int.from_bytes(content[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    if not riff + 8 == chunk + chunk % 2 + 20 == len(content) or not 0 < width * height <= LARGEST_PICTURE:
        return None
    if (decode := _webp_decoder()) is None:
        return None
    try:
        encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)  # a copy, since torch wants to write to it
        return decode(encoded, RGB_MODE).permute(1, 2, 0).numpy()
    except RuntimeError:  # damaged, or torchvision was built without WebP: Pillow decodes, or says what is wrong
        return None


@functools.cache
def _webp_decoder() -> Callable | None:
    """Return torchvision's decoder of WebP, None where it has none: its decoders are deprecated from 0.29 on."""
    try:
        import torchvision.io  # noqa: F401  (registers the operator, which is called without the warning)

        return torch.ops.image.decode_webp.default
    except (ImportError, AttributeError, RuntimeError):
        return None


def why(error: Exception) -> str:
    """Return in one line why an image could not be read. If the machine is at fault, raises the error again."""
    if isinstance(error, OSError) and error.errno in FAILURES:
        raise error
    text = printable(str(error).strip())
    return text if isinstance(error, (PictureError, Outside)) else f"{type(error).__name__}: {text}"


def check_size(image: Image.Image) -> None:
    """Raise PictureError for an image without pixels or with more than `LARGEST_PICTURE`."""
    width, height = image.size
    if width < 1 or height < 1 or width * height > LARGEST_PICTURE:
        raise PictureError(f"{ALLOWED}, found {width:,} × {height:,}{TOO_LARGE * (width * height > 0)}")


def to_rgb(image: Image.Image, value_range: tuple[float, float] | None = None) -> Image.Image:
    """Convert any PIL image to upright 8-bit RGB.

    Transparent pixels are laid over white, and of an animation the first frame is taken.
    Pictures of more than 8 bits a channel are scaled to 8 as their mode and bit depth say, whatever values they hold.
    value_range: the values of black and white in grey pictures of more than 8 bits or of floats; other pictures have
    theirs. What lies beyond is cut. None for the whole range of 16 or 12 bits; floats are then refused.
    Raises PictureError for values in another range than an image's, for a TIFF whose transparency must be another band,
    for colours of 16 bits with a value_range, which Pillow has cut to 8, or what Pillow raises for a broken file.
    """
    check_size(image)
    if value_range and tuple(value_range) != (0.0, 65535.0) and _deep_colours(image):
        raise PictureError(
            f"expected grey pictures or colours of 8 bits for the values of black and white "
            f"{value_range[0]:g} {value_range[1]:g}, found colours of 16 bits; scale them to 8 bits first"
        )
    _decode_turned(image)
    if is_deep(image):
        return _deep_to_rgb(image, value_range)
    tiff = image.format == "TIFF"  # which a turned image forgets
    if image.format != "JPEG" or image.info.keys() & ORIENTED:
        _scale_transparency(image)
        image = ImageOps.exif_transpose(image)
    elif image.mode == "RGB":
        image.load()  # decodes now, where callers expect a broken file to raise
        return image  # the common case needs no copy
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")  # Pillow knows no direct way
        if tiff:
            _check_transparency(image)
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _decode_turned(image: Image.Image) -> None:
    """Decode a TIFF that its orientation turns by a quarter.

    Pillow maps an uncompressed file that it opened by name into memory with the width and the height of the turned
    picture, which shears it. Without the name it reads the file instead.
    """
    if image.format == "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8):
        name, image.filename = image.filename, ""
        try:
            image.load()
        finally:
            image.filename = name


def _deep_colours(image: Image.Image) -> bool:
    """Return whether a file that is not decoded yet has colours of 16 bits, of which Pillow keeps the upper 8."""
    tiles = getattr(image, "tile", None)  # of a picture that no file holds there is none
    mode = tiles[0][3] if tiles else ""
    mode = mode[0] if isinstance(mode, tuple) and mode else mode
    return not is_deep(image) and isinstance(mode, str) and ";16" in mode


def _check_transparency(image: Image.Image) -> None:
    """Raise PictureError for a TIFF (RGBA) whose transparency varies as another band does, infrared mostly.

    GDAL marks a fourth band of 8 bits as transparency, whatever it holds. True transparency is nearly everywhere whole
    or none.
    """
    counts = image.getchannel("A").histogram()
    if counts[0] + counts[255] < 0.5 * sum(counts):
        raise PictureError(
            "expected a fourth band that says what is transparent, found one with values in between over most of the "
            "picture, as infrared has; save the three bands that are to be seen: gdal_translate -b 1 -b 2 -b 3"
        )


def is_deep(image: Image.Image) -> bool:
    """Return whether the image is grey with more than 8 bits a pixel: Pillow's modes I (integers) and F (floats)."""
    return image.mode.startswith("I") or image.mode == "F"


def has_pages(image: Image.Image) -> bool:
    """Return whether an opened file has several pages or frames, of which the first is read.

    Not counted are a TIFF's smaller copies of its picture and its masks, as maps have, nor the pictures that phones
    hide behind a JPEG. May leave the image at its second page, so it comes after the first one was decoded.
    """
    if image.format not in ("TIFF", "GIF", "PNG", "WEBP", "AVIF"):
        return False
    try:
        if image.format != "TIFF" or not image.is_animated:
            return image.is_animated
        image.seek(1)
        return not image.tag_v2.get(PAGE_KIND, 0) & (SMALLER | MASK)
    except Exception:  # what follows the first page is damaged, which does not concern it
        return False


def natural_range(image: Image.Image) -> tuple[float, float] | None:
    """Return the values of black and white that the mode and the bit depth of an image say; None for floats.

    Mode I is taken as 16 bits, which Pillow reads into it. Only TIFF files have 12 bits.
    """
    if not is_deep(image):
        return 0.0, 255.0
    if image.mode == "F":
        return None
    twelve = image.format == "TIFF" and tuple(image.tag_v2.get(BITS_PER_SAMPLE, ())) == (12,)
    return 0.0, 4095.0 if twelve else 65535.0


def limits_of(image: Image.Image, value_range: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the values of black and white in a decoded image: those of `value_range` if it has more than 8 bits.

    Must be asked before the image is decoded.
    """
    if not value_range or not is_deep(image):
        return natural_range(image)
    factor = 1.0
    if image.format == "PPM" and image.tile and image.tile[0][0].startswith("ppm"):
        how = image.tile[0][3]
        factor = 65535 / (how[1] if isinstance(how, tuple) else how)  # Pillow stretches a PGM's maximum to 16 bits
    return value_range[0] * factor, value_range[1] * factor


def _deep_to_rgb(image: Image.Image, value_range: tuple[float, float] | None) -> Image.Image:
    """Convert an image of `is_deep`; arguments and errors as of `to_rgb`."""
    limits = limits_of(image, value_range)
    # Pillow inverts 8-bit pictures whose smallest value is white, and leaves deeper ones as they are.
    white_is_zero = image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == 0
    unsigned = image.format == "TIFF" and image.mode == "I" and _has_unsigned_32_bits(image)
    image = ImageOps.exif_transpose(image)
    values = np.asarray(image, dtype=np.float32 if image.mode == "F" else None)
    if unsigned:
        values = values.view(np.uint32)
    grey = scale_to_8_bits(values, limits, f"a picture of mode {image.mode}", cut=bool(value_range))
    if white_is_zero:
        grey = 255 - grey
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    rgb = Image.fromarray(grey).convert("RGB")
    rgb.info[DEEP_VALUES] = (values, limits)
    return rgb


def _has_unsigned_32_bits(image: Image.Image) -> bool:
    """Return whether a TIFF has numbers that Pillow keeps as signed ones of the same bits."""
    tags = image.tag_v2
    return tuple(tags.get(BITS_PER_SAMPLE, ())) == (32,) and tuple(tags.get(SAMPLE_FORMAT, (1,))) == (1,)


def scale_to_8_bits(values: np.ndarray, limits: tuple[float, float] | None, what: str, cut: bool = False) -> np.ndarray:
    """Map `values` of any shape to uint8, linearly, with the limits at 0 and 255. Raises PictureError.

    limits: the values of black and white; None if they are unknown, which is refused.  what: a name for messages.
    cut: set values beyond the limits to black or white; otherwise they are refused.
    """
    low, high = float(values.min()), float(values.max())  # NaN if there is any
    found = f"found values from {low:g} to {high:g}"
    finite = math.isfinite(low) and math.isfinite(high)
    if limits is None:
        raise (ValuesError if finite else PictureError)(
            f"expected {what} with the values of black and white, {found} and nothing that says what they mean; "
            "give --data.value_range, or value_range= in Python, such as 0 1, or scale it to 8 bits first"
        )
    if not finite:
        raise PictureError(f"expected {what} with finite values, found NaN or infinity; mend it first")
    black, white = limits
    if not cut and not black <= low <= high <= white:
        raise ValuesError(
            f"expected {what} in {black:g} … {white:g}, {found}; scale it first, or give --data.value_range, "
            "or value_range= in Python"
        )
    scaled = (values.astype(np.float64) - black) * 255 / (white - black)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _scale_transparency(image: Image.Image) -> None:
    """Set a PNG's transparent value to the 8 bits that its pixels are decoded to, before they are.

    A file states it in its own bit depth. Of 16-bit colours Pillow keeps the upper bytes, so those are compared.
    """
    clear = image.info.get("transparency")
    mode = image.tile[0][3] if image.format == "PNG" and image.tile else ""
    if isinstance(clear, int) and mode in SMALL_GREYS:
        image.info["transparency"] = clear * SMALL_GREYS[mode]
    elif isinstance(clear, tuple) and (mode == "RGB;16B" or max(clear) > 255):
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def to_signed(x: Tensor) -> Tensor:
    """Map uint8 (N, 3, H, W) to float32 in [−1, 1]: x/127.5 − 1, as the official notebook feeds the released model."""
    return x.float().div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """Map float in [−1, 1] to uint8 with rounding: the inverse of `to_signed`."""
    return x.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
