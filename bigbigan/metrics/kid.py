"""Compute the kernel Inception distance: unbiased squared MMD with the kernel (xᵀy/D + 1)³.

Bińkowski et al. 2018, section 3.
"""

import numpy as np
import torch
from torch import Tensor

from bigbigan.errors import MetricsError
from bigbigan.metrics.sets import Comparison, Metric
from eval_linear.result import FigureInfo

SUBSET = 1000  # images of either set in a subset, or all of the smaller set where it has fewer


def kernel_distance(
    generated: Tensor, real: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Return mean and standard deviation of MMD² over random subsets, drawn as torch-fidelity draws them.

    generated (n, D), real (m, D).  subset_size: images of either set in a subset. A little below 0 is possible and
    means equal. Raises MetricsError.
    """
    fewest = min(len(generated), len(real))
    if not 2 <= subset_size <= fewest:
        raise MetricsError(
            f"KID: expected a subset size from 2 to the smaller set's {fewest} images, found {subset_size}; "
            "give more images or smaller subsets"
        )
    check_features("KID", generated, real)
    random = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        x = generated[torch.from_numpy(random.choice(len(generated), subset_size, replace=False))]
        y = real[torch.from_numpy(random.choice(len(real), subset_size, replace=False))]
        values[i] = _squared_mmd(x, y)
    return float(values.mean()), float(values.std())


def _squared_mmd(x: Tensor, y: Tensor) -> float:
    """Return the unbiased estimate from m samples each: pairs of an image with itself are left out.

    Gretton et al. 2012, equation 3.
    """
    m = len(x)
    within = sum(float(k.sum() - k.diagonal().sum()) for k in (_kernel(x, x), _kernel(y, y)))
    return within / (m * (m - 1)) - 2 * float(_kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    k = x @ y.T / x.shape[1] + 1
    return (k * k * k).cpu().double()  # sums of a million terms


def check_features(figure: str, generated: Tensor, real: Tensor) -> None:
    """Raise MetricsError unless both sets are features of one width, all finite."""
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1]:
        raise MetricsError(
            f"{figure}: expected features (n, D) and (m, D), "
            f"found the shapes {tuple(generated.shape)} and {tuple(real.shape)}"
        )
    if not (generated.isfinite().all() and real.isfinite().all()):
        raise MetricsError(
            f"{figure}: expected finite features, found NaN or infinity; look at the images or at the extractor"
        )


def measure(sets: Comparison) -> dict[str, float]:
    """Return KID of the kept features, and its standard deviation over subsets."""
    generated, real = sets.kept
    mean, sd = kernel_distance(generated, real, subset_size=min(SUBSET, len(generated), len(real)))
    return {f"kid_{sets.end_of_kept}": mean, f"kid_sd_{sets.end_of_kept}": sd}


METRIC = Metric((FigureInfo("kid", "KID", better="lower"),), measure)
