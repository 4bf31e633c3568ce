"""The two updates on two threads: a CPU computes encoder pairs and generator pairs at the same time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from torch import Tensor

from bigbigan.config import Config
from bigbigan.distributed import world_size
from bigbigan.latents import Posterior
from bigbigan.losses import Scores
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import StatisticsRecorder, batch_norms, pool_to, record_statistics
from bigbigan.training.batch import Batch
from bigbigan.training.part import Part
from bigbigan.training.step import Pairs, Step

A, B = TypeVar("A"), TypeVar("B")


class SideBySideStep(Step):
    """Computes the pairs (x, E(x)) here while another thread computes (G(z), z).

    The two kinds of pairs meet nowhere: L_D and L_EG are sums of a loss of each. So each thread makes forward and
    backward of one kind, and they wait for each other once an update. Threads that share the operations wait at each of
    them, which costs more than it gains where operations are short.

    D's two gradients are added when both are there, so the result does not depend on which was first.
    """

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.other = ThreadPoolExecutor(1, "generator pairs")
        self.apart = False

    def set_threads(self, count: int) -> None:
        """Compute with `count` CPU threads: with two or more each kind of pairs has half of them."""
        self.apart, each = count > 1, max(1, count // 2)
        torch.set_num_threads(each)
        self.other.submit(torch.set_num_threads, each).result()

    def discriminator_gradients(
        self, chunk: Batch, share: float = 1.0
    ) -> tuple[Tensor, Scores, Scores, Pairs, StatisticsRecorder]:
        """Do what `Step.discriminator_gradients` does; D has no batch norms here."""
        if not self.apart:
            return super().discriminator_gradients(chunk, share)
        parameters = [p for p in self.model.discriminator.parameters() if p.requires_grad]

        def of_encoder_pairs() -> tuple[Tensor, Scores, Pairs]:
            with self.autocast():
                with torch.no_grad():
                    pairs, _ = self.encoder_pairs(chunk)
                loss, scores = self.loss_of(pairs, self.objective.discriminator_loss, real=True)
            (loss * share).backward()
            return loss, scores, pairs

        def of_generator_pairs() -> tuple[Tensor, Scores, Pairs, tuple[Tensor | None, ...]]:
            with self.autocast():
                with torch.no_grad():
                    pairs = self.generator_pairs(chunk)
                loss, scores = self.loss_of(pairs, self.objective.discriminator_loss, real=False)
            return loss, scores, pairs, torch.autograd.grad(loss * share, parameters, allow_unused=True)

        (real_loss, real, first), (fake_loss, fake, second, gradients) = self.at_once(
            of_encoder_pairs, of_generator_pairs
        )
        add_gradients(parameters, gradients)
        pairs = Pairs(*(None if a is None else torch.cat([a, b]) for a, b in zip(first, second, strict=True)))
        return real_loss.detach() + fake_loss.detach(), real, fake, pairs, StatisticsRecorder()

    def encoder_generator_gradients(
        self, chunk: Batch, share: float = 1.0
    ) -> tuple[Tensor, Posterior | None, dict[str, Tensor], StatisticsRecorder]:
        """Do what `Step.encoder_generator_gradients` does: E's gradients here, G's on the other thread."""
        if not self.apart:
            return super().encoder_generator_gradients(chunk, share)

        def of_encoder() -> tuple[Tensor, Posterior, StatisticsRecorder]:
            with self.autocast(), record_statistics(self.model.encoder) as statistics:
                pairs, posterior = self.encoder_pairs(chunk)
                loss, _ = self.loss_of(pairs, self.objective.encoder_generator_loss, real=True)
            (loss * share).backward()
            return loss.detach(), posterior, statistics

        def of_generator() -> Tensor:
            with self.autocast():
                pairs = self.generator_pairs(chunk)
                loss, _ = self.loss_of(pairs, self.objective.encoder_generator_loss, real=False)
            (loss * share).backward()
            return loss.detach()

        (real_loss, posterior, statistics), fake_loss = self.at_once(of_encoder, of_generator)
        return real_loss + fake_loss, posterior, {}, statistics

    def encoder_pairs(self, chunk: Batch) -> tuple[Pairs, Posterior]:
        """Return the pairs (x, ẑ = E(x)), and q(z|x)."""
        posterior = self.model.infer(chunk.x, chunk.x_classes)
        x = pool_to(chunk.x, self.model.discriminator.image_size)
        return Pairs(x, posterior.sample(chunk.noise), chunk.x_classes, None), posterior

    def generator_pairs(self, chunk: Batch) -> Pairs:
        """Return the pairs (x̂ = G(z), z)."""
        x_hat = self.model.generator(chunk.z, chunk.z_classes)
        return Pairs(x_hat.to(chunk.x), chunk.z, chunk.z_classes, None)

    def loss_of(self, pairs: Pairs, loss: Callable[..., Tensor], real: bool) -> tuple[Tensor, Scores]:
        """Return the part of a loss that pairs of one kind have, and their scores. real: whether of encoder pairs."""
        scores = self.objective.select(self.model.discriminator(*pairs))
        return loss(scores if real else None, None if real else scores), scores

    def at_once(self, here: Callable[[], A], there: Callable[[], B]) -> tuple[A, B]:
        """Call the first function here and the second one on the other thread, and return what both return."""
        result = self.other.submit(there)
        try:
            return here(), result.result()
        finally:
            wait([result])


def add_gradients(parameters: list[torch.nn.Parameter], gradients: tuple[Tensor | None, ...]) -> None:
    """Add gradients to those of the parameters."""
    for p, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            p.grad = gradient if p.grad is None else p.grad.add_(gradient)


def can_go_side_by_side(config: Config, model: BigBiGAN, parts: tuple[Part, ...]) -> bool:
    """Return whether the two kinds of pairs of this run can be computed apart, on two threads of one CPU process.

    They cannot where D has batch norms, where an augmentation or noise acts on both kinds together, where a layer
    computes its forward again in the backward, and where several processes meet in batch norms.
    """
    together = any(type(part).show is not Part.show or type(part).noise is not Part.noise for part in parts)
    return (
        next(model.parameters()).device.type == "cpu"
        and world_size() == 1
        and model.encoder is not None
        and config.model.joint
        and not config.model.checkpointing
        and config.run.compile == "off"
        and not config.optim.simultaneous
        and not together
        and not batch_norms(model.discriminator)
    )
