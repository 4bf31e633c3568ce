"""Use a model in one call: load, encode, neighbours, generate, reconstruct, discriminate, and see images with grid."""

import functools
import math
import os
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeAlias, TypedDict, TypeVar, Unpack, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from bigbigan.data import to_uint8
from bigbigan.data.arrays import array_as_tensor
from bigbigan.data.inputs import (
    Batch,
    ImageInput,
    check_batch_size,
    count_images,
    image_batches,
    named_by,
    names_of,
    read_batches,
)
from bigbigan.distributed.device import default_on_cpu
from bigbigan.errors import BigBiGANError, CheckpointError, InputError, UnreadableImage, warn_caller
from bigbigan.features.search import Neighbours, search
from bigbigan.files import expanded, printable
from bigbigan.latents import sample_prior, truncate
from bigbigan.model import PARTS, BigBiGAN, absence, unwrapped, weights_dtype
from bigbigan.networks.layers import set_momentum
from bigbigan.noise import normal_noise
from bigbigan.release.load import EXPECTED, load_model
from bigbigan.release.shipped import default_model
from bigbigan.training.pictures import sheet

OUTPUTS = ("z_mean", "z_stdev", "z_sample", "avepool_feat", "bn_crelu_feat")
LONG = 20  # batches from which a progress bar is shown
SHOWN = 20  # images that a warning names
TILE = 64  # pixels: `grid` enlarges smaller images to at least this, so that they can be looked at

P = ParamSpec("P")
R = TypeVar("R")
Source: TypeAlias = BigBiGAN | str | os.PathLike[str] | None  # a model, or what `load` takes
Device: TypeAlias = torch.device | str | None
Range: TypeAlias = tuple[float, float] | float | None


