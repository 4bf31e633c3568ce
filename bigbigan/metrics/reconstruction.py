"""Reconstruction figures, each beside its random-pair baseline (Donahue et al. 2017 report both)."""

import torch
from torch import Tensor


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Squared L2 distance of each pair: a, b (N, 3, S, S) in [−1, 1] → (N,)."""
    return (a - b).square().flatten(1).sum(1)


def relative_error(x: Tensor, reconstructions: Tensor, repeats: int = 10, seed: int = 0) -> float:
    """Mean squared error of reconstructions over that of random pairs of images: 0 is perfect, 1 is no better than another image.

    x, reconstructions: (N, 3, S, S), N ≥ 2. The baseline pairs every x with another x, drawn `repeats` times.
    """
    generator = torch.Generator().manual_seed(seed)
    shifts = torch.randint(1, len(x), (repeats,), generator=generator)
    shuffles = [torch.randperm(len(x), generator=generator) for _ in range(repeats)]
    pairs = [squared_error(x[p], x[p.roll(int(s))]).mean() for p, s in zip(shuffles, shifts, strict=True)]
    return float(squared_error(x, reconstructions).mean() / torch.stack(pairs).mean())


def nearest_neighbour_agreement(reconstructions: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor) -> float:
    """Share of reconstructions whose nearest real image (L2 in pixels) has the label of the image they reconstruct.

    reconstructions (N, 3, S, S), labels (N,); real (M, 3, S, S), real_labels (M,).
    """
    nearest = torch.cat([torch.cdist(part, real.flatten(1)).argmin(1) for part in reconstructions.flatten(1).split(1024)])
    return float((real_labels[nearest] == labels).double().mean())
