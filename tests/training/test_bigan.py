"""BiGAN and ALI: their networks, the simultaneous update, the posteriors, the latent regressors, whole runs."""

import contextlib
import copy
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

import bigbigan
from bigbigan.config import Config, Loss, Model, Optim, flatten
from bigbigan.errors import ConfigError
from bigbigan.losses import latent_loss
from bigbigan.metrics.bidirectional import scored_as_encoder_pairs
from bigbigan.metrics.neighbours import nearest
from bigbigan.model import BigBiGAN
from bigbigan.training.batch import Batch
from bigbigan.training.optim import Optimizers, build_optimizers
from bigbigan.training.schedule import rates
from bigbigan.training.variants import build_step
from tests.conftest import make_step, tiny_model, train
from tests.helpers.settings import read_preset
from tests.runs.test_train import same, stats, weights
from tests.training.test_step import make_batch

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = {"family": "mlp", "encoder": "mlp", "grey": True, "mlp_width": 16, "discriminator_norm": "batch"}
UNIFORM = {"prior": "uniform", "posterior": "tanh"}
RUN = (
    *(f"--model.{k}={v}" for k, v in (TINY | UNIFORM).items()),
    "--loss.form=logistic",
    "--optim.d_steps=1",
    "--optim.weight_decay=5e-5",
    "--optim.ema_decay=0",
    "--run.images=144",
    "--run.sample_every=144",
    "--optim.lower_after=48",
    "--optim.lower_images=96",
    "--optim.betas",
    "0.5",
    "0.999",
)


def count(network):
    return sum(p.numel() for p in network.parameters())


def model64(**changes):
    """A model whose D tells pairs apart from the start, as it does after an update."""
    model = tiny_model(**(TINY | changes)).double().train()
    torch.nn.init.normal_(model.discriminator.score.weight, std=0.08)
    return model


# --- networks ---------------------------------------------------------------------------------------------------------


def test_parameters_on_mnist():
    """784 pixels, 1,024 units twice, 50 latents, no biases: sums of products of widths."""
    model = BigBiGAN.from_config(read_preset("bigan_mnist").model)
    assert count(model.generator) == 50 * 1024 + 1024 * 1024 + 50 * 1024 + 1024 * 784 == 1_953_792
    assert count(model.encoder) == 784 * 1024 + 1024 * 1024 + 1024 * 50 == 1_902_592
    assert count(model.discriminator) == 784 * 1024 + 1024 * 1024 + 50 * 1024 + 1024 == 1_903_616
    for name, weight in model.named_parameters():
        std = 0 if name == "discriminator.score.weight" else 0.02  # D's last layer begins at zero, as in the code
        assert weight.ndim == 2 and float(weight.detach().std()) == pytest.approx(std, rel=0.1)


