"""BigGAN's remedies against collapse, each against its formula written out; off, they change nothing."""

import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist

from bigbigan.config import Config, Optim
from bigbigan.losses import Scores, discriminator_loss, r1_penalty
from bigbigan.networks.layers import SNConv2d, SNLinear, advance_power_iteration, clamp_sigma, spectral_layers
from bigbigan.noise import dropout_factors
from bigbigan.training.batch import Batch
from bigbigan.training.schedule import rates, set_rates
from tests.conftest import make_step, tiny_model, train
from tests.helpers.children import SMALLEST, free_port
from tests.runs.test_distributed import spawn
from tests.runs.test_train import same, weights
from tests.training.test_step import make_batch

SMALL = {"encoder_blocks": (1, 1, 1, 1), "encoder_width": 0.03125}


def network():
    """Two layers with known singular values and converged u, v."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(SNLinear(9, 6), SNConv2d(2, 5, 3)).double()
    for layer in layers:
        u, _, vt = torch.linalg.svd(layer.weight.detach().flatten(1), full_matrices=False)
        values = torch.tensor([5.0, 2.0, 1.0, 0.5, 0.2, 0.1])[: len(vt)].double()
        layer.weight.data = (u * values @ vt).view_as(layer.weight)
    advance_power_iteration(layers, 100)
    return layers


def spectrum(layer):
    return torch.linalg.svdvals(layer.weight.detach().flatten(1))


@pytest.mark.parametrize(
    ("settings", "top"),
    [({"largest": 3.0}, 3.0), ({"largest": 8.0}, 5.0), ({"ratio": 1.5}, 3.0), ({"ratio": 4.0}, 5.0)],
)
def test_the_clamp_lowers_sigma0_and_nothing_else(settings, top):
    layers = network()
    before = [layer.weight.detach().clone() for layer in layers]
    clamp_sigma(layers, **settings)
    for layer, old in zip(layers, before, strict=True):
        u, values, vt = torch.linalg.svd(old.flatten(1), full_matrices=False)
        limit = settings.get("largest") or settings["ratio"] * values[1]
        expected = old.flatten(1) - max(0, values[0] - limit) * torch.outer(
            u[:, 0], vt[0]
        )  # W − max(0, σ0 − σ_clamp) u0 v0ᵀ
        torch.testing.assert_close(layer.weight.detach().flatten(1), expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(spectrum(layer)[:3], torch.tensor([top, 2.0, 1.0]).double(), atol=1e-6, rtol=1e-6)


def test_the_relative_clamp_leaves_layers_of_one_singular_value_alone():
    layer = SNLinear(5, 1)
    layers = torch.nn.Sequential(layer)
    advance_power_iteration(layers, 5)  # so that u and v are of its one value, and nothing is left beside it
    before = layer.weight.detach().clone()
    clamp_sigma(layers, ratio=0.5)
    assert torch.equal(layer.weight, before)


def test_the_step_clamps_the_networks_it_is_told_to():
    for networks in ("generator", "discriminator", "both"):
        model = tiny_model(**SMALL).double().train()
        for layer in spectral_layers(model):
            layer.weight.data *= 4  # σ0 = 4 everywhere, since they begin orthogonal
        step = make_step(model, {"optim.sigma_clamp": 3.0, "optim.sigma_networks": networks}, lr=0.0)
        step.discriminator_update(make_batch())
        step.encoder_generator_update(make_batch())
        names = {layer: name.split(".")[0] for name, layer in model.named_modules()}
        four = torch.tensor(4.0).double()
        touched = {names[layer] for layer in spectral_layers(model) if not torch.allclose(spectrum(layer), four)}
        assert touched == ({"generator", "discriminator"} if networks == "both" else {networks})


def test_r1_of_a_discriminator_whose_gradient_is_known():
    """s_x = a·x, s_z = b·z², s_xz = x·C z: ∇ = (a + Cz, 2bz + Cᵀx)."""
    torch.manual_seed(0)
    x, z = (
        torch.randn(7, 4, dtype=torch.float64, requires_grad=True),
        torch.randn(7, 3, dtype=torch.float64, requires_grad=True),
    )
    a, b, c = torch.randn(4).double(), 1.7, torch.randn(4, 3).double()
    found = r1_penalty(Scores(x @ a, b * z.square().sum(1), ((x @ c) * z).sum(1)), [x, z])
    expected = ((a + z @ c.T).square().sum(1) + (2 * b * z + x @ c).square().sum(1)).mean()
    torch.testing.assert_close(found, expected)


def gradients(chunks=1, number=0, batch=None, dropout=0.0, **loss):
    model = tiny_model(discriminator_attention=4, discriminator_width=4, **SMALL).double().train()
    model.discriminator.f.attention.gamma.data += 0.7  # else attention is closed
    settings = {"data.chunks": chunks, "optim.dropout": dropout} | {f"loss.{k}": v for k, v in loss.items()}
    step = make_step(model, settings)
    found = {}
    step.optimizers.discriminator.step = lambda: found.update(
        {n: p.grad.clone() for n, p in model.discriminator.named_parameters()}
    )
    model.encoder.eval()  # so that a chunk's statistics are not its own
    model.generator.eval()
    step.discriminator_update(batch or make_batch(), number)
    return found, model


def by_hand(model, batch, gamma):
    """The gradient of L_D + γ/2 E‖∇D(x, ẑ)‖², one image after the other."""
    with torch.no_grad():
        z_hat, x_hat = model.encoder(batch.x).sample(batch.noise), model.generator(batch.z)
    d = model.discriminator
    loss = discriminator_loss(d(batch.x, z_hat), d(x_hat, batch.z))
    for x, z in zip(batch.x, z_hat, strict=True):
        x, z = x[None].clone().requires_grad_(), z[None].clone().requires_grad_()
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            slopes = torch.autograd.grad(sum(d(x, z)).sum(), (x, z), create_graph=True)
        loss = loss + gamma / 2 / len(batch.x) * sum(s.square().sum() for s in slopes)
    return dict(zip(dict(d.named_parameters()), torch.autograd.grad(loss, list(d.parameters())), strict=True))


@pytest.mark.parametrize("chunks", [1, 4])
def test_the_r1_gradient_is_that_of_the_formula_whole_and_in_chunks(chunks):
    found, model = gradients(chunks, r1=3.0)
    for name, expected in by_hand(model, make_batch(), 3.0).items():
        torch.testing.assert_close(found[name], expected, msg=name)


def test_lazy_r1_is_now_and_then_and_as_much_stronger():
    without, _ = gradients()
    lazy = [gradients(number=n, r1=1.0, r1_interval=4)[0] for n in (0, 3, 4)]
    whole, _ = gradients(r1=4.0)
    for name in without:
        assert torch.equal(lazy[1][name], without[name])
        torch.testing.assert_close(lazy[0][name], whole[name])
        assert torch.equal(lazy[0][name], lazy[2][name])


def test_dropout_is_a_function_of_seed_and_place_with_the_right_share():
    places = np.arange(100, 400)
    factors = dropout_factors(3, places, 50, 0.2)
    assert factors.shape == (300, 2, 50) and set(factors.unique().tolist()) == {0.0, 1.25}
    assert (factors == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(dropout_factors(3, places[7::3], 50, 0.2), factors[7::3]), "a process's share of the rows"
    assert not torch.equal(dropout_factors(4, places, 50, 0.2), factors)
    assert not torch.equal(factors[:, 0], factors[:, 1]), "the two pairs of an image have their own"


@pytest.mark.parametrize("classes", [0, 3])
def test_dropout_acts_on_the_input_of_the_last_layers(classes):
    model = tiny_model(classes=classes).double()
    d, batch = model.discriminator, make_batch()
    labels = torch.arange(8) % classes if classes else None
    factors = dropout_factors(0, np.arange(8), d.last_features, 0.5)[:, 0].double()
    found = d(batch.x, batch.z, labels, factors)
    f, h = d.f(batch.x), d.h(batch.z)
    j = d.j(torch.cat([f, h], 1))
    a, b, c = factors[:, : f.shape[1]], factors[:, f.shape[1] : -j.shape[1]], factors[:, -j.shape[1] :]
    s_x = (f * a) @ d.score_x.normalised_weight()[0] + d.score_x.bias
    if classes:
        s_x = s_x + (d.embedding(labels) * f * a).sum(1)
    torch.testing.assert_close(found.x, s_x)
    torch.testing.assert_close(found.z, (h * b) @ d.score_z.normalised_weight()[0] + d.score_z.bias)
    torch.testing.assert_close(found.xz, (j * c) @ d.score_xz.normalised_weight()[0] + d.score_xz.bias)


def test_dropout_of_a_batch_reaches_its_pairs_whole_and_in_chunks():
    batch = dropped_batch()
    (whole, model), (parts, _) = (gradients(chunks, batch=batch, dropout=0.5, r1=1.0) for chunks in (1, 4))
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], msg=name)
    d = model.discriminator
    with torch.no_grad():
        z_hat, x_hat = model.encoder(batch.x).sample(batch.noise), model.generator(batch.z)
    real, fake = (
        d(batch.x, z_hat, None, batch.extra["dropout"][:, 0]),
        d(x_hat, batch.z, None, batch.extra["dropout"][:, 1]),
    )
    expected = torch.autograd.grad(discriminator_loss(real, fake), d.score_z.weight)[0]
    torch.testing.assert_close(gradients(batch=batch, dropout=0.5)[0]["score_z.weight"], expected)


def test_rates_fall_at_an_image_stand_still_when_frozen_and_remember_recoveries():
    o = Optim(
        generator_lr=1.0,
        discriminator_lr=2.0,
        encoder_lr=4.0,
        lower_after=100,
        lower_factor=0.25,
        lower_networks="encoder_generator",
    )
    assert rates(o, 99) == {"generator": 1.0, "discriminator": 2.0, "encoder": 4.0}
    assert rates(o, 100, {"encoder": 0.5}) == {"generator": 0.25, "discriminator": 2.0, "encoder": 0.5}
    o.freeze = "discriminator"
    assert rates(o, 0)["discriminator"] == 0 and rates(o, 0)["encoder"] == 4
    assert rates(Optim(), 10**12) == {"generator": 5e-5, "discriminator": 2e-4, "encoder": 5e-5}


@pytest.mark.parametrize(
    ("freeze", "moving"),
    [
        ("discriminator", {"encoder", "generator"}),
        ("encoder_generator", {"discriminator"}),
        ("generator", {"encoder", "discriminator"}),
    ],
)
def test_a_frozen_network_stands_still(freeze, moving):
    model = tiny_model(**SMALL).train()
    step, before = make_step(model), copy.deepcopy(dict(model.named_parameters()))
    set_rates(step.optimizers.named(), rates(Optim(freeze=freeze), 0))
    batch = make_batch()
    for _ in range(2):
        step.discriminator_update(Batch(batch.x.float(), batch.z.float(), batch.noise.float()))
        step.encoder_generator_update(Batch(batch.x.float(), batch.z.float(), batch.noise.float()))
    assert {n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])} == moving


REMEDIES = (
    *SMALLEST,
    "--run.sample_every=144",
    "--run.images=144",
    "--run.checkpoint_every=24",
    "--loss.r1=0.1",
    "--loss.r1_interval=4",
    "--optim.dropout=0.2",
    "--optim.sigma_clamp_ratio=1.2",
    "--optim.sigma_networks=both",
    "--optim.lower_after=96",
    "--optim.freeze=encoder",
)


@pytest.mark.run
def test_a_run_with_all_remedies_resumes_bit_for_bit(tmp_path):
    train(tmp_path, "--run.name=straight", *REMEDIES)
    train(tmp_path, "--run.name=cut", *REMEDIES, "--run.images=72")
    train(tmp_path, "--run.name=cut", *REMEDIES)
    assert same(weights(tmp_path / "cut", 144), weights(tmp_path / "straight", 144))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss.r1": -1.0}, "--loss.r1 -1.0: expected a number above 0, or 0"),
        ({"loss.r1_interval": 0}, "--loss.r1_interval 0: expected at least 1"),
        ({"optim.dropout": 1.0}, "--optim.dropout 1.0: expected a number from 0 to below 1"),
        ({"optim.lower_factor": 2.0}, "--optim.lower_factor 2.0"),
        ({"optim.sigma_clamp": float("inf")}, "--optim.sigma_clamp inf"),
        ({"optim.sigma_clamp": 1.0, "optim.sigma_clamp_ratio": 2.0}, "expected one of the two"),
        (
            {"run.spectra_every": 0, "run.on_collapse": "stop"},
            "--run.on_collapse stop: expected --run.spectra_every too",
        ),
        ({"run.recoveries": -1}, "--run.recoveries -1: expected at least 0"),
        ({"optim.lower_after": -1}, "--optim.lower_after -1"),
    ],
)
def test_settings_that_cannot_be_are_named(change, message):
    config = Config()
    for key, value in change.items():
        section, name = key.split(".")
        setattr(getattr(config, section), name, value)
    with pytest.raises(ValueError, match="--") as error:
        config.validate()
    assert message in str(error.value)


def its_share(rank, processes, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
    whole = dropped_batch()
    share = Batch(*(c[rank::processes] for c in (whole.x, whole.z, whole.noise)))
    share.extra["dropout"] = whole.extra["dropout"][rank::processes]
    found, _ = gradients(chunks=2, batch=share, dropout=0.5, r1=3.0)
    torch.save(found, f"{folder}/{rank}.pt")


def dropped_batch():
    batch = make_batch()
    width = tiny_model(discriminator_attention=4, discriminator_width=4, **SMALL).discriminator.last_features
    batch.extra["dropout"] = dropout_factors(0, np.arange(8), width, 0.5).double()
    return batch


def test_r1_and_dropout_of_two_processes_in_chunks_are_those_of_the_joined_batch(tmp_path):
    spawn(its_share, 2, free_port(), str(tmp_path))
    whole, _ = gradients(batch=dropped_batch(), dropout=0.5, r1=3.0)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, expected in whole.items():
            torch.testing.assert_close(found[name], expected, msg=name)
