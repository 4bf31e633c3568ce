"""Compression: the coder's lengths are those of a code that can be written, and files and errors are counted right."""

import sys

import numpy as np
import pytest
import torch
from scipy.stats import norm

import bigbigan
from bigbigan.errors import InputError
from bigbigan.uses import compression
from bigbigan.uses.compression import Coder, compress, errors, files, principal_components
from tests.conftest import tiny_model
from tests.networks.test_score_layers import KINDS
from tests.uses.test_anomalies import images


@pytest.mark.parametrize("step", [0.1, 1.0, 5.0])
def test_lengths_satisfy_krafts_inequality(step):
    coder = Coder(np.array([0.3]), np.array([1.7]))
    numbers = np.arange(-20_000, 20_001)[:, None]
    lengths = coder.bits(numbers, step)
    assert 0.999 < (2.0**-lengths).sum() <= 1 + 1e-9
    near = np.abs(numbers[:, 0] * step) < 2
    mass = norm.cdf((numbers[near, 0] + 0.5) * step / 1.7) - norm.cdf((numbers[near, 0] - 0.5) * step / 1.7)
    np.testing.assert_allclose(lengths[near], -np.log2(mass), atol=0.1)


def test_a_length_is_finite_however_far_and_the_same_on_both_sides():
    coder = Coder(np.zeros(1), np.full(1, 1e-9))
    lengths = coder.bits(np.array([[10**9], [-(10**9)], [0]]), 1.0)
    assert np.isfinite(lengths).all() and lengths[0] == pytest.approx(lengths[1]) and lengths[2] < 0.1
    assert lengths[0] < 120


def test_bits_are_near_the_entropy_of_what_is_coded():
    rows = np.random.default_rng(0).normal(2, 3, (20_000, 2))
    coder = Coder.fit(rows[:10_000])
    numbers = coder.quantise(rows[10_000:], 0.5)
    found = coder.bits(numbers, 0.5).mean()
    assert found == pytest.approx(2 * np.log2(3 * np.sqrt(2 * np.pi * np.e) / 0.5), abs=0.1)
    shares = [np.unique(column, return_counts=True)[1] / len(numbers) for column in numbers.T]
    assert found > sum(-(p * np.log2(p)).sum() for p in shares) - 0.02
    assert np.abs(coder.restore(numbers, 0.5) - rows[10_000:]).max() <= 0.25 + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_compresses(kind):
    model = tiny_model(**KINDS[kind]).eval()
    if model.encoder is None:
        with pytest.raises(InputError, match="found a GAN, which has no encoder"):
            compress(model, images(2), Coder(np.zeros(8), np.ones(8)), 1.0)
        return
    x, classes = images(6, model.encoder.image_size), torch.arange(6) % 3 if model.classes else None
    coder = Coder.fit(bigbigan.encode(x, model, "z_mean", value_range=(-1, 1)))
    coarse, fine = (compress(model, x, coder, step, classes=classes) for step in (2.0, 1e-4))
    assert 0 <= coarse.bits < fine.bits
    plain = bigbigan.reconstruct(x, model, classes=classes, value_range=(-1, 1))
    torch.testing.assert_close(fine.images, plain, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize("kind", ["JPEG", "WebP"])
def test_files_give_back_the_images(kind, grey):
    base = torch.linspace(-0.9, 0.9, 16)[None, None, None, :].expand(7, 3, 16, 16).clone()
    base *= torch.linspace(0.3, 1, 7)[:, None, None, None]
    if not grey:
        base[:, 0] *= -0.8
    for together in (False, True):
        low, high = files(base, kind, (5, 95), together)
        assert low.bits < high.bits and high.images.shape == base.shape
        limit = 0.02 if grey else 0.2  # both kinds keep colour at half the resolution
        assert errors(base, high.images)[0] < limit and errors(base, high.images)[0] <= errors(base, low.images)[0]
    assert files(base, kind, (50,), True)[0].bits < files(base, kind, (50,))[0].bits  # one header for all


@pytest.mark.parametrize("n", [1, 5, 12])
def test_a_sheet_is_cut_as_it_was_made(n):
    x = images(n, 4)
    sheet = compression._tiled(x)
    assert torch.equal(compression._cut(sheet, x), x)
    assert torch.equal(sheet[:, :4, :4], x[0])
    if n > 1:
        assert torch.equal(sheet[:, :4, 4:8], x[1])


def test_errors_by_hand():
    x, other = images(6), images(6, seed=1)
    pairs = [(x[i] - x[j]).square().mean() for i in range(6) for j in range(6) if i != j]
    relative, psnr = errors(x, other)
    squared = (x - other).square().mean()
    assert relative == pytest.approx(float(squared / torch.stack(pairs).mean()), rel=1e-4)
    assert psnr == pytest.approx(float(10 * torch.log10(255**2 / (squared * 127.5**2))), rel=1e-5)
    assert errors(x, x)[1] == float("inf")


def test_principal_components_keep_more_with_more_bits():
    x = images(40, 4)
    points = principal_components(x, x[:10], (2.0, 0.5, 0.01))
    assert [p.bits for p in points] == sorted(p.bits for p in points)
    assert errors(x[:10], points[-1].images)[0] < 0.3 and points[-1].images.shape == (10, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Coder.fit(np.zeros((1, 3))), "rows: expected at least two"),
        (lambda: Coder.fit(np.full((3, 3), np.inf)), "rows: expected finite numbers"),
        (
            lambda: Coder(np.zeros(2), np.ones(2)).quantise(np.zeros((1, 2)), 0),
            "step: expected a number above 0, found 0",
        ),
    ],
)
def test_what_cannot_be_is_a_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("there", [True, False])
def test_the_command(there, tmp_path, capsys, monkeypatch):
    if there:
        pytest.importorskip("matplotlib")
    else:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out, curve = tmp_path / "c.png", tmp_path / "sub" / "curve.png"
    sizes = ["--train_images", "200", "--test_images", "40", "--steps", "2", "0.5"]
    compression.main(["digits", *sizes, "--out", str(out), "--curve", str(curve)])
    text = capsys.readouterr().out
    assert out.is_file() and curve.is_file() == there and ("needs matplotlib" in text) != there
    assert "40 held-out images of 8 px" in text and text.count("\n") > 30
    bits = [float(line.split()[6]) for line in text.splitlines() if line.startswith("G and E")]
    assert 0 < bits[0] < bits[1] < 100
