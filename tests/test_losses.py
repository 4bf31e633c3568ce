"""The objective against a table worked out by hand (BigBiGAN, equation 4)."""

import math

import pytest
import torch

from bigbigan.losses import Scores, discriminator_loss, encoder_generator_loss, select_terms

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
    with pytest.raises(ValueError, match="expected hinge, joint_hinge or logistic; found 'hinge2'"):
        discriminator_loss(ENCODER, GENERATOR, "hinge2")
