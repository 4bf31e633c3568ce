"""The two updates (BigBiGAN, section 2): who is frozen, what is detached, one backward a chunk, one all-reduce.

`Step.iteration` owns their order. What a variant adds is a `Part`; which parts a run has is decided in
`variants.build_step`.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bigbigan.data import RealImages
from bigbigan.distributed import average_gradients, mark_step
from bigbigan.latents import Posterior
from bigbigan.losses import Scores
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import (
    StatisticsRecorder,
    advance_power_iteration,
    pool_to,
    record_statistics,
    set_momentum,
)
from bigbigan.training.batch import Batch
from bigbigan.training.guard.health import Health
from bigbigan.training.objectives import Joint, Objective, at_least_float32
from bigbigan.training.optim import Optimizers, Regularisation
from bigbigan.training.part import Draw, Part

REPEATS = "skip_fwd_side_effects_in_bwd_under_checkpoint"  # torch's setting, see `Step.compile`
MOMENTUM = 0.1  # of E's running statistics, once per E+G update; of D's, where it has batch norms, once per D update


class Pairs(NamedTuple):
    """The joined batch of D, encoder pairs first.

    images: (2n, 3, S, S).  latents: (2n, Z), or None if D sees none.  classes: (2n,) or None.  noise: of D, or None.
    """

    images: Tensor
    latents: Tensor | None
    classes: Tensor | None
    noise: Tensor | None

    def halves(self) -> list["Pairs"]:
        """Return the encoder pairs and the generator pairs."""
        return [Pairs(*half) for half in zip(*([None] * 2 if t is None else t.chunk(2) for t in self), strict=True)]


class Step:
    """The two updates of a BigBiGAN, or of a GAN without E, H and J.

    objective: the losses.  parts: what else acts in the updates, in this order, before the objective's own hooks.
    coupling: how E takes part.  d_steps: D updates before each E+G update.  batches: of real images that an iteration
    takes, see `iteration`.  chunks: parts that a batch is computed in, to save memory.  autocast: returns a context for
    the forwards. `health` tells after an iteration whether all was finite; an update that was not has moved no
    parameter and no statistics.
    """

    def __init__(
        self,
        model: BigBiGAN,
        optimizers: Optimizers,
        objective: Objective | None = None,
        *,
        parts: tuple[Part, ...] = (),
        coupling: Joint | None = None,
        d_steps: int = 2,
        batches: int = 3,
        chunks: int = 1,
        autocast: Callable = nullcontext,
        regularisation: Regularisation | None = None,
    ):
        self.model, self.optimizers = model, optimizers
        self.objective = objective or Objective()
        self.parts = (*parts, self.objective)
        self.coupling = coupling or Joint()
        self.d_steps, self.batches, self.chunks, self.autocast = d_steps, batches, chunks, autocast
        self.regularisation = regularisation or Regularisation()
        self.begin_graphs: Callable[[], None] = lambda: None  # of a compiled step, see `compile`
        self.health = Health(model)
        set_momentum(model, None)  # of a loaded model: this step moves the statistics itself

    def draws(self) -> dict[str, Draw]:
        """Return the random numbers that the parts need for each image, by name."""
        return {name: draw for part in self.parts for name, draw in part.draws().items()}

    def set_threads(self, count: int) -> None:
        """Compute with `count` CPU threads."""
        torch.set_num_threads(count)

    def iteration(
        self, real_batches: Iterator[RealImages], draw: Callable[..., Batch], number: int = 0
    ) -> dict[str, Tensor]:
        """Make `d_steps` D updates, each on a fresh batch, then one E+G update; return what they report, by name.

        A value is that of the last update that reports it.
        The E+G update takes a fresh batch if E sees real images (`batches` = d_steps + 1), else new latents, and
        classes, for the places of D's last one.
        draw: adds the random numbers to real images, see `Drawer`.  number: of iterations before this one.
        """
        values: dict[str, Tensor] = {}
        for i in range(self.d_steps):
            batch = draw(real := next(real_batches))
            values |= self.discriminator_update(batch, number * self.d_steps + i)
        batch = draw(next(real_batches)) if self.batches > self.d_steps else draw(real, " of G")
        return values | self.encoder_generator_update(batch)

    def compile(self, mode: str = "default") -> None:
        """Make one graph of the forward and loss of each update; `training.compile` checks its gradients."""
        if hasattr(torch._dynamo.config, REPEATS):  # a RevNet's block that is computed again records statistics once
            setattr(torch._dynamo.config, REPEATS, True)
        self.begin_graphs = torch.compiler.cudagraph_mark_step_begin  # nothing is kept of the last update's graphs
        self.discriminator_forward = torch.compile(self.discriminator_forward, mode=mode)
        self.encoder_generator_forward = torch.compile(self.encoder_generator_forward, mode=mode)

    def discriminator_update(self, batch: Batch, number: int = 0) -> dict[str, Tensor]:
        """Raise the scores of (x, E(x)), lower those of (G(z), z). E and G stand still and keep no graph.

        number: of the D updates of the run before this one.
        """
        discriminator = self.model.discriminator
        advance_power_iteration(discriminator)
        self.regularisation.before_update(discriminator, "discriminator")
        discriminator.requires_grad_(True)
        self.begin_graphs()
        report, statistics = Report(), StatisticsRecorder()
        for chunk in batch.chunks(self.chunks):
            share = len(chunk) / len(batch)
            loss, encoder_pairs, generator_pairs, pairs, of_chunk = self.discriminator_gradients(chunk, share)
            statistics.pool(of_chunk)
            report.add_loss("loss_d", loss, self.objective.regularisation(encoder_pairs), share)
            for part in self.parts:
                for penalty in part.penalties(self, pairs, chunk, number):
                    (penalty.term * share).backward()
                    report.add(penalty.name, penalty.term / penalty.times, share)
            report.add_scores(encoder_pairs, generator_pairs, share)
            for part in self.parts:
                for name, value in part.report(encoder_pairs, generator_pairs, chunk).items():
                    report.add(name, value, share)
        broken = self.judge(self.optimizers.discriminator, [discriminator], report)
        for part in self.parts:
            report.values |= part.after(report.joined, broken, len(batch))
        statistics.move(MOMENTUM, broken)
        self.apply_discriminator(broken)
        mark_step(batch.x.device)
        return report.values

    def encoder_generator_update(self, batch: Batch) -> dict[str, Tensor]:
        """Fool D: E and G get the opposite signs; D is frozen but lets gradients through to x̂ = G(z) and ẑ = E(x)."""
        generator, encoder, discriminator = self.model.generator, self.model.encoder, self.model.discriminator
        advance_power_iteration(generator)
        self.regularisation.before_update(generator, "generator")
        discriminator.requires_grad_(False)
        self.begin_graphs()
        report, statistics = Report(), StatisticsRecorder()
        for chunk in batch.chunks(self.chunks):
            share = len(chunk) / len(batch)
            loss, posterior, others, of_chunk = self.encoder_generator_gradients(chunk, share)
            statistics.pool(of_chunk)
            report.add_loss("loss_eg", loss, others, share)
            if posterior is not None:
                report.add("posterior_stddev", posterior.stddev.mean(), share)
                report.add("posterior_mean_square", posterior.mean.square().mean(), share)
        networks = [network for network in (generator, encoder) if network is not None]
        broken = self.judge(self.optimizers.encoder_generator, networks, report)
        statistics.move(MOMENTUM, broken)
        self.regularisation.add_gradients(generator, "generator")
        self.apply_encoder_generator(broken)
        self.health.judge_weights()
        mark_step(batch.x.device)
        return report.values

    def discriminator_gradients(
        self, chunk: Batch, share: float = 1.0
    ) -> tuple[Tensor, Scores, Scores, Pairs, StatisticsRecorder]:
        """Add to D's gradients those of a chunk, weighted by its share of the batch.

        Returns L_D, the scores of encoder and generator pairs, the pairs, and the statistics of D's batch norms.
        """
        with self.autocast(), record_statistics(self.model.discriminator) as statistics:
            loss, encoder_pairs, generator_pairs, pairs = self.discriminator_forward(chunk)
        (loss * share).backward()
        return loss, encoder_pairs, generator_pairs, pairs, statistics

    def encoder_generator_gradients(
        self, chunk: Batch, share: float = 1.0
    ) -> tuple[Tensor, Posterior | None, dict[str, Tensor], StatisticsRecorder]:
        """Add to the gradients of E and G those of a chunk, weighted by its share of the batch.

        Returns what `encoder_generator_forward` does, and the statistics of E's batch norms.
        """
        with self.autocast(), record_statistics(self.model.encoder) as statistics:
            loss, posterior, others = self.encoder_generator_forward(chunk)
        (loss * share).backward()
        return loss, posterior, others, statistics

    def discriminator_forward(self, chunk: Batch) -> tuple[Tensor, Scores, Scores, Pairs]:
        """Return L_D, the scores of encoder and generator pairs, and the pairs; `compile` makes a graph of this."""
        with torch.no_grad():
            pairs, _ = self.pairs(chunk)
        encoder_pairs, generator_pairs = self.scores(pairs)
        return self.objective.discriminator_loss(encoder_pairs, generator_pairs), encoder_pairs, generator_pairs, pairs

    def encoder_generator_forward(self, chunk: Batch) -> tuple[Tensor, Posterior | None, dict[str, Tensor]]:
        """Return L_EG, q(z|x), None without E, and the terms of L_EG that are not adversarial; `compile` makes a graph
        of this."""
        pairs, posterior = self.pairs(chunk)
        if posterior is None:  # D's scores of real images reach nothing that is trained here
            generator_pairs = self.objective.select(self.model.discriminator(*pairs.halves()[1]))
            loss = self.objective.encoder_generator_loss(None, generator_pairs)
        else:
            loss = self.objective.encoder_generator_loss(*self.scores(pairs))
        return self.coupling.complete(loss, posterior, pairs, chunk, self.model)

    def pairs(self, chunk: Batch) -> tuple[Pairs, Posterior | None]:
        """Return the joined batch of D, (x, ẑ = E(x)) before (x̂ = G(z), z), and q(z|x)."""
        posterior, latents = self.coupling.latents(self.model, chunk)
        x_hat = self.model.generator(chunk.z, chunk.z_classes)
        x = pool_to(chunk.x, self.model.discriminator.image_size)
        images, noise = torch.cat([x, x_hat.to(x)]), None
        for part in self.parts:
            images = part.show(images, chunk)
            own = part.noise(chunk)
            noise = noise if own is None else torch.cat([own[:, 0], own[:, 1]])
        classes = None if chunk.x_classes is None else torch.cat([chunk.x_classes, chunk.z_classes])
        return Pairs(images, latents, classes, noise), posterior

    def scores(self, pairs: Pairs) -> tuple[Scores, Scores]:
        """Return D's scores of the encoder pairs and of the generator pairs, as the objective selects them."""
        discriminator = self.model.discriminator
        if discriminator.compares_images:  # those of one kind with each other
            first, second = (self.objective.select(discriminator(*half)) for half in pairs.halves())
            return first, second
        return self.objective.select(discriminator(*pairs)).split(len(pairs.images) // 2)

    def judge(self, optimizer: torch.optim.Optimizer, networks: list[nn.Module], report: "Report") -> Tensor:
        """Average the gradients over all processes; return 1.0 if they or a reported value are not finite, else 0.0."""
        report.joined = average_gradients(networks, report.values)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        return self.health.judge_gradients(parameters, report.joined)

    def apply_discriminator(self, broken: Tensor) -> None:
        """Move D's weights, unless a gradient is not finite."""
        apply(self.optimizers.discriminator, broken)

    def apply_encoder_generator(self, broken: Tensor) -> None:
        """Move E and G, unless the update is void."""
        apply(self.optimizers.encoder_generator, broken)


def apply(optimizer: torch.optim.Optimizer, broken: Tensor) -> None:
    """Make the optimiser's step, none where `broken` is 1, and drop the gradients.

    The host does not wait for `broken` with a fused Adam, which takes it as a flag, nor on XLA, where a void step is
    one of zero gradients; with another optimiser it does.
    """
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = broken
        optimizer.step()
    elif broken.device.type == "xla":
        for p in (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None):
            p.grad = torch.where(broken == 0, p.grad, 0)
        optimizer.step()
    elif not bool(broken):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


class Report:
    """Means over the chunks of an update, kept on the device: nothing here waits for it.

    joined: the same averaged over the processes too.
    """

    def __init__(self):
        self.values: dict[str, Tensor] = {}
        self.joined: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor, share: float) -> None:
        """Add a chunk's value, weighted by its share of the batch."""
        self.values[name] = self.values.get(name, 0) + at_least_float32(value.detach()) * share

    def add_loss(self, name: str, loss: Tensor, others: dict[str, Tensor], share: float) -> None:
        """Add the adversarial part of a chunk's loss under `name`, and its other terms under theirs."""
        adversarial = loss.detach()
        for other, term in others.items():
            self.add(other, term, share)
            adversarial = adversarial - term.detach()
        self.add(name, adversarial, share)

    def add_scores(self, encoder_pairs: Scores, generator_pairs: Scores, share: float) -> None:
        """Add the mean of each score of a chunk, for real images and for generated ones."""
        for side, scores in (("real", encoder_pairs), ("fake", generator_pairs)):
            for name, term in zip(Scores._fields, scores, strict=True):
                if term is not None:
                    self.add(f"score_{name}_{side}", term.mean(), share)
