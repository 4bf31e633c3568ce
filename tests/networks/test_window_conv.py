"""WindowConv2d against torch's own convolution, and against float32 in bf16."""

import pytest
import torch
from torch import nn

from bigbigan.networks.encoder import build_trunk, replace_convolutions
from bigbigan.networks.layers import WindowConv2d

SIDES = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (2, 5), (4, 4), (7, 7)]
FORMS = [(3, 1, 1, 1), (3, 2, 1, 1), (3, 2, 1, 2), (3, 4, 1, 4), (7, 2, 3, 1), (5, 3, 2, 1), (5, 1, 1, 1), (3, 3, 2, 1)]


# Torch refuses a kernel that is larger than the padded map.
CASES = [(sides, *form) for form in FORMS for sides in SIDES if min(sides) + 2 * form[2] >= form[0]]


@pytest.mark.parametrize(("sides", "kernel", "stride", "padding", "groups"), CASES)
def test_output_and_gradients_are_those_of_the_whole_kernel(sides, kernel, stride, padding, groups):
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 8, kernel, stride, padding, groups=groups).double()
    ours = WindowConv2d(4, 8, kernel, stride, padding, groups=groups).double()
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(3, 4, *sides, dtype=torch.float64, requires_grad=True)
    expected, found = plain(x), ours(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    direction = torch.randn_like(expected)
    theirs = torch.autograd.grad((expected * direction).sum(), [x, *plain.parameters()])
    mine = torch.autograd.grad((found * direction).sum(), [x, *ours.parameters()])
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_fewer_products_where_the_output_is_one_place():
    from torch.utils.flop_counter import FlopCounterMode

    def flops(conv: nn.Module, side: int) -> int:
        with FlopCounterMode(display=False) as counter:
            conv(torch.randn(2, 16, side, side))
        return counter.get_total_flops()

    for side, stride, share in ((1, 1, 1 / 9), (1, 2, 1 / 9), (2, 2, 4 / 9), (2, 1, 1), (4, 2, 1)):
        plain, ours = (kind(16, 16, 3, stride, 1) for kind in (nn.Conv2d, WindowConv2d))
        assert flops(ours, side) == pytest.approx(share * flops(plain, side))


def test_bf16_gradients_of_a_stride_beyond_the_map_are_right():
    """Those of torch's own convolution are wrong or infinite on a CPU: training/precision.py."""
    torch.manual_seed(0)
    conv = WindowConv2d(64, 128, 3, 2, 1, bias=False)
    x = torch.randn(32, 64, 1, 1).contiguous(memory_format=torch.channels_last)
    (exact,) = torch.autograd.grad(conv(x).square().sum(), conv.weight)
    for _ in range(20):
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(x)
        (found,) = torch.autograd.grad(out.float().square().sum(), conv.weight)
        assert (found - exact).norm() < 0.02 * exact.norm()


def test_encoders_have_them_and_keep_their_weights_and_names():
    torch.manual_seed(0)
    ours = build_trunk("resnetv2_18", 0.25, "stride1", 8, (1, 1, 1, 1))
    assert sum(isinstance(layer, WindowConv2d) for layer in ours.modules()) == 8  # two of each stage; the stem is ours
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=2, dilation=2))
    weights = {name: value.clone() for name, value in plain.state_dict().items()}
    first = plain[0].weight
    replace_convolutions(plain)
    assert [type(layer) for layer in plain] == [WindowConv2d, nn.Conv2d, nn.Conv2d]
    assert plain[0].weight is first and plain[0].training
    assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
