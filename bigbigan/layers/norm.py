"""Batch normalisation whose forward changes no buffer, over the joined batch of all processes.

Training mode normalises with the statistics of the joined batch and, inside `record_statistics`, hands them to a recorder; only
the caller of the recorder moves the running statistics. Evaluation mode reads the buffers. Equal, statistics and gradients, to
one process that holds the joined batch.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.layers.collectives import all_reduce, all_rows, world_size
from bigbigan.layers.spectral import SNLinear


class _JoinedBatchNorm(torch.autograd.Function):
    """(x − mean)/√(var + eps) with mean and biased var of the joined batch; one collective forward, one backward."""

    @staticmethod
    def forward(ctx, x: Tensor, eps: float):
        exact = x if x.dtype == torch.float64 else x.float()
        count = x.numel() // x.shape[1]
        axes = [0, *range(2, x.ndim)]
        mean = exact.mean(axes) if count else exact.new_zeros(x.shape[1])
        deviation = (exact - _channels(mean, x)).square().sum(axes)
        rows = all_rows(torch.cat([mean.new_tensor([count]), mean, deviation]))  # (P, 1 + 2C)
        counts, means, deviations = rows[:, :1], rows[:, 1 : 1 + x.shape[1]], rows[:, 1 + x.shape[1] :]
        # Chan et al. 1979: the joined deviation is the sum of the parts' and of what lies between their means.
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        var = (deviations + counts * (means - mean).square()).sum(0) / total
        scale = (var + eps).rsqrt()
        normalised = ((exact - _channels(mean, x)) * _channels(scale, x)).to(x.dtype)
        ctx.save_for_backward(normalised, scale, total)
        ctx.mark_non_differentiable(mean, var, total)
        return normalised, mean, var, total

    @staticmethod
    def backward(ctx, grad: Tensor, *_):
        normalised, scale, total = ctx.saved_tensors
        exact = grad.to(scale.dtype)
        axes = [0, *range(2, grad.ndim)]
        sums = torch.cat([exact.sum(axes), (exact * normalised).sum(axes)])
        mean_grad, mean_product = (all_reduce(sums) / total).chunk(2)
        centred = exact - _channels(mean_grad, grad) - normalised * _channels(mean_product, grad)
        return (centred * _channels(scale, grad)).to(grad.dtype), None


def _channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.ndim - 2))


class CrossReplicaBatchNorm(nn.Module):
    """Batch norm over (N, C, ...) with optional gain and bias, then optionally an activation (timm's BatchNormAct2d keeps its own).

    eps: 1e-4 in G (BigGAN). With one process the fused kernel of torch does the work.
    """

    def __init__(self, channels: int, eps: float = 1e-4, affine: bool = True, activation: nn.Module | None = None):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.activation = activation
        self.recorder: StatisticsRecorder | None = None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = self._in_training(x) if self.training else self._in_evaluation(x)
        return x if self.activation is None else self.activation(x)

    def _in_evaluation(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def _in_training(self, x: Tensor) -> Tensor:
        if world_size() > 1:
            normalised, mean, var, count = _JoinedBatchNorm.apply(x, self.eps)
            if self.weight is not None:
                normalised = (normalised * _channels(self.weight, x) + _channels(self.bias, x)).to(x.dtype)
        else:
            count = x.numel() // x.shape[1]
            if count < 2:
                raise ValueError(f"batch norm expected more than one value per channel in training, found {tuple(x.shape)}")
            normalised, mean, scale = torch.native_batch_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps)
            var = None if self.recorder is None else scale.detach().square().reciprocal() - self.eps
        if self.recorder is not None:
            self.recorder.add(self, float(count), mean.detach(), var)
        return normalised


class ConditionalBatchNorm(nn.Module):
    """x̂ · (1 + W_g c) + W_b c: BigGAN's class-conditional batch norm; W_g, W_b spectrally normalised, without bias.

    x: (N, C, H, W), condition: (N, K) → (N, C, H, W).
    """

    def __init__(self, channels: int, condition_dim: int, eps: float = 1e-4):
        super().__init__()
        self.norm = CrossReplicaBatchNorm(channels, eps, affine=False)
        self.gain = SNLinear(condition_dim, channels, bias=False)
        self.bias = SNLinear(condition_dim, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain = (1 + self.gain(condition))[:, :, None, None]
        bias = self.bias(condition)[:, :, None, None]
        return torch.addcmul(bias, self.norm(x), gain)


def batch_norms(network: nn.Module) -> list[CrossReplicaBatchNorm]:
    return [layer for layer in network.modules() if isinstance(layer, CrossReplicaBatchNorm)]


class StatisticsRecorder:
    """Pools the batch statistics of every batch norm over the forwards seen: count, mean, squared deviation (Chan et al.)."""

    def __init__(self):
        self.moments: dict[CrossReplicaBatchNorm, tuple[float, Tensor, Tensor]] = {}

    def add(self, layer: CrossReplicaBatchNorm, count: float, mean: Tensor, var: Tensor) -> None:
        old_count, old_mean, old_deviation = self.moments.get(layer, (0.0, torch.zeros_like(mean), torch.zeros_like(var)))
        total = old_count + count
        difference = mean - old_mean
        pooled = old_mean + difference * (count / total)
        deviation = old_deviation + var * count + difference.square() * (old_count * count / total)
        self.moments[layer] = (total, pooled, deviation)

    @torch.no_grad()
    def move(self, momentum: float, broken: Tensor | None = None) -> None:
        """Move the running statistics of the recorded layers towards what was seen; momentum 1 replaces them.

        broken: 0-dim; where it is not 0 they stay.
        """
        well = None if broken is None else broken == 0
        for layer, (count, mean, deviation) in self.moments.items():
            for running, seen in ((layer.running_mean, mean), (layer.running_var, deviation / count)):
                seen = seen.to(running.dtype)
                running.lerp_(seen if well is None else torch.where(well, seen, running), momentum)


@contextmanager
def record_statistics(network: nn.Module):
    """Within this context every training-mode batch norm of `network` reports to the `StatisticsRecorder` it yields."""
    recorder = StatisticsRecorder()
    layers = batch_norms(network)
    for layer in layers:
        layer.recorder = recorder
    try:
        yield recorder
    finally:
        for layer in layers:
            layer.recorder = None
