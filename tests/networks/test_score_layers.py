"""D's penultimate features are what the last layer of each score sees, for every family, and change no score."""

import numpy as np
import pytest
import torch

import bigbigan
from bigbigan.errors import InputError
from bigbigan.networks.interface import DiscriminatorInterface
from bigbigan.networks.layers import pixel_norm
from tests.conftest import tiny_model

PROGRESSIVE = {"family": "progressive", "encoder": "progressive", "feature_base": 32, "feature_limit": 16}
MLP = {"family": "mlp", "encoder": "mlp", "posterior": "tanh", "prior": "uniform"}
KINDS = {
    "conv": {}, "grey": {"grey": True}, "deep": {"architecture": "biggan_deep"}, "conditional": {"classes": 3},
    "high-resolution E": {"encoder_image_size": 16}, "GAN": {"encoder": "none"},
    "revnet": {"encoder": "revnet50", "encoder_width": 0.0625, "encoder_blocks": (1, 2)},
    "mlp": MLP, "mlp, batch norm": MLP | {"discriminator_norm": "batch"}, "mlp, GAN": MLP | {"encoder": "none"},
    "progressive": PROGRESSIVE, "progressive, spectral": PROGRESSIVE | {"discriminator_norm": "spectral"},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_what_the_scores_are_made_of(kind):
    model = tiny_model(**KINDS[kind]).eval()
    discriminator, keys = model.discriminator, list(model.state_dict())
    x, z = torch.rand(3, 3, 8, 8) * 2 - 1, torch.randn(3, 8)
    classes = torch.arange(3) if model.classes else None
    with torch.no_grad():
        plain = model.discriminate(x, z, classes)
        found = model.discriminate(x, z, classes, features=True)
        layers = discriminator.score_layers()
        assert set(found) == set(plain) | {name.replace("score", "feat") for name in plain}
        assert set(layers) == {name.removeprefix("score_") for name in plain}
        for name, score in plain.items():
            assert torch.equal(found[name], score)
            last = name.removeprefix("score_")
            again = layers[last](found[f"feat_{last}"]).squeeze(1)
            if classes is not None and last == "x":
                again = again + (discriminator.embedding(classes) * found["feat_x"]).sum(1)
            torch.testing.assert_close(again, score)
        if not kind.startswith("mlp"):
            f = discriminator.f(x)
            assert torch.equal(found["feat_x"], f)
            if discriminator.joint:
                h = discriminator.h(z)
                both = torch.cat([pixel_norm(f), pixel_norm(h)] if kind.startswith("progressive") else [f, h], 1)
                assert torch.equal(found["feat_z"], h) and torch.equal(found["feat_xz"], discriminator.j(both))
        else:
            assert torch.equal(next(v for k, v in found.items() if "feat" in k), discriminator.f(x, z))
    assert not any(layer._forward_pre_hooks for layer in layers.values())
    assert list(model.state_dict()) == keys


def test_the_function_returns_them_for_images_of_any_kind():
    model = tiny_model().eval()
    pictures = np.random.default_rng(0).integers(0, 256, (5, 9, 9, 3), dtype=np.uint8)
    z = bigbigan.encode(pictures, model, "z_mean")
    found = bigbigan.discriminate(pictures, z, model, batch_size=2, features=True)
    assert {k: tuple(v.shape) for k, v in found.items() if k.startswith("feat")} == {
        "feat_x": (5, model.discriminator.f.features), "feat_z": (5, 16), "feat_xz": (5, 16),
    }  # fmt: skip
    plain = bigbigan.discriminate(pictures, z, model, batch_size=2)
    assert set(plain) == {"score_x", "score_z", "score_xz"}
    assert all(torch.equal(found[name], score) for name, score in plain.items())


class Own(torch.nn.Module, DiscriminatorInterface):
    """A discriminator of somebody's own that does not name the layers of its scores."""

    image_size, latent_dim = 8, 8

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, z=None, classes=None, noise=None):
        return self.inner(x, z)


def test_a_network_that_does_not_name_its_layers_is_refused():
    model = tiny_model().eval()
    model.discriminator = Own(model.discriminator)
    x, z = torch.zeros(2, 3, 8, 8), torch.zeros(2, 8)
    assert set(model.discriminate(x, z)) == {"score_x", "score_z", "score_xz"}
    with pytest.raises(InputError, match="expected a discriminator that names the layers of its scores, found Own"):
        model.discriminate(x, z, features=True)


def test_hooks_are_gone_after_an_error():
    model = tiny_model().eval()
    with pytest.raises(RuntimeError):
        model.discriminate(torch.zeros(2, 3, 8, 8), torch.zeros(2, 5), features=True)
    assert not any(layer._forward_pre_hooks for layer in model.discriminator.score_layers().values())
