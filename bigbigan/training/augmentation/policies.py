"""Which transforms, from which random numbers: DiffAugment (Zhao et al. 2020) and ADA's "bgc" (Karras et al. 2020).

Both take uniform numbers in (0, 1) that belong to each image, always as many, so that an image's transform depends on
its numbers alone, and a part of a policy that is left out does not change the others.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bigbigan.training.augmentation.transforms import cut_out, recolour, shift, warp

DIFFAUGMENT_NUMBERS, ADA_NUMBERS = 7, 28
TRANSLATION, CUTOUT = 0.125, 0.5  # of the image's side (Zhao et al.)
# Of the side: the largest translation by whole pixels, and the standard deviation of the other (Karras et al., appendix
# B).
SHIFT = 0.125
SCALE, ANISOTROPY, CONTRAST, SATURATION = 0.2, 0.2, 0.5, 1.0  # standard deviations of log₂ of the factors
BRIGHTNESS = 0.2  # standard deviation
SMALLEST = 2.0**-24  # a float32 uniform number can be rounded to 1, whose normal deviate is infinite


def diffaugment(images: Tensor, numbers: Tensor, parts: tuple[str, ...] = ("color", "translation", "cutout")) -> Tensor:
    """Transform each image by DiffAugment (Zhao et al. 2020).

    images: (N, 3, S, S) in [−1, 1].  numbers: (N, 7) ~ U(0, 1).  Returns (N, 3, S, S).
    color: x + (u − ½); then distances from the mean of the channels times 2u; then from the mean of the image times u +
    ½.
    translation: by up to an eighth of S, zeros come in.  cutout: zeros in a square of half the side around any pixel.
    """
    side, u = images.shape[-1], numbers.unbind(1)
    if "color" in parts:
        brightness, saturation, contrast = (a.to(images.dtype)[:, None, None, None] for a in u[:3])
        images = images + (brightness - 0.5)
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * (2 * saturation)
        mean = images.mean((1, 2, 3), keepdim=True)
        images = mean + (images - mean) * (contrast + 0.5)
    if "translation" in parts:
        far = int(side * TRANSLATION + 0.5)
        images = shift(images, _whole(u[3], 2 * far + 1) - far, _whole(u[4], 2 * far + 1) - far)
    if "cutout" in parts:
        size = int(side * CUTOUT + 0.5)
        places = side + (1 - size % 2)  # an even square's middle lies between two pixels
        images = cut_out(images, _whole(u[5], places), _whole(u[6], places), size)
    return images


def ada(images: Tensor, numbers: Tensor, p: Tensor, parts: tuple[str, ...] = ("blit", "geom", "color")) -> Tensor:
    """Transform each image by ADA's policy, each transform with probability p (Karras et al. 2020, appendix B).

    images: (N, 3, S, S) in [−1, 1].  numbers: (N, 28) ~ U(0, 1).  p: 0-dim.  Returns (N, 3, S, S).
    blit: mirror, quarter turns, translation by whole pixels.  geom: scaling, rotation, stretching, rotation,
    translation.
    color: brightness, contrast, mirrored luma, hue, saturation.  The values are the published ones; pixels between
    pixels are bilinear, where the published code filters with wavelets at twice the resolution.
    """
    side, places = images.shape[-1], []
    if "blit" in parts:
        places += _blits(iter(numbers[:, :7].unbind(1)), p, side)
    if "geom" in parts:
        places += _geometry(iter(numbers[:, 7:18].unbind(1)), p, side)
    if places:
        images = warp(images, _compose(places)[:, :2])
    if "color" in parts:
        images = recolour(images, _compose(_colours(iter(numbers[:, 18:].unbind(1)), p)[::-1])[:, :3])
    return images


def _blits(draws: Iterator[Tensor], p: Tensor, side: int) -> list[Tensor]:
    """Return the inverse matrices (N, 3, 3) of the exact transforms, in the order of application.

    They map whole pixels to whole pixels.
    """
    flipped = _gate(draws, p) & (next(draws) < 0.5)
    turns = torch.where(_gate(draws, p), _whole(next(draws), 4), 0)
    moved, far = _gate(draws, p), SHIFT * side
    x, y = (torch.where(moved, ((2 * next(draws) - 1) * far).round(), 0) for _ in range(2))
    cosine = torch.where(turns % 2 == 0, 1 - turns, 0).to(x)
    sine = torch.where(turns % 2 == 1, 2 - turns, 0).to(x)
    return [_scaling(1 - 2 * flipped.to(x), torch.ones_like(x)), _turn(cosine, -sine), _translation(-x, -y)]


def _geometry(draws: Iterator[Tensor], p: Tensor, side: int) -> list[Tensor]:
    """The same of scaling, rotation, stretching, rotation, translation by N(0, (S/8)²).

    Each rotation has the probability 1 − √(1 − p), so that both together leave an image alone with probability 1 − p.
    """
    rotated = 1 - (1 - p).clamp(0, 1).sqrt()
    scaled = _factor(draws, p, SCALE)
    first = torch.where(_gate(draws, rotated), _angle(draws), 0)
    stretched = _factor(draws, p, ANISOTROPY)
    second = torch.where(_gate(draws, rotated), _angle(draws), 0)
    moved = _gate(draws, p)
    x, y = (torch.where(moved, _normal(next(draws)) * (SHIFT * side), 0) for _ in range(2))
    return [
        _scaling(1 / scaled, 1 / scaled), _turn(first.cos(), -first.sin()), _scaling(1 / stretched, stretched),
        _turn(second.cos(), -second.sin()), _translation(-x, -y),
    ]  # fmt: skip


def _colours(draws: Iterator[Tensor], p: Tensor) -> list[Tensor]:
    """Matrices (N, 4, 4) of (r, g, b, 1), in the order of application. The luma axis is v = (1, 1, 1)/√3."""
    moved = torch.where(_gate(draws, p), _normal(next(draws)) * BRIGHTNESS, 0)
    contrast = _factor(draws, p, CONTRAST)
    flipped = _gate(draws, p) & (next(draws) < 0.5)
    hue = torch.where(_gate(draws, p), _angle(draws), 0)
    saturation = _factor(draws, p, SATURATION)
    one = torch.eye(3, dtype=moved.dtype, device=moved.device)
    luma = torch.full_like(one, 1 / 3)  # v vᵀ
    cross = (one.roll(1, 0) - one.roll(1, 1)) / math.sqrt(3)  # v ×
    column = lambda a: a[:, None, None]  # noqa: E731
    cosine, sine = column(hue.cos()), column(hue.sin())
    return [
        _affine(one.expand(len(moved), 3, 3), moved),
        _affine(one * column(contrast)),
        _affine(one - 2 * luma * column(flipped.to(moved))),
        _affine(torch.where(column(hue == 0), one, luma + (one - luma) * cosine + cross * sine)),  # Rodrigues' formula
        _affine(torch.where(column(saturation == 1), one, luma + (one - luma) * column(saturation))),
    ]


def _gate(draws: Iterator[Tensor], p: Tensor) -> Tensor:
    """(N,) bool: true with probability p."""
    return next(draws) < p


def _factor(draws: Iterator[Tensor], p: Tensor, deviation: float) -> Tensor:
    """(N,): 2^N(0, deviation²) with probability p, else 1."""
    return torch.where(_gate(draws, p), torch.exp2(_normal(next(draws)) * deviation), 1)


def _angle(draws: Iterator[Tensor]) -> Tensor:
    """(N,) ~ U(−π, π)."""
    return (2 * next(draws) - 1) * math.pi


def _normal(u: Tensor) -> Tensor:
    return math.sqrt(2) * torch.erfinv(2 * u.clamp(SMALLEST, 1 - SMALLEST) - 1)


def _whole(u: Tensor, count: int) -> Tensor:
    """Map U(0, 1) to 0 … count − 1, equally likely."""
    return (u * count).long().clamp(max=count - 1)


def _rows(*rows: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _rows((x, zero, zero), (zero, y, zero), (zero, zero, one))


def _turn(cosine: Tensor, sine: Tensor) -> Tensor:
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    return _rows((cosine, -sine, zero), (sine, cosine, zero), (zero, zero, one))


def _translation(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _rows((one, zero, x), (zero, one, y), (zero, zero, one))


def _affine(matrix: Tensor, offset: Tensor | None = None) -> Tensor:
    """Return matrices (N, 4, 4) of a linear map (N, 3, 3) and a number (N,) that is added to all three channels."""
    offset = matrix.new_zeros(len(matrix)) if offset is None else offset
    last = torch.eye(4, dtype=matrix.dtype, device=matrix.device)[3:].expand(len(matrix), 1, 4)
    return torch.cat([torch.cat([matrix, offset[:, None, None].expand(-1, 3, 1)], dim=2), last], dim=1)


def _compose(matrices: list[Tensor]) -> Tensor:
    """The product from left to right, (N, k, k), elementwise so that no precision is lost."""
    product, *rest = matrices
    for matrix in rest:
        product = (product[:, :, :, None] * matrix[:, None]).sum(2)
    return product
