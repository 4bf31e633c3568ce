"""BigGAN-deep's residual blocks (1809.11096, figure 16): bottlenecks of a quarter of the channels beside identities."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.networks.layers.norm import ConditionalBatchNorm
from bigbigan.networks.layers.resampling import upsampled_conv
from bigbigan.networks.layers.spectral import SNConv2d

ARCHITECTURES = ("biggan", "biggan_deep")
RATIO = 4  # of a block's width to that of its bottleneck


def is_deep(architecture: str) -> bool:
    """Return whether an architecture is BigGAN-deep; ValueError for a name that is none of `ARCHITECTURES`."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture: expected one of {', '.join(ARCHITECTURES)}; found {architecture!r}")
    return architecture == "biggan_deep"


class DeepGeneratorBlock(nn.Module):
    """G's block: CBN-ReLU-conv1×1, CBN-ReLU-(upsample)-conv3×3, CBN-ReLU-conv3×3, CBN-ReLU-conv1×1, plus a shortcut.

    The shortcut is the first `out_channels` channels of x.
    forward: x (N, in, H, W), condition (N, K) → (N, out, 2H, 2W) with `upsample`, else (N, out, H, W); out ≤ in.
    """

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int, upsample: bool):
        super().__init__()
        inner = max(1, in_channels // RATIO)
        self.out_channels, self.upsample = out_channels, upsample
        self.norm1 = ConditionalBatchNorm(in_channels, condition_dim)
        self.conv1 = SNConv2d(in_channels, inner, 1)
        self.norm2 = ConditionalBatchNorm(inner, condition_dim)
        self.conv2 = SNConv2d(inner, inner, 3, padding=1)
        self.norm3 = ConditionalBatchNorm(inner, condition_dim)
        self.conv3 = SNConv2d(inner, inner, 3, padding=1)
        self.norm4 = ConditionalBatchNorm(inner, condition_dim)
        self.conv4 = SNConv2d(inner, out_channels, 1)
        self.folded = True  # see `resampling`

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x, condition)))
        h = F.relu(self.norm2(h, condition))
        h = (
            upsampled_conv(h, self.conv2.normalised_weight(), self.conv2.bias, self.folded)
            if self.upsample
            else self.conv2(h)
        )
        h = self.conv3(F.relu(self.norm3(h, condition)))
        h = self.conv4(F.relu(self.norm4(h, condition)))
        x = x[:, : self.out_channels]
        return h + (F.interpolate(x, scale_factor=2, mode="nearest") if self.upsample else x)


class DeepDiscriminatorBlock(nn.Module):
    """D's block: ReLU-conv1×1, ReLU-conv3×3, ReLU-conv3×3, ReLU-(average pool)-conv1×1, plus a shortcut.

    The shortcut is x, average-pooled likewise, and a conv1×1 of it for the channels that x lacks.
    forward: x (N, in, H, W) → (N, out, H/2, W/2) with `downsample`, else (N, out, H, W); out ≥ in.
    """

    def __init__(self, in_channels: int, out_channels: int, downsample: bool):
        super().__init__()
        inner = max(1, out_channels // RATIO)
        self.downsample = downsample
        self.conv1 = SNConv2d(in_channels, inner, 1)
        self.conv2 = SNConv2d(inner, inner, 3, padding=1)
        self.conv3 = SNConv2d(inner, inner, 3, padding=1)
        self.conv4 = SNConv2d(inner, out_channels, 1)
        self.added = SNConv2d(in_channels, out_channels - in_channels, 1) if out_channels > in_channels else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(x))
        h = self.conv2(F.relu(h))
        h = F.relu(self.conv3(F.relu(h)))
        if self.downsample:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if self.added is not None:
            x = torch.cat([x, self.added(x)], dim=1)
        return self.conv4(h) + x
