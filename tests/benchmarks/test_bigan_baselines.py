"""The baselines of BiGAN's Table 1: what their losses are, and which networks they train."""

import copy

import pytest
import torch

from benchmarks import bigan_baselines as baselines
from bigbigan.networks.layers import set_momentum
from tests.conftest import tiny_model


def tiny_mlp():
    return tiny_model(
        family="mlp", encoder="mlp", latent_dim=4, prior="uniform", posterior="sigmoid", discriminator_norm="batch",
        mlp_width=16, grey=True,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "power"), baselines.POWERS.items())
def test_an_autoencoders_error_is_a_sum_over_pixels_from_0_to_1(name, power):
    model, x = tiny_mlp().eval(), torch.rand(3, 1, 8, 8).expand(-1, 3, -1, -1) * 2 - 1
    again = model.generator(model.encoder(x).mean)
    one_plane = ((1 + x[:, 0]) / 2 - (1 + again[:, 0]) / 2).abs()
    expected = sum(float(pixel) ** power for pixel in one_plane.flatten()) / 3
    assert float(baselines.autoencoder_loss(power)(model, x)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("gan", [False, True])
def test_a_regressor_trains_e_alone_and_an_autoencoder_both(gan):
    model, images = tiny_mlp(), 256
    set_momentum(model)
    if gan:
        model.generator.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    loss = baselines.regression_loss if gan else baselines.autoencoder_loss(2)
    x = torch.rand(64, 1, 8, 8).expand(-1, 3, -1, -1) * 2 - 1
    config = baselines.settings(images)
    config.data.batch_size = 32
    points = list(baselines.train(model.train(), x, config, loss, images))
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == ({"encoder"} if gan else {"encoder", "generator"})
    assert len(points) == baselines.POINTS and points[-1] == images
