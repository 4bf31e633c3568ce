"""Compute losses and penalties from scores: pure functions without networks, configuration or device.

The discriminator gives a pair (x, z) three scores, each (N,): s_x = θ_xᵀF(x), s_z = θ_zᵀH(z), s_xz = θ_xzᵀJ(F(x), H(z))
(BigBiGAN, equations 1-3). y = +1 marks encoder pairs (x, E(x)), y = −1 generator pairs (G(z), z).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Scores(NamedTuple):
    """Hold the three scores of a batch of pairs, (N,) each; a term that the objective leaves out is None."""

    x: Tensor | None
    z: Tensor | None
    xz: Tensor | None

    def terms(self) -> list[Tensor]:
        """Return the scores that are not None."""
        return [term for term in self if term is not None]

    def total(self) -> Tensor:
        """Return the sum of the terms, Σs, (N,)."""
        return torch.stack(self.terms()).sum(0)

    def split(self, first: int) -> tuple["Scores", "Scores"]:
        """Return the scores of the first `first` pairs and those of the rest."""
        halves = [(None, None) if term is None else (term[:first], term[first:]) for term in self]
        return Scores(*(a for a, _ in halves)), Scores(*(b for _, b in halves))


def select_terms(scores: Scores, unary_x: bool = True, unary_z: bool = True, joint: bool = True) -> Scores:
    """Keep the scores of an ablation (BigBiGAN, table 1): "No Unaries" keeps only s_xz, a plain GAN only s_x."""
    return Scores(scores.x if unary_x else None, scores.z if unary_z else None, scores.xz if joint else None)


def hinge(t: Tensor) -> Tensor:
    """Return h(t) = max(0, 1 − t)."""
    return F.relu(1 - t)


def discriminator_loss(
    encoder_pairs: Scores | None, generator_pairs: Scores | None, form: str = "hinge", drift: float = 0.001
) -> Tensor:
    """Return L_D: the mean of ℓ_D over encoder pairs plus its mean over generator pairs (BigBiGAN, equation 4).

    encoder_pairs, generator_pairs: None leaves a kind out; the result is then the other kind's part of the sum.
    form:
      "hinge"        ℓ_D = h(y s_x) + h(y s_z) + h(y s_xz): the paper's, one hinge per score
      "joint_hinge"  ℓ_D = h(y (s_x + s_z + s_xz)): the paper tried it and found it worse
      "logistic"     ℓ_D = −log σ(y Σs): the cross-entropy of BiGAN and ALI on the summed score
      "wgan_gp"      ℓ_D = −y Σs, plus drift · (Σs)² on encoder pairs (Karras et al. 2018, section A.1);
                     `gradient_penalty` is added by the caller
      "lsgan"        (Σs − 1)² on encoder pairs, 0.1 (Σs)² on generator pairs: the published code of Karras et al.,
                     whose targets are 0 for real and 1 for fake; here high scores mean encoder pairs
    """
    kinds = ((encoder_pairs, +1), (generator_pairs, -1))
    return torch.stack([_pair_loss(scores, y, form, drift) for scores, y in kinds if scores is not None]).sum()


def _pair_loss(scores: Scores, y: int, form: str, drift: float) -> Tensor:
    if form == "hinge":
        return torch.stack([hinge(y * term) for term in scores.terms()]).sum(0).mean()
    total = scores.total()
    if form == "joint_hinge":
        return hinge(y * total).mean()
    if form == "logistic":
        return F.softplus(-y * total).mean()
    if form == "wgan_gp":
        loss = -y * total.mean()
        return loss + drift * total.square().mean() if y > 0 else loss
    if form == "lsgan":
        return (total - 1).square().mean() if y > 0 else 0.1 * total.square().mean()
    raise ValueError(f"loss form: expected hinge, joint_hinge, logistic, wgan_gp or lsgan; found {form!r}")


def decision_boundary(form: str, encoder_total: Tensor, generator_total: Tensor) -> float:
    """Return the summed score above which D takes a pair for an encoder pair, half way between its targets.

    0 for the losses with targets of opposite sign; 0.5 for "lsgan", whose targets are 1 and 0; for "wgan_gp", which has
    no targets and leaves the level of the scores open, half way between the mean scores of the two kinds of pairs.
    encoder_total, generator_total: summed scores of encoder pairs and of generator pairs, (N,) and (M,).
    """
    if form == "wgan_gp":
        return float(encoder_total.mean() + generator_total.mean()) / 2
    return 0.5 if form == "lsgan" else 0.0


def inverted_gap(form: str) -> float:
    """Return the mean score of encoder pairs minus that of generator pairs at which D has lost.

    -3 is one margin of the hinge for each of three scores, on the wrong side; -1 for "lsgan", whose targets are then
    exchanged.
    """
    return -1.0 if form == "lsgan" else -3.0


def gradient_penalty(gradients: list[Tensor], weight: float = 10.0, target: float = 1.0) -> Tensor:
    """Return weight/γ² · E[(‖∇Σs‖ − γ)²], the penalty of WGAN-GP (Gulrajani et al. 2017, equation 3).

    gradients: of Σs at points between the two kinds of pairs, (N, ...) each: by the image and, in a joint D, by the
    latent.  target: γ; other values than 1 are from Karras et al. 2018, section A.2.
    """
    norms = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1).norm(dim=1)
    return weight / target**2 * (norms - target).square().mean()


def r1_penalty(scores: Scores, inputs: list[Tensor]) -> Tensor:
    """Return E‖∇D‖², R1 without its strength (Mescheder et al. 2018; BigGAN, section 4.2).

    It is the squared norm of the gradient of D's summed score by its inputs, averaged over the pairs.
    inputs: x and ẑ of encoder pairs, (N, ...) each; a score must depend on its own pair alone, so D must have no batch
    norm. The result can be differentiated with respect to D's weights.
    """
    total = torch.stack(scores.terms()).sum()
    gradients = torch.autograd.grad(total, inputs, create_graph=True, allow_unused=True)
    return torch.stack([g.flatten(1).square().sum(1) for g in gradients if g is not None]).sum(0).mean()


def encoder_generator_loss(encoder_pairs: Scores | None, generator_pairs: Scores | None, form: str = "hinge") -> Tensor:
    """Return L_EG = E[ℓ_EG(x, E(x), +1)] + E[ℓ_EG(G(z), z, −1)] with ℓ_EG = y Σs (BigBiGAN, equation 4).

    The loss is linear, without a hinge: E lowers the scores of its pairs and G raises those of its own.
    encoder_pairs: None for a GAN without E.  generator_pairs: None for E's part of the sum alone.
    form: "logistic" is the non-saturating −log σ(−y Σs) of BiGAN and ALI; "lsgan" the squared distances to D's targets
    for the other kind of pairs; all others are linear.
    """
    kinds = ((encoder_pairs, +1), (generator_pairs, -1))
    return torch.stack([_opposite_loss(s.total(), y, form) for s, y in kinds if s is not None]).sum()


def _opposite_loss(total: Tensor, y: int, form: str) -> Tensor:
    if form == "logistic":
        return F.softplus(y * total).mean()
    if form == "lsgan":
        return (total - (1 if y < 0 else 0)).square().mean()
    return (y * total).mean()


def latent_loss(predicted: Tensor, z: Tensor, bounded: bool) -> Tensor:
    """Return the error of E's prediction of z from the generated image G(z), for BiGAN's latent regressors.

    predicted, z: (N, Z); the error is averaged over images and components.
    bounded: whether both lie in (−1, 1), as with the uniform prior. Then the error is the cross-entropy of (1 + z)/2
    with (1 + predicted)/2, else ½(z − predicted)², as in BiGAN's code.
    """
    if not bounded:
        return (z - predicted).square().mean() / 2
    logits = torch.logit((1 + predicted) / 2, eps=1e-6)
    return (F.softplus(logits) - (1 + z) / 2 * logits).mean()
