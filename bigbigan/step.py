"""One D update, one E+G update (BigBiGAN, section 2): who is frozen, what is detached, one backward a chunk, one all-reduce."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigbigan.data import RealImages, to_signed
from bigbigan.latents import normal_noise, sample_prior, uniforms
from bigbigan.layers import advance_power_iteration, all_reduce, record_statistics, world_size
from bigbigan.losses import Scores, discriminator_loss, encoder_generator_loss, gradient_penalty, select_terms
from bigbigan.model import BigBiGAN, pool_to

ENCODER_MOMENTUM = 0.1  # of E's running statistics, once per E+G update


@dataclass
class Batch:
    """What one update consumes on this process: n fresh images and their share of the run's random numbers.

    x: (n, 3, S, S) in [−1, 1] at E's size.  z: (n, Z) ~ p(z).  noise: (n, Z) ~ N(0, I) for ẑ = E(x).
    x_classes, z_classes: (n,) of a conditional model, else None.  mix: (n,) ~ U(0, 1), where between the two pairs WGAN-GP looks.
    drop: (n, 2, C) ~ N(0, 1), the noise in D of LSGAN for the two pairs.
    """

    x: Tensor
    z: Tensor
    noise: Tensor
    x_classes: Tensor | None = None
    z_classes: Tensor | None = None
    mix: Tensor | None = None
    drop: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def chunks(self, parts: int) -> Iterator["Batch"]:
        columns = (self.x, self.z, self.noise, self.x_classes, self.z_classes, self.mix, self.drop)
        pieces = [[None] * parts if column is None else column.tensor_split(parts) for column in columns]
        return (Batch(*piece) for piece in zip(*pieces, strict=True))


def draw_batch(
    real: RealImages, seed: int, prior: str, latent_dim: int, classes: int, device: torch.device, drop: int = 0, purpose: str = ""
) -> Batch:
    """Real images and their share of the run's random numbers, which depend on the images' places in the run alone.

    drop: channels of D that take noise.  purpose: tells apart several batches of the same places.
    """
    places = real.positions
    z = sample_prior(prior, seed, f"z{purpose}", places, latent_dim)
    noise = normal_noise(seed, "posterior", places, latent_dim)
    x_classes = z_classes = None
    if classes:
        x_classes = real.labels
        z_classes = torch.from_numpy(uniforms(seed, "classes", places, 1)[:, 0] * classes).long().to(device)
    mix = torch.from_numpy(uniforms(seed, "mix", places, 1)[:, 0]).float().to(device)
    noises = normal_noise(seed, f"drop{purpose}", places, 2 * drop).unflatten(1, (2, drop)).to(device) if drop else None
    x = to_signed(real.x).contiguous(memory_format=torch.channels_last)
    return Batch(x, z.to(device), noise.to(device), x_classes, z_classes, mix, noises)


class Step:
    """The two updates of a BigBiGAN, or of a GAN without E, H and J.

    optimizers: Adam for D alone, and one Adam for E and G together.  chunks: parts a batch is computed in.
    autocast: a function that returns a context for the forwards (Accelerate's), or None.
    penalty, gradient_norm, drift: of the form "wgan_gp", see `losses`.
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
        penalty: float = 10.0,
        gradient_norm: float = 1.0,
        drift: float = 0.001,
    ):
        self.model, self.chunks, self.form = model, chunks, form
        self.discriminator_optimizer = discriminator_optimizer
        self.encoder_generator_optimizer = encoder_generator_optimizer
        self.unary_x, self.unary_z = unary_x, unary_z
        self.autocast = autocast or nullcontext
        self.penalty, self.gradient_norm, self.drift = penalty, gradient_norm, drift

    def discriminator_update(self, batch: Batch) -> dict[str, Tensor]:
        """D: raise the scores of (x, E(x)), lower those of (G(z), z). E and G stand still and keep no graph."""
        discriminator = self.model.discriminator
        advance_power_iteration(discriminator)
        discriminator.requires_grad_(True)
        report = Report()
        for part in batch.chunks(self.chunks):
            with self.autocast():
                with torch.no_grad():
                    pairs = self._pairs(part)
                encoder_pairs, generator_pairs = self._scores(*pairs, part.drop)
                loss = discriminator_loss(encoder_pairs, generator_pairs, self.form, self.drift)
                if self.form == "wgan_gp":
                    loss = loss + self._penalty(*pairs, part.mix)
            share = len(part) / len(batch)
            (loss * share).backward()
            report.add("loss_d", loss, share)
            report.add_scores(encoder_pairs, generator_pairs, share)
            if part.drop is not None:
                report.add("confidence_d", 1 - generator_pairs.total().mean(), share)
        if "confidence_d" in report.values:
            discriminator.f.follow(all_reduce(report.values["confidence_d"].clone()) / world_size())
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
        report = Report()
        with record_statistics(encoder or nn.Identity()) as statistics:
            for part in batch.chunks(self.chunks):
                with self.autocast():
                    pairs = self._pairs(part, report, len(part) / len(batch))
                    encoder_pairs, generator_pairs = self._scores(*pairs, part.drop)
                    loss = encoder_generator_loss(encoder_pairs if encoder else None, generator_pairs, self.form)
                share = len(part) / len(batch)
                (loss * share).backward()
                report.add("loss_eg", loss, share)
        statistics.move(ENCODER_MOMENTUM)
        average_gradients([net for net in (generator, encoder) if net is not None])
        self.encoder_generator_optimizer.step()
        self.encoder_generator_optimizer.zero_grad(set_to_none=True)
        compute_now(batch.x.device)
        return report.values

    def _pairs(self, part: Batch, report: "Report | None" = None, share: float = 1.0):
        """The joined batch of D: encoder pairs (x, ẑ = E(x)), then generator pairs (x̂ = G(z), z); no latents without E."""
        z_hat = None
        if self.model.encoder is not None:
            posterior = self.model.encoder(part.x)
            z_hat = posterior.sample(part.noise)
            if report is not None:
                report.add("posterior_stddev", posterior.stddev.mean(), share)
                report.add("posterior_mean_square", posterior.mean.square().mean(), share)
        x_hat = self.model.generator(part.z, part.z_classes)
        latents = None if z_hat is None else torch.cat([z_hat, part.z])
        x = pool_to(part.x, self.model.discriminator.image_size)
        classes = None if part.x_classes is None else torch.cat([part.x_classes, part.z_classes])
        return torch.cat([x, x_hat.to(x)]), latents, classes

    def _scores(
        self, images: Tensor, latents: Tensor | None, classes: Tensor | None, drop: Tensor | None = None
    ) -> tuple[Scores, Scores]:
        discriminator, n = self.model.discriminator, len(images) // 2
        if drop is None and not getattr(discriminator, "across", False):
            return self._selected(discriminator(images, latents, classes)).split(n)
        # Where D compares the images of a minibatch, those of one kind with each other.
        halves = [[None, None] if t is None else t.chunk(2) for t in (images, latents, classes)]
        noises = [{}, {}] if drop is None else [{"drop": noise} for noise in drop.unbind(1)]
        first, second = (self._selected(discriminator(*half, **noise)) for *half, noise in zip(*halves, noises, strict=True))
        return first, second

    def _selected(self, scores: Scores) -> Scores:
        exact = Scores(*(None if term is None else at_least_float32(term) for term in scores))
        return select_terms(exact, self.unary_x, self.unary_z)

    def _penalty(self, images: Tensor, latents: Tensor | None, classes: Tensor | None, mix: Tensor) -> Tensor:
        """WGAN-GP: D's gradient at points between the encoder pairs and the generator pairs, with a graph through it."""
        points = []
        for joined in (images, latents):
            if joined is not None:
                encoder_side, generator_side = joined.detach().chunk(2)
                share = mix.view(-1, *[1] * (joined.ndim - 1)).to(joined)
                points.append(encoder_side.lerp(generator_side, share).requires_grad_())
        total = self._selected(self.model.discriminator(*points, classes=None if classes is None else classes.chunk(2)[0])).total()
        gradients = torch.autograd.grad(total.sum(), points, create_graph=True, allow_unused=True)
        return gradient_penalty(
            [at_least_float32(g) for g in gradients if g is not None], self.penalty, self.gradient_norm
        )  # fmt: skip


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
    # What had no part in the update (a resolution not reached yet) has no gradient, on any process, and Adam leaves it alone.
    parameters = [p for network in networks for p in network.parameters() if p.grad is not None]
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
        {"params": list(network.parameters()), "lr": rate}
        for network, rate in ((model.encoder, encoder_lr), (model.generator, generator_lr))
        if network is not None
    ]
    return discriminator, torch.optim.Adam(groups, **settings)