def test_ten_updates_are_those_of_the_code():
    """Against losses and weights that jeffdonahue/bigan printed, in float64, with its Adam's β₁ kept constant.

    Its nets have the size of `bigan/mnist`. Weights but D's last layer, which starts as it does there, and pairs are
    NumPy's. A weight's row: the norm of all that changed in it since the start, and five of its entries; after the
    first update, and after the tenth.
    """
    expected = json.loads((FIXTURES / "bigan-code.json").read_text())
    config = read_preset("bigan/mnist")
    model = BigBiGAN.from_config(config.model).double().train()
    layers = {name: model.get_submodule(name) for name in expected["weights"]}
    random = np.random.RandomState(0)
    for name, layer in layers.items():
        if name != "discriminator.score":
            layer.weight.data = torch.from_numpy(random.normal(0, 0.02, layer.weight.T.shape)).T
    assert sum(layer.weight.numel() for layer in layers.values()) == count(model)
    start = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    x = np.zeros((10, 32, 1, 28, 28))
    x[..., 4:24, 4:24] = random.randint(0, 256, (10, 32, 1, 20, 20)) * (random.uniform(size=(10, 32, 1, 20, 20)) < 0.5)
    z = torch.from_numpy(random.uniform(-1, 1, (10, 32, 50)))
    step = build_step(config, model, build_optimizers(model, config.optim), contextlib.nullcontext)
    for i, losses in enumerate(expected["losses"]):
        pixels = torch.from_numpy(x[i]).expand(-1, 3, -1, -1) / 127.5 - 1
        found = step.iteration(iter([Batch(pixels, z[i], torch.zeros_like(z[i]))]), lambda r: r, i)
        assert [float(found[key]) / 2 for key in ("loss_d", "loss_eg")] == pytest.approx(losses, rel=1e-12)
        for name, layer in layers.items() if i in (0, 9) else ():
            weight, (norm, *entries) = layer.weight.detach(), expected["weights"][name][i == 9]
            assert float((weight - start[name]).norm()) == pytest.approx(norm, rel=1e-8), name
            assert weight.T.flatten()[:: weight.numel() // 5][:5].tolist() == pytest.approx(entries, rel=1e-7), name


def normalised(h):
    return (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-8)


def leaky(h):
    return np.where(h > 0, h, 0.2 * h)


def numbers(network):
    return {name: p.detach().numpy().T for name, p in network.named_parameters()}


def test_the_networks_are_those_of_the_code():
    """Against the same in NumPy, in training; D normalises the two kinds of pairs apart."""
    model, batch = model64(**UNIFORM), make_batch()
    x, z = batch.x, batch.z.tanh()
    pixels = (batch.x.numpy().mean(1).reshape(8, 64) + 1) / 2
    w = numbers(model.generator)
    h = np.maximum(normalised(z.numpy() @ w["linear1.weight"]), 0)
    h = np.maximum(normalised(h @ w["linear2.weight"] + z.numpy() @ w["skip_z.weight"]), 0)
    drawn = 1 / (1 + np.exp(-h @ w["linear3.weight"]))
    images = model.generator(z)
    assert images.shape == (8, 3, 8, 8)
    for channel in range(3):
        np.testing.assert_allclose((images[:, channel].detach().numpy().reshape(8, 64) + 1) / 2, drawn, rtol=1e-8)
    w = numbers(model.encoder)
    h = leaky(normalised(leaky(pixels @ w["trunk.linear1.weight"]) @ w["trunk.linear2.weight"]))
    np.testing.assert_allclose(model.encoder.avepool(x).detach().numpy(), h, rtol=1e-8)
    predicted = np.tanh(h @ w["linear.weight"])
    np.testing.assert_allclose(model.encoder(x).mean.detach().numpy(), predicted, rtol=1e-8)
    w = numbers(model.discriminator)
    expected = [
        leaky(normalised(leaky(p @ w["f.linear1.weight"]) @ w["f.linear2.weight"] + q @ w["f.with_z.weight"]))
        @ w["score.weight"]
        for p, q in ((pixels, predicted), (drawn, z.numpy()))
    ]
    batch.z = z
    step = make_step(model, {"loss.form": "logistic"}, lr=0.0, betas=(0.5, 0.999))
    _, *scores, _ = step.discriminator_forward(batch)
    for ours, theirs in zip(scores, expected, strict=True):
        assert ours.x is None and ours.z is None
        np.testing.assert_allclose(ours.xz.detach().numpy(), theirs[:, 0], rtol=1e-7)


def test_a_discriminator_without_batch_norm_has_biases_and_scores_a_pair_alone():
    d, batch = model64(discriminator_norm="none").discriminator, make_batch()
    assert count(d) == 64 * 16 + 16 + 16 * 16 + 16 + 8 * 16 + 16 + 1
    together = d(batch.x, batch.z).xz
    torch.testing.assert_close(together[:3], d(batch.x[:3], batch.z[:3]).xz)
    w = {name: p.detach().numpy() for name, p in d.named_parameters()}
    h = leaky((1 + batch.x.numpy().mean(1).reshape(8, 64)) / 2 @ w["f.linear1.weight"].T + w["f.linear1.bias"])
    h = leaky(h @ w["f.linear2.weight"].T + w["f.linear2.bias"] + batch.z.numpy() @ w["f.with_z.weight"].T)
    np.testing.assert_allclose(together.detach().numpy(), (h @ w["score.weight"].T + w["score.bias"])[:, 0], rtol=1e-8)


def test_colour_images_have_planes_of_their_own():
    model = model64(grey=False, **UNIFORM)
    assert (
        count(model.generator) == 8 * 16 + 16 * 16 + 8 * 16 + 16 * 192
        and count(model.encoder.trunk) == 192 * 16 + 16 * 16
    )
    x = model.generator(make_batch().z)
    assert x.shape == (8, 3, 8, 8) and not torch.allclose(x[:, 0], x[:, 1])


def test_the_posterior_of_ali_is_mean_and_log_sigma():
    encoder, x = model64(posterior="log_sigma").encoder, make_batch().x
    features = encoder.avepool(x)
    mean, log_sigma = F.linear(features, encoder.linear.weight).split(8, dim=1)
    noise = torch.randn(8, 8, dtype=torch.float64)
    expected = torch.distributions.Normal(mean, log_sigma.exp())
    posterior = encoder(x)
    torch.testing.assert_close(posterior.mean, expected.mean)
    torch.testing.assert_close(posterior.stddev, expected.stddev)
    torch.testing.assert_close(posterior.sample(noise), mean + noise * torch.e**log_sigma)
    assert encoder.linear.out_features == 16


# --- updates ----------------------------------------------------------------------------------------------------------


def gradients_of(model, step, batch):
    """What the optimisers are given in one iteration on one batch, by name."""
    kept = {}

    class Keep(torch.optim.SGD):
        def step(self):
            kept.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
            super().step()

    of_encoder_and_generator = [*model.encoder.parameters(), *model.generator.parameters()]
    step.optimizers = Optimizers(Keep(model.discriminator.parameters(), lr=1.0), Keep(of_encoder_and_generator, lr=1.0))
    step.discriminator_update(batch)
    step.encoder_generator_update(batch)
    return kept


def both_losses(model, batch):
    """L_D and L_EG of BiGAN and ALI, written out (logistic, one score)."""
    posterior = model.encoder(batch.x)
    real = model.discriminator(batch.x, posterior.mean + batch.noise * posterior.stddev).xz
    fake = model.discriminator(model.generator(batch.z), batch.z).xz
    probabilities = torch.sigmoid(real), torch.sigmoid(fake)
    loss_d = -(probabilities[0].log() + (1 - probabilities[1]).log()).mean()
    return loss_d, -((1 - probabilities[0]).log() + probabilities[1].log()).mean()


@pytest.mark.parametrize("simultaneous", [True, False])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_simultaneous_update_is_of_one_point(simultaneous, norm):
    model, batch = model64(posterior="log_sigma", discriminator_norm=norm), make_batch()
    before = copy.deepcopy(dict(model.named_parameters()))
    expected = {}
    for loss, names in zip(both_losses(model, batch), (["discriminator"], ["encoder", "generator"]), strict=True):
        named = [(n, p) for n, p in model.named_parameters() if n.split(".")[0] in names]
        expected |= dict(
            zip([n for n, _ in named], torch.autograd.grad(loss, [p for _, p in named], retain_graph=True), strict=True)
        )
    step = make_step(model, {"loss.form": "logistic", "optim.d_steps": 1, "optim.simultaneous": simultaneous})
    found = gradients_of(model, step, batch)
    assert found.keys() == expected.keys() == before.keys()
    for name, gradient in expected.items():
        alike = torch.allclose(found[name], gradient, rtol=1e-9, atol=1e-13)
        assert alike == (simultaneous or name.startswith("discriminator.")), name
        torch.testing.assert_close(model.get_parameter(name), before[name] - found[name])
        assert model.get_parameter(name).grad is None


def test_a_broken_simultaneous_update_moves_nothing():
    model, batch = model64(posterior="log_sigma"), make_batch()
    before = copy.deepcopy(model.state_dict())
    batch.x[0, 0, 0, 0] = torch.nan
    step = make_step(model, {"loss.form": "logistic", "optim.d_steps": 1, "optim.simultaneous": True})
    step.discriminator_update(batch)
    step.encoder_generator_update(batch)
    assert step.health.found()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_running_statistics_of_d_are_those_of_both_kinds_together():
    model, batch = model64(**UNIFORM), make_batch()
    step = make_step(model, {"loss.form": "logistic"}, lr=0.0, betas=(0.5, 0.999))
    f = model.discriminator.f
    inputs = []
    hook = f.norm.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
    step.discriminator_update(batch)
    hook.remove()
    assert len(inputs) == 2
    together = torch.cat(inputs)
    torch.testing.assert_close(f.norm.running_mean, 0.1 * together.mean(0))
    torch.testing.assert_close(f.norm.running_var, 0.9 + 0.1 * together.var(0, correction=0))
    step.encoder_generator_update(batch)
    torch.testing.assert_close(f.norm.running_mean, 0.1 * together.mean(0))


@pytest.mark.parametrize(("weight", "posterior", "slope"), [(0.0, "tanh", 2), (0.25, "tanh", 2), (0.25, "sigmoid", 1)])
def test_latent_regressors(weight, posterior, slope):
    """E learns z from G(z) with BiGAN's cross-entropy; G learns to fool D, and by `weight` to let E; D sees no
    latents."""
    model, batch = model64(joint=False, prior="uniform", posterior=posterior), make_batch()
    assert not model.encoder.linear.weight.any(), "E begins with zeros"
    torch.nn.init.normal_(model.encoder.linear.weight, std=0.5)
    batch.z = batch.z.tanh()
    x_hat = model.generator(batch.z)
    predicted = torch.sigmoid(slope * F.linear(model.encoder.avepool(x_hat), model.encoder.linear.weight))
    error = F.binary_cross_entropy(predicted, (1 + batch.z) / 2)
    real, fake = model.discriminator(batch.x).x, model.discriminator(x_hat).x
    losses = {
        "discriminator": F.softplus(-real).mean() + F.softplus(fake).mean(),
        "generator": F.softplus(-fake).mean() + weight * error,
        "encoder": error,
    }
    expected = {}
    for name, loss in losses.items():
        named = dict(getattr(model, name).named_parameters(prefix=name))
        expected |= dict(zip(named, torch.autograd.grad(loss, [*named.values()], retain_graph=True), strict=True))
    simultaneous = {"optim.d_steps": 1, "optim.simultaneous": True}
    step = make_step(model, {"loss.form": "logistic", "loss.latent_weight": weight} | simultaneous)
    found = gradients_of(model, step, batch)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-11, msg=name)


