"""Spectral norm, batch norm, attention and the blocks against torch's own operations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from bigbigan.networks.layers import (
    ConditionalBatchNorm,
    CrossReplicaBatchNorm,
    DiscriminatorBlock,
    GeneratorBlock,
    ResidualMLP,
    SelfAttention,
    SNConv2d,
    SNEmbedding,
    SNLinear,
    advance_power_iteration,
    initialise,
    record_statistics,
    resampling,
    set_folded,
    spectral_layers,
    split_size,
)

F64 = torch.float64


def pair(ours: nn.Module, theirs: nn.Module):
    """Ours and torch's spectral norm with the same weight, u and v."""
    theirs = spectral_norm(theirs.double(), eps=1e-4)
    ours = ours.double()
    parametrization = theirs.parametrizations.weight[0]
    with torch.no_grad():
        theirs.parametrizations.weight.original.copy_(ours.weight)
        parametrization._u.copy_(ours.u)
        parametrization._v.copy_(ours.v)
        if ours.bias is not None:
            theirs.bias.copy_(ours.bias)
    return ours, theirs


@pytest.mark.parametrize(
    ("ours", "theirs", "x"),
    [
        (SNLinear(6, 5), nn.Linear(6, 5), torch.randn(4, 6, dtype=F64)),
        (SNLinear(7, 1), nn.Linear(7, 1), torch.randn(4, 7, dtype=F64)),
        (SNConv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1), torch.randn(2, 3, 6, 6, dtype=F64)),
    ],
)
def test_spectral_norm_equals_torch(ours, theirs, x):
    """σ, output and gradients over three updates, one power iteration each."""
    ours, theirs = pair(ours, theirs)
    for _ in range(3):
        advance_power_iteration(ours)
        y, reference = ours(x), theirs(x)  # torch's advances in its training-mode forward
        torch.testing.assert_close(y, reference, rtol=1e-10, atol=1e-12)
        (y.square().sum()).backward()
        (reference.square().sum()).backward()
        original = theirs.parametrizations.weight.original
        torch.testing.assert_close(ours.weight.grad, original.grad, rtol=1e-9, atol=1e-11)
        with torch.no_grad():
            for weight in (ours.weight, original):
                weight -= 0.05 * weight.grad
                weight.grad = None


@pytest.mark.parametrize("batched", [True, False])
def test_vanishing_weights_have_the_eps_of_torch(batched):
    """1e-4, as in BigGAN, in the place of the norms of W v and Wᵀ u where these are smaller."""
    ours = SNLinear(6, 5)
    ours.weight.data *= 1e-6
    ours, theirs = pair(ours, nn.Linear(6, 5))
    advance_power_iteration(ours, batched=batched)
    theirs(torch.zeros(1, 6, dtype=F64))
    parametrization = theirs.parametrizations.weight[0]
    torch.testing.assert_close(ours.u, parametrization._u)
    torch.testing.assert_close(ours.v, parametrization._v)
    assert ours.u.norm() < 0.1


def test_sigma_converges_to_the_largest_singular_value():
    torch.manual_seed(0)
    for layer in (SNLinear(30, 20), SNConv2d(4, 8, 3), SNEmbedding(10, 6)):
        advance_power_iteration(layer, 300)
        expected = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert layer.sigma().item() == pytest.approx(expected.item(), rel=1e-4)


def test_batched_power_iteration_equals_layer_by_layer():
    """Layers of equal shape share one batched product; each must still get its own vectors."""
    torch.manual_seed(1)
    together = nn.Sequential(SNLinear(5, 5), SNLinear(5, 5), SNLinear(5, 3), SNLinear(5, 5))
    alone = [SNLinear(5, 5), SNLinear(5, 5), SNLinear(5, 3), SNLinear(5, 5)]
    for mine, other in zip(alone, together, strict=True):
        mine.load_state_dict(other.state_dict())
        advance_power_iteration(mine, 2, batched=False)
    advance_power_iteration(together, 2, batched=True)
    for mine, other in zip(alone, together, strict=True):
        torch.testing.assert_close(mine.u, other.u)
        torch.testing.assert_close(mine.v, other.v)


