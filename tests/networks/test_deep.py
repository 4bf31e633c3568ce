"""BigGAN-deep: parameter counts, the published lists of blocks, and both networks written out with torch's own
operations."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from bigbigan.networks.discriminator import Discriminator
from bigbigan.networks.generator import Generator, default_latent_dim
from bigbigan.networks.layers import DeepDiscriminatorBlock, DeepGeneratorBlock, SelfAttention, set_folded
from tests.conftest import tiny_model, train

F64 = torch.float64
# (upsample, in, out) in units of the width, of the released generators (BigGAN, tables 7-9); attention after the
# up-block to 64 px
RELEASED = {
    128: "16 16|16 16 up|16 16|16 8 up|8 8|8 4 up|4 4|4 2 up|2 2|2 1 up",
    256: "16 16|16 16 up|16 16|16 8 up|8 8|8 8 up|8 8|8 4 up|4 4|4 2 up|2 2|2 1 up",
    512: "16 16|16 16 up|16 16|16 8 up|8 8|8 8 up|8 8|8 4 up|4 4|4 2 up|2 2|2 1 up|1 1|1 1 up",
}
DISCRIMINATORS = {  # widths before and after each block; every other block halves, the first does
    128: [1, 2, 2, 4, 4, 8, 8, 16, 16, 16, 16],
    256: [1, 2, 2, 4, 4, 8, 8, 8, 8, 16, 16, 16, 16],
    512: [1, 1, 1, 2, 2, 4, 4, 8, 8, 8, 8, 16, 16, 16, 16],
}


def released(size: int) -> list[tuple[int, int, bool]]:
    words = [block.split() for block in RELEASED[size].split("|")]
    return [(int(w[0]), int(w[1]), "up" in w) for w in words]


@pytest.fixture
def on_meta():
    with (
        mock.patch("bigbigan.networks.generator.initialise"),
        mock.patch("bigbigan.networks.discriminator.initialise"),
        torch.device("meta"),
    ):
        yield


def count(network):
    return sum(p.numel() for p in network.parameters())


def conv(before, after, kernel=1):
    return before * after * kernel**2 + after


@pytest.mark.parametrize(("size", "parameters"), [(128, 50_388_609), (256, 55_880_833), (512, 56_163_905)])
def test_generator_counts(size, parameters, on_meta):
    """Counted by hand from the list of blocks: 1,000 classes, z and embedding of 128, 128 outputs in the last
    convolution."""
    width, condition, attended = 128, 256, 2 if size == 128 else 4
    expected = 1000 * 128 + conv(condition, 16 * width * 16) + 2 * width + conv(width, width, 3)
    for a, b, _ in released(size):
        before, inner, after = a * width, a * width // 4, b * width
        expected += (
            2 * condition * (before + 3 * inner) + conv(before, inner) + 2 * conv(inner, inner, 3) + conv(inner, after)
        )
    c = attended * width
    expected += c * c // 8 * 2 + c * c // 2 * 2 + 1
    network = Generator(128, size, width, classes=1000, attention=64, architecture="biggan_deep")
    assert count(network) == expected == parameters
    assert network(torch.empty(2, 128), torch.zeros(2, dtype=torch.long)).shape == (2, 3, size, size)


@pytest.mark.parametrize(("size", "parameters"), [(128, 34_590_210), (256, 38_247_426), (512, 38_301_122)])
def test_discriminator_counts(size, parameters, on_meta):
    """34,590,210 at 128 px is what the public re-implementation of its first reproduction counts."""
    width, widths, attended = 128, DISCRIMINATORS[size], {128: 2, 256: 4, 512: 4}[size]
    expected = conv(3, widths[0] * width, 3) + 1000 * 16 * width + 16 * width + 1
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        before, inner, after = a * width, b * width // 4, b * width
        expected += conv(before, inner) + 2 * conv(inner, inner, 3) + conv(inner, after)
        expected += conv(before, after - before) if after > before else 0
    c = attended * width
    expected += c * c // 8 * 2 + c * c // 2 * 2 + 1
    network = Discriminator(128, size, width, classes=1000, attention=64, joint=False, architecture="biggan_deep")
    assert count(network) == expected == parameters
    assert network(torch.empty(2, 3, size, size), classes=torch.zeros(2, dtype=torch.long)).x.shape == (2,)


def normalised(layer):
    weight = layer.weight.flatten(1)
    return layer.weight / (layer.u.double() @ weight @ layer.v.double())


def convolved(layer, h):
    return F.conv2d(h, normalised(layer), layer.bias, padding=layer.kernel_size[0] // 2)


def conditioned(norm, h, c):
    h = F.batch_norm(h, None, None, training=True, eps=1e-4)
    gain, bias = (c @ normalised(layer).T for layer in (norm.gain, norm.bias))
    return h * (1 + gain[:, :, None, None]) + bias[:, :, None, None]


def opened(network):
    """Attention's gate away from zero."""
    with torch.no_grad():
        network.attention.gamma.fill_(0.6)
    return network.double().train()


