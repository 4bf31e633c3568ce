"""Growing networks: published counts, each level against the formula written out at full size, fades, the schedule."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bigbigan.config import Config, Grow, Model
from bigbigan.networks.growing import fade_in, grown_like, phase, set_level
from bigbigan.networks.layers import spectral_layers, split_size
from bigbigan.networks.progressive import GrowingDiscriminator, GrowingGenerator, GrowingTrunk
from bigbigan.training.growing_schedule import GrowthSchedule
from bigbigan.training.schedule import ramp_up

LEVELS = [0, 0.25, 1, 1.5, 2]


def count(network):
    return sum(p.numel() for p in network.parameters())


def small(kind=GrowingGenerator, **options):
    torch.manual_seed(0)
    sizes = {"feature_base": 32, "feature_limit": 8}
    if kind is GrowingGenerator:
        return GrowingGenerator(6, 16, **sizes, **options).double()
    return GrowingTrunk(16, **sizes, **options).double()


def randomise_biases(network):
    for name, p in network.named_parameters():
        if name.endswith("bias"):
            p.data.uniform_(-0.5, 0.5)


def test_published_parameter_counts():
    with torch.device("meta"):
        assert count(GrowingGenerator(512, 1024)) == 23_079_115
        trunk = GrowingTrunk(1024, minibatch="stddev")
        assert count(GrowingDiscriminator(trunk, 512, joint=False)) == 23_087_249
    widths = {block[0].conv.in_channels: block[1].conv.out_channels for block in trunk.blocks[2:]}
    assert widths == {512: 512, 256: 512, 128: 256, 64: 128, 32: 64, 16: 32}


def test_the_sizes_of_h_and_j_are_those_of_a_discriminator_that_does_not_grow():
    with torch.device("meta"):
        d = GrowingDiscriminator(GrowingTrunk(128, minibatch="stddev"), 120)
    width = 2048
    square = width * width + width
    assert count(d.h) == 7 * square + 2 * (120 * width + width)
    assert count(d.j) == 7 * square + 2 * ((512 + width) * width + width)


def up(x, factor=2):
    return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def down(x):
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def scaled(conv, gain=2**0.5):
    return conv.weight * gain / (conv.weight[0].numel()) ** 0.5


def leaky(x):
    return torch.maximum(0.2 * x, x)


def normed(x):
    return x / (x.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()


def generator_at_full_size(g, z, level):
    """Every resolution is computed and the pictures are blended one after the other at 16 px (figure 2, unrolled)."""
    h = normed(z) @ (g.linear.weight * (2**0.5 / 4) / z.shape[1] ** 0.5).T
    h = normed(leaky(h.view(len(z), 8, 4, 4) + g.bias.view(1, -1, 1, 1)))
    layer = lambda h, m: normed(leaky(F.conv2d(h, scaled(m.conv), m.conv.bias, padding=1)))  # noqa: E731
    picture = lambda h, i: F.conv2d(h, scaled(g.to_rgb[i], 1), g.to_rgb[i].bias)  # noqa: E731
    h = layer(h, g.blocks[0])
    image = up(picture(h, 0), 4)
    for i in (1, 2):
        first, second = g.blocks[i]
        h = layer(layer(up(h), first), second)
        share = min(max(level - (i - 1), 0), 1)
        image = (1 - share) * image + share * up(picture(h, i), 2 ** (2 - i))
    return image


def trunk_at_full_size(t, x, level):
    """x: (N, 3, 16, 16). The way from every resolution down is computed, and blended where two meet."""
    picture = lambda x, i: leaky(F.conv2d(x, scaled(t.from_rgb[i].conv), t.from_rgb[i].conv.bias))  # noqa: E731
    layer = lambda h, m, padding=1: leaky(F.conv2d(h, scaled(m.conv), m.conv.bias, padding=padding))  # noqa: E731
    h = picture(x, 2)
    for i in (2, 1):
        h = down(layer(layer(h, t.blocks[i - 1][0]), t.blocks[i - 1][1]))
        x = down(x)
        share = min(max(level - (i - 1), 0), 1)
        h = share * h + (1 - share) * picture(x, i - 1)
    stddev = ((h - h.mean(0)).pow(2).mean(0) + 1e-8).sqrt().mean()
    h = torch.cat([h, stddev.expand(len(h), 1, 4, 4)], 1)
    return layer(layer(h, t.last[0]), t.last[1], 0).flatten(1)


@pytest.mark.parametrize("level", LEVELS)
def test_a_generator_at_every_level(level):
    g = small().train()
    randomise_biases(g)
    set_level(level, g)
    z = torch.randn(3, 6, dtype=torch.float64)
    x = g(z)
    assert x.shape[-1] == g.image_size == {0: 4, 0.25: 8, 1: 8, 1.5: 16, 2: 16}[level] and g.full_size == 16
    torch.testing.assert_close(up(x, 16 // x.shape[-1]), generator_at_full_size(g, z, level))
    assert torch.equal(g.eval()(z), x.clamp(-1, 1))


@pytest.mark.parametrize("level", LEVELS)
def test_a_trunk_at_every_level(level):
    t = small(GrowingTrunk, minibatch="stddev")
    randomise_biases(t)
    set_level(level, t)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    while x.shape[-1] > t.image_size:
        x = down(x)
    torch.testing.assert_close(t(x), trunk_at_full_size(t, up(x, 16 // x.shape[-1]), level))
    with pytest.raises(ValueError, match=f"expected images of {t.image_size} px"):
        t(torch.zeros(1, 3, 32, 32, dtype=torch.float64))


def test_growth_begins_without_a_jump():
    """A fade's first network is the one before it on larger pixels; so are its real images."""
    g, t = small(), small(GrowingTrunk, dense=False)
    z, real = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 3, 16, 16, dtype=torch.float64)
    set_level(1, g, t)
    x, h, before = g(z), t(fade_in(real, 8, 1.0)), fade_in(real, 8, 1.0)
    set_level(1 + 1e-9, g, t)
    torch.testing.assert_close(g(z), up(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fade_in(real, 16, g.fade), up(before), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(t(fade_in(real, 16, g.fade)), h, rtol=1e-6, atol=1e-6)


def test_faded_images():
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert fade_in(x, 16, 1.0) is x
    torch.testing.assert_close(fade_in(x, 4, 1.0), down(down(x)))
    torch.testing.assert_close(fade_in(x, 8, 0.25), 0.25 * down(x) + 0.75 * up(down(down(x))))
    with pytest.raises(ValueError, match="multiple of 5"):
        fade_in(x, 5, 1.0)


@pytest.mark.parametrize(("level", "working"), [(0, {0}), (0.5, {0, 1}), (1, {1}), (2, {2})])
def test_only_what_is_at_work_has_a_gradient(level, working):
    g, t = small(), small(GrowingTrunk)
    set_level(level, g, t)
    t(g(torch.randn(2, 6, dtype=torch.float64))).sum().backward()
    for network, rgb in ((g, g.to_rgb), (t, t.from_rgb)):
        assert {i for i, layer in enumerate(rgb) if all(p.grad is not None for p in layer.parameters())} == working
        assert all(p.grad is None for i, layer in enumerate(rgb) if i not in working for p in layer.parameters())
        offset = len(rgb) - len(network.blocks)  # G's first block is the bottom itself
        for i, block in enumerate(network.blocks, offset):
            assert all((p.grad is not None) == (i <= max(working)) for p in block.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"minibatch": "stddev"},
        {"minibatch": "discrimination", "norm": "layer"},
        {"norm": "spectral"},
        {"equalised": False},
    ],
)
def test_a_discriminator_can_be_differentiated_twice_at_every_level(options):
    """What WGAN-GP needs, for images and latents, against finite differences."""
    torch.manual_seed(0)
    trunk = small(GrowingTrunk, **options)
    d = GrowingDiscriminator(trunk, 6, 8, 2, spectral=options.get("norm") == "spectral").double()
    assert bool(spectral_layers(d)) == (options.get("norm") == "spectral") and d.compares_images == (
        "minibatch" in options
    )
    z = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    for level in (0, 0.5, 2):
        set_level(level, d)
        x = torch.randn(4, 3, d.image_size, d.image_size, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda x, z: sum(d(x, z)), (x, z), fast_mode=True)


