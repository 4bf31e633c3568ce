"""Find the nearest neighbours of queries among features of any number, exactly, in memory that does not grow.

Or, in a folder, nearly exactly by an index; see `approximate`.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bigbigan.errors import FeatureError, InputError
from bigbigan.features.approximate import candidates
from bigbigan.features.shards import check_complete, paths_of, read_manifest, read_rows
from bigbigan.files import expanded, printable
from bigbigan.metrics.neighbours import smallest, squared

CHUNK = 4096  # rows of features at a time
KEPT = 2**24  # numbers of the rows that are kept for queries, 128 MiB
TABLE = 2**22  # numbers of a table of distances at a time, 32 MiB in float64
SPARE = 8  # rows that are kept beyond k until their distances are computed without cancellation
METRICS = ("l2", "cosine", "l1_normalised")
Matrix: TypeAlias = np.ndarray | Tensor
Searched: TypeAlias = Matrix | str | os.PathLike[str]
log = logging.getLogger(__name__)


class Neighbours(NamedTuple):
    """Hold the nearest rows of each query, nearest first.

    distances: float64 (m, k).  indices: int64 (m, k), row numbers; of a folder the images' ids.  paths: of a folder, m
    lists of k paths; None otherwise.
    """

    distances: Tensor
    indices: Tensor
    paths: list[list[str | None]] | None


class _Chunk(NamedTuple):
    """Hold some features, float64 (n, C), with their ids (n,) and paths, or None."""

    values: Tensor
    ids: Tensor
    paths: list[str | None] | None


def search(
    query: Matrix, features: Searched, k: int, metric: str, output: str | None = None, index: str | None = None
) -> Neighbours:
    """Find the k nearest rows; arguments, results and errors as of `bigbigan.neighbours`."""
    if metric not in METRICS:
        raise InputError(f"metric: expected one of {', '.join(METRICS)}; found {printable(repr(metric))}")
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InputError(f"k: expected a whole number of at least 1, found {printable(repr(k))}")
    k = int(k)
    queries = _rows(query, "query")
    queries = _prepared(queries[None] if queries.ndim == 1 else queries, metric, "query")
    if index is not None:
        _check_index(index, features, metric)
    find = _search if index is None else _approximate
    rows = max(1, KEPT // ((k + SPARE) * queries.shape[1]))  # for each of these parts the features are read anew
    found = [find(part, features, k, metric, output) for part in torch.split(queries, rows)]
    paths = None if found[0].paths is None else [names for part in found for names in part.paths or ()]
    return Neighbours(torch.cat([f.distances for f in found]), torch.cat([f.indices for f in found]), paths)


def _search(queries: Tensor, features: Searched, k: int, metric: str, output: str | None) -> Neighbours:
    best = _Best(queries, k, metric)
    for chunk in _chunks(features, output):
        if chunk.values.shape[1] != queries.shape[1]:
            raise InputError(
                f"query: expected (m, {chunk.values.shape[1]}), as the features are, found {tuple(queries.shape)}"
            )
        best.add(chunk._replace(values=_prepared(chunk.values, metric, "features")))
    if best.seen < k:
        raise InputError(f"k: expected at most the number of features, {best.seen:,}, found {k}")
    return best.result()


def _check_index(index: str, features: Searched, metric: str) -> None:
    """Raise InputError for an index that is not known, or that cannot be kept or used."""
    if metric == "l1_normalised":
        raise InputError("index: expected the metric l2 or cosine, found l1_normalised; leave index out")
    if index != "hnsw":
        raise InputError(f"index: expected hnsw, or None for the exact search, found {printable(repr(index))}")
    if not isinstance(features, (str, os.PathLike)):
        raise InputError(
            f"index: expected None for {type(features).__name__}, since an index is kept in a folder that "
            "bigbigan-extract wrote; give the folder, or leave index out for the exact search"
        )


def _approximate(queries: Tensor, folder: Searched, k: int, metric: str, output: str | None) -> Neighbours:
    """Find the k nearest of the rows that the index of a folder offers, by their exact distances."""
    folder = _folder(folder)
    output, manifest = _output(folder, output), read_manifest(folder)
    check_complete(folder, manifest)
    ids, values = candidates(queries, folder, output, metric, k + SPARE)
    if ids.shape[1] < k:
        raise InputError(f"k: expected at most the number of features, {ids.shape[1]:,}, found {k}")
    if bool(((ids >= 0).sum(1) < k).any()):  # a graph that falls apart, as of many equal rows
        log.warning("%s: the index led to fewer than %d rows, so all were searched", printable(folder), k)
        return _search(queries, folder, k, metric, output)
    distances, chosen = _nearest(queries, ids, values, k, metric)
    paths = paths_of(folder, manifest, np.unique(chosen.numpy()))
    return Neighbours(distances, chosen, [[paths[i] for i in row] for row in chosen.tolist()])


def _nearest(queries: Tensor, ids: Tensor, values: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """Return distances and ids (m, k) of the nearest of some rows for each query, by a − b itself.

    queries: float64 (m, C).  ids: (m, c), −1 for none.  values: float64 (m, c, C), the rows.
    """
    apart = values - queries[:, None]
    exact = apart.abs().sum(2) if metric == "l1_normalised" else apart.square().sum(2)
    if metric == "cosine":  # ‖a − b‖² = ‖a‖² + ‖b‖² − 2 cos, with lengths of 1, or 0 for rows of zeros
        lengths = values.square().sum(2) + queries.square().sum(1, keepdim=True)
        exact = ((exact - lengths) / 2 + 1).clamp(min=0)
    exact = exact.masked_fill(ids < 0, torch.inf)
    by_id = ids.argsort(dim=1, stable=True)
    chosen = by_id.gather(1, exact.gather(1, by_id).argsort(dim=1, stable=True))[:, :k]
    distances = exact.gather(1, chosen)
    return distances.sqrt() if metric == "l2" else distances, ids.gather(1, chosen)


class _Best:
    """Keep the rows nearest to each of `queries`, float64 (m, C), among all that are added.

    More than k are kept, with their values, in the order of ‖b‖² − 2 a·b, or of the L1 distance itself: which of them
    are the nearest is decided by ‖a − b‖, in which nothing cancels where rows nearly coincide.
    """

    def __init__(self, queries: Tensor, k: int, metric: str):
        self.queries, self.k, self.metric, self.seen, self.named = queries, k, metric, 0, False
        self.origin: Tensor | None = None  # (C,), subtracted before products, in which large common parts would cancel
        m, kept = len(queries), k + SPARE
        self.order = queries.new_full((m, kept), torch.inf)
        self.values = queries.new_zeros(m, kept, queries.shape[1])
        self.ids = torch.full((m, kept), -1)
        self.paths: list[dict[int, str | None]] = [{} for _ in range(m)]

    def add(self, chunk: _Chunk) -> None:
        """Compare the rows of a chunk with the nearest so far, and keep those that are nearer."""
        self.seen += len(chunk.values)
        self.named = self.named or chunk.paths is not None
        k, (queries, values) = min(self.order.shape[1], len(chunk.values)), self._shifted(chunk.values)
        sizes = values.square().sum(1)
        if self.metric == "cosine":  # a row of zeros is ordered by its cosine, as the others are
            sizes += 1 - chunk.values.square().sum(1)
        table = _manhattan if self.metric == "l1_normalised" else squared
        parts = torch.split(queries, max(1, TABLE // len(values)))
        found = [smallest(table(part, values, sizes), k) for part in parts]
        order, at = torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])
        rows = (order[:, 0] < self.order[:, -1]).nonzero()[:, 0]  # ever fewer, so that little is copied
        if len(rows):
            self._replace(rows, order[rows], at[rows], chunk)

    def _shifted(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries and the rows of a chunk less the mean of the first chunk; for L1 as they are."""
        if self.metric == "l1_normalised":
            return self.queries, values
        if self.origin is None:
            self.origin = values.mean(0)
        return self.queries - self.origin, values - self.origin

    def _replace(self, rows: Tensor, order: Tensor, at: Tensor, chunk: _Chunk) -> None:
        """Update the nearest of the queries `rows`, (r,), by a chunk's: their order and places `at`, both (r, k)."""
        kept = self.order.shape[1]
        merged = torch.cat([self.order[rows], order], 1)
        chosen = merged.argsort(dim=1, stable=True)[:, :kept]
        fresh, old = chosen >= kept, chosen.clamp(max=kept - 1)
        new = at.gather(1, (chosen - kept).clamp(min=0))
        self.order[rows] = merged.gather(1, chosen)
        self.ids[rows] = torch.where(fresh, chunk.ids[new], self.ids[rows].gather(1, old))
        values = self.values[rows[:, None], old]
        values[fresh] = chunk.values[new[fresh]]
        self.values[rows] = values
        if chunk.paths is not None:
            for row, ids, places, is_new in zip(*(x.tolist() for x in (rows, self.ids[rows], new, fresh)), strict=True):
                before = self.paths[row]
                triples = zip(ids, places, is_new, strict=True)
                self.paths[row] = {i: chunk.paths[place] if n else before.get(i) for i, place, n in triples}

    def result(self) -> Neighbours:
        """Return the k nearest rows of all."""
        distances, ids = _nearest(self.queries, self.ids, self.values, self.k, self.metric)
        if not self.named:
            return Neighbours(distances, ids, None)
        paths = [[known[i] for i in row] for known, row in zip(self.paths, ids.tolist(), strict=True)]
        return Neighbours(distances, ids, paths)


