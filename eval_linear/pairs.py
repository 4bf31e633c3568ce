"""Measure and draw encoder and generator together: reconstruction, round trip, neighbours, interpolation, D."""

import numpy as np
import torch
from torch import Tensor

from bigbigan.data import Images, evaluation_batches, spread, to_signed
from bigbigan.metrics.bidirectional import (
    decision_boundary,
    encoder_pair_scores,
    fit_to,
    round_trip,
    scored_as_encoder_pairs,
    there_and_back,
    with_baseline,
)
from bigbigan.metrics.neighbours import memorisation
from bigbigan.model import BigBiGAN
from bigbigan.noise import normal_noise
from eval_linear.features import features_of, raw_pixels
from eval_linear.representations import Splits
from eval_linear.result import PairFigure
from eval_linear.sheets import ROWS, Sheets, filters, interpolations, neighbours

LIMIT = 2048  # images and latents that the figures look at
REFERENCE = 20_000  # training images that neighbours are sought among


def bidirectional(
    model: BigBiGAN, splits: Splits, batch_size: int, sheets: Sheets | None, seed: int = 0
) -> list[PairFigure]:
    """Measure encoder and generator together, and draw the sheets where there is a place for them.

    AvePool features that `splits.trained` has are not computed again.
    """
    x, classes = _read(model, splits.test, LIMIT, batch_size)
    seen, seen_classes = _read(model, splits.train, LIMIT, batch_size)
    if len(x) < 2:
        return []
    noise = normal_noise(seed, "there and back", np.arange(len(x)), model.encoder.latent_dim).split(batch_size)
    parts = [
        there_and_back(model, part, some.to(part.device), labels)
        for (part, labels), some in zip(_batches(model, x, classes, batch_size), noise, strict=True)
    ]
    back = {name: torch.cat([part[name].float().cpu() for part in parts]) for name in parts[0]}
    z, z_back, samples = round_trip(model, LIMIT, seed, batch_size)
    pairs = {
        "reconstruction from z_mean, pixels": (back["x"], back["mean"]),
        "reconstruction from z_sample, pixels": (back["x"], back["sample"]),
        "reconstruction from z_mean, AvePool of E": (back["x_feat"], back["mean_feat"]),
        "latent round trip, mean of E(G(z)) against z": (z, z_back),
    }
    figures = [
        PairFigure(name, *with_baseline(a, b), "random pairs", len(a), "mean squared difference")
        for name, (a, b) in pairs.items()
    ]
    figures += _by_heart(model, splits.training_images, (seen, seen_classes), (x, classes), batch_size)
    figures += _neighbours(model, splits, samples, x, batch_size, sheets=sheets)
    if sheets is not None:
        apart = torch.from_numpy(spread(len(x), 2 * ROWS))
        interpolations(sheets, model, x[apart], None if classes is None else classes[apart], seed)
        filters(sheets, model)
    return figures


def _read(model: BigBiGAN, images: Images, limit: int, batch_size: int) -> tuple[Tensor, Tensor | None]:
    """Return images spread over the split, (n, 3, S, S) at E's size, and their classes if G wants them."""
    chosen = spread(len(images), limit)
    found = list(evaluation_batches(images.subset(chosen), model.encoder.image_size, batch_size))
    x = to_signed(torch.cat([pixels for pixels, _ in found])) if found else torch.empty(0, 3, 1, 1)
    if not model.generator.classes:
        return x, None
    return x, torch.from_numpy(images.labels[chosen[np.concatenate([at for _, at in found])]])


def _batches(model: BigBiGAN, x: Tensor, classes: Tensor | None, batch_size: int):
    """Yield batches of images on E's device, and their classes or None."""
    device = next(model.encoder.parameters()).device
    for first in range(0, len(x), batch_size):
        part = slice(first, first + batch_size)
        yield x[part].to(device), None if classes is None else classes[part].to(device)


def _by_heart(model: BigBiGAN, seen_name: str, seen: tuple, held_out: tuple, batch_size: int) -> list[PairFigure]:
    """Measure the pairs that D takes for encoder pairs, of training and held-out images; [] of a model without D.

    seen_name: what to call the first.
    """
    if model.discriminator is None:
        return []
    shares = []
    totals = [encoder_pair_scores(model, *batch).total() for batch in _batches(model, *held_out, batch_size)]
    boundary = decision_boundary(model, torch.cat(totals))
    for x, classes in (seen, held_out):
        total: dict[str, float] = {}
        for part, labels in _batches(model, x, classes, batch_size):
            for name, share in scored_as_encoder_pairs(model, part, labels, boundary).items():
                total[name] = total.get(name, 0.0) + share * len(part) / len(x)
        shares.append(total)
    names = {
        "score_x": f"{seen_name} that D calls real, by s_x",
        "sum": f"pairs (x, E(x)) of {seen_name} that D calls real, by all scores",
    }
    ours, theirs = shares
    return [
        PairFigure(names[k], ours[k], theirs[k], "held-out images", len(seen[0]), "share") for k in names if k in ours
    ]


def _neighbours(
    model: BigBiGAN, splits: Splits, samples: Tensor, x: Tensor, batch_size: int, *, sheets: Sheets | None
) -> list[PairFigure]:
    """Measure how far samples and held-out images are from the training set, in pixels and in E's features.

    Samples much nearer than held-out images are copies: G memorises.
    """
    train, known = splits.train, splits.trained.get("avepool_feat")
    chosen = spread(len(train), REFERENCE)
    reference = train.subset(chosen)
    size, e_size = samples.shape[-1], model.encoder.image_size
    pixels, kept = raw_pixels(reference, size, batch_size)
    at, small = chosen[kept], fit_to(x, size).cpu()
    if known is not None and np.isin(at, known[1]).all():
        features = known[0][torch.from_numpy(np.searchsorted(known[1], at))]
    else:
        batches = evaluation_batches(reference, e_size, batch_size)
        features = torch.cat([_avepool(model, to_signed(part), batch_size) for part, _ in batches])
    spaces = {
        "pixels": (pixels, samples.flatten(1), small.flatten(1)),
        "AvePool of E": (features, _avepool(model, samples, batch_size), _avepool(model, x, batch_size)),
    }
    figures = []
    for space, (training, ours, theirs) in spaces.items():
        ratio = memorisation(ours, theirs, training)
        those = f"the nearest of the {splits.training_images}"
        name = f"distance of samples to {those}, {space}, relative to that of held-out images"
        figures.append(PairFigure(name, ratio, 1.0, "held-out images", len(ours), "ratio of medians"))
        if sheets is not None:
            word = "pixels" if space == "pixels" else "features"
            searched = {"reference": training, "splits": splits, "at": at}
            shown = ("samples", "samples", samples, ours), ("queries", "test images", small, theirs)
            for name, what, images, vectors in shown:
                name = f"neighbours-{name}-{word}"
                neighbours(sheets, name, what, space, images[:ROWS], vectors[:ROWS], **searched)
    return figures


def _avepool(model: BigBiGAN, images: Tensor, batch_size: int) -> Tensor:
    """Return AvePool features (N, C) on the CPU of images (N, 3, S, S) of any of the model's sizes."""
    return torch.cat([
        features_of(model.encoder, fit_to(part, model.encoder.image_size), ("avepool_feat",))["avepool_feat"].cpu()
        for part, _ in _batches(model, images, None, batch_size)
    ])  # fmt: skip
