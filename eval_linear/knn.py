"""Classify by nearest neighbours of frozen features: the paper's majority vote, and the weighted one of libraries."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bigbigan.metrics.neighbours import BLOCK

PAPER_K = (1, 5, 25, 50)
WEIGHTED_K, TEMPERATURE = 20, 0.07
GROUP = 16  # columns of a distance table whose minimum is taken before any are sorted
CACHED, QUERIES = 2**17, 8  # numbers that a thread keeps in its cache for L1 distances, and queries of these at a time


def paper_knn(
    x: Tensor, y: Tensor, x_test: Tensor, classes: int, p: int, ks: tuple[int, ...] = PAPER_K
) -> dict[int, Tensor]:
    """Return {k: predicted labels (m,)} by majority vote of the k nearest rows (BigBiGAN, appendix C).

    The distance is d_p(a, b) = ‖a/‖a‖_p − b/‖b‖_p‖_p.

    x (n, C) with labels y (n,), x_test (m, C), p 1 or 2. Labels with equally many votes: the one among them that the
    nearest neighbour of these has. k is cut to n.
    """
    found = nearest_rows(_normalised(x, p), _normalised(x_test, p), min(max(ks), len(x)), p)
    neighbours = y.to(x.device)[found]  # (m, most), nearest first
    return {k: majority(neighbours[:, :k], classes) for k in ks}


def majority(neighbours: Tensor, classes: int) -> Tensor:
    """Return the most frequent label of each row, (m,), of neighbours' labels (m, k), nearest first.

    Of labels with equally many votes the one that stands first is taken.
    """
    votes = F.one_hot(neighbours, classes).sum(1)
    tied = votes == votes.max(1, keepdim=True).values
    first = tied.gather(1, neighbours).to(torch.uint8).argmax(1, keepdim=True)
    return neighbours.gather(1, first).squeeze(1)


def weighted_knn(
    x: Tensor, y: Tensor, x_test: Tensor, classes: int, k: int = WEIGHTED_K, temperature: float = TEMPERATURE
) -> Tensor:
    """Return scores of the classes (m, classes): votes of the k rows most similar by cosine.

    A row of similarity s weighs exp(s/temperature) (Wu et al. 2018; k and temperature of DINO).
    """
    reference, queries = _normalised(x, 2), _normalised(x_test, 2)
    y = y.to(x.device)
    scores = []
    for part in queries.split(max(1, BLOCK // len(x))):
        unlike, at = smallest((part @ reference.T).neg_(), min(k, len(x)))
        weight = torch.exp((unlike[:, :1] - unlike) / temperature)  # relative to the nearest: the order is the same
        scores.append(torch.zeros(len(part), classes, device=x.device).scatter_add_(1, y[at], weight))
    return torch.cat(scores)


def nearest_rows(reference: Tensor, queries: Tensor, k: int, p: int) -> Tensor:
    """Return the indices (m, k) of the k rows of `reference` (n, C) nearest to each of `queries` (m, C), nearest first.

    The distance is that of the p-norm, p 1 or 2. Both are float32 and should be of norm 1 or so: distances come from
    sums and products of which rounding takes 1e-7. n must be at least k.
    """
    sizes = reference.square().sum(1) if p == 2 else reference.sum(1)
    table = _squared if p == 2 else _manhattan
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


def _normalised(x: Tensor, p: int) -> Tensor:
    return F.normalize(x.float(), p=p, dim=1)


def _squared(a: Tensor, b: Tensor, sizes: Tensor) -> Tensor:
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
