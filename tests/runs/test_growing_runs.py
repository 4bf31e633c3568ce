"""Updates and whole runs of models that grow: the objective written out, chunks, processes, resumption in a fade,
GANs."""

import copy
import json
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

import bigbigan
from bigbigan.config import Config, Grow, Loss, Model, Optim, Run, flatten
from bigbigan.data import Crop, Stream, open_images
from bigbigan.distributed import all_reduce, barrier
from bigbigan.errors import ConfigError, ProbeError
from bigbigan.model import BigBiGAN
from bigbigan.networks.growing import set_level
from bigbigan.release.load import load_model
from bigbigan.training.batch import Batch, Drawer
from bigbigan.training.ema import Averages
from bigbigan.training.growing_schedule import GrowthSchedule
from bigbigan.training.guard import CollapseProbe
from bigbigan.training.schedule import Schedule, rates, set_rates
from bigbigan.training.step import Pairs
from eval_linear.probe import Probe, run_probe
from tests.conftest import make_step, train
from tests.helpers.children import free_port
from tests.helpers.settings import read_preset
from tests.runs.test_distributed import spawn
from tests.runs.test_train import same, stats, weights

TINY = {
    "family": "progressive",
    "image_size": 16,
    "latent_dim": 8,
    "feature_base": 16,
    "feature_limit": 8,
    "mlp_width": 16,
    "mlp_layers": 2,
    "encoder": "progressive",
    "encoder_mlp_width": 16,
    "encoder_mlp_layers": 2,
}
# Iterations of 24 images: 4 px, from 48 a fade, from 96 8 px, from 144 a fade, from 192 16 px.
GROWING = [f"--model.{k}={v}" for k, v in TINY.items()] + [
    "--grow.first_size=4",
    "--grow.hold_images=48",
    "--grow.fade_images=48",
    "--run.probe=False",
]


def model(dtype=torch.float64, **changes):
    torch.manual_seed(0)
    return BigBiGAN.from_config(Model(**{**TINY, **changes})).to(dtype).train()


