"""Optimisers, their learning rates over a run, and what else acts on weights and gradients around an update."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from bigbigan.config import Config, Optim
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import clamp_sigma

NETWORKS = ("discriminator", "encoder", "generator")


def chosen(which: str) -> set[str]:
    """ "all", "none", a network, or two joined as encoder_generator → names of networks."""
    return {name for name in NETWORKS if which == "all" or name in which.split("_")}


def rates(optim: Optim, images_seen: int, factors: dict[str, float] | None = None) -> dict[str, float]:
    """Network → Adam's rate for the updates after `images_seen` images; 0 for a frozen network.

    factors: by which a recovery lowered the rates, by network.
    """
    lowered = chosen(optim.lower_networks) if optim.lower_after and images_seen >= optim.lower_after else set()
    way = min(1.0, (images_seen - optim.lower_after) / optim.lower_images) if optim.lower_images else 1.0
    frozen = chosen(optim.freeze)
    risen, factors = ramp_up(images_seen, optim.lr_rampup), factors or {}

    def rate(name: str) -> float:
        return (
            getattr(optim, f"{name}_lr")
            * factors.get(name, 1.0)
            * (optim.lower_factor**way if name in lowered else 1.0)
            * risen
        )

    return {name: 0.0 if name in frozen else rate(name) for name in NETWORKS}


def set_rates(optimizers: dict[str, torch.optim.Optimizer], rates: dict[str, float]) -> None:
    """Give every parameter group the rate of the network it is named after."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]]


def ramp_up(images_seen: int, images: int) -> float:
    """The factor of the learning rates: exp(−5(1 − p)²) with p = images_seen/images, then 1 (the published code)."""
    return math.exp(-5 * (1 - images_seen / images) ** 2) if images_seen < images else 1.0


def build_optimizers(
    model: BigBiGAN,
    generator_lr: float,
    discriminator_lr: float,
    encoder_lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float = 0.0,
) -> tuple[torch.optim.Adam, torch.optim.Adam]:
    """Adam for D, and one Adam for E, if there is one, and G with a rate each."""
    settings = {"betas": tuple(map(float, betas)), "eps": eps, "weight_decay": weight_decay}
    # XLA has no fused Adam; there the count of its steps must be a tensor of the graph, or every update compiled anew
    lazy = next(model.parameters()).device.type == "xla"
    settings |= {"capturable": True, "foreach": False} if lazy else {"fused": True}

    def groups(**rates: float) -> list[dict]:
        networks = {name: getattr(model, name) for name in rates}
        return [
            {"params": list(network.parameters()), "lr": rates[name], "name": name}
            for name, network in networks.items()
            if network is not None
        ]

    discriminator = torch.optim.Adam(groups(discriminator=discriminator_lr), **settings)
    return discriminator, torch.optim.Adam(groups(encoder=encoder_lr, generator=generator_lr), **settings)


@dataclass
class Regularisation:
    """BigGAN's against collapse (section 4) and for truncation (3.1): see `config.Loss`, `config.Optim`. All are off by
    default."""

    r1: float = 0.0
    r1_interval: int = 1
    sigma_clamp: float = 0.0
    sigma_clamp_ratio: float = 0.0
    sigma_networks: str = "generator"
    orthogonal: float = 0.0

    @classmethod
    def of(cls, config: Config) -> "Regularisation":
        o, loss = config.optim, config.loss
        return cls(loss.r1, loss.r1_interval, o.sigma_clamp, o.sigma_clamp_ratio, o.sigma_networks, loss.orthogonal)

    def clamp(self, network: nn.Module, name: str) -> None:
        if (self.sigma_clamp or self.sigma_clamp_ratio) and self.sigma_networks in (name, "both"):
            clamp_sigma(network, self.sigma_clamp, self.sigma_clamp_ratio)
