"""The two updates on two threads: a CPU computes encoder pairs and generator pairs at the same time."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from bigbigan.config import Config
from bigbigan.distributed import world_size
from bigbigan.latents import Posterior
from bigbigan.losses import Scores
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import CrossReplicaBatchNorm, StatisticsRecorder, pool_to, record_statistics
from bigbigan.training.batch import Batch
from bigbigan.training.objectives import WGANGP, Objective
from bigbigan.training.part import Part
from bigbigan.training.step import Pairs, Step

A, B = TypeVar("A"), TypeVar("B")


class SideBySideStep(Step):
    """Computes the pairs (x, E(x)) here while another thread computes (G(z), z).

    L_D and L_EG are sums of a loss of each kind of pairs. So each thread makes forward and backward of one kind, and
    they wait for each other once a chunk. Threads that share the operations wait at each of them, which costs more than
    it gains where operations are short. What else an update does, such as penalties, Adam and norms, is done here.

    D's two gradients are added when both are there, so the result does not depend on which was first.
    """

    apart = False  # set by `set_threads`
    compiled = False

    def set_threads(self, count: int) -> None:
        """Compute with `count` CPU threads: with two or more each kind of pairs has half of them.

        Encoder pairs have the larger half. All else in this process has as many as they, until torch is told otherwise.
        """
        if self.compiled:
            super().set_threads(count)
            return
        self.apart = count > 1
        if self.apart:
            other_thread().submit(torch.set_num_threads, count // 2).result()
        torch.set_num_threads(count - count // 2)

    def compile(self, mode: str = "default") -> None:
        """Compile as `Step` does: both kinds together."""
        super().compile(mode)
        self.apart, self.compiled = False, True

    def discriminator_gradients(
        self, chunk: Batch, share: float = 1.0
    ) -> tuple[Tensor, Scores, Scores, Pairs, StatisticsRecorder]:
        """Do what `Step.discriminator_gradients` does; D has no batch norms here."""
        if not self.apart:
            return super().discriminator_gradients(chunk, share)
        parameters = [p for p in self.model.discriminator.parameters() if p.requires_grad]

        def of_encoder_pairs() -> tuple[Tensor, Scores, Pairs]:
            with self.own_autocast():
                with torch.no_grad():
                    pairs, _ = self.encoder_pairs(chunk)
                loss, scores = self.loss_of(pairs, self.objective.discriminator_loss, real=True)
            (loss * share).backward()
            return loss, scores, pairs

        def of_generator_pairs() -> tuple[Tensor, Scores, Pairs, tuple[Tensor | None, ...]]:
            with self.own_autocast():
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
            with self.own_autocast(), record_statistics(self.model.encoder) as statistics:
                pairs, posterior = self.encoder_pairs(chunk)
                loss, _ = self.loss_of(pairs, self.objective.encoder_generator_loss, real=True)
            (loss * share).backward()
            return loss.detach(), posterior, statistics

        def of_generator() -> Tensor:
            with self.own_autocast():
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

    @contextmanager
    def own_autocast(self) -> Iterator[None]:
        """Return the context of one thread's forwards, without torch's kept casts of weights, which threads share."""
        before = torch.is_autocast_cache_enabled()
        try:
            with self.autocast():
                torch.set_autocast_cache_enabled(False)
                yield
        finally:
            torch.set_autocast_cache_enabled(before)

    def at_once(self, here: Callable[[], A], there: Callable[[], B]) -> tuple[A, B]:
        """Call the first function here and the second one on the other thread, and return what both return."""
        result = other_thread().submit(there)
        try:
            return here(), result.result()
        finally:
            wait([result])


@cache
def other_thread() -> ThreadPoolExecutor:
    """Return the process's second thread."""
    return ThreadPoolExecutor(1, "generator pairs")


def add_gradients(parameters: list[torch.nn.Parameter], gradients: tuple[Tensor | None, ...]) -> None:
    """Add gradients to those of the parameters."""
    for p, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            p.grad = gradient if p.grad is None else p.grad.add_(gradient)


def can_go_side_by_side(config: Config, model: BigBiGAN, parts: tuple[Part, ...], objective: Objective) -> bool:
    """Return whether the two kinds of pairs of this run can be computed apart, on two threads of one CPU process.

    They cannot where something sees both kinds together: batch norms in D, an augmentation, noise, simultaneous
    updates, a compiled graph, a loss of one's own. Nor without E in the scores, with activation checkpointing, with
    several processes, whose batch norms wait for each other, and with networks of one's own that draw random numbers
    or keep statistics in a forward.
    """
    losses = (type(objective).discriminator_loss, type(objective).encoder_generator_loss)
    of_sums = [(kind.discriminator_loss, kind.encoder_generator_loss) for kind in (Objective, WGANGP)]
    hooked = any(type(p).show is not Part.show or type(p).noise is not Part.noise for p in (*parts, objective))
    drawing = any(isinstance(layer, _DropoutNd) and layer.p > 0 for layer in model.modules())
    keeping = any(isinstance(layer, (_BatchNorm, CrossReplicaBatchNorm)) for layer in model.discriminator.modules())
    return (
        next(model.parameters()).device.type == "cpu"
        and world_size() == 1
        and model.encoder is not None
        and config.model.joint
        and not config.model.checkpointing
        and config.run.compile == "off"
        and not config.optim.simultaneous
        and losses in of_sums
        and not hooked
        and not drawing
        and not keeping
    )
