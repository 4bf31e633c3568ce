"""bigbigan.neighbours is exact: it equals scikit-learn's brute force, in chunks of any size, and from files."""

import importlib.util
import sys
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

import bigbigan
from bigbigan.errors import FeatureError, InputError
from bigbigan.features import approximate, search, shards


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """More rows than two chunks have, far from the origin, so that products cancel."""
    return np.random.default_rng(0).normal(3, 1, (2 * search.CHUNK + 500, 16)).astype(np.float32)


def expected(query, rows, k, metric):
    names = {"l2": "euclidean", "l1_normalised": "manhattan"}
    known = NearestNeighbors(n_neighbors=k, metric=names.get(metric, metric), algorithm="brute")
    query, rows = query.astype(np.float64), rows.astype(np.float64)
    if metric == "l1_normalised":
        query, rows = normalize(query, "l1"), normalize(rows, "l1")
    return known.fit(rows).kneighbors(query)


@pytest.mark.parametrize("metric", ["l2", "cosine", "l1_normalised"])
@pytest.mark.parametrize("kept", [search.KEPT, 1000])  # the latter: parts of a few queries
@pytest.mark.parametrize("k", [1, 10])
def test_it_equals_scikit_learn(rows, metric, kept, k, monkeypatch):
    monkeypatch.setattr(search, "KEPT", kept)
    query = np.random.default_rng(1).normal(3, 1, (30, 16)).astype(np.float32)
    distances, indices = expected(query, rows, k, metric)
    for features in (rows, torch.from_numpy(rows)):
        found = bigbigan.neighbours(query, features, k, metric)
        assert np.array_equal(found.indices, indices) and found.paths is None
        np.testing.assert_allclose(found.distances, distances, rtol=1e-9, atol=1e-12)
    one = bigbigan.neighbours(query[0], rows, k, metric)
    assert torch.equal(one.indices, found.indices[:1])


def test_rows_that_nearly_coincide_keep_their_order():
    base = np.full((1, 32), 1000.0)
    steps = np.arange(12)[::-1, None] * 1e-9  # the squares of distances are lost in ‖b‖² − 2 a·b
    rows = base + steps * np.ones((1, 32))
    found = bigbigan.neighbours(base, rows, 12)
    assert found.indices.tolist() == [list(range(12))[::-1]] and float(found.distances[0, 0]) == 0
    np.testing.assert_allclose(found.distances[0], steps[::-1, 0] * np.sqrt(32), rtol=1e-3)
    same = bigbigan.neighbours(np.ones((1, 4)), np.ones((9, 4)), 9)
    assert same.indices.tolist() == [list(range(9))]


def folder_of(path, rows, names: list[str | None], left_out: set[int], outputs=("z_mean",), dtype="float32"):
    """Write a folder as bigbigan-extract does, without the images of `left_out`."""
    manifest = shards.Manifest("m", "d", len(rows), "t", 8, None, outputs, dtype, 1000)
    shards.begin(path, manifest)
    columns = shards.schema(manifest, dict.fromkeys(outputs, rows.shape[1]), False, False)
    for k in range(manifest.shards):
        ids = [i for i in manifest.span(k) if i not in left_out]
        gone = [shards.Unread(i, names[i], "why") for i in manifest.span(k) if i in left_out]
        values = dict.fromkeys(outputs, shards.feature_column(rows[ids].astype(dtype)))
        table = shards.pa.table({"id": ids, "path": [names[i] for i in ids], **values}, schema=columns)
        shards.write_shard(path, manifest, k, columns, [table], gone)
    return manifest


def test_a_row_finds_itself_among_many_near_duplicates():
    """More of them than are kept beyond k, so that the order by products must hold."""
    random = np.random.default_rng(0)
    alike = np.repeat(random.normal(0, 1, (1, 2048)) * 3, 200, 0)
    alike[range(200), range(200)] = np.nextafter(alike[0, :200], np.inf)
    far = 1e6 + random.normal(0, 1e-3, (5000, 16))
    for rows in (alike, far):
        found = bigbigan.neighbours(rows[:200], rows, np.int64(2))
        assert np.array_equal(found.indices[:, 0], np.arange(200)) and not found.distances[:, 0].any()
    masked = np.ma.masked_less(far, 1e6)
    for query, features in ((masked, far), (far, masked)):
        with pytest.raises(InputError, match="found masked values; fill them"):
            bigbigan.neighbours(query, features, 1)


def test_a_folder_is_searched_by_its_ids_and_paths(rows, tmp_path):
    names = [None if i % 7 == 3 else f"{i}.png" for i in range(len(rows))]
    left_out = {0, 1, 999, 1000, 5000}
    folder_of(tmp_path / "f", rows, names, left_out)
    there = np.asarray([i for i in range(len(rows)) if i not in left_out])
    distances, places = expected(rows[:20], rows[there], 5, "l2")
    found = bigbigan.neighbours(rows[:20], tmp_path / "f", 5)
    assert np.array_equal(found.indices, there[places])
    np.testing.assert_allclose(found.distances, distances, rtol=1e-9, atol=1e-6)
    assert found.paths == [[names[i] for i in row] for row in found.indices.tolist()]
    half = rows.astype(np.float16)
    folder_of(tmp_path / "h", rows, names, set(), ("z_mean", "z_stdev"), "float16")
    found = bigbigan.neighbours(half[:20], str(tmp_path / "h"), 5, "cosine", output="z_stdev")
    assert np.array_equal(found.indices, expected(half[:20], half, 5, "cosine")[1])
    with pytest.raises(FeatureError, match="output: expected one of z_mean, z_stdev, of .*, found None"):
        bigbigan.neighbours(half[:2], tmp_path / "h")


