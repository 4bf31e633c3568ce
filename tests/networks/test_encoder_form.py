"""Details in which ResNets of other codes differ: padding, shortcuts, the last ReLU; by default nothing changes."""

import pytest
import torch
import torch.nn.functional as F

from bigbigan.config import Model
from bigbigan.networks.encoder import Encoder, TrunkForm
from bigbigan.networks.factory import build_encoder


def encoder(backbone="resnetv2_50", **form):
    torch.manual_seed(0)
    made = Encoder(
        4, backbone, 32, 1 / 32, stem="imagenet", mlp_width=8, mlp_layers=2, blocks=(1, 1, 1, 1), form=TrunkForm(**form)
    )
    return made.eval()


def padded(x, kernel, value=0.0):
    """As TensorFlow's SAME with stride 2 pads an even size: one pixel more after than before."""
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    return F.pad(x, (before, after, before, after), value=value)


@pytest.mark.parametrize("backbone", ["resnetv2_50", "revnet50"])
def test_weights_have_the_same_names_in_every_form(backbone):
    plain, other = encoder(backbone), encoder(backbone, padding="same", pool_padding="same", last_relu="no")
    assert plain.state_dict().keys() == other.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


@pytest.mark.parametrize("backbone", ["resnetv2_50", "revnet50"])
@pytest.mark.parametrize("pool", ["symmetric", "same", "zeros"])
def test_the_stem_pads_as_it_should(backbone, pool):
    x = torch.randn(2, 3, 32, 32)
    made = encoder(backbone, padding="same", pool_padding=pool)
    h = F.conv2d(padded(x, 7), made.trunk.stem.conv.weight, stride=2)
    pooled = {
        "symmetric": lambda: F.max_pool2d(h, 3, 2, 1),
        "same": lambda: F.max_pool2d(padded(h, 3, -torch.inf), 3, 2),
        "zeros": lambda: F.max_pool2d(F.pad(h, (1, 1, 1, 1)), 3, 2),
    }[pool]()
    torch.testing.assert_close(made.trunk.stem(x), pooled)


def test_strided_convolutions_of_the_blocks_pad_too():
    x = torch.randn(2, 8, 8, 8)
    conv = encoder(padding="same").trunk.stages[1].blocks[0].conv2
    torch.testing.assert_close(conv(x), F.conv2d(padded(x, 3), conv.weight, stride=2))


def test_raw_shortcuts_see_the_input_of_the_block():
    x = torch.randn(2, 8, 8, 8)
    plain, raw = (encoder(shortcut=s).trunk.stages[0].blocks[0] for s in ("preactivated", "raw"))
    branch = plain(x) - plain.downsample(plain.norm1(x))
    torch.testing.assert_close(raw(x), branch + raw.downsample(x))
    assert not torch.allclose(raw(x), plain(x))


@pytest.mark.parametrize("backbone, auto", [("resnetv2_50", "yes"), ("revnet50", "no")])
def test_the_last_relu(backbone, auto):
    x = torch.randn(2, 3, 32, 32)
    features = {form: encoder(backbone, last_relu=form).avepool(x) for form in ("auto", "yes", "no")}
    assert torch.equal(features["auto"], features[auto])
    assert features["yes"].min() >= 0 and features["no"].min() < 0


def test_settings_reach_the_encoder():
    model = Model(
        image_size=16, encoder_image_size=32, latent_dim=4, encoder_width=1 / 32, encoder_blocks=(1, 1, 1, 1),
        encoder_stem="imagenet", encoder_mlp_width=8, encoder_mlp_layers=2, encoder_padding="same",
        encoder_pool_padding="zeros", encoder_shortcut="raw", encoder_last_relu="no",
    )  # fmt: skip
    x = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    made = build_encoder(model).eval()
    expected = encoder(padding="same", pool_padding="zeros", shortcut="raw", last_relu="no")
    expected.load_state_dict(made.state_dict())
    assert torch.equal(made.avepool(x), expected.avepool(x))


@pytest.mark.parametrize("backbone", ["resnet18", "resnetv2_18"])
def test_other_backbones_refuse_them(backbone):
    width = {"resnet18": 1.0}.get(backbone, 0.125)
    with pytest.raises(ValueError, match="expected revnet50 or a resnetv2 of bottlenecks"):
        Encoder(4, backbone, 32, width, mlp_width=8, mlp_layers=2, form=TrunkForm(padding="same"))
    with pytest.raises(ValueError, match="expected shortcut preactivated"):
        encoder("revnet50", shortcut="raw")