def test_the_error_of_a_regressor():
    torch.manual_seed(0)
    z, predicted = torch.rand(2, 5, 3, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(
        latent_loss(predicted, z, True), F.binary_cross_entropy((1 + predicted) / 2, (1 + z) / 2)
    )
    torch.testing.assert_close(latent_loss(3 * predicted, z, False), F.mse_loss(3 * predicted, z) / 2)
    assert latent_loss(torch.ones(1, 1), torch.zeros(1, 1), True).isfinite()


@pytest.mark.parametrize("changes", [{}, {"family": "progressive", "encoder": "progressive", "feature_base": 32}])
def test_other_families_have_latent_regressors_too(changes):
    small = {"posterior": "deterministic", "joint": False} | changes
    model, batch = tiny_model(**small).double().train(), make_batch()
    found = gradients_of(model, make_step(model), batch)
    assert {name.split(".")[0] for name, gradient in found.items() if gradient.any()} == {
        "discriminator",
        "encoder",
        "generator",
    }
    assert not hasattr(model.discriminator, "h")


def test_adam_has_the_l2_penalty_in_its_gradient():
    model = tiny_model(**TINY, **UNIFORM)
    optimizer = make_step(model, lr=0.1, betas=(0.5, 0.999), weight_decay=0.01).optimizers.discriminator
    p = model.discriminator.score.weight
    x, mean, square = p.detach().double().numpy().copy(), 0.0, 0.0
    for t in range(1, 4):
        p.grad = torch.full_like(p, 0.001 * t)
        g = 0.001 * t + 0.01 * x
        mean, square = 0.5 * mean + 0.5 * g, 0.999 * square + 0.001 * g**2
        x -= 0.1 * mean / (1 - 0.5**t) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), x, rtol=1e-4, atol=1e-6)


