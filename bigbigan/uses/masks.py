"""Segment the object of an image without labels, by a latent direction that lights it and darkens its background.

    python -m bigbigan.uses.masks runs/scenes --masks scenes --out masks.png
    python -m bigbigan.uses.masks runs/photos --out masks.png

The mask of a generated image is where it gets lighter along the direction. A small network that learns these masks of
generated images then segments real ones. Two ways to the direction: chosen among discovered ones (Voynov, Morozov &
Babenko 2021, arXiv 2006.04988) and optimised for it (Melas-Kyriazi, Rupprecht, Laina & Vedaldi 2022, arXiv 2105.08127).
"""

import os
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # before torch is loaded
    from bigbigan.config.command import prepare_process

    prepare_process()

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn
from tqdm.auto import trange

from bigbigan.api import check_seed, grid
from bigbigan.config.bounds import AtLeastOne, AtLeastTwo, Finite, NotNegative, Positive, Strength, check_argument
from bigbigan.distributed.device import default_on_cpu
from bigbigan.errors import InputError
from bigbigan.files import expanded, printable
from bigbigan.model import BigBiGAN
from bigbigan.uses.arguments import classes_of, direction_of, latents_of, picture_values
from bigbigan.uses.command_line import (
    UseOptions,
    bar_settings,
    device_of,
    draw_classes,
    draw_latents,
    open_data,
    read_images,
    ready,
    run_command,
    write_picture,
)
from bigbigan.uses.directions import RELATIVE_SHIFT, discover, sefa

LUMA = (0.2989, 0.587, 0.114)  # weights of red, green and blue (ITU-R BT.601)
OUTSIDE_WEIGHT, EDGE_WEIGHT = 2.0, 10.0  # of the two losses (the published configuration of Melas-Kyriazi et al.)
CONTRAST = 4.0  # factor of the map of distances in the outside loss, from the same
LARGEST_AREA = 0.5  # share of the image above which a mask is taken for the background's (Voynov et al., section 3.3)
SMALLEST_PART = 0.2  # of the largest component, below which another component is removed (the same)


def grey(x: Tensor) -> Tensor:
    """Return the luma (N, S, S) of images (N, 3, S, S)."""
    return (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1)


@default_on_cpu()
def direction_masks(
    model: BigBiGAN,
    z: Tensor,
    direction: Tensor,
    shift: float,
    classes: Tensor | None = None,
    *,
    both_ways: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return G(z), G(z + h) with h = shift·direction, and where the second is lighter: bool (N, S, S).

    The mask is that of Voynov et al., section 3.2: M = [G(z + h) > G(z)] of the images' luma.
    both_ways: M = [G(z + h) > G(z − h)] instead, which also finds objects that are light already. This form is ours.
    model: is put into evaluation mode.
    z: (N, Z); direction: (Z,), a unit vector; shift: in the unit of z; classes: (N,) of a conditional model.
    Raises InputError.
    """
    check_argument("shift", shift, Finite)
    z, h = latents_of(model, z), shift * direction_of(model, direction)
    classes = classes_of(model.eval(), classes, len(z))
    x, shifted = model.generate(z, classes), model.generate(z + h, classes)
    return x, shifted, grey(shifted) > grey(model.generate(z - h, classes) if both_ways else x)


def foreground_loss(x: Tensor, shifted: Tensor) -> Tensor:
    """Return Melas-Kyriazi et al.'s loss of a shift: low if the middle is light, the rest dark and edges stay; scalar.

    2 · mean(luma(shifted) · d) + 10 · mean((edges(x) − edges(shifted))²), where d is 4 times the distance from the
    middle, on a scale of 1 at the middle of each side, less its mean, and edges are the magnitude of Sobel's gradients.
    x, shifted: (N, 3, S, S) in [−1, 1].
    """
    size = x.shape[-1]
    axis = torch.linspace(-1, 1, size, dtype=x.dtype, device=x.device)
    distance = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
    outside = (grey(shifted) * (distance - distance.mean()) * CONTRAST).mean()
    return OUTSIDE_WEIGHT * outside + EDGE_WEIGHT * (_edges(grey(x)) - _edges(grey(shifted))).square().mean()


def _edges(x: Tensor) -> Tensor:
    """Return the magnitude (N, S, S) of Sobel's gradients of x (N, S, S); kernels of 1/8, edges repeated."""
    kernel = x.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    padded = F.pad(x[:, None], (1, 1, 1, 1), mode="replicate")
    gradients = F.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])
    return (gradients.square().sum(1) + 1e-6).sqrt()


