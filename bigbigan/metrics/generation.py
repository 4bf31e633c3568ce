"""Measure generated images beside real ones: IS, FID, KID, precision, recall, density, coverage, SWD, MS-SSIM.

The name of a figure says which features, which reference split and how many generated images:
`fid_inception2015_train_n10000`.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bigbigan.data import Images, evaluation_batches
from bigbigan.distributed.collectives import rank, world_size
from bigbigan.distributed.gather import everywhere, gather_scattered, shares
from bigbigan.errors import MetricsError
from bigbigan.metrics.frechet import METRIC as FRECHET
from bigbigan.metrics.frechet import frechet_distance
from bigbigan.metrics.inception_score import METRIC as INCEPTION_SCORE
from bigbigan.metrics.kid import METRIC as KID
from bigbigan.metrics.manifold import METRIC as MANIFOLD
from bigbigan.metrics.ms_ssim import METRIC as MS_SSIM
from bigbigan.metrics.reference import KEPT, gather, real_statistics
from bigbigan.metrics.sets import Comparison, Metric, Pixels, Statistics
from bigbigan.metrics.sliced_wasserstein import IMAGES
from bigbigan.metrics.sliced_wasserstein import METRIC as SLICED_WASSERSTEIN

# A metric is a file of its own, which declares a METRIC, and its name here.
OF_FEATURES: tuple[Metric, ...] = (INCEPTION_SCORE, FRECHET, KID, MANIFOLD)
OF_PIXELS: tuple[Metric, ...] = (SLICED_WASSERSTEIN, MS_SSIM)
Sample = Callable[
    [np.ndarray], Tensor
]  # indices (n,) of samples ≥ 0 → uint8 (n, 3, S, S), a function of the indices alone


def evaluate_generation(
    sample: Sample,
    reals: Images,
    size: int,
    extractor,
    n: int,
    split_name: str,
    *,
    cache: Path | None = None,
    batch_size: int = 64,
    kept: int = KEPT,
) -> dict[str, float]:
    """Return IS, FID, KID, precision, recall, density and coverage of n generated images against all of `reals`.

    sample: called with this process's share of 0 … n − 1; it must not communicate.  size: S.  extractor: see
    `extractors`.
    split_name: what `reals` are, such as "train".  cache: the folder for reference statistics, None for none.  kept:
    KID and the four manifold figures look at no more than so many images of either set, which their names then say.
    The same on every process and for any number of them. Raises MetricsError.
    """
    references = {split_name: reals}
    return compare_generation(sample, references, size, extractor, n, cache=cache, batch_size=batch_size, kept=kept)


def compare_generation(
    sample: Sample,
    references: dict[str, Images],
    size: int,
    extractor,
    n: int,
    *,
    cache: Path | None = None,
    batch_size: int = 64,
    kept: int = KEPT,
    metrics: Sequence[Metric] | None = None,
) -> dict[str, float]:
    """Return the figures of `evaluate_generation` against each of several sets of real images; generate once.

    references: name of a split → its images.  metrics: those to measure, all of
    OF_FEATURES if None.  The others are as in `evaluate_generation`.
    """
    found = _generated(sample, size, extractor, n, batch_size, kept)
    device = getattr(extractor, "device", "cpu")
    figures: dict[str, float] = {}
    for split_name, reals in references.items():
        reference = real_statistics(reals, size, extractor, split_name, cache, batch_size, kept=kept)
        sets = Comparison(found, reference, extractor.name, split_name, n, device)
        for metric in OF_FEATURES if metrics is None else metrics:
            figures |= metric.measure(sets)
        if extractor.accuracy is not None:
            figures[f"accuracy_{extractor.name}"] = extractor.accuracy
    return figures


def _generated(sample: Sample, size: int, extractor, n: int, batch_size: int, kept: int) -> Statistics:
    return gather(_samples(sample, size, n, batch_size), extractor, n, np.arange(min(n, kept)))


def _samples(sample: Sample, size: int, n: int, batch_size: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    for indices in shares(np.arange(n), batch_size):
        images = sample(indices)
        if images.dtype != torch.uint8 or tuple(images.shape) != (len(indices), 3, size, size):
            raise MetricsError(
                f"generated images: expected uint8 ({len(indices)}, 3, {size}, {size}), "
                f"found {images.dtype} {tuple(images.shape)}"
            )
        yield images, indices


def truncation_curve(
    sampler: Callable[[float | None], Sample],
    thresholds: Sequence[float | None],
    reals: Images,
    validation: Images | None,
    size: int,
    extractor,
    *,
    n: int,
    split_name: str,
    cache: Path | None = None,
    batch_size: int = 64,
) -> dict:
    """Return FID and IS over truncation thresholds, and BigGAN's three points on the curve.

    Brock et al. 2019, table 2 and appendix D.

    sampler: threshold → a `Sample` whose batch norms carry statistics re-estimated at that threshold: with those of
    another, what truncation does to IS and FID is lost.  thresholds: None is no truncation.  reals: FID's reference,
    called `split_name`.
    validation: real images whose IS decides the second point; None leaves it out. An IS depends on the number of
    images, so n of them are scored, and of fewer than n the point is left out.
    → {"extractor", "split", "n", "points": [{"threshold", "fid", "is"}], "real_is", "summary": {"min_fid", "valid_is",
    "max_is"}}. Each summary entry is such a point. valid_is is interpolated, see `at_score`; None where no model on the
    curve has that IS, or with fewer than n validation images.
    """
    reference = real_statistics(reals, size, extractor, split_name, cache, batch_size)
    real_score = None
    if validation is not None and len(validation) >= n:
        if len(validation) > n:  # spread over the split, which may be sorted by class
            validation = validation.subset(np.sort(np.random.default_rng(0).permutation(len(validation))[:n]))
        real_score = real_statistics(validation, size, extractor, "validation", cache, batch_size).score[0]
    points = []
    for threshold in thresholds:
        found = _generated(sampler(threshold), size, extractor, n, batch_size, kept=0)
        distance = frechet_distance(found.moments, reference.moments)
        points.append({"threshold": threshold, "fid": distance, "is": found.score[0]})
    return {
        "extractor": extractor.name,
        "split": split_name,
        "n": n,
        "points": points,
        "real_is": real_score,
        "summary": {
            "min_fid": min(points, key=lambda p: p["fid"]),
            "valid_is": None if real_score is None else at_score(points, real_score),
            "max_is": max(points, key=lambda p: p["is"]),
        },
    }


def at_score(points: list[dict], score: float) -> dict | None:
    """Return the point of the curve where IS equals `score`.

    It is linear between the two neighbouring thresholds whose IS enclose it.

    From the mildest truncation on, the first crossing counts. The threshold too is interpolated, and None between no
    truncation and the mildest.  → None where IS never crosses `score`.
    """
    ordered = sorted(points, key=lambda p: math.inf if p["threshold"] is None else p["threshold"], reverse=True)
    for point in ordered:
        if point["is"] == score:
            return point
    for a, b in itertools.pairwise(ordered):
        if min(a["is"], b["is"]) < score < max(a["is"], b["is"]):
            share = (score - a["is"]) / (b["is"] - a["is"])
            known = a["threshold"] is not None  # b's is smaller
            threshold = a["threshold"] + share * (b["threshold"] - a["threshold"]) if known else None
            return {"threshold": threshold, "fid": a["fid"] + share * (b["fid"] - a["fid"]), "is": score}
    return None


def curve_figures(curve: dict) -> dict[str, float]:
    """Return the three points of `truncation_curve` as named figures: `fid_at_min_fid_…`, `is_at_min_fid_…`, ..."""
    end = f"{curve['extractor']}_{curve['split']}_n{curve['n']}"
    points = {name: point for name, point in curve["summary"].items() if point is not None}
    return {f"{figure}_at_{name}_{end}": point[figure] for name, point in points.items() for figure in ("fid", "is")}


def evaluate_pixels(
    sample: Sample,
    reals: Images,
    size: int,
    split_name: str,
    n: int = IMAGES,
    batch_size: int = 64,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Return PGGAN's figures, which need no network: sliced Wasserstein distance × 10³ of each level, MS-SSIM of pairs.

    n: images of either set, at most as many as there are real ones; n // 2 pairs. The MS-SSIM of real images stands
    beside: theirs is the variety to reach. Images below 16 px have one level, and SSIM in the place of MS-SSIM, which
    their names say. The same on every process; each holds all n images of both sets. Raises MetricsError.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(reals))[:n])
    if len(chosen) < max(2, world_size()):
        raise MetricsError(
            f"{split_name}: expected at least {max(2, world_size())} images, found {len(chosen)}; give more"
        )
    mine = np.arange(rank(), len(chosen), world_size())
    batches = evaluation_batches(reals.subset(chosen[mine]), size, batch_size)
    parts = [(mine[at], x) for x, at in batches]
    if not everywhere(bool(parts)):
        raise MetricsError(f"{split_name}: expected readable images on every process, found a process without any")
    real, _ = gather_scattered(parts, len(chosen))
    n = len(real)
    generated, _ = gather_scattered([(at, x) for x, at in _samples(sample, size, n, batch_size)], n)
    sets = Pixels(generated, real, split_name, seed, device)
    figures: dict[str, float] = {}
    for metric in OF_PIXELS:
        figures |= metric.measure(sets)
    return figures
