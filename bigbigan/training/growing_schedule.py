"""When a growing network grows (Karras et al. 2018, section 2 and appendix A)."""

import math
from dataclasses import dataclass

from bigbigan.config import Config
from bigbigan.errors import ConfigError
from bigbigan.networks.growing import LARGEST
from bigbigan.networks.layers import split_size


@dataclass(frozen=True)
class GrowthSchedule:
    """`hold` images at a resolution, `fade` images to fade in the next, up to the last stage (appendix A.1).

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
        """Read the section `grow`; ConfigError for a first size that is not on the way to the last."""
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
        """Return the level, see `networks.growing`."""
        if not self.hold and not self.fade:
            return float(self.last)
        grown, rest = divmod(images_seen, self.hold + self.fade)
        fading = max(0, rest - self.hold) / self.fade if self.fade else 0.0
        return min(self.first + grown + fading, float(self.last))

    @property
    def full_size_at(self) -> int:
        """Images seen from which the networks have their full size; 0 if they do not grow."""
        return (self.last - self.first) * (self.hold + self.fade)

    def batch_size(self, images_seen: int) -> int:
        """Return the images of one update over all processes."""
        place = math.ceil(self.level(images_seen)) - self.first
        return self.batch_sizes[min(place, len(self.batch_sizes) - 1)]
