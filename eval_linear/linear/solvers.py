"""Fit linear classifiers and choose their strength or learning rate on held-out training rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from bigbigan.distributed import local_only

from .adam import BATCH, PROTOCOLS, AdamProbe, shuffled, train_adam_probe
from .logistic import Solution, logistic_path

PENALTIES = tuple(10.0 ** (-k / 2) for k in range(-2, 13))  # λ of mean cross-entropy + λ/2 ‖W‖²: from 10 to 1e-6
PATIENCE = 4  # strengths without a better held-out accuracy after which weaker ones, the slow ones, are not tried
ROUGHLY = 1e-4  # relative distance from the minimum that is near enough to choose by; the last fit is made to 1e-6
HELD_OUT = 0.2  # of the training rows
HELD_OUT_MOST = 10_000  # rows: the paper's train_val
HELD_OUT_FEWEST = 100  # rows; a smaller part cannot tell strengths apart, and all rows are cross-validated instead
FOLDS = 5


@dataclass
class LinearFit:
    """Hold the figures of a linear classifier on the test rows.

    top1, top5: accuracies, top5 None with five classes or fewer.  confusion: (K, K) counts, truth × prediction.
    strength: the chosen C of scikit-learn or learning rate, None if there was none.  converged: whether the last fit
    did.
    """

    top1: float
    top5: float | None
    confusion: np.ndarray
    strength: float | None = None
    converged: bool = True

    @property
    def per_class(self) -> list[float | None]:
        """Accuracy on the rows of each class; None for a class without rows."""
        rows = self.confusion.sum(1)
        return [float(hit / n) if n else None for hit, n in zip(self.confusion.diagonal(), rows, strict=True)]


def judge(logits: Tensor, y: Tensor, strength: float | None = None, converged: bool = True) -> LinearFit:
    """Return the figures of class scores (m, K) against labels y (m,)."""
    logits, y = logits.cpu(), y.cpu()
    classes = logits.shape[1]
    predicted = logits.argmax(1)
    confusion = torch.bincount(y * classes + predicted, minlength=classes**2).reshape(classes, classes).numpy()
    top5 = float((logits.topk(5).indices == y[:, None]).any(1).cpu().double().mean()) if classes > 5 else None
    return LinearFit(float((predicted == y).cpu().double().mean()), top5, confusion, strength, converged)


def held_out(y: Tensor, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to fit on and those to choose on: a fifth of the training rows, at most 10,000.

    They are drawn by `seed`, by class if possible.
    """
    count = max(1, min(round(HELD_OUT * len(y)), HELD_OUT_MOST))
    counts = torch.bincount(y)
    counts = counts[counts > 0]
    by_class = y.numpy() if int(counts.min()) >= 2 and count >= len(counts) and len(y) - count >= len(counts) else None
    return tuple(train_test_split(np.arange(len(y)), test_size=count, random_state=seed, stratify=by_class))


def fit_linear(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, classes: int, seed: int) -> LinearFit:
    """Fit multinomial logistic regression to standardised features.

    x (n, C), y (n,), x_test (m, C), y_test (m,). Held-out rows choose the strength along a path from strong to weak;
    where they would be fewer than `HELD_OUT_FEWEST`, cross-validation over all n rows does. The classifier is then
    fitted on all rows. The test rows are looked at once. Rows are this process's own: within a group each process fits
    by itself, and those that hold the same rows find the same.
    """
    with local_only():
        return _fit_linear(x, y, x_test, y_test, classes, seed)


def _fit_linear(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, classes: int, seed: int) -> LinearFit:
    few = HELD_OUT * len(y) < HELD_OUT_FEWEST
    best = (_chosen_by_folds if few else _chosen_by_held_out)(x, y, classes, seed)
    *_, (solution, classify) = _path(x, y, classes, _strengths(len(x))[max(0, best - 2) : best + 1])
    return judge(classify(x_test), y_test, solution.strength, solution.converged)


