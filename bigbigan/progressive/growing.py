"""Stages, fade-in, schedule (Karras et al. 2018, section 2 and appendix A).

The level of a network says how far it has grown: at level k, a whole number, it works at bottom · 2^k px; at level k + α the
resolution k + 1 is being faded in, with the weight α. A level is a function of the images seen. The networks hold the layers of all
their resolutions from the start, so optimisers, averages and checkpoints never change their shape; what is not reached yet has no
gradient, and stands still.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.config import Config, ConfigError
from bigbigan.layers import pool_to, split_size

LARGEST = 1024


class Growing(nn.Module):
    """A network that grows. level: 0 … `stages`, full size at first; it travels with the weights, as the extra state."""

    def __init__(self, image_size: int):
        super().__init__()
        self.bottom, self.stages = split_size(image_size, LARGEST)
        self.level = float(self.stages)

    @property
    def stage(self) -> int:
        """The newest resolution at work, faded in or being so."""
        return math.ceil(self.level)

    @property
    def fade(self) -> float:
        """The weight α of the newest resolution, in (0, 1]."""
        return self.level - self.stage + 1

    @property
    def full_size(self) -> int:
        """The resolution in the end, in pixels."""
        return self.bottom * 2**self.stages

    @property
    def image_size(self) -> int:
        """The resolution at this level, in pixels."""
        return self.bottom * 2**self.stage

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.level, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        if not 0 <= float(state) <= self.stages:
            raise ValueError(f"level {float(state)}: expected 0 … {self.stages}; the file is damaged, get it again")
        self.level = float(state)


def growing_parts(*networks: nn.Module) -> list[Growing]:
    return [part for network in networks for part in network.modules() if isinstance(part, Growing)]


def set_level(level: float, *networks: nn.Module) -> None:
    """Bring every growing part of `networks` to `level`."""
    for part in growing_parts(*networks):
        if not 0 <= level <= part.stages:
            raise ValueError(f"level {level}: expected 0 … {part.stages}, the stages of a network that grows from {part.bottom} px")
        part.level = float(level)


def grown_like(network: nn.Module, other: nn.Module) -> nn.Module:
    """`network` at the level of `other`, if they grow."""
    for part in growing_parts(other)[:1]:
        set_level(part.level, network)
    return network


def phase(level: float) -> tuple[int, int]:
    """Which resolutions are at work at a level: (k, k), or (k, k + 1) while k + 1 is faded in."""
    return math.floor(level), math.ceil(level)


def faded(x: Tensor, size: int, fade: float) -> Tensor:
    """Real images as a network of `size` px sees them while its newest resolution has the weight `fade` (figure 2):
    (N, 3, S, S) → (N, 3, size, size), (1 − α)·up(down(x)) + α·x with average pooling and nearest upsampling; S a multiple of size.
    """
    x = pool_to(x, size)
    if fade == 1:
        return x
    return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="nearest").lerp(x, fade)


def seen_by(network: nn.Module, x: Tensor) -> Tensor:
    """Real images at the size and with the fade of `network`; as they are, if it does not grow."""
    return faded(x, network.image_size, network.fade) if isinstance(network, Growing) else x


@dataclass(frozen=True)
class Growth:
    """The schedule: `hold` images at a resolution, `fade` images to fade in the next, up to the last stage (appendix A.1).

    first, last: stages.  batch_sizes: from the first resolution up, the last one repeated; a resolution has its own from the first
    image of its fade.  hold = fade = 0: full size from the start.
    """

    first: int
    last: int
    hold: int
    fade: int
    batch_sizes: tuple[int, ...]

    @classmethod
    def from_config(cls, config: Config) -> "Growth":
        """Raises ConfigError."""
        size, g = config.model.image_size, config.grow
        batch_sizes = tuple(g.batch_sizes) or (config.data.batch_size,)
        if not g.first_size:
            return cls(0, 0 if config.model.family == "biggan" else split_size(size, LARGEST)[1], 0, 0, batch_sizes)
        bottom, last = split_size(size, LARGEST)
        sizes = [bottom * 2**stage for stage in range(last + 1)]
        if g.first_size not in sizes:
            raise ConfigError(
                f"--grow.first_size {g.first_size}: expected a resolution on the way to {size} px, one of {sizes}, or 0"
            )
        return cls(sizes.index(g.first_size), last, g.hold_images, g.fade_images, batch_sizes)

    def level(self, images_seen: int) -> float:
        if not self.hold and not self.fade:
            return float(self.last)
        grown, rest = divmod(images_seen, self.hold + self.fade)
        fading = max(0, rest - self.hold) / self.fade if self.fade else 0.0
        return min(self.first + grown + fading, float(self.last))

    def batch_size(self, images_seen: int) -> int:
        place = math.ceil(self.level(images_seen)) - self.first
        return self.batch_sizes[min(place, len(self.batch_sizes) - 1)]


def ramp_up(images_seen: int, images: int) -> float:
    """The factor of the learning rates: exp(−5(1 − p)²) with p = images_seen/images, then 1 (the published code)."""
    return math.exp(-5 * (1 - images_seen / images) ** 2) if images_seen < images else 1.0


class Course:
    """The level of a run's networks as a function of the images seen.

    reset: whether the optimisers forget their averages where a resolution joins
    or leaves.
    """

    def __init__(
        self,
        growth: Growth,
        networks: list[nn.Module],
        optimizers: list[torch.optim.Optimizer],
        reset: bool = True,
    ):
        self.growth, self.parts, self.optimizers = growth, growing_parts(*networks), optimizers
        self.reset = reset

    def at(self, images_seen: int) -> float | None:
        """→ the level, None of networks that do not grow. Which resolutions were at work before is read off the networks, so a run
        that resumes forgets no more than one that was never interrupted."""
        if not self.parts:
            return None
        level = self.growth.level(images_seen)
        if self.reset and phase(level) != phase(self.parts[0].level):
            for optimizer in self.optimizers:
                optimizer.state.clear()
        set_level(level, *self.parts)
        return level