def _public(function: Callable[P, R]) -> Callable[P, R]:
    """Let our errors show the caller's line and the sentence, without the lines of this library between them.

    And compute as if torch's default device was the CPU, see `default_on_cpu`.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with default_on_cpu():
                return function(*args, **kwargs)
        except BigBiGANError as error:
            raise error.with_traceback(None) from None

    return call


@_public
@torch.inference_mode(False)  # for `.to(device)`, which makes tensors
def load(
    checkpoint: str | os.PathLike[str] | None = None,
    device: Device = None,
    *,
    parts: str | Collection[str] | None = None,
) -> BigBiGAN:
    """Load a model with averaged E and G, in evaluation mode. Raises CheckpointError.

    After `.train()` its batch norms move their running statistics in every forward, as torch's do.

    checkpoint: a run folder, checkpoint folder, release folder or hub id, or the name of a model that comes with the
    package (see `bigbigan.models`); None for the best of these that saw natural images.
    device: where to put the model; None for a GPU if there is one, else the CPU.
    parts: names of the networks to load, of "encoder", "generator" and "discriminator", such as ("encoder",) to encode
    images only; None for all. A network that was not loaded is None, and what needs it raises InputError.
    """
    place, names = checked_device(device), _part_names(parts)
    if checkpoint is not None and not isinstance(checkpoint, (str, os.PathLike)):
        raise CheckpointError(f"checkpoint: {EXPECTED}, found {type(checkpoint).__name__}")
    source = _default_model() if checkpoint is None else checkpoint
    model = load_model(source, names)
    for name in names or ():
        if getattr(model, name) is None:
            raise CheckpointError(f"{printable(source)}: {absence(name)}")
    model = model.to(place or default_device())
    set_momentum(model)
    return model


class EncodeOptions(TypedDict, total=False):
    """Hold the further arguments of `encode`, for type checkers."""

    seed: int
    progress: bool | None
    classes: Tensor | np.ndarray | None
    value_range: Range
    on_error: Literal["raise", "skip"]


# What `encode` returns follows from `outputs` and `paths`: type checkers read the cases here.
Several: TypeAlias = tuple[str, ...] | None


# fmt: off
@overload
def encode(
    images: ImageInput, model: Source, outputs: str, batch_size: int = ..., device: Device = ..., *,
    paths: Literal[False] = ..., **options: Unpack[EncodeOptions],
) -> Tensor: ...
@overload
def encode(
    images: ImageInput, model: Source = ..., *, outputs: str, batch_size: int = ..., device: Device = ...,
    paths: Literal[False] = ..., **options: Unpack[EncodeOptions],
) -> Tensor: ...
@overload
def encode(
    images: ImageInput, model: Source = ..., outputs: Several = ..., batch_size: int = ..., device: Device = ..., *,
    paths: Literal[False] = ..., **options: Unpack[EncodeOptions],
) -> dict[str, Tensor]: ...
@overload
def encode(
    images: ImageInput, model: Source, outputs: str, batch_size: int = ..., device: Device = ..., *,
    paths: Literal[True], **options: Unpack[EncodeOptions],
) -> tuple[Tensor, list[str]]: ...
@overload
def encode(
    images: ImageInput, model: Source = ..., *, outputs: str, batch_size: int = ..., device: Device = ...,
    paths: Literal[True], **options: Unpack[EncodeOptions],
) -> tuple[Tensor, list[str]]: ...
@overload
def encode(
    images: ImageInput, model: Source = ..., outputs: Several = ..., batch_size: int = ..., device: Device = ..., *,
    paths: Literal[True], **options: Unpack[EncodeOptions],
) -> tuple[dict[str, Tensor], list[str]]: ...
# fmt: on


@_public
def encode(
    images: ImageInput,
    model: Source = None,
    outputs: str | tuple[str, ...] | None = None,
    batch_size: int = 64,
    device: Device = None,
    *,
    seed: int = 0,
    progress: bool | None = None,
    classes: Tensor | np.ndarray | None = None,
    value_range: Range = None,
    on_error: Literal["raise", "skip"] = "raise",
    paths: bool = False,
) -> dict[str, Tensor] | Tensor | tuple[dict[str, Tensor] | Tensor, list[str]]:
    """Encode images to latents and features, named as the published hub module names them.

    images: a path of an image, a folder, tars as WebDataset packs them, or a Parquet file; PIL images, uint8 or float
    arrays and tensors (float in [−1, 1]), a list, iterator or `datasets` column of these, or a torch data set or
    DataLoader, whose labels are ignored. Any size and mode: the centre square is resized to the encoder's size.
    model: a `BigBiGAN`, or what `load` takes; None for the best model of natural images that comes with the
    package, which is named once. It is put into evaluation mode, and onto `device` if that is given.
    outputs: z_mean, z_stdev, z_sample (N, Z), avepool_feat (N, C), bn_crelu_feat (N, 2C). One name returns a tensor; a
    tuple of names, or None for all, returns a dictionary. Tensors are float32 on the CPU.
    batch_size: images encoded at a time; the batches of a DataLoader stay as they are.
    seed: decides z_sample.  progress: show a progress bar; None shows it when the work is long.
    classes: of the images, (N,), for an encoder that sees classes; those of this library do not.
    value_range: the values of black and white, such as (0, 1) or (0, 4095), in grey pictures of more than 8 bits or of
    floats, and in arrays that can hold them. None for the range that the model was trained on (`data.value_range`);
    without one, pictures have the range that their bit depth says, and float pictures are refused. Float arrays in
    [0, 1] are refused without it; pass (-1, 1) if they are in [−1, 1] and happen to be bright.
    on_error: "skip" leaves out images that cannot be decoded, and a warning lists them; "raise" raises UnreadableImage.
    paths: also return the images' paths, or the names of those that have none: (the outputs, list of N strings). With
    nothing skipped they are those of `list_images`.
    Raises InputError for images in another range or shape; warns of outputs that are NaN or infinite.
    """
    _check_on_error(on_error)
    names = dict.fromkeys(_names(outputs))
    batch_size = check_batch_size(batch_size)
    check_seed(seed)
    model, device = _ready(model, device, ("encoder",))
    encoder = model.require("encoder")
    classes = _class_labels(classes, model)
    listed = named_by(images) if isinstance(images, (str, os.PathLike)) else images
    dtype = weights_dtype(encoder)
    collected: dict[str, list[Tensor]] = {name: [] for name in names}
    skipped: list[UnreadableImage] = []
    kept: list[str] = []
    with torch.inference_mode():
        batches = read_batches(
            listed,
            encoder.image_size,
            batch_size,
            ahead=0 if device.type == "cpu" else 2,
            value_range=value_range,
            trained_on=_trained_on(model),
            skip=skipped.append if on_error == "skip" else _raise_with_advice,
        )
        for batch in _progress(batches, count_images(listed), batch_size, progress, "encoding"):
            noise = normal_noise(seed, "encode", batch.places, encoder.latent_dim)
            labels = _labels_at(classes, batch.places, device)
            result = model.encode(batch.x.to(device, dtype, non_blocking=True), noise.to(device, dtype), labels)
            for name in names:
                collected[name].append(result[name].float().cpu())
            kept += batch.names
    _check_found(len(kept), skipped, classes)
    joined = {name: torch.cat(parts) for name, parts in collected.items()}
    for name, values in joined.items():
        _doubt_finite(values, name, encoder)
    found = joined[outputs] if isinstance(outputs, str) else joined
    return (found, kept) if paths else found


@_public
def list_images(path: str | os.PathLike[str]) -> list[str]:
    """List the images that a path names, in the order in which `encode` reads them. Raises InputError.

    path: of an image, a folder or tars. Returns the paths of files; of samples in a tar "TAR, NAME".
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"path: expected that of an image, a folder or tars, found {type(path).__name__}")
    return names_of(path)


