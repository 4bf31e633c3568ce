"""Turn the images a caller passes into batches of float (n, 3, S, S) in [−1, 1].

The caller may pass paths, PIL images, arrays, tensors, table columns, torch data sets or loaders. The library does the
preprocessing: the centre square, resized to the size the network was trained on. `arrays` checks the values.
"""

import glob
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from bigbigan.data.ahead import decoding_threads
from bigbigan.data.arrays import (
    Ranges,
    Seen,
    Values,
    as_images,
    doubt_channels,
    doubt_stack,
    is_single,
    read_values,
    seen_in,
)
from bigbigan.data.crops import centre_square, crop_and_resize, resize, size_of
from bigbigan.data.folders import image_paths
from bigbigan.data.images import Images, Request
from bigbigan.data.pictures import (
    DEEP_VALUES,
    EXTENSIONS,
    SEVERAL_PAGES,
    ValuesError,
    decode_rgb,
    how_to_read,
    to_rgb,
    to_signed,
    why,
)
from bigbigan.data.split_names import ALL
from bigbigan.data.tables import SUFFIXES, Columns, from_table, open_tables
from bigbigan.data.tars import all_samples, is_tar
from bigbigan.errors import DataError, InputError, Outside, UnreadableImage, warn_caller
from bigbigan.files import counted, expanded, printable

# What `read_batches` explains. A torch data set without an iterator is read by number.
ImageInput: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor | Iterable[Any] | Dataset[Any]


class Batch(NamedTuple):
    """Hold images that were read.

    x: float (n, 3, S, S) in [−1, 1].  places: their numbers among all images passed, int64 (n,).
    names: their paths; what a message calls those that have none.
    """

    x: Tensor
    places: np.ndarray
    names: list[str]


def image_batches(images, size: int, batch_size: int, **options: Any) -> Iterator[Tensor]:
    """Yield the pixels of `read_batches`, which explains the arguments: float (n, 3, size, size) in [−1, 1]."""
    return (batch.x for batch in read_batches(images, size, batch_size, **options))


def read_batches(
    images,
    size: int,
    batch_size: int,
    ahead: int = 2,
    value_range: tuple[float, ...] | float | None = None,
    trained_on: tuple[float, ...] | None = None,
    *,
    kept_size: int | None = None,
    skip: Callable[[UnreadableImage], object] | None = None,
) -> Iterator[Batch]:
    """Yield batches of float (n, 3, size, size) in [−1, 1] in the order of `images`. Raises InputError.

    images: a path of an image, of a folder, of tars or of a table; a PIL image; an array or tensor of one image or a
    batch; or a list, data set, `datasets` column, loader or other iterable of any of these, or of pairs (image, label),
    whose labels are ignored.
    n ≤ batch_size, but for the batches of a DataLoader, which stay as they are.
    ahead: batches to decode while the caller works on one; 0 where both would compete for the same cores.
    value_range: the values of black and white in grey pictures of more than 8 bits or of floats, and in arrays that can
    hold them.  trained_on: those of pictures, and of arrays of whole numbers, where `value_range` is None.
    kept_size: batches of arrays and tensors of this edge are not resized.
    skip: called with each image that cannot be decoded, which is then left out; None raises UnreadableImage.
    """
    batch_size = check_batch_size(batch_size)
    ranges = Ranges.of(value_range, trained_on)
    values = Values(ranges)
    images = _listed(images)
    _doubt_order(images)
    if isinstance(images, (np.ndarray, Tensor)):
        yield from _batches_of_array(images, batch_size, values, (size, kept_size))
    else:
        if isinstance(images, (list, tuple)):
            _check_list(images, values)
        parts = _parts(_single_items(images), batch_size, images if isinstance(images, DataLoader) else None)
        yield from _read_ahead(parts, ahead, values, (size, kept_size), skip)
    values.doubt()


def named_by(path: str | os.PathLike) -> "list[str] | Images":
    """Return what a path names: paths of image files, the samples of tars, or the rows of tables. Raises InputError."""
    location = expanded(path)
    try:
        if matches := _matches(path, location):
            return matches
        if location.is_file() and not is_tar(location) and location.suffix not in SUFFIXES:
            if advice := how_to_read(location):
                raise InputError(
                    f"{printable(location)}: expected an image or a folder of images, found a file{advice}"
                )
            return [str(location)]
        if location.is_dir():
            try:
                return image_paths(location)
            except DataError:
                if (samples := all_samples(location)) is None and (samples := _all_rows(location)) is None:
                    raise
                return samples
        if (samples := all_samples(location)) is not None or (samples := _all_rows(location)) is not None:
            return samples
    except Outside as error:
        raise InputError(f"{error}, or give a list of paths") from None
    except (DataError, OSError) as error:
        raise InputError(str(error)) from None
    raise InputError(f"{printable(location)}: expected an image or a folder of images, found no such file")


