"""Write a small release to give away: `python -m bigbigan.release.export CKPT FOLDER [--limit_mb 8] [--data NAME]`.

A release folder with averaged E and G in bf16, without D unless asked for, and a card that says what the rounding
changed. (`bigbigan-export` is another command: it writes a graph of E that runs without this library.)
"""

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # before torch is loaded
    from bigbigan.config.command import prepare_process

    prepare_process()

import numpy as np
import torch
import tyro
from safetensors.torch import save
from torch import Tensor

from bigbigan.config.bounds import Strength
from bigbigan.config.command import say
from bigbigan.config.parsing import parse_options
from bigbigan.errors import ExportError, exit_with_a_sentence
from bigbigan.files import expanded, printable
from bigbigan.latents import sample_prior
from bigbigan.metrics.bidirectional import fit_to, some_classes
from bigbigan.model import BigBiGAN, absence
from bigbigan.release.card import headline, worth
from bigbigan.release.format import check_place, write_release
from bigbigan.release.load import load_model
from eval_linear.result import ProbeResult

IMAGES = 64  # that the exported model is compared with the original on
USE = """
## What it is for, and what not

Features and latents of images like its training images, at {size} px; comparing methods; trying the library. It is
small and has seen one data set: it is no general image encoder, its samples are no photographs, and nobody should be
judged by it. Whatever imbalance the training images have, it has too.
"""


@dataclass
class Export:
    """Write averaged E and G of a model as a small release folder."""

    ckpt: tyro.conf.Positional[str]
    """A run folder, checkpoint folder, release folder or hub id, or the name of a model that comes with the package."""
    folder: tyro.conf.Positional[str]
    """Where to: a release folder that any `model=` takes."""
    precision: Literal["bf16", "float32"] = "bf16"
    """Of the weights in the file; vectors (biases, statistics, u, v) stay float32, and so does all computing."""
    discriminator: bool = False
    """Keep D, which fine-tuning and `discriminate` need."""
    limit_mb: Strength = 0.0
    """Largest size of the weights in MB (10⁶ bytes), beyond which nothing is written; 0 for any."""
    name: str = ""
    """What the card calls the model; the run's name when empty."""
    data: str = ""
    """What the card calls the training data, such as uoft-cs/cifar10; the path that was trained on when empty."""
    natural: bool = False
    """It saw natural images: where it comes with the package, `encode` uses it if no model is named."""


def main(argv: list[str] | None = None) -> None:
    with exit_with_a_sentence():
        say(export(parse_options(Export, "python -m bigbigan.release.export", argv)))


def export(options: Export) -> str:
    """Write the release and its card, and return a sentence: size and what the precision changed, if anything."""
    folder = expanded(options.folder)
    if not options.folder:  # an empty variable of a shell, which would mean this folder
        raise ExportError("folder: expected the folder to write, found none")
    if expanded(options.ckpt).exists() and folder.exists() and folder.samefile(expanded(options.ckpt)):
        raise ExportError(f"{printable(folder)}: expected another folder than the model's own, which it would replace")
    check_place(folder)
    model = load_model(options.ckpt)
    if model.encoder is None:
        raise ExportError(f"{options.ckpt}: {absence('encoder')}")
    small = lighter(model, options.precision, options.discriminator)
    size = len(save({k: v.contiguous() for k, v in small.state_dict().items()}))
    parts = ", ".join(f"{name} {sum(p.numel() for p in net.parameters()):,}" for name, net in small.named_children())
    text = f"{size / 1e6:.2f} MB in {options.precision} ({parts} parameters)"
    if options.limit_mb and size > options.limit_mb * 1e6:
        raise ExportError(
            f"{options.ckpt}: expected at most {options.limit_mb:g} MB, found {text}; make its networks narrower"
        )
    probed, seen, left_out = _probed(options.ckpt), model.card.get("images_seen"), ""
    if probed is not None and probed.images_seen not in (None, seen):  # of the run before it went on
        left_out = f"; no figures: probe.json is of {probed.images_seen} images seen, the model of {seen}"
        probed = None
    figures = "" if probed is None else worth(probed)
    about = copy.deepcopy(model.card) or {"name": expanded(options.ckpt).name, "images_seen": 0, "seed": 0, "data": {}}
    about["name"] = options.name or about["name"]
    about["data"] = (
        {"path": "unknown", "split": "train"} | about["data"] | ({"path": options.data} if options.data else {})
    )
    about["natural"] = options.natural
    about["worth"] = {} if probed is None else headline(probed)
    small.config = dataclasses.replace(small.config, init_from=Path(small.config.init_from).name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_release(folder, small, about, "below" if figures else "not measured")
    changed = changes(model, load_model(folder))
    if rounded := any(changed.values()):
        said = ", ".join(f"{name} {value:.2%}" for name, value in changed.items())
        text += f"; root mean square change against float32 on {IMAGES} samples of its own: {said}"
    measured = "before the rounding" if rounded else "on these weights"
    with open(folder / "README.md", "a", encoding="utf-8") as file:
        file.write(f"\n{text}. What is below was measured {measured}.\n")
        file.write(figures + USE.format(size=small.config.image_size))
    return f"{folder}: {text}{left_out}"


def lighter(model: BigBiGAN, precision: str, discriminator: bool) -> BigBiGAN:
    """Return a copy whose weights of two dimensions and more are in `precision`; without D unless it is wanted."""
    kept = copy.deepcopy(model.discriminator) if discriminator else None
    small = BigBiGAN(copy.deepcopy(model.generator), copy.deepcopy(model.encoder), kept, model.config)
    for tensor in (*small.parameters(), *small.buffers()):
        if precision == "bf16" and tensor.is_floating_point() and tensor.ndim > 1:
            tensor.data = tensor.data.bfloat16()
    return small


@torch.inference_mode()
def changes(model: BigBiGAN, other: BigBiGAN) -> dict[str, float]:
    """Return the root mean square difference of `other` from `model` in images, features and latents.

    Each is relative to the size of what differs.
    """
    prior, width = model.prior, model.generator.latent_dim
    z = sample_prior(prior, 0, "export", np.arange(IMAGES), width)
    classes = some_classes(model, IMAGES, 0) if model.generator.classes else None
    x = model.generate(z, classes)
    seen = fit_to(x, model.encoder.image_size)
    ours, theirs = model.encode(seen, torch.zeros_like(z)), other.encode(seen, torch.zeros_like(z))
    pairs = {"images": (x, other.generate(z, classes))}
    pairs |= {name: (ours[name], theirs[name]) for name in ("avepool_feat", "z_mean")}
    return {name: _relative(a, b) for name, (a, b) in pairs.items()}


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt() / (a - a.mean(0)).square().mean().sqrt().clamp_min(1e-12))


def _probed(ckpt: str) -> ProbeResult | None:
    """Return what the run's probe.json says; None for a run that was not probed. Raises ProbeError or ExportError."""
    path = expanded(ckpt) / "probe.json"
    if not path.is_file():
        return None
    result = ProbeResult.read(path)
    if result.n_test is None:
        raise ExportError(f"{path}: expected what bigbigan-probe writes, found no key n_test; probe anew")
    return result


if __name__ == "__main__":
    main()
