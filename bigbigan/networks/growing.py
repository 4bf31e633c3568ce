"""Levels and fade-in of networks that grow (Karras et al. 2018, section 2 and appendix A).

The level of a network says how far it has grown: at a whole number k it works at bottom · 2^k px; at k + α the
resolution of level k + 1 is being faded in with the weight α. The networks hold the layers of all resolutions from the
start, so optimisers, averages and checkpoints never change their shape; layers above the level get no gradient.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.networks.layers import pool_to, split_size

LARGEST = 1024


class Growing(nn.Module):
    """Base of networks that grow; their `level`, from 0 to `stages` (full size), is saved with the weights.

    image_size: the full size in pixels.
    """

    def __init__(self, image_size: int):
        super().__init__()
        self.bottom, self.stages = split_size(image_size, LARGEST)
        self.level = float(self.stages)

    @property
    def stage(self) -> int:
        """Return the number of the newest resolution in use, faded in or being faded in."""
        return math.ceil(self.level)

    @property
    def fade(self) -> float:
        """Return the weight α of the newest resolution, in (0, 1]."""
        return self.level - self.stage + 1

    @property
    def full_size(self) -> int:
        """Return the resolution at the highest level, in pixels."""
        return self.bottom * 2**self.stages

    @property
    def image_size(self) -> int:
        """Return the resolution at this level, in pixels."""
        return self.bottom * 2**self.stage

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.level, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        if not 0 <= float(state) <= self.stages:
            raise ValueError(f"level {float(state)}: expected 0 … {self.stages}; the file is damaged, get it again")
        self.level = float(state)


def growing_parts(*networks: nn.Module) -> list[Growing]:
    """Return the modules of `networks` that grow."""
    return [part for network in networks for part in network.modules() if isinstance(part, Growing)]


def set_level(level: float, *networks: nn.Module) -> None:
    """Set every growing part of `networks` to `level`; ValueError for a level that it does not have."""
    for part in growing_parts(*networks):
        if not 0 <= level <= part.stages:
            raise ValueError(
                f"level {level}: expected 0 … {part.stages}, the stages of a network that grows from {part.bottom} px"
            )
        part.level = float(level)


def grown_like(network: nn.Module, other: nn.Module) -> nn.Module:
    """Set `network` to the level of `other`, if they grow, and return it."""
    for part in growing_parts(other)[:1]:
        set_level(part.level, network)
    return network


def phase(level: float) -> tuple[int, int]:
    """Return the resolutions in use at a level: (k, k), or (k, k + 1) while k + 1 is faded in."""
    return math.floor(level), math.ceil(level)


def fade_in(x: Tensor, size: int, fade: float) -> Tensor:
    """Return real images as a network of `size` px sees them while its newest resolution has the weight `fade`.

    x: (N, 3, S, S) with S a multiple of size → (N, 3, size, size): (1 − α)·up(down(x)) + α·x with average pooling and
    nearest upsampling (Karras et al. 2018, figure 2).
    """
    x = pool_to(x, size)
    if fade == 1:
        return x
    return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="nearest").lerp(x, fade)
