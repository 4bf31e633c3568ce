"""The priors, and random numbers as functions of (seed, purpose, index)."""

import numpy as np
import pytest
import torch
from scipy import stats

from bigbigan.latents import Posterior, sample_prior, truncate
from bigbigan.noise import normal_noise, uniforms


@pytest.mark.parametrize("width", [1, 4, 7, 120])
def test_a_row_depends_on_its_index_alone(width):
    whole = uniforms(3, "z", np.arange(1000), width)
    some = np.array([999, 0, 512, 513, 17])
    assert np.array_equal(uniforms(3, "z", some, width), whole[some])
    assert np.array_equal(
        np.concatenate([uniforms(3, "z", np.arange(r, 1000, 2), width) for r in (0, 1)]),
        np.concatenate([whole[0::2], whole[1::2]]),
    )
    far = np.array([3_000_000_000, 3_000_000_001])
    assert np.array_equal(uniforms(3, "z", far, width)[1:], uniforms(3, "z", far[1:], width))


def test_the_ends_of_the_interval_are_never_reached(monkeypatch):
    """Of the smallest and the largest word of the generator, which no run of ours will meet."""

    class Ends:
        def __init__(self, key):
            pass

        def advance(self, steps):
            return self

        def random_raw(self, count):
            return np.resize(np.array([0, 2**64 - 1], np.uint64), count)

    monkeypatch.setattr(np.random, "Philox", Ends)
    u = uniforms(0, "z", np.arange(3), 4)
    assert u.min() == 2.0**-54 and u.max() == 1 - 2.0**-53
    assert normal_noise(0, "z", np.arange(3), 4).isfinite().all()


def test_seeds_and_purposes_differ():
    rows = [uniforms(seed, purpose, np.arange(4), 8) for seed in (0, 1) for purpose in ("z", "posterior")]
    assert len({row.tobytes() for row in rows}) == 4
    assert len(np.unique(rows[0])) == 32, "rows of one stream repeat"


def test_distributions():
    u = uniforms(0, "z", np.arange(20_000), 3)
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal_noise(0, "z", np.arange(20_000), 3).numpy().ravel(), "norm").pvalue > 1e-3
    uniform = sample_prior("uniform", 0, "z", np.arange(20_000), 3).numpy().ravel()
    assert stats.kstest(uniform, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(u.T)[0, 1]) < 0.03
    with pytest.raises(ValueError, match="expected one of normal, uniform, bernoulli, .*; found 'cauchy'"):
        sample_prior("cauchy", 0, "z", np.arange(2), 3)


@pytest.mark.parametrize(
    ("prior", "values", "mean", "variance"),
    [
        ("bernoulli", {0.0, 1.0}, 1 / 2, 1 / 4),
        ("signed_bernoulli", {-1.0, 1.0}, 0, 1),
        ("categorical", {-1.0, 0.0, 1.0}, 0, 2 / 3),
        ("censored_normal", None, (2 * np.pi) ** -0.5, 1 / 2 - 1 / (2 * np.pi)),
        ("sparse_normal", None, 0, 1 / 2),
        ("variable_normal", None, 0, 13 / 12),  # E[σ²] = 1 + 1/12
    ],
)
def test_latents_of_appendix_e(prior, values, mean, variance):
    z = sample_prior(prior, 0, "z", np.arange(20_000), 4)
    assert z.shape == (20_000, 4) and z.dtype == torch.float32
    assert values is None or set(z.unique().tolist()) == values
    assert z.mean().item() == pytest.approx(mean, abs=0.02) and z.var().item() == pytest.approx(variance, abs=0.03)
    assert torch.equal(sample_prior(prior, 0, "z", np.array([7, 19_999]), 4), z[[7, 19_999]]), (
        "a row is a function of its index"
    )
    assert np.abs(np.corrcoef(z.numpy().T) - np.eye(4)).max() < 0.03
    if prior in ("censored_normal", "sparse_normal"):
        assert (z == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
        assert stats.kstest(z[z != 0].abs().numpy(), stats.halfnorm.cdf).pvalue > 1e-3
    if prior == "variable_normal":  # one σ a sample: the magnitudes of its components go together
        magnitude = z.abs().numpy()
        assert np.corrcoef(magnitude[:, 0], magnitude[:, 1])[0, 1] > 0.05


def test_half_normal_half_bernoulli():
    z = sample_prior("normal_bernoulli", 0, "z", np.arange(20_000), 5)
    assert stats.kstest(z[:, :3].numpy().ravel(), "norm").pvalue > 1e-3
    assert set(z[:, 3:].unique().tolist()) == {0.0, 1.0} and z[:, 3:].mean().item() == pytest.approx(0.5, abs=0.01)
    assert np.abs(np.corrcoef(z.numpy().T) - np.eye(5)).max() < 0.03


def test_truncation_is_the_truncated_normal():
    z = truncate(normal_noise(0, "z", np.arange(20_000), 2), 0.5, seed=0)
    assert z.abs().max() <= 0.5
    assert stats.kstest(z.numpy().ravel(), stats.truncnorm(-0.5, 0.5).cdf).pvalue > 1e-3
    z = normal_noise(0, "z", np.arange(100), 2)
    kept = z.abs() <= 1
    assert torch.equal(truncate(z, 1.0, seed=0)[kept], z[kept]), "components within the threshold stay"
    rows = np.array([3, 50, 99])
    assert torch.equal(truncate(z[rows], 1.0, 0, rows), truncate(z, 1.0, 0)[rows]), "a row depends on its place alone"
    with pytest.raises(ValueError, match="threshold above 0, found 0"):
        truncate(z, 0, seed=0)


def test_posterior_sample():
    posterior = Posterior(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.0]]))
    assert torch.equal(posterior.sample(torch.tensor([[2.0, 9.0]])), torch.tensor([[2.0, 2.0]]))
