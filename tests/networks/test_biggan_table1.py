"""The factors of BigGAN's Table 1: shared embedding, skip-z, orthogonal regularisation; SAGAN's form of G."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bigbigan
from bigbigan.model import BigBiGAN
from bigbigan.networks.discriminator import Discriminator
from bigbigan.networks.generator import Generator
from bigbigan.networks.layers import (
    ConditionalBatchNorm,
    SNConv2d,
    SNLinear,
    add_orthogonal_gradient,
    orthogonal_penalty,
)
from tests.conftest import make_step, tiny_model, train
from tests.helpers.settings import read_preset
from tests.training.test_step import make_batch

F64 = torch.float64


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("width", "shared", "skip", "latent_dim", "published", "parameters"),
    [
        (64, False, False, 128, 81.5, 81_465_670),
        (96, False, False, 128, 173.5, 173_538_534),
        (96, True, False, 120, 160.6, 160_578_278),
        (96, True, True, 120, 158.3, 158_416_358),
        (64, True, True, 120, 71.3, 71_426_886),
    ],
)
def test_parameters_of_table_1(width, shared, skip, latent_dim, published, parameters):
    """G and D together, 1,000 classes at 128 px, in millions as BigGAN prints them."""
    with (
        mock.patch("bigbigan.networks.generator.initialise"),
        mock.patch("bigbigan.networks.discriminator.initialise"),
        torch.device("meta"),
    ):
        generator = Generator(latent_dim, 128, width, 1000, attention=64, shared_embedding=shared, skip_z=skip)
        total = count(generator) + count(Discriminator(latent_dim, 128, width, 1000, attention=64, joint=False))
    assert total == parameters
    assert total / 1e6 == pytest.approx(published, abs=0.13)


def test_tables_are_a_gain_and_a_bias_by_class():
    torch.manual_seed(0)
    norm = ConditionalBatchNorm(4, 0, classes=3).double()
    x, y = torch.randn(6, 4, 2, 2, dtype=F64), torch.tensor([0, 1, 2, 2, 1, 0])
    plain = F.batch_norm(x, None, None, training=True, eps=1e-4)
    gain, bias = norm.class_gain.weight[y], norm.class_bias.weight[y]
    torch.testing.assert_close(
        norm(x, x[:, :0, 0, 0], y), plain * (1 + gain[:, :, None, None]) + bias[:, :, None, None]
    )
    both = ConditionalBatchNorm(4, 2, classes=3).double()
    c = torch.randn(6, 2, dtype=F64)
    gain, bias = both.gain(c) + both.class_gain(y), both.bias(c) + both.class_bias(y)
    torch.testing.assert_close(both(x, c, y), plain * (1 + gain[:, :, None, None]) + bias[:, :, None, None])


@pytest.mark.parametrize(("shared", "skip"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("classes", [0, 3])
def test_who_sees_what(shared, skip, classes):
    torch.manual_seed(0)
    generator = Generator(8, 16, 4, classes, embedding_dim=4, shared_embedding=shared, skip_z=skip).double()
    z, y = torch.randn(4, 8, dtype=F64), torch.tensor([0, 1, 2, 0]) if classes else None
    assert generator.chunks == ([4, 2, 2] if skip else [8]) and (generator.embedding is None) == (not shared)
    seen = {}
    for name, layer in generator.named_modules():
        if isinstance(layer, SNLinear):
            layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
    x = generator(z, y)
    assert torch.equal(seen["linear"], z[:, :4] if skip else z)
    tables = [n for n, _ in generator.named_parameters() if "class_gain" in n]
    assert len(tables) == (0 if shared else 4)
    parts = [z[:, 6:]] if skip else []
    parts += [generator.embedding.weight[y if classes else [0] * 4]] if shared else []
    if parts:  # the chunk first, as in the released model
        assert torch.equal(seen["blocks.1.norm2.gain"], torch.cat(parts, dim=1))
    else:
        assert set(seen) == {"linear"}
    if classes:
        assert not torch.allclose(x, generator(z, y.flip(0)))
    if not (shared and skip):
        with pytest.raises(ValueError, match="biggan_deep: expected shared_embedding and skip_z"):
            Generator(8, 16, 4, architecture="biggan_deep", shared_embedding=shared, skip_z=skip)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(5, 7),
        lambda: SNLinear(7, 3, bias=False),
        lambda: SNConv2d(2, 6, 3),
        lambda: SNConv2d(3, 40, 3),
    ],
)
def test_orthogonal_gradient_is_that_of_the_written_formula(make):
    torch.manual_seed(0)
    layer = make().double()
    flat = layer.weight.flatten(1).T  # filters as columns, as the paper has them
    off = 1 - torch.eye(flat.shape[1], dtype=F64)
    written = ((flat.T @ flat) * off).norm().square()
    torch.testing.assert_close(orthogonal_penalty(layer.weight), written)
    (gradient,) = torch.autograd.grad(0.3 * written, layer.weight)
    layer.weight.grad = torch.ones_like(layer.weight)
    add_orthogonal_gradient(layer, 0.3)
    torch.testing.assert_close(layer.weight.grad, 1 + gradient)


@pytest.mark.parametrize("strength", [0.0, 0.1])
def test_the_step_regularises_g_alone_and_no_embedding(strength):
    found = []
    for orthogonal in (0.0, strength):
        model = tiny_model().double().train()
        kept = {}

        class Optimizer(torch.optim.SGD):
            def step(self, model=model, kept=kept):
                kept.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

        optimizers = [Optimizer(part.parameters(), lr=1.0) for part in (model.discriminator, model)]
        step = make_step(model, {"data.chunks": 2, "loss.orthogonal": orthogonal}, optimizers=optimizers)
        step.encoder_generator_update(make_batch())
        found.append(kept)
    weights = dict(tiny_model().double().named_parameters())
    for name, plain in found[0].items():
        difference = found[1][name] - plain
        if name.startswith("generator.") and weights[name].ndim > 1 and "embedding" not in name:
            (expected,) = torch.autograd.grad(strength * orthogonal_penalty(weights[name]), weights[name])
            torch.testing.assert_close(difference, expected, rtol=1e-6, atol=1e-9)
        else:
            assert not difference.any(), name


def test_the_sagan_preset():
    config = read_preset("sagan128")
    with (
        mock.patch("bigbigan.networks.generator.initialise"),
        mock.patch("bigbigan.networks.discriminator.initialise"),
        torch.device("meta"),
    ):
        model = BigBiGAN.from_config(config.model)
    assert count(model.generator) == 42_078_852
    d = model.discriminator
    assert count(d.f) + count(d.score_x) + count(d.embedding) == 39_463_618
    assert config.optim.d_steps == 1 and config.optim.discriminator_lr == 4 * config.optim.generator_lr
    sizes = []
    model.generator.attention.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-1]))
    model.generator(torch.empty(2, 128, device="meta"), torch.zeros(2, dtype=torch.long, device="meta"))
    assert sizes == [32]


@pytest.mark.run
def test_a_run_takes_the_factors_from_its_settings(tmp_path):
    flags = [
        "--loss.orthogonal=0.01",
        "--model.skip_z=False",
        "--model.shared_embedding=False",
        "--model.prior=censored_normal",
    ]
    with mock.patch("bigbigan.training.optim.add_orthogonal_gradient") as called:
        train(tmp_path, *flags, "--run.images=48", "--run.name=factors", "--run.probe=False")
    assert called.call_args.args[1] == 0.01 and isinstance(called.call_args.args[0], Generator)
    model = bigbigan.load(str(tmp_path / "factors"))
    assert model.generator.embedding is None and model.generator.chunks == [8]
    assert bigbigan.generate(3, model=model).shape == (3, 3, 8, 8)
    _, err = train(tmp_path, "--loss.orthogonal=-1", "--run.name=wrong", code=2)
    assert "--loss.orthogonal -1.0: expected 0 or more" in err
