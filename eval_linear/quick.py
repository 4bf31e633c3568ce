"""Measure a few figures in a short time, while a run goes on: linear probe, k-NN, FID, reconstruction."""

import numpy as np
import torch

from bigbigan.data import Images
from bigbigan.errors import ConfigError
from bigbigan.metrics.figures import lower_is_better
from bigbigan.metrics.neighbours import nearest
from bigbigan.metrics.reconstruction import reconstruction_figures
from bigbigan.model import BigBiGAN
from eval_linear.features import extract
from eval_linear.generation import quick_generation
from eval_linear.knn import weighted_knn
from eval_linear.linear.solvers import fit_linear

BATCH = 256


def quick_figures(model: BigBiGAN, train: Images, test: Images, name: str, limit: int, seed: int) -> dict[str, float]:
    """Return figures by name, each on at most `limit` training images, held-out images and samples.

    test: the images to judge on, which the model was not trained on. The figures depend on model, data and seed alone.
    top1_linear, top1_knn (weighted cosine, k = 20) and top1_1nn (BiGAN's: the nearest by ‖a − b‖) of AvePool features,
    with labels; FID and IS of the in-domain extractor, with labels; reconstruction_error_relative. Without an encoder,
    FID and IS alone. The global random state stays as it is.
    """
    rng = np.random.default_rng(0)
    train_part, test_part = (images.subset(np.sort(rng.permutation(len(images))[:limit])) for images in (train, test))
    figures: dict[str, float] = {}
    labelled = train.labels is not None and test.labels is not None and len(np.unique(train_part.labels)) > 1
    if labelled and model.encoder is not None:
        x, at = extract(model.encoder, train_part, BATCH, names=("avepool_feat",))
        x_test, at_test = extract(model.encoder, test_part, BATCH, names=("avepool_feat",))
        x, x_test = x["avepool_feat"], x_test["avepool_feat"]
        y, y_test = torch.from_numpy(train_part.labels[at]), torch.from_numpy(test_part.labels[at_test])
        classes = len(train.class_names)
        figures["top1_linear"] = fit_linear(x, y, x_test, y_test, classes, seed).top1
        figures["top1_knn"] = float((weighted_knn(x, y, x_test, classes).argmax(1) == y_test).cpu().double().mean())
        figures["top1_1nn"] = float((y[nearest(x_test, x)[1][:, 0]] == y_test).cpu().double().mean())
    if labelled:
        figures |= quick_generation(model, train, name, limit)
    reconstructed = reconstruction_figures(model, train_part, test_part, neighbours=False)
    return figures | {k: v for k, v in reconstructed.items() if k != "n_test"}


def chosen(wanted: str, figures: dict[str, float]) -> str:
    """Return the first figure whose name begins with `wanted`; ConfigError lists the names that there are."""
    for name in figures:
        if name.startswith(wanted):
            return name
    raise ConfigError(
        f"--run.best {wanted}: expected a figure of the evaluations, or how its name begins, found none like it; "
        f"there are {', '.join(figures) or 'none'}"
    )


def better(name: str, value: float, before: float | None) -> bool:
    """Return whether `value` is better than `before`: lower for distances and errors, higher for the rest."""
    if before is None:
        return True
    return value < before if lower_is_better(name) else value > before
