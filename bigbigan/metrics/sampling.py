"""Draw samples of G for the generation metrics, as a function of their index alone.

With truncation, the statistics of G's batch norms are measured anew for it.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bigbigan.data import to_uint8
from bigbigan.latents import sample_prior, truncate
from bigbigan.model import BigBiGAN
from bigbigan.noise import uniforms
from bigbigan.training.ema import standing_statistics

STATISTICS_LATENTS = 4096  # for the batch norms of G at a truncation


def sampler(
    model: BigBiGAN,
    threshold: float | None = None,
    seed: int = 0,
    statistics_latents: int = STATISTICS_LATENTS,
    batch_size: int = 256,
) -> Callable[[np.ndarray], Tensor]:
    """Return a function from indices of samples (n,) to their images, uint8 (n, 3, S, S) on G's device.

    threshold: truncation of z (BigGAN, section 3.1), normal prior only; G's standing statistics are then estimated anew
    from truncated latents, in a copy, since the activations shrink with z (BigGAN's released models hold one set per
    threshold).
    None: no truncation and the statistics that G has.
    """
    generator = model.generator
    prior = model.prior
    device = next(generator.parameters()).device
    if threshold is not None and prior != "normal":
        raise ValueError(f"truncation: expected a model with the normal prior, found {prior}")

    def latents(indices: np.ndarray, purpose: str) -> tuple[Tensor, Tensor | None]:
        z = sample_prior(prior, seed, purpose, indices, generator.latent_dim)
        z = z if threshold is None else truncate(z, threshold, seed, indices)
        classes = None
        if generator.classes:
            classes = (
                torch.from_numpy(uniforms(seed, f"{purpose} classes", indices, 1)[:, 0] * generator.classes)
                .long()
                .to(device)
            )
        return z.to(device), classes

    if threshold is not None:
        generator = copy.deepcopy(generator)
        with torch.no_grad(), standing_statistics(generator):
            for first in range(0, statistics_latents, batch_size):
                generator(*latents(np.arange(first, min(first + batch_size, statistics_latents)), "statistics"))

    @torch.inference_mode()
    def sample(indices: np.ndarray) -> Tensor:
        parts = [indices[first : first + batch_size] for first in range(0, len(indices), batch_size)]
        return torch.cat([to_uint8(generator(*latents(part, "sample"))) for part in parts])

    return sample
