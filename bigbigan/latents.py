"""Sample latents: the priors p(z), E's posterior q(z|x), and BigGAN's truncation."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bigbigan.noise import normal_noise, uniforms

# The priors p(z): the first two are BigBiGAN's, the rest BigGAN's appendix E.
PRIORS = {
    "normal": "N(0, I)",
    "uniform": "U(−1, 1)",
    "bernoulli": "0 or 1, each with probability 1/2",
    "signed_bernoulli": "−1 or 1",
    "categorical": "−1, 0 or 1",
    "censored_normal": "max(N(0, I), 0)",
    "sparse_normal": "N(0, I) times a Bernoulli variable of 0 or 1",
    "normal_bernoulli": "the first half (or one more) N(0, I), the second Bernoulli of 0 or 1",
    "variable_normal": "N(0, σ² I) with a σ ~ U(0.5, 1.5) of each sample",
}


class Posterior(NamedTuple):
    """Hold the posterior of the stochastic encoder: z ~ N(mean, diag(stddev²)). mean, stddev: (N, Z); stddev ≥ 0."""

    mean: Tensor
    stddev: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Return z = mean + noise · stddev, (N, Z). noise: (N, Z) from N(0, I) (BigBiGAN, section 2)."""
        return self.mean + noise * self.stddev


def sample_prior(prior: str, seed: int, purpose: str, indices: np.ndarray, width: int) -> Tensor:
    """Draw latents from p(z): float32 (len(indices), width) on the CPU (BigBiGAN, section 3.1; BigGAN, appendix E).

    prior: one of `PRIORS`.  indices: places of the samples; a row depends on (seed, purpose, its index) alone.
    """
    if prior not in PRIORS:
        raise ValueError(f"prior: expected one of {', '.join(PRIORS)}; found {prior!r}")
    if prior == "normal":
        return normal_noise(seed, purpose, indices, width)
    u = torch.from_numpy(uniforms(seed, purpose, indices, width))
    if prior == "uniform":
        return (2 * u - 1).float()
    if prior == "bernoulli":
        return (u >= 0.5).float()
    if prior == "signed_bernoulli":
        return 2 * (u >= 0.5).float() - 1
    if prior == "categorical":
        return (3 * u).floor().float() - 1
    normal = torch.special.ndtri(u).float()
    if prior == "censored_normal":
        return normal.clamp(min=0)
    other = torch.from_numpy(uniforms(seed, f"{purpose}, {prior}", indices, width))  # independent of u
    if prior == "sparse_normal":
        return normal * (other >= 0.5)
    if prior == "normal_bernoulli":
        half = (width + 1) // 2
        return torch.cat([normal[:, :half], (other[:, half:] >= 0.5).float()], dim=1)
    return normal * (0.5 + other[:, :1]).float()  # variable_normal


def truncate(z: Tensor, threshold: float, seed: int, indices: np.ndarray | None = None) -> Tensor:
    """Redraw the components of z ~ N(0, I) whose magnitude exceeds `threshold` (BigGAN's truncation trick).

    BigGAN redraws until none exceeds it; one draw by inversion from N(0, 1) cut at ±threshold has the same law.
    z: float32 (N, Z); returns the same shape.  indices: places of the rows among all samples, (N,); None for 0 … N − 1.
    """
    if not threshold > 0:
        raise ValueError(f"truncation: expected a threshold above 0, found {threshold}")
    u = torch.from_numpy(uniforms(seed, "truncation", np.arange(len(z)) if indices is None else indices, z.shape[1]))
    low = torch.special.ndtr(torch.tensor(-float(threshold), dtype=torch.float64))
    redrawn = torch.special.ndtri(low + u * (1 - 2 * low)).to(z)
    return torch.where(z.abs() > threshold, redrawn, z)