@default_on_cpu()
@torch.inference_mode(False)  # it learns, whatever mode it is called in
def optimise_direction(
    model: BigBiGAN,
    steps: int = 300,
    batch_size: int = 32,
    *,
    lr: float = 5e-3,
    shift: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Return the unit vector (Z,) that lights objects and darkens backgrounds most, by `foreground_loss`.

    As Melas-Kyriazi et al.: Adam at 5e-3, 300 steps of 32 latents, and shifts r ~ N(2, 1/2) of at least 0.1.
    shift: the mean of r, in the unit of z; None for 2 · ‖z‖/√128, the published one at 128 normal latents. Its
    deviation is a quarter of it.  G's weights and gradients stay as they are.
    Raises InputError.
    """
    check_argument("steps", steps, NotNegative), check_argument("batch_size", batch_size, AtLeastOne)
    check_argument("lr", lr, Positive), check_argument("seed", seed, NotNegative)
    check_argument("shift", 1.0 if shift is None else shift, Positive)
    width, device = model.eval().require("generator").latent_dim, device_of(model)
    if shift is None:
        shift = usual_shift(model, seed) / 3
    start = torch.randn(width, generator=torch.Generator().manual_seed(int(seed)))
    direction = (0.1 * start).to(device).requires_grad_()
    optimizer = torch.optim.Adam([direction], lr)
    for step in trange(steps, desc="direction", **bar_settings(progress)):
        first = step * batch_size
        z, classes = draw_latents(model, batch_size, "masks", seed, first), draw_classes(model, batch_size, seed + step)
        noise = torch.from_numpy(np.random.default_rng([seed, step]).standard_normal((batch_size, 1))).to(z)
        r = (shift * (1 + noise / 4)).clamp_min(shift / 20)
        with torch.no_grad():
            x = model.generate(z, classes)
        shifted = model.generate(z + r * F.normalize(direction, dim=0), classes)
        (direction.grad,) = torch.autograd.grad(foreground_loss(x, shifted), direction)
        optimizer.step()
    return F.normalize(direction.detach(), dim=0)


@default_on_cpu()
@torch.no_grad()
def choose_direction(model: BigBiGAN, vectors: Tensor, shift: float, n: int = 128, seed: int = 0) -> Tensor:
    """Return the one of the vectors and their opposites, (Z,), with the lowest `foreground_loss` on n samples.

    Voynov et al. look at the directions and choose by eye; this loss takes the place of the eye.
    vectors: (K, Z) unit vectors, such as `directions.discover` returns; shift: above 0, in the unit of z.
    Raises InputError.
    """
    check_argument("n", n, AtLeastOne), check_argument("shift", shift, Positive), check_seed(seed)
    vectors = latents_of(model, vectors, "vectors")
    z, classes = draw_latents(model, n, "masks, choice", seed), draw_classes(model, n, seed)
    candidates = torch.cat([vectors, -vectors])
    losses = [float(foreground_loss(*direction_masks(model, z, v, shift, classes)[:2])) for v in candidates]
    return candidates[int(np.argmin(losses))]


@default_on_cpu()
def usual_shift(model: BigBiGAN, seed: int = 0) -> float:
    """Return the length of a shift that changes images clearly: 6 · ‖z‖/√128, see `directions.discover`."""
    check_seed(seed)
    return RELATIVE_SHIFT * float(draw_latents(model, 1000, "discover, length", seed).norm(dim=1).mean())


@default_on_cpu()
def clean(masks: Tensor, shifted: Tensor) -> tuple[Tensor, Tensor]:
    """Remove small components, and say which masks are worth learning from: (masks, bool (N,)).

    As Voynov et al., section 3.3: components smaller than a fifth of the largest are removed. A mask is kept if it
    covers less than half the image, and if the histogram (12 bins, smoothed over 3) of the shifted image has at least
    two maxima. An empty mask is left out, too.
    masks: bool (N, S, S); shifted: (N, 3, S, S) in [−1, 1].
    """
    cleaned = masks.clone()
    for mask in cleaned:
        parts, count = ndimage.label(mask.cpu().numpy())
        if count > 1:
            sizes = np.bincount(parts.ravel())[1:]
            small = np.flatnonzero(sizes < SMALLEST_PART * sizes.max()) + 1
            mask &= torch.from_numpy(~np.isin(parts, small)).to(mask.device)
    share = cleaned.float().mean((1, 2))
    two = torch.tensor([_maxima(image) >= 2 for image in shifted.detach().float().cpu()], device=masks.device)
    return cleaned, (share > 0) & (share < LARGEST_AREA) & two


def _maxima(image: Tensor) -> int:
    """Return the number of maxima of an image's smoothed histogram; neighbouring bins of one height count once."""
    counts = np.convolve(torch.histc(image, 12, -1, 1).numpy(), np.ones(3), mode="same")
    heights = np.concatenate([[-1], counts[np.append(True, np.diff(counts) != 0)], [-1]])
    return int(((heights[1:-1] > heights[:-2]) & (heights[1:-1] > heights[2:])).sum())


class SmallUNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) of two scales for small images: x (N, 3, S, S) → logits (N, S, S), S even."""

    def __init__(self, width: int = 16):
        super().__init__()
        block = lambda i, o: nn.Sequential(  # noqa: E731
            nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
            nn.Conv2d(o, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
        )  # fmt: skip
        self.fine, self.coarse, self.coarsest = block(3, width), block(width, 2 * width), block(2 * width, 4 * width)
        self.back1, self.back0 = block(6 * width, 2 * width), block(3 * width, width)
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        coarse = self.coarse(F.max_pool2d(fine, 2))
        h = self.coarsest(F.max_pool2d(coarse, 2))
        h = self.back1(torch.cat([F.interpolate(h, coarse.shape[-2:]), coarse], dim=1))
        h = self.back0(torch.cat([F.interpolate(h, fine.shape[-2:]), fine], dim=1))
        return self.last(h).squeeze(1)


@default_on_cpu()
@torch.inference_mode(False)  # it learns, whatever mode it is called in
def train_segmenter(
    model: BigBiGAN,
    direction: Tensor,
    shift: float,
    steps: int = 300,
    batch_size: int = 32,
    *,
    both_ways: bool = False,
    latents: Tensor | None = None,
    noise: float = 0.2,
    seed: int = 0,
    progress: bool = False,
) -> SmallUNet:
    """Train a U-Net on generated images and their `direction_masks`, cleaned; return it in evaluation mode.

    As both papers do, with fewer steps: Adam at 1e-3, times 0.2 for the last third; cross-entropy of each pixel.
    latents: (M, Z) to draw from, with N(0, noise²) added, such as E's z_sample of real images (Voynov et al.'s version
    with E); None for the prior.  both_ways: as in `direction_masks`.
    Raises InputError, also if hardly any mask is clean.
    """
    check_argument("steps", steps, NotNegative), check_argument("batch_size", batch_size, AtLeastTwo)
    check_argument("noise", noise, Strength), check_argument("shift", shift, Finite)
    check_argument("seed", seed, NotNegative)
    if latents is not None:
        latents = latents_of(model, latents, "latents")
    device = device_of(model.eval())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        network = SmallUNet().to(device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    kept_share = 0.0
    for step in trange(steps, desc="segmenter", **bar_settings(progress)):
        optimizer.param_groups[0]["lr"] = 1e-3 if step < 2 * steps / 3 else 2e-4
        z = _latents(model, 2 * batch_size, step, latents, noise, seed)
        with torch.no_grad():
            classes = draw_classes(model, len(z), seed + step)
            x, shifted, masks = direction_masks(model, z, direction, shift, classes, both_ways=both_ways)
            masks, kept = clean(masks, shifted)
        kept_share += float(kept.float().mean())
        if step == 4 and kept_share / 5 < 0.02:
            raise InputError(f"direction: expected one with clean masks, found {kept_share / 5:.1%} of them clean")
        x, masks = x[kept][:batch_size], masks[kept][:batch_size]
        if len(x) < 2:
            continue
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(network(x), masks.float()).backward()
        optimizer.step()
    return network.eval()


def _latents(model: BigBiGAN, n: int, step: int, latents: Tensor | None, noise: float, seed: int) -> Tensor:
    """Return n latents (n, Z): of the prior, or some of the given ones with noise."""
    if latents is None:
        return draw_latents(model, n, "masks, segmenter", seed, step * n)
    rng = np.random.default_rng([seed, step])
    chosen = latents[torch.from_numpy(rng.integers(0, len(latents), n)).to(latents.device)]
    return chosen + noise * torch.from_numpy(rng.standard_normal(chosen.shape)).to(chosen)


@default_on_cpu()
@torch.no_grad()
def segment(network: nn.Module, x: Tensor, batch_size: int = 256) -> Tensor:
    """Return the masks, bool (N, S, S), that a segmenter gives to images (N, 3, S, S) in [−1, 1]. Raises InputError."""
    check_argument("batch_size", batch_size, AtLeastOne)
    weight = next(network.parameters())
    return torch.cat([network(part.to(weight)) > 0 for part in picture_values(x).split(batch_size)])


@default_on_cpu()
def otsu(x: Tensor) -> Tensor:
    """Return masks by Otsu's threshold, bool (N, S, S): the baseline. The smaller of the two parts is the object.

    The threshold maximises the variance between the two parts, w₀w₁(μ₀ − μ₁)² (Otsu 1979, equation 14), over the 256
    greys of each image.  x: (N, 3, S, S) in [−1, 1].  Raises InputError.
    """
    masks = []
    for image in grey(picture_values(x)).float().cpu():
        levels = ((image.clamp(-1, 1) + 1) * 127.5).round().long()
        counts = torch.bincount(levels.flatten(), minlength=256).double()
        share, mean = counts.cumsum(0) / counts.sum(), (counts * torch.arange(256)).cumsum(0) / counts.sum()
        between = (mean[-1] * share - mean).square() / (share * (1 - share)).clamp_min(1e-12)
        mask = levels > int(between.argmax())
        masks.append(~mask if mask.float().mean() > 0.5 else mask)
    return torch.stack(masks).to(x.device)


def iou(masks: Tensor, truth: Tensor) -> Tensor:
    """Return the intersection over union, float (N,), of masks and true ones, bool (N, S, S); 1 if both are empty."""
    both, either = (masks & truth).flatten(1).sum(1).float(), (masks | truth).flatten(1).sum(1).float()
    return torch.where(either > 0, both / either.clamp_min(1), torch.ones_like(both))


def read_scenes(path: str | os.PathLike, size: int) -> tuple[Tensor, Tensor]:
    """Read images with true masks from a Parquet file with the columns `image` and `mask`, or a folder's test.parquet.

    Returns images float (N, 3, size, size) in [−1, 1] and masks bool (N, size, size). A mask is what is lighter than
    the middle grey. Pictures must be size × size pixels.  Raises InputError.
    """
    from datasets import Image, load_dataset

    file = expanded(path)
    file = file / "test.parquet" if file.is_dir() else file
    if not file.is_file():
        raise InputError(
            f"--masks {printable(path)}: expected a Parquet file, or a folder with test.parquet, found none"
        )
    found = {}
    try:
        table = load_dataset("parquet", data_files=str(file), split="train")
        if missing := {"image", "mask"} - set(table.column_names):
            raise InputError(f"expected the columns image and mask, found no {sorted(missing)}")
        for name, mode in (("image", "RGB"), ("mask", "L")):
            pictures = table.cast_column(name, Image())[name]
            found[name] = torch.from_numpy(np.stack([_pixels(picture, mode, size) for picture in pictures]))
    except Exception as error:  # those of Arrow, `datasets` and Pillow have many types
        reason = str(error) if isinstance(error, InputError) else f"expected pictures, found {type(error).__name__}"
        raise InputError(f"--masks {printable(path)}: {reason}") from None
    return found["image"].permute(0, 3, 1, 2).float() / 127.5 - 1, found["mask"] > 127


def _pixels(picture, mode: str, size: int) -> np.ndarray:
    """Return a picture of PIL, or None, as uint8 (size, size) or (size, size, 3). Raises InputError."""
    found = "none in a row" if picture is None else f"one of {picture.width}×{picture.height}"
    if picture is None or picture.size != (size, size):
        raise InputError(f"expected pictures of {size}×{size} pixels, found {found}")
    return np.asarray(picture.convert(mode))


@dataclass
class Masks(UseOptions):
    """Segment images without labels and draw the masks; with true masks, print the IoU beside baselines."""

    masks: str = ""
    """Images with true masks: a Parquet file with the columns image and mask, or a folder with test.parquet. Without
    it held-out images of --data.path are segmented, and nothing is compared."""
    out: Path = Path("masks.png")
    """The picture: a row for each image: itself, the true mask, then the masks of the methods that the text lists."""
    rows: AtLeastOne = 8
    """Images in the picture."""
    discover_steps: NotNegative = 300
    """Steps of `directions.discover`, whose directions are chosen from."""
    optimise_steps: NotNegative = 300
    """Steps of `optimise_direction`, which learns one direction for masks."""
    segmenter_steps: NotNegative = 300
    """Steps of each segmenter's training."""
    seed: NotNegative = 0
    """Decides the latents and the training."""


