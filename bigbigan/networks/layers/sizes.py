"""The image sizes that the networks can have, and the doublings that lead to them."""

DOUBLINGS = range(1, 9)
LARGEST = 512  # pixels, for networks of BigGAN's blocks


def split_size(image_size: int, largest: int = LARGEST) -> tuple[int, int]:
    """Return (bottom, doublings) with image_size = bottom · 2^doublings and bottom 4 … 7.

    Raises ValueError, which names the nearest sizes, if there are none.
    A bottom of 3 is written as 6 with one doubling less: 48 = 6·2³ and 96 = 6·2⁴.
    """
    for doublings in DOUBLINGS:
        bottom, remainder = divmod(image_size, 2**doublings)
        if remainder == 0 and 4 <= bottom <= 7 and image_size <= largest:
            return bottom, doublings
    sizes = image_sizes(largest)
    near = [s for s in sizes if s < image_size][-1:] + [s for s in sizes if s > image_size][:1]
    raise ValueError(
        f"image_size {image_size}: expected b·2^k with b = 3 … 7, from 8 to {largest}; the nearest: "
        f"{' and '.join(map(str, near))}"
    )


def image_sizes(largest: int = LARGEST) -> list[int]:
    """Return all image sizes that networks of BigGAN's blocks can have, in pixels, from the smallest."""
    return sorted({b * 2**k for b in (4, 5, 6, 7) for k in DOUBLINGS if b * 2**k <= largest})


def place_of_attention(resolution: int, sizes: list[int], network: str) -> int:
    """Return the index of the first block whose output has this resolution; −1 for resolution 0.

    sizes: the blocks' output resolutions in order.  network: its name, for the error message. Raises ValueError.
    """
    if not resolution:
        return -1
    if resolution not in sizes:
        raise ValueError(
            f"{network} attention {resolution}: expected 0 or the resolution of a block, one of {sorted(set(sizes))}"
        )
    return sizes.index(resolution)
