"""The two updates: who moves, what the gradients are, chunks, averages."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bigbigan.config import Optim
from bigbigan.networks.layers import batch_norms, spectral_layers
from bigbigan.noise import normal_noise
from bigbigan.training.batch import Batch
from bigbigan.training.ema import Averages, standing_statistics
from bigbigan.training.optim import adam_kind, build_optimizers
from tests.conftest import make_step, tiny_model


def make(chunks=1, **changes):
    model = tiny_model(**changes).double().train()
    return model, make_step(model, {"data.chunks": chunks})


def make_batch(n=8, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return Batch(draw(n, 3, size, size).tanh(), draw(n, 8), draw(n, 8))


def moved(before: dict, after: dict) -> set[str]:
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def snapshot(model):
    return copy.deepcopy(dict(model.named_parameters()))


def test_a_d_update_moves_only_d():
    model, step = make()
    before, buffers = snapshot(model), copy.deepcopy(dict(model.named_buffers()))
    step.discriminator_update(make_batch())
    assert moved(before, dict(model.named_parameters())) == {"discriminator"}
    changed = {n for n, b in model.named_buffers() if not torch.equal(b, buffers[n])}
    assert changed and all(n.startswith("discriminator.") and n[-2:] in (".u", ".v") for n in changed)
    assert all(p.grad is None for p in model.parameters())


def test_an_eg_update_moves_only_e_and_g():
    model, step = make()
    before, buffers = snapshot(model), copy.deepcopy(dict(model.named_buffers()))
    step.encoder_generator_update(make_batch())
    assert moved(before, dict(model.named_parameters())) == {"generator", "encoder"}
    changed = {n for n, b in model.named_buffers() if not torch.equal(b, buffers[n])}
    assert not any(n.startswith("discriminator.") for n in changed)
    assert any("running_mean" in n and n.startswith("encoder.") for n in changed), "E's running statistics move"
    assert not any("running" in n and n.startswith("generator.") for n in changed), "G keeps none"


def test_every_parameter_of_every_network_learns():
    model, step = make(generator_attention=8, discriminator_attention=4, generator_width=4, discriminator_width=4)
    before = snapshot(model)
    for seed in range(4):  # closed branches (γ = 0, zero-initialised layers) open after their gates have moved
        step.discriminator_update(make_batch(seed=seed))
        step.encoder_generator_update(make_batch(seed=seed))
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert still == []


def test_the_d_gradient_is_that_of_the_written_out_objective():
    model, step = make()
    batch = make_batch()
    captured = {}
    step.optimizers.discriminator.step = lambda: captured.update(
        {n: p.grad.clone() for n, p in model.discriminator.named_parameters()}
    )
    step.discriminator_update(batch)
    d = model.discriminator
    with torch.no_grad():
        z_hat, x_hat = model.encoder(batch.x).sample(batch.noise), model.generator(batch.z)
    loss = 0
    for y, (x, z) in ((1, (batch.x, z_hat)), (-1, (x_hat, batch.z))):  # two separate forwards instead of one joined
        loss = loss + sum(F.relu(1 - y * s).mean() for s in d(x, z))
    gradients = torch.autograd.grad(loss, list(d.parameters()))
    for (name, _), gradient in zip(d.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(captured[name], gradient, msg=name)


def test_the_eg_gradient_is_that_of_the_written_out_objective():
    model, step = make()
    batch = make_batch()
    captured = {}
    names = [n for n, _ in model.named_parameters() if not n.startswith("discriminator.")]
    step.optimizers.encoder_generator.step = lambda: captured.update(
        {n: p.grad.clone() for n, p in model.named_parameters() if n in names}
    )
    step.encoder_generator_update(batch)
    z_hat = model.encoder(batch.x).sample(batch.noise)
    loss = sum(s.mean() for s in model.discriminator(batch.x, z_hat))
    loss = loss - sum(s.mean() for s in model.discriminator(model.generator(batch.z), batch.z))
    named = [(n, p) for n, p in model.named_parameters() if n in names and "feature_norm" not in n]
    gradients = torch.autograd.grad(loss, [p for _, p in named])
    for (name, _), gradient in zip(named, gradients, strict=True):
        torch.testing.assert_close(captured[name], gradient, msg=name)


def test_the_g_update_of_a_gan_shows_d_its_samples_alone():
    """Real images have no part in L_G = −mean s_x(G(z)): D is shown N images in it, and 2N in its own update."""
    model, step = make(encoder="none")
    batch, seen, captured = make_batch(), [], []
    shown = model.discriminator.f.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    step.optimizers.encoder_generator.step = lambda: captured.extend(p.grad.clone() for p in parameters)
    parameters = list(model.generator.parameters())
    step.discriminator_update(batch)
    step.encoder_generator_update(batch)
    shown.remove()
    assert seen == [16, 8]
    gradients = torch.autograd.grad(-model.discriminator(model.generator(batch.z)).x.mean(), parameters)
    for got, expected in zip(captured, gradients, strict=True):
        torch.testing.assert_close(got, expected)


def test_a_d_update_raises_encoder_pairs_over_generator_pairs():
    model, step = make()
    batch = make_batch(32)
    gaps = []
    for _ in range(40):
        r = step.discriminator_update(batch)
        gaps.append(float(sum(r[f"score_{t}_real"] - r[f"score_{t}_fake"] for t in ("x", "z", "xz"))))
    assert gaps[-1] > gaps[0] + 1


def test_an_eg_update_does_the_opposite():
    model, step = make()
    batch = make_batch(32)
    for _ in range(20):
        step.discriminator_update(batch)
    losses = [float(step.encoder_generator_update(batch)["loss_eg"]) for _ in range(40)]
    assert losses[-1] < losses[0] - 0.5


def test_chunks_give_the_gradient_of_the_whole_where_nothing_looks_across_the_batch():
    """With batch norms frozen, chunking changes nothing; their statistics are those of a chunk."""
    results = []
    for chunks in (1, 4):
        model, step = make(chunks)
        for norm in batch_norms(model):
            norm.eval()
        for optimizer in (step.optimizers.discriminator, step.optimizers.encoder_generator):
            optimizer.step = lambda: None
            optimizer.zero_grad = lambda **_: None
        step.discriminator_update(make_batch())
        gradients = {n: p.grad.clone() for n, p in model.discriminator.named_parameters()}
        report = step.encoder_generator_update(make_batch())
        gradients |= {
            n: p.grad.clone()
            for n, p in model.named_parameters()
            if p.grad is not None and not n.startswith("discriminator")
        }
        results.append((gradients, report))
    (whole, a), (parts, b) = results
    assert whole.keys() == parts.keys()
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], msg=name)
    torch.testing.assert_close(a["loss_eg"], b["loss_eg"])


def test_adam_is_fused_only_where_that_leaves_a_void_update_out():
    assert [adam_kind(device).get("fused") for device in ("cpu", "cuda", "mps", "xla")] == [True, True, False, None]


def test_rates_are_per_network():
    model = tiny_model()
    d, eg = build_optimizers(model, Optim(generator_lr=1.0, discriminator_lr=2.0, encoder_lr=3.0))
    rates = {id(p): group["lr"] for o in (d, eg) for group in o.param_groups for p in group["params"]}
    expected = {"generator": 1.0, "discriminator": 2.0, "encoder": 3.0}
    assert all(rates[id(p)] == expected[n.split(".")[0]] for n, p in model.named_parameters())


def test_a_high_resolution_encoder_is_pooled_for_d():
    model, step = make(encoder_image_size=16)
    batch = make_batch(size=16)
    step.discriminator_update(batch)
    step.encoder_generator_update(batch)
    torch.testing.assert_close(model.for_discriminator(batch.x), F.avg_pool2d(batch.x, 2))
    with pytest.raises(ValueError, match="multiple of 8"):
        model.for_discriminator(torch.zeros(1, 3, 12, 12))


def test_the_average_follows_its_half_life():
    model = tiny_model()
    averages = Averages(model.generator, model.encoder, decay=0.5**0.1, rampup=0.1)
    start = copy.deepcopy(model.generator.state_dict())
    with torch.no_grad():
        for p in model.generator.parameters():
            p += 1
    for update in range(1001, 1011):  # long after the ramp-up: ten updates halve the distance
        averages.update(update)
    for name, p in averages.generator.named_parameters():
        torch.testing.assert_close(p, start[name] + 0.5, rtol=1e-4, atol=1e-4)
    assert averages.decay_at(10) == pytest.approx(0.5), "early, a half-life of a tenth of the updates made"
    assert averages.decay_at(10**7) == pytest.approx(0.5**0.1)
    assert not any(p.requires_grad for p in averages.generator.parameters())


@pytest.mark.parametrize("batches", [[24] * 40, [48] * 10 + [42] * 10 + [9] * 20])
def test_a_run_of_an_older_version_averages_by_its_half_life_in_images(batches):
    model = tiny_model()
    averages = Averages(model.generator, model.encoder, 0.5, 0.3)
    averages.half_life_images, seen = 500.0, 0
    for update, images in enumerate(batches, 1):
        seen += images
        if seen > 500 / 0.3 or batches[0] == batches[-1]:  # the ramp-up counted images too
            expected = 0.5 ** (images / min(500.0, 0.3 * seen))
            assert averages.decay_at(update, images) == pytest.approx(expected, rel=1e-12)


def test_refresh_is_a_function_of_the_state_alone():
    model, step = make()
    averages = Averages(model.generator, model.encoder, 0.99, 0.1)
    step.discriminator_update(make_batch())
    step.encoder_generator_update(make_batch())
    averages.update(1)
    with torch.no_grad():  # as far from the raw weights as those of a long run
        for p in averages.generator.parameters():
            p += 0.1 * torch.randn_like(p)
    raw = copy.deepcopy(model.state_dict())
    batches = [(make_batch(32).x, normal_noise(0, "z", np.arange(32), 8).double(), None)]
    averages.update_sampling_statistics(batches)
    first = copy.deepcopy(averages.generator.state_dict() | averages.encoder.state_dict())
    averages.update_sampling_statistics(batches)
    again = averages.generator.state_dict() | averages.encoder.state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert all(torch.equal(raw[k], v) for k, v in model.state_dict().items()), "the run itself was disturbed"
    for layer, other in zip(spectral_layers(averages.generator), spectral_layers(model.generator), strict=True):
        weight, u, v = layer.weight.flatten(1), other.u, other.v
        for _ in range(10):
            u = F.normalize(weight @ v, dim=0)
            v = F.normalize(weight.T @ u, dim=0)
        torch.testing.assert_close(layer.u, u)
        torch.testing.assert_close(layer.v, v)


def test_standing_statistics_make_evaluation_equal_training_on_one_batch():
    model = tiny_model().double()
    z = torch.randn(64, 8, dtype=torch.float64)
    with torch.no_grad(), standing_statistics(model.generator):
        model.generator(z)
    torch.testing.assert_close(model.generator.eval()(z), model.generator.train()(z))
    x = torch.rand(16, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad(), standing_statistics(model.encoder):
        model.encoder.avepool(x)
    torch.testing.assert_close(model.encoder.eval().avepool(x), model.encoder.train().avepool(x))
