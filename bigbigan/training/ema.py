"""Averages of E and G, and the statistics their batch norms sample with."""

import copy
from collections.abc import Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import advance_power_iteration, record_statistics

POWER_ITERATIONS = 10  # for u, v of the averaged weights


class Averages:
    """Exponential moving averages of E's and G's parameters, for evaluation and release (BigBiGAN, section 3; BigGAN).

    encoder: None for a GAN.  decay: weight of the old average in an E+G update, in [0, 1).  rampup: the half-life is at
    most this share of the updates made, so that a short run is not an average of its initial weights.  Buffers are not
    averaged, see `update_sampling_statistics`.
    `half_life_images`: 0, or the half-life in real images of all updates by which a run of an older version goes on;
    `decay` then has no effect.
    """

    def __init__(self, generator: nn.Module, encoder: nn.Module | None, decay: float, rampup: float):
        self.sources = {name: net for name, net in (("generator", generator), ("encoder", encoder)) if net is not None}
        self.networks = (
            nn.ModuleDict({name: copy.deepcopy(net) for name, net in self.sources.items()}).eval().requires_grad_(False)
        )
        self.generator = self.networks["generator"]
        self.encoder = None if encoder is None else self.networks["encoder"]
        self.decay, self.rampup = decay, rampup
        self.half_life_images = 0.0

    def decay_at(self, updates: int, images: int = 0) -> float:
        """Return the weight of the old average in the E+G update number `updates`, counted from 1.

        images: real images of the iteration; read with `half_life_images` alone.
        """
        decay = 0.5 ** (images / self.half_life_images) if self.half_life_images else self.decay
        return min(decay, 0.5 ** (1 / (self.rampup * updates)))

    @torch.no_grad()
    def update(self, updates: int, images: int = 0) -> None:
        """Move the averages towards the networks; for the arguments see `decay_at`."""
        weight = 1 - self.decay_at(updates, images)
        for average, source in zip(self.networks.values(), self.sources.values(), strict=True):
            torch._foreach_lerp_(list(average.parameters()), list(source.parameters()), weight)

    @torch.no_grad()
    def update_sampling_statistics(self, batches: Iterable[tuple[Tensor, Tensor, Tensor | None]]) -> None:
        """Make the averages ready to sample; changes nothing of what the run becomes.

        u, v: those of the raw networks, after ten power iterations with the averaged weights. Batch norms: the standing
        statistics of G over latents, and of E over training images (BigGAN, appendix on sampling).
        batches: (x (n, 3, S, S), z (n, Z), classes (n,) or None), read once.
        """
        for average, source in zip(self.networks.values(), self.sources.values(), strict=True):
            for mine, theirs in zip(average.buffers(), source.buffers(), strict=True):
                mine.copy_(theirs)
        advance_power_iteration(self.generator, POWER_ITERATIONS)
        with standing_statistics(self.networks):
            for x, z, classes in batches:
                self.generator(z, classes)
                if self.encoder is not None:
                    self.encoder.bn_crelu(self.encoder.avepool(x))


@contextmanager
def standing_statistics(network: nn.Module):
    """Replace the running statistics of `network` by those pooled over the forwards made in this context.

    The forwards are in training mode, so each normalises by its own batch (BigGAN, appendix on sampling: many fresh z).
    """
    training = network.training
    network.train()
    try:
        with record_statistics(network) as recorder:
            yield
    finally:
        network.train(training)
    recorder.move(momentum=1.0)


def averaged_model(model: BigBiGAN, averages: Averages) -> BigBiGAN:
    """Return the model to look at: averaged E and G beside D."""
    return BigBiGAN(averages.generator, averages.encoder, model.discriminator, model.config)
