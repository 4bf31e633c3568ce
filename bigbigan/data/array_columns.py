"""Turn a column of arrays, as `datasets` and pandas keep them, into one of pictures."""

import io
from typing import Any

import numpy as np
from PIL import Image

from bigbigan.errors import DataError

ROWS = 256  # arrays that are Python's lists at a time
DTYPES = ("uint8", "uint16", "bool")  # whose black and white are certain


def array_type(feature: Any) -> str | None:
    """Return the type of the numbers in a column of arrays or lists, such as "uint8"; None for other columns.

    feature: of `datasets`.
    """
    deep = 0
    while not hasattr(feature, "shape") and (inner := getattr(feature, "feature", None)) is not None:
        feature, deep = inner, deep + 1
    while isinstance(feature, list) and len(feature) == 1:  # how older versions declare lists
        feature, deep = feature[0], deep + 1
    dtype = getattr(feature, "dtype", None)
    return dtype if isinstance(dtype, str) and (deep or hasattr(feature, "shape")) else None


def encoded_arrays(table: Any, column: str, dtype: str, origin: str) -> Any:
    """Return a `datasets` table whose column holds each array as a PNG, or nothing in an empty cell.

    Arrays are (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels. Raises DataError for others, and for numbers
    whose black and white nothing says.
    """
    from datasets import Dataset, Features
    from datasets import Image as ImageFeature

    where = f"{origin}: expected pictures, or arrays of uint8 or uint16, in column {column!r}"
    if dtype not in DTYPES:
        raise DataError(
            f"{where}, found numbers of type {dtype}, which do not say what is black and white; make them uint8, with "
            "black at 0 and white at 255, in a column of type datasets.Array2D((H, W), 'uint8') or Array3D"
        )
    parts = table.with_format(None).iter(ROWS)
    encoded = lambda cell: {"bytes": _png(cell, dtype, f"{where}, found"), "path": None}  # noqa: E731
    cells = [None if cell is None else encoded(cell) for part in parts for cell in part[column]]
    return Dataset.from_dict({column: cells}, features=Features({column: ImageFeature(decode=False)}))


def _png(cell: list, dtype: str, found: str) -> bytes:
    try:
        pixels = np.asarray(cell, dtype=dtype)
    except ValueError:  # lists of unlike lengths
        raise DataError(f"{found} lists of several lengths within one picture; mend it") from None
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    grey = pixels.ndim == 2
    if not grey and not (pixels.ndim == 3 and pixels.shape[-1] in (3, 4) and dtype != "uint16"):
        shape = f"rows of {len(pixels):,} numbers" if pixels.ndim == 1 else f"arrays of shape {pixels.shape}"
        raise DataError(f"{found} {shape} of {dtype}; give them as (H, W), or (H, W, 3) of uint8")
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=1)
    return file.getvalue()
