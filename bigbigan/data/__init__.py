"""Folders, Arrow and Parquet files, hub data sets and the embedded digits → batches; order = f(seed, images seen)."""

from bigbigan.data.fingerprint import fingerprint
from bigbigan.data.images import Images
from bigbigan.data.pictures import EXTENSIONS, centre_square, crop_and_resize, to_rgb, to_signed, to_uint8
from bigbigan.data.sources import open_images
from bigbigan.data.stream import Crop, Order, RealImages, Stream, evaluation_batches
from bigbigan.errors import DataError

__all__ = [
    "EXTENSIONS",
    "Crop",
    "DataError",
    "Images",
    "Order",
    "RealImages",
    "Stream",
    "centre_square",
    "crop_and_resize",
    "evaluation_batches",
    "fingerprint",
    "open_images",
    "to_rgb",
    "to_signed",
    "to_uint8",
]
