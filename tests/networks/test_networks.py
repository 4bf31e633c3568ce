"""Shapes and published parameter counts of G, D and E."""

from unittest import mock

import pytest
import timm
import torch
import torch.nn.functional as F

from bigbigan.networks.discriminator import Discriminator
from bigbigan.networks.encoder import Encoder, checked_features, remove_dropout, replace_batch_norms
from bigbigan.networks.generator import Generator, default_latent_dim
from bigbigan.networks.layers import CrossReplicaBatchNorm, SelfAttention, spectral_layers


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture
def on_meta():
    """Networks of paper size without memory or initialisation."""
    with (
        mock.patch("bigbigan.networks.generator.initialise"),
        mock.patch("bigbigan.networks.discriminator.initialise"),
        torch.device("meta"),
    ):
        yield


def test_published_parameter_counts(on_meta):
    assert count(Generator(120, 128, 96, classes=1000, attention=64)) == 70_433_988
    assert count(Discriminator(120, 128, 96, classes=1000, attention=64, joint=False)) == 87_982_370
    assert count(Generator(120, 128, 96, attention=64)) == 70_306_116
    assert count(Encoder(120, "resnetv2_50", 256).trunk) == 23_500_352


def test_paper_sized_mlps(on_meta):
    discriminator = Discriminator(120, 128, 96, attention=64)
    width = 2048
    square = width * width + width
    assert count(discriminator.h) == 7 * square + 2 * (120 * width + width)  # the first layer and its projection take z
    assert count(discriminator.j) == 7 * square + 2 * ((1536 + width) * width + width)
    assert Generator(120, 128, 96, attention=64).chunks == [20] * 6


@pytest.mark.parametrize("size", [8, 12, 16, 24, 32, 48, 64, 96, 128])
def test_every_size_runs(size):
    torch.manual_seed(0)
    z = torch.randn(2, default_latent_dim(size))
    x = Generator(z.shape[1], size, 1)(z)
    assert x.shape == (2, 3, size, size) and x.abs().max() <= 1
    scores = Discriminator(z.shape[1], size, 1, mlp_width=8)(x, z)
    assert [s.shape for s in scores] == [(2,)] * 3


@pytest.mark.parametrize("size", [192, 224, 256, 384, 512])
def test_large_sizes_have_the_shapes(size, on_meta):
    z = torch.empty(2, default_latent_dim(size))
    x = Generator(z.shape[1], size, 2)(z)
    assert x.shape == (2, 3, size, size)
    assert Discriminator(z.shape[1], size, 2, mlp_width=8)(x, z).xz.shape == (2,)


def test_remainder_of_the_latent_goes_to_the_first_slot():
    assert Generator(17, 16, 1).chunks == [7, 5, 5]
    with pytest.raises(ValueError, match="latent_dim 2: expected at least 3"):
        Generator(2, 16, 1)


def test_attention_stands_once_and_only_at_a_resolution_there_is():
    generator, discriminator = Generator(40, 32, 2, attention=16), Discriminator(40, 32, 2, mlp_width=8, attention=8)
    for network in (generator, discriminator):
        assert sum(isinstance(m, SelfAttention) for m in network.modules()) == 1
    with pytest.raises(
        ValueError, match=r"generator attention 20: expected 0 or the resolution of a block, one of \[8, 16, 32\]"
    ):
        Generator(40, 32, 2, attention=20)


def test_conditional_networks_need_classes_and_use_them():
    torch.manual_seed(0)
    z, y = torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
    generator = Generator(8, 8, 2, classes=3, embedding_dim=4)
    discriminator = Discriminator(8, 8, 2, classes=3, mlp_width=8)
    x = generator(z, y)
    assert not torch.allclose(x, generator(z, y.flip(0)))
    a, b = discriminator(x, z, y), discriminator(x, z, (y + 1) % 3)
    assert not torch.allclose(a.x, b.x) and torch.equal(a.z, b.z) and torch.equal(a.xz, b.xz)
    for network, arguments in ((generator, (z,)), (discriminator, (x, z))):
        with pytest.raises(ValueError, match="of 3 classes expected the classes"):
            network(*arguments)


