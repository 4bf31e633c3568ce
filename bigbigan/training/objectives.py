"""Objectives: what D, E and G are trained for. Each is a part of the step; the formulas stand in `losses`."""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bigbigan.latents import Posterior
from bigbigan.losses import (
    Scores,
    decision_boundary,
    discriminator_loss,
    encoder_generator_loss,
    gradient_penalty,
    latent_loss,
    select_terms,
)
from bigbigan.model import BigBiGAN
from bigbigan.networks.encoder import BOUNDED
from bigbigan.networks.interface import DiscriminatorInterface
from bigbigan.noise import normal_noise, uniforms
from bigbigan.training.batch import Batch
from bigbigan.training.part import Draw, Part, Penalty


class Objective(Part):
    """The paper's hinge per score, or another loss of the scores (BigBiGAN, section 2, equations 1 to 4).

    form: "hinge", "joint_hinge" or "logistic", see `losses.discriminator_loss`.  unary_x, unary_z: keep the terms s_x,
    s_z.
    """

    def __init__(self, form: str = "hinge", unary_x: bool = True, unary_z: bool = True):
        self.form, self.unary_x, self.unary_z = form, unary_x, unary_z

    def select(self, scores: Scores) -> Scores:
        """Return the terms that this objective keeps, in float32 or float64."""
        exact = Scores(*(None if term is None else at_least_float32(term) for term in scores))
        return select_terms(exact, self.unary_x, self.unary_z)

    def discriminator_loss(self, encoder_pairs: Scores | None, generator_pairs: Scores | None) -> Tensor:
        """Return L_D, a scalar: low where D scores encoder pairs high and generator pairs low.

        None leaves a kind out; the result is then the other kind's part of the sum.
        """
        return discriminator_loss(encoder_pairs, generator_pairs, self.form)

    def regularisation(self, encoder_pairs: Scores) -> dict[str, Tensor]:
        """Return the terms of `discriminator_loss` that are not adversarial, by the names they are reported under."""
        return {}

    def boundary(self, encoder_total: Tensor, generator_total: Tensor) -> float:
        """Return the summed score above which D takes a pair for an encoder pair, see `losses.decision_boundary`."""
        return decision_boundary(self.form, encoder_total, generator_total)

    def encoder_generator_loss(self, encoder_pairs: Scores | None, generator_pairs: Scores | None) -> Tensor:
        """Return L_EG, a scalar: low where D is wrong.

        encoder_pairs: None where D sees images alone, or for G's part alone.  generator_pairs: None for E's part.
        """
        return encoder_generator_loss(encoder_pairs, generator_pairs, self.form)


class WGANGP(Objective):
    """The Wasserstein loss with a penalty on D's gradient between the two kinds of pairs (Gulrajani et al. 2017).

    weight: λ.  norm: γ, the norm that the gradient is drawn to.  drift: weight of squared scores (Karras et al. 2018,
    A.1).
    """

    def __init__(
        self,
        unary_x: bool = True,
        unary_z: bool = True,
        weight: float = 10.0,
        norm: float = 1.0,
        drift: float = 0.001,
    ):
        super().__init__("wgan_gp", unary_x, unary_z)
        self.weight, self.norm, self.drift = weight, norm, drift

    def draws(self) -> dict[str, Draw]:
        """Draw (n,) ~ U(0, 1): where between the two pairs of an image the gradient is looked at."""
        return {"mix": lambda seed, places, _: torch.from_numpy(uniforms(seed, "mix", places, 1)[:, 0]).float()}

    def discriminator_loss(self, encoder_pairs: Scores | None, generator_pairs: Scores | None) -> Tensor:
        """Return the Wasserstein loss with its drift term, a scalar."""
        return discriminator_loss(encoder_pairs, generator_pairs, self.form, self.drift)

    def regularisation(self, encoder_pairs: Scores) -> dict[str, Tensor]:
        """Return the drift term, the weighted mean of the squared scores of encoder pairs."""
        return {"drift": self.drift * encoder_pairs.total().detach().square().mean()} if self.drift else {}

    def penalties(self, step, pairs, batch: Batch, number: int) -> list[Penalty]:
        """Return λ/γ² · E[(‖∇Σs‖ − γ)²] at points between the encoder pairs and the generator pairs."""
        (x, z_hat, classes, _), (x_hat, z, *_) = pairs.halves()
        points = []
        for encoder_side, generator_side in ((x, x_hat), (z_hat, z)):
            if encoder_side is not None:
                share = batch.extra["mix"].view(-1, *[1] * (encoder_side.ndim - 1)).to(x)
                point = encoder_side.detach().to(x).lerp(generator_side.detach().to(x), share)
                points.append(point.requires_grad_())
        with sdpa_kernel(SDPBackend.MATH):  # the one attention that has second derivatives
            total = self.select(step.model.discriminator(*points, classes=classes)).total()
            gradients = torch.autograd.grad(total.sum(), points, create_graph=True, allow_unused=True)
            found = [gradient for gradient in gradients if gradient is not None]
            return [Penalty("gradient_penalty", gradient_penalty(found, self.weight, self.norm))]


