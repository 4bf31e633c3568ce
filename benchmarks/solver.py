"""Compare the regularisation path of the linear probe's solver with scikit-learn.

    python benchmarks/solver.py [--rows 20000] [--features 2048] [--solvers lbfgs] [--out FILE]

`eval_linear.linear.logistic.logistic_path` solves 40 strengths (C from 1e-4 to 1e2). scikit-learn's LogisticRegression
solves 5 of them, evenly spread, each from the solution before, with lbfgs (its default) and newton-cg. For each the
loosest `tol` is searched whose objective is within 1e-6 (relative) of a tight float64 solution, and only the fit with
that `tol` counts: in float32 if that reaches it, else in float64. Both libraries get the same rows and cores; the time
of standardising counts only for ours. Seconds are CPU seconds of the process, which a busy machine disturbs least.

The tight solution is ours in float64 at tolerance 1e-9. scikit-learn checks it independently: none of its objectives
may be lower. Ours is timed at the start and at the end, and the slower time counts. OMP_NUM_THREADS sets the threads
of both libraries.

Recipe of the features: 10 classes; a latent h (D values) is the class's mean, drawn from N(0, 0.2² I), plus N(0, I),
coordinates scaled by k^-0.8 and together to unit variance; x = ReLU(h M + 0.3 N(0, I) − 0.5), M of N(0, 1) entries. So
x is non-negative, two thirds of it zero, its columns correlated with a decaying spectrum; classes overlap, and weak
strengths overfit.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

if __package__ in (None, ""):  # run by its path: the repository root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from eval_linear.linear.logistic import logistic_path

STRENGTHS = np.logspace(-4, 2, 40)
COMPARED = (0, 10, 20, 29, 39)
TOLERANCE = 1e-6


def synthetic(n: int, features: int, classes: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return features (n, D) float32 and labels (n,) by the recipe above."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.arange(1, features + 1).float() ** -0.8
    scales /= scales.square().sum().sqrt()
    mixing = torch.randn(features, features, generator=generator)
    means = 0.2 * torch.randn(classes, features, generator=generator)
    y = torch.randint(classes, (n,), generator=generator)
    x = torch.empty(n, features)
    for start in range(0, n, 4096):
        rows = slice(start, start + 4096)
        h = (means[y[rows]] + torch.randn(len(y[rows]), features, generator=generator)) * scales
        x[rows] = torch.relu(h @ mixing + 0.3 * torch.randn(len(h), features, generator=generator) - 0.5)
    return x, y


def objective(x: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, strength: float) -> float:
    """Return the mean cross-entropy + ‖W‖² / (2 C n) in float64, computed 4,096 rows at a time."""
    weight, loss = weight.astype(np.float64), 0.0
    for start in range(0, len(x), 4096):
        logits = x[start : start + 4096].astype(np.float64) @ weight.T + bias
        loss += (np.logaddexp.reduce(logits, 1) - logits[np.arange(len(logits)), y[start : start + 4096]]).sum()
    return loss / len(x) + np.square(weight).sum() / (2 * strength * len(x))


def accuracy(logits: np.ndarray, y: Tensor) -> float:
    return float((logits.argmax(1) == y.numpy()).mean())


def ours(x: Tensor, y: Tensor, dtype: torch.dtype = torch.float32, tolerance: float = TOLERANCE) -> tuple[float, list]:
    """Return the CPU seconds of the whole path, standardising included, and its solutions."""
    x = x.to(dtype)
    start = time.process_time()
    solutions = list(logistic_path(x, y, int(y.max()) + 1, STRENGTHS, tolerance))
    return time.process_time() - start, solutions


def sklearn_fit(
    solver: str, x: np.ndarray, y: np.ndarray, strength: float, tol: float, start
) -> tuple[float, LogisticRegression]:
    model = LogisticRegression(C=strength, tol=tol, solver=solver, max_iter=20000, warm_start=start is not None)
    if start is not None:
        model.classes_ = np.unique(y)
        model.coef_, model.intercept_ = (part.astype(x.dtype) for part in start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the objective decides
        begin = time.process_time()
        model.fit(x, y)
        return time.process_time() - begin, model


def sklearn_at(
    solver: str, features: dict[str, np.ndarray], y: np.ndarray, strength: float, tight: float, start
) -> tuple[dict, tuple]:
    """Return the row and coefficients of the fit with the loosest `tol` that reaches the tolerance.

    float32 is tried first, then float64. If none reaches it, the closest fit is returned and marked: its seconds are
    fewer than reaching the tolerance would take.
    """
    closest = None
    for name, x in features.items():
        iterations = -1
        for tol in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8):
            seconds, model = sklearn_fit(solver, x, y, strength, tol, start)
            gap = float(objective(features["float64"], y, model.coef_, model.intercept_, strength) / tight - 1)
            row = {
                "strength": strength,
                "seconds": seconds,
                "dtype": name,
                "tol": tol,
                "iterations": int(model.n_iter_[0]),
                "gap": gap,
            }
            print(
                "   ", solver, {k: v if isinstance(v, str) else float(f"{v:.3g}") for k, v in row.items()}, flush=True
            )
            row["reached"] = gap <= TOLERANCE
            if row["reached"]:
                return row, (model.coef_, model.intercept_)
            if closest is None or gap < closest[0]["gap"]:
                closest = row, (model.coef_, model.intercept_)
            if iterations == row["iterations"] > 0:
                break  # its own rounding stops it, not tol
            iterations = row["iterations"]
    return closest


def check_path(
    solutions: list, tight: list, features: np.ndarray, scaler: StandardScaler, y: np.ndarray, held
) -> list[dict]:
    """Return a row for each solution: its gap, recomputed from its weights for x, and its accuracy on held-out rows."""
    rows = []
    for s, t in zip(solutions, tight, strict=True):
        weight, bias = s.weight.double().numpy(), s.bias.double().numpy()
        found = objective(features, y, weight * scaler.scale_, bias + weight @ scaler.mean_, s.strength)
        row = {"strength": s.strength, "objective": t.objective, "gap": found / t.objective - 1, "estimated_gap": s.gap}
        row |= {"products": s.products, "steps": s.steps, "accuracy": accuracy(s.logits(held[0]).numpy(), held[1])}
        rows.append(row | {"converged": s.converged})
        print("   ", {key: float(f"{value:.4g}") for key, value in rows[-1].items()}, flush=True)
    return rows


def compare(solver: str, features: dict[str, np.ndarray], y: np.ndarray, tight: list, path: list[dict], held) -> dict:
    """Fit scikit-learn at five strengths, with the difference of accuracy on held-out rows (standardised x, y)."""
    rows, start = [], None
    for i in COMPARED:
        row, start = sklearn_at(solver, features, y, float(STRENGTHS[i]), tight[i].objective, start)
        row["accuracy"] = accuracy(held[0] @ start[0].T + start[1], held[1])
        rows.append(row | {"accuracy_difference": path[i]["accuracy"] - row["accuracy"]})
    return {"seconds": sum(row["seconds"] for row in rows), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="to fit; 5,000 more (at most) measure the accuracy")
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--solvers", nargs="+", default=["lbfgs", "newton-cg"], help="of scikit-learn")
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    n, width, held = arguments.rows, arguments.features, min(5000, arguments.rows)
    x, y = synthetic(n + held, width)
    x, y, x_held, y_held = x[:n], y[:n], x[n:], y[n:]
    seconds, solutions = ours(x, y)
    print(
        f"ours: {len(solutions)} strengths in {seconds:.1f} s, {sum(s.products for s in solutions)} readings of x",
        flush=True,
    )
    _, tight = ours(x, y, torch.float64, 1e-9)
    scaler = StandardScaler().fit(x.double().numpy())
    features = {"float64": scaler.transform(x.double().numpy())}
    features = {"float32": features["float64"].astype(np.float32)} | features
    path = check_path(solutions, tight, features["float64"], scaler, y.numpy(), (x_held, y_held))
    result = {"n": n, "features": width, "threads": torch.get_num_threads(), "path": path}
    standard_held = scaler.transform(x_held.double().numpy())
    for solver in arguments.solvers:
        result[solver] = compare(solver, features, y.numpy(), tight, path, (standard_held, y_held))
    result["seconds"] = [seconds, ours(x, y)[0]]
    for solver in arguments.solvers:
        rows, total = result[solver]["rows"], result[solver]["seconds"]
        result[solver]["ratio"] = total / max(result["seconds"])
        difference = max(abs(row["accuracy_difference"]) for row in rows)
        ratio = result[solver]["ratio"]
        missed = sum(not row["reached"] for row in rows)
        print(
            f"scikit-learn {solver}: {missed} of {len(rows)} strengths not reached, the closest attempt counted",
            end="; ",
        )
        print(f"{len(rows)} strengths in {total:.1f} s, {ratio:.2f} times our time for {len(path)}")
        print(f"    held-out accuracy ({held} rows) differs by {100 * difference:.2f} points at most")
    print(
        f"ours: {len(path)} strengths in {result['seconds'][0]:.1f} s and, again, {result['seconds'][1]:.1f} s, ",
        end="",
    )
    print(f"worst gap {max(row['gap'] for row in path):.1e}, all converged: {all(row['converged'] for row in path)}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
