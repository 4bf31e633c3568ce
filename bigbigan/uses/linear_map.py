"""Map outside measurements to latents by a linear map, and draw what was measured (Mozafari et al. 2020, 2001.11761).

    python -m bigbigan.uses.linear_map digits --out linear_map.png

The recipe reconstructs images from brain activity: a linear map from fMRI to z is fitted on pairs of a measurement and
E(x) of the image x that was seen, and G draws the z of new measurements. Any measurement will do, such as spectra or
tags. The command tests the recipe on synthetic measurements, random linear mixtures of z with noise, or on yours.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

if __name__ == "__main__":  # before torch is loaded
    from bigbigan.config.command import prepare_process

    prepare_process()

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor

from bigbigan.api import encode, generate, grid
from bigbigan.config.bounds import AtLeastOne, AtLeastTwo, Bounds, NotNegative, Positive, check_argument
from bigbigan.errors import InputError
from bigbigan.files import expanded
from bigbigan.uses.command_line import (
    UseOptions,
    classes_for,
    open_data,
    read_images,
    ready,
    run_command,
    write_picture,
)

PENALTIES = tuple(10.0**power for power in range(-3, 7))  # λ that cross-validation chooses from
COLUMNS = 8  # images a row of the picture


class LinearMap(NamedTuple):
    """Hold a map z = ((m − centre)/scale) W + b. centre, scale: (V,); weights W: (V, Z); bias b: (Z,); float64.

    penalty: λ of the ridge, chosen on the training pairs.
    """

    centre: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    penalty: float

    def __call__(self, measurements: np.ndarray) -> Tensor:
        """Return latents, float32 (n, Z), of measurements (n, V). Raises InputError."""
        m = _matrix(measurements, "measurements")
        if m.shape[1] != len(self.centre):
            raise InputError(f"measurements: expected (n, {len(self.centre)}), as in the fit; found {m.shape}")
        return torch.from_numpy(((m - self.centre) / self.scale) @ self.weights + self.bias).float()


def fit_linear_map(
    measurements: np.ndarray, z: Tensor | np.ndarray, penalties: tuple[float, ...] = PENALTIES
) -> LinearMap:
    """Fit the ridge regression min ‖z − M W − b‖² + λ‖W‖² in closed form, in float64 (scikit-learn's RidgeCV).

    measurements: (n, V), standardised here by column; columns that never change have no influence.
    z: (n, Z), such as `bigbigan.encode(images, model, "z_mean")` of the images that were measured.
    penalties: λ to choose from, by the leave-one-out error of these n pairs, which also has a closed form.
    Raises InputError.
    """
    m, latents = _matrix(measurements, "measurements"), _matrix(z, "z")
    if len(m) != len(latents) or len(m) < 3:
        raise InputError(f"expected as many measurements as latents, at least 3; found {len(m)} and {len(latents)}")
    if not penalties:
        raise InputError("penalties: expected at least one number above 0, found none")
    for penalty in penalties:
        check_argument("penalties", penalty, Positive)
    centre, scale = m.mean(0), m.std(0)
    scale = np.where(scale > 1e-12 * np.abs(m).max(0), scale, np.inf)  # a constant column: 0 after the division
    ridge = RidgeCV(list(penalties)).fit((m - centre) / scale, latents)
    return LinearMap(centre, scale, np.atleast_2d(ridge.coef_).T, np.atleast_1d(ridge.intercept_), float(ridge.alpha_))


def _matrix(values, name: str) -> np.ndarray:
    """Return a finite matrix in float64. Raises InputError."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values  # NumPy knows no bfloat16
    matrix = np.asarray(values)
    if matrix.ndim != 2 or matrix.dtype.kind not in "iuf" or 0 in matrix.shape:
        raise InputError(f"{name}: expected a matrix of numbers, a row for each image; found {matrix.shape}")
    matrix = matrix.astype(np.float64)
    if not np.isfinite(matrix).all():
        raise InputError(f"{name}: expected finite numbers, found NaN or infinity")
    return matrix


def pairwise_decoding(predicted: Tensor | np.ndarray, true: Tensor | np.ndarray) -> float:
    """Return the share of pairs i ≠ j in which row i of `predicted` correlates better with its own `true` row than with
    row j; ties count half, and chance is 0.5 (Mozafari et al. 2020 report 84 % of 50 images).

    predicted, true: (n, D) latents, or images flattened; n ≥ 2. The correlation is Pearson's over the D numbers.
    Raises InputError.
    """
    a, b = _matrix(predicted, "predicted"), _matrix(true, "true")
    if a.shape != b.shape or len(a) < 2:
        raise InputError(f"expected two matrices of one shape with at least two rows, found {a.shape} and {b.shape}")
    a, b = (rows - rows.mean(1, keepdims=True) for rows in (a, b))
    a, b = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300) for rows in (a, b))
    table = a @ b.T
    own = np.diag(table)[:, None]
    wins = (own > table) + 0.5 * (own == table)
    return float((wins.sum() - np.trace(wins)) / (len(a) * (len(a) - 1)))