@_public
def as_tensor(
    images: ImageInput,
    model: BigBiGAN | str | os.PathLike[str] | None = None,
    size: int | None = None,
    *,
    value_range: Range = None,
) -> Tensor:
    """Read images as the model sees them: float (N, 3, S, S) in [−1, 1] on the CPU.

    `model.encode`, `model.reconstruct` and the other methods of a model take what this returns; all images are held in
    memory.
    images, model, value_range: as in `encode`.
    size: S in pixels, such as `model.generator.image_size`; None for the encoder's, or G's of a model without E.
    Raises InputError.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1):
        raise InputError(f"size: expected a whole number of pixels, or None, found {printable(repr(size))}")
    model, _ = _ready(model, None, ("encoder", "generator"))
    network = model.encoder if model.encoder is not None else model.require("generator")
    edge = int(size or network.image_size)
    x = list(image_batches(images, edge, 64, value_range=value_range, trained_on=_trained_on(model)))
    if not x:
        raise InputError("expected at least one image, found none")
    return torch.cat(x)


@_public
def neighbours(
    query: Tensor | np.ndarray,
    features: Tensor | np.ndarray | str | os.PathLike[str],
    k: int = 10,
    metric: Literal["l2", "cosine", "l1_normalised"] = "l2",
    *,
    output: str | None = None,
    index: Literal["hnsw"] | None = None,
) -> Neighbours:
    """Find the k rows of `features` nearest to each query, exactly: (distances, indices, paths), nearest first.

    query: (m, C), or (C,) for one.  features: (n, C), an array, a file mapped into memory or a tensor; or a folder that
    `bigbigan-extract` wrote, which is read some thousand rows at a time.  k: at most n.
    metric: "l2"; "cosine", 1 − cos, where a row of zeros has cosine 0 with all; or "l1_normalised", the L1 distance of
    rows divided by their L1 norm (BigBiGAN, appendix C), 0 to 2.
    output: of a folder with several features, the one to search.
    index: "hnsw" searches a folder by an approximate index, which is made by the first call and kept in the folder; for
    many queries among very many rows. It needs the package faiss-cpu, `pip install "bigbigan[index]"`. A few of the k
    may not be among the nearest; distances are those of the rows returned.  None for the exact search.
    Returns distances float64 (m, k) and indices int64 (m, k) on the CPU: row numbers, of a folder the images' `id`.
    paths: of a folder, m lists of the k images' paths, None for images without one; else None.
    Distances are computed in float64. Of rows at equal distances the first in order come first; where k cuts through
    them, any of them are taken.  Raises InputError, or FeatureError for a folder.
    """
    return search(query, features, k, metric, output, index)


@_public
def generate(
    z: int | Tensor | np.ndarray,
    model: Source = None,
    truncation: float | None = None,
    classes: Tensor | np.ndarray | None = None,
    batch_size: int = 64,
    device: Device = None,
    *,
    seed: int = 0,
) -> Tensor:
    """Generate images: float (N, 3, S, S) in [−1, 1] on the CPU, which `to_pil` turns into pictures.

    z: latents (N, Z), or the number of latents to draw from the prior.
    truncation: redraw components of z beyond this magnitude (BigGAN); for the normal prior only.
    classes: of a conditional model, (N,), or weights (N, K) over its K classes; None draws them at random.
    Raises InputError.
    """
    batch_size = check_batch_size(batch_size)
    check_seed(seed)
    fraction = isinstance(z, (bool, float, np.floating, np.bool_))
    if fraction or (isinstance(z, (int, np.integer)) and z < 1):
        raise InputError(f"z: expected a whole number of at least 1, or latents (N, Z), found {z}")
    model, device = _ready(model, device, ("generator",))
    generator = model.require("generator")
    width, dtype = generator.latent_dim, weights_dtype(generator)
    if isinstance(z, (int, np.integer)):
        latents = sample_prior(model.prior, seed, "generate", np.arange(int(z)), width)
    else:
        latents = _latents(z, width)
    if truncation is not None:
        _check_truncation(truncation, model.prior)
        latents = truncate(latents, truncation, seed)
    classes = _class_labels(classes, model, len(latents))
    if classes is None and (kinds := model.classes):
        classes = torch.randint(kinds, (len(latents),), generator=torch.Generator().manual_seed(int(seed)))
    with torch.inference_mode():
        parts = [
            model.generate(part.to(device, dtype), _labels_from(classes, i * batch_size, len(part), device))
            .float()
            .cpu()
            for i, part in enumerate(torch.split(latents, batch_size))
        ]
    images = torch.cat(parts)
    _doubt_finite(images, "pixels", generator)
    return images


@_public
def reconstruct(
    images: ImageInput,
    model: Source = None,
    use_sample: bool = False,
    classes: Tensor | np.ndarray | None = None,
    batch_size: int = 64,
    device: Device = None,
    *,
    seed: int = 0,
    progress: bool | None = None,
    value_range: Range = None,
) -> Tensor:
    """Reconstruct images as G(E(x)): float (N, 3, S, S) in [−1, 1] on the CPU.

    images, model, batch_size, value_range: as in `encode`.  use_sample: reconstruct from a sample of the posterior, not
    from its mean.
    classes: of a conditional model, (N,), which its generator needs; None draws them at random.
    """
    name = "z_sample" if use_sample else "z_mean"
    options: EncodeOptions = {"seed": seed, "progress": progress, "classes": classes, "value_range": value_range}
    if isinstance(model, BigBiGAN):
        model.require("generator")  # before the images are read
    try:
        z = encode(images, model, name, batch_size, device, **options)
    except UnreadableImage as error:
        _raise_with_advice(error, 'mend it or leave it out; `encode` with on_error="skip" lists all such images')
    return generate(z, model, classes=classes, batch_size=batch_size, device=device, seed=seed)


@_public
def discriminate(
    images: ImageInput,
    z: Tensor | np.ndarray,
    model: BigBiGAN | str | os.PathLike[str],
    classes: Tensor | np.ndarray | None = None,
    batch_size: int = 64,
    device: Device = None,
    *,
    value_range: Range = None,
    features: bool = False,
) -> dict[str, Tensor]:
    """Score pairs of images and latents with D: a dictionary of score_x, score_z and score_xz, (N,) each.

    High scores mean "encoder pair".
    images, batch_size, value_range: as in `encode`; arrays and tensors of G's or of E's size are not resized.
    z: latents (N, Z).
    classes: of a conditional model, which needs them, (N,).
    features: also return D's penultimate features by the score that is made of them, feat_x, feat_z and feat_xz,
    (N, width) each.  Raises InputError.
    """
    batch_size = check_batch_size(batch_size)
    model, device = _ready(model, device)
    discriminator = model.require("discriminator")
    z = _latents(z, discriminator.latent_dim)
    classes = _class_labels(classes, model, len(z), weights=False)
    if classes is None and model.classes:
        raise InputError(
            f"classes: expected one for each image, ({len(z)},), since the model is conditional; found none"
        )
    dtype = weights_dtype(discriminator)
    batches = image_batches(
        images,
        _image_size(model),
        batch_size,
        value_range=value_range,
        trained_on=_trained_on(model),
        kept_size=discriminator.image_size,
    )
    collected: dict[str, list[Tensor]] = {}
    done = 0
    with torch.inference_mode():
        for x in batches:
            if done + len(x) > len(z):
                count = count_images(images) or f"more than {len(z)}"
                raise InputError(f"expected as many images as latents, found {count} images and {len(z)} latents")
            labels = _labels_from(classes, done, len(x), device)
            scores = model.discriminate(
                x.to(device, dtype), z[done : done + len(x)].to(device, dtype), labels, features
            )
            for name, value in scores.items():
                collected.setdefault(name, []).append(value.float().cpu())
            done += len(x)
    if done != len(z):
        raise InputError(f"expected as many images as latents, found {done} images and {len(z)} latents")
    joined = {name: torch.cat(parts) for name, parts in collected.items()}
    for name, values in joined.items():
        _doubt_finite(values, name, discriminator)
    return joined


@_public
def to_pil(images: Tensor | np.ndarray) -> list[Image.Image] | Image.Image:
    """Turn float images in [−1, 1] into PIL images of the same pixels: (N, 3, S, S) into a list, (3, S, S) into one.

    Values a little beyond the range are cut. Raises InputError for others, and warns of values in [0, 1], which look
    pale. `grid` enlarges small images.
    """
    tensor = _pictures(images)
    pictures = [Image.fromarray(i) for i in to_uint8(tensor).permute(0, 2, 3, 1).cpu().numpy()]
    return pictures[0] if images.ndim == 3 else pictures


@_public
def grid(images: Tensor | np.ndarray, columns: int | None = None, scale: int | None = None) -> Image.Image:
    """Draw float images (N, 3, S, S), or one (3, S, S), in [−1, 1] as one PIL image, row by row.

    columns: images a row; None for a sheet that is about square.
    scale: pixels of the sheet for a pixel of an image, a whole number; None for images at least 64 pixels wide.
    Raises InputError.
    """
    tensor = _pictures(images)
    for name, value in (("columns", columns), ("scale", scale)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
            raise InputError(f"{name}: expected a whole number of at least 1, or None, found {printable(repr(value))}")
    columns = columns or math.ceil(math.sqrt(len(tensor)))
    return sheet(tensor, int(columns), int(scale or math.ceil(TILE / tensor.shape[-1])))


def _doubt_finite(values: Tensor, name: str, network: Any) -> None:
    """Warn of NaN and infinity in what a network computed, values (N, ...), since its inputs were finite."""
    low, high = torch.aminmax(values.detach())  # takes no memory; both are NaN if there is any
    if bool(low.isfinite()) and bool(high.isfinite()):
        return
    bad = ~values.isfinite().flatten(1).all(1) if values.ndim > 1 else ~values.isfinite()
    broken = any(not bool(p.isfinite().all()) for p in network.state_dict().values() if p.is_floating_point())
    dtype = weights_dtype(network)
    why, cure = "its weights hold such values", "load the model again"
    if not broken and dtype in (torch.float16, torch.bfloat16):
        why, cure = f"its weights are {dtype}", "compute in float32: model.float()"
    elif not broken:
        why, cure = "its weights are finite", "look for very large numbers among its inputs"
    warn_caller(
        f"{name}: NaN or infinity in {int(bad.sum()):,} of {len(bad):,} rows, the first of them row "
        f"{int(bad.nonzero()[0])}: the {type(network).__name__} computed it, and {why}; {cure}"
    )


def _image_size(model: BigBiGAN) -> int:
    """Return the size to which the images of `discriminate` are brought: E's, or that of the network that is there."""
    network: Any = model.encoder or model.generator or model.discriminator
    return int(network.image_size)


