"""Use a model in one call: load, encode, generate, reconstruct, discriminate, to_pil."""

import functools
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from bigbigan.data import to_uint8
from bigbigan.data.inputs import count_images, image_batches
from bigbigan.errors import InputError
from bigbigan.files import read_json
from bigbigan.latents import sample_prior, truncate
from bigbigan.model import BigBiGAN
from bigbigan.noise import normal_noise
from bigbigan.release.load import load_model, shipped

OUTPUTS = ("z_mean", "z_stdev", "z_sample", "avepool_feat", "bn_crelu_feat")
LONG = 20  # batches from which a progress bar is shown


def load(checkpoint: str | os.PathLike | None = None, device: torch.device | str | None = None) -> BigBiGAN:
    """Load a model with averaged E and G, in evaluation mode. Raises CheckpointError.

    checkpoint: a run folder, checkpoint folder, release folder or hub id; None for the model that ships with the
    package.  device: where to put the model; None for a GPU if there is one, else the CPU.
    """
    return load_model(_default_model() if checkpoint is None else checkpoint).to(device or _default_device())


def encode(
    images,
    model: BigBiGAN | str | os.PathLike | None = None,
    outputs: str | tuple[str, ...] | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool | None = None,
    *,
    classes: Tensor | np.ndarray | None = None,
) -> dict[str, Tensor] | Tensor:
    """Encode images to latents and features, named as the published hub module names them.

    images: a path of an image or folder, a list of paths, PIL images, uint8 or float arrays and tensors (float in
    [−1, 1]), or a `datasets` column; any size and mode: the centre square is resized to the encoder's size.
    model: a `BigBiGAN`, or what `load` takes; None for the model that ships with the package, which is named once.
    outputs: z_mean, z_stdev, z_sample (N, Z), avepool_feat (N, C), bn_crelu_feat (N, 2C). One name returns a tensor; a
    tuple of names, or None for all, returns a dictionary. Tensors are float32 on the CPU.
    seed: decides z_sample.  progress: show a progress bar; None shows it when the work is long.
    classes: of the images, (N,), for an encoder that sees classes; those of this library do not.
    Raises InputError for images in another range or shape.
    """
    names = OUTPUTS if outputs is None else (outputs,) if isinstance(outputs, str) else outputs
    if not isinstance(names, (tuple, list)) or not names or not set(map(str, names)) <= set(OUTPUTS):
        raise InputError(f"outputs: expected some of {', '.join(OUTPUTS)}; found {outputs!r}")
    model, device = _ready(model, device)
    if model.encoder is None:
        raise InputError("model: expected one with an encoder, found a GAN, which has no encoder")
    collected: dict[str, list[Tensor]] = {name: [] for name in names}
    done = 0
    with torch.inference_mode():
        for x in _progress(
            images, model.encoder.image_size, batch_size, 0 if device.type == "cpu" else 2, progress, "encoding"
        ):
            noise = normal_noise(seed, "encode", np.arange(done, done + len(x)), model.encoder.latent_dim)
            labels = _labels_from(classes, done, len(x), device) if getattr(model.generator, "classes", 0) else None
            result = model.encode(x.to(device, non_blocking=True), noise.to(device), labels)
            for name in names:
                collected[name].append(result[name].float().cpu())
            done += len(x)
    if not done:
        raise InputError("expected at least one image, found none")
    joined = {name: torch.cat(parts) for name, parts in collected.items()}
    return joined[outputs] if isinstance(outputs, str) else joined


