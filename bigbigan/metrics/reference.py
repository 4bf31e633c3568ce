"""What a set of images is in an extractor's eyes, gathered once while they pass by; that of the real images is
cached."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigbigan.data import Images, evaluation_batches, fingerprint
from bigbigan.distributed.collectives import rank, world_size
from bigbigan.distributed.gather import everywhere, gather_scattered
from bigbigan.errors import MetricsError
from bigbigan.metrics.cache import store
from bigbigan.metrics.inception_score import InceptionScore
from bigbigan.metrics.moments import Moments

FORMAT = 1
TRANSFORM = "centre square, bicubic, scaled by bit depth"
KEPT = 10_000  # features kept for KID, precision and recall: 82 MB of Inception's
SPLITS = 10  # of the Inception score (Salimans et al. 2016)


@dataclass
class Statistics:
    """moments: of all features.  score: Inception score, (mean, sd).  kept: features (k, D) of some images, on the
    CPU."""

    moments: Moments
    score: tuple[float, float]
    kept: Tensor


def gather(batches: Iterable[tuple[Tensor, np.ndarray]], extractor, n: int, keep: np.ndarray) -> Statistics:
    """Statistics of n images in all, of which this process sees `batches`: (uint8 (m, 3, S, S), positions (m,) in 0 … n
    − 1).

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
    reals: Images, size: int, extractor, split_name: str, cache: Path | None, batch_size: int, kept: int = KEPT
) -> Statistics:
    """Statistics of all `reals`' centre squares at `size` px, of `kept` of them with features; unreadable images are
    left out.

    cache: a folder where they stay under a key of data, split, size, transform and features; None keeps nothing.
    """
    key = [
        FORMAT,
        fingerprint(reals),
        split_name,
        size,
        TRANSFORM,
        reals.value_range,
        extractor.name,
        getattr(extractor, "digest", ""),
        kept,
        SPLITS,
    ]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    path = None if cache is None else cache / f"reference-{digest}.safetensors"
    stored = None if path is None else _stored(path)
    if everywhere(stored is not None):
        return stored
    mine = np.arange(rank(), len(reals), world_size())
    batches = ((x, mine[at]) for x, at in evaluation_batches(reals.subset(mine), size, batch_size))
    # Spread over the split, which may be sorted by class.
    keep = np.sort(np.random.default_rng(0).permutation(len(reals))[:kept])
    found = gather(batches, extractor, len(reals), keep)
    if path is not None and rank() == 0:
        _keep(path, found)
    return found


def _keep(path: Path, found: Statistics) -> None:
    tensors = {
        "count": torch.tensor(found.moments.count),
        "mean": found.moments.mean,
        "scatter": found.moments.scatter,
        "score": torch.tensor(found.score, dtype=torch.float64),
        "kept": found.kept.contiguous(),
    }
    store(path, lambda beside: save_file(tensors, beside))


def _stored(path: Path) -> Statistics | None:
    try:
        tensors = load_file(path)
        moments = Moments(len(tensors["mean"]))
        moments.count, moments.mean, moments.scatter = int(tensors["count"]), tensors["mean"], tensors["scatter"]
        return Statistics(moments, tuple(tensors["score"].tolist()), tensors["kept"])
    except (OSError, KeyError, SafetensorError):  # not there, or cut short: gathered anew
        return None
