"""Find the images of a collection that are most like a query, by E's features (BigBiGAN, appendix C).

    python -m bigbigan.uses.retrieval digits --out retrieval.png

The paper compares AvePool features, each divided by its L1 norm, by their L1 distance.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

if __name__ == "__main__":  # before torch is loaded
    from bigbigan.config.command import prepare_process

    prepare_process()

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from bigbigan.api import check_seed, encode, grid, neighbours
from bigbigan.config.bounds import AtLeastOne, Bounds, NotNegative, check_argument
from bigbigan.distributed.device import default_on_cpu
from bigbigan.errors import InputError
from bigbigan.features.search import Neighbours
from bigbigan.model import BigBiGAN
from bigbigan.uses.arguments import labels_of, numbers, picture_values, signed_values
from bigbigan.uses.backbones import backbone
from bigbigan.uses.command_line import (
    UseOptions,
    bar,
    device_of,
    open_data,
    read_images,
    ready,
    run_command,
    write_picture,
)

METRIC = "l1_normalised"
TABLE = 2**22  # distances at a time, 32 MiB
BATCH = 64


@default_on_cpu()
def retrieve(
    model: BigBiGAN, queries: Tensor, gallery: Tensor, k: int = 10, output: str = "avepool_feat"
) -> Neighbours:
    """Find the k images of the gallery nearest to each query: (distances, indices), (m, k) each, nearest first.

    queries, gallery: (m, 3, S, S) and (n, 3, S, S) in [−1, 1], as `bigbigan.as_tensor` returns images.
    output: the feature to compare, one of those of `bigbigan.encode`.
    The distance is Σ|a/‖a‖₁ − b/‖b‖₁|, 0 to 2. A collection of millions is encoded once, by `bigbigan-extract`, and
    searched with `bigbigan.neighbours(..., metric="l1_normalised")`.  Raises InputError.
    """
    images = signed_values(queries, "queries"), signed_values(gallery, "gallery")
    rows = [encode(x, model, output, value_range=(-1, 1), progress=False) for x in images]
    return neighbours(*rows, k, METRIC)


class Retrieved(NamedTuple):
    """Hold how good rankings are, of all queries and by class.

    precision: the mean share of the k nearest that have the query's class.  mean_ap: mean average precision of the
    ranking of the whole gallery.  by_class: (precision, mean_ap) of each class, (K, 2), NaN for one without queries.
    """

    precision: float
    mean_ap: float
    by_class: np.ndarray


@default_on_cpu()
def measure(
    queries: Tensor, query_labels: Tensor, gallery: Tensor, gallery_labels: Tensor, k: int = 10, p: int = 1
) -> Retrieved:
    """Measure the rankings of the gallery by d_p(a, b) = ‖a/‖a‖_p − b/‖b‖_p‖_p: precision@k and mAP.

    p: 1 or 2, the two distances of BigBiGAN, appendix C.
    queries (m, C), gallery (n, C): features or pixels.  query_labels (m,), gallery_labels (n,): their classes, from 0.
    Queries whose class is unknown (−1) or not in the gallery are left out.  k: at most n.  Raises InputError.
    A chance ranking has both figures near the share of the class in the gallery.
    """
    queries, gallery = numbers(queries, "(m, C)", "queries"), numbers(gallery, "(n, C)", "gallery")
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        found = f"{tuple(queries.shape)} and {tuple(gallery.shape)}"
        raise InputError(f"expected queries (m, C) and a gallery (n, C), found {found}")
    query_labels = labels_of(query_labels, len(queries), "query_labels")
    gallery_labels = labels_of(gallery_labels, len(gallery), "gallery_labels")
    check_argument("k", k, Annotated[int, Bounds(least=1, most=len(gallery))])
    check_argument("p", p, Annotated[int, Bounds(least=1, most=2)])
    there = torch.isin(query_labels, gallery_labels) & (query_labels >= 0)
    if not there.any():
        raise InputError("expected queries of classes that the gallery has, found none")
    queries, query_labels = queries[there.to(queries.device)], query_labels[there]
    ours, others = (F.normalize(rows.cpu().double(), p=p, dim=1) for rows in (queries, gallery))
    figures = []
    step = max(1, TABLE // len(others))
    for part, labels in zip(ours.split(step), query_labels.split(step), strict=True):
        table = torch.cdist(part, others, p=p)
        right = gallery_labels[table.argsort(dim=1, stable=True)[:, :k]] == labels[:, None]
        relevant = gallery_labels == labels[:, None]
        found = [average_precision_score(r, -d) for r, d in zip(relevant.numpy(), table.numpy(), strict=True)]
        figures.append(np.stack([right.double().mean(1).numpy(), np.asarray(found)], axis=1))
    figures = np.concatenate(figures)
    classes = int(max(query_labels.max(), gallery_labels.max())) + 1
    by_class = np.full((classes, 2), np.nan)
    for c in query_labels.unique().tolist():
        by_class[c] = figures[query_labels.numpy() == c].mean(0)
    return Retrieved(*figures.mean(0).tolist(), by_class)


@default_on_cpu()
def untrained_features(model: BigBiGAN, train: Tensor, parts: tuple[Tensor, ...], seed: int = 0) -> list[Tensor]:
    """Return AvePool features (n, C) of images by the same encoder with random weights: what training did not teach.

    train: images (n, 3, S, S) whose statistics its batch norms take.  parts: images, (n, 3, S, S) each.
    Raises InputError for a model of your own networks, which cannot be built anew.
    """
    encoder = model.require("encoder")
    if model.config is None:
        raise InputError("model: expected one of this library's networks, which can be built anew; found your own")
    check_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        fresh = BigBiGAN.from_config(model.config, parts=("encoder",))
    if hasattr(encoder.trunk, "level"):  # of a network that grows
        fresh.encoder.trunk.level = encoder.trunk.level
    size = encoder.image_size
    train, *parts = (picture_values(x, size, name) for x, name in ((train, "train"), *((x, "parts") for x in parts)))
    device = device_of(model)
    network = backbone(fresh, trainable=True).to(device).train()
    for norm in (layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)):
        norm.momentum = None  # the plain mean of the batches' statistics
    with torch.no_grad():
        for part in train.split(BATCH):
            if len(part) > 1:
                network(part.to(device).float())
        network.eval()
        return [torch.cat([network(some.to(device).float()).cpu() for some in x.split(BATCH)]) for x in parts]


@dataclass
class Retrieval(UseOptions):
    """Draw queries beside their nearest images, and print precision@k and mAP beside pixels and an untrained encoder.

    Held-out images are the queries, training images the gallery.
    """

    k: AtLeastOne = 10
    """Neighbours that precision counts."""
    gallery: AtLeastOne = 10_000
    """Images of the gallery, at most, drawn at random."""
    queries: AtLeastOne = 1_000
    """Queries, at most, drawn at random."""
    out: Path = Path("retrieval.png")
    """The picture: each row is a query, then its nearest images, nearest first."""
    rows: AtLeastOne = 8
    """Queries in the picture."""
    untrained: NotNegative = 3
    """Untrained encoders, with the seeds 1, 2, ..., that are measured for comparison."""


def main(argv: list[str] | None = None) -> None:
    """Run the command; the exit status is 0, or that of an error."""
    run_command(Retrieval, run, "retrieval", argv)


def run(options: Retrieval) -> str:
    """Write the picture and return the figures as text."""
    model = ready(options.model, options.device or None)
    train, test = open_data(options.data, model)
    size = model.require("encoder").image_size
    gallery, y = read_images(train, size, options.gallery)
    queries, y_test = read_images(test, size, options.queries)
    if options.k > len(gallery):
        raise InputError(f"--k {options.k}: expected at most the images of the gallery, {len(gallery)}")
    shown = queries[: options.rows]
    found = retrieve(model, shown, gallery, options.k)
    tiles = torch.cat([shown[:, None], gallery[found.indices]], dim=1)
    picture = write_picture(grid(tiles.flatten(0, 1), columns=tiles.shape[1]), options.out)
    end = f"{len(queries):,} queries, {len(gallery):,} images in the gallery; picture: {picture}"
    if y is None or y_test is None:
        return f"no labels: no figures\n{end}"
    return "\n".join([*_table(options, model, (queries, y_test, gallery, y), train.class_names), end])


def _table(options: Retrieval, model: BigBiGAN, images: tuple[Tensor, ...], names: list[str]) -> list[str]:
    """Return the lines of precision@k and mAP by representation, and of AvePool by class."""
    queries, y_test, gallery, y = images
    seen = sys.stderr.isatty()
    features = [encode(x, model, "avepool_feat", value_range=(-1, 1), progress=seen) for x in (queries, gallery)]
    pixels = [(1 + model.for_discriminator(x).flatten(1)) / 2 for x in (queries, gallery)]

    def measured(rows: list[Tensor], p: int) -> Retrieved:
        return measure(rows[0], y_test, rows[1], y, options.k, p)

    results = {f"AvePool, d{p}": [measured(features, p)] for p in (1, 2)}
    if model.config is not None and options.untrained:
        fresh = []
        with bar(options.untrained, "untrained encoders", "encoder") as shown:
            for seed in range(options.untrained):
                fresh.append(untrained_features(model, gallery, (queries, gallery), seed + 1))
                shown.update()
        results["untrained AvePool, d1"] = [measured(rows, 1) for rows in fresh]
    results |= {f"pixels, d{p}": [measured(pixels, p)] for p in (1, 2)}
    lines = [f"{'':<24}{f'precision@{options.k}, %':>18}{'mAP, %':>16}"]
    for name, found in results.items():
        values = 100 * np.array([result[:2] for result in found])
        ends = [f" ± {sd:.1f}" for sd in values.std(0, ddof=1)] if len(values) > 1 else ["", ""]
        cells = [f"{mean:.1f}{end}" for mean, end in zip(values.mean(0), ends, strict=True)]
        lines.append(f"{name:<24}{cells[0]:>18}{cells[1]:>16}")
    if options.untrained > 1 and model.config is not None:
        lines.append(f"untrained: mean ± standard deviation of {options.untrained} encoders")
    lines += ["", f"{'AvePool, d1, by class':<24}{f'precision@{options.k}, %':>18}{'mAP, %':>16}"]
    by_class = results["AvePool, d1"][0].by_class
    return lines + [f"{n:<24}{100 * p:>18.1f}{100 * m:>16.1f}" for n, (p, m) in zip(names, by_class, strict=False)]


if __name__ == "__main__":
    main()
