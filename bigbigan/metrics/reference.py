"""Gather what an extractor sees of a set of images, batch by batch; that of real images is cached."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigbigan.data import Images, evaluation_batches, fingerprint
from bigbigan.distributed.collectives import rank, world_size
from bigbigan.distributed.gather import everywhere, gather_scattered
from bigbigan.errors import MetricsError
from bigbigan.metrics.cache import TRANSFORM, entry, get_or_make, store
from bigbigan.metrics.inception_score import InceptionScore
from bigbigan.metrics.moments import Moments
from bigbigan.metrics.sets import Statistics

FORMAT = 1
KEPT = 10_000  # features kept for KID, precision and recall: 82 MB of Inception's
SPLITS = 10  # of the Inception score (Salimans et al. 2016)


def gather(batches: Iterable[tuple[Tensor, np.ndarray]], extractor, n: int, keep: np.ndarray) -> Statistics:
    """Return the statistics of n images in all, of which this process sees `batches`.

    batches: (uint8 (m, 3, S, S), positions (m,) in 0 … n − 1).

    keep: sorted positions whose features are kept. The result is the same on every process, and for any number of them.
    """
    if n < max(2, world_size()):
        raise MetricsError(
            f"{extractor.name}: expected at least {max(2, world_size())} images, found {n}; generate or give more"
        )
    score, moments, kept = InceptionScore(n, min(SPLITS, n)), None, []
    wanted = np.full(n, -1)
    wanted[keep] = np.arange(len(keep))
    for pixels, positions in batches:
        features, logits = extractor(pixels)
        moments = moments or Moments(features.shape[1])
        moments.update(features)
        score.update(logits, positions)
        row = wanted[positions]
        kept.append((row[row >= 0], features[torch.from_numpy(row >= 0).to(features.device)].float()))
    if not everywhere(moments is not None):
        raise MetricsError(f"{extractor.name}: expected readable images on every process, found a process without any")
    return Statistics(moments.joined(), score.result(), gather_scattered(kept, len(keep))[0])


def real_statistics(
    reals: Images, size: int, extractor, split_name: str, cache: Path | None, batch_size: int, *, kept: int = KEPT
) -> Statistics:
    """Return the statistics of all `reals`' centre squares at `size` px, with the features of `kept` of them.

    Unreadable images are left out.

    cache: a folder where they stay under a key of data, split, size, transform and features; None keeps nothing.
    """
    known = [FORMAT, fingerprint(reals), split_name, size, TRANSFORM]
    key = [*known, extractor.name, getattr(extractor, "digest", ""), kept, SPLITS]

    def make() -> Statistics:
        mine = np.arange(rank(), len(reals), world_size())
        batches = ((x, mine[at]) for x, at in evaluation_batches(reals.subset(mine), size, batch_size))
        # Spread over the split, which may be sorted by class.
        keep = np.sort(np.random.default_rng(0).permutation(len(reals))[:kept])
        return gather(batches, extractor, len(reals), keep)

    return get_or_make(entry(cache, "reference", json.dumps(key)), _read, make, _write)


def _write(path: Path, found: Statistics) -> None:
    tensors = {
        "count": torch.tensor(found.moments.count),
        "mean": found.moments.mean,
        "scatter": found.moments.scatter,
        "score": torch.tensor(found.score, dtype=torch.float64),
        "kept": found.kept.contiguous(),
    }
    store(path, lambda beside: save_file(tensors, beside))


def _read(path: Path) -> Statistics:
    tensors = load_file(path)
    moments = Moments(len(tensors["mean"]))
    moments.count, moments.mean, moments.scatter = int(tensors["count"]), tensors["mean"], tensors["scatter"]
    return Statistics(moments, tuple(tensors["score"].tolist()), tensors["kept"])
