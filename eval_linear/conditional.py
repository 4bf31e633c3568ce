"""Draw samples by class and lines between classes of a conditional model, and count class leakage (BigGAN)."""

import logging
from collections import Counter

import numpy as np
import torch
from torch import Tensor

from bigbigan.data import spread, to_uint8
from bigbigan.errors import MetricsError
from bigbigan.latents import sample_prior
from bigbigan.metrics import ClassifierExtractor, cache_folder, in_domain_extractor
from bigbigan.model import BigBiGAN
from eval_linear.representations import Splits
from eval_linear.result import PairFigure
from eval_linear.sheets import ROWS, STEPS, Sheets

CLASSES = 16  # rows of the sheet by class
SAMPLES, SHOWN = 2048, 64  # samples that leakage is counted on, and of those pictured
log = logging.getLogger(__name__)


def conditional(
    model: BigBiGAN, splits: Splits, batch_size: int, sheets: Sheets | None, seed: int = 0
) -> list[PairFigure]:
    """Measure class leakage, and draw the sheets of a conditional model where there is a place for them."""
    names = [str(name) for name in splits.train.class_names]
    if sheets is not None:
        by_class(sheets, model, names, seed)
        between_classes(sheets, model, names, seed)
    if len(names) != model.generator.classes:
        log.warning(
            "no class leakage: expected data of the model's %d classes, found %d", model.generator.classes, len(names)
        )
        return []
    try:
        device = next(model.generator.parameters()).device
        extractor = in_domain_extractor(splits.train, model.generator.image_size, splits.name, cache_folder(), device)
    except MetricsError as error:
        log.warning("no class leakage: %s", error)
        return []
    return leakage(sheets, model, extractor, names, batch_size, seed)


@torch.inference_mode()
def by_class(sheets: Sheets, model: BigBiGAN, names: list[str], seed: int) -> None:
    """Draw samples with a row for each class and a column for each latent."""
    shown = spread(model.generator.classes, CLASSES)
    z = latents(model, "by class", ROWS, seed)
    images = torch.cat([model.generate(z, torch.full((ROWS,), int(k), device=z.device)).float().cpu() for k in shown])
    caption = (
        "Each row: samples of a class, each column: one latent, not truncated. "
        f"From the top: {', '.join(named(names, shown))}. "
        "What stays the same down a column is what z says, what stays along a row is the class."
    )
    sheets.add("samples-by-class", "Samples by class", caption, images, ROWS)


@torch.inference_mode()
def between_classes(sheets: Sheets, model: BigBiGAN, names: list[str], seed: int) -> None:
    """Draw lines between class embeddings, first with the latent kept, then with the latent on a line of its own."""
    count = model.generator.classes
    first = spread(count, ROWS) if count >= ROWS else np.arange(ROWS) % count
    second = (first + max(1, count // 3)) % count
    weights = [torch.nn.functional.one_hot(torch.from_numpy(k), count).float() for k in (first, second)]
    z = latents(model, "between classes", 2 * ROWS, seed)
    pairs = ", ".join(f"{a} to {b}" for a, b in zip(named(names, first), named(names, second), strict=True))
    for name, title, end, kept in (
        ("classes", "Interpolation between classes", z[:ROWS], "with one latent a row"),
        ("both", "Interpolation between classes and latents", z[ROWS:], "and between two latents of the prior"),
    ):
        film = [
            model.generate(torch.lerp(z[:ROWS], end, t), torch.lerp(*weights, t).to(z.device)).float().cpu()
            for t in torch.linspace(0, 1, STEPS).tolist()
        ]
        caption = (
            f"Each row: G on the straight line between the embeddings of two classes, {kept}, {STEPS} steps: {pairs}."
        )
        sheets.add(f"interpolation-{name}", title, caption, torch.stack(film, dim=1).flatten(0, 1), STEPS)


@torch.inference_mode()
def leakage(
    sheets: Sheets | None, model: BigBiGAN, extractor: ClassifierExtractor, names: list[str], batch_size: int, seed: int
) -> list[PairFigure]:
    """Measure how many samples a classifier of the training images takes for another class than the asked one.

    The samples that it is surest of are drawn. The baseline is the share of real held-out images that the classifier
    itself misnames.
    """
    count = model.generator.classes
    asked = torch.arange(SAMPLES) % count
    z = latents(model, "leakage", SAMPLES, seed)
    images, shares = [], []
    for part, classes in zip(z.split(batch_size), asked.split(batch_size), strict=True):
        image = model.generate(part, classes.to(z.device))
        images.append(image.float().cpu())
        shares.append(extractor(to_uint8(image))[1].softmax(1).cpu())
    images, shares = torch.cat(images), torch.cat(shares)
    seen = shares.argmax(1)
    leaked = (seen != asked).nonzero().flatten()
    if sheets is not None and len(leaked):
        surer = shares.max(1).values - shares.gather(1, asked[:, None])[:, 0]  # by how much it prefers the other class
        leaked = leaked[surer[leaked].argsort(descending=True, stable=True)]
        pairs = [f"{names[a]}→{names[b]}" for a, b in zip(asked[leaked].tolist(), seen[leaked].tolist(), strict=True)]
        most = ", ".join(f"{pair} {n}" for pair, n in Counter(pairs).most_common(8))
        rows = "; ".join(", ".join(pairs[i : i + ROWS]) for i in range(0, min(SHOWN, len(pairs)), ROWS))
        caption = (
            f"{len(leaked):,} of {SAMPLES:,} samples ({len(leaked) / SAMPLES:.1%}) are taken for another class than "
            f"the asked one; {extractor.note()}. The surest first, asked→seen by row: {rows}. Most often: {most}."
        )
        sheets.add("class-leakage", "Class leakage", caption, images[leaked[:SHOWN]], ROWS)
    name = f"samples that {extractor.name} gives another class than the asked one (class leakage)"
    return [PairFigure(name, len(leaked) / SAMPLES, 1 - extractor.accuracy, "real held-out images", SAMPLES, "share")]


def latents(model: BigBiGAN, purpose: str, n: int, seed: int) -> Tensor:
    """Return latents (n, Z) of the model's prior, on its device."""
    prior = model.prior
    z = sample_prior(prior, seed, purpose, np.arange(n), model.generator.latent_dim)
    return z.to(next(model.generator.parameters()).device)


def named(names: list[str], classes: np.ndarray) -> list[str]:
    """Return the names of these classes, or their numbers where they have none."""
    return [names[k] if k < len(names) else str(k) for k in classes.tolist()]
