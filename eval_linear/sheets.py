"""Draw pictures of a model, each a PNG with a caption: nearest training images, interpolations, the first filters."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bigbigan.data import evaluation_batches, to_signed
from bigbigan.latents import sample_prior
from bigbigan.metrics.bidirectional import some_classes
from bigbigan.metrics.neighbours import nearest
from bigbigan.model import BigBiGAN
from bigbigan.training.pictures import save_grid
from eval_linear.representations import Splits
from eval_linear.result import Sheet

log = logging.getLogger(__name__)
ROWS, NEIGHBOURS, STEPS = 8, 7, 9
LEAST_FILTER = 5  # pixels


class Sheets:
    """Write pictures under `folder`/evaluation and remember what they show."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.entries: list[Sheet] = []

    def add(self, name: str, title: str, caption: str, images: Tensor, columns: int) -> None:
        """Write images (N, 3, S, S) in [−1, 1] with `columns` a row; a warning says where the disk refuses them."""
        path = self.folder / "evaluation" / f"{name}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_grid(images, path, columns)
        except OSError as error:  # the figures are worth more than their pictures
            log.warning("%s: this picture could not be written (%s)", path, error)
            return
        self.entries.append(Sheet(title, f"evaluation/{name}.png", caption))


def neighbours(
    sheets: Sheets,
    name: str,
    what: str,
    space: str,
    shown: Tensor,
    queries: Tensor,
    *,
    reference: Tensor,
    splits: Splits,
    at: np.ndarray,
) -> None:
    """Draw rows of a query and its nearest images of the training split.

    shown: the queries as pictures, (R, 3, S, S).  queries, reference: their vectors (R, C), those to search (n, C).

    at: indices in `splits.train` of the rows of `reference`.
    """
    those = splits.training_images
    distances, found = nearest(queries, reference, min(NEIGHBOURS, len(reference)))
    size = shown.shape[-1]
    rows = []
    for picture, places in zip(shown, found, strict=True):
        chosen = [next(evaluation_batches(splits.train.subset(at[[int(i)]]), size, 1))[0] for i in places]
        rows += [picture[None], to_signed(torch.cat(chosen))]
    caption = (
        f"First column: {what}. Then the {found.shape[1]} nearest of {len(reference):,} {those}, nearest "
        f"first, by L2 of {space}; median distance of the first {float(distances[:, 0].median()):.3g}."
    )
    sheets.add(name, f"Nearest {those} of {what}, {space}", caption, torch.cat(rows), 1 + found.shape[1])


@torch.inference_mode()
def interpolations(sheets: Sheets, model: BigBiGAN, x: Tensor, x_classes: Tensor | None, seed: int) -> None:
    """Draw straight lines in z: between two latents of the prior, and between the latents of two images.

    x: (2·R, 3, S, S) at E's size, with x_classes (2·R,) of a conditional model.
    """
    device = next(model.encoder.parameters()).device
    prior = model.prior
    z = sample_prior(prior, seed, "interpolation", np.arange(2 * ROWS), model.generator.latent_dim).to(device)
    classes = some_classes(model, ROWS, seed).to(device)
    film = _lines(model, z[:ROWS], z[ROWS:], classes)
    of_one_class = " of one class," if model.generator.classes else ""
    caption = (
        f"Each row:{of_one_class} G on the straight line between two latents of the prior, {STEPS} steps, "
        "not truncated."
    )
    sheets.add("interpolation-latents", "Interpolation between latents", caption, film.flatten(0, 1), STEPS)
    count = len(x) // 2
    if not count:
        return
    x, x_classes = x[: 2 * count].to(device), None if x_classes is None else x_classes[: 2 * count].to(device)
    mean = model.infer(x, x_classes).mean
    film = _lines(model, mean[:count], mean[count:], classes[:count])
    ends = model.for_discriminator(x).cpu()
    rows = torch.cat([ends[:count, None], film, ends[count:, None]], dim=1)
    caption = (
        f"Each row: a test image, G on the straight line between the two images' latents in {STEPS} steps, "
        "the other test image."
    )
    sheets.add("interpolation-images", "Interpolation between images", caption, rows.flatten(0, 1), STEPS + 2)


def _lines(model: BigBiGAN, a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
    """Return images (R, STEPS, 3, S, S) on straight lines from latents a (R, Z) to b (R, Z)."""
    parts = [
        model.generate(torch.lerp(a, b, t), classes if model.generator.classes else None)
        for t in torch.linspace(0, 1, STEPS).tolist()
    ]
    return torch.stack([part.float().cpu() for part in parts], dim=1)


def filters(sheets: Sheets, model: BigBiGAN) -> None:
    """Draw the first convolution of E, each filter scaled to its own largest weight.

    Nothing is drawn if the convolution does not see three channels, or of filters so small that no edge shows in them.
    """
    first = next((m for m in model.encoder.modules() if isinstance(m, torch.nn.Conv2d)), None)
    if first is None or first.weight.shape[1] != 3 or min(first.weight.shape[2:]) < LEAST_FILTER:
        return
    weight = first.weight.detach().float().cpu()
    weight = weight / weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    caption = (
        f"The encoder's first convolution, {len(weight)} filters of {weight.shape[2]}×{weight.shape[3]}, grey is zero. "
        "Oriented edges and colours are a sign of training, noise is a sign of too little (BigBiGAN, appendix)."
    )
    sheets.add("filters", "First filters of the encoder", caption, weight, int(np.ceil(len(weight) ** 0.5)))