def _matches(path: str | os.PathLike, location: Path) -> list[str]:
    """Return the files of a pattern such as "photos/*.jpg", which a shell would have expanded; those of tars apart.

    Raises InputError for an empty path, which would be the current folder.
    """
    if path == "":
        raise InputError("expected an image or a folder of images, found an empty path; '.' is the current folder")
    matches = [] if location.exists() else sorted(glob.glob(str(location)))
    return [] if any(is_tar(Path(match)) for match in matches) else matches


def _all_rows(location: Path) -> Images | None:
    """Return the rows of a table file, or of a folder of tables without splits; None of other paths.

    Raises DataError or Outside.
    """
    found = open_tables(Request(str(location), ALL, "", "", False, "", False, no_labels=True))
    return None if found is None else found.images


def names_of(path: str | os.PathLike) -> list[str]:
    """Return the names of the images that a path names, in the order in which they are read. Raises InputError."""
    found = named_by(path)
    return [found.name(i) for i in range(len(found))] if isinstance(found, Images) else found


def check_batch_size(batch_size) -> int:
    """Return `batch_size` as torch takes it. Raises InputError unless it is a whole number of at least 1."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise InputError(f"batch_size: expected a whole number of at least 1, found {printable(repr(batch_size))}")
    return min(int(batch_size), 2**31 - 1)


def count_images(images) -> int | None:
    """Return the number of images, or None if only reading them would tell."""
    images = _listed(images)
    if isinstance(images, Tensor) and (images.is_nested or images.layout is not torch.strided):
        return None
    if isinstance(images, (np.ndarray, Tensor)):
        return len(images) if images.ndim == 4 or (images.ndim == 3 and not is_single(images)) else 1
    if isinstance(images, (str, os.PathLike)):
        return len(named_by(images))
    if isinstance(images, Image.Image):
        return 1
    if isinstance(images, (list, tuple)):
        items = (_without_label(item, i) for i, item in enumerate(images))
        return sum((count_images(item) or 0) if isinstance(item, (np.ndarray, Tensor)) else 1 for item in items)
    try:
        if isinstance(images, DataLoader):
            whole = images.batch_size is not None and not images.drop_last
            return len(images.sampler) if whole else None
        return len(images)
    except (TypeError, NotImplementedError):  # a stream
        return None


def _listed(images):
    """Return an array of paths or of other objects as a list of these; anything else as it is."""
    listed = isinstance(images, np.ndarray) and images.ndim == 1 and images.dtype.kind in "OUT"
    return list(images) if listed else images


def _doubt_order(images) -> None:
    """Warn where a DataLoader shuffles, or drops what does not fill its last batch."""
    if not isinstance(images, DataLoader):
        return
    sampler = getattr(images.batch_sampler, "sampler", images.sampler)
    if isinstance(sampler, (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)):
        warn_caller(
            "the DataLoader shuffles, so row i is not image i of its data set; give one with shuffle=False, or the "
            "data set itself"
        )
    if images.drop_last and images.batch_size and isinstance(sampler, Sized) and len(sampler) % images.batch_size:
        warn_caller(f"the DataLoader drops the last {counted(len(sampler) % images.batch_size)}: drop_last=True")


def _single_items(images) -> Iterable:
    """Return an iterable of single images, of batches, or of pairs of either with labels. Raises InputError."""
    if isinstance(images, (str, os.PathLike)):
        images = named_by(images)
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, Images):
        return (_Row(images, i) for i in range(len(images)))
    if _holds_encoded_images(images):
        images = images.source.select_columns([images.column_name])
    if hasattr(images, "features") and hasattr(images, "column_names"):  # a whole `datasets` table
        return _rows_of(images)
    if isinstance(images, (bytes, bytearray, memoryview, Mapping, Set, type)) or _is_frame(images):
        raise InputError(_no_images(images))
    if isinstance(images, Iterable):
        return images
    if hasattr(images, "__getitem__") and hasattr(images, "__len__"):  # a torch data set
        return (images[i] for i in range(len(images)))
    raise InputError(_no_images(images))


def _rows_of(table) -> Iterator["_Row"]:
    """Return the images of a `datasets` table as they are stored, with a warning if it has a transform."""
    try:
        images = from_table(table, "the data set", Columns(label=None))
    except DataError as error:
        raise InputError(str(error)) from None
    if table.format["type"] == "custom":
        warn_caller(
            "the transform of the data set is not applied: its images are read as they are stored; to apply it give "
            "the images alone, such as (row['image'] for row in data)"
        )
    return (_Row(images, i) for i in range(len(images)))


def _holds_encoded_images(images) -> bool:
    """Return whether this is a `datasets` column that can be read as a table of that column is, cell by cell.

    Iterated over, a column decodes its images itself, and ends at the first one that is broken. A column that a format,
    a transform or a PIL mode changes must be iterated over.
    """
    if not hasattr(images, "column_name") or not hasattr(getattr(images, "source", None), "select_columns"):
        return False
    from datasets import Image as ImageFeature

    feature = images.features
    plain = isinstance(feature, ImageFeature) and feature.decode and feature.mode is None
    return plain and images.source.format["type"] is None


def _is_frame(images) -> bool:
    """Return whether this is a table of pandas or polars, which yields its columns or their names."""
    return hasattr(images, "columns") and hasattr(images, "to_numpy")


def _no_images(found) -> str:
    """Return the sentence that refuses what holds no images."""
    name = type(found).__name__
    keys = found.columns if _is_frame(found) else found if isinstance(found, Mapping) else ()
    listed = ", ".join(repr(str(key)) for key in keys)
    split = ""
    if name in ("DatasetDict", "IterableDatasetDict"):
        split = f"; give one of its splits, {listed}"
    elif listed:
        split = (
            f"; give one of its {'columns' if _is_frame(found) else 'values'}, {listed}"
            + ", as a list" * _is_frame(found)
        )
    length = ", which has no length" if isinstance(found, Dataset) else ""
    return f"expected a path, an image, an array, a tensor or a list of these, found {name}{length}{split}"


def _batches_of_array(images, batch_size: int, values: Values, sizes: tuple[int, int | None]) -> Iterator[Batch]:
    """Yield the batches of an array or tensor; floats in [−1, 1] are checked as a whole before the first one."""
    x = as_images(images, sizes[0])
    doubt_channels(images)
    size = _edge([x], *sizes)
    scaled = values.ranges.limits(x.dtype) is not None  # which copies, so it goes batch by batch
    done = 0
    for some in x.split(batch_size if scaled else len(x)):
        pixels, seen = read_values(some, values.ranges)
        values.add(seen)
        values.check()
        for part in pixels.split(batch_size):
            places = np.arange(done, done + len(part))
            yield Batch(_fit(part, size), places, [f"image {i}" for i in places])
            done += len(part)


def _check_list(images: list | tuple, values: Values) -> None:
    """Check the floats of a whole list, which is in memory, before any work is done. Raises InputError."""
    for i, item in enumerate(images):
        item = _without_label(item, i)
        if isinstance(item, (np.ndarray, Tensor)):
            x = _as_images(item, f"image {i}")
            if x.is_floating_point() and values.ranges.limits(x.dtype) is None:
                values.add(read_values(x, values.ranges)[1], f"image {i}")
    values.check()


class _Item(NamedTuple):
    """Hold one image that is not read yet, or a batch. image: (n, C, H, W), a path, a PIL image or a row."""

    name: str
    image: object


class _Pixels(NamedTuple):
    """Hold what was read.

    x: float (n, 3, S, S).  seen: the values of an array or of a deep picture.  several: its file has more pages.
    """

    x: Tensor
    seen: Seen | None
    several: bool = False


def _parts(items: Iterable, batch_size: int, loader: DataLoader | None) -> Iterator[list[_Item]]:
    """Yield what makes one batch each: up to `batch_size` single images, or one array of several.

    Batches of a loader stay as they are; larger arrays of other iterables are cut to `batch_size`.
    """
    part: list[_Item] = []
    largest = _batch_of(loader)
    batched, grey, doubted = largest is not None, False, False
    for i, item in enumerate(items):
        item = _without_label(item, i)
        if not isinstance(item, (np.ndarray, Tensor)):
            part.append(_Item(f"image {i}", item))
        else:
            if batched and item.ndim == 3:
                grey = grey or len(item) == largest  # the last batch may have 1, 3 or 4 grey images
                item = item[:, None] if grey else item
                if largest >= 3:
                    doubt_channels(item)
            x = _as_images(item, f"{'batch' if batched else 'image'} {i}")
            if not batched and item.ndim == 3 and len(x) > 1 and not doubted:
                doubt_stack(tuple(item.shape), f"image {i}")
                doubted = True  # once for all
            if not batched and len(x) == 1:
                part.append(_Item(f"image {i}", x))
            else:
                if part:
                    yield part
                    part = []
                yield from ([_Item(f"batch {i}", some)] for some in x.split(len(x) if batched else batch_size))
        if len(part) == batch_size:
            yield part
            part = []
    if part:
        yield part


def _batch_of(loader: DataLoader | None) -> int | None:
    """Return how many images a loader's batches have at most, None if it yields single ones, or there is none."""
    if loader is None or loader.batch_sampler is None:
        return None
    return loader.batch_size or getattr(loader.batch_sampler, "batch_size", 1)


