"""The rates of the networks as a function of the images seen and of what a run had to recover from."""

import torch

from bigbigan.config import Optim
from bigbigan.progressive import ramp_up

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
        return getattr(optim, f"{name}_lr") * factors.get(name, 1.0) * (optim.lower_factor**way if name in lowered else 1.0) * risen

    return {name: 0.0 if name in frozen else rate(name) for name in NETWORKS}


def set_rates(optimizers: dict[str, torch.optim.Optimizer], rates: dict[str, float]) -> None:
    """Give every parameter group the rate of the network it is named after."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]]
