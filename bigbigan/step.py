"""One D update, one E+G update (BigBiGAN, section 2): who is frozen, what is detached, one backward a chunk, one all-reduce."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigbigan.data import RealImages, to_signed
from bigbigan.latents import Posterior, normal_noise, sample_prior, uniforms
from bigbigan.layers import (
    StatisticsRecorder,
    add_orthogonal_gradient,
    advance_power_iteration,
    all_reduce,
    record_statistics,
    to_device,
    world_size,
)
from bigbigan.losses import Scores, discriminator_loss, encoder_generator_loss, select_terms
from bigbigan.model import BigBiGAN, pool_to

ENCODER_MOMENTUM = 0.1  # of E's running statistics, once per E+G update


@dataclass
class Batch:
    """What one update consumes on this process: n fresh images and their share of the run's random numbers.

    x: (n, 3, S, S) in [−1, 1] at E's size.  z: (n, Z) ~ p(z).  noise: (n, Z) ~ N(0, I) for ẑ = E(x).
    x_classes, z_classes: (n,) of a conditional model, else None.
    """

    x: Tensor
    z: Tensor
    noise: Tensor
    x_classes: Tensor | None = None
    z_classes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def chunks(self, parts: int) -> Iterator["Batch"]:
        columns = (self.x, self.z, self.noise, self.x_classes, self.z_classes)
        pieces = [[None] * parts if column is None else column.tensor_split(parts) for column in columns]
        return (Batch(*piece) for piece in zip(*pieces, strict=True))


def draw_batch(real: RealImages, seed: int, prior: str, latent_dim: int, classes: int, device: torch.device) -> Batch:
    """Real images and their share of the run's random numbers, which depend on the images' places in the run alone."""
    places = real.positions
    z = sample_prior(prior, seed, "z", places, latent_dim)
    noise = normal_noise(seed, "posterior", places, latent_dim)
    x_classes = z_classes = None
    if classes:
        x_classes = real.labels
        z_classes = to_device(torch.from_numpy(uniforms(seed, "classes", places, 1)[:, 0] * classes).long(), device)
    x = to_signed(real.x).contiguous(memory_format=torch.channels_last)
    return Batch(x, to_device(z, device), to_device(noise, device), x_classes, z_classes)


class Step:
    """The two updates of a BigBiGAN.

    optimizers: Adam for D alone, and one Adam for E and G together.  chunks: parts a batch is computed in.
    autocast: a function that returns a context for the forwards (Accelerate's), or None.
    orthogonal: strength of the orthogonal regularisation of G.
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
        orthogonal: float = 0.0,
    ):
        self.model, self.chunks, self.form = model, chunks, form
        self.discriminator_optimizer = discriminator_optimizer
        self.encoder_generator_optimizer = encoder_generator_optimizer
        self.unary_x, self.unary_z, self.orthogonal = unary_x, unary_z, orthogonal
        self.autocast = autocast or nullcontext

    def compile(self, mode: str = "default") -> None:
        """Make one graph of the forward, loss and backward of each update (`torch.compile`); see `compilation` for the check."""
        self.discriminator_forward = torch.compile(self.discriminator_forward, mode=mode)
        self.encoder_generator_forward = torch.compile(self.encoder_generator_forward, mode=mode)

    def discriminator_update(self, batch: Batch) -> dict[str, Tensor]:
        """D: raise the scores of (x, E(x)), lower those of (G(z), z). E and G stand still and keep no graph."""
        discriminator = self.model.discriminator
        advance_power_iteration(discriminator)
        discriminator.requires_grad_(True)
        torch.compiler.cudagraph_mark_step_begin()  # nothing is kept of the last update's graphs
        report = Report()
        for part in batch.chunks(self.chunks):
            with self.autocast():
                loss, encoder_pairs, generator_pairs = self.discriminator_forward(part)
            share = len(part) / len(batch)
            (loss * share).backward()
            report.add("loss_d", loss, share)
            report.add_scores(encoder_pairs, generator_pairs, share)
        average_gradients([discriminator])
        self.discriminator_optimizer.step()
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        compute_now(batch.x.device)
        return report.values

    def encoder_generator_update(self, batch: Batch) -> dict[str, Tensor]:
        """E and G: the opposite signs, linear; D is frozen but lets gradients through to x̂ = G(z) and ẑ = E(x)."""
        generator, encoder, discriminator = self.model.generator, self.model.encoder, self.model.discriminator
        advance_power_iteration(generator)
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
        statistics.move(ENCODER_MOMENTUM)
        average_gradients([generator, encoder])
        if self.orthogonal:
            add_orthogonal_gradient(generator, self.orthogonal)
        self.encoder_generator_optimizer.step()
        self.encoder_generator_optimizer.zero_grad(set_to_none=True)
        compute_now(batch.x.device)
        return report.values

    def discriminator_forward(self, part: Batch) -> tuple[Tensor, Scores, Scores]:
        """→ L_D and the scores of encoder and generator pairs; what is compiled by `compile`."""
        with torch.no_grad():
            images, latents, classes, _ = self._pairs(part)
        encoder_pairs, generator_pairs = self._scores(images, latents, classes)
        return discriminator_loss(encoder_pairs, generator_pairs, self.form), encoder_pairs, generator_pairs

    def encoder_generator_forward(self, part: Batch) -> tuple[Tensor, Posterior]:
        """→ L_EG and q(z|x); what is compiled by `compile`."""
        images, latents, classes, posterior = self._pairs(part)
        encoder_pairs, generator_pairs = self._scores(images, latents, classes)
        return encoder_generator_loss(encoder_pairs, generator_pairs, self.form), posterior

    def _pairs(self, part: Batch) -> tuple[Tensor, Tensor, Tensor | None, Posterior]:
        """The joined batch of D: encoder pairs (x, ẑ = E(x)), then generator pairs (x̂ = G(z), z)."""
        posterior = self.model.encoder(part.x)
        z_hat = posterior.sample(part.noise)
        x_hat = self.model.generator(part.z, part.z_classes)
        x = pool_to(part.x, self.model.discriminator.image_size)
        classes = None if part.x_classes is None else torch.cat([part.x_classes, part.z_classes])
        return torch.cat([x, x_hat.to(x)]), torch.cat([z_hat, part.z]), classes, posterior

    def _scores(self, images: Tensor, latents: Tensor, classes: Tensor | None) -> tuple[Scores, Scores]:
        scores = self.model.discriminator(images, latents, classes)
        scores = Scores(*(None if term is None else at_least_float32(term) for term in scores))
        return select_terms(scores, self.unary_x, self.unary_z).split(len(images) // 2)


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


def average_gradients(networks: list[nn.Module]) -> None:
    """Average the gradients of `networks` over all processes in one flat all-reduce; every process must hold equal shares."""
    if world_size() == 1:
        return
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    flat = all_reduce(torch.cat([p.grad.flatten() for p in parameters])) / world_size()
    for p, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad.copy_(grad.view_as(p))


def build_optimizers(
    model: BigBiGAN, generator_lr: float, discriminator_lr: float, encoder_lr: float, betas: tuple[float, float], eps: float
) -> tuple[torch.optim.Adam, torch.optim.Adam]:
    """Adam for D, and one Adam for E and G with a rate each."""
    settings = {"betas": tuple(map(float, betas)), "eps": eps}
    # XLA has no fused Adam; there the count of its steps must be a tensor of the graph, or every update compiled anew
    lazy = next(model.parameters()).device.type == "xla"
    settings |= {"capturable": True, "foreach": False} if lazy else {"fused": True}
    discriminator = torch.optim.Adam(model.discriminator.parameters(), lr=discriminator_lr, **settings)
    groups = [
        {"params": list(model.encoder.parameters()), "lr": encoder_lr},
        {"params": list(model.generator.parameters()), "lr": generator_lr},
    ]
    return discriminator, torch.optim.Adam(groups, **settings)
