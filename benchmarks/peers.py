"""Compare the probe's numeric parts with faiss and scikit-learn, in turn in one process.

    python benchmarks/peers.py [--parts knn_l2 knn_l1 linear manifold frechet] [--repeats 3] [--rows 8000]
        [--threads 2] [--out FILE]

Each part is repeated: ours, then each peer, then ours again, and so on; the least wall time and the least CPU time of
each are printed with the ratio ours / peer, the number of repetitions and the processor. A peer that is not installed
(`pip install faiss-cpu prdc pytorch-fid torch-fidelity`) is named and skipped. On a machine that does other work the
CPU times are the ones to compare.

knn_l2: 50 nearest of 50,000 × 512 normalised rows for 400 queries.  knn_l1: the same by L1 distances, 60 queries, with
the rate in elements (one coordinate of one pair) a second.
linear: ours solves 40 strengths (C from 1e-4 to 1e2) of rows × 1,024 features and ten classes, each within 1e-6 of its
minimum; scikit-learn's lbfgs solves five of them at its default tolerance (tol 1e-4, 100 iterations), each started from
the one before. Its worst relative gap to the minimum is printed too, since it stops far from the minimum where the
penalty is weak. `benchmarks/solver.py` compares the two at the same gap.
manifold: precision, recall, density and coverage of 5,000 against 5,000 features × 512, beside prdc.
frechet: the distance of two sets of moments of 2,048 dimensions, beside pytorch-fid and torch-fidelity.
"""

import argparse
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

if __package__ in (None, ""):  # run by its path: the repository root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.frechet import features
from benchmarks.solver import COMPARED, STRENGTHS, objective, synthetic
from bigbigan.metrics.frechet import gaussian_distance
from bigbigan.metrics.manifold import manifold_figures
from eval_linear.knn import nearest_rows
from eval_linear.linear.logistic import logistic_path

try:
    import faiss
except ImportError:
    faiss = None

REFERENCES, WIDTH, K = 50_000, 512, 50
QUERIES = {1: 60, 2: 400}
PARTS = ["knn_l2", "knn_l1", "linear", "manifold", "frechet"]


