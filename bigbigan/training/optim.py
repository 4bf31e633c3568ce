"""Optimisers, and what else acts on weights and gradients around an update. Their rates over a run: `schedule`."""

from dataclasses import dataclass
from typing import NamedTuple

import timm.optim
import torch
from torch import nn

from bigbigan.config import Config, Optim
from bigbigan.errors import ConfigError
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import add_orthogonal_gradient, clamp_sigma


class Optimizers(NamedTuple):
    """One optimiser of D, and one of E, if there is one, and G together. A parameter group bears its network's name."""

    discriminator: torch.optim.Optimizer
    encoder_generator: torch.optim.Optimizer

    def named(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by the names that they have in checkpoints."""
        return self._asdict()


def build_optimizers(model: BigBiGAN, optim: Optim) -> Optimizers:
    """Return the optimisers of `optim.name`, with a learning rate for each network. Raises ConfigError.

    "adam" is torch's Adam, fused where that leaves a void update out without the host waiting for its device. Any other
    name is built by timm's factory with the same rates, weight decay, and what it takes of betas (or momentum: the
    first beta) and eps.
    """

    def groups(*names: str) -> list[dict]:
        networks = {name: getattr(model, name) for name in names}
        return [
            {"params": list(network.parameters()), "lr": getattr(optim, f"{name}_lr"), "name": name}
            for name, network in networks.items()
            if network is not None
        ]

    build = _adam if optim.name == "adam" else _from_timm
    return Optimizers(build(groups("discriminator"), optim), build(groups("encoder", "generator"), optim))


def _adam(groups: list[dict], optim: Optim) -> torch.optim.Adam:
    settings = {"betas": tuple(map(float, optim.betas)), "eps": optim.eps, "weight_decay": optim.weight_decay}
    return torch.optim.Adam(groups, **settings, **adam_kind(groups[0]["params"][0].device.type))


def adam_kind(device: str) -> dict[str, bool]:
    """Return the settings that choose torch's implementation of Adam for a type of device."""
    if device == "xla":  # has no fused one; a count of steps that is no tensor of the graph would compile each anew
        return {"capturable": True, "foreach": False}
    return {"fused": device != "mps"}  # whose fused one takes a void update as any other


def _from_timm(groups: list[dict], optim: Optim) -> torch.optim.Optimizer:
    known = timm.optim.list_optimizers()
    if optim.name not in known:
        raise ConfigError(f"--optim.name {optim.name}: expected one of timm's optimisers: {', '.join(known)}")
    info = timm.optim.get_optimizer_info(optim.name)
    settings: dict = {"eps": optim.eps} if info.has_eps else {}
    if info.has_betas:
        settings["betas"] = tuple(map(float, optim.betas)) + (0.99,) * ((info.num_betas or 2) - 2)
    try:
        return timm.optim.create_optimizer_v2(
            groups, opt=optim.name, weight_decay=optim.weight_decay, momentum=float(optim.betas[0]), **settings
        )
    except (TypeError, ValueError, AssertionError, ImportError, RuntimeError) as error:
        raise ConfigError(
            f"--optim.name {optim.name}: expected an optimiser that can be built, found: {error}"
        ) from None


@dataclass
class Regularisation:
    """BigGAN's remedies that act on weights (sections 3.1 and 4): against collapse, and for truncation; off by default.

    sigma_clamp, sigma_clamp_ratio, sigma_networks: largest singular values, see `config.Optim`.
    orthogonal: strength of the orthogonal regularisation of G's weights, see `config.Loss`.
    """

    sigma_clamp: float = 0.0
    sigma_clamp_ratio: float = 0.0
    sigma_networks: str = "generator"
    orthogonal: float = 0.0

    @classmethod
    def from_config(cls, config: Config) -> "Regularisation":
        """Take over the settings of a run."""
        o = config.optim
        return cls(o.sigma_clamp, o.sigma_clamp_ratio, o.sigma_networks, config.loss.orthogonal)

    def before_update(self, network: nn.Module, name: str) -> None:
        """Clamp the largest singular values of the weights of `network`, called "generator" or "discriminator"."""
        if (self.sigma_clamp or self.sigma_clamp_ratio) and self.sigma_networks in (name, "both"):
            clamp_sigma(network, self.sigma_clamp, self.sigma_clamp_ratio)

    def add_gradients(self, network: nn.Module, name: str) -> None:
        """Add the gradient of the orthogonal regularisation to those of G."""
        if self.orthogonal and name == "generator":
            add_orthogonal_gradient(network, self.orthogonal)
