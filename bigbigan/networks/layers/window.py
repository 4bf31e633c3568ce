"""A convolution that spares what a small map does not need."""

import torch.nn.functional as F
from torch import Tensor, nn


class WindowConv2d(nn.Conv2d):
    """A convolution that leaves out the part of its kernel that meets nothing but padding.

    Where the output is a single place, that place is one product of the map and the weights that lie on it: on a map of
    1×1, which the last stages have of small images, that is one weight in nine of a 3×3 kernel. Strides larger than the
    map, whose gradients are wrong on CPUs in bf16 (torch 2.14 with oneDNN), are avoided on the way.
    """

    def gives_one_place(self, sides: tuple[int, int]) -> bool:
        """Return whether the output for a map of these sides is 1×1."""
        rows = zip(sides, self.padding, self.kernel_size, self.stride, strict=True)
        return all(0 <= side + 2 * pad - kernel < stride for side, pad, kernel, stride in rows)

    def forward(self, x: Tensor) -> Tensor:
        if not self.gives_one_place(x.shape[-2:]):
            return super().forward(x)
        (rows, columns), (top, left) = x.shape[-2:], self.padding
        weight = self.weight[:, :, top : top + rows, left : left + columns]
        return F.conv2d(x[..., : weight.shape[2], : weight.shape[3]], weight, self.bias, groups=self.groups)