def _folder(path: Searched) -> Path:
    return expanded(cast(str, path))


def _manhattan(a: Tensor, b: Tensor, _sizes: Tensor) -> Tensor:
    """Return the L1 distances of rows a (m, C) and b (n, C), (m, n)."""
    return torch.cdist(a, b, p=1)


def _chunks(features: Searched, output: str | None) -> Iterator[_Chunk]:
    """Yield features some rows at a time. Raises InputError or FeatureError."""
    if isinstance(features, (str, os.PathLike)):
        folder = _folder(features)
        for some in read_rows(folder, _output(folder, output), CHUNK):
            yield _Chunk(_double(some.values), torch.from_numpy(some.ids.copy()), some.paths)
        return
    rows = _rows(features, "features")
    if rows.ndim != 2:
        raise InputError(f"features: expected the shape (n, C), found {tuple(rows.shape)}")
    if output is not None:
        raise InputError(f"output: expected None for an array, found {printable(repr(output))}")
    for first in range(0, len(rows), CHUNK):
        values = _double(rows[first : first + CHUNK])
        yield _Chunk(values, torch.arange(first, first + len(values)), None)


def _double(rows: Matrix) -> Tensor:
    """Return a copy of rows as float64 on the CPU."""
    if isinstance(rows, Tensor):
        return rows.detach().to("cpu", torch.float64)
    return torch.from_numpy(rows.astype(np.float64))


