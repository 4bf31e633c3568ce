"""One D update, one E+G update (BigBiGAN, section 2): who is frozen, what is detached, one backward a chunk, one
all-reduce."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bigbigan.config import Config
from bigbigan.distributed import all_reduce, average_gradients, mark_step, world_size
from bigbigan.latents import Posterior
from bigbigan.losses import (
    Scores,
    discriminator_loss,
    encoder_generator_loss,
    gradient_penalty,
    latent_loss,
    r1_penalty,
    select_terms,
)
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import (
    StatisticsRecorder,
    add_orthogonal_gradient,
    advance_power_iteration,
    pool_to,
    record_statistics,
)
from bigbigan.training.augmentation import DiscriminatorAugmentation
from bigbigan.training.batch import Batch
from bigbigan.training.guard.health import Health
from bigbigan.training.optim import Regularisation

MOMENTUM = 0.1  # of E's running statistics, once per E+G update; of D's, where it has batch norms, once per D update


class Pairs(NamedTuple):
    """The joined batch of D, encoder pairs first: 2n images, latents (None without E), classes and factors of dropout,
    or LSGAN's noise, or None."""

    images: Tensor
    latents: Tensor | None
    classes: Tensor | None
    dropout: Tensor | None

    def halves(self) -> list["Pairs"]:
        """The encoder pairs, and the generator pairs."""
        return [Pairs(*half) for half in zip(*([None] * 2 if t is None else t.chunk(2) for t in self), strict=True)]