def main(argv: list[str] | None = None) -> None:
    """Run the command; the exit status is 0, or that of an error."""
    run_command(Masks, run, "masks", argv)


def run(options: Masks) -> str:
    """Write the picture and return the figures as text."""
    model = ready(options.model, options.device or None)
    size = model.require("generator").image_size
    if model.require("encoder").image_size != size:
        raise InputError(f"model: expected E and G of one size, found {model.encoder.image_size} and {size} px")
    if options.masks:
        x, truth = (part.to(device_of(model)) for part in read_scenes(options.masks, size))
        labels, baselines = None, _baselines(x, truth, options.seed)
    else:
        x, labels = read_images(open_data(options.data, model)[1], size, options.rows, options.seed)
        x = x.to(device_of(model))
        truth, baselines = None, {"Otsu": otsu(x)}
    if model.classes and labels is None:
        raise InputError("model: expected one without classes for images without labels, found a conditional one")
    classes = labels.to(x.device) if model.classes else None
    found = baselines | _segmented(model, x, classes, options)
    shown = [x] + [_as_picture(masks) for masks in ([] if truth is None else [truth]) + list(found.values())]
    rows = torch.stack([part[: options.rows] for part in shown], dim=1)
    picture = write_picture(grid(rows.flatten(0, 1).cpu(), columns=rows.shape[1]), options.out)
    return "\n".join([*_text(found, truth), f"picture: {picture}"])


