"""Stages, fade-in, schedule (Karras et al. 2018, section 2 and appendix A).

The level of a network says how far it has grown: at level k, a whole number, it works at bottom · 2^k px; at level k +
α the resolution k + 1 is being faded in, with the weight α. A level is a function of the images seen. The networks hold
the layers of all their resolutions from the start, so optimisers, averages and checkpoints never change their shape;
what is not reached yet has no gradient, and stands still.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.networks.layers import pool_to, split_size

LARGEST = 1024


class Growing(nn.Module):
    """A network that grows. level: 0 … `stages`, full size at first; it travels with the weights, as the extra
    state."""

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
            raise ValueError(
                f"level {level}: expected 0 … {part.stages}, the stages of a network that grows from {part.bottom} px"
            )
        part.level = float(level)


def grown_like(network: nn.Module, other: nn.Module) -> nn.Module:
    """`network` at the level of `other`, if they grow."""
    for part in growing_parts(other)[:1]:
        set_level(part.level, network)
    return network


def phase(level: float) -> tuple[int, int]:
    """Which resolutions are at work at a level: (k, k), or (k, k + 1) while k + 1 is faded in."""
    return math.floor(level), math.ceil(level)


def fade_in(x: Tensor, size: int, fade: float) -> Tensor:
    """Real images as a network of `size` px sees them while its newest resolution has the weight `fade` (figure 2):
    (N, 3, S, S) → (N, 3, size, size), (1 − α)·up(down(x)) + α·x with average pooling and nearest upsampling; S a
    multiple of size.
    """
    x = pool_to(x, size)
    if fade == 1:
        return x
    return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="nearest").lerp(x, fade)
