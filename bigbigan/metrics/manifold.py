"""Compute precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)."""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from bigbigan.errors import MetricsError
from bigbigan.metrics.kid import check_features
from bigbigan.metrics.neighbours import distances
from bigbigan.metrics.sets import Comparison, Metric
from eval_linear.result import FigureInfo

CHUNK = 2**23  # distances held at a time, 64 MiB
K_PRECISION, K_DENSITY = 3, 5  # neighbours, see `manifold_figures`
log = logging.getLogger(__name__)


@dataclass
class Manifold:
    """Hold shares in [0, 1], and a density that may exceed 1."""

    precision: float  # of generated images inside some real image's ball
    recall: float  # of real images inside some generated image's ball
    density: float  # real balls around a generated image, in units of k
    coverage: float  # of real images with a generated image in their ball


def manifold_figures(generated: Tensor, real: Tensor, k: int = 3, k_density: int = 5) -> Manifold:
    """Return the four figures of features generated (n, D), real (m, D), on their device, in chunks of rows.

    An image's ball reaches to its k-th nearest neighbour in its own set.  k: for precision and recall (3: Kynkäänniemi
    et al., section 3).  k_density: for density and coverage (5: Naeem et al., section 4).  Raises MetricsError.
    """
    check_features("precision and recall", generated, real)
    fewest, most = min(len(generated), len(real)), max(k, k_density)
    if not 1 <= min(k, k_density) <= most < fewest:
        raise MetricsError(
            f"precision and recall: expected k from 1 to below the smaller set's {fewest} images, "
            f"found {k} and {k_density}; give more images or a smaller k"
        )
    generated_radius = _radii(generated, (k,))[0]
    real_radius, real_radius_density = _radii(real, (k, k_density))
    recalled = covered = 0
    inside = torch.zeros(len(generated), dtype=torch.bool, device=generated.device)
    balls = torch.zeros(len(generated), dtype=torch.int64, device=generated.device)
    rows = max(1, CHUNK // len(generated))
    for x, radius, radius_density in zip(
        real.split(rows), real_radius.split(rows), real_radius_density.split(rows), strict=True
    ):
        distance = distances(x, generated)
        recalled += int((distance <= generated_radius).any(1).sum())
        inside |= (distance <= radius[:, None]).any(0)
        # Naeem et al., equations 4 and 5
        within = distance <= radius_density[:, None]
        balls += within.sum(0)
        covered += int(within.any(1).sum())
    return Manifold(
        precision=float(inside.cpu().double().mean()),
        recall=recalled / len(real),
        density=float(balls.cpu().double().mean()) / k_density,
        coverage=covered / len(real),
    )


def _radii(x: Tensor, ks: tuple[int, ...]) -> list[Tensor]:
    """Return the distance of every row of x (n, D) to its k-th nearest neighbour among the others, (n,) for each k."""
    parts = [distances(rows, x).topk(max(ks) + 1, largest=False).values for rows in x.split(max(1, CHUNK // len(x)))]
    nearest = torch.cat(parts)  # the nearest of all is the row itself
    return [nearest[:, k].contiguous() for k in ks]


def measure(sets: Comparison) -> dict[str, float]:
    """Return the four figures of the kept features; none of sets that have too few images for them."""
    generated, real = sets.kept
    fewest = min(len(generated), len(real))
    if fewest <= max(K_PRECISION, K_DENSITY):
        text = "precision, recall, density, coverage: expected more than %d images, found %d; left out"
        log.info(text, K_DENSITY, fewest)
        return {}
    found = manifold_figures(generated, real, K_PRECISION, K_DENSITY)
    return {f"{name}_{sets.end_of_kept}": value for name, value in vars(found).items()}


METRIC = Metric(tuple(FigureInfo(name, name.capitalize()) for name in Manifold.__annotations__), measure)
