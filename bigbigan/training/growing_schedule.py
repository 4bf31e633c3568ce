"""When a growing network grows (Karras et al. 2018, section 2 and appendix A)."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from bigbigan.config import Config
from bigbigan.errors import ConfigError
from bigbigan.networks.growing import LARGEST, growing_parts, phase, set_level
from bigbigan.networks.layers import split_size


@dataclass(frozen=True)
class GrowthSchedule:
    """The schedule: `hold` images at a resolution, `fade` images to fade in the next, up to the last stage (appendix
    A.1).

    first, last: stages.  batch_sizes: from the first resolution up, the last one repeated; a resolution has its own
    from the first image of its fade.  hold = fade = 0: full size from the start.
    """

    first: int
    last: int
    hold: int
    fade: int
    batch_sizes: tuple[int, ...]

    @classmethod
    def from_config(cls, config: Config) -> "GrowthSchedule":
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


class Course:
    """The level of a run's networks as a function of the images seen.

    reset: whether the optimisers forget their averages where a resolution joins
    or leaves.
    """

    def __init__(
        self,
        growth: GrowthSchedule,
        networks: list[nn.Module],
        optimizers: list[torch.optim.Optimizer],
        reset: bool = True,
    ):
        self.growth, self.parts, self.optimizers = growth, growing_parts(*networks), optimizers
        self.reset = reset

    def at(self, images_seen: int) -> float | None:
        """→ the level, None of networks that do not grow. Which resolutions were at work before is read off the
        networks, so a run that resumes forgets no more than one that was never interrupted."""
        if not self.parts:
            return None
        level = self.growth.level(images_seen)
        if self.reset and phase(level) != phase(self.parts[0].level):
            for optimizer in self.optimizers:
                optimizer.state.clear()
        set_level(level, *self.parts)
        return level