def synthetic_measurements(z: Tensor, width: int, snr: float, seed: int = 0, noise_seed: int = 1) -> np.ndarray:
    """Return measurements zA + ε, float64 (n, width): every column a random mixture of the latents, with noise.

    A: entries N(0, 1/Z), decided by `seed`: use the same for training and test.  ε ~ N(0, s²), by `noise_seed`, with s²
    such that the variance of the mixture for z ~ N(0, I), which is 1 on average, is `snr` times s².
    Raises InputError.
    """
    check_argument("width", width, AtLeastOne), check_argument("snr", snr, Positive)
    check_argument("seed", seed, NotNegative), check_argument("noise_seed", noise_seed, NotNegative)
    latents = _matrix(z, "z")
    mixing = np.random.default_rng(seed).standard_normal((latents.shape[1], width)) / latents.shape[1] ** 0.5
    noise = np.random.default_rng(noise_seed).standard_normal((len(latents), width)) / snr**0.5
    return latents @ mixing + noise


@dataclass
class LinearMapping(UseOptions):
    """Fit a linear map from measurements to latents, draw reconstructions of held-out images, and print the decoding.

    Without --measurements the measurements are random mixtures of E(x) with noise.
    """

    measurements: str = ""
    """A .npy file (n, V): a row for each image of the training split, in its order."""
    test_measurements: str = ""
    """A .npy file (m, V): a row for each image of the held-out split, in its order."""
    width: AtLeastOne = 500
    """Columns of the synthetic measurements."""
    snr: Annotated[tuple[float, ...], Bounds(above=0)] = (0.01, 0.1, 1.0)
    """Signal-to-noise ratios of the synthetic measurements, each the variance of signal over that of noise."""
    pairs: AtLeastOne = 1_200
    """Training images of the synthetic test, at most, drawn at random."""
    test_pairs: AtLeastTwo = 200
    """Held-out images of the synthetic test, at most."""
    out: Path = Path("linear_map.png")
    """The picture: images, G(E(x)), and G of the latents decoded at each snr, a row each."""


def main(argv: list[str] | None = None) -> None:
    """Run the command; the exit status is 0, or that of an error."""
    run_command(LinearMapping, run, "linear_map", argv)


def run(options: LinearMapping) -> str:
    """Write the picture and return the figures as text."""
    model = ready(options.model, options.device or None)
    size = model.require("encoder").image_size
    train, test = open_data(options.data, model)
    given = bool(options.measurements)
    if not given and not options.snr:
        raise InputError("--snr: expected at least one signal-to-noise ratio, found none")
    if given != bool(options.test_measurements):
        raise InputError("expected both --measurements and --test_measurements, or neither; found one")
    x, _ = read_images(train, size, None if given else options.pairs)
    x_test, y_test = read_images(test, size, None if given else options.test_pairs)
    classes = classes_for(model, y_test)
    seen = sys.stderr.isatty()
    z, z_test = (encode(part, model, "z_mean", value_range=(-1, 1), progress=seen) for part in (x, x_test))
    if given:
        measured = {"yours": (_load(options.measurements, len(x)), _load(options.test_measurements, len(x_test)))}
    else:
        measured = {
            f"snr {snr:g}": tuple(
                synthetic_measurements(part, options.width, snr, noise_seed=i) for i, part in ((1, z), (2, z_test))
            )
            for snr in options.snr
        }
    images = model.for_discriminator(x_test)
    rows = [images[:COLUMNS], generate(z_test[:COLUMNS], model, classes=_some(classes))]
    lines = [f"{'measurements':<16}{'λ':>10}{'R² of z':>10}{'latents':>10}{'images':>10}{'G(E(x))':>10}"]
    best = generate(z_test, model, classes=classes)
    ceiling = pairwise_decoding(best.flatten(1), images.flatten(1))
    for name, (m, m_test) in measured.items():
        fitted = fit_linear_map(m, z)
        found = fitted(m_test)
        drawn = generate(found, model, classes=classes)
        error = float((found - z_test).square().sum() / (z_test - z.mean(0)).square().sum())
        lines.append(
            f"{name:<16}{fitted.penalty:>10g}{1 - error:>10.3f}{pairwise_decoding(found, z_test):>10.1%}"
            f"{pairwise_decoding(drawn.flatten(1), images.flatten(1)):>10.1%}{ceiling:>10.1%}"
        )
        rows.append(drawn[:COLUMNS])
    picture = write_picture(grid(torch.cat(rows), columns=len(rows[0])), options.out)
    return "\n".join(
        [
            *lines,
            "latents, images: pairwise decoding, chance 50 %; G(E(x)): that of images from their own latents",
            f"{len(z):,} training pairs, {len(z_test):,} held-out images, {m.shape[1]:,} columns; picture: {picture}",
        ]
    )


def _some(classes: Tensor | None) -> Tensor | None:
    return None if classes is None else classes[:COLUMNS]


def _load(path: str, rows: int) -> np.ndarray:
    """Return a matrix from a .npy file. Raises InputError."""
    try:
        file = expanded(path)
        matrix = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: expected a .npy file of numbers; {error}") from None
    if not isinstance(matrix, np.ndarray):
        raise InputError(f"{path}: expected a .npy file of numbers, found an archive of arrays; save one by numpy.save")
    if matrix.ndim != 2 or len(matrix) != rows:
        raise InputError(f"{path}: expected a row for each of the {rows} images of the split; found {matrix.shape}")
    return matrix


if __name__ == "__main__":
    main()
