"""Read images from any source and serve them as batches; their order depends on the seed and the images seen alone.

Readers, one file a source: digits, folders, tables, tars, hub; `sources.open_images` asks them in turn. layout says
which folder or file is which split, columns which column holds images or labels; walk gathers the files of a folder,
metadata reads what lies beside them, and describe prints what was found. What is held out is said in splits, what makes
a class the same in both splits in classes, what a data set is in fingerprint, and which data a model was trained on in
of_model. Then pictures (decode one image),
crops, order and stream (training batches); inputs (images that a caller of the library passes) and arrays (their axes
and ranges).
"""

from bigbigan.data.crops import Crop, centre_square, crop_and_resize
from bigbigan.data.fingerprint import fingerprint
from bigbigan.data.images import Images, spread
from bigbigan.data.of_model import data_of_model
from bigbigan.data.order import Order
from bigbigan.data.pictures import EXTENSIONS, to_rgb, to_signed, to_uint8
from bigbigan.data.sources import open_images, open_splits, open_whole_split
from bigbigan.data.splits import hold_out_for_choices
from bigbigan.data.stream import RealImages, Stream, evaluation_batches
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
    "data_of_model",
    "evaluation_batches",
    "fingerprint",
    "hold_out_for_choices",
    "open_images",
    "open_splits",
    "open_whole_split",
    "spread",
    "to_rgb",
    "to_signed",
    "to_uint8",
]