def test_rates_fall_exponentially():
    o = Optim(generator_lr=2e-4, lower_after=100, lower_images=200, lower_factor=0.01)
    found = [rates(o, seen)["generator"] for seen in (0, 99, 100, 200, 300, 1000)]
    assert found == pytest.approx([2e-4, 2e-4, 2e-4, 2e-5, 2e-6, 2e-6])
    at_once = Optim(generator_lr=2e-4, lower_after=100, lower_factor=0.01)
    assert rates(at_once, 100)["generator"] == pytest.approx(2e-6)


# --- figures, settings, runs ------------------------------------------------------------------------------------------


def test_the_nearest_neighbour_is_that_of_scikit_learn():
    torch.manual_seed(0)
    x, y, x_test = torch.randn(50, 4), torch.randint(0, 5, (50,)), torch.randn(30, 4)
    expected = KNeighborsClassifier(1).fit(x.numpy(), y.numpy()).predict(x_test.numpy())
    assert np.array_equal(y[nearest(x_test, x)[1][:, 0]].numpy(), expected)


def test_the_presets():
    mnist, digits, ali, lr, jlr = (
        flatten(read_preset(name))
        for name in ("bigan_mnist", "bigan_digits", "ali_digits", "bigan_digits_lr", "bigan_digits_jlr")
    )
    published = {  # its train_mnist.sh and train_gan.py
        "model.latent_dim": 50,
        "model.prior": "uniform",
        "model.posterior": "sigmoid",
        "data.batch_size": 128,
        "optim.betas": (0.5, 0.999),
        "optim.eps": 2 * 1e-8,  # for sums of the two kinds' losses in place of means, and so the next
        "optim.weight_decay": 2 * 2.5e-5,
        "optim.generator_lr": 2e-4,
        "optim.encoder_lr": 2e-4,
        "optim.discriminator_lr": 2e-4,
        "optim.lower_factor": 0.01,
        "optim.d_steps": 1,
        "optim.simultaneous": True,
        "loss.form": "logistic",
        "run.images": 400 * 60_000,
        "optim.lower_after": 200 * 60_000,
        "optim.lower_images": 200 * 60_000,
    }
    assert {key: mnist[key] for key in published} == published
    changed = lambda a, b: {key: b[key] for key in b if a[key] != b[key]}  # noqa: E731
    assert {key for key in changed(mnist, digits) if not key.startswith(("run.", "optim.lower_", "data.path"))} == {
        "model.image_size",
        "model.mlp_width",
    }
    assert changed(digits, ali) == {
        "model.prior": "normal",
        "model.posterior": "log_sigma",
        "model.discriminator_norm": "none",
        "optim.eps": 1e-8,
    }
    assert changed(digits, lr) == {"model.joint": False}
    assert changed(lr, jlr) == {"loss.latent_weight": 0.25}
    for name in ("bigan_mnist", "bigan_digits", "ali_digits", "bigan_digits_lr", "bigan_digits_jlr"):
        read_preset(name).validate()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": Model(family="progressive", encoder="mlp")}, "--model.encoder mlp: expected --model.family mlp"),
        ({"model": Model(encoder="mlp")}, "--model.family biggan with --model.encoder mlp"),
        ({"model": Model(**TINY, classes=3)}, "family mlp: expected --model.classes 0"),
        ({"model": Model(family="progressive", grey=True)}, "--model.grey True: expected --model.family biggan or mlp"),
        (
            {"model": Model(joint=False)},
            "--model.joint False: expected --model.posterior deterministic, tanh or sigmoid",
        ),
        ({"model": Model(joint=False, **UNIFORM), "loss": Loss(unary_x=False)}, "expected --loss.unary_x True"),
        ({"loss": Loss(latent_weight=0.25)}, "latent_weight 0.25: expected --model.joint False"),
        (
            {"model": Model(joint=False, **UNIFORM), "loss": Loss(latent_weight=-1.0)},
            "latent_weight -1.0: expected a number above 0",
        ),
        ({"optim": Optim(simultaneous=True)}, "--optim.d_steps 2: expected 1"),
        ({"model": Model(**TINY), "loss": Loss(r1=1.0)}, "discriminator_norm batch: expected --loss.r1 0"),
        (
            {"model": Model(**TINY), "loss": Loss(form="wgan_gp")},
            "discriminator_norm batch: expected --loss.r1 0 and no wgan_gp",
        ),
        ({"loss": Loss(form="wgan_gp")}, "wgan_gp: expected a D without spectral norm"),
        (
            {
                "model": Model(family="progressive", encoder="progressive", discriminator_norm="spectral"),
                "loss": Loss(form="wgan_gp"),
            },
            "wgan_gp: expected a D without spectral norm",
        ),
        (
            {"model": Model(discriminator_norm="batch")},
            "discriminator_norm batch: expected batch or none for --model.family mlp",
        ),
        (
            {"model": Model(**TINY | {"discriminator_norm": "layer"})},
            "discriminator_norm layer: expected batch or none",
        ),
        ({"model": Model(**TINY), "optim": Optim(dropout=0.5)}, "dropout 0.5: expected 0 for --model.family mlp"),
        ({"optim": Optim(lower_images=10)}, "lower_images 10: expected --optim.lower_after"),
        ({"optim": Optim(weight_decay=-1.0)}, "weight_decay -1.0: expected a number above 0"),
    ],
)
def test_settings_that_cannot_be_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        Config(**changes).validate()