class LSGAN(Objective):
    """Least squares, with noise in D that grows with D's confidence (Karras et al. 2018, section B)."""

    def __init__(self, discriminator: DiscriminatorInterface, unary_x: bool = True, unary_z: bool = True):
        super().__init__("lsgan", unary_x, unary_z)
        self.discriminator, self.width = discriminator, discriminator.noise_width

    def draws(self) -> dict[str, Draw]:
        """Draw (n, 2, width) ~ N(0, 1): the noise in D for the two pairs of an image."""

        def draw(seed, places, suffix):
            return normal_noise(seed, f"drop{suffix}", places, 2 * self.width).unflatten(1, (2, self.width))

        return {"drop": draw}

    def noise(self, batch: Batch) -> Tensor | None:
        """Return what `draws` drew."""
        return batch.extra.get("drop")

    def report(self, encoder_pairs: Scores, generator_pairs: Scores, batch: Batch) -> dict[str, Tensor]:
        """Report 1 − the mean score of generated images: 1 where D is sure of them."""
        return {"confidence_d": 1 - generator_pairs.total().mean()} if "drop" in batch.extra else {}

    def after(self, values: dict[str, Tensor], broken: Tensor, images: int) -> dict[str, Tensor]:
        """Let the strength of D's noise follow this update's confidence."""
        if "confidence_d" in values:
            trunk = self.discriminator.f
            trunk.follow(torch.where(broken == 0, values["confidence_d"], trunk.confidence))
        return {}


class Joint:
    """How E takes part: D sees pairs (x, E(x)) and (G(z), z), and E is trained by D's scores (BigBiGAN, BiGAN, ALI).

    Without E, a GAN: D sees images alone.
    """

    def latents(self, model: BigBiGAN, batch: Batch) -> tuple[Posterior | None, Tensor | None]:
        """Return q(z|x), and the latents (2n, Z) of D's joined batch, ẑ = E(x) first; None for what D does not see."""
        if model.encoder is None:
            return None, None
        posterior = model.infer(batch.x, batch.x_classes)
        return posterior, torch.cat([posterior.sample(batch.noise), batch.z])

    def complete(
        self, loss: Tensor, posterior: Posterior | None, pairs, batch: Batch, model: BigBiGAN
    ) -> tuple[Tensor, Posterior | None, dict[str, Tensor]]:
        """Return L_EG, q(z|·), and by name what L_EG holds beside D's scores: nothing here.

        pairs: D's joined batch, see `step.Pairs`.
        """
        return loss, posterior, {}


class LatentRegressor(Joint):
    """E is trained to tell z from G(z), and D sees images alone (Donahue et al. 2017, section 4.1: LR and JLR).

    weight: of E's error in G's loss: 0 for the latent regressor, 0.25 for the joint one.
    """

    def __init__(self, weight: float = 0.0):
        self.weight = weight

    def latents(self, model: BigBiGAN, batch: Batch) -> tuple[None, None]:
        """Return no latents: D does not see them."""
        return None, None

    def complete(
        self, loss, posterior, pairs, batch: Batch, model: BigBiGAN
    ) -> tuple[Tensor, Posterior, dict[str, Tensor]]:
        """Add E's error in telling z from G(z), which reaches G with its weight."""
        x_hat = pairs.halves()[1].images
        seen = x_hat.detach().lerp(x_hat, self.weight)  # x̂, with its gradient times the weight
        posterior = model.infer(seen, batch.z_classes)
        error = latent_loss(posterior.mean, batch.z, model.encoder.posterior in BOUNDED)
        return loss + error, posterior, {"loss_latent": error}


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 if it is that."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
