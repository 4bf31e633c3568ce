"""The path of the linear probe's solver beside scikit-learn: `python benchmarks/solver.py [--quick] [--out FILE]`.

40 strengths (C from 1e-4 to 1e2) by `eval_linear.logistic.logistic_path`, against scikit-learn's LogisticRegression at 5 of them, evenly
spread, each with a warm start from the one before and the loosest `tol` whose objective is within 1e-6 (relative) of a tight float64
solution. Only the fit with that `tol` is timed, with float32 features where those reach it and float64 features where not, and for the
solver (lbfgs, the default, or newton-cg) that is faster over all five. Both get the same rows and cores; standardising is timed for ours only.

Recipe of the features: 10 classes; a latent h (D values) is the class's mean, N(0, 0.3² I), plus N(0, I), its coordinates scaled by
k^-0.8; x = ReLU(h M + 0.3 N(0, I) − 0.5 s) with M of N(0, 1) entries and s the scale of h. So x is non-negative, about two thirds zeros,
with correlated columns of a decaying spectrum; every class overlaps its neighbours and the weak strengths overfit.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from eval_linear.logistic import logistic_path

STRENGTHS = np.logspace(-4, 2, 40)
COMPARED = (0, 10, 20, 29, 39)
TOLERANCE = 1e-6


def synthetic(n: int, features: int, classes: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (n, D) float32 and labels (n,) by the recipe above."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.arange(1, features + 1).float() ** -0.8
    scales /= scales.square().sum().sqrt()
    mixing = torch.randn(features, features, generator=generator)
    means = 0.3 * torch.randn(classes, features, generator=generator)
    y = torch.randint(classes, (n,), generator=generator)
    x = torch.empty(n, features)
    for start in range(0, n, 4096):
        rows = slice(start, start + 4096)
        h = (means[y[rows]] + torch.randn(len(y[rows]), features, generator=generator)) * scales
        x[rows] = torch.relu(h @ mixing + 0.3 * torch.randn(len(h), features, generator=generator) - 0.5)
    return x, y


def objective(x: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, strength: float) -> float:
    """Mean cross-entropy + ‖W‖² / (2 C n) in float64, 4,096 rows at a time."""
    weight, loss = weight.astype(np.float64), 0.0
    for start in range(0, len(x), 4096):
        logits = x[start : start + 4096].astype(np.float64) @ weight.T + bias
        loss += (np.logaddexp.reduce(logits, 1) - logits[np.arange(len(logits)), y[start : start + 4096]]).sum()
    return loss / len(x) + np.square(weight).sum() / (2 * strength * len(x))


def ours(x: Tensor, y: Tensor, mean: np.ndarray, scale: np.ndarray, standardised: np.ndarray, tight: list[float] | None, held) -> dict:
    """The whole path, timed without the checking of its solutions."""
    rows, seconds, path = [], 0.0, logistic_path(x, y, 10, STRENGTHS, TOLERANCE)
    solutions = []
    start = time.perf_counter()
    for solution in path:
        solutions.append(solution)
    seconds = time.perf_counter() - start
    for i, s in enumerate(solutions):
        weight, bias = s.weight.double().numpy(), s.bias.double().numpy()
        found = objective(standardised, y.numpy(), weight * scale, bias + weight @ mean, s.strength)
        rows.append(
            {
                "strength": s.strength, "objective": found, "estimated_gap": s.gap, "gap": found / tight[i] - 1, "steps": s.steps,
                "products": s.products, "converged": s.converged, "accuracy": accuracy(s.logits(held[0]).numpy(), held[1]),
            }
        )  # fmt: skip
    return {"seconds": seconds, "products": sum(s.products for s in solutions), "path": rows}


def accuracy(logits: np.ndarray, y: Tensor) -> float:
    return float((logits.argmax(1) == y.numpy()).mean())