def _chosen_by_held_out(x: Tensor, y: Tensor, classes: int, seed: int) -> int:
    """Return the number of the strength of best accuracy on held-out rows; of equal ones the strongest."""
    fit, choose = held_out(y, seed)
    scores: list[float] = []
    if len(y[fit].unique()) < 2:  # one row of the second class, which is held out
        fit, choose = np.arange(len(y)), np.arange(len(y))
    for _, classify in _path(x[fit], y[fit], classes, _strengths(len(fit)), ROUGHLY):
        scores.append(float((classify(x[choose]).argmax(1) == y[choose]).cpu().double().mean()))
        if len(scores) - 1 - int(np.argmax(scores)) >= PATIENCE:
            break
    return int(np.argmax(scores))


def _chosen_by_folds(x: Tensor, y: Tensor, classes: int, seed: int) -> int:
    """Return the number of the strength that cross-validation of few rows chooses.

    Among the strengths whose accuracy is within one standard error of the best, that is the one nearest to λ = 1/n,
    scikit-learn's C = 1. It is that one too where no row can be judged, as with one row of each class.
    """
    usual = int(np.abs(np.log(np.asarray(PENALTIES) * len(y))).argmin())
    parts = [(fit, judged) for fit, judged in folds(y, seed) if len(y[fit].unique()) > 1 and len(judged)]
    judged = sum(len(rows) for _, rows in parts)
    if not judged:
        return usual
    right: list[int] = []
    paths = (_path(x[fit], y[fit], classes, _strengths(len(fit)), ROUGHLY) for fit, _ in parts)
    for fits in zip(*paths, strict=True):  # one strength in all folds
        hits = [
            (classify(x[rows]).argmax(1) == y[rows]).sum() for (_, classify), (_, rows) in zip(fits, parts, strict=True)
        ]
        right.append(int(sum(hits)))
        if len(right) - 1 - max(usual, int(np.argmax(right))) >= PATIENCE:
            break
    most = max(right)
    error = (most * (judged - most) / judged) ** 0.5  # rows: the standard deviation of a binomial count
    near = [i for i, count in enumerate(right) if count >= most - error]
    return min(near, key=lambda i: abs(i - usual))


def folds(y: Tensor, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows to fit on and those to judge by, `FOLDS` times, drawn by `seed`; every class is spread evenly.

    y (n,), n ≥ 2. Rows whose class is absent from the rows to fit on are not judged.
    """
    labels, count = y.cpu().numpy(), min(FOLDS, len(y))
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % count
    for k in range(count):
        fit, rest = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        yield fit, rest[np.isin(labels[rest], labels[fit])]


def _path(
    x: Tensor, y: Tensor, classes: int, strengths: tuple[float, ...], tolerance: float = 1e-6
) -> Iterator[tuple[Solution, Callable[[Tensor], Tensor]]]:
    """Yield (solution, features (m, C) → scores (m, classes)) of `logistic_path` for rows that may lack some classes.

    A class without rows is never named.
    """
    present, renumbered = y.unique(return_inverse=True)
    for solution in logistic_path(x, renumbered, len(present), strengths, tolerance):

        def classify(rows: Tensor, solution: Solution = solution) -> Tensor:
            scores = rows.new_full((len(rows), classes), -torch.inf)
            scores[:, present] = solution.logits(rows).to(rows)
            return scores

        yield solution, classify


def _strengths(n: int) -> tuple[float, ...]:
    """Return scikit-learn's C for n rows, so that a penalty means the same whatever n."""
    return tuple(1 / (penalty * n) for penalty in PENALTIES)


def fit_adam(
    protocol: str, x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, classes: int, *, seed: int, batches=None
) -> LinearFit:
    """Fit the paper's probe (`adam.PROTOCOLS`); arguments and result as of `fit_linear`.

    Of several rates, held-out training rows choose one. A single rate is fitted on all training rows.
    batches: a function (rows to fit on) → endless (features, labels) of augmented images, in place of the rows of x
    themselves.
    """
    steps, rates = PROTOCOLS[protocol]
    several = len(rates) > 1
    fit, choose = held_out(y, seed) if several else (np.arange(len(y)), np.arange(0))
    source = shuffled(x[fit], y[fit], seed, BATCH) if batches is None else batches(fit)
    first = next(source)
    probe = AdamProbe(x.shape[1], classes, rates, first[0].device)
    probe.step(*first)
    train_adam_probe(source, probe, steps - 1)
    best = probe.best(x[choose], y[choose]) if several else 0
    return judge(probe.logits(x_test, best), y_test, rates[best])
