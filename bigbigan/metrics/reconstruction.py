"""Measure reconstructions beside the baseline of random pairs (Donahue et al. 2017 report both)."""

import numpy as np
import torch
from torch import Tensor

from bigbigan.data import Images, evaluation_batches, spread, to_signed
from bigbigan.errors import MetricsError
from bigbigan.metrics.neighbours import nearest
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import pool_to
from eval_linear.result import FigureInfo

EVALUATION_LIMIT = 2048  # held-out images that the figures look at, spread over the split
NEIGHBOURS_LIMIT = 20_000  # training images up to which their pixels are searched for neighbours
FIGURES = (
    FigureInfo("reconstruction_error_relative", "Reconstruction error, 1 = random pairs", better="lower"),
    FigureInfo("reconstruction_1nn_agreement", "Reconstructions that keep their class by 1-NN", "share"),
    FigureInfo("n_test", "Held-out images that were reconstructed", better=""),
)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared L2 distance (N,) of each pair of rows of a, b (N, ...), such as images (N, 3, S, S)."""
    return (a - b).square().flatten(1).sum(1)


def error_of_random_pairs(x: Tensor) -> Tensor:
    """Return the mean squared L2 distance of two different rows of x (N, ...), N ≥ 2: that of all N (N − 1) / 2 pairs.

    It takes one pass, since Σ_{i<j} ‖x_i − x_j‖² = N Σ_i ‖x_i − mean‖².  Raises MetricsError for fewer rows.
    """
    if len(x) < 2:
        raise MetricsError(f"expected at least two images, of which random pairs can be made, found {len(x)}")
    return 2 / (len(x) - 1) * squared_error(x, x.mean(0, keepdim=True)).sum()


def relative_error(x: Tensor, reconstructions: Tensor) -> float:
    """Return the mean squared error of reconstructions over that of random pairs of images.

    0 is perfect, 1 is no better than another image. x, reconstructions: (N, 3, S, S), N ≥ 2.
    Raises MetricsError for others.
    """
    if x.shape != reconstructions.shape:
        found = f"{tuple(x.shape)} and {tuple(reconstructions.shape)}"
        raise MetricsError(f"expected images and reconstructions of one shape, found {found}")
    return float(squared_error(x, reconstructions).mean() / error_of_random_pairs(x))


def nearest_neighbour_agreement(reconstructions: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor) -> float:
    """Return the share of reconstructions whose nearest real image (L2 in pixels) has their image's label.

    reconstructions (N, 3, S, S), labels (N,); real (M, 3, S, S), real_labels (M,).
    """
    found = nearest(reconstructions.flatten(1), real.flatten(1))[1][:, 0]
    return float((real_labels[found] == labels).cpu().double().mean())


@torch.no_grad()
def reconstruction_figures(model: BigBiGAN, train: Images, test: Images, neighbours: bool = True) -> dict[str, float]:
    """Return figures of G(z_mean) of held-out images by name; {} without E, or of fewer than two images.

    reconstruction_error_relative (`relative_error`) and n_test; with labels and not too many training images also
    reconstruction_1nn_agreement (`nearest_neighbour_agreement`). A conditional G is given the images' classes.
    """
    if model.encoder is None:
        return {}
    device = next(model.encoder.parameters()).device
    test = test.subset(spread(len(test), EVALUATION_LIMIT))
    x, y, at = [], [], []
    for pixels, indices in evaluation_batches(test, model.encoder.image_size, 256):
        part = to_signed(pixels).to(device)
        classes = torch.from_numpy(test.labels[indices]).to(device) if model.generator.classes else None
        y.append(model.generator(model.infer(part, classes).mean, classes).float().cpu())
        x.append(pool_to(part, y[-1].shape[-1]).cpu())
        at.append(indices)
    if sum(map(len, at)) < 2:
        return {}
    x, y, at = torch.cat(x), torch.cat(y), np.concatenate(at)
    figures = {"reconstruction_error_relative": relative_error(x, y), "n_test": len(x)}
    if neighbours and train.labels is not None and test.labels is not None and len(train) <= NEIGHBOURS_LIMIT:
        real, indices = zip(*evaluation_batches(train, y.shape[-1], 1024), strict=True)
        real_labels = torch.from_numpy(train.labels[np.concatenate(indices)])
        agreement = nearest_neighbour_agreement(
            y, torch.from_numpy(test.labels[at]), to_signed(torch.cat(real)), real_labels
        )
        figures["reconstruction_1nn_agreement"] = agreement
    return figures
