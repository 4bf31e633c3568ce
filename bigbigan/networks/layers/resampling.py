"""A 3×3 convolution and the ×2 resampling beside it as one convolution: 16 products a place where the plain form takes
36.

Nearest upsampling repeats pixels, so of the nine taps of a 3×3 kernel on the larger image several meet the same pixel
and may be added beforehand; average pooling adds outputs, whose taps may be added likewise. In both cases the kernel
becomes the full convolution of the 3×3 one with 2×2 ones, 4×4, applied with stride 2: transposed for upsampling,
ordinary for pooling.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def upsampled_conv(x: Tensor, weight: Tensor, bias: Tensor | None, folded: bool = True) -> Tensor:
    """conv3×3(upsample×2(x)), padding 1: x (N, in, H, W), weight (out, in, 3, 3) → (N, out, 2H, 2W)."""
    if not folded:
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    kernel = (
        _summed_taps(weight).flip(2, 3).transpose(0, 1)
    )  # a transposed convolution's kernel is (in, out, 4, 4), mirrored
    return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)


def pooled_conv(x: Tensor, weight: Tensor, bias: Tensor | None, folded: bool = True) -> Tensor:
    """averagepool2(conv3×3(x)), padding 1: x (N, in, H, W) with even H, W, weight (out, in, 3, 3) → (N, out, H/2,
    W/2)."""
    if not folded:
        return F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)
    return F.conv2d(x, _summed_taps(weight) / 4, bias, stride=2, padding=1)


def _summed_taps(weight: Tensor) -> Tensor:
    """The full convolution of each 3×3 kernel with 2×2 ones, (out, in, 4, 4)."""
    tall = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
    return F.pad(tall, (0, 1)) + F.pad(tall, (1, 0))


def pool_to(x: Tensor, size: int) -> Tensor:
    """(N, 3, S, S) → (N, 3, size, size) by average pooling; S a multiple of `size`."""
    factor, remainder = divmod(x.shape[-1], size)
    if remainder or factor == 0:
        raise ValueError(f"expected images whose size is a multiple of {size}, found {tuple(x.shape)}")
    return x if factor == 1 else F.avg_pool2d(x, factor)


def set_folded(network: nn.Module, folded: bool) -> None:
    """Choose the form of every resampling block of `network`: folded, or plain as the papers draw it (equal up to
    rounding)."""
    for layer in network.modules():
        if hasattr(layer, "folded"):
            layer.folded = folded