def in_turn(calls: dict[str, Callable], repeats: int) -> dict[str, dict]:
    """Run all calls `repeats` times in turn, and return the least wall and CPU seconds of each."""
    found: dict[str, dict] = {name: {"wall": [], "cpu": []} for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            found[name]["wall"].append(time.perf_counter() - wall)
            found[name]["cpu"].append(time.process_time() - cpu)
    return {name: {clock: min(values) for clock, values in clocks.items()} for name, clocks in found.items()}


def report(what: str, times: dict[str, dict], repeats: int, elements: float = 0) -> dict:
    """Print one line for each peer, and return the row of the result file."""
    ours = times.pop("ours")
    rate = lambda t: f" ({elements / t['wall'] / 1e9:.2f} G elements/s)" if elements else ""  # noqa: E731
    for peer, theirs in times.items():
        ratio, cpu = ours["wall"] / theirs["wall"], ours["cpu"] / theirs["cpu"]
        print(f"{what}: ours {ours['wall']:.3f} s{rate(ours)}, {peer} {theirs['wall']:.3f} s{rate(theirs)}, ", end="")
        print(f"ratio {ratio:.2f}; CPU {ours['cpu']:.3f} and {theirs['cpu']:.3f} s, ratio {cpu:.2f}; n = {repeats}")
    return {"what": what, "ours": ours, "peers": times, "n": repeats}


def knn(p: int, repeats: int, threads: int) -> dict:
    """Compare the search of neighbours by the p-norm among rows of p-norm 1."""
    draw = torch.Generator().manual_seed(0)
    unit = lambda n: torch.nn.functional.normalize(torch.randn(n, WIDTH, generator=draw), p=p, dim=1)  # noqa: E731
    x, queries = unit(REFERENCES), unit(QUERIES[p])
    metric = "euclidean" if p == 2 else "manhattan"
    theirs = NearestNeighbors(n_neighbors=K, algorithm="brute", metric=metric).fit(x.numpy())
    calls: dict[str, Callable] = {
        "ours": lambda: nearest_rows(x, queries, K, p),
        "scikit-learn": lambda: theirs.kneighbors(queries.numpy()),
    }
    if faiss is not None:
        faiss.omp_set_num_threads(threads)
        kind = faiss.METRIC_L2 if p == 2 else faiss.METRIC_L1
        calls["faiss"] = lambda: faiss.knn(queries.numpy(), x.numpy(), K, metric=kind)
        same = float((nearest_rows(x, queries, K, p).numpy() == calls["faiss"]()[1]).mean())
        print(f"k-NN L{p}: {same:.2%} of the neighbours are faiss's, place by place")
    elements = REFERENCES * WIDTH * len(queries) if p == 1 else 0
    return report(
        f"k-NN L{p}, {REFERENCES:,} × {WIDTH}, {len(queries)} queries", in_turn(calls, repeats), repeats, elements
    )


def five_fits(x: np.ndarray, y: np.ndarray) -> list[LogisticRegression]:
    """Fit scikit-learn's lbfgs at five strengths at its default tolerance, each started from the one before."""
    fits: list[LogisticRegression] = []
    for i in COMPARED:
        model = LogisticRegression(C=float(STRENGTHS[i]), warm_start=bool(fits))
        if fits:
            model.classes_ = fits[-1].classes_
            model.coef_, model.intercept_ = fits[-1].coef_.copy(), fits[-1].intercept_.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that it did not converge; the printed gap says how far
            fits.append(model.fit(x, y))
    return fits


def linear(rows: int, repeats: int) -> dict:
    """Compare our path of 40 strengths with five fits of scikit-learn."""
    x, y = synthetic(rows, 1024)
    standard = StandardScaler().fit_transform(x.numpy())
    last: dict = {}

    def ours(x: Tensor = x) -> None:
        last["ours"] = list(logistic_path(x, y, 10, STRENGTHS))

    def lbfgs() -> None:
        last["lbfgs"] = five_fits(standard, y.numpy())

    times = in_turn({"ours": ours, "scikit-learn lbfgs": lbfgs}, repeats)
    result = report(f"linear path, 40 strengths against 5 fits, {rows:,} × 1,024, ten classes", times, repeats)
    gaps = []
    for i, fit in zip(COMPARED, last["lbfgs"], strict=True):
        found = objective(standard, y.numpy(), fit.coef_, fit.intercept_, float(STRENGTHS[i]))
        gaps.append(found / last["ours"][i].objective - 1)
    estimated = max(solution.gap for solution in last["ours"])
    print(f"    relative gaps of lbfgs: {', '.join(f'{gap:.0e}' for gap in gaps)}; ours at most {estimated:.0e}")
    return result | {"lbfgs_gaps": gaps, "our_gap": estimated}


def manifold(repeats: int) -> dict:
    """Compare precision, recall, density and coverage with prdc's."""
    draw = torch.Generator().manual_seed(0)
    real, generated = (torch.randn(5000, WIDTH, generator=draw) + shift for shift in (0.0, 0.02))
    calls: dict[str, Callable] = {"ours": lambda: manifold_figures(generated, real, 5, 5)}
    if (prdc := optional("prdc", "compute_prdc")) is not None:
        calls["prdc"] = lambda: prdc(real.numpy(), generated.numpy(), 5)
        ours, theirs = vars(calls["ours"]()), calls["prdc"]()
        print(f"manifold: ours differs by {max(abs(ours[name] - theirs[name]) for name in theirs):.1e} at most")
    return report("precision, recall, density, coverage, 5,000 and 5,000 × 512", in_turn(calls, repeats), repeats)


def frechet(repeats: int) -> dict:
    """Compare the Fréchet distance of two sets of moments with those of pytorch-fid and torch-fidelity."""
    (m1, c1), (m2, c2) = ((x.mean(0), np.cov(x, rowvar=False)) for x in (features(4096, 2048, i) for i in (0, 1)))
    calls: dict[str, Callable] = {"ours": lambda: gaussian_distance(m1, c1, m2, c2)}
    if (pytorch_fid := optional("pytorch_fid.fid_score", "calculate_frechet_distance")) is not None:
        calls["pytorch-fid"] = lambda: pytorch_fid(m1, c1, m2, c2)
    if (torch_fidelity := optional("torch_fidelity.metric_fid", "fid_statistics_to_metric")) is not None:
        sides = [{"mu": m, "sigma": c} for m, c in ((m1, c1), (m2, c2))]
        calls["torch-fidelity"] = lambda: next(iter(torch_fidelity(*sides, False).values()))
    found = {name: float(call()) for name, call in calls.items()}
    print("Fréchet distance: " + ", ".join(f"{name} {value:.6f}" for name, value in found.items()))
    return report("Fréchet distance, 2,048 dimensions", in_turn(calls, repeats), repeats)


def optional(module: str, name: str):
    """Return a function of a package that may be absent; None, and a line that says so, without it."""
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        print(f"{module.split('.')[0]}: not installed, skipped")
        return None


def processor() -> str:
    """Return the processor's name and the number of cores, as Linux says it."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    amx = " with AMX" if " amx_tile" in text else ""
    return f"{name or 'unknown processor'}{amx}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS)
    parser.add_argument("--rows", nargs="+", type=int, default=[2000, 8000], help="of the linear path")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of ours and of all peers")
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    busy = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    print(f"{processor()}, {arguments.threads} threads{busy}", flush=True)
    if faiss is None:
        print("faiss: not installed, skipped")
    parts, results = arguments.parts or PARTS, []
    with threadpool_limits(arguments.threads):
        results += [knn(p, arguments.repeats, arguments.threads) for p in (2, 1) if f"knn_l{p}" in parts]
        results += [linear(rows, arguments.repeats) for rows in arguments.rows if "linear" in parts]
        results += [part(arguments.repeats) for part in (manifold, frechet) if part.__name__ in parts]
    if arguments.out:
        found = {"processor": processor(), "threads": arguments.threads, "rows": results}
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