def _output(folder: Path, output: str | None) -> str:
    """Return the feature of a folder to search. Raises FeatureError."""
    there = read_manifest(folder).outputs
    if output is None and len(there) == 1:
        return there[0]
    if output not in there:
        raise FeatureError(
            f"output: expected one of {', '.join(there)}, of {printable(folder)}, found {printable(repr(output))}"
        )
    return output


def _rows(values: object, name: str) -> Matrix:
    """Return what a caller gave for rows of real numbers, as it is. Raises InputError."""
    expected = f"{name}: expected an array or a tensor of features"
    if isinstance(values, dict):
        raise InputError(f"{expected}, found a dictionary; give one of its values, {', '.join(map(str, values))}")
    if not isinstance(values, (np.ndarray, Tensor)):
        raise InputError(f"{expected}{', or a folder' * (name == 'features')}, found {type(values).__name__}")
    if np.ma.is_masked(values):
        raise InputError(f"{expected}, found masked values; fill them, or leave their rows out")
    real = values.is_floating_point() if isinstance(values, Tensor) else values.dtype.kind == "f"
    if not real or values.ndim not in (1, 2) or 0 in values.shape:
        raise InputError(
            f"{expected}, of floats and the shape (n, C), found {values.dtype} of the shape {tuple(values.shape)}"
        )
    return values


def _prepared(values: Matrix, metric: str, name: str) -> Tensor:
    """Return rows as float64 on the CPU, of norm 1 but for l2. Raises InputError for what is not finite."""
    values = _double(values)
    if not bool(values.isfinite().all()):
        raise InputError(f"{name}: expected finite numbers, found NaN or infinity")
    norms = {"cosine": 2, "l1_normalised": 1}
    return F.normalize(values, p=norms[metric], dim=1, eps=1e-300) if metric in norms else values
