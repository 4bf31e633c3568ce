"""Layers of Progressive GAN (Karras et al. 2018, 1710.10196), each usable in any network here.

Equalised learning rate and pixelwise normalisation: section 4; minibatch standard deviation: section 3; minibatch
discrimination (Salimans et al. 2016), which the paper compares with it: table 1, row (e*).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.distributed.collectives import gather_batch, scatter_batch

GAIN = math.sqrt(2)  # He's gain of a layer before a ReLU


class EqualisedConv2d(nn.Conv2d):
    """A convolution whose weights w ~ N(0, 1) are multiplied by c = gain/√fan_in at run time (section 4.1).

    Adam's steps do not depend on a gradient's scale, so every layer then learns at the same relative rate.
    equalised: False: no factor at run time, and initial weights w ~ N(0, c²) as usual.
    """

    def __init__(self, in_channels, out_channels, kernel_size, padding=0, bias=True, *, gain=GAIN, equalised=True):
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, bias=bias)
        self.scale = _initialise(self, gain / math.sqrt(in_channels * kernel_size**2), equalised)

    def scaled_weight(self) -> Tensor:
        return self.weight * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.scaled_weight(), self.bias, padding=self.padding)


class EqualisedLinear(nn.Linear):
    """A linear layer with an equalised learning rate, see `EqualisedConv2d`: (N, in) → (N, out)."""

    def __init__(self, in_features, out_features, bias=True, *, gain=GAIN, equalised=True):
        super().__init__(in_features, out_features, bias=bias)
        self.scale = _initialise(self, gain / math.sqrt(in_features), equalised)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


def _initialise(layer: nn.Module, constant: float, equalised: bool) -> float:
    """Draw normal weights, set biases to 0, and return the factor of the weights at run time."""
    nn.init.normal_(layer.weight, std=1.0 if equalised else constant)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return constant if equalised else 1.0


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Scale every place's feature vector to the length √C: x/√(mean over channels of x² + eps) (section 4.2).

    x: (N, C, ...) → the same shape.
    """
    exact = x if x.dtype == torch.float64 else x.float()
    return x * (exact.square().mean(1, keepdim=True) + eps).rsqrt().to(x.dtype)


class ChannelLayerNorm(nn.Module):
    """Layer norm over all values of an image, with one gain and a bias for each channel.

    As in the paper's WGAN-GP baseline (table 1, rows (a) to (c)).  forward: (N, C, H, W) → the same shape; any H, W.
    """

    def __init__(self, channels: int, eps: float = 1e-4):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return (F.layer_norm(x, x.shape[1:], eps=self.eps) * self.weight + self.bias[:, None, None]).to(x.dtype)


class MinibatchStddev(nn.Module):
    """Append a channel that says how much the images of a minibatch differ, the same value everywhere (section 3).

    The value is √(variance over the images + 1e-8), averaged over channels and places.
    group: images compared with each other, 0 for the whole minibatch (the paper); with M = N/group, images n, n + M,
        n + 2M, ... form a group. The minibatch is that of all processes together.
    forward: (N, C, H, W) → (N, C + 1, H, W). Raises ValueError if the groups do not divide the minibatch.
    """

    def __init__(self, group: int = 0):
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        joined = gather_batch(x if x.dtype == torch.float64 else x.float())
        size = min(self.group or len(joined), len(joined))
        if len(joined) % size:
            raise ValueError(
                f"minibatch standard deviation: expected a multiple of its groups of {size}, found {len(joined)} images"
            )
        grouped = joined.unflatten(0, (size, -1))  # (group, M, C, H, W)
        stddev = (grouped.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))  # (M,)
        channel = scatter_batch(stddev.repeat(size)).to(x.dtype)  # (N,)
        return torch.cat([x, channel[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1)


class MinibatchDiscrimination(nn.Module):
    """Append `kernels` numbers that say how close an image's feature is to those of the others.

    Number k of image n is Σ_{m ≠ n} exp(−‖M_n,k − M_m,k‖₁) + b_k with M = x·T, where T's columns have unit length
    times a learned scale. The minibatch is that of all processes together. Scales begin at 1 and b at −1; the
    published code fits them to 500 images.
    forward: (N, C) → (N, C + kernels).
    """

    def __init__(self, features: int, kernels: int = 100, dim: int = 5):
        super().__init__()
        self.weight = nn.Parameter(0.05 * torch.randn(features, kernels, dim))
        self.log_scale = nn.Parameter(torch.zeros(kernels, dim))
        self.bias = nn.Parameter(-torch.ones(kernels))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.log_scale.exp() / self.weight.norm(dim=0)
        projected = torch.einsum("nc,ckd->nkd", gather_batch(x), weight.to(x.dtype))
        distance = (projected[:, None] - projected[None]).abs().sum(3)  # (N, N, kernels)
        others = 1 - torch.eye(len(distance), device=x.device, dtype=x.dtype)
        closeness = scatter_batch((torch.exp(-distance) * others[..., None]).sum(1))
        return torch.cat([x, closeness + self.bias], dim=1)
