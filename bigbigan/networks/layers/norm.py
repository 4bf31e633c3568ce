"""Batch normalisation over the joined batch of all processes, whose forward changes no buffer in our training.

Training mode normalises with the statistics of the joined batch and, inside `record_statistics`, reports them to a
recorder, whose caller moves the running statistics. Evaluation mode reads the running statistics. Outputs, statistics
and gradients are equal to those of one process that holds the joined batch.

A model that a user loads is the exception: `set_momentum` lets each of its forwards in training mode move the running
statistics as torch's batch norm does, because a training loop of one's own has no recorder.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.distributed.collectives import all_gather_rows, all_reduce, world_size
from bigbigan.networks.layers.checkpointing import in_backward_pass
from bigbigan.networks.layers.spectral import SNLinear

NO_STATISTICS = (None, None, True, 0.0)  # running mean and variance, training, momentum; a kernel moves none of it


class _JoinedBatchNorm(torch.autograd.Function):
    """Compute (x − mean)/√(var + eps) of the joined batch, with one collective in the forward and one in the backward.

    Returns (normalised, mean, biased var, count of values per channel).
    """

    @staticmethod
    def forward(ctx, x: Tensor, eps: float):
        exact = x if x.dtype == torch.float64 else x.float()
        count = x.numel() // x.shape[1]
        axes = [0, *range(2, x.ndim)]
        mean = exact.mean(axes) if count else exact.new_zeros(x.shape[1])
        deviation = (exact - _channels(mean, x)).square().sum(axes)
        rows = all_gather_rows(torch.cat([mean.new_full((1,), count), mean, deviation]))  # (P, 1 + 2C)
        counts, means, deviations = rows[:, :1], rows[:, 1 : 1 + x.shape[1]], rows[:, 1 + x.shape[1] :]
        # Chan et al. 1979: the joined deviation is that within the parts plus that between their means.
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
    """Return values (C,) in the shape that broadcasts over `like` (N, C, ...)."""
    return values.view(1, -1, *[1] * (like.ndim - 2))


class CrossReplicaBatchNorm(nn.Module):
    """Batch norm over (N, C, ...), with gain and bias if `affine`, and an optional activation after it.

    eps: 1e-4 in G (BigGAN).  activation: as in timm's BatchNormAct2d.  With one process it is torch's fused kernel.
    """

    momentum: float | None = None
    """Momentum of the running statistics in a forward in training mode without a recorder; None leaves them."""

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
            if self._moves():
                self._move(mean, var, count)
            if self.weight is not None:
                normalised = (normalised * _channels(self.weight, x) + _channels(self.bias, x)).to(x.dtype)
        else:
            count = x.numel() // x.shape[1]
            if count < 2:
                raise ValueError(
                    f"batch norm expected more than one value per channel in training, found {tuple(x.shape)}"
                )
            # As torch's batch norm: the kernel moves the running statistics that it is given.
            running = (self.running_mean, self.running_var, True, self.momentum) if self._moves() else NO_STATISTICS
            normalised, mean, scale = torch.native_batch_norm(x, self.weight, self.bias, *running, self.eps)
            var = None if self.recorder is None else scale.detach().square().reciprocal() - self.eps
        if self.recorder is not None and not in_backward_pass():  # where checkpointing repeats a recorded forward
            self.recorder.add(self, count, mean.detach(), var)
        return normalised

    def _moves(self) -> bool:
        """Return whether this forward moves the running statistics itself; one that is repeated never does."""
        return self.momentum is not None and self.recorder is None and not in_backward_pass()

    @torch.no_grad()
    def _move(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Move the running statistics towards those of the joined batch, its variance unbiased, as torch does."""
        unbiased = var * (count / (count - 1))
        for running, seen in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.lerp_(seen.to(running.dtype), self.momentum)


