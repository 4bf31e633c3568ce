"""Compute the Fréchet distance of two Gaussians; FID, if their features are Inception's (Heusel et al. 2017, eq. 6)."""

import numpy as np
from scipy.linalg import eigvalsh, lapack
from threadpoolctl import threadpool_limits

from bigbigan.errors import MetricsError
from bigbigan.metrics.moments import Moments
from bigbigan.metrics.sets import Comparison, Metric
from eval_linear.result import FigureInfo


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return d² = ‖m₁ − m₂‖² + tr(C₁ + C₂ − 2 (C₁C₂)^½) of two sets of D features each, ≥ 0, C unbiased."""
    # Fewer images may mean a lower rank: the quicker factor comes first.
    first, second = sorted((a, b), key=lambda moments: moments.count)
    return gaussian_distance(
        first.mean.numpy(), first.covariance().numpy(), second.mean.numpy(), second.covariance().numpy()
    )


def gaussian_distance(mean1: np.ndarray, c1: np.ndarray, mean2: np.ndarray, c2: np.ndarray) -> float:
    """Return d² from means (D,) and covariances (D, D), float64, which may be singular. Raises MetricsError.

    tr (C₁C₂)^½ is the sum of the roots of the eigenvalues of C₁C₂. With C₁ = LLᵀ these are the eigenvalues of the
    symmetric LᵀC₂L (XY and YX share their nonzero eigenvalues), so neither a matrix root nor an unsymmetric problem has
    to be solved.
    """
    if mean1.shape != mean2.shape or c1.shape != c2.shape:
        raise MetricsError(f"Fréchet distance: expected features of one width, found {mean1.shape} and {mean2.shape}")
    difference = mean1 - mean2
    distance = difference @ difference + np.trace(c1) + np.trace(c2)
    if not (np.isfinite(distance) and np.isfinite(c1).all() and np.isfinite(c2).all()):
        raise MetricsError("Fréchet distance: expected finite means and covariances, found NaN or infinity")
    # One thread: LAPACK's reductions wait for their threads at every column, many times as long where cores are shared.
    with threadpool_limits(1, "blas"):
        eigenvalues = eigvalsh(
            _symmetric_product(c1, c2), lower=True, overwrite_a=True, check_finite=False, driver="evd"
        )
    # Rounding may put an eigenvalue, and the distance of a set to itself, a little below zero.
    return float(max(0.0, distance - 2 * np.sqrt(eigenvalues.clip(0)).sum()))


def _symmetric_product(c1: np.ndarray, c2: np.ndarray) -> np.ndarray:
    """Return LᵀC₂L, (rank, rank), where C₁ = LLᵀ up to a common reordering of both; its lower triangle alone counts.

    The Cholesky factor with pivots (LAPACK dpstrf) exists for singular covariances too: L then has as many columns as
    C₁ has rank.
    """
    factor, pivots, rank, _ = lapack.dpstrf(np.array(c1, order="F"), lower=1, overwrite_a=1)
    order = pivots - 1
    c2 = np.asfortranarray(c2[np.ix_(order, order)])
    if rank == len(c1):  # LAPACK's reduction knows both triangles: half the arithmetic
        return lapack.dsygst(c2, factor, itype=3, lower=1, overwrite_a=1)[0]
    lower = np.tril(factor)[:, :rank]
    return lower.T @ (c2 @ lower)


def measure(sets: Comparison) -> dict[str, float]:
    """Return the Fréchet distance of all generated images to all real ones."""
    return {f"fid_{sets.end}": frechet_distance(sets.generated.moments, sets.real.moments)}


METRIC = Metric((FigureInfo("fid", "FID", better="lower"),), measure, in_training=("fid",))
