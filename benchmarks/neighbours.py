"""Measure the approximate index: `python benchmarks/neighbours.py [--rows 20000] [--width 256] [--queries 500]`.

Writes a folder of features as bigbigan-extract does: normal rows around 200 centres, whose spread in a direction falls
with its number, as that of principal components does. Prints the CPU time of making the index, and of the queries with
it and without; and recall@10, the share of the ten exact neighbours that the index finds.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa
import torch

import bigbigan
from benchmarks.rates import describe
from bigbigan.features import shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rows", 20_000), ("width", 256), ("queries", 500), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    o = parser.parse_args()
    print(f"{describe(torch.device('cpu'))}; {o.rows:,} rows of {o.width}, {o.queries} queries")
    rows = features(o.rows + o.queries, o.width)
    rows, queries = rows[o.queries :], rows[: o.queries]
    with tempfile.TemporaryDirectory() as name:
        write(Path(name) / "f", rows)
        for metric in ("l2", "cosine"):
            made, _ = timed(queries[:1], Path(name) / "f", metric, "hnsw")
            exact, index = [], []
            for _ in range(o.repeats):
                seconds, wanted = timed(queries, Path(name) / "f", metric, None)
                exact.append(seconds)
                seconds, found = timed(queries, Path(name) / "f", metric, "hnsw")
                index.append(seconds)
            pairs = zip(found.indices.tolist(), wanted.indices.tolist(), strict=True)
            recall = np.mean([len(set(a) & set(b)) / 10 for a, b in pairs])
            print(
                f"{metric}: recall@10 {recall:.4f}; index made in {made:.1f} s of CPU (once); all queries, n = "
                f"{o.repeats}: {spread(index)} s of CPU with it, {spread(exact)} s without"
            )


def features(rows: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    scale = 1 / np.sqrt(1 + np.arange(width))
    centres = rng.normal(size=(200, width)) * scale
    return (centres[rng.integers(200, size=rows)] + rng.normal(size=(rows, width)) * scale).astype(np.float32)


def write(folder: Path, rows: np.ndarray) -> None:
    manifest = shards.Manifest("m", "d", len(rows), "t", 8, None, ("z_mean",), "float32", 5000)
    shards.begin(folder, manifest)
    columns = shards.schema(manifest, {"z_mean": rows.shape[1]}, False, False)
    for k in range(manifest.shards):
        ids = np.asarray(manifest.span(k))
        cells = {"id": ids, "path": [f"{i}.png" for i in ids], "z_mean": shards.feature_column(rows[ids])}
        shards.write_shard(folder, manifest, k, columns, [pa.table(cells, schema=columns)], [])


def timed(queries: np.ndarray, folder: Path, metric: str, index: str | None):
    started = time.process_time()
    found = bigbigan.neighbours(queries, folder, 10, metric, index=index)
    return time.process_time() - started, found


def spread(values: list[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
