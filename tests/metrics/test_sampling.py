"""Samples are functions of their index; with truncation G's statistics are measured anew, in a copy."""

import numpy as np
import torch
from torch import nn

from bigbigan.data import to_uint8
from bigbigan.latents import sample_prior, truncate
from bigbigan.metrics.sampling import sampler
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import CrossReplicaBatchNorm


class Normalised(nn.Module):
    """G(z) = tanh of the batch norm of z, as an image of one pixel."""

    latent_dim, classes, image_size = 3, 0, 1

    def __init__(self):
        super().__init__()
        self.norm = CrossReplicaBatchNorm(3)
        self.norm.running_mean += 0.5

    def forward(self, z, classes=None):
        return torch.tanh(self.norm(z))[:, :, None, None]


def latents(purpose, indices, threshold):
    z = sample_prior("normal", 4, purpose, indices, 3)
    return z if threshold is None else truncate(z, threshold, 4, indices)


def test_a_sample_is_that_of_its_index():
    at, model = np.array([7, 2, 300, 301]), BigBiGAN(Normalised().eval(), None, None)
    expected = to_uint8(torch.tanh((latents("sample", at, None) - 0.5) / 1.0001**0.5))
    found = sampler(model, seed=4, batch_size=3)(at)
    assert found.dtype == torch.uint8 and found.shape == (4, 3, 1, 1)
    assert (found[:, :, 0, 0].int() - expected.int()).abs().max() <= 1


def test_a_truncated_sample_has_statistics_of_other_truncated_latents():
    at, model = np.arange(40), BigBiGAN(Normalised().eval(), None, None)
    found = sampler(model, 0.5, 4, statistics_latents=50, batch_size=16)(at)  # the last batch is a short one
    z = latents("statistics", np.arange(50), 0.5)
    scale = (z.var(0, correction=0) + 1e-4).sqrt()
    expected = to_uint8(torch.tanh((latents("sample", at, 0.5) - z.mean(0)) / scale))
    assert (found[:, :, 0, 0].int() - expected.int()).abs().max() <= 1
    assert torch.equal(model.generator.norm.running_mean, torch.full((3,), 0.5)), "the model keeps its own"
    assert not model.generator.training
