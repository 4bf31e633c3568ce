"""G: z → x̂, BigGAN's generator (1809.11096, appendix B), unconditional or conditional."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.layers import (
    CrossReplicaBatchNorm,
    GeneratorBlock,
    SelfAttention,
    SNConv2d,
    SNLinear,
    initialise,
    place_of_attention,
    split_size,
)

# Channel multipliers of the blocks' inputs and, last, of the output, by the number of doublings of the 4×4 … 7×7 bottom. From three
# doublings (32 px) to seven (512 px) they are the published ones; below 32 px, the rule of the 32 px network goes on: 4 everywhere.
MULTIPLIERS = {
    1: (4, 4),
    2: (4, 4, 4),
    3: (4, 4, 4, 4),
    4: (16, 16, 8, 4, 2),
    5: (16, 16, 8, 4, 2, 1),
    6: (16, 16, 8, 8, 4, 2, 1),
    7: (16, 16, 8, 8, 4, 2, 1, 1),
}


def slots(image_size: int) -> int:
    """How many chunks z is cut into: one for the first layer and one for each block."""
    return 1 + split_size(image_size)[1]


def default_latent_dim(image_size: int) -> int:
    """20 latents per slot: 120 at 128 px as in the paper, 140 at 256 px."""
    return 20 * slots(image_size)


class Generator(nn.Module):
    """BigGAN's generator.

    latent_dim: Z; z is cut into one chunk per slot, the remainder of the division goes to the first.
    image_size: b·2^k with b = 3 … 7, from 8 to 512.
    width: channels per multiplier (96 in the paper).
    classes: 0 for one learned constant in place of the class embedding ("single label"), else the number of classes.
    embedding_dim: size of the embedding that all conditional batch norms share.
    attention: the resolution after whose block self-attention stands, 0 for none (64 in the paper at 128 px).

    forward: z (N, Z), classes (N,) long or None → (N, 3, image_size, image_size) in [−1, 1].
    """

    def __init__(
        self,
        latent_dim: int,
        image_size: int,
        width: int,
        classes: int = 0,
        embedding_dim: int = 128,
        attention: int = 0,
    ):
        super().__init__()
        self.bottom, doublings = split_size(image_size)
        self.latent_dim, self.image_size, self.classes = latent_dim, image_size, classes
        chunk, remainder = divmod(latent_dim, doublings + 1)
        if chunk == 0:
            raise ValueError(
                f"latent_dim {latent_dim}: expected at least {doublings + 1}, one for each slot of a {image_size} px generator"
            )
        self.chunks = [chunk + remainder] + [chunk] * doublings
        channels = [width * m for m in MULTIPLIERS[doublings]]

        self.embedding = nn.Embedding(max(classes, 1), embedding_dim)  # no spectral norm, as in BigGAN
        self.linear = SNLinear(self.chunks[0], channels[0] * self.bottom**2)
        self.blocks = nn.ModuleList(
            GeneratorBlock(before, after, chunk + embedding_dim) for before, after in zip(channels[:-1], channels[1:], strict=True)
        )
        sizes = [self.bottom * 2 ** (i + 1) for i in range(doublings)]
        self.attention_after = place_of_attention(attention, sizes, "generator")
        self.attention = SelfAttention(channels[self.attention_after + 1]) if attention else None
        self.norm = CrossReplicaBatchNorm(channels[-1])
        self.conv = SNConv2d(channels[-1], 3, 3, padding=1)
        initialise(self)

    def forward(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        first, *rest = z.split(self.chunks, dim=1)
        shared = self.embedding(self._index(z, classes))  # (N, embedding_dim)
        h = self.linear(first).unflatten(1, (-1, self.bottom, self.bottom))
        for i, (block, chunk) in enumerate(zip(self.blocks, rest, strict=True)):
            h = block(h, torch.cat([chunk, shared], dim=1))  # the chunk first, as in the released model
            if i == self.attention_after:
                h = self.attention(h)
        return torch.tanh(self.conv(F.relu(self.norm(h))))

    def _index(self, z: Tensor, classes: Tensor | None) -> Tensor:
        if not self.classes:
            return torch.zeros(len(z), dtype=torch.long, device=z.device)
        if classes is None:
            raise ValueError(f"a generator of {self.classes} classes expected the classes of its {len(z)} latents, found none")
        return classes