def generate(
    z: int | Tensor | np.ndarray,
    model: BigBiGAN | str | os.PathLike | None = None,
    truncation: float | None = None,
    classes: Tensor | np.ndarray | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> Tensor:
    """Generate images: float (N, 3, S, S) in [−1, 1] on the CPU, which `to_pil` turns into pictures.

    z: latents (N, Z), or the number of latents to draw from the prior.
    truncation: redraw components of z beyond this magnitude (BigGAN); for the normal prior only.
    classes: of a conditional model, (N,), or weights (N, K) over its K classes; None draws them at random.
    Raises InputError.
    """
    model, device = _ready(model, device)
    width = model.generator.latent_dim
    prior = model.prior
    if isinstance(z, (int, np.integer)):
        z = sample_prior(prior, seed, "generate", np.arange(int(z)), width)
    z = torch.as_tensor(z).float()
    if z.ndim != 2 or z.shape[1] != width:
        raise InputError(f"z: expected the shape (N, {width}), found {tuple(z.shape)}")
    if truncation is not None:
        if prior != "normal":
            raise InputError(f"truncation: expected a model with the normal prior, found {prior}")
        z = truncate(z, truncation, seed)
    number = getattr(model.generator, "classes", 0)
    if number and classes is None:
        classes = torch.randint(number, (len(z),), generator=torch.Generator().manual_seed(seed))
    labels = [None] * len(z.split(batch_size)) if not number else _labels(classes, len(z), number).split(batch_size)
    with torch.inference_mode():
        parts = [
            model.generate(part.to(device), None if label is None else label.to(device)).float().cpu()
            for part, label in zip(z.split(batch_size), labels, strict=True)
        ]
    return torch.cat(parts)


def _labels(classes: Tensor | np.ndarray, n: int, number: int) -> Tensor:
    labels = torch.as_tensor(classes)
    if tuple(labels.shape) not in ((n,), (n, number)):
        raise InputError(f"classes: expected the shape ({n},), or weights ({n}, {number}), found {tuple(labels.shape)}")
    return labels.long() if labels.ndim == 1 else labels.float()


def _labels_from(classes: Tensor | np.ndarray | None, first: int, n: int, device: torch.device) -> Tensor | None:
    """Return the classes of n images from number `first` on, on the device; None without classes."""
    if classes is None:
        return None
    part = torch.as_tensor(classes[first : first + n])
    if len(part) != n:
        raise InputError(f"classes: expected one for each image, found {len(classes)} and more images")
    return (part.long() if part.ndim == 1 else part.float()).to(device)


def reconstruct(
    images,
    model: BigBiGAN | str | os.PathLike | None = None,
    use_sample: bool = False,
    classes: Tensor | np.ndarray | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Tensor:
    """Reconstruct images as G(E(x)): float (N, 3, S, S) in [−1, 1] on the CPU.

    images, model: as in `encode`.  use_sample: reconstruct from a sample of the posterior, not from its mean.
    classes: of a conditional model, (N,), which its generator needs; None draws them at random.
    """
    name = "z_sample" if use_sample else "z_mean"
    z = encode(images, model, name, batch_size, device, seed, progress, classes=classes)
    return generate(z, model, classes=classes, batch_size=batch_size, device=device, seed=seed)


def discriminate(
    images,
    z: Tensor | np.ndarray,
    model: BigBiGAN | str | os.PathLike,
    classes: Tensor | np.ndarray | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> dict[str, Tensor]:
    """Score pairs of images and latents with D: a dictionary of score_x, score_z and score_xz, (N,) each.

    High scores mean "encoder pair".
    images: as in `encode`; arrays and tensors of G's or of E's size are taken as they are.  z: latents (N, Z).
    classes: of a conditional model, which needs them, (N,).  Raises InputError.
    """
    model, device = _ready(model, device)
    if model.discriminator is None:
        raise InputError("model: expected one with a discriminator, found E and G alone")
    z = torch.as_tensor(z).float()
    width = model.discriminator.latent_dim
    if z.ndim != 2 or z.shape[1] != width:
        raise InputError(f"z: expected the shape (N, {width}), found {tuple(z.shape)}")
    size = (model.encoder or model.generator).image_size
    small = model.discriminator.image_size
    if isinstance(images, (np.ndarray, Tensor)) and small in images.shape[-3:] and size not in images.shape[-3:]:
        size = small
    collected: dict[str, list[Tensor]] = {}
    done = 0
    with torch.inference_mode():
        for x in image_batches(images, size, batch_size):
            if done + len(x) > len(z):
                break
            place = slice(done, done + len(x))
            labels = None if classes is None else torch.as_tensor(classes[place]).long().to(device)
            scores = model.discriminate(x.to(device), z[place].to(device), labels)
            for name, value in scores.items():
                collected.setdefault(name, []).append(value.float().cpu())
            done += len(x)
    if done != len(z):
        raise InputError(
            f"expected as many images as latents, found {count_images(images) or 'another number'} and {len(z)}"
        )
    return {name: torch.cat(parts) for name, parts in collected.items()}


def to_pil(images: Tensor) -> list:
    """Turn float images (N, 3, S, S) in [−1, 1] into a list of PIL images."""
    from PIL import Image

    return [Image.fromarray(i) for i in to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()]


def _default_device() -> torch.device:
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


@functools.cache
def _default_model() -> Path:
    """Return the folder of the model that ships with the package, and print once which model it is."""
    folder = shipped()
    card = read_json(folder / "config.json")["card"]
    about = f"{card['name']}, {card['images_seen']:,} images of {card['data']['path']} seen"
    print(
        f"bigbigan: no model named, using the one that ships: {about}; its card: {folder / 'README.md'}",
        file=sys.stderr,
    )
    return folder


def _ready(model: BigBiGAN | str | os.PathLike | None, device) -> tuple[BigBiGAN, torch.device]:
    """Return the model in evaluation mode and its device; a model given by its path is kept for the next call."""
    model = _default_model() if model is None else model
    if not isinstance(model, (BigBiGAN, str, os.PathLike)):
        raise InputError(f"model: expected a BigBiGAN, a path or a hub id, found {type(model).__name__}")
    if not isinstance(model, BigBiGAN):
        model = _cached(str(model), _newest_change(Path(os.path.expanduser(model)))).to(device or _default_device())
    elif device is not None:
        model = model.to(device)
    return model.eval(), next(model.generator.parameters()).device


@functools.lru_cache(maxsize=2)
def _cached(source: str, changed: float) -> BigBiGAN:
    return load_model(source)


def _newest_change(folder: Path) -> float:
    try:
        files = [*folder.glob("*.json"), *folder.glob("release/*.json"), *folder.glob("checkpoints/*")]
        return max((file.lstat().st_mtime for file in files), default=0.0)
    except OSError:  # loading reports what is wrong
        return 0.0


def _progress(images, size: int, batch_size: int, ahead: int, progress: bool | None, what: str):
    total = count_images(images)
    show = progress if progress is not None else total is None or total > LONG * batch_size
    with tqdm(total=total, unit="img", desc=what, disable=not show) as bar:
        for x in image_batches(images, size, batch_size, ahead):
            yield x
            bar.update(len(x))
