"""The generator G: z → x̂, of BigGAN and BigGAN-deep (1809.11096, appendix B), unconditional or conditional."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.config.bounds import AtLeastOne, NotNegative, check_argument
from bigbigan.errors import InputError
from bigbigan.networks.interface import GeneratorInterface
from bigbigan.networks.layers import (
    ConditionalBatchNorm,
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

# Channel multipliers of the blocks' inputs and, last, of the output, by the number of doublings from the first map
# (4×4 … 7×7). From three doublings (32 px) to seven (512 px) they are the published ones; below, 4 as at 32 px.
MULTIPLIERS = {
    1: (4, 4),
    2: (4, 4, 4),
    3: (4, 4, 4, 4),
    4: (16, 16, 8, 4, 2),
    5: (16, 16, 8, 4, 2, 1),
    6: (16, 16, 8, 8, 4, 2, 1),
    7: (16, 16, 8, 8, 4, 2, 1, 1),
}


def chunks_of_z(image_size: int) -> int:
    """Return the number of chunks that z is split into: one for the first layer and one for each block."""
    return 1 + split_size(image_size)[1]


def default_latent_dim(image_size: int, architecture: str = "biggan") -> int:
    """Return 20 latents per chunk, 120 at 128 px as in the paper; 128 for BigGAN-deep, which does not split z."""
    return 128 if architecture == "biggan_deep" else 20 * chunks_of_z(image_size)


def latent_chunks(latent_dim: int, image_size: int) -> list[int]:
    """Return the sizes of the chunks of z; the first takes the remainder. Raises ValueError for too few latents."""
    count = chunks_of_z(image_size)
    chunk, remainder = divmod(latent_dim, count)
    if chunk == 0:
        raise ValueError(
            f"latent_dim {latent_dim}: expected at least {count}, one for each chunk of a {image_size} px generator"
        )
    return [chunk + remainder] + [chunk] * (count - 1)


class Generator(nn.Module, GeneratorInterface):
    """BigGAN's generator draws images from latents, and from classes if it has any.

    latent_dim: Z. z is split into one chunk for the first layer and one for each block; in BigGAN-deep every layer sees
        all of z.
    image_size: b·2^k with b = 3 … 7, from 8 to 512.
    width: channels per multiplier (96 in the paper, 128 in BigGAN-deep).
    classes: the number of classes, or 0 for one learned constant in place of the class embedding ("single label").
    embedding_dim: size of the class embedding that all conditional batch norms share.
    attention: resolution after whose block there is self-attention, 0 for none (64 in the paper at 128 px).
    architecture: "biggan", or "biggan_deep": two bottleneck blocks per doubling, of which the second doubles; its last
        convolution has `width` outputs, of which only the first three are the image, as in the released model.
    shared_embedding: False: each batch norm has a table of gains and biases by class instead.
    skip_z: False: only the first layer sees z. Without this and shared_embedding it is the SAGAN baseline of BigGAN's
        Table 1.
    grey: one plane, the same in all three channels, for images without colour.

    forward: z (N, Z), classes (N,) long or None → (N, 3, image_size, image_size) in [−1, 1]. Float classes (N, classes)
        are weights that interpolate between classes, whose embeddings enter linearly.
    """

    def __init__(
        self,
        latent_dim: int,
        image_size: int,
        width: int,
        classes: int = 0,
        *,
        embedding_dim: int = 128,
        attention: int = 0,
        architecture: str = "biggan",
        shared_embedding: bool = True,
        skip_z: bool = True,
        grey: bool = False,
    ):
        super().__init__()
        check_argument("latent_dim", latent_dim, AtLeastOne), check_argument("width", width, AtLeastOne)
        check_argument("classes", classes, NotNegative), check_argument("embedding_dim", embedding_dim, AtLeastOne)
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
        self.planes = 1 if grey else 3
        self.conv = SNConv2d(channels[-1], max(3, channels[-1]) if self.deep else self.planes, 3, padding=1)
        self.checkpointing = False
        initialise(self)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of each block alone for the backward pass, which computes the block again."""
        self.checkpointing = enable

    def forward(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return images (N, 3, S, S) in [−1, 1] of latents z (N, Z).

        classes: (N,) integers for a conditional generator, or weights (N, classes) that interpolate between them.
        """
        first, conditions, labels = self._conditions(z, self._index(z, classes))
        h = self.linear(first).unflatten(1, (-1, self.bottom, self.bottom))
        if self.conv.weight.is_contiguous(memory_format=torch.channels_last):  # maps of another layout are slower
            h = h.contiguous(memory_format=torch.channels_last)
        for i, (block, condition) in enumerate(zip(self.blocks, conditions, strict=True)):
            inputs = (h, condition) if labels is None else (h, condition, labels)
            h = run_block(block, *inputs, recompute=self.checkpointing)
            if i == self.attention_after:
                h = self.attention(h)
        return torch.tanh(self._to_pixels(F.relu(self.norm(h)))).expand(-1, 3, -1, -1)

    def latent_weights(self) -> list[tuple[slice, Tensor]]:
        """Return the weights that z meets, see `GeneratorInterface.latent_weights`: one entry for each chunk of z.

        The first chunk meets the first linear layer; that of a block meets the gains and biases of the block's batch
        norms, stacked in the order norm1.gain, norm1.bias, norm2.gain, norm2.bias. BigGAN-deep has one entry: the first
        linear layer, then the gains and biases of all blocks. Columns of the class embedding are left out.
        """
        conditional = [layer for layer in self.blocks.modules() if isinstance(layer, ConditionalBatchNorm)]
        if self.deep:
            layers = [self.linear, *(linear for norm in conditional for linear in (norm.gain, norm.bias))]
            return [(slice(0, self.latent_dim), _stacked(layers, self.latent_dim))]
        parts, start = [(slice(0, self.chunks[0]), self.linear.normalised_weight())], self.chunks[0]
        for block, size in zip(self.blocks, self.chunks[1:], strict=False):  # without skip_z there is one chunk alone
            layers = [linear for norm in (block.norm1, block.norm2) for linear in (norm.gain, norm.bias)]
            parts.append((slice(start, start + size), _stacked(layers, size)))
            start += size
        return parts

    def _conditions(self, z: Tensor, index: Tensor) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Return the first layer's input, the condition of each block, and labels if G has tables by class."""
        labels = index if self.embedding is None else None
        shared = z[:, :0] if self.embedding is None else of_classes(self.embedding, index)  # (N, embedding_dim)
        if self.deep:
            everything = torch.cat([z, shared], dim=1)
            return everything, [everything] * len(self.blocks), None
        first, *rest = z.split(self.chunks, dim=1)
        if not self.skip_z:
            return first, [shared] * len(self.blocks), labels
        # the chunk before the embedding, as in the released model
        return first, [torch.cat([chunk, shared], dim=1) for chunk in rest], labels

    def _to_pixels(self, h: Tensor) -> Tensor:
        """Apply the last convolution; BigGAN-deep's has `width` outputs, of which only the first ones are the image."""
        if not self.deep:
            return self.conv(h)
        weight, bias = self.conv.normalised_weight(), self.conv.bias
        return F.conv2d(h, weight[: self.planes], bias[: self.planes], padding=1)

    def _index(self, z: Tensor, classes: Tensor | None) -> Tensor:
        """Return the rows of the class embedding; zeros for an unconditional G. Raises InputError without classes."""
        if not self.classes:
            return torch.zeros(len(z), dtype=torch.long, device=z.device)
        if classes is None:
            raise InputError(
                f"a generator of {self.classes} classes expected the classes of its {len(z)} latents, found none"
            )
        return classes


def _stacked(layers: list[SNLinear], columns: int) -> Tensor:
    """Return the first columns of the layers' normalised weights, one below the other."""
    return torch.cat([layer.normalised_weight()[:, :columns] for layer in layers])