def test_projection_is_the_inner_product_with_the_embedding():
    torch.manual_seed(0)
    discriminator = Discriminator(8, 8, 2, classes=3, mlp_width=8)
    x, y = torch.randn(2, 3, 8, 8), torch.tensor([2, 1])
    f = discriminator.f(x)
    embedding = (discriminator.embedding.weight / discriminator.embedding.sigma())[y]
    expected = discriminator.score_x(f)[:, 0] + (embedding * f).sum(1)
    torch.testing.assert_close(discriminator(x, torch.randn(2, 8), y).x, expected)


def test_spectral_norm_is_in_g_and_d_and_not_in_e():
    assert spectral_layers(Generator(8, 8, 2)) and spectral_layers(Discriminator(8, 8, 2, mlp_width=8))
    assert not spectral_layers(Encoder(8, "resnetv2_18", 8, 0.125, mlp_width=8))
    generator = Generator(8, 8, 2)
    weights = [m for m in generator.modules() if hasattr(m, "weight") and m.weight is not None and m.weight.ndim >= 2]
    assert len(weights) == len(spectral_layers(generator)) + 1, "all weights but the shared embedding"


@pytest.mark.parametrize("posterior", ["gaussian", "deterministic", "tanh", "sigmoid"])
def test_posteriors(posterior):
    torch.manual_seed(0)
    encoder = Encoder(6, "resnetv2_18", 16, 0.125, mlp_width=8, posterior=posterior)
    x = torch.randn(3, 3, 16, 16)
    mean, stddev = encoder.eval()(x)
    assert mean.shape == stddev.shape == (3, 6)
    assert (stddev > 0).all() if posterior == "gaussian" else (stddev == 0).all()
    if posterior in ("tanh", "sigmoid"):
        a = encoder.linear(encoder.mlp(encoder.avepool(x)))
        torch.testing.assert_close(mean, a.tanh() if posterior == "tanh" else 2 * a.sigmoid() - 1)
    if posterior == "gaussian":  # σ = softplus(σ̂): the second half of the last layer
        raw = encoder.linear(encoder.mlp(encoder.avepool(torch.ones(3, 3, 16, 16)))).chunk(2, 1)[1]
        torch.testing.assert_close(encoder(torch.ones(3, 3, 16, 16)).stddev, torch.log1p(raw.exp()))


@pytest.mark.parametrize(
    ("backbone", "width", "features"),
    [("resnetv2_18", 1, 512), ("resnetv2_34", 0.5, 256), ("resnetv2_50", 2, 4096), ("resnetv2_101", 1, 2048)],
)
def test_pre_activation_family(backbone, width, features):
    with torch.device("meta"):
        assert Encoder(8, backbone, 64, width, mlp_width=8).avepool(torch.empty(2, 3, 64, 64)).shape == (2, features)


@pytest.mark.parametrize(("size", "stride"), [(8, 1), (32, 1), (64, 2), (128, 4), (256, 4)])
def test_stem_by_size(size, stride):
    with torch.device("meta"):
        trunk = Encoder(8, "resnetv2_18", size, 0.25, mlp_width=8).trunk
        assert trunk.stem(torch.empty(1, 3, size, size)).shape[-1] == size // stride


@pytest.mark.parametrize("backbone", ["resnetv2_18", "resnet18", "mobilenetv3_small_050"])
def test_replacing_batch_norms_keeps_the_function(backbone):
    """timm's BatchNormAct2d carries an activation that torch's own converter loses."""
    torch.manual_seed(0)
    theirs = timm.create_model(backbone, num_classes=0).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            (
                module.running_mean.uniform_(-1, 1),
                module.running_var.uniform_(0.5, 2),
                module.weight.data.uniform_(0.5, 2),
            )
    x = torch.randn(2, 3, 64, 64)
    expected = theirs(x)
    replace_batch_norms(theirs)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in theirs.modules())
    assert sum(isinstance(m, CrossReplicaBatchNorm) for m in theirs.modules()) > 10
    torch.testing.assert_close(theirs.eval()(x), expected)


