"""Find nearest neighbours among training images, and measure memorising by them."""

import torch
from torch import Tensor

BLOCK = 2**25  # numbers of a distance table at a time


def nearest(queries: Tensor, reference: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return L2 distances and indices of the k rows of `reference` (n, C) nearest to each of `queries` (m, C).

    Both are (m, k), nearest first.
    """
    if not 1 <= k <= len(reference):
        raise ValueError(f"k: expected 1 … {len(reference)} neighbours, found {k}")
    found = [
        torch.cdist(part, reference).topk(k, largest=False, sorted=True)
        for part in queries.split(max(1, BLOCK // len(reference)))
    ]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def memorisation(samples: Tensor, held_out: Tensor, training: Tensor) -> float:
    """Return the median distance of samples to their nearest training image, over that of held-out images.

    samples (m, C), held_out (h, C), training (n, C).

    Held-out images are new by construction. Near 1 the samples are as new as they are; well below 1 they are copies;
    above 1 they are far from all data, as blurred or broken images are.
    """
    ours, theirs = nearest(samples, training)[0], nearest(held_out, training)[0]
    return float(ours.median() / theirs.median())
