"""Classify by nearest neighbours of frozen features: the paper's majority vote, and the weighted one of libraries."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bigbigan.metrics.neighbours import BLOCK, nearest_rows, smallest

PAPER_K = (1, 5, 25, 50)
WEIGHTED_K, TEMPERATURE = 20, 0.07


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
    return {k: majority(neighbours[:, :k]) for k in ks}


def majority(neighbours: Tensor) -> Tensor:
    """Return the most frequent label of each row, (m,), of neighbours' labels (m, k), nearest first.

    Of labels with equally many votes the one that stands first is taken.
    """
    found = []
    for part in neighbours.split(max(1, BLOCK // neighbours.shape[1] ** 2)):
        votes = (part[:, :, None] == part[:, None]).sum(2)  # of its label, whatever the number of classes
        first = (votes == votes.amax(1, keepdim=True)).to(torch.uint8).argmax(1, keepdim=True)
        found.append(part.gather(1, first))
    return torch.cat(found).squeeze(1)


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


def _normalised(x: Tensor, p: int) -> Tensor:
    return F.normalize(x.float(), p=p, dim=1)