def _baselines(x: Tensor, truth: Tensor, seed: int) -> dict[str, Tensor]:
    """Return by name the masks of methods without a model."""
    rng = torch.Generator().manual_seed(int(seed))
    random = torch.rand(truth.shape, generator=rng) < float(truth.float().mean())
    return {
        "Otsu": otsu(x),
        "random pixels, as many": random.to(x.device),
        "everything": torch.ones_like(truth),
    }


def _segmented(model: BigBiGAN, x: Tensor, classes: Tensor | None, options: Masks) -> dict[str, Tensor]:
    """Return by name the masks, bool (N, S, S), of images x by each direction, through G(E(x)) and through a U-Net.

    classes: of the images, (N,), for a conditional model.
    """
    shift, found = usual_shift(model, options.seed), {}
    with torch.inference_mode():
        z = torch.cat([model.infer(part).mean for part in x.split(256)])
    for name, vector, both_ways in _directions(model, shift, options):
        settings = {"both_ways": both_ways}
        with torch.inference_mode():
            found[f"{name}, G(E(x))"] = direction_masks(model, z, vector, shift, classes, **settings)[2]
        settings |= {"seed": options.seed, "progress": True}
        found[f"{name}, U-Net"] = segment(train_segmenter(model, vector, shift, options.segmenter_steps, **settings), x)
    return found