def _without_label(item, i: int):
    """Return the image of a pair (image, label), as torchvision's data sets and torch's loaders yield; else the item.

    Raises InputError for pairs of two like images, of which neither is a label; warns of another that may be a mask.
    """
    pair = isinstance(item, tuple) or (isinstance(item, list) and item and isinstance(item[0], (np.ndarray, Tensor)))
    if not pair or not item or isinstance(item, _Row):
        return item
    first, kind = item[0], _kind(item[0])
    others = [_kind(other) for other in item[1:]] if kind is not None else []
    if kind in others:
        raise InputError(f"image {i}: expected an image, or an image and its label, found {len(item)} images")
    if found := next((other for other in others if other is not None), None):
        warn_caller(f"of pairs of {kind} and {found} the first is read, and the other is ignored, as a mask would be")
    return first


def _kind(item) -> str | None:
    """Return in words what kind of image this is; None for what is none, such as a label."""
    if isinstance(item, Image.Image):
        return f"a picture of mode {item.mode}"
    if isinstance(item, (np.ndarray, Tensor)) and item.ndim > 1:
        ends = (item.shape[-1], item.shape[-3]) if item.ndim > 2 else ()
        return f"an array of {next((n for n in ends if n in (1, 3, 4)), 1)} channels"
    if isinstance(item, (str, os.PathLike)) and os.fsdecode(item).lower().endswith(EXTENSIONS):
        return "a picture's path"
    return None


