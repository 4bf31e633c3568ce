"""Compare k-means clusters of frozen features with labels that the clustering never saw."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.metrics import normalized_mutual_info_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

SMALL = 20_000  # rows up to which Lloyd's algorithm is run on all of them


def cluster(x: np.ndarray, y: np.ndarray, classes: int, seed: int) -> dict[str, float]:
    """Return {"nmi", "accuracy"} of k-means clusters of features x (n, C) against labels y (n,), both in [0, 1].

    Features are standardised, and there are as many clusters as classes.

    accuracy: under the best one-to-one assignment of clusters to classes (Hungarian method).
    """
    return agreement(y, fit_clusters(x, classes, seed).predict(x))


def fit_clusters(x: np.ndarray, clusters: int, seed: int) -> Pipeline:
    """Fit k-means to standardised features x (n, C), the best of three starts.

    The `predict` of what is returned takes features of other images too.
    """
    kind = KMeans if len(x) <= SMALL else MiniBatchKMeans
    extra = {} if kind is KMeans else {"batch_size": 4096}
    return make_pipeline(StandardScaler(), kind(clusters, n_init=3, random_state=seed, **extra)).fit(x)


def agreement(y: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Return {"nmi", "accuracy"} of clusters (n,) against classes y (n,), see `cluster`."""
    return {"nmi": float(normalized_mutual_info_score(y, clusters)), "accuracy": clustering_accuracy(y, clusters)}


def clustering_accuracy(y: np.ndarray, clusters: np.ndarray) -> float:
    """Return the share of rows whose cluster is assigned to their class, under the assignment that makes it largest."""
    size = int(max(y.max(), clusters.max())) + 1
    table = np.zeros((size, size), np.int64)
    np.add.at(table, (clusters, y), 1)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(y))
