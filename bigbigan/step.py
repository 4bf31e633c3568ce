"""One D update, one E+G update (BigBiGAN, section 2): who is frozen, what is detached, one backward a chunk, one all-reduce."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bigbigan.config import Config
from bigbigan.data import RealImages, to_signed
from bigbigan.health import Health
from bigbigan.latents import Posterior, dropout_factors, normal_noise, sample_prior, uniforms
from bigbigan.layers import (
    StatisticsRecorder,
    add_orthogonal_gradient,
    advance_power_iteration,
    all_reduce,
    clamp_sigma,
    record_statistics,
    to_device,
    world_size,
)
from bigbigan.losses import Scores, discriminator_loss, encoder_generator_loss, r1_penalty, select_terms
from bigbigan.model import BigBiGAN, pool_to

ENCODER_MOMENTUM = 0.1  # of E's running statistics, once per E+G update


@dataclass
class Batch:
    """What one update consumes on this process: n fresh images and their share of the run's random numbers.

    x: (n, 3, S, S) in [−1, 1] at E's size.  z: (n, Z) ~ p(z).  noise: (n, Z) ~ N(0, I) for ẑ = E(x).
    x_classes, z_classes: (n,) of a conditional model, else None.
    dropout: (n, 2, D's last features) factors of the image's encoder pair and its generator pair, or None.
    """

    x: Tensor
    z: Tensor
    noise: Tensor
    x_classes: Tensor | None = None
    z_classes: Tensor | None = None
    dropout: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def chunks(self, parts: int) -> Iterator["Batch"]:
        columns = (self.x, self.z, self.noise, self.x_classes, self.z_classes, self.dropout)
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
) -> Batch:
    """Real images and their share of the run's random numbers, which depend on the images' places in the run alone.

    dropout: D's last features, and the share of them that is zero.
    """
    places = real.positions
    z = sample_prior(prior, seed, "z", places, latent_dim)
    noise = normal_noise(seed, "posterior", places, latent_dim)
    x_classes = z_classes = None
    if classes:
        x_classes = real.labels
        z_classes = to_device(torch.from_numpy(uniforms(seed, "classes", places, 1)[:, 0] * classes).long(), device)
    x = to_signed(real.x).contiguous(memory_format=torch.channels_last)
    factors = to_device(dropout_factors(seed, places, *dropout), device) if dropout[1] else None
    return Batch(x, to_device(z, device), to_device(noise, device), x_classes, z_classes, factors)


@dataclass
class Remedies:
    """BigGAN's against collapse (section 4) and for truncation (3.1): see `config.Loss`, `config.Optim`. All are off by default."""

    r1: float = 0.0
    r1_interval: int = 1
    sigma_clamp: float = 0.0
    sigma_clamp_ratio: float = 0.0
    sigma_networks: str = "generator"
    orthogonal: float = 0.0

    @classmethod
    def of(cls, config: Config) -> "Remedies":
        o, loss = config.optim, config.loss
        return cls(loss.r1, loss.r1_interval, o.sigma_clamp, o.sigma_clamp_ratio, o.sigma_networks, loss.orthogonal)

    def clamp(self, network: nn.Module, name: str) -> None:
        if (self.sigma_clamp or self.sigma_clamp_ratio) and self.sigma_networks in (name, "both"):
            clamp_sigma(network, self.sigma_clamp, self.sigma_clamp_ratio)


class Pairs(NamedTuple):
    """The joined batch of D, encoder pairs first: 2n images, latents, classes and factors of dropout or None."""

    images: Tensor
    latents: Tensor
    classes: Tensor | None
    dropout: Tensor | None


class Step:
    """The two updates of a BigBiGAN.

    optimizers: Adam for D alone, and one Adam for E and G together.  chunks: parts a batch is computed in.
    autocast: a function that returns a context for the forwards (Accelerate's), or None.
    `health` says after an iteration whether all was finite; an update that was not left parameters and statistics as they were.
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
        remedies: Remedies | None = None,
    ):
        self.model, self.chunks, self.form = model, chunks, form
        self.discriminator_optimizer = discriminator_optimizer
        self.encoder_generator_optimizer = encoder_generator_optimizer
        self.unary_x, self.unary_z = unary_x, unary_z
        self.autocast = autocast or nullcontext
        self.remedies, self.health = remedies or Remedies(), Health(model)

    def compile(self, mode: str = "default") -> None:
        """Make one graph of the forward, loss and backward of each update (`torch.compile`); see `compilation` for the check."""
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
        report = Report()
        for part in batch.chunks(self.chunks):
            with self.autocast():
                loss, encoder_pairs, generator_pairs, pairs = self.discriminator_forward(part)
            share = len(part) / len(batch)
            (loss * share).backward()
            if self.remedies.r1 and number % self.remedies.r1_interval == 0:
                (self._r1(pairs) * share).backward()
            report.add("loss_d", loss, share)
            report.add_scores(encoder_pairs, generator_pairs, share)
        self._apply(self.discriminator_optimizer, self._judge(self.discriminator_optimizer, [discriminator], report))
        compute_now(batch.x.device)
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
            report.add("posterior_stddev", posterior.stddev.mean(), share)
            report.add("posterior_mean_square", posterior.mean.square().mean(), share)
        broken = self._judge(self.encoder_generator_optimizer, [generator, encoder], report)
        statistics.move(ENCODER_MOMENTUM, broken)
        if self.remedies.orthogonal:
            add_orthogonal_gradient(generator, self.remedies.orthogonal)
        self._apply(self.encoder_generator_optimizer, broken)
        self.health.judge_weights()
        compute_now(batch.x.device)
        return report.values

    def discriminator_forward(self, part: Batch) -> tuple[Tensor, Scores, Scores, Pairs]:
        """→ L_D, the scores of encoder and generator pairs, and the pairs; what is compiled by `compile`."""
        with torch.no_grad():
            pairs, _ = self._pairs(part)
        encoder_pairs, generator_pairs = self._scores(pairs)
        return discriminator_loss(encoder_pairs, generator_pairs, self.form), encoder_pairs, generator_pairs, pairs

    def encoder_generator_forward(self, part: Batch) -> tuple[Tensor, Posterior]:
        """→ L_EG and q(z|x); what is compiled by `compile`."""
        pairs, posterior = self._pairs(part)
        encoder_pairs, generator_pairs = self._scores(pairs)
        return encoder_generator_loss(encoder_pairs, generator_pairs, self.form), posterior

    def _judge(self, optimizer: torch.optim.Optimizer, networks: list[nn.Module], report: "Report") -> Tensor:
        """Average the gradients over all processes → whether they or what was reported are not finite, alike on every process."""
        values = average_gradients(networks, report.values)
        return self.health.judge_gradients([p for group in optimizer.param_groups for p in group["params"]], values)

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
        n = len(pairs.images) // 2
        inputs = [pairs.images[:n].detach().requires_grad_(), pairs.latents[:n].detach().to(pairs.images).requires_grad_()]
        with sdpa_kernel(SDPBackend.MATH):  # the one attention that has second derivatives
            scores = self.model.discriminator(*inputs, *(None if c is None else c[:n] for c in (pairs.classes, pairs.dropout)))
            penalty = r1_penalty(select_terms(scores, self.unary_x, self.unary_z), inputs)
        return self.remedies.r1 / 2 * self.remedies.r1_interval * penalty

    def _pairs(self, part: Batch) -> tuple[Pairs, Posterior]:
        """The joined batch of D: encoder pairs (x, ẑ = E(x)), then generator pairs (x̂ = G(z), z)."""
        posterior = self.model.encoder(part.x)
        z_hat = posterior.sample(part.noise)
        x_hat = self.model.generator(part.z, part.z_classes)
        x = pool_to(part.x, self.model.discriminator.image_size)
        classes = None if part.x_classes is None else torch.cat([part.x_classes, part.z_classes])
        dropout = None if part.dropout is None else torch.cat([part.dropout[:, 0], part.dropout[:, 1]])
        return Pairs(torch.cat([x, x_hat.to(x)]), torch.cat([z_hat, part.z]), classes, dropout), posterior

    def _scores(self, pairs: Pairs) -> tuple[Scores, Scores]:
        scores = self.model.discriminator(*pairs)
        scores = Scores(*(None if term is None else at_least_float32(term) for term in scores))
        return select_terms(scores, self.unary_x, self.unary_z).split(len(pairs.images) // 2)


class Report:
    """Means over the chunks of an update, kept on the device: nothing here waits for it."""

    def __init__(self):
        self.values: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor, share: float) -> None:
        self.values[name] = self.values.get(name, 0) + at_least_float32(value.detach()) * share

    def add_scores(self, encoder_pairs: Scores, generator_pairs: Scores, share: float) -> None:
        for side, scores in (("real", encoder_pairs), ("fake", generator_pairs)):
            for name, term in zip(Scores._fields, scores, strict=True):
                if term is not None:
                    self.add(f"score_{name}_{side}", term.mean(), share)


def compute_now(device: torch.device) -> None:
    """On XLA: run what was recorded since the last time, so that every update is one graph, compiled once."""
    if device.type == "xla":
        import torch_xla

        torch_xla.sync()


def at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def average_gradients(networks: list[nn.Module], values: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Average the gradients of `networks` over all processes in one flat all-reduce; every process must hold equal shares.

    values: 0-dim numbers by name, the same names everywhere → their averages, which travel along.
    """
    values = values or {}
    if world_size() == 1:
        return values
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    further = [value.to(parameters[0].dtype).reshape(1) for value in values.values()]
    flat = all_reduce(torch.cat([*(p.grad.flatten() for p in parameters), *further])) / world_size()
    *gradients, averaged = flat.split([*(p.numel() for p in parameters), len(further)])
    for p, grad in zip(parameters, gradients, strict=True):
        p.grad.copy_(grad.view_as(p))
    return dict(zip(values, averaged, strict=True))


def build_optimizers(
    model: BigBiGAN, generator_lr: float, discriminator_lr: float, encoder_lr: float, betas: tuple[float, float], eps: float
) -> tuple[torch.optim.Adam, torch.optim.Adam]:
    """Adam for D, and one Adam for E and G with a rate each."""
    settings = {"betas": tuple(map(float, betas)), "eps": eps}
    # XLA has no fused Adam; there the count of its steps must be a tensor of the graph, or every update compiled anew
    lazy = next(model.parameters()).device.type == "xla"
    settings |= {"capturable": True, "foreach": False} if lazy else {"fused": True}

    def group(name: str, lr: float) -> dict:
        return {"params": list(getattr(model, name).parameters()), "lr": lr, "name": name}

    discriminator = torch.optim.Adam([group("discriminator", discriminator_lr)], **settings)
    return discriminator, torch.optim.Adam([group("encoder", encoder_lr), group("generator", generator_lr)], **settings)
