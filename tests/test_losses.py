"""The objective against a table worked out by hand (BigBiGAN, equation 4)."""

import math

import pytest
import torch

from bigbigan.losses import Scores, discriminator_loss, encoder_generator_loss, gradient_penalty, select_terms

# Two encoder pairs and two generator pairs: s_x, s_z, s_xz.
ENCODER = Scores(torch.tensor([2.0, 0.0]), torch.tensor([0.5, -1.0]), torch.tensor([1.0, 3.0]))
GENERATOR = Scores(torch.tensor([-2.0, 0.5]), torch.tensor([0.0, -0.5]), torch.tensor([1.0, -1.5]))


def softplus(t):
    return math.log1p(math.exp(t))


def test_hinge_is_per_term():
    # h(+s): [max(0,1-2) + max(0,1-.5) + max(0,1-1), 1 + 2 + 0] = [0.5, 3];  h(-s): [0 + 1 + 2, 1.5 + 0.5 + 0] = [3, 2]
    assert discriminator_loss(ENCODER, GENERATOR).item() == pytest.approx((0.5 + 3) / 2 + (3 + 2) / 2)


def test_joint_hinge_sums_first():
    # sums: encoder [3.5, 2], generator [-1, -1.5];  h: [0, 0] and [max(0, 1-1), max(0, 1-1.5)] = [0, 0]
    assert discriminator_loss(ENCODER, GENERATOR, "joint_hinge").item() == 0
    # swapped roles: h([-1, -1.5]) = [2, 2.5];  h(-[3.5, 2]) = [4.5, 3]
    assert discriminator_loss(GENERATOR, ENCODER, "joint_hinge").item() == pytest.approx((2 + 2.5) / 2 + (4.5 + 3) / 2)


def test_logistic_is_cross_entropy_of_the_sum():
    expected = (softplus(-3.5) + softplus(-2)) / 2 + (softplus(-1) + softplus(-1.5)) / 2
    assert discriminator_loss(ENCODER, GENERATOR, "logistic").item() == pytest.approx(expected)
    logits, target = torch.tensor([3.5, 2.0, -1.0, -1.5]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    reference = 2 * torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    assert discriminator_loss(ENCODER, GENERATOR, "logistic").item() == pytest.approx(reference.item())


def test_encoder_and_generator_are_linear_with_opposite_signs():
    # + mean(3.5, 2) for (x, E(x)), − mean(−1, −1.5) for (G(z), z)
    assert encoder_generator_loss(ENCODER, GENERATOR).item() == pytest.approx(2.75 + 1.25)
    expected = (softplus(3.5) + softplus(2)) / 2 + (softplus(1) + softplus(1.5)) / 2
    assert encoder_generator_loss(ENCODER, GENERATOR, "logistic").item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("terms", "expected_d", "expected_eg"),
    [
        ({"unary_x": False}, (0.5 + 2) / 2 + (3 + 0.5) / 2, (1.5 + 2) / 2 - (1 - 2) / 2),
        ({"unary_z": False}, (0 + 1) / 2 + (2 + 1.5) / 2, (3 + 3) / 2 - (-1 - 1) / 2),
        ({"unary_x": False, "unary_z": False}, 0 + (2 + 0) / 2, (1 + 3) / 2 - (1 - 1.5) / 2),
        ({"unary_z": False, "joint": False}, (0 + 1) / 2 + (0 + 1.5) / 2, 1 - (-1.5) / 2),
    ],
)
def test_ablations(terms, expected_d, expected_eg):
    pairs = select_terms(ENCODER, **terms), select_terms(GENERATOR, **terms)
    assert discriminator_loss(*pairs).item() == pytest.approx(expected_d)
    assert encoder_generator_loss(*pairs).item() == pytest.approx(expected_eg)


def test_unknown_form_is_named():
    with pytest.raises(ValueError, match="expected hinge, joint_hinge, logistic, wgan_gp or lsgan; found 'hinge2'"):
        discriminator_loss(ENCODER, GENERATOR, "hinge2")


def test_wgan_is_linear_in_the_sum_with_a_drift_term():
    # sums: encoder [3.5, 2], generator [-1, -1.5]
    expected = -1.25 - 2.75 + 0.01 * (3.5**2 + 2**2) / 2
    assert discriminator_loss(ENCODER, GENERATOR, "wgan_gp", drift=0.01).item() == pytest.approx(expected)
    assert encoder_generator_loss(ENCODER, GENERATOR, "wgan_gp").item() == pytest.approx(2.75 + 1.25)


def test_lsgan_has_targets_one_and_zero():
    expected = (2.5**2 + 1) / 2 + 0.1 * (1 + 1.5**2) / 2
    assert discriminator_loss(ENCODER, GENERATOR, "lsgan").item() == pytest.approx(expected)
    expected = (3.5**2 + 2**2) / 2 + (2**2 + 2.5**2) / 2
    assert encoder_generator_loss(ENCODER, GENERATOR, "lsgan").item() == pytest.approx(expected)


@pytest.mark.parametrize("form", ["hinge", "logistic", "wgan_gp", "lsgan"])
def test_without_an_encoder_only_the_generator_has_a_loss(form):
    x = Scores(torch.tensor([-2.0, 0.5]), None, None)
    expected = {"logistic": (softplus(2) + softplus(-0.5)) / 2, "lsgan": (9 + 0.25) / 2}.get(form, 0.75)
    assert encoder_generator_loss(None, x, form).item() == pytest.approx(expected)


@pytest.mark.parametrize(("gamma", "factor"), [(1.0, 1.0), (2.0, 0.25)])
def test_the_gradient_penalty_is_of_joint_norms(gamma, factor):
    image, latent = torch.tensor([[[3.0]], [[0.0]]]), torch.tensor([[4.0], [0.0]])  # norms 5 and 0
    expected = 10 * factor * ((5 - gamma) ** 2 + gamma**2) / 2
    assert gradient_penalty([image, latent], 10.0, gamma).item() == pytest.approx(expected)