def test_unknown_backbone_names_the_nearest():
    with pytest.raises(
        ValueError, match="'resnetv2_5': expected revnet50 or the name of a timm model; did you mean .*resnetv2_50"
    ):
        Encoder(8, "resnetv2_5", 32)
    with pytest.raises(ValueError, match="only revnet50 and the resnetv2 family can be widened"):
        Encoder(8, "resnet18", 32, 2.0)


def bottlenecks(width: int, blocks: tuple[int, ...]) -> int:
    """Parameters of a pre-activation bottleneck ResNet without classifier, counted by hand."""
    count, before = 3 * 49 * 64 * width, 64 * width
    for i, n in enumerate(blocks):
        inner, out = 64 * width * 2**i, 256 * width * 2**i
        for _ in range(n):
            shortcut = before * out if _ == 0 else 0
            count += before * inner + 9 * inner**2 + inner * out + shortcut + 2 * (before + 2 * inner)
            before = out
    return count + 2 * before


@pytest.mark.parametrize(
    ("backbone", "width", "blocks", "parameters"),
    [
        ("resnetv2_50", 1, (3, 4, 6, 3), 23_500_352),
        ("resnetv2_101", 1, (3, 4, 23, 3), 42_492_480),
        ("resnetv2_50", 2, (3, 4, 6, 3), 93_891_712),
    ],
)
def test_trunks_of_table_1(backbone, width, blocks, parameters, on_meta):
    assert count(Encoder(120, backbone, 256, width).trunk) == bottlenecks(width, blocks) == parameters


# One of each kind; sizes of inputs that timm's defaults would refuse, widths that timm's num_features does not tell.
KINDS = ["resnet10t", "convnext_atto", "mobilenetv3_small_050", "test_vit", "levit_128s"]


@pytest.mark.parametrize("backbone", KINDS)
def test_any_backbone_works_by_name(backbone):
    """A gradient for every weight, and a pure forward in training: no random numbers, no moved buffers."""
    torch.manual_seed(0)
    encoder = Encoder(6, backbone, 64, mlp_width=8).train()
    x = torch.rand(3, 3, 64, 64)
    buffers, random = [b.clone() for b in encoder.buffers()], torch.get_rng_state()
    assert encoder.avepool(x).shape == (3, encoder.features)
    sum(t.square().sum() for t in encoder(x)).backward()
    assert torch.equal(random, torch.get_rng_state()) and all(map(torch.equal, buffers, encoder.buffers()))
    with torch.no_grad():
        assert torch.equal(encoder(x).mean, encoder(x).mean)
    encoder.requires_grad_(False).eval()(x)
    reached = sum(p.grad is not None for p in encoder.parameters())
    assert reached > 0.9 * len(list(encoder.parameters()))


def test_dropout_and_stochastic_depth_are_removed():
    network = timm.create_model(
        "test_vit", num_classes=0, img_size=32, drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5
    ).train()
    x = torch.randn(2, 3, 32, 32)
    assert not torch.equal(network(x), network(x))
    with pytest.raises(ValueError, match="whose forward is pure"):
        checked_features(network, "test_vit", 32)
    remove_dropout(network)
    assert torch.equal(network(x), network(x)) and checked_features(network, "test_vit", 32) == 64


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("crossvit_tiny_240", "'crossvit_tiny_240': expected a network that takes 64 px images, found: "),
        ("resnetv2_50d_evos", "encoder stem 'stride2': expected a backbone whose stem is one convolution"),
    ],
)
def test_a_backbone_that_cannot_be_used_says_why(backbone, message):
    with pytest.raises(ValueError, match=message):
        Encoder(6, backbone, 64, mlp_width=8)


@pytest.mark.parametrize("how", ["random", "buffer", "map"])
def test_an_impure_backbone_is_refused(how):
    class Impure(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 4)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            if how == "map":
                return x
            if how == "buffer":
                self.seen += 1
            y = self.linear(x.mean((2, 3)))
            return torch.nn.functional.dropout(y, 0.1, self.training) if how == "random" else y

    message = "yields a feature vector.*found .2, 3, 8, 8" if how == "map" else "whose forward is pure"
    with pytest.raises(ValueError, match=message):
        checked_features(Impure(), "impure", 8)