def batch(network, n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    size, drop = network.generator.image_size, network.discriminator.f.drop_channels
    x, mix = draw(n, 3, size, size).tanh(), torch.rand(n, generator=generator, dtype=torch.float64)
    return Batch(x, draw(n, 8), draw(n, 8), extra={"mix": mix, "drop": draw(n, 2, drop)})


def gradients_of(step, network, update, b):
    """The gradients that an update would apply."""
    found = {}
    for optimizer in (step.optimizers.discriminator, step.optimizers.encoder_generator):
        optimizer.step = lambda: found.update(
            {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
        )
    update(b)
    return found


def make(form, chunks=1, **changes):
    m = model(**changes)
    return m, make_step(m, {"loss.form": form, "data.chunks": chunks}, betas=(0.0, 0.99))


@pytest.mark.parametrize(
    "changes", [{}, {"encoder": "none"}, {"discriminator_norm": "layer", "minibatch": "discrimination"}]
)
def test_the_wgan_gp_gradient_is_that_of_the_written_out_objective(changes):
    m, step = make("wgan_gp", **changes)
    set_level(1.25, m)
    b = batch(m)
    b.drop = None
    found = gradients_of(step, m, step.discriminator_update, b)
    d, joint = m.discriminator, m.encoder is not None
    with torch.no_grad():
        pairs = [(b.x, m.encoder(b.x).sample(b.noise) if joint else None), (m.generator(b.z), b.z if joint else None)]
    real, fake = (sum(t for t in d(*pair) if t is not None) for pair in pairs)
    at = [
        None if p is None else (1 - t) * p + t * q
        for p, q, t in zip(*pairs, (b.extra["mix"].view(-1, 1, 1, 1), b.extra["mix"][:, None]), strict=True)
    ]
    inputs = [p.requires_grad_() for p in at if p is not None]
    slopes = torch.autograd.grad(sum(t.sum() for t in d(*at) if t is not None), inputs, create_graph=True)
    norms = sum(g.pow(2).flatten(1).sum(1) for g in slopes).sqrt()
    loss = fake.mean() - real.mean() + 10 * (norms - 1).pow(2).mean() + 0.001 * real.pow(2).mean()
    named = [(n, p) for n, p in d.named_parameters() if f"discriminator.{n}" in found]
    expected = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    assert len(named) == len(found) > 10
    for (name, _), gradient in zip(named, expected, strict=True):
        gradient = torch.zeros_like(found[f"discriminator.{name}"]) if gradient is None else gradient
        torch.testing.assert_close(found[f"discriminator.{name}"], gradient, msg=name)


@pytest.mark.parametrize("form", ["wgan_gp", "lsgan", "hinge"])
def test_chunks_give_the_gradient_of_the_whole(form):
    """Where nothing looks across the minibatch: second-order gradients too."""
    results = []
    for chunks in (1, 4):
        m, step = make(form, chunks, minibatch="none", encoder_norm="none")
        set_level(1.5, m)
        m.discriminator.f.confidence.fill_(0.9)
        b = batch(m)
        results.append(
            gradients_of(step, m, step.discriminator_update, b)
            | gradients_of(step, m, step.encoder_generator_update, b)
        )
    assert results[0].keys() == results[1].keys()
    for name, gradient in results[0].items():
        torch.testing.assert_close(gradient, results[1][name], msg=name)


def test_minibatch_statistics_are_of_one_kind_of_pair():
    """D's scores of real images must not tell how generated ones vary."""
    m, step = make("hinge", encoder="none")
    images = torch.cat([torch.randn(4, 3, 16, 16), torch.zeros(4, 3, 16, 16)]).double()
    real, fake = step.scores(Pairs(images, None, None, None))
    torch.testing.assert_close(real.x, m.discriminator(images[:4]).x)
    torch.testing.assert_close(fake.x, m.discriminator(images[4:]).x)
    assert not torch.allclose(real.x, m.discriminator(images).x[:4])


def test_lsgan_noise_follows_how_sure_d_is():
    m, step = make("lsgan", encoder="none")
    f, x = m.discriminator.f, torch.randn(4, 3, 16, 16, dtype=torch.float64)
    noise = torch.randn(4, f.drop_channels, dtype=torch.float64)
    torch.testing.assert_close(f(x, noise), f(x), msg="no noise while d̂ ≤ 0.5")
    values = [f.confidence.item()]
    for seed in range(3):
        d = float(step.discriminator_update(batch(m, seed=seed))["confidence_d"])
        values.append(f.confidence.item())
        assert values[-1] == pytest.approx(0.9 * values[-2] + 0.1 * min(max(d, 0), 1))
    broken = batch(m, seed=3)
    broken.x[0, 0, 0, 0] = torch.nan
    step.discriminator_update(broken)
    assert f.confidence.item() == values[-1], "a void update moves nothing"
    f.confidence.fill_(0.9)
    layer, seen = f.last[1], []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    f(x, noise)
    f.last[0].register_forward_hook(lambda *_: seen.append(_[2]))
    f(x, noise)
    size = layer.conv.in_channels
    strength = 0.2 * 0.4**2 * size**0.5
    columns = noise[:, f.last[0].conv.in_channels :][:, :size, None, None]  # the second share of the noise
    torch.testing.assert_close(seen[2], seen[1] * (1 + strength * columns))


ITERATIONS = 8


def grown(rank, processes):
    """Iterations of WGAN-GP with minibatch statistics through two fades → weights, losses, averages by name."""
    m = model(minibatch_group=4)
    d = torch.optim.SGD(m.discriminator.parameters(), lr=0.01)
    eg = torch.optim.SGD([*m.encoder.parameters(), *m.generator.parameters()], lr=0.01)
    for optimizer, name in ((d, "discriminator"), (eg, "generator")):
        optimizer.param_groups[0]["name"] = name
    step = make_step(m, {"loss.form": "wgan_gp", "data.chunks": 2}, optimizers=(d, eg))
    averages = Averages(m.generator, m.encoder, 0.9, 0.5)
    config = Config(
        model=m.config, grow=Grow(4, 32, 64, (16,)), optim=Optim(generator_lr=0.01, discriminator_lr=0.01, lr_rampup=64)
    )
    schedule = Schedule(config, [m, averages.networks], step.optimizers.named())
    drawer = Drawer(0, "normal", 8, draws=step.draws())
    stream = Stream(
        open_images("digits", "train", "", "", False, 0.1),
        16,
        0,
        Crop("none", False),
        rank=rank,
        processes=processes,
    )
    found, reals = {}, stream.batches(0, 10**9, 16)
    for i in range(ITERATIONS):
        phase = schedule.at(32 * i)
        schedule.apply(phase)
        for update in (step.discriminator_update, step.encoder_generator_update):
            b = drawer(next(reals))
            b = Batch(m.generator.prepare(b.x.double()), b.z.double(), b.noise.double(), extra=b.extra)
            found |= {f"{i} {phase.level:g} {k}": all_reduce(v.clone()) / processes for k, v in update(b).items()}
        averages.update(i + 1)
    return found | m.state_dict() | {f"averaged {k}": v for k, v in averages.networks.state_dict().items()}


def worker(rank, processes, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
    torch.save(grown(rank, processes), f"{folder}/{rank}.pt")
    barrier()


def test_two_processes_grow_as_one(tmp_path):
    torch.set_num_threads(1)
    spawn(worker, 2, free_port(), str(tmp_path))
    parts, expected = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)], grown(0, 1)
    assert parts[0].keys() == expected.keys() and {k.split()[1] for k in expected if "loss_d" in k} >= {
        "0",
        "0.5",
        "1",
        "1.5",
    }
    for name, value in expected.items():
        torch.testing.assert_close(parts[0][name], value, rtol=1e-8, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}")
        assert torch.equal(parts[0][name], parts[1][name]), name


def test_optimisers_forget_at_both_ends_of_a_fade():
    m = model()
    step, forgetful = make_step(m), []
    optimizers = step.optimizers
    schedule = Schedule(Config(model=m.config, grow=Grow(4, 16, 32, (8,))), [m], optimizers.named())
    for seen in range(0, 128, 16):
        kept = bool(optimizers[0].state)
        schedule.apply(schedule.at(seen))
        forgetful.append(kept and not optimizers[0].state and not optimizers[1].state)
        step.discriminator_update(batch(m, 4)), step.encoder_generator_update(batch(m, 4))
    # levels 0, 0, ½, 1, 1, 1½, 2, 2
    assert forgetful == [False, False, True, True, False, True, True, False]
    optim = Optim(generator_lr=1e-3, discriminator_lr=2e-3, encoder_lr=3e-3, lr_rampup=100)
    for seen, factor in ((0, math.exp(-5)), (50, math.exp(-1.25)), (100, 1.0)):
        set_rates(optimizers.named(), rates(optim, seen, {"encoder": 0.5}))
        found = {group["name"]: group["lr"] for optimizer in optimizers for group in optimizer.param_groups}
        assert found == pytest.approx(
            {"discriminator": 2e-3 * factor, "encoder": 1.5e-3 * factor, "generator": 1e-3 * factor}
        )


def test_layers_not_reached_stand_still_in_weights_averages_and_optimiser():
    m, step = make("hinge")
    averages = Averages(m.generator, m.encoder, 0.9, 0.5)
    set_level(0.5, m, averages.networks)
    before = copy.deepcopy(m.state_dict())
    for seed in range(3):
        step.discriminator_update(batch(m, seed=seed)), step.encoder_generator_update(batch(m, seed=seed))
        averages.update(seed + 1)
    waiting = ("to_rgb.2", "generator.blocks.2", "from_rgb.2", "f.blocks.1", "trunk.blocks.1")
    for name, p in m.named_parameters():
        if not (
            name.startswith("discriminator.score") and name.endswith("bias")
        ):  # under a hinge the two kinds may cancel there
            assert torch.equal(p, before[name]) == any(w in name for w in waiting), name
    state = {n for n, p in m.named_parameters() if p in step.optimizers.encoder_generator.state}
    assert state and not any(w in n for n in state for w in waiting)


@pytest.fixture(scope="module")
def grown_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("growing")
    out, _ = train(root, "--run.name=done", *GROWING, "--run.sample_every=24", "--run.checkpoint_every=24")
    assert "from 4 px; 48 images at a resolution" in out
    return root / "done"


@pytest.mark.run
def test_a_run_grows_to_the_end(grown_run):
    levels = [line["level"] for line in stats(grown_run) if "level" in line]
    assert levels == pytest.approx([0, 0, 0, 0.5, 1, 1, 1, 1.5, 2, 2])
    for kind in ("samples", "reconstructions"):
        grids = sorted((grown_run / kind).iterdir())
        assert len(grids) == 10 and len({Image.open(p).size for p in grids}) == 1, (
            "one film: pictures of 4, 8 and 16 px alike"
        )
    released = load_model(grown_run)
    assert (released.generator.level, released.encoder.image_size, released.discriminator.image_size) == (2, 16, 16)
    assert bigbigan.generate(2, released).shape == (2, 3, 16, 16) and bigbigan.generate(2, released).abs().max() <= 1
    assert bigbigan.encode(np.zeros((2, 20, 20, 3), np.uint8), released, "avepool_feat").shape == (2, 8)


@pytest.mark.run
@pytest.mark.parametrize("images", [72, 96, 168])
def test_a_run_resumed_in_a_fade_is_bit_for_bit_the_uninterrupted_one(grown_run, tmp_path, images):
    """In the middle of the first fade, where the second resolution is reached, and in the second fade."""
    train(tmp_path, "--run.name=cut", *GROWING, f"--run.images={images}")
    half_way = load_model(tmp_path / "cut" / "checkpoints" / f"{images:012d}")
    assert half_way.generator.level == {72: 0, 96: 0.5, 168: 1}[images], (
        "the level that its last iteration was trained at"
    )
    out, _ = train(tmp_path, "--run.name=cut", *GROWING)
    assert f"at {images} images" in out
    assert same(weights(tmp_path / "cut"), weights(grown_run))


@pytest.mark.run
def test_every_resolution_can_have_its_own_batch_size(tmp_path):
    flags = [
        "--run.name=sizes",
        *GROWING,
        "--grow.batch_sizes",
        "8",
        "6",
        "4",
        "--run.log_every=1",
        "--run.checkpoint_every=60",
    ]
    train(tmp_path / "a", *flags)
    seen = [line["images_seen"] for line in stats(tmp_path / "a" / "sizes") if "level" in line]
    steps = np.diff([0, *seen]).tolist()
    assert steps == sorted(steps, reverse=True) and set(steps) == {24, 18, 12}
    train(tmp_path / "b", *flags, "--run.images=100"), train(tmp_path / "b", *flags)
    last = seen[-1]
    assert same(weights(tmp_path / "a" / "sizes", last), weights(tmp_path / "b" / "sizes", last))


@pytest.mark.run
@pytest.mark.parametrize(
    "flags",
    [
        ["--loss.form=wgan_gp", "--data.chunks=2"],
        ["--loss.form=lsgan", "--model.minibatch_group=4"],
        [
            "--loss.form=wgan_gp",
            "--model.discriminator_norm=layer",
            "--model.generator_norm=batch",
            "--model.minibatch=none",
        ],
        ["--loss.form=hinge", "--model.discriminator_norm=spectral", "--model.encoder=progressive"],
    ],
)
def test_gans_and_other_objectives_run(tmp_path, flags):
    """Progressive GANs, in bf16, resumed; the last is a BigBiGAN with a spectrally normalised D."""
    flags = ["--run.name=gan", *GROWING, "--model.encoder=none", "--optim.d_steps=1", "--run.precision=bf16", *flags]
    train(tmp_path, *flags, "--run.images=80"), train(tmp_path, *flags)
    released = load_model(tmp_path / "gan")
    assert bigbigan.generate(3, released).shape == (3, 3, 16, 16)
    assert all(np.isfinite(line["loss_d"]) for line in stats(tmp_path / "gan") if "loss_d" in line)
    if released.encoder is None:
        assert set(released.discriminate(torch.zeros(2, 3, 16, 16), None)) == {"score_x"}
        assert "encoder." not in json.dumps(list(released.state_dict()))
        with pytest.raises(ValueError, match="has no encoder"):
            bigbigan.encode(np.zeros((2, 16, 16, 3), np.uint8), released)
        with pytest.raises(ProbeError, match="found a GAN"):
            run_probe(Probe(ckpt=str(tmp_path / "gan"), parts=("knn",)))


@pytest.mark.run
def test_a_gan_of_biggans_networks_runs(tmp_path):
    """The row "No E (GAN)" of BigBiGAN's table 1."""
    out, _ = train(tmp_path, "--run.name=gan", "--model.encoder=none", "--run.images=48")
    assert "E " not in out.split("networks")[1].split("\n")[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": Model(encoder="progressive")}, "expected --model.family progressive, or another"),
        ({"model": Model(family="progressive"), "grow": Grow(4)}, "expected --model.encoder progressive"),
        ({"grow": Grow(first_size=4)}, "expected --model.family progressive, found biggan"),
        ({"model": Model(**TINY), "grow": Grow(first_size=5)}, "one of \\[4, 8, 16\\], or 0"),
        ({"model": Model(**TINY), "grow": Grow(4, 0, 0)}, "not both 0"),
        ({"model": Model(**TINY), "grow": Grow(4, batch_sizes=(8, 1))}, "grow.batch_sizes 1: expected a multiple"),
        ({"model": Model(**TINY, classes=3)}, "expected --model.classes 0"),
        ({"model": Model(**TINY, encoder_image_size=32)}, "and --model.encoder_image_size 0"),
        ({"model": Model(**TINY | {"generator_slope": -0.1})}, "generator_slope -0.1: expected 0 or more"),
        ({"loss": Loss(gradient_norm=0)}, "gradient_norm 0: expected a number above 0"),
        ({"loss": Loss("lsgan")}, "--loss.form lsgan: expected --model.family progressive"),
        (
            {"model": Model(encoder="none"), "loss": Loss(unary_x=False)},
            "expected --loss.unary_x True, the only score of a GAN",
        ),
        (
            {"model": Model(**TINY), "optim": Optim(dropout=0.1)},
            "dropout 0.1: expected 0 for --model.family progressive",
        ),
        (
            {"model": Model(**TINY), "grow": Grow(4), "run": Run(compile="default")},
            "compile default: expected off for a run that",
        ),
        ({"model": Model(**TINY), "loss": Loss(r1=1)}, "r1 1: expected --model.minibatch none"),
    ],
)
def test_settings_that_cannot_be_are_named(changes, message):
    config = Config(**changes)
    with pytest.raises(ConfigError, match=message):
        config.validate()
        GrowthSchedule.from_config(config)


