"""Compare our Fréchet distance with its usual computation by a matrix root.

    python benchmarks/frechet.py [--repeats 3] [--out FILE]

Features have D = 2,048 dimensions with a decaying spectrum. Two cases: covariances of full rank, and of fewer images
than features. Both computations run in turn on the same matrices. Prints seconds, the ratio of medians and the relative
difference, also as JSON. The singular case is also compared with the exact value, from singular values of the data.
"""

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import scipy.linalg

from bigbigan.metrics.frechet import gaussian_distance


def features(n: int, width: int, seed: int) -> np.ndarray:
    """Return correlated, non-negative features, (n, width), like a network's after ReLU and pooling."""
    random = np.random.default_rng([seed, n])
    mixing = np.random.default_rng(0).normal(size=(width, width)) * np.exp(-3 * np.arange(width) / width)[:, None]
    return np.abs(0.3 * random.normal(size=(n, width)) @ mixing / np.sqrt(width) + 0.1 * (seed + 1))


def by_matrix_root(mean1, c1, mean2, c2) -> float:
    """Return the Fréchet distance (Heusel et al. 2017, equation 6) as it is often computed, by a matrix root.

    The real part of the root is taken, after a small shift where the root is not finite.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy says that the matrix is singular
        root = scipy.linalg.sqrtm(c1 @ c2)
        if not np.isfinite(root).all():
            shift = 1e-6 * np.eye(len(c1))
            root = scipy.linalg.sqrtm((c1 + shift) @ (c2 + shift))
    difference = mean1 - mean2
    return float(difference @ difference + np.trace(c1) + np.trace(c2) - 2 * np.trace(root.real))


def by_singular_values(x: np.ndarray, y: np.ndarray) -> float:
    """Return the exact distance for any rank: tr (C₁C₂)^½ is the nuclear norm of the product of the centred data."""
    mean1, mean2 = x.mean(0), y.mean(0)
    x, y = (x - mean1) / np.sqrt(len(x) - 1), (y - mean2) / np.sqrt(len(y) - 1)
    difference = mean1 - mean2
    root_trace = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(difference @ difference + (x * x).sum() + (y * y).sum() - 2 * root_trace)


def one(name: str, n1: int, n2: int, width: int, repeats: int) -> dict:
    x, y = features(n1, width, 0), features(n2, width, 1)
    moments = x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False)
    seconds: dict = {gaussian_distance: [], by_matrix_root: []}
    values = {}
    for _ in range(repeats):
        for route, times in seconds.items():
            start = time.perf_counter()
            values[route] = route(*moments)
            times.append(time.perf_counter() - start)
    ours, theirs = (statistics.median(times) for times in seconds.values())
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    row = {
        "case": name, "n1": n1, "n2": n2, "width": width, "repeats": repeats,
        "seconds": round(ours, 3), "seconds_matrix_root": round(theirs, 3),
        "ratio": round(theirs / ours, 1), "ratio_worst": round(min(ratios), 1),
        "distance": values[gaussian_distance], "distance_matrix_root": values[by_matrix_root],
        "relative_difference": abs(values[gaussian_distance] / values[by_matrix_root] - 1),
    }  # fmt: skip
    if min(n1, n2) <= width:
        exact = by_singular_values(x, y)
        row["relative_difference_exact"] = abs(values[gaussian_distance] / exact - 1)
        row["relative_difference_exact_matrix_root"] = abs(values[by_matrix_root] / exact - 1)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    width = arguments.width
    cases = [("full rank", 5 * width, 5 * width), ("fewer images than features", width // 2, 5 * width)]
    rows = []
    for name, n1, n2 in cases:
        rows.append(one(name, n1, n2, width, arguments.repeats))
        print(json.dumps(rows[-1]), flush=True)
    versions = f"NumPy {np.__version__}, SciPy {scipy.__version__}"
    print(f"{os.cpu_count()} CPU cores, {versions}, medians of {arguments.repeats} in turn")
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
