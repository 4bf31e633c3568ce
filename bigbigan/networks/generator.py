"""G: z → x̂, the generators of BigGAN and BigGAN-deep (1809.11096, appendix B), unconditional or conditional."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.networks.layers import (
    CrossReplicaBatchNorm,
    DeepGeneratorBlock,
    GeneratorBlock,
    SelfAttention,
    SNConv2d,
    SNLinear,
    initialise,
    is_deep,
    of_classes,
    place_of_attention,
    run_block,
    split_size,
)

# Channel multipliers of the blocks' inputs and, last, of the output, by the number of doublings of the 4×4 … 7×7
# bottom. From three doublings (32 px) to seven (512 px) they are the published ones; below 32 px, the rule of the 32 px
# network goes on: 4 everywhere.
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


def default_latent_dim(image_size: int, architecture: str = "biggan") -> int:
    """20 latents per slot: 120 at 128 px as in the paper, 140 at 256 px; 128 in BigGAN-deep, which has no slots."""
    return 128 if architecture == "biggan_deep" else 20 * slots(image_size)


def latent_chunks(latent_dim: int, image_size: int) -> list[int]:
    """The sizes of the chunks of z, one for each slot."""
    chunk, remainder = divmod(latent_dim, slots(image_size))
    if chunk == 0:
        raise ValueError(
            f"latent_dim {latent_dim}: expected at least {slots(image_size)}, one for each slot of a {image_size} px generator"
        )
    return [chunk + remainder] + [chunk] * (slots(image_size) - 1)


class Generator(nn.Module):
    """BigGAN's generator.

    latent_dim: Z; z is cut into one chunk per slot, the remainder of the division goes to the first. BigGAN-deep gives
    all of z to
        every layer.
    image_size: b·2^k with b = 3 … 7, from 8 to 512.
    width: channels per multiplier (96 in the paper, 128 in BigGAN-deep).
    classes: 0 for one learned constant in place of the class embedding ("single label"), else the number of classes.
    embedding_dim: size of the embedding that all conditional batch norms share.
    attention: the resolution after whose block self-attention stands, 0 for none (64 in the paper at 128 px).
    shared_embedding: False for tables of gains and biases by class in each batch norm.
    skip_z: False for z in the first layer only. These are factors of BigGAN's Table 1; without both it is its SAGAN
    baseline.
    architecture: "biggan", or "biggan_deep": two bottleneck blocks for each doubling, the second of which doubles; and
    `width`
        outputs of which the first three are the image, as in the released model.

    forward: z (N, Z), classes (N,) long or None → (N, 3, image_size, image_size) in [−1, 1]. Between classes:
        weights (N, classes) in their place, since what is learnt of a class enters linearly.
    """

    def __init__(
        self,
        latent_dim: int,
        image_size: int,
        width: int,
        classes: int = 0,
        embedding_dim: int = 128,
        attention: int = 0,
        architecture: str = "biggan",
        shared_embedding: bool = True,
        skip_z: bool = True,
    ):
        super().__init__()
        self.deep = is_deep(architecture)
        if self.deep and not (shared_embedding and skip_z):
            raise ValueError("biggan_deep: expected shared_embedding and skip_z, which are factors of biggan alone")
        self.bottom, doublings = split_size(image_size)
        self.latent_dim, self.image_size, self.classes = latent_dim, image_size, classes
        self.skip_z = skip_z
        self.chunks = latent_chunks(latent_dim, image_size) if skip_z and not self.deep else [latent_dim]
        channels = [width * m for m in MULTIPLIERS[doublings]]
        condition_dim = (embedding_dim if shared_embedding else 0) + (self.chunks[-1] if skip_z else 0)
        tables = 0 if shared_embedding else max(classes, 1)

        # no spectral norm, as in BigGAN
        self.embedding = nn.Embedding(max(classes, 1), embedding_dim) if shared_embedding else None
        self.linear = SNLinear(condition_dim if self.deep else self.chunks[0], channels[0] * self.bottom**2)
        steps = list(zip(channels[:-1], channels[1:], strict=True))
        if self.deep:
            pairs = [((a, a, False), (a, b, True)) for a, b in steps]
            self.blocks = nn.ModuleList(
                DeepGeneratorBlock(a, b, condition_dim, up) for pair in pairs for a, b, up in pair
            )
        else:
            self.blocks = nn.ModuleList(GeneratorBlock(a, b, condition_dim, tables) for a, b in steps)
        doubled = [(self.bottom * 2 ** (i + 1), after) for i, after in enumerate(channels[1:])]
        place = place_of_attention(attention, [size for size, _ in doubled], "generator")
        self.attention_after = 2 * place + 1 if self.deep and attention else place
        self.attention = SelfAttention(doubled[place][1]) if attention else None
        self.norm = CrossReplicaBatchNorm(channels[-1])
        self.conv = SNConv2d(channels[-1], max(3, channels[-1]) if self.deep else 3, 3, padding=1)
        self.checkpointing = False
        initialise(self)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of each block alone for the backward pass, which computes the block again."""
        self.checkpointing = enable

    def forward(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        first, conditions, labels = self._conditions(z, self._index(z, classes))
        h = self.linear(first).unflatten(1, (-1, self.bottom, self.bottom))
        for i, (block, condition) in enumerate(zip(self.blocks, conditions, strict=True)):
            inputs = (h, condition) if labels is None else (h, condition, labels)
            h = run_block(block, *inputs, recompute=self.checkpointing)
            if i == self.attention_after:
                h = self.attention(h)
        return torch.tanh(self._to_pixels(F.relu(self.norm(h))))

    def _conditions(self, z: Tensor, index: Tensor) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """→ what the first layer takes, what each block is conditioned on, and the labels for tables, if there are
        any."""
        labels = index if self.embedding is None else None
        shared = z[:, :0] if self.embedding is None else of_classes(self.embedding, index)  # (N, embedding_dim)
        if self.deep:
            everything = torch.cat([z, shared], dim=1)
            return everything, [everything] * len(self.blocks), None
        first, *rest = z.split(self.chunks, dim=1)
        if not self.skip_z:
            return first, [shared] * len(self.blocks), labels
        return (
            first,
            [torch.cat([chunk, shared], dim=1) for chunk in rest],
            labels,
        )  # the chunk first, as in the released model

    def _to_pixels(self, h: Tensor) -> Tensor:
        """The last convolution; of BigGAN-deep's outputs the three that are looked at."""
        if not self.deep:
            return self.conv(h)
        return F.conv2d(h, self.conv.normalised_weight()[:3], self.conv.bias[:3], padding=1)

    def _index(self, z: Tensor, classes: Tensor | None) -> Tensor:
        if not self.classes:
            return torch.zeros(len(z), dtype=torch.long, device=z.device)
        if classes is None:
            raise ValueError(
                f"a generator of {self.classes} classes expected the classes of its {len(z)} latents, found none"
            )
        return classes