# What each row of the ablation changes in the row before it (Karras et al. 2018, table 1, and the configurations of its
# code).
ABLATION = {
    "b": ("a", {"grow.first_size": 4}),
    "c": ("b", {"data.batch_size": 16, "optim.ema_decay": 0.99501}),  # the code's averages, 0.999⁵ in place of 0.999²⁰
    "d": (
        "c",
        {
            "model.generator_norm": "none",
            "model.discriminator_norm": "none",
            "model.generator_slope": 0.2,
            "model.generator_tanh": False,
            "model.normalise_latents": True,
            "model.latent_dim": 512,
            "loss.drift": 0.001,
            "optim.betas": (0.0, 0.99),
            "optim.d_steps": 1,
            "optim.ema_decay": 0.999,
        },
    ),
    "e_star": ("d", {"model.minibatch": "discrimination"}),
    "e": ("d", {"model.minibatch": "stddev"}),
    "f": ("e", {"model.equalised": True, "optim.generator_lr": 1e-3, "optim.discriminator_lr": 1e-3}),
    "g": ("f", {"model.generator_norm": "pixel"}),
    "h": ("g", {"model.feature_base": 8192, "run.images": 20_000_000}),
}


@pytest.mark.parametrize("row", ABLATION)
def test_the_rows_of_the_ablation_differ_as_in_the_paper(row):
    before, changes = ABLATION[row]
    old, new = (flatten(read_preset(f"progan_{name}")) for name in (before, row))
    assert {key: new[key] for key in new if new[key] != old[key]} == changes