@pytest.mark.parametrize("norm", ["pixel", "batch", "none"])
@pytest.mark.parametrize("size", [8, 28, 48, 64])
def test_other_sizes_and_normalisations(norm, size):
    torch.manual_seed(0)
    g = GrowingGenerator(6, size, 32, 8, norm=norm, normalise_latents=False, slope=0.0, tanh=True, equalised=False)
    d = GrowingDiscriminator(GrowingTrunk(size, 32, 8, norm=norm), 6, 8, 2)
    bottom, stages = split_size(size, 1024)
    for level in np.arange(0, stages + 0.5, 0.5):
        set_level(level, g, d)
        x = g(torch.randn(2, 6))
        assert x.shape[-1] == bottom * 2 ** int(np.ceil(level)) and x.abs().max() <= 1
        assert [s.shape for s in d(x, torch.randn(2, 6))] == [(2,)] * 3


def test_a_level_travels_with_the_weights():
    g, other = small(), small()
    set_level(1.1, g)
    other.load_state_dict(g.state_dict())
    assert other.level == 1.1
    assert grown_like(small(), g).level == 1.1
    for level in (3, -0.5):
        with pytest.raises(ValueError, match=rf"level {level}: expected 0 … 2"):
            set_level(level, g)
        with pytest.raises(ValueError, match=rf"level {float(level)}: expected 0 … 2; the file is damaged"):
            g.load_state_dict(g.state_dict() | {"_extra_state": torch.tensor(level)})
    for size in (4, 9, 2048, 22):
        with pytest.raises(ValueError, match=f"image_size {size}: expected b·2\\^k"):
            split_size(size, 1024)


