"""Simultaneous updates: one of D and one of E and G, on one batch, from one point (BiGAN, ALI)."""

from collections.abc import Callable, Iterator

from torch import Tensor

from bigbigan.data import RealImages
from bigbigan.training.batch import Batch
from bigbigan.training.step import Step, apply


class SimultaneousStep(Step):
    """Computes both gradients before either optimiser steps. An iteration takes one batch."""

    def iteration(
        self, real_batches: Iterator[RealImages], draw: Callable[..., Batch], number: int = 0
    ) -> dict[str, Tensor]:
        """Make one update of D and one of E and G on the same images and latents; return their means by name."""
        batch = draw(next(real_batches))
        return self.discriminator_update(batch, number) | self.encoder_generator_update(batch)

    def apply_discriminator(self, broken: Tensor) -> None:
        """Keep D's gradients until E and G have theirs."""
        self.d_broken = broken

    def apply_encoder_generator(self, broken: Tensor) -> None:
        """Move E and G, then D."""
        super().apply_encoder_generator(broken)
        apply(self.optimizers.discriminator, self.d_broken)
