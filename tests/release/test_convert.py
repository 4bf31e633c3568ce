"""BigGAN-PyTorch's generator layout: a network written here in that layout, by its module tree, and what we read of
it."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import bigbigan
from bigbigan.errors import ConversionError
from bigbigan.release.convert import convert_biggan, generator_from_biggan, load_biggan

WIDTHS = {3: [4, 4, 4, 4], 4: [16, 16, 8, 4, 2], 5: [16, 16, 8, 4, 2, 1]}


class Normalised(nn.Module):
    """A layer with a weight, a u0 and an sv0; σ by one half-iteration from u0, and none of it stored."""

    def __init__(self, *shape, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) * 0.2)
        if bias:
            self.bias = nn.Parameter(torch.randn(shape[0]) * 0.1)
        self.register_buffer("u0", torch.randn(1, shape[0]))
        self.register_buffer("sv0", torch.ones(1))

    def forward(self, x):
        matrix = self.weight.view(len(self.weight), -1)
        v = F.normalize(self.u0 @ matrix)
        u = F.normalize(v @ matrix.t())
        weight = self.weight / (v @ matrix.t() @ u.t()).squeeze()
        bias = getattr(self, "bias", None)
        return (
            F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2) if weight.ndim == 4 else F.linear(x, weight, bias)
        )


class Statistics(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.register_buffer("stored_mean", torch.randn(channels) * 0.3)
        self.register_buffer("stored_var", torch.rand(channels) + 0.5)

    def normalise(self, x, eps):
        shape = (1, -1, 1, 1)
        return (x - self.stored_mean.view(shape)) / (self.stored_var.view(shape) + eps).sqrt()


class Conditional(Statistics):
    def __init__(self, channels, make):
        super().__init__(channels)
        self.gain, self.bias = make(channels), make(channels)

    def forward(self, x, y, eps):
        return self.normalise(x, eps) * (1 + self.gain(y))[:, :, None, None] + self.bias(y)[:, :, None, None]


class Last(Statistics):
    def __init__(self, channels):
        super().__init__(channels)
        self.gain, self.bias = nn.Parameter(torch.rand(channels) + 0.5), nn.Parameter(torch.randn(channels))

    def forward(self, x, eps):
        return self.normalise(x, eps) * self.gain.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class Residual(nn.Module):
    def __init__(self, before, after, make):
        super().__init__()
        self.conv1, self.conv2 = Normalised(after, before, 3, 3), Normalised(after, after, 3, 3)
        self.conv_sc = Normalised(after, before, 1, 1)
        self.bn1, self.bn2 = Conditional(before, make), Conditional(after, make)

    def forward(self, x, y, eps):
        h = F.interpolate(F.relu(self.bn1(x, y, eps)), scale_factor=2)
        h = self.conv2(F.relu(self.bn2(self.conv1(h), y, eps)))
        return h + self.conv_sc(F.interpolate(x, scale_factor=2))


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.theta, self.phi = Normalised(c // 8, c, 1, 1, bias=False), Normalised(c // 8, c, 1, 1, bias=False)
        self.g, self.o = Normalised(c // 2, c, 1, 1, bias=False), Normalised(c, c // 2, 1, 1, bias=False)
        self.gamma = nn.Parameter(torch.tensor(0.8))

    def forward(self, x, y, eps):
        n, _, h, w = x.shape
        theta = self.theta(x).flatten(2)
        phi, g = (F.max_pool2d(f(x), 2).flatten(2) for f in (self.phi, self.g))
        beta = (theta.transpose(1, 2) @ phi).softmax(-1)
        return x + self.gamma * self.o((g @ beta.transpose(1, 2)).view(n, -1, h, w))


class Peer(nn.Module):
    """G as that project arranges it. hierarchical: z in chunks.  shared: one embedding, else tables in the batch
    norms."""

    def __init__(
        self, blocks, width, chunk, classes, embedding, attention=None, hierarchical=True, shared=True, bottom=4
    ):
        super().__init__()
        widths = [width * m for m in WIDTHS[blocks]]
        self.chunk, self.bottom, self.hierarchical = chunk, bottom, hierarchical
        condition = embedding + (chunk if hierarchical else 0)

        def make(channels):
            return Normalised(channels, condition, bias=False) if shared else nn.Embedding(classes, channels)

        self.shared = nn.Embedding(classes, embedding) if shared else nn.Identity()
        self.linear = Normalised(widths[0] * bottom**2, chunk)
        self.blocks = nn.ModuleList(
            nn.ModuleList([Residual(a, b, make)] + ([Attention(b)] if attention == i else []))
            for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.output_layer = nn.Sequential(Last(widths[-1]), nn.ReLU(), Normalised(3, widths[-1], 3, 3))

    @torch.no_grad()
    def forward(self, z, classes, eps=1e-4, last_eps=1e-4):
        y = self.shared(classes)
        first, *rest = z.split(self.chunk, 1) if self.hierarchical else [z]
        h = self.linear(first).view(len(z), -1, self.bottom, self.bottom)
        for i, blocks in enumerate(self.blocks):
            for block in blocks:
                h = block(h, torch.cat([y, rest[i]], 1) if self.hierarchical else y, eps)
        return torch.tanh(self.output_layer[2](F.relu(self.output_layer[0](h, last_eps))))


KINDS = {
    "hierarchical": {"blocks": 3, "width": 8, "chunk": 5, "classes": 7, "embedding": 6},
    "attention, 64 px": {"blocks": 4, "width": 4, "chunk": 2, "classes": 3, "embedding": 4, "attention": 1},
    "128 px": {"blocks": 5, "width": 4, "chunk": 2, "classes": 3, "embedding": 4, "attention": 3},
    "no skip-z": {"blocks": 3, "width": 4, "chunk": 9, "classes": 5, "embedding": 6, "hierarchical": False},
    "tables": {
        "blocks": 3,
        "width": 4,
        "chunk": 9,
        "classes": 5,
        "embedding": 0,
        "hierarchical": False,
        "shared": False,
    },
    "another bottom": {"blocks": 3, "width": 4, "chunk": 3, "classes": 2, "embedding": 5, "bottom": 6},
}


def draw(peer, n=2):
    slots = len(peer.blocks) + 1 if peer.hierarchical else 1
    return torch.randn(n, peer.chunk * slots, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_equal(kind, tmp_path):
    torch.manual_seed(0)
    peer = Peer(**KINDS[kind]).double().eval()
    z, y = draw(peer), torch.randint(0, KINDS[kind]["classes"], (2,))
    torch.save(peer.state_dict(), tmp_path / "G_ema.pth")
    generator = load_biggan(tmp_path / "G_ema.pth")
    assert not generator.training and generator.classes == KINDS[kind]["classes"] and generator.latent_dim == z.shape[1]
    with torch.no_grad():
        torch.testing.assert_close(generator(z, y), peer(z, y), rtol=1e-9, atol=1e-9)
        assert not torch.allclose(generator(z, y), peer(z, (y + 1) % KINDS[kind]["classes"]), atol=1e-4)


def test_the_single_label_repeated_to_fill_a_table_is_no_class(tmp_path):
    torch.manual_seed(0)
    peer = Peer(**KINDS["hierarchical"]).double()
    with torch.no_grad():
        peer.shared.weight.copy_(peer.shared.weight[:1].expand_as(peer.shared.weight))
    save_file({f"module.{k}": v.contiguous() for k, v in peer.state_dict().items()}, tmp_path / "x1.safetensors")
    generator = load_biggan(tmp_path / "x1.safetensors")
    z = draw(peer)
    assert generator.classes == 0 and len(generator.embedding.weight) == 1
    with torch.no_grad():
        torch.testing.assert_close(generator(z), peer(z, torch.arange(2)), rtol=1e-9, atol=1e-9)


def test_eps_is_the_callers():
    torch.manual_seed(0)
    peer = Peer(**KINDS["hierarchical"]).double()
    z, y = draw(peer), torch.zeros(2, dtype=torch.long)
    generator = generator_from_biggan(peer.state_dict(), eps=1e-2, last_eps=1e-1)
    with torch.no_grad():
        torch.testing.assert_close(generator(z, y), peer(z, y, 1e-2, 1e-1), rtol=1e-9, atol=1e-9)
        assert not torch.allclose(generator(z, y), peer(z, y, 1e-2, 1e-2), atol=1e-4)


@pytest.mark.parametrize("kind", ["attention, 64 px", "tables"])
def test_a_release_draws_as_the_file_with_its_own_eps(kind, tmp_path):
    """The difference of eps is in the variances, since a release has one eps for all."""
    torch.manual_seed(0)
    peer = Peer(**KINDS[kind]).eval()
    z, y = draw(peer).float(), torch.zeros(2, dtype=torch.long)
    torch.save(peer.state_dict(), tmp_path / "G_ema.pth")
    convert_biggan(tmp_path / "G_ema.pth", tmp_path / "release", 1e-2, 1e-1)
    with torch.no_grad():
        found = bigbigan.load(tmp_path / "release", "cpu").generate(z, y)
        torch.testing.assert_close(found, peer(z, y, 1e-2, 1e-1), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(found, peer(z, y), atol=1e-2)


def test_a_converted_generator_can_be_trained_on():
    peer = Peer(**KINDS["hierarchical"])
    generator = generator_from_biggan(peer.state_dict()).train()
    generator(draw(peer).float(), torch.zeros(2, dtype=torch.long)).square().mean().backward()
    assert all(p.grad is not None for p in generator.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.1.0.bn2.stored_var"), "blocks.1.norm2.norm.running_var is missing"),
        (lambda t: t.update({"blocks.1.0.bn3.gain": torch.zeros(1)}), "blocks.1.norm3.gain is unknown"),
        (lambda t: t.update({"blocks.1.0.conv1.weight": torch.zeros(2, 2, 3, 3)}), "has shape .2, 2, 3, 3., expected"),
        (
            lambda t: t.pop("linear.weight"),
            "expected the layout of BigGAN-PyTorch's generator, found none of its 'linear.weight'",
        ),
        (
            lambda t: t.pop("blocks.2.0.conv_sc.u0"),
            "singular vector u0 of every layer, found none of blocks.2.shortcut",
        ),
        (lambda t: t.update(config={"a": 1}), "expected a state dict of tensors"),
        (lambda t: t.clear(), "expected the layout"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    tensors = Peer(**KINDS["hierarchical"]).state_dict()
    change(tensors)
    with pytest.raises(ConversionError, match=message):
        generator_from_biggan(tensors)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ConversionError, match="expected a file of weights, found none"):
        load_biggan(tmp_path / "G.pth")
    (tmp_path / "torn.pth").write_bytes(b"\x80\x02torn")
    with pytest.raises(ConversionError, match=r"torn.pth: expected"):
        load_biggan(tmp_path / "torn.pth")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "folder.pth").mkdir()
    for name, found in {"empty.pth": "EOFError", "folder.pth": ".*Is a directory"}.items():
        with pytest.raises(ConversionError, match=f"{name}: expected a file of tensors, found: {found}"):
            load_biggan(tmp_path / name)
    torch.save({"config": nn.ReLU()}, tmp_path / "state_dict.pth")
    with pytest.raises(ConversionError, match="expected tensors alone, found other objects"):
        load_biggan(tmp_path / "state_dict.pth")
