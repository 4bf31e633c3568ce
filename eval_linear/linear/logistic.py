"""Solve multinomial logistic regression along a path of strengths, with scikit-learn's objective.

Rows may lie on a CPU or GPU, and may be spread over processes.

For n rows x_i in R^D, classes y_i and strength C, with features standardised (zero mean, unit standard deviation) as
x̂:

    F(W, b) = 1/n Σ_i −log softmax(W x̂_i + b)[y_i] + ‖W‖² / (2 C n),   the intercept b without penalty.

The method is Newton's with conjugate gradients (Nocedal & Wright, Numerical Optimization, algorithm 7.1), each strength
started from a parabola through the last three solutions. What makes it fast is the preconditioner. The Hessian is 1/n
Σ_i S_i ⊗ x̂_i x̂_iᵀ + λI with λ = 1/(C n) and S_i = diag(p_i) − p_i p_iᵀ; it is replaced by S̄ ⊗ Σ̂ + λI, the product
of the averages (as K-FAC does, Martens & Grosse 2015, section 3). In the eigenbases of Σ̂ (D × D, found once) and of S̄
(K × K, found at each step) its inverse is a division.

Memory beyond x: O(D²) up to `rows.FULL` features and O(D · RANK) above, some vectors of K · D float64, and a
chunk of rows with its logits (`CHUNK` numbers unless chunk_rows says otherwise; float64 once, for the moments).
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from .rows import Basis, Point, Rows, agreed, penalty

MARGIN = 0.5  # the part of the tolerance that the estimated gap may take, since it can be a few times too small
# Products after which a run of conjugate gradients has shown the slow directions; good starts make shorter runs.
LONG = 6
FRESH = 3.0  # the rise of C in which at least one run is that long: the slow parts of the error would add up unseen


@dataclass
class Solution:
    """Hold the minimiser at one strength.

    weight (K, D) and bias (K,) act on x as it was given, and sum to zero over the classes.

    strength: C of scikit-learn.  objective: F, of the standardised features where they were.  gap: estimate of (F − min
    F) / F.
    steps: Newton steps.  products: readings of x.  converged: whether the gap is within the tolerance.
    """

    strength: float
    weight: Tensor
    bias: Tensor
    objective: float
    gap: float
    steps: int
    products: int
    converged: bool

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (m, K) of rows x (m, D)."""
        return x.to(self.weight) @ self.weight.T + self.bias


@torch.no_grad()
def logistic_path(
    x: Tensor,
    y: Tensor,
    classes: int,
    strengths: Iterable[float],
    tolerance: float = 1e-6,
    standardise: bool = True,
    *,
    max_steps: int = 50,
    chunk_rows: int | None = None,
) -> Iterator[Solution]:
    """Yield solutions from strong to weak regularisation (rising C), each within `tolerance` of its minimum.

    A solution is computed when it is asked for.
    x: (n, D) float16, bfloat16, float32 or float64; products are made in float64 if it is that and in float32
    otherwise. The device must have float64 (the CPU, CUDA), for the sums.
    y: (n,) integers 0 … K − 1. strengths: C of scikit-learn, each solved once. standardise=False penalises the weights
    of x itself. In a multi-process job each process gives its own rows (perhaps none of some class) and reads equally
    many solutions.
    Two classes: scikit-learn penalises one logit, w = weight[1] − weight[0], so that ‖w‖² = 2 ‖W‖²; the same is done
    here. Raises ValueError for wrong shapes, values that are not finite, classes without rows, strengths that are not
    above 0.
    """
    strengths = sorted({float(c) for c in strengths})
    if not strengths or not all(0 < c < math.inf for c in strengths):
        raise ValueError(f"strengths: expected finite numbers above 0, found {strengths}; give the C of scikit-learn")
    rows = Rows(x, y, classes, standardise, chunk_rows)
    basis = Basis(rows)
    history: list[tuple[float, Point]] = []
    slowest, shown = 1.0, 0.0  # the smallest Ritz value so far, the strength of the last long run
    for strength in strengths:
        ridge = (2 if classes == 2 else 1) / (strength * rows.total)
        before = rows.readings
        start = _predict(rows, history, math.log(strength), ridge)
        least = 1 if strength <= FRESH * shown else LONG
        point, gap, steps, slowest, longest = _newton(
            rows, basis, start, ridge, tolerance, slowest, max_steps=max_steps, least=least
        )
        shown = strength if longest >= LONG else shown
        history = [*history[-2:], (math.log(strength), point)]
        weight, bias = (part.to(rows.dtype) for part in rows.raw(point.parameters))
        readings = rows.readings - before
        yield Solution(strength, weight, bias, point.objective, gap, steps, readings, gap <= tolerance)


def _predict(rows: Rows, history: list[tuple[float, Point]], place: float, ridge: float) -> Point:
    """Return where to start at log C = place.

    That is the parabola in log C through the last three solutions, or the last solution where it is better.
    """
    if not history:
        prior = (torch.tensor(rows.counts, dtype=torch.float64, device=rows.x.device) / rows.total).log()
        zeros = torch.zeros(rows.classes, rows.x.shape[1], dtype=torch.float64, device=rows.x.device)
        return rows.evaluate(torch.cat([zeros, (prior - prior.mean())[:, None]], 1), ridge)
    last = history[-1][1]
    if len(history) > 1:
        places = [here for here, _ in history]
        weights = [math.prod((place - other) / (here - other) for other in places if other != here) for here in places]
        points = [point.parameters for _, point in history]
        guess = rows.evaluate(sum(w * point for w, point in zip(weights, points, strict=True)), ridge)
        if guess.objective <= last.loss + penalty(last.parameters, ridge):
            return guess
    return rows.evaluate(last.parameters, ridge)


