"""Read what the commands of `bigbigan.uses` are given (a model, images), and write what they draw."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image, PngImagePlugin
from torch import Tensor
from tqdm.auto import tqdm

from bigbigan.api import checked_device, load
from bigbigan.config import ImagesGiven
from bigbigan.config.command import say
from bigbigan.config.parsing import parse_options
from bigbigan.data import Images, data_of_model, evaluation_batches, open_splits, to_signed
from bigbigan.errors import InputError, exit_with_a_sentence
from bigbigan.files import check_writable, expanded, printable, write_whole
from bigbigan.latents import sample_prior
from bigbigan.model import BigBiGAN, unwrapped

OURS = {"Software": "bigbigan"}  # in the PNG files of the commands, by which they know that they may replace one


def run_command(options: type, run: Callable, name: str, argv: list[str] | None) -> None:
    """Print what `run` returns for the options of the command line; the exit status is 0, or that of an error.

    name: of the module in `bigbigan.uses`.
    """
    with exit_with_a_sentence():
        given = parse_options(options, f"python -m bigbigan.uses.{name}", argv)
        for setting, path in vars(given).items():
            if isinstance(path, Path):  # of a picture; what is read has a name, which may be that of a hub data set
                picture_path(path, f"--{setting}")
        say(run(given))


@dataclass
class ModelOptions:
    """Name the model of a command and where it computes."""

    model: tyro.conf.Positional[str]
    """A run folder, checkpoint folder, release folder or hub id, or the name of a model that comes with the package."""
    device: str = ""
    """Where to compute; a GPU if there is one, else the CPU, when empty."""


@dataclass
class UseOptions(ModelOptions):
    """Name the model and the images of a command, which adds settings of its own."""

    data: ImagesGiven = field(default_factory=ImagesGiven)


def ready(model: BigBiGAN | str | os.PathLike | None, device: torch.device | str | None = None) -> BigBiGAN:
    """Return a model in evaluation mode: the one given, or the one that `bigbigan.load` finds by its path or name.

    device: where to put it; None for where it is, or where `load` puts it.  Raises InputError or CheckpointError.
    """
    if model is None or isinstance(model, (str, os.PathLike)):
        return load(model, device).eval()
    if not isinstance(model, BigBiGAN):
        found = f"{type(model).__name__}{unwrapped(model)}"
        raise InputError(f"model: expected a BigBiGAN, a path or a hub id, found {found}")
    device = checked_device(device)
    return (model if device is None else model.to(device)).eval()


def device_of(model: BigBiGAN) -> torch.device:
    """Return where a model's weights are."""
    return next(model.parameters()).device


def open_data(data: ImagesGiven, model: BigBiGAN) -> tuple[Images, Images]:
    """Return the (training, held-out) images that the settings name, divided as the model's training divided them.

    Raises InputError if neither the settings nor the model name any, or DataError.
    """
    settings = data_of_model(data, model.card)
    if not settings.path:
        raise InputError("--data.path: expected a folder, a file or a data set's name, since the model names none")
    return open_splits(settings)


def bar_settings(progress: bool = True) -> dict[str, bool | float]:
    """Return tqdm's settings for work of more than some seconds: a bar, or in a log a line each half minute."""
    if not progress:
        return {"disable": True}
    return {"delay": 2} if sys.stderr.isatty() else {"delay": 10, "mininterval": 30}


def bar(total: int, what: str, unit: str = "img") -> tqdm:
    """Return a progress bar, as `bar_settings` sets it."""
    return tqdm(total=total, desc=what, unit=unit, **bar_settings())


def read_images(images: Images, size: int, count: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """Return `count` images as float (n, 3, size, size) in [−1, 1] and their labels, int64 (n,) or None.

    count: images drawn at random by the seed; None for all, in their order.  Images that cannot be decoded are left
    out.
    """
    chosen = np.arange(len(images))
    if count is not None and count < len(images):
        chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    some = images.subset(chosen)
    parts = []
    with bar(len(some), "reading images") as shown:
        for pixels, places in evaluation_batches(some, size, 256):
            parts.append((to_signed(pixels), places))
            shown.update(len(places))
    if not parts:
        raise InputError(f"--data.path: expected at least one image to read, found none of {len(some)}")
    x = torch.cat([x for x, _ in parts])
    places = np.concatenate([places for _, places in parts])
    return x, None if some.labels is None else torch.from_numpy(np.asarray(some.labels)[places])


def draw_latents(model: BigBiGAN, count: int, purpose: str, seed: int = 0, first: int = 0) -> Tensor:
    """Return latents of the model's prior, float32 (count, Z) on its device, those of places `first` and following."""
    places = np.arange(first, first + count)
    return sample_prior(model.prior, seed, purpose, places, model.require("generator").latent_dim).to(device_of(model))


def draw_classes(model: BigBiGAN, count: int, seed: int = 0) -> Tensor | None:
    """Return random classes (count,) for a conditional model, None for one without classes."""
    if not model.classes:
        return None
    generator = torch.Generator().manual_seed(int(seed))
    return torch.randint(model.classes, (count,), generator=generator).to(device_of(model))


def classes_for(model: BigBiGAN, labels: Tensor | None) -> Tensor | None:
    """Return labels (N,) on the model's device for a conditional model, None for others. Raises InputError for none."""
    if not model.classes:
        return None
    if labels is None:
        raise InputError("--data.path: expected images with classes, since the model is conditional; found none")
    return labels.to(device_of(model))


def at_encoder_size(model: BigBiGAN, x: Tensor) -> Tensor:
    """Return images (N, 3, S, S) at the size that E takes, resized as `bigbigan.encode` does; gradients pass."""
    size = model.require("encoder").image_size
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1)


def picture_path(path: str | os.PathLike, flag: str = "--out") -> Path:
    """Return the path that a picture is written to. Raises InputError for one where no PNG file can be written.

    A picture of these commands is replaced; another file of its name is not.
    """
    path = expanded(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{flag} {printable(path)}: expected the name of a PNG file, such as picture.png")
    check_writable(path, flag)
    if path.exists() and not _is_ours(path):
        raise InputError(
            f"{flag} {printable(path)}: expected a new file, or a picture of these commands to replace, found another "
            f"file; move it away, or give another name by {flag}"
        )
    return path


def _is_ours(path: Path) -> bool:
    """Return whether a file is a picture that these commands wrote."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return OURS.items() <= picture.info.items()
    except (OSError, SyntaxError, ValueError):  # Pillow's ways of saying that a file is no picture
        return False


def write_picture(picture: Image.Image, path: str | os.PathLike) -> Path:
    """Write a picture as a PNG; the folders above it are created. Returns the path."""
    path = picture_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = PngImagePlugin.PngInfo()
    for name, value in OURS.items():
        mark.add_text(name, value)
    write_whole(path, lambda part: picture.save(part, format="png", optimize=True, pnginfo=mark))
    return path