class Step:
    """The two updates of a BigBiGAN, or of a GAN without E, H and J.

    optimizers: Adam for D alone, and one Adam for E and G together.  chunks: parts a batch is computed in.
    autocast: a function that returns a context for the forwards (Accelerate's), or None.
    penalty, gradient_norm, drift: of the form "wgan_gp", see `losses`.
    simultaneous: both updates are of one batch and one point; D's step waits for E's and G's.  latent_weight: see
    `config.Loss`. `health` says after an iteration whether all was finite; an update that was not left parameters and
    statistics as they were.
    """

    def __init__(
        self,
        model: BigBiGAN,
        discriminator_optimizer: torch.optim.Optimizer,
        encoder_generator_optimizer: torch.optim.Optimizer,
        form: str = "hinge",
        unary_x: bool = True,
        unary_z: bool = True,
        chunks: int = 1,
        autocast=None,
        remedies: Regularisation | None = None,
        penalty: float = 10.0,
        gradient_norm: float = 1.0,
        drift: float = 0.001,
        augmentation: DiscriminatorAugmentation | None = None,
        simultaneous: bool = False,
        latent_weight: float = 0.0,
    ):
        self.model, self.chunks, self.form = model, chunks, form
        self.discriminator_optimizer = discriminator_optimizer
        self.encoder_generator_optimizer = encoder_generator_optimizer
        self.unary_x, self.unary_z = unary_x, unary_z
        self.autocast = autocast or nullcontext
        self.remedies, self.health = remedies or Regularisation(), Health(model)
        self.penalty, self.gradient_norm, self.drift = penalty, gradient_norm, drift
        self.augment = augmentation or DiscriminatorAugmentation()
        self.simultaneous, self.latent_weight = simultaneous, latent_weight
        self.regressing = model.encoder is not None and not getattr(model.discriminator, "joint", True)

    @classmethod
    def from_config(
        cls, config: Config, model: BigBiGAN, discriminator_optimizer, encoder_generator_optimizer, autocast
    ) -> "Step":
        loss = config.loss
        return cls(
            model, discriminator_optimizer, encoder_generator_optimizer, loss.form, loss.unary_x, loss.unary_z,
            config.data.chunks, autocast, Regularisation.of(config), loss.penalty, loss.gradient_norm, loss.drift,
            DiscriminatorAugmentation.from_config(config, next(model.parameters()).device),
            config.optim.simultaneous, loss.latent_weight,
        )  # fmt: skip

    def compile(self, mode: str = "default") -> None:
        """Make one graph of the forward, loss and backward of each update (`torch.compile`); see `compilation` for the
        check."""
        self.discriminator_forward = torch.compile(self.discriminator_forward, mode=mode)
        self.encoder_generator_forward = torch.compile(self.encoder_generator_forward, mode=mode)

    def discriminator_update(self, batch: Batch, number: int = 0) -> dict[str, Tensor]:
        """D: raise the scores of (x, E(x)), lower those of (G(z), z). E and G stand still and keep no graph.

        number: of the D updates of the run before this one, for R1's interval.
        """
        discriminator = self.model.discriminator
        advance_power_iteration(discriminator)
        self.remedies.clamp(discriminator, "discriminator")
        discriminator.requires_grad_(True)
        torch.compiler.cudagraph_mark_step_begin()  # nothing is kept of the last update's graphs
        report, statistics = Report(), StatisticsRecorder()
        for part in batch.chunks(self.chunks):
            with self.autocast(), record_statistics(discriminator) as of_part:
                loss, encoder_pairs, generator_pairs, pairs = self.discriminator_forward(part)
            share = len(part) / len(batch)
            (loss * share).backward()
            statistics.pool(of_part)
            if self.remedies.r1 and number % self.remedies.r1_interval == 0:
                (self._r1(pairs) * share).backward()
            report.add("loss_d", loss, share)
            if self.form == "wgan_gp":
                penalty = self._gradient_penalty(pairs, part.mix)
                (penalty * share).backward()
                report.add("loss_d", penalty, share)
            report.add_scores(encoder_pairs, generator_pairs, share)
            if self.augment.adaptive:
                report.add("augment_sign", self.augment.sign(encoder_pairs), share)
            if part.drop is not None:
                report.add("confidence_d", 1 - generator_pairs.total().mean(), share)
        broken = self._judge(self.discriminator_optimizer, [discriminator], report)
        report.values |= self.augment.adapt(report.joined, broken, len(batch))
        if "confidence_d" in report.values:
            confidence = all_reduce(report.values["confidence_d"].clone()) / world_size()
            discriminator.f.follow(torch.where(broken == 0, confidence, discriminator.f.confidence))
        statistics.move(MOMENTUM, broken)
        self.waiting = broken
        if not self.simultaneous:
            self._apply(self.discriminator_optimizer, broken)
        mark_step(batch.x.device)
        return report.values

    def encoder_generator_update(self, batch: Batch) -> dict[str, Tensor]:
        """E and G: the opposite signs, linear; D is frozen but lets gradients through to x̂ = G(z) and ẑ = E(x)."""
        generator, encoder, discriminator = self.model.generator, self.model.encoder, self.model.discriminator
        advance_power_iteration(generator)
        self.remedies.clamp(generator, "generator")
        discriminator.requires_grad_(False)
        torch.compiler.cudagraph_mark_step_begin()
        report, statistics = Report(), StatisticsRecorder()
        for part in batch.chunks(self.chunks):
            with self.autocast(), record_statistics(encoder) as of_part:
                loss, posterior = self.encoder_generator_forward(part)
            share = len(part) / len(batch)
            (loss * share).backward()
            statistics.pool(of_part)
            report.add("loss_eg", loss, share)
            if posterior is not None:
                report.add("posterior_stddev", posterior.stddev.mean(), share)
                report.add("posterior_mean_square", posterior.mean.square().mean(), share)
        networks = [network for network in (generator, encoder) if network is not None]
        broken = self._judge(self.encoder_generator_optimizer, networks, report)
        statistics.move(MOMENTUM, broken)
        if self.remedies.orthogonal:
            add_orthogonal_gradient(generator, self.remedies.orthogonal)
        self._apply(self.encoder_generator_optimizer, broken)
        if self.simultaneous:
            self._apply(self.discriminator_optimizer, self.waiting)
        self.health.judge_weights()
        mark_step(batch.x.device)
        return report.values

    def discriminator_forward(self, part: Batch) -> tuple[Tensor, Scores, Scores, Pairs]:
        """→ L_D, the scores of encoder and generator pairs, and the pairs; what is compiled by `compile`."""
        with torch.no_grad():
            pairs, _ = self._pairs(part)
        encoder_pairs, generator_pairs = self._scores(pairs)
        loss = discriminator_loss(encoder_pairs, generator_pairs, self.form, self.drift)
        return loss, encoder_pairs, generator_pairs, pairs

    def encoder_generator_forward(self, part: Batch) -> tuple[Tensor, Posterior | None]:
        """→ L_EG and q(z|x), None without E; what is compiled by `compile`."""
        pairs, posterior = self._pairs(part)
        encoder_pairs, generator_pairs = self._scores(pairs)
        loss = encoder_generator_loss(None if posterior is None else encoder_pairs, generator_pairs, self.form)
        if self.regressing:
            x_hat = pairs.halves()[1].images
            posterior = self.model.encoder(
                x_hat.detach().lerp(x_hat, self.latent_weight)
            )  # x̂, its gradient times the weight
            loss = loss + latent_loss(posterior.mean, part.z, self.model.encoder.posterior == "tanh")
        return loss, posterior

    def _judge(self, optimizer: torch.optim.Optimizer, networks: list[nn.Module], report: "Report") -> Tensor:
        """Average the gradients over all processes → whether they or what was reported are not finite, alike on every
        process."""
        report.joined = average_gradients(networks, report.values)
        return self.health.judge_gradients(
            [p for group in optimizer.param_groups for p in group["params"]], report.joined
        )

    def _apply(self, optimizer: torch.optim.Optimizer, broken: Tensor) -> None:
        """The optimiser's step; none where `broken` is 1, with no gradient left over."""
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = broken
        else:  # XLA has none: a step of zero gradients
            for p in (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None):
                p.grad = torch.where(broken == 0, p.grad, 0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _r1(self, pairs: Pairs) -> Tensor:
        """γ/2 · E‖∇D(x, E(x))‖², times the interval, in the precision of the weights."""
        images, latents, *rest = pairs.halves()[0]
        inputs = [t.detach().to(pairs.images).requires_grad_() for t in (images, latents) if t is not None]
        with sdpa_kernel(SDPBackend.MATH):  # the one attention that has second derivatives
            scores = self.model.discriminator(*inputs, *([None] * (latents is None)), *rest)
            penalty = r1_penalty(select_terms(scores, self.unary_x, self.unary_z), inputs)
        return self.remedies.r1 / 2 * self.remedies.r1_interval * penalty

    def _gradient_penalty(self, pairs: Pairs, mix: Tensor) -> Tensor:
        """WGAN-GP: D's gradient at points between the encoder pairs and the generator pairs, with a graph through
        it."""
        (x, z_hat, classes, _), (x_hat, z, *_) = pairs.halves()
        points = []
        for ours, theirs in ((x, x_hat), (z_hat, z)):
            if ours is not None:
                share = mix.view(-1, *[1] * (ours.ndim - 1)).to(x)
                points.append(ours.detach().to(x).lerp(theirs.detach().to(x), share).requires_grad_())
        with sdpa_kernel(SDPBackend.MATH):
            total = self._selected(self.model.discriminator(*points, classes=classes)).total()
            gradients = torch.autograd.grad(total.sum(), points, create_graph=True, allow_unused=True)
            return gradient_penalty([g for g in gradients if g is not None], self.penalty, self.gradient_norm)

    def _pairs(self, part: Batch) -> tuple[Pairs, Posterior | None]:
        """The joined batch of D: encoder pairs (x, ẑ = E(x)), then generator pairs (x̂ = G(z), z); no latents without
        E."""
        posterior = latents = None
        if self.model.encoder is not None and not self.regressing:
            posterior = self.model.encoder(part.x)
            latents = torch.cat([posterior.sample(part.noise), part.z])
        x_hat = self.model.generator(part.z, part.z_classes)
        x = pool_to(part.x, self.model.discriminator.image_size)
        classes = None if part.x_classes is None else torch.cat([part.x_classes, part.z_classes])
        drop = part.dropout if part.drop is None else part.drop
        dropout = None if drop is None else torch.cat([drop[:, 0], drop[:, 1]])
        images = self.augment(torch.cat([x, x_hat.to(x)]), part.augment)
        return Pairs(images, latents, classes, dropout), posterior

    def _scores(self, pairs: Pairs) -> tuple[Scores, Scores]:
        discriminator = self.model.discriminator
        if getattr(
            discriminator, "compares_images", False
        ):  # D compares the images of a minibatch: those of one kind with each other
            first, second = (self._selected(discriminator(*half)) for half in pairs.halves())
            return first, second
        return self._selected(discriminator(*pairs)).split(len(pairs.images) // 2)

    def _selected(self, scores: Scores) -> Scores:
        exact = Scores(*(None if term is None else at_least_float32(term) for term in scores))
        return select_terms(exact, self.unary_x, self.unary_z)


class Report:
    """Means over the chunks of an update, kept on the device: nothing here waits for it. joined: over the processes
    too."""

    def __init__(self):
        self.values: dict[str, Tensor] = {}
        self.joined: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor, share: float) -> None:
        self.values[name] = self.values.get(name, 0) + at_least_float32(value.detach()) * share

    def add_scores(self, encoder_pairs: Scores, generator_pairs: Scores, share: float) -> None:
        for side, scores in (("real", encoder_pairs), ("fake", generator_pairs)):
            for name, term in zip(Scores._fields, scores, strict=True):
                if term is not None:
                    self.add(f"score_{name}_{side}", term.mean(), share)


def at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