def _text(found: dict[str, Tensor], truth: Tensor | None) -> list[str]:
    """Return the figures of masks as lines, or the columns of the picture where there are no true masks."""
    if truth is None:
        columns = [f"  {i}: {name}" for i, name in enumerate(found, 2)]
        return [
            "columns of the picture, after the image; no true masks were given (--masks) to compare with:",
            *columns,
        ]
    lines = [
        f"mean IoU with the true masks of {len(truth):,} images (columns 3, 4, ... of the picture, in this order):"
    ]
    for name, masks in found.items():
        scores = iou(masks, truth)
        lines.append(
            f"  {name:32}{float(scores.mean()):6.3f}   pixels right {float((masks == truth).float().mean()):6.1%}"
        )
    return lines


def _directions(model: BigBiGAN, shift: float, options: Masks):
    """Yield (name, unit vector, both_ways) of each method."""
    learned = discover(model, steps=options.discover_steps, seed=options.seed, progress=True).directions.vectors
    candidates = torch.cat([learned, sefa(model).vectors.to(learned)])
    yield "chosen direction", choose_direction(model, candidates, shift, seed=options.seed), False
    optimised = optimise_direction(model, steps=options.optimise_steps, seed=options.seed, progress=True)
    yield "optimised direction", optimised, False
    yield "optimised, both ways", optimised, True


def _as_picture(masks: Tensor) -> Tensor:
    """Return masks, bool (N, S, S), as black and white images (N, 3, S, S) in [−1, 1]."""
    return (2 * masks.float() - 1)[:, None].expand(-1, 3, -1, -1)


if __name__ == "__main__":
    main()
