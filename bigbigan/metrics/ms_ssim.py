"""Compute MS-SSIM of random pairs, which is high where images look alike.

Karras et al. 2018, section 5; Odena et al. 2017.

The definition is that of the PGGAN code, after Wang et al. 2003: it differs from others in the window on small scales.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bigbigan.errors import MetricsError
from bigbigan.metrics.sets import Metric, Pixels
from eval_linear.result import FigureInfo

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales (Wang et al. 2003, section 3.2)
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # Wang et al. 2004, section III.B, for the range 0 … 255


def scales(size: int) -> int:
    """Return how many scales images of `size` px have: five from 16 px; below only their own, which is plain SSIM."""
    return len(WEIGHTS) if size >= 2 ** (len(WEIGHTS) - 1) else 1


def pairs_ms_ssim(images: Tensor, seed: int = 0, batch_size: int = 256) -> float:
    """Return the mean MS-SSIM, in [0, 1], of n // 2 disjoint random pairs of images: uint8 (n, 3, S, S), n ≥ 2.

    The paper takes 10,000 pairs.

    Below 16 px it is the SSIM of the full resolution alone. Raises MetricsError.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) < 2:
        raise MetricsError(
            f"MS-SSIM: expected at least 2 uint8 images (n, 3, S, S), found {images.dtype} {tuple(images.shape)}"
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(images)))
    pairs = order[: len(images) // 2 * 2].reshape(-1, 2)
    values = [ms_ssim(images[part[:, 0]].float(), images[part[:, 1]].float()) for part in pairs.split(batch_size)]
    return float(torch.cat(values).cpu().double().mean())


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the similarity of each pair, (n,) in [0, 1], of a, b float (n, C, S, S) in 0 … 255.

    ∏_j cs_j^w_j over the coarse-to-fine scales but the last, times ssim^w of the last (Wang et al. 2003, equation 7);
    negative terms count as 0.
    """
    weights = WEIGHTS if scales(min(a.shape[2:])) > 1 else (1.0,)
    result = a.new_ones(len(a))
    for scale, weight in enumerate(weights):
        ssim, contrast_structure = _ssim(a, b)
        last = scale == len(weights) - 1
        result = result * (ssim if last else contrast_structure).clamp_min(0) ** weight
        if not last:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)  # an odd row or column at the edge is dropped
    return result


def _ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return SSIM and its contrast and structure terms, means over channels and places, (n,) each.

    Wang et al. 2004, equation 13.
    """
    size = min(WINDOW, *a.shape[2:])
    window = _gaussian(size, SIGMA * size / WINDOW).to(a)
    local = lambda x: _filter(x, window)  # noqa: E731
    mean_a, mean_b = local(a), local(b)
    var_a, var_b, covariance = local(a * a) - mean_a**2, local(b * b) - mean_b**2, local(a * b) - mean_a * mean_b
    contrast_structure = (2 * covariance + C2) / (var_a + var_b + C2)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return (luminance * contrast_structure).mean((1, 2, 3)), contrast_structure.mean((1, 2, 3))


def _gaussian(size: int, sigma: float) -> Tensor:
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-(at**2) / (2 * sigma**2))
    return weights / weights.sum()


def _filter(x: Tensor, window: Tensor) -> Tensor:
    """Filter images in both directions in turn, where the window fits inside them."""
    channels = x.shape[1]
    x = F.conv2d(x, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(x, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def measure(sets: Pixels) -> dict[str, float]:
    """Return the MS-SSIM of pairs of generated images, and of real ones; the SSIM of images below 16 px."""
    n = len(sets.real)
    name = "ms_ssim" if scales(sets.real.shape[-1]) > 1 else "ssim"
    return {
        f"{name}_n{n}": pairs_ms_ssim(sets.generated.to(sets.device), sets.seed),
        f"{name}_real_{sets.split}_n{n}": pairs_ms_ssim(sets.real.to(sets.device), sets.seed),
    }


METRIC = Metric(
    (FigureInfo("ms_ssim", "MS-SSIM of pairs", better="lower"), FigureInfo("ssim", "SSIM of pairs", better="lower")),
    measure,
)