def test_the_head_of_e_begins_without_its_residual_branches():
    torch.manual_seed(0)
    trunk = torch.nn.Linear(3, 256)
    trunk.num_features = 256
    encoder = Encoder(120, trunk, 8, mlp_width=512, mlp_layers=6)
    feature = torch.randn(7, 256)
    first, *rest = encoder.mlp.blocks
    out = encoder.linear(F.relu(first["shortcut"](feature)))
    torch.testing.assert_close(encoder.head(feature).mean, out[:, :120])
    torch.testing.assert_close(encoder.head(feature).stddev, F.softplus(out[:, 120:]))
    for block, width in ((first, 256), *((block, 512) for block in rest)):  # He et al. 2015, equation 10
        assert block["linear1"].weight.std().item() == pytest.approx((2 / width) ** 0.5, rel=0.02)
    assert encoder.linear.weight.std().item() == pytest.approx(
        (2 / (512 + 240)) ** 0.5, rel=0.02
    )  # Glorot, equation 12
    assert (
        not any(p.any() for name, p in encoder.mlp.named_parameters() if "bias" in name)
        and not encoder.linear.bias.any()
    )


def test_bn_crelu_doubles_a_normalised_feature():
    encoder = Encoder(6, "resnetv2_18", 16, 0.125, mlp_width=8).train()
    a = torch.randn(32, encoder.features) * 3 + 1
    f = encoder.bn_crelu(a)
    normalised = f[:, : encoder.features] - f[:, encoder.features :]
    torch.testing.assert_close(
        normalised, (a - a.mean(0)) / (a.var(0, correction=0) + 1e-4).sqrt(), rtol=1e-4, atol=1e-5
    )
    assert (f >= 0).all() and not any(p.shape == (encoder.features,) for p in encoder.feature_norm.parameters())


@pytest.mark.parametrize("architecture", ["biggan", "biggan_deep"])
def test_a_grey_generator_has_one_plane_in_three_channels(architecture):
    torch.manual_seed(0)
    options = {"latent_dim": 8, "image_size": 16, "width": 4, "architecture": architecture}
    grey, coloured = Generator(**options, grey=True), Generator(**options)
    x, other = grey(torch.randn(5, 8)), coloured(torch.randn(5, 8))
    assert x.shape == other.shape == (5, 3, 16, 16)
    assert torch.equal(x[:, 0], x[:, 1]) and torch.equal(x[:, 0], x[:, 2]) and x[:, 0].std() > 0
    assert not torch.equal(other[:, 0], other[:, 1])
    if architecture == "biggan":
        assert grey.conv.weight.shape[0] == 1 and coloured.conv.weight.shape[0] == 3
    x.square().mean().backward()
    assert all(p.grad is not None for p in grey.parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Generator("16", 32, 8), "latent_dim: expected a whole number of at least 1, found '16'"),
        (lambda: Generator(16, 32, 0), "width: expected a whole number of at least 1, found 0"),
        (lambda: Generator(16, 32, 8, -1), "classes: expected a whole number of at least 0, found -1"),
        (lambda: Discriminator(0, 32, 8), "latent_dim: expected a whole number of at least 1, found 0"),
        (lambda: Discriminator(16, 32, -4), "width: expected a whole number of at least 1, found -4"),
        (lambda: Encoder(0, "resnetv2_18", 32), "latent_dim: expected a whole number of at least 1, found 0"),
        (lambda: Encoder(8, "resnetv2_18", -1), "image_size: expected a whole number of at least 1, found -1"),
        (lambda: Encoder(8, "resnetv2_18", 32, -1), "width: expected a number above 0, found -1"),
        (lambda: Encoder(8, torch.nn.Conv2d(3, 8, 3), 32), "backbone: expected .* with this attribute, found Conv2d"),
        (lambda: Encoder(8, None, 32), "backbone: expected .*, found NoneType"),
    ],
)
def test_sizes_that_no_network_has_are_refused(build, message):
    """Encoder(8, width=-1) was built with the narrowest layers, Encoder(0) and Discriminator(0) without a latent."""
    with pytest.raises(ValueError, match=message):
        build()
