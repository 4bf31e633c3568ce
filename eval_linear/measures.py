"""Measure a representation by each protocol, and gather its figures over seeds and initialisations."""

import statistics
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from bigbigan.data import spread
from eval_linear.clusters import cluster
from eval_linear.features import augmented
from eval_linear.knn import PAPER_K, TEMPERATURE, WEIGHTED_K, paper_knn, weighted_knn
from eval_linear.linear.adam import BATCH, PROTOCOLS
from eval_linear.linear.solvers import LinearFit, fit_adam, fit_linear
from eval_linear.representations import Representation, Splits, few_labels
from eval_linear.result import Confusion, Figure, Row

CROPS = {
    "none": "centre crop",
    "light": "light random crops",
    "resnet": "torchvision's random crops",
    "tf_resnet": "the paper's random crops",
}


class Rows:
    """Gather figures by (encoder, feature, protocol, share of labels), and yield a `Row` of each.

    A row has the mean, the standard deviation and the number of fits of each figure.
    """

    def __init__(self):
        self.found: dict[tuple, dict] = {}
        self.confusion: Confusion | None = None

    def add(
        self,
        r: Representation,
        protocol: str,
        figures: dict[str, float | None],
        labels: float = 1.0,
        fit=None,
        labelled_images: int | None = None,
    ) -> None:
        """Add one fit's figures to its row.

        fit: a LinearFit, whose strength, convergence and accuracies of single classes the row keeps.  labelled_images:
        how many training images it was fitted on.
        """
        key = (r.encoder, r.feature, protocol, labels)
        row = self.found.setdefault(key, {"figures": {}, "strengths": [], "converged": True, "per_class": []})
        row["labelled_images"] = labelled_images
        for name, value in figures.items():
            if value is not None:
                row["figures"].setdefault(name, []).append(float(value))
        if fit is not None:
            row["strengths"].append(fit.strength)
            row["converged"] &= fit.converged
            row["per_class"].append(fit.per_class)
            if self.confusion is None and r.encoder == "trained" and labels == 1:
                self.confusion = Confusion(f"{r.feature}, {protocol}", fit.confusion.tolist())

    def __iter__(self) -> Iterator[Row]:
        for (encoder, feature, protocol, labels), found in self.found.items():
            row = Row(encoder, feature, protocol, labels)
            row.figures = {name: _over_fits(values) for name, values in found["figures"].items()}
            row.labelled_images = found["labelled_images"]
            if found["strengths"]:
                row.strengths, row.converged = found["strengths"], found["converged"]
            if found["per_class"]:
                row.per_class = _class_means(found["per_class"])
            yield row


def _over_fits(values: list[float]) -> Figure:
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Figure(statistics.mean(values), sd, len(values))


def _class_means(fits: list[list[float | None]]) -> list[float | None]:
    return [None if None in column else statistics.mean(column) for column in zip(*fits, strict=True)]


def linear(
    rows: Rows,
    r: Representation,
    splits: Splits,
    protocol: str,
    share: float,
    seed: int,
    *,
    augment: str,
    batch_size: int,
) -> LinearFit:
    """Fit one linear classifier: "full_batch", or "adam_5k" / "adam_100k" (`adam.PROTOCOLS`).

    augment: the crops that the Adam protocols train on; they are also flipped where E's training images were.
    Pixels have no encoder for random crops to pass through; they keep the centre crop, and their row says so.
    """
    some = few_labels(r.y, share, seed)
    x, y = r.x[some], r.y[some]
    if protocol == "full_batch":
        fit, name = fit_linear(x, y, r.x_test, r.y_test, splits.classes, seed), f"linear, full batch, {CROPS['none']}"
    else:
        random = augment != "none" and r.network is not None
        batches = random_crops(r, splits, some, augment, seed, batch_size) if random else None
        fit = fit_adam(protocol, x, y, r.x_test, r.y_test, splits.classes, seed=seed, batches=batches)
        steps, rates = PROTOCOLS[protocol]
        swept = f"rate of {len(rates)} chosen on held-out images" if len(rates) > 1 else f"rate {rates[0]:g}"
        flips = "" if r.flip or not random else " without flips"
        name = f"linear, Adam {steps:,} steps, {swept}, {CROPS[augment if random else 'none']}{flips}"
    rows.add(r, name, {"top1": fit.top1, "top5": fit.top5}, share, fit, len(some))
    return fit


def random_crops(
    r: Representation, splits: Splits, some: Tensor, augment: str, seed: int, batch_size: int
) -> Callable[[np.ndarray], Iterator[tuple[Tensor, Tensor]]]:
    """Return for `fit_adam` a function from rows to fit on to endless features of new random crops of their images."""

    def batches(fit: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        images = splits.train.subset(r.indices[some.numpy()[fit]])
        size = min(BATCH, len(images))
        stream = augmented(r.network, images, (r.name,), augment, seed, size, step=batch_size, flip=r.flip)
        return ((features[r.name], labels) for features, labels in stream)

    return batches


def knn(rows: Rows, r: Representation, classes: int, queries: int) -> None:
    """Measure the paper's two distances at its four k, and weighted cosine.

    queries: how many test images to take, spread over the split; 0 for all.
    """
    at = torch.from_numpy(spread(len(r.x_test), queries))
    x_test, y_test = r.x_test[at], r.y_test[at]
    for p in (1, 2):
        found = paper_knn(r.x, r.y, x_test, classes, p)
        figures = {f"top1, k = {k}": float((found[k] == y_test).cpu().double().mean()) for k in PAPER_K}
        rows.add(r, f"k-NN, L{p} of L{p}-normalised, majority, {len(at):,} queries", figures)
    scores = weighted_knn(r.x, r.y, x_test, classes)
    name = f"k-NN, cosine, weighted (k = {WEIGHTED_K}, T = {TEMPERATURE}), {len(at):,} queries"
    rows.add(r, name, {"top1": float((scores.argmax(1) == y_test).cpu().double().mean())})


def kmeans(rows: Rows, r: Representation, classes: int, seed: int) -> None:
    """Compare as many clusters of the training images as there are classes with their labels."""
    rows.add(r, f"k-means, {classes} clusters of the training images", cluster(r.x.numpy(), r.y.numpy(), classes, seed))


def majority(rows: Rows, splits: Splits) -> None:
    """Add to each protocol what always naming the most frequent training class gives, or one cluster of everything."""
    counts = np.bincount(splits.train.labels)
    shares = {
        "top1": float((splits.test.labels == counts.argmax()).mean()),
        "accuracy": float(counts.max() / counts.sum()),
        "nmi": 0.0,
    }
    nobody = Representation("none", "majority class", *[torch.empty(0)] * 4)
    named = {(protocol, labels): row["figures"] for (_, _, protocol, labels), row in rows.found.items()}
    for (protocol, labels), figures in named.items():
        found = {name: shares[name.split(",")[0]] for name in figures if name.split(",")[0] in shares}
        rows.add(nobody, protocol, found, labels)