def test_a_row_of_zeros_has_cosine_0_with_all():
    rows = np.array([[0.0, 0.0], [0.4, 0.9], [-1.0, 0.1], [0.0, 0.0], [1.0, 0.1]])
    found = bigbigan.neighbours(np.array([[2.0, 0.0], [0.0, 0.0]]), rows, 5, "cosine")
    assert found.indices.tolist() == [[4, 1, 0, 3, 2], [0, 1, 2, 3, 4]]
    cosines = np.array([1 / 1.01**0.5, 0.4 / 0.97**0.5, 0, 0, -1 / 1.01**0.5])
    np.testing.assert_allclose(found.distances, [1 - cosines, np.ones(5)], rtol=1e-12)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_an_index_finds_nearly_all_and_is_made_once(rows, tmp_path, metric, monkeypatch):
    pytest.importorskip("faiss")
    names = [None if i % 7 == 3 else f"{i}.png" for i in range(len(rows))]
    manifest = folder_of(tmp_path / "f", rows, names, {0, 1, 999, 1000, 5000})
    query = np.random.default_rng(1).normal(3, 1, (200, 16)).astype(np.float32)
    exact = bigbigan.neighbours(query, tmp_path / "f", 10, metric)
    found = bigbigan.neighbours(query, tmp_path / "f", 10, metric, index="hnsw")
    pairs = zip(found.indices.tolist(), exact.indices.tolist(), strict=True)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in pairs])
    print(f"recall@10 of 200 queries among {len(rows):,} rows, {metric}: {recall:.4f}")
    assert recall > 0.98
    same = found.indices == exact.indices
    np.testing.assert_allclose(found.distances[same], exact.distances[same], rtol=1e-6, atol=1e-7)
    assert (found.distances.diff(dim=1) >= 0).all()
    assert found.paths == [[names[i] for i in row] for row in found.indices.tolist()]
    (kept,) = (tmp_path / "f").glob("_hnsw-*")
    assert kept.name == f"_hnsw-z_mean-{metric}-{manifest.key()[:12]}.faiss"
    assert len(pd.read_parquet(tmp_path / "f", columns=["id"])) == len(rows) - 5
    with monkeypatch.context() as patch:
        patch.setattr(approximate, "_build", None)
        again = bigbigan.neighbours(query[0], tmp_path / "f", 10, metric, index="hnsw")
    assert torch.equal(again.indices[0], found.indices[0])


def test_an_index_of_few_equal_rows_and_of_another_extraction(tmp_path):
    pytest.importorskip("faiss")
    rows = np.ones((600, 4), np.float32)
    folder_of(tmp_path / "f", rows, [None] * 600, set())
    found = bigbigan.neighbours(rows[:1], tmp_path / "f", 5, index="hnsw")
    assert found.distances.tolist() == [[0.0] * 5] and len(set(found.indices[0].tolist())) == 5
    (kept,) = (tmp_path / "f").glob("_hnsw-*")
    other = kept.with_name("_hnsw-z_mean-l2-0123456789ab.faiss")
    kept.rename(other)
    bigbigan.neighbours(rows[:1], tmp_path / "f", 5, index="hnsw")
    assert list((tmp_path / "f").glob("_hnsw-*")) == [kept]
    kept.write_bytes(kept.read_bytes()[:200])
    with pytest.raises(FeatureError, match="expected a readable index, .*; delete it, and it is made anew"):
        bigbigan.neighbours(rows[:1], tmp_path / "f", 5, index="hnsw")


def test_what_it_cannot_search_is_a_sentence(rows, tmp_path):
    def refused(words, query=rows[:2], features=rows, error=InputError, **options):
        with pytest.raises(error, match=words) as found:
            bigbigan.neighbours(query, features, **options)
        assert "\n" not in str(found.value)

    refused("metric: expected one of l2, cosine, l1_normalised; found 'l1'", metric="l1")
    refused("k: expected a whole number", k=0)
    refused("k: expected at most the number of features, 3, found 4", features=rows[:3], k=4)
    refused(r"query: expected \(m, 16\), as the features are, found \(2, 8\)", query=rows[:2, :8])
    refused("features: expected finite numbers", features=np.where(np.arange(16) == 3, np.nan, rows[:9]), k=1)
    refused("query: expected finite numbers", query=np.full((1, 16), np.inf, np.float32))
    refused("features: .*found a dictionary; give one of its values, z_mean", features={"z_mean": rows})
    refused("features: .*found list", features=[1, 2])
    refused("query: .*found int64", query=np.arange(16))
    refused("output: expected None", output="z_mean")
    refused("found no readable _manifest.json", features=tmp_path, error=FeatureError)
    refused("index: expected None for ndarray, since an index is kept in a folder", index="hnsw")
    refused("index: expected hnsw, or None for the exact search, found 'ivf'", index="ivf")
    names = [None] * len(rows)
    manifest = folder_of(tmp_path / "f", rows, names, set())
    with mock.patch.dict(sys.modules, {"faiss": None}):
        words = r'expected the package faiss-cpu, found none; pip install "bigbigan\[index\]", or leave index out'
        refused(words, features=tmp_path / "f", index="hnsw", error=FeatureError)
    if importlib.util.find_spec("faiss"):
        refused(
            "k: expected at most the number of features, 8,692, found 9000",
            features=tmp_path / "f",
            index="hnsw",
            k=9000,
        )
        refused(r"query: expected \(m, 16\)", query=rows[:2, :8], features=tmp_path / "f", index="hnsw")
    (tmp_path / "f" / manifest.name(3)).unlink()
    refused("expected all 9 files of the extraction, found 8", features=tmp_path / "f", error=FeatureError)
    (tmp_path / "f" / manifest.name(3)).write_bytes(b"no table")
    refused("expected a readable Parquet file", features=tmp_path / "f", error=FeatureError)