def test_the_generator_written_out():
    torch.manual_seed(0)
    generator = opened(Generator(8, 128, 4, classes=5, embedding_dim=6, attention=64, architecture="biggan_deep"))
    z, y = torch.randn(2, 8, dtype=F64), torch.tensor([4, 1])
    c = torch.cat([z, generator.embedding.weight[y]], dim=1)  # z first, then the class, to every layer
    h = (c @ normalised(generator.linear).T + generator.linear.bias).view(2, 16 * 4, 4, 4)
    for block, (_, after, up) in zip(generator.blocks, released(128), strict=True):
        x = h
        h = convolved(block.conv1, F.relu(conditioned(block.norm1, h, c)))
        h = F.relu(conditioned(block.norm2, h, c))
        h = convolved(block.conv2, F.interpolate(h, scale_factor=2.0) if up else h)
        h = convolved(block.conv3, F.relu(conditioned(block.norm3, h, c)))
        h = convolved(block.conv4, F.relu(conditioned(block.norm4, h, c)))
        x = x[:, : after * 4]
        h = h + (F.interpolate(x, scale_factor=2.0) if up else x)
        if up and h.shape[-1] == 64:
            h = generator.attention(h)
    last = generator.norm
    h = F.relu(F.batch_norm(h, None, None, last.weight, last.bias, training=True, eps=1e-4))
    expected = torch.tanh(convolved(generator.conv, h)[:, :3])
    torch.testing.assert_close(generator(z, y), expected)


def test_the_discriminator_written_out():
    torch.manual_seed(0)
    discriminator = Discriminator(8, 128, 4, mlp_width=8, attention=64, architecture="biggan_deep")
    f = opened(discriminator.f)
    pixels = torch.randn(2, 3, 128, 128, dtype=F64)
    h = convolved(f.stem, pixels)
    for i, block in enumerate(f.blocks):
        x, h = h, convolved(block.conv1, F.relu(h))
        h = convolved(block.conv2, F.relu(h))
        h = F.relu(convolved(block.conv3, F.relu(h)))
        if i % 2 == 0:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        h = convolved(block.conv4, h)
        x = torch.cat([x, convolved(block.added, x)], dim=1) if h.shape[1] > x.shape[1] else x
        h = h + x
        if i == 1:  # after the second block at 64 px, as in G (BigGAN, tables 7 to 9)
            h = f.attention(h)
    assert h.shape == (2, 64, 4, 4)
    torch.testing.assert_close(f(pixels), F.relu(h).sum((2, 3)))


@pytest.mark.parametrize("size", [8, 12, 32, 64])
def test_every_size_runs(size):
    torch.manual_seed(0)
    generator = Generator(6, size, 2, embedding_dim=4, architecture="biggan_deep")
    z = torch.randn(2, 6)
    x = generator(z)
    assert x.shape == (2, 3, size, size) and x.abs().max() <= 1
    discriminator = Discriminator(6, size, 2, mlp_width=8, architecture="biggan_deep")
    assert [s.shape for s in discriminator(x, z)] == [(2,)] * 3
    assert default_latent_dim(size, "biggan_deep") == 128


def test_folded_upsampling_equals_the_plain_form():
    torch.manual_seed(0)
    block = DeepGeneratorBlock(8, 4, 3, upsample=True).double()
    x, c = torch.randn(2, 8, 4, 4, dtype=F64), torch.randn(2, 3, dtype=F64)
    folded = block(x, c)
    set_folded(block, False)
    torch.testing.assert_close(block(x, c), folded)


@pytest.mark.parametrize(("size", "place"), [(128, 64), (256, 64), (512, 64), (256, 128), (32, 8)])
def test_attention_of_d_mirrors_that_of_g(size, place):
    """It stands after the second of the two blocks whose output has that resolution."""
    with torch.device("meta"):
        f = Discriminator(8, size, 8, mlp_width=8, attention=place, architecture="biggan_deep").f
    seen = []
    for i, block in enumerate(f.blocks):
        block.register_forward_hook(lambda *_, i=i: seen.append(i))
    f.attention.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    f(torch.zeros(2, 3, size, size, device="meta"))
    at = seen.index((place, place))
    assert seen[at - 1] % 2 == 1 and seen[at + 1] == seen[at - 1] + 1


def test_attention_stands_once():
    for network in (
        Generator(6, 32, 8, embedding_dim=4, attention=16, architecture="biggan_deep"),
        Discriminator(6, 32, 8, mlp_width=8, attention=16, architecture="biggan_deep"),
    ):
        assert sum(isinstance(m, SelfAttention) for m in network.modules()) == 1
        blocks = [m for m in network.modules() if isinstance(m, DeepGeneratorBlock | DeepDiscriminatorBlock)]
        assert len(blocks) == 6
    for make in (Generator, Discriminator):
        with pytest.raises(ValueError, match="architecture: expected one of biggan, biggan_deep; found 'big'"):
            make(6, 32, 8, architecture="big")


@pytest.mark.run
def test_as_g_and_f_of_a_bigbigan(tmp_path):
    flags = ["--model.architecture=biggan_deep", "--run.probe=False", "--run.images=48", "--run.name=deep"]
    train(tmp_path, *flags)
    import bigbigan

    model = bigbigan.load(str(tmp_path / "deep"))
    assert model.generator.deep and bigbigan.generate(2, model=model).shape[0] == 2
    conditional = tiny_model(architecture="biggan_deep", classes=3)
    x = conditional.generate(torch.randn(4, 8), torch.tensor([0, 1, 2, 0]))
    assert set(conditional.discriminate(x, torch.randn(4, 8), torch.tensor([0, 1, 2, 0]))) == {
        "score_x",
        "score_z",
        "score_xz",
    }