class ConditionalBatchNorm(nn.Module):
    """BigGAN's conditional batch norm: x̂ · (1 + W_g c) + W_b c, with W_g and W_b spectrally normalised, without bias.

    condition_dim: the size of c; 0: no W_g and W_b.
    classes: the number of classes of its own tables of gains and biases, which are added to W_g c and W_b c (SAGAN;
        without spectral norm, as BigGAN's embedding); 0: no tables.
    forward: x (N, C, H, W), condition c (N, K), labels for the tables, see `of_classes` → (N, C, H, W).
    """

    def __init__(self, channels: int, condition_dim: int, eps: float = 1e-4, classes: int = 0):
        super().__init__()
        self.norm = CrossReplicaBatchNorm(channels, eps, affine=False)
        self.gain = SNLinear(condition_dim, channels, bias=False) if condition_dim else None
        self.bias = SNLinear(condition_dim, channels, bias=False) if condition_dim else None
        self.class_gain = nn.Embedding(classes, channels) if classes else None
        self.class_bias = nn.Embedding(classes, channels) if classes else None

    def forward(self, x: Tensor, condition: Tensor, labels: Tensor | None = None) -> Tensor:
        gain = (1 + self._sum(self.gain, self.class_gain, condition, labels))[:, :, None, None]
        bias = self._sum(self.bias, self.class_bias, condition, labels)[:, :, None, None]
        return torch.addcmul(bias, self.norm(x), gain)

    @staticmethod
    def _sum(linear: nn.Module | None, table: nn.Module | None, condition: Tensor, labels: Tensor | None) -> Tensor:
        if table is None:
            return linear(condition)
        own = of_classes(table, labels)
        return own if linear is None else linear(condition) + own


def of_classes(table: nn.Embedding, classes: Tensor) -> Tensor:
    """Return rows (N, C) of a table (K, C) by classes (N,) long; or sums of its rows, weighted by floats (N, K)."""
    return classes.to(table.weight) @ table.weight if classes.is_floating_point() else table(classes)


def batch_norms(network: nn.Module) -> list[CrossReplicaBatchNorm]:
    """Return the batch norms of `network` in the order of its modules."""
    return [layer for layer in network.modules() if isinstance(layer, CrossReplicaBatchNorm)]


def set_momentum(network: nn.Module, momentum: float | None = 0.1) -> None:
    """Let every batch norm of `network` move its running statistics by `momentum` in each forward in training mode.

    momentum: 0.1 is torch's default; None: forwards move nothing, as our training step expects.
    """
    for layer in batch_norms(network):
        layer.momentum = momentum


class StatisticsRecorder:
    """Pools the batch statistics of every batch norm over several forwards (Chan et al. 1979).

    moments: {layer: (count, mean, sum of squared deviations)}.
    """

    def __init__(self):
        self.moments: dict[CrossReplicaBatchNorm, tuple[float | Tensor, Tensor, Tensor]] = {}

    def add(self, layer: CrossReplicaBatchNorm, count: float | Tensor, mean: Tensor, var: Tensor) -> None:
        """Add the statistics of one forward: `count` values per channel with their mean and biased var (C,)."""
        self._add(layer, count, mean, var * count)

    def pool(self, other: "StatisticsRecorder") -> None:
        """Add the statistics of another recorder."""
        for layer, moments in other.moments.items():
            self._add(layer, *moments)

    def _add(self, layer: CrossReplicaBatchNorm, count: float | Tensor, mean: Tensor, deviation: Tensor) -> None:
        if layer in self.moments:
            old_count, old_mean, old_deviation = self.moments[layer]
            total, difference = old_count + count, mean - old_mean
            mean = old_mean + difference * (count / total)
            deviation = old_deviation + deviation + difference.square() * (old_count * count / total)
            count = total
        self.moments[layer] = (count, mean, deviation)

    @torch.no_grad()
    def move(self, momentum: float, broken: Tensor | None = None) -> None:
        """Move the running statistics of the recorded layers towards the recorded ones; momentum 1 replaces them.

        broken: a 0-dim tensor; if it is not 0, nothing changes (without waiting for the device).
        """
        well = None if broken is None else broken == 0
        for layer, (count, mean, deviation) in self.moments.items():
            for running, seen in ((layer.running_mean, mean), (layer.running_var, deviation / count)):
                seen = seen.to(running.dtype)
                running.lerp_(seen if well is None else torch.where(well, seen, running), momentum)


@contextmanager
def record_statistics(network: nn.Module | None):
    """Let every batch norm of `network` in training mode report to the `StatisticsRecorder` that this context yields.

    network: None for none.
    """
    recorder = StatisticsRecorder()
    layers = [] if network is None else batch_norms(network)
    for layer in layers:
        layer.recorder = recorder
    try:
        yield recorder
    finally:
        for layer in layers:
            layer.recorder = None


@contextmanager
def unrecorded(network: nn.Module):
    """Let the batch norms of `network` report to no recorder: for a forward that repeats an earlier one."""
    before = [(layer, layer.recorder) for layer in batch_norms(network)]
    for layer, _ in before:
        layer.recorder = None
    try:
        yield
    finally:
        for layer, recorder in before:
            layer.recorder = recorder
