"""What a person looks at during a run: samples of fixed latents, and fixed test images beside their reconstructions."""

import itertools

import numpy as np
import torch

from bigbigan.config import Config
from bigbigan.data import Images, evaluation_batches, to_signed
from bigbigan.ema import Averages
from bigbigan.latents import sample_prior
from bigbigan.monitor import Monitor


@torch.no_grad()
def draw_grids(averages: Averages, tests: Images, config: Config, monitor: Monitor, images_seen: int) -> None:
    """The two grids of this moment, by the averaged networks, G(z_mean): those of a run are a film.

    A conditional G is told the images' classes; its samples have a class a row.
    """
    generator, encoder, side, classes = averages.generator, averages.encoder, config.run.grid, config.model.classes
    device = next(generator.parameters()).device
    z = sample_prior(config.model.prior, config.run.seed, "grid", np.arange(side * side), generator.latent_dim).to(device)
    rows = torch.arange(side * side, device=device) // side % classes if classes else None
    monitor.samples(generator(z, rows), images_seen, side)
    if encoder is None:
        return
    for pixels, indices in itertools.islice(evaluation_batches(tests, encoder.image_size, max(1, side * side // 2)), 1):
        x = to_signed(pixels).to(device)
        labels = torch.from_numpy(tests.labels[indices]).to(device) if classes else None
        monitor.reconstructions(x, generator(encoder(x).mean, labels), images_seen, max(1, side // 2))
