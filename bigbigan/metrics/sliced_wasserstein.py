"""Compute the sliced Wasserstein distance between the patches of two sets of images, level by level.

Karras et al. 2018, section 5.

The definition is that of the PGGAN code: 16,384 images a set, 128 patches of 7×7 px per image and level, 512
directions.
"""

import logging

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bigbigan.errors import MetricsError
from bigbigan.metrics.sets import Metric, Pixels
from bigbigan.noise import uniforms
from eval_linear.result import FigureInfo

IMAGES = 16384
PATCH, PATCHES = 7, 128
REPEATS, DIRECTIONS = 4, 128
SMALLEST = 16  # px of the coarsest level
log = logging.getLogger(__name__)


def level_sizes(size: int) -> list[int]:
    """Return the resolutions of the Laplacian pyramid, `size` halved down to 16 px; a smaller image is one level."""
    sizes = [size]
    while sizes[-1] % 2 == 0 and sizes[-1] // 2 >= SMALLEST:
        sizes.append(sizes[-1] // 2)
    return sizes


def sliced_wasserstein(
    generated: Tensor, real: Tensor, seed: int = 0, device: torch.device | str = "cpu", batch_size: int = 256
) -> dict[int, float]:
    """Return {resolution: distance × 10³} from the finest level to the coarsest; small, but not 0, for equal sets.

    generated, real: uint8 (n, 3, S, S), as many of either, S ≥ 7; the patches of either set are drawn independently.
    device: where to compute; one level takes 2 · n · 128 · 147 floats there, 2.3 GiB for 16,384 images. Raises
    MetricsError.
    """
    named = {"generated": generated, "real": real}
    for name, images in named.items():
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != generated.shape[1:]:
            raise MetricsError(
                f"sliced Wasserstein distance: expected uint8 images of one shape (n, 3, S, S), "
                f"found {name} images {images.dtype} {tuple(images.shape)} beside {tuple(generated.shape)}"
            )
    if len(generated) != len(real) or not len(real):
        raise MetricsError(
            "sliced Wasserstein distance: expected as many generated images as real ones, "
            f"found {len(generated)} and {len(real)}; cut the larger set"
        )
    size = real.shape[-1]
    if size < PATCH:
        raise MetricsError(
            f"sliced Wasserstein distance: expected images of at least {PATCH} px for its patches, found {size} px"
        )
    figures = {}
    for level, resolution in enumerate(level_sizes(size)):
        sets = (_descriptors(images, level, seed, name, device, batch_size) for name, images in named.items())
        figures[resolution] = 1e3 * _distance(*sets, seed=seed)
    return figures


def laplacian_pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """Return `levels` bands of float images (n, C, S, S), each half as large; the last is the low-pass rest."""
    bands = [images]
    for _ in range(levels - 1):
        fine = bands.pop()
        coarse = _blur(fine)[:, :, ::2, ::2]
        spread = torch.zeros_like(fine)
        spread[:, :, ::2, ::2] = coarse
        bands += [fine - 4 * _blur(spread), coarse]  # 4: three of four places were zero
    return bands


def _blur(x: Tensor) -> Tensor:
    """Filter images by the binomial [1 4 6 4 1]/16 in both directions, edges mirrored."""
    channels = x.shape[1]
    binomial = (torch.tensor([1.0, 4, 6, 4, 1], device=x.device) / 16).expand(channels, 1, 1, -1)
    x = F.conv2d(F.pad(x, (2, 2, 0, 0), mode="reflect"), binomial, groups=channels)
    return F.conv2d(F.pad(x, (0, 0, 2, 2), mode="reflect"), binomial.mT, groups=channels)


def _descriptors(images: Tensor, level: int, seed: int, name: str, device, batch_size: int) -> Tensor:
    """Return patches of one level, (n · 128, 147) float32.

    Each channel is normalised over the set to zero mean and unit deviation.
    """
    levels = len(level_sizes(images.shape[-1]))
    patches = torch.empty(len(images), PATCHES, 3, PATCH, PATCH, device=device)
    for start in range(0, len(images), batch_size):
        band = laplacian_pyramid(images[start : start + batch_size].to(device).float(), levels)[level]
        places = uniforms(seed, f"swd/{name}/{level}", np.arange(start, start + len(band)), 2 * PATCHES)
        corners = torch.from_numpy(places * (band.shape[2] - PATCH + 1)).long()
        patches[start : start + batch_size] = _patches(band, corners.to(device))
    # Chunk by chunk and summed in float64: there are 10⁸ values to a channel.
    patches -= _channel_means(patches, batch_size, lambda part: part)
    patches /= _channel_means(patches, batch_size, torch.square).sqrt().clamp_min(1e-8)  # images of one colour
    return patches.flatten(2).flatten(0, 1)


def _patches(band: Tensor, corners: Tensor) -> Tensor:
    """Cut 7×7 px of every image (n, 3, S, S) below and right of its `corners` (n, 2 · 128), rows first.

    Returns (n, 128, 3, 7, 7).
    """
    windows = band.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # (n, 3, S − 6, S − 6, 7, 7), a view
    rows, columns = corners.chunk(2, dim=1)
    image = torch.arange(len(band), device=band.device)[:, None]
    return windows[image, :, rows, columns]


def _channel_means(patches: Tensor, batch_size: int, function) -> Tensor:
    """Return the mean of function(patches) over all but the channels, (1, 1, 3, 1, 1)."""
    means = [function(part).mean((0, 1, 3, 4)).cpu().double() * len(part) for part in patches.split(batch_size)]
    return (torch.stack(means).sum(0) / len(patches)).float().to(patches.device).view(1, 1, 3, 1, 1)


def _distance(a: Tensor, b: Tensor, seed: int) -> float:
    """Return the mean Wasserstein-1 distance of a and b, (N, 147) each, along 4 × 128 random unit directions."""
    total = 0.0
    for repeat in range(REPEATS):
        directions = np.random.default_rng([seed, repeat]).standard_normal((DIRECTIONS, a.shape[1]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        for group in torch.from_numpy(directions).float().to(a.device).split(16):  # sorted columns take memory
            total += float((_sorted(group @ a.T) - _sorted(group @ b.T)).abs().mean(1).sum())
    return total / (REPEATS * DIRECTIONS)


def _sorted(rows: Tensor) -> Tensor:
    if (
        rows.device.type == "cpu"
    ):  # NumPy's sort is several times as fast as torch's, which also returns where things were
        return torch.from_numpy(np.sort(rows.numpy(), axis=1))
    return rows.sort(dim=1).values


def measure(sets: Pixels) -> dict[str, float]:
    """Return the distance × 10³ of each level, and their mean."""
    size, end = sets.real.shape[-1], f"{sets.split}_n{len(sets.real)}"
    distances = sliced_wasserstein(sets.generated, sets.real, sets.seed, sets.device)
    if level_sizes(size) == [size] and size < 2 * SMALLEST:
        log.info("sliced Wasserstein distance: images of %d px have no coarser level; full resolution alone", size)
    figures = {f"swd_{resolution}px_{end}": value for resolution, value in distances.items()}
    return figures | {f"swd_mean_{end}": float(np.mean(list(distances.values())))}


METRIC = Metric((FigureInfo("swd", "Sliced Wasserstein distance × 10³", better="lower"),), measure)
