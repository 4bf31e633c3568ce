"""Release format 1, written and read: a folder of config.json, model.safetensors and README.md.

config.json holds the format, the SHA-256 of the weights, the flat section `model` and the card; the weights are
averaged E and G with their sampling statistics, and D unless it was left out. Nothing is unpickled.
"""

import copy
import dataclasses
import json
import os
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigbigan.config import Model, check_model, merged
from bigbigan.files import read_json, sha256
from bigbigan.model import BigBiGAN
from bigbigan.networks.weights import check_weights, load_weights

FORMAT = 1
README = """---
library_name: bigbigan
tags: [bigbigan, gan, representation-learning, unconditional-image-generation]
---
# {name}

A BigBiGAN: an encoder, a generator and a joint discriminator trained against each other on images without labels
(Donahue & Simonyan, NeurIPS 2019), from random weights{init}.

| | |
|---|---|
| data | {path}, split {split} |
| real images seen | {images_seen:,} |
| image size | {image_size} px; the encoder sees {encoder_size} px |
| latents | {latent_dim}, {prior} prior |
| encoder | {encoder} × {encoder_width:g} |
| seed | {seed} |

```python
import bigbigan
features = bigbigan.encode(images, model="PATH OR HUB ID OF THIS FOLDER", outputs="avepool_feat")
```

`model.safetensors` holds the averaged encoder and generator with their sampling statistics{discriminator}.
Use it within the terms of the data it was trained on. Figures of this model: {figures}.
"""


def write_release(folder: Path, model: BigBiGAN, card: dict, figures: str = "not measured") -> None:
    """Write folder/{config.json, model.safetensors, README.md}, each complete or absent.

    card: what `release.load.card` returns.  figures: a phrase for the README.
    """
    beside = folder.with_name(f".writing-{folder.name}")
    beside.mkdir(parents=True, exist_ok=True)
    model.card = card
    known = next(model.parameters()).device.type in ("cpu", "cuda")  # XLA's have no storage that could be written
    (model if known else copy.deepcopy(model).cpu()).save_pretrained(beside)
    write_readme(beside, model, figures)
    folder.mkdir(exist_ok=True)
    for name in ("model.safetensors", "README.md", "config.json"):  # the config last: with it the release is there
        os.replace(beside / name, folder / name)
    beside.rmdir()


def write_weights(model: BigBiGAN, folder: Path) -> None:
    """Write model.safetensors and config.json into `folder`."""
    weights = folder / "model.safetensors"
    try:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
    except SafetensorError as error:  # its name for a full disk
        raise OSError(f"{weights}: {error}") from None
    config = {
        "format": FORMAT,
        "sha256": sha256(weights),
        "model": dataclasses.asdict(model.config),
        "card": model.card,
    }
    if model.discriminator is None:
        config["discriminator"] = False
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_readme(folder: Path, model: BigBiGAN, figures: str) -> None:
    """Write the model card, folder/README.md."""
    config, card = model.config, model.card
    text = README.format(
        name=card["name"],
        path=card["data"]["path"],
        split=card["data"]["split"],
        images_seen=card["images_seen"],
        seed=card["seed"],
        image_size=config.image_size,
        encoder_size=config.encoder_image_size or config.image_size,
        latent_dim=config.latent_dim or model.generator.latent_dim,
        prior=config.prior,
        encoder=config.encoder,
        encoder_width=config.encoder_width,
        init=f", after {config.init_from}" if config.init_from else "",
        figures=figures,
        discriminator=", and the discriminator" if model.discriminator is not None else "",
    )
    (folder / "README.md").write_text(text)


def read_release_or_hub(
    model_id: str, revision=None, cache_dir=None, force_download=False, local_files_only=False, token=None, **_
) -> BigBiGAN:  # fmt: skip
    """Read a release from a folder, or from the hub; the options are those of `hf_hub_download`."""

    def file(name: str) -> Path:
        if Path(model_id).is_dir():
            return Path(model_id) / name
        found = hf_hub_download(
            model_id,
            name,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        return Path(found)

    return read_release(file("config.json"), file("model.safetensors"), model_id)


def read_release(settings: Path, weights: Path, where: str) -> BigBiGAN:
    """Read config.json and model.safetensors into a model in evaluation mode; ValueError says what does not fit."""
    try:
        config = read_json(settings)
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}/config.json: {error}") from None
    if config.get("format") != FORMAT:
        found = config.get("format", "none")
        raise ValueError(f"{where}/config.json: expected a bigbigan release of format {FORMAT}, found {found!r}")
    expected = config.get("sha256")
    try:
        if expected is not None and expected != sha256(weights):
            raise ValueError(
                f"{weights}: its checksum is not the one in config.json; the file is damaged, get it again"
            )
        tensors = load_file(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"{where}/model.safetensors: expected tensors, found {type(error).__name__}: {error}"
        ) from None
    model = build(config.get("model"), tensors, f"{where}/config.json", config.get("discriminator") is not False)
    model.card = config["card"] if isinstance(config.get("card"), dict) else {}
    load_weights(model, tensors, where)
    return model.eval()


def build(section: object, tensors: dict[str, Tensor], where: str, discriminator: bool = True) -> BigBiGAN:
    """Build the networks of a section `model` that came with a file of these tensors; ValueError if they do not fit.

    The networks are outlined without memory first: whatever size the section asks for, no more is taken than the file
    holds.
    """
    if not isinstance(section, dict):
        raise ValueError(f"{where}: expected the settings of a model, found {type(section).__name__}")
    unknown = set(section) - {f.name for f in dataclasses.fields(Model)}
    if unknown:
        raise ValueError(f"{where}: unknown keys {', '.join(sorted(unknown))}; was it written by a newer version?")
    config = merged(Model(), section, where)
    try:
        check_model(config)
        with torch.device("meta"):
            outline = BigBiGAN.from_config(config, discriminator).state_dict()
    except RuntimeError:  # a backbone that computes with its initial weights
        outline = None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if outline is not None:
        check_weights(outline, tensors, where)
    return BigBiGAN.from_config(config, discriminator)