def _newton(
    rows: Rows,
    basis: Basis,
    point: Point,
    ridge: float,
    tolerance: float,
    slowest: float,
    *,
    max_steps: int,
    least: int,
) -> tuple[Point, float, int, float, int]:
    """Make Newton's steps from `point`.

    Returns the last point, its estimated gap, the steps, the smallest Ritz value and the longest run.

    With gradient g and preconditioner M, F − min F ≈ ½ gᵀH⁻¹g ≤ ½ gᵀM⁻¹g / θ, where θ is the smallest eigenvalue of
    M⁻¹H. The
    conjugate gradients find it from above: their Ritz values here and at the strengths before (`slowest`). least: see
    `LONG`.
    """
    longest, gap = 0, math.inf
    for step in itertools.count():
        apply = basis.preconditioner(point.curvature, ridge)
        (energy,) = agreed(_dot(point.gradient, apply(point.gradient)))
        before, gap = gap, energy / (2 * slowest * point.objective)
        stalled = step > 1 and gap > 0.9 * before and before < 1e3 * tolerance  # rounding, not curvature
        if (gap <= MARGIN * tolerance and longest >= least) or stalled or step == max_steps:
            return point, gap, step, slowest, longest
        goal = MARGIN / 2 * tolerance * point.objective
        direction, fall, ritz, run = _conjugate_gradients(
            rows, point, apply, ridge, goal, slowest, least=least - longest
        )
        # A run that ended before `least` had nothing left.
        slowest, longest = min(slowest, ritz), max(longest, run, least)
        advanced = _line_search(rows, point, direction, fall, ridge)
        if advanced is None:
            return rows.evaluate(point.parameters, ridge), gap, step, slowest, longest
        point = advanced


def _conjugate_gradients(
    rows: Rows, point: Point, apply, ridge: float, goal: float, slowest: float, *, least: int, limit: int = 1000
) -> tuple[Tensor, float, float, int]:
    """Solve H d = −g by preconditioned conjugate gradients.

    Returns d (K, D + 1), gᵀH⁻¹g as far as known, the smallest Ritz value and the number of products.

    They end when what is left of F, estimated as in `_newton`, is below `goal` or below a part of what the step
    promises that shrinks with it (Nocedal & Wright, section 7.1: superlinear convergence), though not before `least`
    products unless the residual has vanished. The host waits once a product, for two numbers.
    """
    direction = torch.zeros_like(point.gradient)
    residual = -point.gradient
    preconditioned = apply(residual)
    search, energy = preconditioned, _dot(residual, preconditioned)
    (known,) = agreed(energy)
    vanished = known * 1e-20
    lengths, ratios, fall = [], [], 0.0
    while known > vanished and len(lengths) < limit:
        image = rows.product(point, search, ridge)
        bend = _dot(search, image)
        length = energy / bend
        reduced = residual - length * image
        preconditioned = apply(reduced)
        fresh = _dot(reduced, preconditioned)
        bent, left = agreed(torch.stack([bend, fresh]))
        if not (bent > 0 and left >= 0):  # only rounding makes it so
            break
        direction, residual = direction + length * search, reduced
        lengths.append(known / bent)
        ratios.append(left / known)
        fall += known * lengths[-1]
        small = max(goal, fall / 2 * min(0.1, math.sqrt(fall / point.objective)))
        perhaps = len(lengths) >= least and left / (2 * slowest) <= small  # if not, no Ritz value can make it so
        if perhaps and left / (2 * min(slowest, _smallest_ritz(lengths, ratios))) <= small:
            break
        search = preconditioned + fresh / energy * search
        energy, known = fresh, left
    ritz = _smallest_ritz(lengths, ratios) if lengths else 1.0
    return direction, fall, ritz, len(lengths)


def _smallest_ritz(lengths: list[float], ratios: list[float]) -> float:
    """Return the smallest eigenvalue of the Lanczos matrix of conjugate gradients.

    Golub & Van Loan, Matrix Computations, chapter 11.
    """
    lengths, ratios = np.asarray(lengths), np.asarray(ratios[:-1])
    diagonal = 1 / lengths
    diagonal[1:] += ratios / lengths[:-1]
    beside = np.sqrt(ratios) / lengths[:-1]
    if not len(beside):
        return float(diagonal[0])
    return float(eigh_tridiagonal(diagonal, beside, eigvals_only=True, select="i", select_range=(0, 0))[0])


def _line_search(rows: Rows, point: Point, direction: Tensor, fall: float, ridge: float) -> Point | None:
    """Return the point after the longest step of 1, ½, ¼, … with Armijo's decrease (Nocedal & Wright, section 3.1).

    None if rounding hides all of them.

    Where F hardly changes, its derivative along the step tells more: small at the end means a minimum along it (the
    approximate Wolfe condition of Hager & Zhang 2005, section 4).
    """
    for halvings in range(30):
        length = 0.5**halvings
        tried = rows.evaluate(point.parameters + length * direction, ridge)
        (slope,) = agreed(_dot(tried.gradient, direction))
        close = fall < 1e-4 * point.objective and abs(slope) <= 0.1 * fall
        if close or tried.objective <= point.objective - 1e-4 * length * fall:
            return tried
    return None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()
