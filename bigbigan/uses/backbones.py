"""Hand E's trunk to other people's code: as an ordinary torch module, or as a plain timm model."""

import os
from typing import TypeAlias

import torch
from torch import nn

from bigbigan.api import checked_device, load
from bigbigan.distributed.device import default_on_cpu
from bigbigan.errors import InputError
from bigbigan.files import printable
from bigbigan.model import BigBiGAN, unwrapped
from bigbigan.networks.encoder import REVNET, Encoder, automatic_stem, plain_timm
from bigbigan.networks.ordinary import Backbone

Source: TypeAlias = BigBiGAN | Encoder | str | os.PathLike[str] | None


@default_on_cpu()
@torch.inference_mode(False)
def backbone(model: Source = None, trainable: bool = False, device: torch.device | str | None = None) -> Backbone:
    """Return a copy of E's trunk as an ordinary network: x (N, 3, S, S) in [−1, 1] → AvePool feature (N, C).

    model: a `BigBiGAN`, its encoder, or what `bigbigan.load` takes.
    trainable: False for a frozen feature extractor, which stays in evaluation mode; True for fine-tuning: torch's batch
    norms then do what they always do in training mode.
    device: where to put it; None for where `model` is, or where `load` puts it.
    It has `num_features` (C), `image_size` (S) and `forward_features`, and is in evaluation mode: call `.train()`.
    Raises InputError, or CheckpointError for a path.
    """
    if not isinstance(trainable, bool):
        raise InputError(f"trainable: expected True or False, found {printable(repr(trainable))}")
    device = checked_device(device)
    encoder = model if isinstance(model, Encoder) else _loaded(model, device, ", its encoder").require("encoder")
    network = Backbone(encoder, trainable)
    return network if device is None else network.to(device)


@default_on_cpu()
@torch.inference_mode(False)
def to_timm(model: BigBiGAN | str | os.PathLike[str] | None = None) -> nn.Module:
    """Return E's trunk as timm's own network, made by `timm.create_model` with `num_classes=0`, with E's weights.

    model: a `BigBiGAN`, or what `bigbigan.load` takes.
    The stem of a ResNet-v2 for images below 128 px is ours, one convolution. `timm.data.resolve_model_data_config`
    tells how images are prepared. timm's transform resizes before it crops and ours after: crop pictures to squares
    before it, or use `bigbigan.as_tensor`. The network is in evaluation mode.
    Raises InputError for an encoder whose trunk is not timm's: RevNet, BiGAN's MLP, a network that grows, your own.
    """
    model = _loaded(model)
    config = model.config
    kind = "your own networks" if config is None else config.encoder
    if config is None or kind in ("none", "mlp", "progressive", REVNET):
        names = {"none": "a GAN, which has none", "mlp": "BiGAN's MLP", "progressive": "one that grows"}
        raise InputError(
            f"model: expected an encoder of timm, such as resnetv2_50, found {names.get(kind, kind)}; "
            "bigbigan.backbone(model) returns any encoder as an ordinary torch module"
        )
    encoder = model.require("encoder")
    trunk, size = encoder.trunk, encoder.image_size
    stem = automatic_stem(size) if config.encoder_stem == "auto" else config.encoder_stem
    network = plain_timm(trunk.state_dict(), kind, config.encoder_width, stem, size, tuple(config.encoder_blocks))
    return network.to(next(trunk.parameters())).eval()


def _loaded(model: Source, device: torch.device | str | None = None, further: str = "") -> BigBiGAN:
    """Return the model itself, or the one that a path or hub id names. Raises InputError or CheckpointError.

    further: what else the caller takes, for the message.
    """
    if model is None or isinstance(model, (str, os.PathLike)):
        return load(model, device)
    if not isinstance(model, BigBiGAN):
        found = f"{type(model).__name__}{unwrapped(model)}"
        raise InputError(f"model: expected a BigBiGAN{further}, a path or a hub id, found {found}")
    return model