@pytest.mark.run
def test_a_bigan_run_resumes_bit_for_bit_and_can_be_used(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    flags = (*RUN, "--optim.simultaneous=True", "--run.evaluate_every=144", "--run.evaluate_images=60")
    flags = (*flags, "--run.selection_share=0")  # as in the preset: all images are trained on
    with mock.patch("eval_linear.quick.quick_generation", return_value={}):  # trains a classifier for its FID
        out, _ = train(tmp_path, "--run.name=straight", *flags)
    assert "1 D update and one of E+G at once on 8 images" in out and "linear, full batch" in out
    train(tmp_path, "--run.name=cut", *RUN, "--optim.simultaneous=True", "--run.probe=False", "--run.images=72")
    train(tmp_path, "--run.name=cut", *RUN, "--optim.simultaneous=True", "--run.probe=False")
    assert same(weights(tmp_path / "cut", 144), weights(tmp_path / "straight", 144))
    lines = stats(tmp_path / "straight")
    assert lines[0]["iteration"] == 3, "an iteration takes one batch"
    assert all("score_xz_real" in line and "score_x_real" not in line for line in lines if "loss_d" in line)
    found = next(line for line in lines if "top1_1nn" in line)
    assert 0 <= found["top1_1nn"] <= 1 and found["reconstruction_error_relative"] > 0
    assert "Nearest neighbour, top-1" in (tmp_path / "straight" / "report.html").read_text()
    model = bigbigan.load(str(tmp_path / "straight"))
    images = torch.rand(5, 3, 8, 8) * 2 - 1
    encoded = bigbigan.encode(images, model=model)
    with torch.no_grad():
        hidden = model.encoder.trunk(images)
    assert torch.equal(encoded["avepool_feat"], hidden) and encoded["bn_crelu_feat"].shape == (5, 32)
    assert encoded["z_mean"].abs().max() < 1 and not encoded["z_stdev"].any()
    assert bigbigan.discriminate(images, encoded["z_mean"], model=model).keys() == {"score_xz"}
    assert bigbigan.generate(3, model=model).shape == (3, 3, 8, 8)


@pytest.mark.run
def test_a_latent_regressor_run(tmp_path):
    flags = (*RUN, "--optim.simultaneous=False", "--model.joint=False", "--loss.latent_weight=0.25")
    train(tmp_path, "--run.name=straight", *flags, "--run.probe=False")
    train(tmp_path, "--run.name=cut", *flags, "--run.probe=False", "--run.images=72")
    train(tmp_path, "--run.name=cut", *flags, "--run.probe=False")
    assert same(weights(tmp_path / "cut", 144), weights(tmp_path / "straight", 144))
    lines = [line for line in stats(tmp_path / "straight") if "loss_d" in line]
    assert lines[0]["iteration"] == 3, "E and G take no real images"
    assert "score_x_real" in lines[0] and "score_xz_real" not in lines[0]


@pytest.mark.parametrize(("changes", "names"), [({}, {"score_xz"}), ({"joint": False}, {"score_x"})])
def test_what_d_calls_real_is_told_of_the_scores_it_has(changes, names):
    model, x = tiny_model(**(TINY | UNIFORM | changes)).eval(), make_batch().x.float()
    scores = model.discriminate(x, model.encoder(x).mean)
    share = float((next(iter(scores.values())) > 0).double().mean())
    assert scores.keys() == names
    assert scored_as_encoder_pairs(model, x) == {"sum": share} | ({"score_x": share} if "score_x" in names else {})