def test_the_schedule():
    s = GrowthSchedule(0, 2, hold=100, fade=50, batch_sizes=(16, 8, 4))
    table = {0: 0, 99: 0, 100: 0, 125: 0.5, 149: 0.98, 150: 1, 250: 1, 260: 1.2, 300: 2, 10**9: 2}
    assert {n: pytest.approx(s.level(n)) for n in table} == table
    assert [s.batch_size(n) for n in (0, 100, 101, 150, 250, 251, 400)] == [16, 16, 8, 8, 8, 4, 4]
    assert [phase(level) for level in (0, 0.2, 1, 1.9, 2)] == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]
    assert GrowthSchedule(0, 3, 0, 0, (7,)).level(0) == 3
    assert GrowthSchedule(1, 2, 10, 0, (7,)).level(10) == 2, "without a fade it grows at once"


def test_a_schedule_of_settings_that_begins_above_the_smallest_size():
    model = Model(family="progressive", encoder="progressive", image_size=32)
    config = Config(model=model, grow=Grow(8, 100, 50, (16, 8)))
    s = GrowthSchedule.from_config(config)
    assert s == GrowthSchedule(1, 3, 100, 50, (16, 8)) and s.full_size_at == 2 * 150
    assert [s.batch_size(n) for n in (0, 100, 101, 260, 10**6)] == [16, 16, 8, 8, 8]
    config.grow.batch_sizes, config.data.batch_size = (), 24
    assert GrowthSchedule.from_config(config).batch_sizes == (24,)
    config.grow.first_size = 0
    assert GrowthSchedule.from_config(config) == GrowthSchedule(0, 3, 0, 0, (24,)), "full size from the start"
    assert GrowthSchedule.from_config(Config()).level(0) == 0, "BigGAN's networks have no levels"


def test_the_published_schedule_of_1024_px():
    """800,000 images for each of 9 resolutions and 8 fades, then on to 19,000,000 (CelebA-HQ)."""
    s = GrowthSchedule(0, 8, 800_000, 800_000, (16, 16, 16, 16, 16, 16, 14, 6, 3))
    resolution = lambda n: 4 * 2 ** int(np.ceil(s.level(n)))  # noqa: E731
    assert [resolution(n * 100_000) for n in (0, 8, 9, 16, 112, 120, 121, 128, 190)] == [
        4,
        4,
        8,
        8,
        512,
        512,
        1024,
        1024,
        1024,
    ]
    assert s.level(12_400_000) == 7.5 and s.level(12_800_000) == 8
    assert [s.batch_size(n) for n in (0, 8_800_001, 9_600_000, 10_400_001, 19_000_000)] == [16, 14, 14, 6, 3]


def test_real_images_are_prepared_for_the_level():
    g, x = small(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    set_level(0.25, g)
    torch.testing.assert_close(g.prepare(x), 0.25 * down(x) + 0.75 * up(down(down(x))))


def test_the_confidence_that_lsgan_follows_stays_within_0_and_1():
    t = small(GrowingTrunk, drop=True)
    for given, found in ((3.0, 0.1), (-1.0, 0.09), (0.5, 0.131)):
        t.follow(torch.tensor(given))
        assert t.confidence.item() == pytest.approx(found)


def test_rates_ramp_up():
    assert [ramp_up(n, 40_000) for n in (0, 20_000, 40_000, 10**6)] == pytest.approx([np.exp(-5), np.exp(-1.25), 1, 1])
    assert ramp_up(0, 0) == 1
