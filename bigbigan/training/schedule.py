"""What a run does at a moment, as a function of the images seen: learning rates, batch size, level of a growing network."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from bigbigan.config import Config, Optim
from bigbigan.networks.growing import growing_parts, phase, set_level
from bigbigan.training.growing_schedule import GrowthSchedule

NETWORKS = ("discriminator", "encoder", "generator")


@dataclass(frozen=True)
class Phase:
    """rates: learning rate by network.  batch_size: over all processes.  level: of a growing network, else None."""

    rates: dict[str, float]
    batch_size: int
    level: float | None = None

    def report(self) -> dict[str, torch.Tensor]:
        """Return what is logged of the phase."""
        return {} if self.level is None else {"level": torch.tensor(self.level)}


class Schedule:
    """The phases of a run: one, with constant rates, unless the settings say otherwise.

    networks: whose growing parts follow the schedule.  optimizers: by name, whose rates are set, and whose averages are forgotten
    where a resolution joins or leaves if `grow.reset_optimizers`.
    """

    def __init__(self, config: Config, networks: list[nn.Module], optimizers: dict[str, torch.optim.Optimizer]):
        self.optim, self.reset = config.optim, config.grow.reset_optimizers
        self.growth = GrowthSchedule.from_config(config)
        self.parts, self.optimizers = growing_parts(*networks), optimizers

    def at(self, images_seen: int, factors: dict[str, float] | None = None) -> Phase:
        """Return the phase after `images_seen` images. factors: by which a recovery lowered the rates, by network."""
        level = self.growth.level(images_seen) if self.parts else None
        return Phase(rates(self.optim, images_seen, factors), self.growth.batch_size(images_seen), level)

    def apply(self, phase_now: Phase) -> None:
        """Bring networks and optimisers to a phase.

        Whether another resolution joins or leaves is read off the networks, whose level is in the checkpoint, so a resumed run
        resets its optimisers no more often than one that was never interrupted.
        """
        if phase_now.level is not None:
            if self.reset and phase(phase_now.level) != phase(self.parts[0].level):
                for optimizer in self.optimizers.values():
                    optimizer.state.clear()
            set_level(phase_now.level, *self.parts)
        set_rates(self.optimizers, phase_now.rates)


def rates(optim: Optim, images_seen: int, factors: dict[str, float] | None = None) -> dict[str, float]:
    """Return the learning rate of each network for the updates after `images_seen` images; 0 for a frozen network.

    factors: by which a recovery lowered the rates, by network.
    """
    lowered = networks_named(optim.lower_networks) if optim.lower_after and images_seen >= optim.lower_after else set()
    way = min(1.0, (images_seen - optim.lower_after) / optim.lower_images) if optim.lower_images else 1.0
    frozen, risen, factors = networks_named(optim.freeze), ramp_up(images_seen, optim.lr_rampup), factors or {}

    def rate(name: str) -> float:
        lower = optim.lower_factor**way if name in lowered else 1.0
        return getattr(optim, f"{name}_lr") * factors.get(name, 1.0) * lower * risen

    return {name: 0.0 if name in frozen else rate(name) for name in NETWORKS}


def networks_named(which: str) -> set[str]:
    """Return the networks of a setting: "all", "none", one, or two joined as in encoder_generator."""
    return {name for name in NETWORKS if which == "all" or name in which.split("_")}


def set_rates(optimizers: dict[str, torch.optim.Optimizer], rates: dict[str, float]) -> None:
    """Give every parameter group the rate of the network it is named after."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]]


def ramp_up(images_seen: int, images: int) -> float:
    """Return the factor of all rates: exp(−5(1 − p)²) with p = images_seen/images, then 1 (Progressive GAN's code)."""
    return math.exp(-5 * (1 - images_seen / images) ** 2) if images_seen < images else 1.0