def test_a_forward_changes_no_buffer():
    torch.manual_seed(0)
    block = GeneratorBlock(4, 4, 3).train()
    before = {k: v.clone() for k, v in block.state_dict().items()}
    first = block(torch.ones(2, 4, 4, 4), torch.ones(2, 3))
    second = block(torch.ones(2, 4, 4, 4), torch.ones(2, 3))
    assert torch.equal(first, second)
    assert all(torch.equal(before[k], v) for k, v in block.state_dict().items())


def test_initialise_is_orthogonal_with_sigma_one():
    network = nn.Sequential(SNConv2d(8, 4, 3), SNLinear(6, 6))
    initialise(network)
    for layer in spectral_layers(network):
        weight = layer.weight.flatten(1)
        torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), rtol=1e-4, atol=1e-5)
        assert layer.sigma().item() == pytest.approx(1, abs=1e-3)


def test_sigma_is_float32_under_autocast():
    torch.manual_seed(0)
    layer = SNLinear(64, 64)
    advance_power_iteration(layer, 50)
    plain = layer.sigma()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.sigma().dtype == torch.float32
        assert torch.equal(layer.sigma(), plain)
        assert layer(torch.ones(2, 64)).dtype == torch.bfloat16


def test_batch_norm_equals_torch():
    torch.manual_seed(0)
    ours, theirs = CrossReplicaBatchNorm(5, eps=1e-4).double(), nn.BatchNorm2d(5, eps=1e-4, momentum=1.0).double()
    x = 3 + 2 * torch.randn(4, 5, 3, 3, dtype=F64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    with record_statistics(ours) as recorder:
        y = ours(a)
    reference = theirs(b)
    torch.testing.assert_close(y, reference)
    y.pow(3).sum().backward()
    reference.pow(3).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    assert torch.equal(ours.running_mean, torch.zeros(5, dtype=F64)), "a forward moved the statistics"
    recorder.move(1.0)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    # torch keeps the unbiased variance, we the biased one that the batch was normalised with
    torch.testing.assert_close(ours.running_var, theirs.running_var * (35 / 36))


def test_recorded_statistics_are_those_of_all_batches():
    torch.manual_seed(0)
    norm = CrossReplicaBatchNorm(3).double()
    batches = [100 + 0.1 * torch.randn(n, 3, 2, 2, dtype=F64) for n in (2, 7, 4)]
    with record_statistics(norm) as recorder:
        for x in batches:
            norm(x)
    recorder.move(1.0)
    whole = torch.cat(batches)
    torch.testing.assert_close(norm.running_mean, whole.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, whole.var((0, 2, 3), correction=0))


def test_evaluation_and_training_agree_on_the_recorded_batch():
    norm = ConditionalBatchNorm(4, 3).double()
    x, c = torch.randn(6, 4, 2, 2, dtype=F64), torch.randn(6, 3, dtype=F64)
    with record_statistics(norm) as recorder:
        y = norm(x, c)
    recorder.move(1.0)
    torch.testing.assert_close(norm.eval()(x, c), y)


def test_conditional_gain_is_centred_at_one():
    """BigGAN: x̂ (1 + W_g c) + W_b c; with c = 0 it is a plain batch norm."""
    norm = ConditionalBatchNorm(4, 3)
    x = torch.randn(6, 4, 2, 2)
    torch.testing.assert_close(norm(x, torch.zeros(6, 3)), F.batch_norm(x, None, None, training=True, eps=1e-4))
    c = torch.randn(6, 3)
    gain, bias = norm.gain(c)[:, :, None, None], norm.bias(c)[:, :, None, None]
    torch.testing.assert_close(norm(x, c), F.batch_norm(x, None, None, training=True, eps=1e-4) * (1 + gain) + bias)


def test_attention_equals_the_written_out_form():
    torch.manual_seed(0)
    attention = SelfAttention(16).double()
    attention.gamma.data.fill_(0.7)
    x = torch.randn(2, 16, 6, 6, dtype=F64)
    n, c, h, w = x.shape
    theta = attention.query(x).view(n, 2, h * w)
    phi = F.max_pool2d(attention.key(x), 2).view(n, 2, h * w // 4)
    g = F.max_pool2d(attention.value(x), 2).view(n, 8, h * w // 4)
    beta = torch.softmax(torch.bmm(theta.transpose(1, 2), phi), dim=-1)
    expected = x + 0.7 * attention.output(torch.bmm(g, beta.transpose(1, 2)).view(n, 8, h, w))
    torch.testing.assert_close(attention(x), expected)


def test_attention_is_the_identity_at_first():
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(SelfAttention(8)(x), x)


def test_generator_block_equals_the_published_order():
    """We move the 1×1 shortcut before the upsampling: equal algebra."""
    torch.manual_seed(0)
    block = GeneratorBlock(6, 4, 3).double().train()
    x, c = torch.randn(2, 6, 4, 4, dtype=F64), torch.randn(2, 3, dtype=F64)
    up = nn.Upsample(scale_factor=2, mode="nearest")
    h = block.conv1(up(F.relu(block.norm1(x, c))))
    h = block.conv2(F.relu(block.norm2(h, c)))
    torch.testing.assert_close(block(x, c), h + block.shortcut(up(x)))


@pytest.mark.parametrize("first", [True, False])
def test_discriminator_block_equals_the_published_order(first):
    torch.manual_seed(0)
    block = DiscriminatorBlock(3, 4, downsample=True, first=first).double()
    x = torch.randn(2, 3, 8, 8, dtype=F64)
    h = F.avg_pool2d(block.conv2(F.relu(block.conv1(x if first else F.relu(x)))), 2)
    torch.testing.assert_close(block(x), h + F.avg_pool2d(block.shortcut(x), 2))


def test_residual_mlp_projects_only_where_the_width_changes():
    mlp = ResidualMLP(5, 8, 8, spectral_norm=True)
    assert [("shortcut" in block) for block in mlp.blocks] == [True, False, False, False]
    assert len([m for m in mlp.modules() if isinstance(m, nn.Linear)]) == 8 + 1
    assert (mlp(torch.randn(4, 5)) >= 0).all()
    with pytest.raises(ValueError, match="even number of layers"):
        ResidualMLP(5, 8, 3, spectral_norm=True)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(8, (4, 1)), (12, (6, 1)), (32, (4, 3)), (48, (6, 3)), (96, (6, 4)), (128, (4, 5)), (224, (7, 5)), (512, (4, 7))],
)
def test_sizes(size, expected):
    assert split_size(size) == expected


def test_impossible_size_names_the_nearest():
    with pytest.raises(ValueError, match="image_size 100: .* nearest: 96 and 112"):
        split_size(100)


@pytest.mark.parametrize("make", [
    lambda: (GeneratorBlock(6, 4, 5), (torch.randn(3, 6, 4, 6, dtype=F64), torch.randn(3, 5, dtype=F64))),
    lambda: (DiscriminatorBlock(6, 4, downsample=True), (torch.randn(3, 6, 4, 6, dtype=F64),)),
])  # fmt: skip
def test_the_folded_resampling_equals_the_plain_form(make, monkeypatch):
    """Outputs, gradients and second gradients (which R1 needs); and a wrong sum of taps is noticed."""
    torch.manual_seed(0)
    block, inputs = make()
    block = block.double().train()

    def everything(folded: bool):
        set_folded(block, folded)
        x = inputs[0].clone().requires_grad_()
        y = block(x, *inputs[1:])
        weights = torch.linspace(-1, 1, y.numel(), dtype=F64).reshape(y.shape)
        (gradient,) = torch.autograd.grad((y * weights).sum(), x, create_graph=True)
        block.zero_grad()
        (gradient.square().sum() + y.square().sum()).backward()
        return [y, gradient, x.grad, *(p.grad for p in block.parameters() if p.grad is not None)]

    def equal() -> bool:
        return all(
            torch.allclose(a, b, rtol=1e-9, atol=1e-10)
            for a, b in zip(everything(True), everything(False), strict=True)
        )

    assert equal()
    honest = resampling._summed_taps
    monkeypatch.setattr(resampling, "_summed_taps", lambda w: honest(w).transpose(2, 3))
    assert not equal()