def _as_images(item: np.ndarray | Tensor, name: str) -> Tensor:
    try:
        return as_images(item)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _read_ahead(parts: Iterator[list[_Item]], ahead: int, values: Values, sizes, skip) -> Iterator[Batch]:
    """Read the parts in threads, `ahead` of the caller, and yield each as one batch once its values are checked."""
    done = 0
    several: list[str] = []
    waiting: deque[tuple[list[_Item], list[Future]]] = deque()
    with ThreadPoolExecutor(decoding_threads()) as pool:  # decoding releases the GIL, so it overlaps with the network
        try:
            while (part := next(parts, None)) or waiting:
                if part:
                    size = _edge([item.image for item in part], *sizes)
                    waiting.append((part, [pool.submit(_read, item, size, values.ranges) for item in part]))
                if len(waiting) > ahead or not part:
                    named, futures = waiting.popleft()
                    read = [_result(future, skip) for future in futures]
                    for item, pixels in zip(named, read, strict=True):
                        if isinstance(pixels, _Pixels):
                            values.add(pixels.seen, item.name)
                            if pixels.several:
                                several.append(_name(item))
                    values.check()
                    batch, done = _joined(named, read, done, skip)
                    if batch is not None:
                        yield batch
            _doubt_pages(several)
        finally:
            for future in itertools.chain.from_iterable(futures for _, futures in waiting):
                future.cancel()


def _result(future: Future, skip: Callable | None) -> _Pixels | UnreadableImage:
    """Return what `_read` returned; with a `skip`, the error of an image that cannot be decoded in its place."""
    try:
        return future.result()
    except UnreadableImage as error:
        if skip is None:
            raise
        return error


def _doubt_pages(several: list[str]) -> None:
    if several:
        files = f"{len(several):,} files have" if len(several) > 1 else "a file has"
        warn_caller(f"{files} several pages or frames, of which the first is read: {several[0]}")


def _joined(items: list[_Item], read: list, done: int, skip: Callable | None) -> tuple[Batch | None, int]:
    """Return one batch of the images that were read, None for none, and how many images there are to its end.

    read: of each item what `_read` returned, or its error, which is passed to `skip`.
    done: how many images came before.
    """
    x, places, names = [], [], []
    for item, pixels in zip(items, read, strict=True):
        if isinstance(pixels, UnreadableImage):
            pixels.place = done
            skip(pixels)
            done += 1
        else:
            numbers = range(done, done + len(pixels.x))
            x.append(pixels.x)
            places += numbers
            names += [_path(item, i) for i in numbers]
            done += len(pixels.x)
    return (Batch(torch.cat(x), np.asarray(places), names) if x else None), done


