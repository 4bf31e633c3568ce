"""Find the nearest rows of a matrix, exactly, and measure memorising by them."""

import torch
from torch import Tensor

BLOCK = 2**25  # numbers of a distance table at a time
WIDENED = 4096  # rows that are converted to float64 at a time
GROUP = 16  # columns of a distance table whose minimum is taken before any are sorted
CACHED, QUERIES = 2**17, 8  # numbers that a thread keeps in its cache for L1 distances, and queries of these at a time


def nearest(queries: Tensor, reference: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return L2 distances and indices of the k rows of `reference` (n, C) nearest to each of `queries` (m, C).

    Both are (m, k), nearest first.
    """
    if not 1 <= k <= len(reference):
        raise ValueError(f"k: expected 1 … {len(reference)} neighbours, found {k}")
    found = [
        distances(part, reference).topk(k, largest=False, sorted=True)
        for part in queries.split(max(1, BLOCK // len(reference)))
    ]
    return torch.cat([f.values for f in found]).to(queries), torch.cat([f.indices for f in found])


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the L2 distances of rows a (m, C) and b (n, C), (m, n), in float64, or in float32 on a device without it.

    ‖a‖² + ‖b‖² − 2 a·b in float32 would lose all digits of rows that are nearer to each other than a thousandth of
    their norm. In float64 such rows keep six digits or more, at the speed of a matrix product.
    """
    if a.device.type not in ("cpu", "cuda"):  # slower, by a − b itself
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    a = a.double()
    return torch.cat([torch.cdist(a, part.double()) for part in b.split(WIDENED)], 1)


def memorisation(samples: Tensor, held_out: Tensor, training: Tensor) -> float:
    """Return the median distance of samples to their nearest training image, over that of held-out images.

    samples (m, C), held_out (h, C), training (n, C).

    Near 1 the samples are as far from the training images as held-out images are, which are new. Well below 1 they are
    copies; above 1 they are far from all data, as blurred or broken images are.
    """
    ours, theirs = nearest(samples, training)[0], nearest(held_out, training)[0]
    return float(ours.median() / theirs.median())


def nearest_rows(reference: Tensor, queries: Tensor, k: int, p: int) -> Tensor:
    """Return the indices (m, k) of the k rows of `reference` (n, C) nearest to each of `queries` (m, C), nearest first.

    The distance is that of the p-norm, p 1 or 2. Both are float32 and should be of norm 1 or so: distances come from
    sums and products of which rounding takes 1e-7. n must be at least k.
    """
    sizes = reference.square().sum(1) if p == 2 else reference.sum(1)
    table = squared if p == 2 else _manhattan
    parts = queries.split(max(1, BLOCK // len(reference)))
    return torch.cat([smallest(table(part, reference, sizes), k)[1] for part in parts])


def smallest(table: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k smallest numbers of each row of a table (m, n), in order, and their places, both (m, k).

    The k smallest lie in those k groups of columns whose minima are smallest, so most columns are never sorted.
    """
    groups = table.shape[1] // GROUP
    if groups < 2 * k:
        return table.topk(k, largest=False, sorted=True)
    whole = table[:, : groups * GROUP].unflatten(1, (GROUP, groups))  # a group: each `groups`-th column
    chosen = whole.amin(1).topk(k, largest=False, sorted=False).indices
    places = (chosen[:, None] + groups * torch.arange(GROUP, device=table.device)[:, None]).flatten(1)
    rest = torch.arange(groups * GROUP, table.shape[1], device=table.device).expand(len(table), -1)
    places = torch.cat([places, rest], 1)
    values, at = table.gather(1, places).topk(k, largest=False, sorted=True)
    return values, places.gather(1, at)


def squared(a: Tensor, b: Tensor, sizes: Tensor) -> Tensor:
    """Return ‖b‖² − 2 a·b, (m, n): squared distances less ‖a‖², enough for an order, in one matrix product.

    a (m, C), b (n, C); sizes: ‖b‖², (n,).
    """
    return torch.addmm(sizes, a, b.T, alpha=-2)


def _manhattan(a: Tensor, b: Tensor, sums: Tensor) -> Tensor:
    """Return Σ|a − b| less Σa, (m, n), enough for an order: Σb − 2 Σ min(a, b), since |a − b| = a + b − 2 min(a, b).

    a (m, C), b (n, C); sums: Σb, (n,). The minima of a block of rows are added up while they lie in a core's cache.
    """
    if a.device.type != "cpu":
        return torch.cdist(a, b, p=1)
    table = a.new_empty(len(a), len(b))
    rows = max(1, CACHED * torch.get_num_threads() // (QUERIES * a.shape[1]))
    buffer = a.new_empty(QUERIES, rows, a.shape[1])
    for first in range(0, len(b), rows):
        part = b[first : first + rows]
        for at in range(0, len(a), QUERIES):
            some = a[at : at + QUERIES, None]
            minima = torch.minimum(part, some, out=buffer[: len(some), : len(part)])
            table[at : at + QUERIES, first : first + rows] = minima.sum(2)
    return torch.sub(sums, table, alpha=2, out=table)
