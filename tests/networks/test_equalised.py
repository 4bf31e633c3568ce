"""The parts of Progressive GAN, each against its formula, or against torch where torch has it."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.utils import parametrize

from bigbigan.distributed import barrier, gather_batch, scatter_batch
from bigbigan.networks.layers import (
    ChannelLayerNorm,
    EqualisedConv2d,
    EqualisedLinear,
    MinibatchDiscrimination,
    MinibatchStddev,
    pixel_norm,
)
from tests.helpers.children import free_port
from tests.runs.test_distributed import spawn


class Times(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, weight):
        return weight * self.factor


@pytest.mark.parametrize(
    ("ours", "theirs", "x", "fan_in"),
    [
        (
            lambda **k: EqualisedConv2d(6, 5, 3, padding=1, **k),
            torch.nn.Conv2d(6, 5, 3, padding=1),
            torch.randn(2, 6, 4, 4),
            54,
        ),
        (lambda **k: EqualisedLinear(7, 5, **k), torch.nn.Linear(7, 5), torch.randn(3, 7), 7),
    ],
)
def test_equalised_layers_are_scaled_at_run_time(ours, theirs, x, fan_in):
    """Against torch's layer with torch's parametrization: outputs and gradients."""
    layer = ours(gain=1.7)
    theirs.load_state_dict(layer.state_dict())
    parametrize.register_parametrization(theirs, "weight", Times(1.7 / math.sqrt(fan_in)))
    torch.testing.assert_close(layer(x), theirs(x))
    layer(x).square().sum().backward(), theirs(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, theirs.parametrizations.weight.original.grad)
    torch.testing.assert_close(layer.bias.grad, theirs.bias.grad)


def test_equalised_weights_are_standard_normal_and_keep_the_variance():
    torch.manual_seed(0)
    for equalised, expected in ((True, 1.0), (False, math.sqrt(2 / 900))):
        layer = EqualisedConv2d(100, 200, 3, padding=1, equalised=equalised)
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.01) and not layer.bias.any()
        x = F.leaky_relu(torch.randn(8, 100, 9, 9), 0.0)
        assert layer(x)[..., 1:-1, 1:-1].var().item() == pytest.approx(1, rel=0.1), (
            "He's constant: ReLU in, variance 1 out"
        )


def test_pixel_norm_is_rms_norm_over_channels():
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    expected = F.rms_norm(x.movedim(1, -1), (6,), eps=1e-8).movedim(-1, 1)
    torch.testing.assert_close(pixel_norm(x), expected)
    torch.testing.assert_close(pixel_norm(x[..., 0, 0]), F.rms_norm(x[..., 0, 0], (6,), eps=1e-8))
    assert pixel_norm(x.bfloat16()).dtype == torch.bfloat16


def test_channel_layer_norm_is_group_norm_of_one_group():
    norm, theirs = ChannelLayerNorm(6), torch.nn.GroupNorm(1, 6, eps=1e-4)
    norm.weight.data.fill_(1.5), norm.bias.data.uniform_(-1, 1)
    theirs.weight.data.fill_(1.5), theirs.bias.data.copy_(norm.bias)
    x = 3 + torch.randn(4, 6, 5, 5)
    torch.testing.assert_close(norm(x), theirs(x))


def stddev_by_hand(x, size):
    """Every group by itself, number by number."""
    n = len(x)
    out = np.empty(n)
    for first in range(n // size):
        members = [first + k * (n // size) for k in range(size)]
        deviations = np.sqrt(x[members].var(0) + 1e-8)  # numpy's variance is the biased one
        out[members] = deviations.mean()
    return out


@pytest.mark.parametrize("group", [0, 2, 4, 8, 100])
def test_minibatch_stddev(group):
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    y = MinibatchStddev(group)(x)
    assert y.shape == (8, 4, 4, 4) and torch.equal(y[:, :3], x)
    expected = torch.from_numpy(stddev_by_hand(x.numpy(), min(group or 8, 8)))
    torch.testing.assert_close(y[:, 3], expected[:, None, None].expand(8, 4, 4))


def test_minibatch_stddev_of_other_groups_is_refused():
    with pytest.raises(ValueError, match="expected a multiple of its groups of 4, found 6 images"):
        MinibatchStddev(4)(torch.zeros(6, 1, 4, 4))


def test_minibatch_stddev_of_equal_images_is_zero_and_has_a_gradient():
    x = torch.ones(4, 2, 4, 4, requires_grad=True)
    y = MinibatchStddev()(x)[:, 2]
    assert y.max().item() == pytest.approx(1e-4, rel=1e-3)
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_minibatch_discrimination():
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(4, kernels=3, dim=2).double()
    layer.log_scale.data.uniform_(-1, 1)
    x = torch.randn(5, 4, dtype=torch.float64)
    y = layer(x)
    weight = layer.weight.detach().numpy()
    expected = np.zeros((5, 3))
    for k in range(3):
        columns = [
            weight[:, k, d] / np.linalg.norm(weight[:, k, d]) * np.exp(layer.log_scale[k, d].item()) for d in range(2)
        ]
        m = x.numpy() @ np.stack(columns, 1)
        for n in range(5):
            expected[n, k] = sum(np.exp(-np.abs(m[n] - m[o]).sum()) for o in range(5) if o != n) - 1
    torch.testing.assert_close(y[:, 4:], torch.from_numpy(expected))
    torch.testing.assert_close(y[:, :4], x)


def test_the_parts_can_be_differentiated_twice():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    norm, discrimination = ChannelLayerNorm(3).double(), MinibatchDiscrimination(12, 2, 2).double()
    for part in (pixel_norm, MinibatchStddev(), MinibatchStddev(2), norm, lambda t: discrimination(t.flatten(1))):
        assert torch.autograd.gradgradcheck(part, x)


def numbers():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 3, 4, 4, generator=generator, dtype=torch.float64)


def minibatch_layers(x):
    """What a minibatch's parts make of x, the gradient g of a sum over all images, and the gradient of the sum of
    ‖g‖³."""
    torch.manual_seed(1)
    discrimination, conv = MinibatchDiscrimination(7 * 16, 3).double(), torch.nn.Conv2d(5, 7, 3, padding=1).double()
    parameters = [*discrimination.parameters(), *conv.parameters()]
    x = x.clone().requires_grad_()
    y = discrimination(torch.tanh(conv(MinibatchStddev(4)(MinibatchStddev()(x)))).flatten(1))
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    second = torch.autograd.grad(grad.flatten(1).norm(dim=1).pow(3).sum(), [x, *parameters])
    return [y.detach(), grad.detach(), *(t.detach() for t in second)]


def worker(rank, processes, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
    x = scatter_batch(numbers())
    assert torch.equal(gather_batch(x), numbers())
    torch.save(minibatch_layers(x), f"{folder}/{rank}.pt")
    barrier()


def test_second_order_gradients_of_three_processes_are_those_of_one(tmp_path):
    spawn(worker, 3, free_port(), str(tmp_path))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(3)]
    y, grad, second, *weights = minibatch_layers(numbers())
    for place, whole in ((0, y), (1, grad), (2, second)):
        for rank in range(3):
            torch.testing.assert_close(parts[rank][place], whole[rank::3], rtol=1e-9, atol=1e-9)
    for place, whole in enumerate(weights, 3):
        torch.testing.assert_close(sum(part[place] for part in parts), whole, rtol=1e-9, atol=1e-9)
