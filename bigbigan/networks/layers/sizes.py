"""Which image sizes the networks can have, and how they are reached by doublings."""

DOUBLINGS = range(1, 9)
LARGEST = 512  # of the networks whose blocks are BigGAN's


def split_size(image_size: int, largest: int = LARGEST) -> tuple[int, int]:
    """image_size = bottom · 2^doublings with bottom 4 … 7 → (bottom, doublings); ValueError names the nearest sizes.

    A bottom of 3 is written as 6 with one doubling less: 48 = 6·2³ and 96 = 6·2⁴.
    """
    for doublings in DOUBLINGS:
        bottom, remainder = divmod(image_size, 2**doublings)
        if remainder == 0 and 4 <= bottom <= 7 and image_size <= largest:
            return bottom, doublings
    sizes = sorted({b * 2**k for b in (4, 5, 6, 7) for k in DOUBLINGS if b * 2**k <= largest})
    near = [s for s in sizes if s < image_size][-1:] + [s for s in sizes if s > image_size][:1]
    raise ValueError(
        f"image_size {image_size}: expected b·2^k with b = 3 … 7, from 8 to {largest}; the nearest: {' and '.join(map(str, near))}"
    )


def place_of_attention(resolution: int, sizes: list[int], network: str) -> int:
    """The first block whose output has this resolution, or −1 for resolution 0. sizes: the blocks' output resolutions
    in order."""
    if not resolution:
        return -1
    if resolution not in sizes:
        raise ValueError(
            f"{network} attention {resolution}: expected 0 or the resolution of a block, one of {sorted(set(sizes))}"
        )
    return sizes.index(resolution)
