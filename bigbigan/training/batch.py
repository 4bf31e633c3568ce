"""What one update consumes: real images, and the random numbers that belong to their places in the run."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bigbigan.data import RealImages, to_signed
from bigbigan.distributed import to_device
from bigbigan.latents import sample_prior
from bigbigan.noise import dropout_factors, normal_noise, uniforms


@dataclass
class Batch:
    """What one update consumes on this process: n fresh images and their share of the run's random numbers.

    x: (n, 3, S, S) in [−1, 1] at E's size.  z: (n, Z) ~ p(z).  noise: (n, Z) ~ N(0, I) for ẑ = E(x).
    x_classes, z_classes: (n,) of a conditional model, else None.
    dropout: (n, 2, D's last features) factors of the image's encoder pair and its generator pair, or None.
    augment: (n, 2, width) ~ U(0, 1), from which the transforms of what F sees of the two pairs are drawn, or None.
    mix: (n,) ~ U(0, 1), where between the two pairs WGAN-GP looks.  drop: (n, 2, C) ~ N(0, 1), the noise in D of LSGAN
    for the two.
    """

    x: Tensor
    z: Tensor
    noise: Tensor
    x_classes: Tensor | None = None
    z_classes: Tensor | None = None
    dropout: Tensor | None = None
    mix: Tensor | None = None
    drop: Tensor | None = None
    augment: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def chunks(self, parts: int) -> Iterator["Batch"]:
        columns = (
            self.x,
            self.z,
            self.noise,
            self.x_classes,
            self.z_classes,
            self.dropout,
            self.mix,
            self.drop,
            self.augment,
        )
        pieces = [[None] * parts if column is None else column.tensor_split(parts) for column in columns]
        return (Batch(*piece) for piece in zip(*pieces, strict=True))


def draw_batch(
    real: RealImages,
    seed: int,
    prior: str,
    latent_dim: int,
    classes: int,
    device: torch.device,
    dropout: tuple[int, float] = (0, 0.0),
    drop: int = 0,
    purpose: str = "",
    augment: int = 0,
) -> Batch:
    """Real images and their share of the run's random numbers, which depend on the images' places in the run alone.

    dropout: D's last features, and the share of them that is zero.  drop: channels of D that take noise.
    purpose: tells apart several batches of the same places.  augment: numbers for the transforms of an image of a pair.
    """
    places = real.positions
    z = sample_prior(prior, seed, f"z{purpose}", places, latent_dim)
    noise = normal_noise(seed, "posterior", places, latent_dim)
    x_classes = z_classes = None
    if classes:
        x_classes = real.labels
        z_classes = to_device(torch.from_numpy(uniforms(seed, "classes", places, 1)[:, 0] * classes).long(), device)
    x = to_signed(real.x).contiguous(memory_format=torch.channels_last)
    factors = to_device(dropout_factors(seed, places, *dropout), device) if dropout[1] else None
    mix = to_device(torch.from_numpy(uniforms(seed, "mix", places, 1)[:, 0]).float(), device)
    drops = (
        to_device(normal_noise(seed, f"drop{purpose}", places, 2 * drop).unflatten(1, (2, drop)), device)
        if drop
        else None
    )
    transforms = to_device(_halves(seed, f"augment{purpose}", places, augment), device) if augment else None
    return Batch(
        x, to_device(z, device), to_device(noise, device), x_classes, z_classes, factors, mix, drops, transforms
    )


def _halves(seed: int, purpose: str, places: np.ndarray, width: int) -> Tensor:
    """(n, 2, width) ~ U(0, 1): of a place's encoder pair and of its generator pair."""
    return torch.from_numpy(uniforms(seed, purpose, places, 2 * width)).float().unflatten(1, (2, width))
