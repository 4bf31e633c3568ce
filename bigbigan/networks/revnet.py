"""RevNet-50, a reversible pre-activation ResNet (Gomez et al. 2017, 1707.04585), the backbone of the best encoders.

It is the version that BigBiGAN cites (Kolesnikov et al. 2019, 1901.09005). Activations are not kept for the backward
pass but computed again from the outputs.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bigbigan.networks.layers import CrossReplicaBatchNorm, run_block, unrecorded

EPS = 1e-5  # of the batch norms, as in the ResNets


class Bottleneck(nn.Module):
    """The residual function f of a block: BN-ReLU-1×1 to a quarter of the channels, BN-ReLU-3×3, BN-ReLU-1×1 back.

    forward: (N, C, H, W) → the same shape.
    """

    def __init__(self, channels: int):
        super().__init__()
        inner = channels // 4
        self.norm1, self.norm2, self.norm3 = (
            CrossReplicaBatchNorm(c, EPS, activation=nn.ReLU()) for c in (channels, inner, inner)
        )
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.norm3(self.conv2(self.norm2(self.conv1(self.norm1(x))))))


class ReversibleStage(nn.Module):
    """A stage runs blocks of equal width: (x₁, x₂) → (x₂, x₁ + f(x₂)), where x₁ and x₂ are halves of the channels.

    reversible: False keeps the activations; outputs are then equal bit for bit, gradients up to rounding.
    zeros: how many of the last channels of its input are zeros everywhere, see `pool_and_double`.
    Compiled by `torch.compile` it keeps the inputs of its blocks, and computes the rest again: a compiler has no
    reversible functions, and would leave this stage out of its graph.
    forward: (N, C, H, W) → the same shape.
    """

    def __init__(self, channels: int, blocks: int, reversible: bool = True, zeros: int = 0):
        super().__init__()
        self.blocks = nn.ModuleList(Bottleneck(channels // 2) for _ in range(blocks))
        self.reversible, self.zeros = reversible, zeros

    def forward(self, x: Tensor) -> Tensor:
        compiling = torch.compiler.is_compiling()
        if self.reversible and torch.is_grad_enabled() and not compiling:
            return _Recomputed.apply(x, self, *self.parameters())
        return self.run(x, recompute=self.reversible and compiling)

    def run(self, x: Tensor, recompute: bool = False) -> Tensor:
        """Apply the blocks one after the other. recompute: see `layers.run_block`."""
        x1, x2 = x.chunk(2, dim=1)
        for f in self.blocks:
            x1, x2 = x2, x1 + run_block(f, x2, recompute=recompute)
        return torch.cat([x1, x2], dim=1)


class _Recomputed(torch.autograd.Function):
    """`ReversibleStage.run` that saves its output alone, so memory does not grow with the number of blocks.

    The backward pass inverts the blocks from the last to the first, x₁ = y₂ − f(y₁), and computes each f again in the
    precision and mode of the forward. With several processes that repeats f's collectives, in the same order on each.
    """

    @staticmethod
    def forward(ctx, x: Tensor, stage: ReversibleStage, *parameters: Tensor) -> Tensor:
        ctx.stage, ctx.training, ctx.precision = stage, stage.training, _precision(x.device.type)
        with ctx.precision():
            y = stage.run(x)
        # The parameters too, so that changing them before the backward pass is an error.
        ctx.save_for_backward(y, *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        y, *parameters = ctx.saved_tensors
        if ctx.stage.training != ctx.training:
            raise RuntimeError(
                "a reversible stage expected the mode of its forward in its backward, since it repeats it; found "
                f"{'training' if ctx.stage.training else 'evaluation'}: call .train() or .eval() after the backward"
            )
        y1, y2 = y.chunk(2, dim=1)
        grad1, grad2 = grad.chunk(2, dim=1)
        gradients = {}
        with unrecorded(ctx.stage):
            for i, f in reversed([*enumerate(ctx.stage.blocks)]):
                if i == 0 and ctx.stage.zeros:
                    # Differences leave rounding in place of zeros, which a norm without bias puts on either side of its
                    # ReLU's kink; so the zeros of the input are restored.
                    y1 = torch.cat([y1[:, : -ctx.stage.zeros], torch.zeros_like(y1[:, -ctx.stage.zeros :])], dim=1)
                x2 = y1.detach().requires_grad_()
                with torch.enable_grad(), ctx.precision():
                    residual = f(x2)
                wanted = [p for p in f.parameters() if p.requires_grad]
                through_f, *own = torch.autograd.grad(residual, [x2, *wanted], grad2.to(residual.dtype))
                gradients |= zip(wanted, own, strict=True)
                y1, y2 = y2 - residual.detach(), y1
                grad1, grad2 = grad2, grad1 + through_f
        return torch.cat([grad1, grad2], dim=1), None, *(gradients.get(p) for p in parameters)


def _precision(device: str):
    """Return a function whose contexts restore the autocast that is in force now.

    Without autocast's cache: it could hand a weight that was cast without a graph to the backward pass.
    """
    if device == "meta" or not torch.is_autocast_enabled(device):
        return nullcontext
    dtype = torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype, cache_enabled=False)


class RevNet(nn.Module):
    """The backbone: 7×7/2 convolution, 3×3/2 max-pool, four reversible stages, batch norm, average over places.

    width: 1, 2 or 4 in the paper, any multiple of 1/32; the first convolution has 256 · width channels.
    blocks: of each stage.  reversible: see `ReversibleStage`.
    Between stages a 2×2 average pool, and channels of zeros on either side that double the channels. There is no ReLU
    after the last batch norm, as in the cited code.
    forward: (N, 3, S, S) → (N, num_features), 2,048 · width with four stages.
    """

    def __init__(self, width: float = 1.0, blocks: tuple[int, ...] = (3, 4, 6, 3), reversible: bool = True):
        super().__init__()
        channels = round(256 * width)
        if channels != 256 * width or channels < 8 or channels % 8:
            raise ValueError(
                f"encoder width {width}: expected a multiple of 1/32 for a RevNet, such as 0.25, 1, 2 or 4"
            )
        self.stem = nn.Sequential()
        self.stem.add_module("conv", nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False))
        self.stem.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
        self.stages = nn.ModuleList(
            ReversibleStage(channels * 2**i, n, reversible, zeros=channels * 2**i // 4 if i else 0)
            for i, n in enumerate(blocks)
        )
        self.num_features = channels * 2 ** (len(blocks) - 1)
        self.norm = CrossReplicaBatchNorm(self.num_features, EPS)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last map (N, num_features, H, W), before the average over places."""
        x = self.stem(x)
        if x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
            # The backward pass subtracts what was added, which bf16 is too coarse for; convolutions still use it.
            x = x.float()
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else pool_and_double(x))
        return self.norm(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x).mean((2, 3))


def pool_and_double(x: Tensor) -> Tensor:
    """Average-pool 2×2 and add C/2 channels of zeros before and after: (N, C, H, W) → (N, 2C, ⌈H/2⌉, ⌈W/2⌉)."""
    half = x.shape[1] // 2
    pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    return F.pad(pooled, (0, 0, 0, 0, half, half))
