"""Measure an encoder beside a generator: reconstruction, the latent round trip, whether D knows its images by heart."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bigbigan.latents import sample_prior
from bigbigan.losses import Scores, select_terms
from bigbigan.losses import decision_boundary as decision_boundary_of
from bigbigan.metrics.reconstruction import error_of_random_pairs, squared_error
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import pool_to


def fit_to(x: Tensor, size: int) -> Tensor:
    """Return images (N, 3, S, S) at another size, (N, 3, size, size): average-pooled down, bilinear up."""
    return pool_to(x, size) if x.shape[-1] >= size else F.interpolate(x, size=(size, size), mode="bilinear")


def with_baseline(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Return the mean squared difference of the rows of a and b, per number, and that of random pairs of rows of a.

    a, b: (N, ...) with N ≥ 2.
    """
    numbers = a[0].numel()
    return float(squared_error(a, b).mean() / numbers), float(error_of_random_pairs(a) / numbers)


@torch.inference_mode()
def there_and_back(model: BigBiGAN, x: Tensor, noise: Tensor, classes: Tensor | None) -> dict[str, Tensor]:
    """Return images, their reconstructions at G's size, and the AvePool features of both.

    x: (N, 3, S, S) at E's size.  noise: (N, Z) ~ N(0, I).  classes: (N,) of x in a conditional model.

    "x", "mean", "sample": images (N, 3, S', S'), reconstructed from the posterior's mean and from a sample of it;
    "x_feat", "mean_feat": (N, C).
    """
    encoder, generator = model.encoder, model.generator
    posterior, avepool = model.infer(x, classes), encoder.avepool(x)
    mean, sample = generator(posterior.mean, classes), generator(posterior.sample(noise), classes)
    features = encoder.avepool(fit_to(mean, encoder.image_size))
    small = fit_to(x, mean.shape[-1])
    return {"x": small, "mean": mean, "sample": sample, "x_feat": avepool, "mean_feat": features}


@torch.inference_mode()
def round_trip(model: BigBiGAN, n: int, seed: int, batch_size: int = 256) -> tuple[Tensor, Tensor, Tensor]:
    """Return z ~ p(z) and the mean of E(G(z)), (n, Z) each, and the images G(z), (n, 3, S, S)."""
    device = next(model.encoder.parameters()).device
    prior = model.prior
    z = sample_prior(prior, seed, "round trip", np.arange(n), model.generator.latent_dim)
    back, images = [], []
    for part, labels in zip(z.split(batch_size), some_classes(model, n, seed).split(batch_size), strict=True):
        classes = labels.to(device) if model.generator.classes else None
        image = model.generator(part.to(device), classes)
        back.append(model.infer(fit_to(image, model.encoder.image_size), classes).mean.cpu())
        images.append(image.float().cpu())
    return z, torch.cat(back), torch.cat(images)


@torch.inference_mode()
def trained_scores(model: BigBiGAN, x: Tensor, z: Tensor, classes: Tensor | None = None) -> Scores:
    """Return D's scores of the pairs x (N, 3, S, S) at D's size and z (N, Z), in float32: the terms that were trained.

    The model's card says which ones; a model that does not say it is taken for one with all three.
    """
    loss = _loss(model)
    scores = model.discriminator(x, z, classes if model.generator.classes else None)
    exact = Scores(*(None if term is None else term.float() for term in scores))
    return select_terms(exact, loss["unary_x"], loss["unary_z"]) if exact.xz is not None else exact


def decision_boundary(model: BigBiGAN, encoder_total: Tensor, n: int = 256, seed: int = 0) -> float:
    """Return the summed score above which D takes a pair for an encoder pair, as its objective has it.

    encoder_total: summed scores of encoder pairs, (N,).  n, seed: of generator pairs, which WGAN-GP's boundary needs.
    """
    form = _loss(model)["form"]
    if form != "wgan_gp":
        return decision_boundary_of(form, encoder_total, encoder_total)
    z = sample_prior(model.prior, seed, "boundary", np.arange(n), model.generator.latent_dim).to(encoder_total.device)
    classes = some_classes(model, n, seed).to(z.device)
    with torch.inference_mode():
        x = model.generator(z, classes if model.generator.classes else None)
        return decision_boundary_of(form, encoder_total, trained_scores(model, x, z, classes).total())


@torch.inference_mode()
def encoder_pair_scores(model: BigBiGAN, x: Tensor, classes: Tensor | None = None) -> Scores:
    """Return D's trained scores of the pairs (x, E(x)), (N,) each; x (N, 3, S, S) at E's size."""
    return trained_scores(model, model.for_discriminator(x), model.infer(x, classes).mean, classes)


def scored_as_encoder_pairs(
    model: BigBiGAN, x: Tensor, classes: Tensor | None = None, boundary: float | None = None
) -> dict[str, float]:
    """Return the shares of the pairs (x, E(x)) that D takes for encoder pairs: by s_x, where it decides, and by Σs.

    x (N, 3, S, S) at E's size.  boundary: of Σs; `decision_boundary` of these pairs if None. s_x decides alone in a
    hinge per score, and where there is no other score; a squared or Wasserstein loss of the sum fixes only the sum.
    Near 100 % for training images beside 50 % for held-out ones is memorising (BigGAN, section 4.2: over 98 % against
    50-55 %).
    """
    scores = encoder_pair_scores(model, x, classes)
    boundary = decision_boundary(model, scores.total()) if boundary is None else boundary
    found = {"sum": share_above(scores.total(), boundary)}
    if scores.x is not None and len(scores.terms()) == 1:
        found["score_x"] = found["sum"]
    elif scores.x is not None and _loss(model)["form"] not in ("lsgan", "wgan_gp"):
        found["score_x"] = share_above(scores.x, 0.0)
    return found


def share_above(scores: Tensor, boundary: float) -> float:
    """Return the share of the scores (N,) above the boundary."""
    return float((scores > boundary).cpu().double().mean())


def _loss(model: BigBiGAN) -> dict:
    """Return form, unary_x and unary_z of the loss by the model's card; those of the paper where it does not say."""
    said = model.card.get("loss")
    return {"form": "hinge", "unary_x": True, "unary_z": True} | (said if isinstance(said, dict) else {})


def some_classes(model: BigBiGAN, n: int, seed: int) -> Tensor:
    """Return (n,) classes for a conditional G, drawn evenly; zeros for an unconditional one."""
    return torch.randint(max(1, model.generator.classes), (n,), generator=torch.Generator().manual_seed(seed))
