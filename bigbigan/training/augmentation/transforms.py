"""Differentiable transforms of images: a warp, a change of colours, a shift by whole pixels, a box of zeros.

No matrix products: they are rounded to bf16 or TF32 in mixed precision, and a coordinate must not be. An identity gives
its input.
"""

import torch
from torch import Tensor


def warp(images: Tensor, inverse: Tensor) -> Tensor:
    """Warp images (N, C, H, W) bilinearly; beyond the edge they are mirrored at the centres of the edge pixels.

    inverse: (N, 2, 3), the place (x, y) in the input for a place (x, y, 1) in the output, in pixels from the image's
    centre. Written with `gather`, whose gradient, unlike that of grid_sample, is deterministic on a GPU where that is
    asked for.
    """
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device, dtype=inverse.dtype) - (width - 1) / 2
    y = (torch.arange(height, device=images.device, dtype=inverse.dtype) - (height - 1) / 2)[:, None]
    to_x, to_y = ([a[:, None, None] for a in row.unbind(1)] for row in inverse.unbind(1))
    left, right, horizontal = _around(to_x[0] * x + to_x[1] * y + to_x[2] + (width - 1) / 2, width)
    top, bottom, vertical = _around(to_y[0] * x + to_y[1] * y + to_y[2] + (height - 1) / 2, height)
    horizontal, vertical = horizontal[:, None].to(images.dtype), vertical[:, None].to(images.dtype)
    above = torch.lerp(_at(images, top, left), _at(images, top, right), horizontal)
    below = torch.lerp(_at(images, bottom, left), _at(images, bottom, right), horizontal)
    return torch.lerp(above, below, vertical)


def _around(place: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mirror places on an axis into 0 … size − 1.

    Returns the pixels before and after each place, and how far the place lies between them.
    """
    last = size - 1
    place = last - (place.remainder(2 * last) - last).abs()
    before = place.floor()
    return before.long(), (before + 1).clamp(max=last).long(), place - before


def _at(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the pixels of images (N, C, H, W) at rows and columns (N, H, W), as (N, C, H, W)."""
    places = (rows * images.shape[3] + columns).flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, places).unflatten(2, images.shape[2:])


def recolour(images: Tensor, matrix: Tensor) -> Tensor:
    """images (N, 3, H, W), matrix (N, 3, 4): each pixel (r, g, b) becomes matrix · (r, g, b, 1)."""
    m = matrix.to(images.dtype)[:, :, :, None, None]
    red, green, blue = images.unbind(1)
    return torch.stack(
        [m[:, i, 0] * red + m[:, i, 1] * green + m[:, i, 2] * blue + m[:, i, 3] for i in range(3)], dim=1
    )


def shift(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Right by x and vertical by y whole pixels, (N,) long each; zeros where nothing comes from."""
    height, width = images.shape[2:]
    columns = torch.arange(width, device=images.device) - x[:, None]
    rows = torch.arange(height, device=images.device) - y[:, None]
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[:, None, None, :]
    rows, columns = torch.broadcast_tensors(
        rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    )
    return _at(images, rows, columns) * inside


def cut_out(images: Tensor, x: Tensor, y: Tensor, size: int) -> Tensor:
    """Set a square of `size` pixels to zero, as far as it lies inside the image.

    x, y: (N,), column and row of its middle, or of the pixel after it if `size` is even.
    """
    height, width = images.shape[2:]
    columns = torch.arange(width, device=images.device) - x[:, None] + size // 2
    rows = torch.arange(height, device=images.device) - y[:, None] + size // 2
    inside = ((rows >= 0) & (rows < size))[:, None, :, None] & ((columns >= 0) & (columns < size))[:, None, None, :]
    return images * ~inside
