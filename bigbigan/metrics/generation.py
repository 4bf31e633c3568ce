"""Figures of generated images beside real ones: IS, FID, KID, precision and recall, density and coverage; SWD and
MS-SSIM.

The name of a figure says which features, which reference split and how many generated images:
`fid_inception2015_train_n10000`.
"""

import itertools
import logging
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
from bigbigan.metrics.frechet import frechet_distance
from bigbigan.metrics.kid import kernel_distance
from bigbigan.metrics.manifold import manifold_figures
from bigbigan.metrics.ms_ssim import pairs_ms_ssim, scales
from bigbigan.metrics.reference import KEPT, Statistics, gather, real_statistics
from bigbigan.metrics.sliced_wasserstein import IMAGES, level_sizes, sliced_wasserstein

Sample = Callable[
    [np.ndarray], Tensor
]  # indices (n,) of samples ≥ 0 → uint8 (n, 3, S, S), a function of the indices alone
K_PRECISION, K_DENSITY = 3, 5
KID_SUBSET = 1000
log = logging.getLogger(__name__)


def evaluate_generation(
    sample: Sample,
    reals: Images,
    size: int,
    extractor,
    n: int,
    split_name: str,
    cache: Path | None = None,
    batch_size: int = 64,
    kept: int = KEPT,
) -> dict[str, float]:
    """IS, FID, KID, precision, recall, density, coverage of n generated images against all of `reals`.

    sample: called with this process's share of 0 … n − 1; it must not communicate.  size: S.  extractor: see
    `extractors`.
    split_name: what `reals` are, such as "train".  cache: the folder for reference statistics, None for none.  kept:
    KID and the four manifold figures look at no more than so many images of either set, which their names then say.
    The same on every process and for any number of them. Raises MetricsError.
    """
    reference = real_statistics(reals, size, extractor, split_name, cache, batch_size, kept)
    found = _generated(sample, size, extractor, n, batch_size, kept)
    end = f"{extractor.name}_{split_name}_n{n}"
    figures = {
        f"is_{extractor.name}_n{n}": found.score[0],
        f"is_sd_{extractor.name}_n{n}": found.score[1],
        f"is_real_{extractor.name}_{split_name}_n{reference.moments.count}": reference.score[0],
        f"fid_{end}": frechet_distance(found.moments, reference.moments),
    }
    figures |= _figures_of_kept(
        found.kept, reference.kept, f"{extractor.name}_{split_name}", getattr(extractor, "device", "cpu")
    )
    if extractor.accuracy is not None:
        figures[f"accuracy_{extractor.name}"] = extractor.accuracy
    return figures


def _figures_of_kept(generated: Tensor, real: Tensor, end: str, device) -> dict[str, float]:
    """KID and the manifold figures; a subset of KID is all of the smaller set where that has fewer than 1,000."""
    generated, real = generated.to(device), real.to(device)
    fewest, end = min(len(generated), len(real)), f"{end}_n{len(generated)}"
    kid, kid_sd = kernel_distance(generated, real, subset_size=min(KID_SUBSET, fewest))
    figures = {f"kid_{end}": kid, f"kid_sd_{end}": kid_sd}
    if fewest <= max(K_PRECISION, K_DENSITY):
        log.info(
            "precision, recall, density, coverage: expected more than %d images, found %d; left out", K_DENSITY, fewest
        )
        return figures
    manifold = manifold_figures(generated, real, K_PRECISION, K_DENSITY)
    return figures | {f"{name}_{end}": value for name, value in vars(manifold).items()}


def _generated(sample: Sample, size: int, extractor, n: int, batch_size: int, kept: int) -> Statistics:
    return gather(_samples(sample, size, n, batch_size), extractor, n, np.arange(min(n, kept)))


def _samples(sample: Sample, size: int, n: int, batch_size: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    for indices in shares(np.arange(n), batch_size):
        images = sample(indices)
        if images.dtype != torch.uint8 or tuple(images.shape) != (len(indices), 3, size, size):
            raise MetricsError(
                f"generated images: expected uint8 ({len(indices)}, 3, {size}, {size}), found {images.dtype} {tuple(images.shape)}"
            )
        yield images, indices


def truncation_curve(
    sampler: Callable[[float | None], Sample],
    thresholds: Sequence[float | None],
    reals: Images,
    validation: Images | None,
    size: int,
    extractor,
    n: int,
    split_name: str,
    cache: Path | None = None,
    batch_size: int = 64,
) -> dict:
    """FID and IS over truncation thresholds, and BigGAN's three points on the curve (Brock et al. 2019, Table 2 and
    appendix D).

    sampler: threshold → a `Sample` whose batch norms carry statistics re-estimated at that threshold: with those of
    another, what truncation does to IS and FID is lost.  thresholds: None is no truncation.  reals: FID's reference,
    called `split_name`.
    validation: real images whose IS decides the second point; None leaves it out.
    → {"extractor", "split", "n", "points": [{"threshold", "fid", "is"}], "real_is", "summary": {"min_fid", "valid_is",
    "max_is"}}. Each summary entry is such a point. valid_is is interpolated, see `at_score`; None where no model on the
    curve has that IS.
    """
    reference = real_statistics(reals, size, extractor, split_name, cache, batch_size)
    real_score = None
    if validation is not None:
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
    """The point of the curve where IS equals `score`: linear between the two neighbouring thresholds whose IS enclose
    it.

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
    """The three points of `truncation_curve` as named figures: `fid_at_min_fid_…`, `is_at_min_fid_…`, and so on."""
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
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """PGGAN's figures, without any network: sliced Wasserstein distance (× 10³) of each level and their mean; MS-SSIM
    of pairs.

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
    similarity = "ms_ssim" if scales(size) > 1 else "ssim"
    distances = sliced_wasserstein(generated, real, seed, device)
    if level_sizes(size) == [size] and size < 32:
        log.info("sliced Wasserstein distance: images of %d px have no coarser level; full resolution alone", size)
    return {
        **{f"swd_{resolution}px_{split_name}_n{n}": value for resolution, value in distances.items()},
        f"swd_mean_{split_name}_n{n}": float(np.mean(list(distances.values()))),
        f"{similarity}_n{n}": pairs_ms_ssim(generated.to(device), seed),
        f"{similarity}_real_{split_name}_n{n}": pairs_ms_ssim(real.to(device), seed),
    }
