"""What a person looks at during a run: samples of fixed latents, and fixed test images beside their reconstructions."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from bigbigan.config import Config
from bigbigan.data import Images, evaluation_batches, spread, to_signed, to_uint8
from bigbigan.files import write_whole
from bigbigan.latents import sample_prior
from bigbigan.model import BigBiGAN

KINDS = ("samples", "reconstructions")
SMALLEST_TILE = 48  # pixels; smaller images are enlarged by a whole factor so that a grid can be looked at
GREY = 89  # between the images of a sheet


def has_grids(folder: Path, images_seen: int) -> bool:
    """Whether both grids of this moment are in the run folder."""
    return all((folder / kind / f"{images_seen:012d}.png").is_file() for kind in KINDS)


@torch.no_grad()
def draw_grids(model: BigBiGAN, tests: Images, config: Config, folder: Path, images_seen: int) -> dict[str, Path]:
    """Write the two grids of this moment, and return their files by kind; those of a run are a film.

    model: with averaged E and G.  folder/samples: G of fixed latents; a conditional G draws a class a row.
    folder/reconstructions: test images beside G(z_mean), for which a conditional G is told their classes; none without
    E.
    """
    generator, side, classes = model.generator, config.run.grid, config.model.classes
    device, name = next(generator.parameters()).device, f"{images_seen:012d}.png"
    z = sample_prior(model.prior, config.run.seed, "grid", np.arange(side * side), generator.latent_dim).to(device)
    rows = torch.arange(side * side, device=device) // side % classes if classes else None
    paths = {"samples": save_grid(generator(z, rows), folder / "samples" / name, side)}
    if model.encoder is None:
        return paths
    shown = tests.subset(spread(len(tests), max(1, side * side // 2)))
    for pixels, indices in evaluation_batches(shown, model.encoder.image_size, len(shown)):
        x = to_signed(pixels).to(device)
        labels = torch.from_numpy(shown.labels[indices]).to(device) if classes else None
        y = generator(model.infer(x, labels).mean, labels)
        pairs = torch.stack([F.interpolate(x, y.shape[-1], mode="area"), y], dim=1).flatten(0, 1)
        path = folder / "reconstructions" / name
        paths["reconstructions"] = save_grid(pairs, path, 2 * max(1, side // 2), pairs=True)
    return paths


def save_grid(images: Tensor, path: Path, columns: int, pairs: bool = False) -> Path:
    """Write images (N, 3, S, S) in [−1, 1] as a PNG, `columns` a row.

    pairs: the images come two by two; the two halves of a pair touch and the pairs stand apart.
    """
    picture = sheet(images, columns, max(1, -(-SMALLEST_TILE // images.shape[-1])), pairs)
    write_whole(path, lambda part: picture.save(part, format="png"))
    return path


def sheet(images: Tensor, columns: int, scale: int = 1, pairs: bool = False) -> Image.Image:
    """Return images (N, 3, S, S) in [−1, 1] as one picture, `columns` a row, each pixel `scale` wide.

    pairs: see `save_grid`.
    """
    tiles = to_uint8(images).cpu().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    if pairs:
        tiles = torch.cat([tiles[0::2], tiles[1::2]], dim=3)
        columns //= 2
    joined = make_grid(tiles, nrow=columns, padding=4, pad_value=GREY)
    return Image.fromarray(joined.permute(1, 2, 0).contiguous().numpy())
