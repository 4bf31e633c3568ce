"""The building blocks of G, F, H, J and of E's head: residual blocks, self-attention, residual MLPs."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.networks.layers.norm import ConditionalBatchNorm
from bigbigan.networks.layers.resampling import pooled_conv, upsampled_conv
from bigbigan.networks.layers.spectral import SNConv2d, SNLinear


class GeneratorBlock(nn.Module):
    """BigGAN's residual block of G: CBN-ReLU-upsample-conv3×3-CBN-ReLU-conv3×3 plus upsample-conv1×1.

    (1809.11096, figure 15; nearest-neighbour upsampling.)  classes: the number of classes of its batch norms' tables.
    forward: x (N, in, H, W), condition (N, K), labels (N,) for the tables → (N, out, 2H, 2W).
    """

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int, classes: int = 0):
        super().__init__()
        self.norm1 = ConditionalBatchNorm(in_channels, condition_dim, classes=classes)
        self.conv1 = SNConv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = ConditionalBatchNorm(out_channels, condition_dim, classes=classes)
        self.conv2 = SNConv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = SNConv2d(in_channels, out_channels, 1)
        self.folded = True  # see `resampling`

    def forward(self, x: Tensor, condition: Tensor, labels: Tensor | None = None) -> Tensor:
        h = F.relu(self.norm1(x, condition, labels))
        h = upsampled_conv(h, self.conv1.normalised_weight(), self.conv1.bias, self.folded)
        h = self.conv2(F.relu(self.norm2(h, condition, labels)))
        # A 1×1 convolution commutes with nearest upsampling: a quarter of the work before it.
        return h + F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")


class DiscriminatorBlock(nn.Module):
    """BigGAN's residual block of D: (ReLU)-conv3×3-ReLU-conv3×3-(average pool), spectrally normalised.

    first: the first block of a network takes pixels, so it has no first ReLU.
    forward: x (N, in, H, W) → (N, out, H/2, W/2) with `downsample`, else (N, out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, downsample: bool, first: bool = False):
        super().__init__()
        self.downsample, self.first = downsample, first
        self.folded = True  # see `resampling`
        self.conv1 = SNConv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = SNConv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = SNConv2d(in_channels, out_channels, 1) if in_channels != out_channels or downsample else None

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else F.relu(x)
        h = F.relu(self.conv1(h))
        if self.downsample:
            h = pooled_conv(h, self.conv2.normalised_weight(), self.conv2.bias, self.folded)
            x = F.avg_pool2d(x, 2)  # which commutes with a 1×1 convolution, so the shortcut pools first
        else:
            h = self.conv2(h)
        return h + (x if self.shortcut is None else self.shortcut(x))


class SelfAttention(nn.Module):
    """Self-attention of SAGAN (1805.08318): out = x + γ·o, with γ = 0 at first.

    As in SAGAN's code, keys and values are max-pooled 2×2.
    forward: (N, C, H, W) → the same shape; H and W even, C a multiple of 8.
    """

    def __init__(self, channels: int):
        super().__init__()
        if channels % 8:
            raise ValueError(
                f"self-attention: expected a multiple of 8 channels, found {channels}; change the width, or leave it "
                "out"
            )
        self.query = SNConv2d(channels, channels // 8, 1, bias=False)  # theta
        self.key = SNConv2d(channels, channels // 8, 1, bias=False)  # phi
        self.value = SNConv2d(channels, channels // 2, 1, bias=False)  # g
        self.output = SNConv2d(channels // 2, channels, 1, bias=False)  # o
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2).mT[:, None]  # (N, 1 head, HW, C/8)
        key = F.max_pool2d(self.key(x), 2).flatten(2).mT[:, None]  # (N, 1, HW/4, C/8)
        value = F.max_pool2d(self.value(x), 2).flatten(2).mT[:, None]  # (N, 1, HW/4, C/2)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # SAGAN does not scale by 1/√d
        return x + self.gamma * self.output(mixed[:, 0].mT.unflatten(2, x.shape[2:]))


class ResidualMLP(nn.Module):
    """The MLP of H, J and E's head: residual blocks of two linear layers (BigBiGAN, section 2).

    A block is shortcut(h) + W₂ ReLU(W₁ ReLU(h)); the first has no first ReLU, since it takes raw inputs. The shortcut
    is a linear projection where the width changes, else the identity. A last ReLU makes the output a feature.
    layers: an even number; 8 in H and J and 4 in E in the paper.  layer: builds a linear layer from its two sizes;
        SNLinear, spectrally normalised or not, by default.
    forward: (N, in) → (N, width).
    """

    def __init__(
        self, in_features: int, width: int, layers: int, spectral_norm: bool = False, layer: Callable | None = None
    ):
        super().__init__()
        layer = layer or partial(SNLinear, spectral_norm=spectral_norm)
        if layers % 2:
            raise ValueError(f"ResidualMLP expected an even number of layers (blocks of two), found {layers}")
        widths = [in_features] + [width] * (layers // 2)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "linear1": layer(before, width),
                    "linear2": layer(width, width),
                }
                | ({"shortcut": layer(before, width)} if before != width else {})
            )
            for before in widths[:-1]
        )

    def forward(self, h: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            inner = block["linear1"](h if i == 0 else F.relu(h))
            h = (block["shortcut"](h) if "shortcut" in block else h) + block["linear2"](F.relu(inner))
        return F.relu(h)
