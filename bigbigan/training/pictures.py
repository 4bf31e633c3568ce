"""What a person looks at during a run: samples of fixed latents, and fixed test images beside their reconstructions."""

import itertools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import save_image

from bigbigan.config import Config
from bigbigan.data import Images, evaluation_batches, to_signed
from bigbigan.latents import sample_prior
from bigbigan.training.ema import Averages


@torch.no_grad()
def draw_grids(averages: Averages, tests: Images, config: Config, monitor, images_seen: int) -> None:
    """The two grids of this moment, by the averaged networks, G(z_mean): those of a run are a film.

    A conditional G is told the images' classes; its samples have a class a row.
    """
    generator, encoder, side, classes = averages.generator, averages.encoder, config.run.grid, config.model.classes
    device = next(generator.parameters()).device
    z = sample_prior(config.model.prior, config.run.seed, "grid", np.arange(side * side), generator.latent_dim).to(
        device
    )
    rows = torch.arange(side * side, device=device) // side % classes if classes else None
    monitor.samples(generator(z, rows), images_seen, side)
    if encoder is None:
        return
    for pixels, indices in itertools.islice(evaluation_batches(tests, encoder.image_size, max(1, side * side // 2)), 1):
        x = to_signed(pixels).to(device)
        labels = torch.from_numpy(tests.labels[indices]).to(device) if classes else None
        monitor.reconstructions(x, generator(encoder(x).mean, labels), images_seen, max(1, side // 2))


SMALLEST_TILE = 48  # pixels; smaller images are enlarged by a whole factor so that a grid can be looked at


def save_grid(images: Tensor, path: Path, columns: int, pairs: bool = False) -> Path:
    """images (N, 3, S, S) in [−1, 1] → a PNG; in a grid of pairs the two halves touch and the pairs stand apart."""
    factor = max(1, -(-SMALLEST_TILE // images.shape[-1]))
    tiles = images.float().cpu().clamp(-1, 1).add(1).div(2)
    tiles = tiles.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    if pairs:
        tiles = torch.cat([tiles[0::2], tiles[1::2]], dim=3)
        columns //= 2
    beside = path.with_name(f".{path.name}.tmp")
    save_image(tiles, beside, format="png", nrow=columns, padding=4, pad_value=0.35)
    beside.replace(path)
    return path