def _pictures(images: Tensor | np.ndarray) -> Tensor:
    """Return images as `generate` returns them, one or more, as (N, 3, S, S). Raises InputError."""
    expected = "float (N, 3, S, S), or (3, S, S) for one, in [−1, 1], as `generate` returns them"
    if not isinstance(images, (Tensor, np.ndarray)):
        raise InputError(f"images: expected {expected}; found {type(images).__name__}")
    x = _as_numbers(images, "images", expected).detach()
    if x.ndim not in (3, 4) or x.shape[-3] != 3 or 0 in x.shape:
        raise InputError(f"images: expected {expected}; found the shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise InputError(f"images: expected {expected}; found {x.dtype}")
    low, high = (float(value) for value in torch.aminmax(x.float()))
    if not (low >= -2 and high <= 2):  # nor NaN
        raise InputError(f"images: expected {expected}; found values from {low:.5g} to {high:.5g}")
    doubt_unit_range(low, high, "drawn")
    return x[None] if x.ndim == 3 else x


def doubt_unit_range(low: float, high: float, how: str = "read") -> None:
    """Warn of float images that are read or drawn as in [−1, 1] and whose values, from low to high, fit in [0, 1]."""
    if 0 <= low < high <= 1:
        warn_caller(
            f"images are {how} as in [−1, 1], and the values of these go from {low:.5g} to {high:.5g}; if they are in "
            "[0, 1], give 2 * images - 1"
        )


def _part_names(parts: str | Collection[str] | None) -> tuple[str, ...] | None:
    """Return the names of the networks asked for, None for all. Raises InputError."""
    if parts is None:
        return None
    names = (parts,) if isinstance(parts, str) else parts
    known = isinstance(names, Collection) and all(isinstance(name, str) and name in PARTS for name in names)
    if not known or not names:
        raise InputError(f"parts: expected some of {', '.join(PARTS)}; found {printable(repr(parts))}")
    return tuple(names)


def _names(outputs: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the names of the outputs asked for. Raises InputError."""
    names = OUTPUTS if outputs is None else (outputs,) if isinstance(outputs, str) else outputs
    known = isinstance(names, (tuple, list)) and all(isinstance(name, str) and name in OUTPUTS for name in names)
    if not known or not names:
        raise InputError(f"outputs: expected some of {', '.join(OUTPUTS)}; found {printable(repr(outputs))}")
    return tuple(names)


def _check_on_error(on_error: object) -> None:
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error: expected 'raise' or 'skip', found {printable(repr(on_error))}")


def _raise_with_advice(error: UnreadableImage, cure: str = 'mend it, leave it out, or pass on_error="skip"') -> None:
    """Raise the error of an image that cannot be decoded with what leaves such images out."""
    told = UnreadableImage(error.name, error.reason, cure)
    told.place = error.place
    raise told from None


def _check_found(kept: int, skipped: list[UnreadableImage], classes: Tensor | None) -> None:
    """Raise InputError unless there are images, and as many as classes; warn of those that were skipped."""
    lines = [f"{error.name}: {error.reason}" for error in skipped[:SHOWN]]
    if not kept:
        found = f"none that can be read among {len(skipped):,}, such as {lines[0]}" if skipped else "none"
        raise InputError(f"expected at least one image, found {found}")
    count = kept + len(skipped)
    if classes is not None and len(classes) != count:
        raise InputError(f"classes: expected one for each image, found {len(classes)} and {count} images")
    if skipped:
        lines += [f"and {len(skipped) - SHOWN:,} more"] * (len(skipped) > SHOWN)
        listed = "\n  ".join(lines)
        warn_caller(f"{len(skipped):,} of {count:,} images cannot be read and are left out:\n  {listed}")


def check_seed(seed: object) -> None:
    """Raise InputError unless a seed is a whole number of 64 bits, which may be negative."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not -(2**63) <= seed < 2**64:
        raise InputError(f"seed: expected a whole number of 64 bits, found {printable(repr(seed))}")


def _check_truncation(truncation: float, prior: str) -> None:
    number = isinstance(truncation, (int, float, np.integer, np.floating)) and not isinstance(truncation, bool)
    if not number or not truncation > 0:
        raise InputError(f"truncation: expected a number above 0, or None, found {printable(repr(truncation))}")
    if prior != "normal":
        raise InputError(f"truncation: expected a model with the normal prior, found {prior}")


def _as_numbers(values: object, name: str, expected: str) -> Tensor:
    """Return what a caller gave for numbers as a tensor of real numbers. Raises InputError."""
    try:
        tensor = array_as_tensor(values) if isinstance(values, np.ndarray) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name}: expected {expected}, found {type(values).__name__}, which is no tensor") from None
    if tensor.is_complex() or tensor.layout is not torch.strided or tensor.is_nested or tensor.device.type == "meta":
        found = f"{tensor.dtype} of layout {tensor.layout} on {tensor.device}"
        raise InputError(f"{name}: expected {expected}, with real values, found {found}")
    return tensor


def _latents(z: Tensor | np.ndarray, width: int) -> Tensor:
    """Return latents as float (N, width), N at least 1. Raises InputError."""
    z = _as_numbers(z, "z", f"the shape (N, {width})").float()
    if z.ndim != 2 or z.shape[1] != width or not len(z):
        raise InputError(f"z: expected the shape (N, {width}), found {tuple(z.shape)}")
    if not z.isfinite().all():
        raise InputError("z: expected finite values, found NaN or infinity")
    return z


def _class_labels(
    classes: Tensor | np.ndarray | None, model: BigBiGAN, n: int | None = None, weights: bool = True
) -> Tensor | None:
    """Return classes as int64 (n,), or weights as float (n, K); None without any. Raises InputError.

    n: the number of images; None if it is not known.  A model without classes ignores them, with a warning.
    weights: whether weights are taken.
    """
    if classes is None:
        return None
    number = model.classes
    if not number:
        warn_caller("classes are ignored: the model is not conditional")
        return None
    name = "N" if n is None else n
    expected = f"the shape ({name},)" + f", or weights ({name}, {number})" * weights
    labels = _as_numbers(classes, "classes", expected)
    shape = tuple(labels.shape)
    if labels.ndim not in (1, 1 + weights) or shape[1:] not in ((), (number,)) or n not in (None, shape[0]):
        raise InputError(f"classes: expected {expected}, found {shape}")
    if labels.ndim == 2:
        if not labels.float().isfinite().all():
            raise InputError("classes: expected finite weights, found NaN or infinity")
        return labels.float()
    exact = labels.double()
    wrong = exact != exact.long().clamp(0, number - 1)  # nor NaN
    if labels.dtype == torch.bool or wrong.any():
        found = "True or False" if labels.dtype == torch.bool else f"{exact[wrong][0]:g}"
        raise InputError(f"classes: expected whole numbers from 0 to {number - 1}, found {found}")
    return exact.long()


def _labels_from(classes: Tensor | None, first: int, n: int, device: torch.device) -> Tensor | None:
    """Return the classes of n images from number `first` on, on the device; None without classes."""
    return _labels_at(classes, np.arange(first, first + n), device)


def _labels_at(classes: Tensor | None, places: np.ndarray, device: torch.device) -> Tensor | None:
    """Return the classes of the images at `places`, ints (n,), on the device; None without classes."""
    if classes is None:
        return None
    if len(places) and places[-1] >= len(classes):
        raise InputError(f"classes: expected one for each image, found {len(classes)} and more images")
    return classes[torch.from_numpy(places)].to(device)


def checked_device(device: Device) -> torch.device | None:
    """Return a device that this machine has; None for None. Raises InputError."""
    if device is None:
        return None
    expected = f"device: expected one of this machine, such as 'cpu', found {printable(repr(device))}"
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(f"{expected}, which names no device") from None
    try:
        torch.empty(1, device=place)
    except Exception as error:  # each kind of device has its own errors
        reason = str(error).split("\n")[0].split(". ")[0].rstrip(".")
        raise InputError(f"{expected} ({reason})") from None
    if place.type == "meta":
        raise InputError(f"{expected}, which holds no values")
    return place


def default_device() -> torch.device:
    """Return a GPU if there is one, else the CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


@functools.cache
def _default_model() -> Path:
    """Return the folder of the model that is used where none is named, and print once which model it is."""
    found = default_model()
    print(
        f"bigbigan: no model named, using the one that comes with the package: {found}; its card: "
        f"{found.folder / 'README.md'}",
        file=sys.stderr,
    )
    return found.folder


@torch.inference_mode(False)  # so that a model that is moved, or kept for the next call, can be trained
def _ready(model: Source, device: Device, parts: Collection[str] = PARTS) -> tuple[BigBiGAN, torch.device]:
    """Return the model in evaluation mode and its device.

    Of a model given by its path the networks `parts` are loaded, and kept for the next call.
    """
    device = checked_device(device)
    model = _default_model() if model is None else model
    if not isinstance(model, (BigBiGAN, str, os.PathLike)):
        found = f"{type(model).__name__}{unwrapped(model)}"
        raise InputError(f"model: expected a BigBiGAN, a path or a hub id, found {found}")
    if not isinstance(model, BigBiGAN):
        folder = expanded(model)
        kept = _cached(os.fsdecode(model), str(folder.absolute()) if folder.exists() else "", _state_of(folder))
        model = kept.with_parts(parts).to(device or default_device())
    elif device is not None:
        model = model.to(device)
    return model.eval(), next((p.device for p in model.parameters()), torch.device("cpu"))


class _KeptModel:
    """A model given by its path, of which each network is loaded when a call first needs it."""

    def __init__(self, source: str):
        self.source = source
        self.model: BigBiGAN | None = None

    def with_parts(self, parts: Collection[str]) -> BigBiGAN:
        """Return the model with at least the networks `parts` that it has. Raises CheckpointError."""
        if self.model is None:
            self.model = load_model(self.source, parts)
        elif missing := [name for name in self.model.left_out if name in parts]:
            further = load_model(self.source, missing)
            for name in missing:
                setattr(self.model, name, getattr(further, name))
            self.model.left_out = tuple(name for name in self.model.left_out if name not in missing)
        return self.model


@functools.lru_cache(maxsize=2)
def _cached(source: str, place: str, state: tuple[tuple[int, int], ...]) -> _KeptModel:
    """Return what is kept of a model. place: where its path leads from this folder; "" for a name."""
    return _KeptModel(source)


def _state_of(folder: Path) -> tuple[tuple[int, int], ...]:
    """Return what tells whether the files of a model have changed: their times and sizes."""
    try:
        patterns = ("*.json", "*.safetensors", "release/*.json", "release/*.safetensors", "checkpoints/*", "[0-9]*")
        files = [file.lstat() for pattern in patterns for file in sorted(folder.glob(pattern))]
        return tuple((file.st_mtime_ns, file.st_size) for file in files)
    except OSError:  # loading reports what is wrong
        return ()


def _trained_on(model: BigBiGAN) -> tuple[float, ...] | None:
    """Return the values of black and white in the pictures that the model was trained on; None for the usual ones."""
    return ((model.card or {}).get("data") or {}).get("value_range")


def _progress(
    batches: Iterator[Batch], total: int | None, batch_size: int, progress: bool | None, what: str
) -> Iterator[Batch]:
    """Yield the batches, with a progress bar if it is asked for or the work is long."""
    show = progress if progress is not None else total is None or total > LONG * batch_size
    with tqdm(total=total, unit="img", desc=what, disable=not show) as bar:
        done = 0
        for batch in batches:
            yield batch
            after = int(batch.places[-1]) + 1
            bar.update(after - done)
            done = after