def test_the_baseline_of_the_ablation():
    a = read_preset("progan_a")
    assert (a.data.batch_size, a.optim.d_steps, a.optim.betas, a.loss.drift, a.loss.penalty) == (
        64,
        5,
        (0.0, 0.9),
        0.0,
        10.0,
    )
    assert (a.model.generator_norm, a.model.discriminator_norm, a.model.equalised) == ("batch", "layer", False)


@pytest.mark.parametrize(
    ("name", "maps", "parameters"),
    [("progan_celebahq", [512, 512, 512, 512, 256, 128, 64, 32, 16], 23_079_115), ("progan_cifar10", [128] * 4, None)],
)
def test_the_published_networks(name, maps, parameters):
    config = read_preset(name)
    with torch.device("meta"):
        built = BigBiGAN.from_config(config.model)
    assert [layer.in_channels for layer in built.generator.to_rgb] == maps and built.encoder is None
    assert parameters is None or sum(p.numel() for p in built.generator.parameters()) == parameters


@pytest.mark.parametrize("encoder", ["progressive", "none"])
def test_a_look_for_collapse_follows_the_level_and_does_without_an_encoder(encoder):
    m, images = model(torch.float32, encoder=encoder), open_images("digits", "train", "", "", False, 0.1)
    watch = CollapseProbe(m, images, images, "normal", 0, images=8)
    for level in (0.0, 1.5, 2.0):
        set_level(level, m)
        _, figures = watch.measure()
        assert all(np.isfinite(value) for value in figures.values()) and "score_gap" in figures
