"""A linear classifier on fixed features, its regularisation chosen on a held-out part of the training split."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

STRENGTHS = tuple(10.0**k for k in np.arange(-4, 2.1, 1))  # C of scikit-learn: the inverse strength


@dataclass
class LinearFit:
    """top1: accuracy on the test split.  strength: the chosen C, None if there was none.  converged: whether the last fit did."""

    top1: float
    strength: float | None
    converged: bool


def fit_linear(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int, max_iter: int = 500) -> LinearFit:
    """Multinomial logistic regression on standardised features.

    x (n, C), y (n,), x_test (m, C), y_test (m,). A fifth of the training split chooses C; the classifier is then fitted on all of
    the training split. The test split is looked at once.
    """
    part, held, y_part, y_held = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=_stratified(y))
    scaler = StandardScaler().fit(part)
    part, held = scaler.transform(part), scaler.transform(held)
    model = LogisticRegression(warm_start=True, max_iter=max_iter)
    scores = []
    for strength in STRENGTHS:  # from strong to weak, each start from the last solution
        _fit(model.set_params(C=strength), part, y_part)
        scores.append(model.score(held, y_held))
        if len(scores) > 2 and max(scores[-2:]) < max(scores[:-2]):
            break  # two weaker ones in a row were worse, and weak fits are the slow ones
    best = STRENGTHS[int(np.argmax(scores))]
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=best, max_iter=max_iter)
    converged = _fit(model, scaler.transform(x), y)
    return LinearFit(float(model.score(scaler.transform(x_test), y_test)), best, converged)


def _stratified(y: np.ndarray) -> np.ndarray | None:
    counts = np.bincount(y)
    return y if counts[counts > 0].min() >= 2 and len(y) >= 5 * len(counts) else None


def _fit(model: LogisticRegression, x: np.ndarray, y: np.ndarray) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(x, y)
    return not any(issubclass(w.category, ConvergenceWarning) for w in caught)
