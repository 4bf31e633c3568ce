"""Measure an encoder beside a generator: reconstruction, the latent round trip, whether D knows its images by heart."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bigbigan.latents import sample_prior
from bigbigan.metrics.reconstruction import squared_error
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import pool_to


def fit_to(x: Tensor, size: int) -> Tensor:
    """Return images (N, 3, S, S) at another size, (N, 3, size, size): average-pooled down, bilinear up."""
    return pool_to(x, size) if x.shape[-1] >= size else F.interpolate(x, size=(size, size), mode="bilinear")


def with_baseline(a: Tensor, b: Tensor, repeats: int = 10, seed: int = 0) -> tuple[float, float]:
    """Return the mean squared difference of the rows of a and b, per number, and that of random pairs of rows of a.

    a, b: (N, ...) with N ≥ 2.
    """
    generator = torch.Generator().manual_seed(seed)
    numbers = a[0].numel()
    pairs = []
    for _ in range(repeats):
        order = torch.randperm(len(a), generator=generator).to(a.device)
        pairs.append(squared_error(a[order], a[order.roll(1)]).mean() / numbers)
    return float(squared_error(a, b).mean() / numbers), float(torch.stack(pairs).mean())


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
def scored_as_encoder_pairs(model: BigBiGAN, x: Tensor, classes: Tensor | None = None) -> dict[str, float]:
    """Return the shares of pairs (x, E(x)) that D takes for encoder pairs.

    They are judged by the sign of s_x, if D has one, and of the sum of all scores.

    x (N, 3, S, S) at E's size. Near 100 % for training images beside 50 % for held-out ones is memorising (BigGAN,
    section 4.2: over 98 % against 50-55 %).
    """
    scores = model.discriminate(x, model.infer(x, classes).mean, classes)
    found = {name: scores[name] for name in ("score_x",) if name in scores} | {
        "sum": torch.stack(list(scores.values())).sum(0)
    }
    return {name: float((score > 0).double().mean()) for name, score in found.items()}


def some_classes(model: BigBiGAN, n: int, seed: int) -> Tensor:
    """Return (n,) classes for a conditional G, drawn evenly; zeros for an unconditional one."""
    return torch.randint(max(1, model.generator.classes), (n,), generator=torch.Generator().manual_seed(seed))
