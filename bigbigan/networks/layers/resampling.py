"""A 3×3 convolution and the ×2 resampling next to it, computed as one convolution with 16 products a place, not 36.

Nearest upsampling repeats pixels, so several of the nine taps of a 3×3 kernel on the larger image meet the same pixel
and can be added beforehand; average pooling adds outputs, whose taps can be added likewise. In both cases the kernel
becomes 4×4, the full convolution of the 3×3 one with 2×2 ones, applied with stride 2: transposed for upsampling,
ordinary for pooling.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def upsampled_conv(x: Tensor, weight: Tensor, bias: Tensor | None, folded: bool = True) -> Tensor:
    """Return conv3×3(upsample×2(x)), padding 1: x (N, in, H, W), weight (out, in, 3, 3) → (N, out, 2H, 2W).

    folded: False computes it as written.
    """
    if not folded:
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    kernel = _summed_taps(weight).flip(2, 3).transpose(0, 1)  # a transposed convolution's: (in, out, 4, 4), mirrored
    return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)


def pooled_conv(x: Tensor, weight: Tensor, bias: Tensor | None, folded: bool = True) -> Tensor:
    """Return averagepool2(conv3×3(x)), padding 1: x (N, in, H, W), weight (out, in, 3, 3) → (N, out, H/2, W/2).

    H and W even.  folded: False computes it as written.
    """
    if not folded:
        return F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)
    return F.conv2d(x, _summed_taps(weight) / 4, bias, stride=2, padding=1)


def _summed_taps(weight: Tensor) -> Tensor:
    """Return the full convolution of each 3×3 kernel with 2×2 ones, (out, in, 4, 4)."""
    tall = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
    return F.pad(tall, (0, 1)) + F.pad(tall, (1, 0))


def pool_to(x: Tensor, size: int) -> Tensor:
    """Average-pool x (N, 3, S, S) to (N, 3, size, size); ValueError if S is not a multiple of `size`."""
    factor, remainder = divmod(x.shape[-1], size)
    if remainder or factor == 0:
        raise ValueError(f"expected images whose size is a multiple of {size}, found {tuple(x.shape)}")
    return x if factor == 1 else F.avg_pool2d(x, factor)


def set_folded(network: nn.Module, folded: bool) -> None:
    """Choose how resampling blocks of `network` compute: folded, or as the papers draw them (equal up to rounding)."""
    for layer in network.modules():
        if hasattr(layer, "folded"):
            layer.folded = folded
