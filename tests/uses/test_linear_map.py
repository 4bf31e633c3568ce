"""The linear map: the ridge regression written out, pairs counted one by one, the stated noise, and whole commands."""

import numpy as np
import pytest
import torch

from bigbigan.errors import InputError
from bigbigan.uses import linear_map
from bigbigan.uses.linear_map import fit_linear_map, pairwise_decoding, synthetic_measurements

NUMBERS = np.random.default_rng(0)


def test_it_is_the_ridge_regression():
    m, z = NUMBERS.normal(5, 3, (40, 6)), NUMBERS.normal(0, 1, (40, 4))
    fitted = fit_linear_map(m, torch.from_numpy(z), penalties=(7.0,))
    unit, centred = (m - m.mean(0)) / m.std(0), z - z.mean(0)
    weights = np.linalg.solve(unit.T @ unit + 7 * np.eye(6), unit.T @ centred)
    np.testing.assert_allclose(fitted.weights, weights, rtol=1e-8)
    new = NUMBERS.normal(5, 3, (3, 6))
    np.testing.assert_allclose(fitted(new), (new - m.mean(0)) / m.std(0) @ weights + z.mean(0), rtol=1e-4, atol=1e-5)
    assert fitted.penalty == 7.0 and fitted.weights.dtype == np.float64


def test_without_noise_the_latents_come_back():
    z = torch.from_numpy(NUMBERS.normal(0, 1, (60, 5)))
    mixing = NUMBERS.normal(0, 1, (5, 12))
    fitted = fit_linear_map(z[:50].numpy() @ mixing, z[:50])
    torch.testing.assert_close(fitted(z[50:].numpy() @ mixing).double(), z[50:], rtol=1e-3, atol=1e-3)


def test_a_latent_of_one_number_is_a_column():
    z = torch.from_numpy(NUMBERS.normal(0, 1, (20, 1)))
    measured = np.concatenate([z.numpy(), NUMBERS.normal(0, 1, (20, 2))], axis=1)
    fitted = fit_linear_map(measured, z)
    assert fitted.weights.shape == (3, 1) and fitted.bias.shape == (1,) and fitted(measured).shape == (20, 1)


def test_a_column_that_never_changes_has_no_influence():
    z = NUMBERS.normal(0, 1, (30, 2))
    m = np.concatenate([z, np.full((30, 1), 0.1)], axis=1)
    fitted = fit_linear_map(m, z, penalties=(1.0,))
    new = m[:4].copy()
    new[:, 2] = 1e6
    assert torch.equal(fitted(new), fitted(m[:4]))


def test_pairs_are_counted_one_by_one():
    a, b = NUMBERS.normal(0, 1, (9, 5)), NUMBERS.normal(0, 1, (9, 5))
    b[3] = b[4] * 2  # a tie
    wins = [
        np.sign(np.corrcoef(a[i], b[i])[0, 1] - np.corrcoef(a[i], b[j])[0, 1]) / 2 + 0.5 if {i, j} != {3, 4} else 0.5
        for i in range(9)
        for j in range(9)
        if i != j
    ]
    assert pairwise_decoding(a, b) == pytest.approx(np.mean(wins))
    assert pairwise_decoding(a, 3 * a + 1) == 1 and pairwise_decoding(-a, a) < 0.2
    assert pairwise_decoding(np.ones((4, 3)), np.ones((4, 3))) == 0.5


@pytest.mark.parametrize("snr", [0.25, 4.0])
def test_the_noise_is_as_stated(snr):
    z = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    clean, noisy = synthetic_measurements(z, 50, 1e12), synthetic_measurements(z, 50, snr)
    assert float(np.var(clean) / np.var(noisy - clean)) == pytest.approx(snr, rel=0.2)
    other = synthetic_measurements(z, 50, snr, noise_seed=9)
    assert np.allclose(np.corrcoef((other - clean).ravel(), (noisy - clean).ravel())[0, 1], 0, atol=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_linear_map(np.ones((4, 2)), np.ones((5, 2))), "as many measurements as latents"),
        (lambda: fit_linear_map(np.ones(4), np.ones((4, 2))), "measurements: expected a matrix of numbers"),
        (lambda: fit_linear_map(np.full((4, 2), np.nan), np.ones((4, 2))), "measurements: expected finite numbers"),
        (lambda: fit_linear_map(np.eye(4), np.eye(4), penalties=(0.0,)), "penalties: expected a number above 0"),
        (lambda: fit_linear_map(np.eye(4), np.eye(4))(np.eye(3)), r"expected \(n, 4\), as in the fit; found \(3, 3\)"),
        (lambda: pairwise_decoding(np.eye(3), np.eye(4)), "expected two matrices of one shape"),
        (lambda: synthetic_measurements(torch.eye(3), 5, 0.0), "snr: expected a number above 0, found 0.0"),
    ],
)
def test_what_cannot_be_is_a_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_command_on_synthetic_measurements(tmp_path, capsys):
    out = tmp_path / "l.png"
    linear_map.main(["digits", "--pairs", "200", "--test_pairs", "40", "--snr", "0.001", "1", "--out", str(out)])
    text = capsys.readouterr().out.splitlines()
    decoded = [float(line.split()[4].rstrip("%")) for line in text[1:3]]
    assert out.is_file() and decoded[0] < 75 and decoded[1] > 95
    assert "200 training pairs, 40 held-out images, 500 columns" in text[-1]


def test_the_command_on_measurements_of_ones_own(tmp_path, capsys):
    for name, rows in (("train", 1438), ("test", 359)):
        np.save(tmp_path / f"{name}.npy", NUMBERS.normal(0, 1, (rows, 5)).astype(np.float32))
    files = ["--measurements", str(tmp_path / "train.npy"), "--test_measurements", str(tmp_path / "test.npy")]
    linear_map.main(["digits", *files, "--out", str(tmp_path / "l.png")])
    decoded = float(capsys.readouterr().out.splitlines()[1].split()[3].rstrip("%"))
    assert 40 < decoded < 60  # noise says nothing of an image
    for wrong, message in ((files[:2], "found one"), ([*files[:3], files[1]], "each of the 359 images")):
        with pytest.raises(SystemExit) as stop:
            linear_map.main(["digits", *wrong])
        assert stop.value.code == 2 and message in capsys.readouterr().err


def test_latents_may_be_of_a_half_precision():
    m, z = NUMBERS.normal(0, 1, (9, 4)), torch.from_numpy(NUMBERS.normal(0, 1, (9, 2))).bfloat16()
    np.testing.assert_array_equal(fit_linear_map(m, z).weights, fit_linear_map(m, z.double()).weights)


def test_files_that_hold_no_matrix_are_a_sentence(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones((3, 2)), b=np.ones((3, 2)))
    (tmp_path / "empty.npy").touch()
    for name, found in {"two.npz": "found an archive of arrays", "empty.npy": "No data left"}.items():
        with pytest.raises(InputError, match=rf"{name}: expected a .npy file of numbers[;,] {found}"):
            linear_map._load(str(tmp_path / name), 3)