def _path(item: _Item, place: int) -> str:
    """Return the path of an image that has one, else its name."""
    image = item.image
    if isinstance(image, _Row):
        return image.images.name(image.i)
    if isinstance(image, (str, os.PathLike)):
        return os.fsdecode(image)
    return getattr(image, "filename", "") or f"image {place}"


def _edge(images: list, size: int, kept_size: int | None) -> int:
    """Return the edge to resize a batch to: `kept_size` if all its images are arrays of it, else `size`."""
    kept = kept_size and all(isinstance(x, Tensor) and tuple(x.shape[2:]) == (kept_size, kept_size) for x in images)
    return kept_size if kept else size


class _Row(NamedTuple):
    """Point to an image of a data set that is not read yet."""

    images: Images
    i: int


def _read(item: _Item, size: int, ranges: Ranges) -> _Pixels:
    """Return an image or a batch as float (n, 3, size, size). Raises InputError or UnreadableImage."""
    image = item.image
    if isinstance(image, Tensor):
        try:
            pixels, seen = read_values(image, ranges)
        except InputError as error:
            raise InputError(f"{item.name}: {error}") from None
        return _Pixels(_fit(pixels, size), seen)
    if not isinstance(image, (str, os.PathLike, Image.Image, _Row)):
        keys = ", ".join(printable(str(key)) for key in image) if isinstance(image, Mapping) else ""
        cure = f" of {keys}; give its images alone, such as (row['image'] for row in rows)" if keys else ""
        cure = "; give each picture as an array, such as numpy.uint8(picture)" if isinstance(image, list) else cure
        found = f"found {type(image).__name__}{cure}"
        raise InputError(f"{item.name}: expected a path, a PIL image, an array or a tensor, {found}")
    try:
        own = image.images.value_range if isinstance(image, _Row) else None
        rgb = _rgb(image, ranges.asked or own or ranges.trained_on)
        info = rgb.info if isinstance(rgb, Image.Image) else {}
        deep = info.get(DEEP_VALUES)
        return _Pixels(_square(rgb, size), deep and seen_in(*deep), SEVERAL_PAGES in info)
    except ValuesError as error:  # no image to leave out: the caller says the range
        raise InputError(f"{_name(item)}: {error}") from None
    except Exception as error:  # decoders raise many types
        raise UnreadableImage(_name(item), why(error)) from None


def _rgb(item, value_range: tuple[float, float] | None) -> Image.Image | np.ndarray:
    """Return a row, a PIL image or a file as upright 8-bit RGB. Raises what decoders raise."""
    if isinstance(item, _Row):
        return item.images.decoded(item.i, value_range)
    if isinstance(item, Image.Image):
        return to_rgb(item, value_range)
    return decode_rgb(os.fsdecode(item), value_range)


def _name(item: _Item) -> str:
    image = item.image
    if isinstance(image, _Row):
        origin, name = image.images.origin, image.images.name(image.i)
        return name if name.startswith(origin) else f"{origin}, {name}"  # a row of a table has no path
    if isinstance(image, Image.Image):
        return printable(getattr(image, "filename", None) or "") or f"{item.name}, a PIL image"
    return printable(image)


def _square(image: Image.Image | np.ndarray, size: int) -> Tensor:
    """Return the centre square of 8-bit RGB, float (1, 3, size, size)."""
    pixels = crop_and_resize(image, centre_square(*size_of(image)), size)
    return to_signed(torch.from_numpy(np.ascontiguousarray(pixels))[None])


def _fit(x: Tensor, size: int) -> Tensor:
    """Cut the centre square of (n, C, H, W), uint8 or float, resize it to `size` and return float (n, 3, size, size).

    uint8 images give exactly what a file with the same pixels would.
    """
    x = x.expand(-1, 3, -1, -1)  # grey has one channel
    if tuple(x.shape[2:]) != (size, size):
        if x.dtype == torch.uint8:
            return torch.cat(
                [_square(to_rgb(Image.fromarray(i.permute(1, 2, 0).contiguous().cpu().numpy())), size) for i in x]
            )
        left, top, right, bottom = centre_square(x.shape[3], x.shape[2])
        x = resize(x.float()[:, :, top:bottom, left:right], size)
    return to_signed(x) if x.dtype == torch.uint8 else x.float().clamp(-1, 1)
