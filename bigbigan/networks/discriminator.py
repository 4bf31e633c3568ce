"""The joint discriminator D = (F, H, J) of BigBiGAN (section 2): (x, z) → three scores."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.config.bounds import AtLeastOne, NotNegative, check_argument
from bigbigan.errors import InputError
from bigbigan.losses import Scores
from bigbigan.networks.interface import DiscriminatorInterface
from bigbigan.networks.layers import (
    DeepDiscriminatorBlock,
    DiscriminatorBlock,
    ResidualMLP,
    SelfAttention,
    SNConv2d,
    SNEmbedding,
    SNLinear,
    initialise,
    is_deep,
    place_of_attention,
    run_block,
    split_size,
)

# Channel multipliers of the blocks' outputs, by k of image_size = b·2^k; the first k blocks halve the resolution, the
# last does not. From 64 px (k = 4) to 512 px they are the published ones. At 32 px BigGAN halves only twice, and so do
# we below 32 px.
MULTIPLIERS = {
    1: (4, 4),
    2: (4, 4, 4),
    3: (4, 4, 4, 4),
    4: (1, 2, 4, 8, 16),
    5: (1, 2, 4, 8, 16, 16),
    6: (1, 2, 4, 8, 8, 16, 16),
    7: (1, 1, 2, 4, 8, 8, 16, 16),
}


def _halvings(k: int) -> int:
    """Return how many blocks halve the resolution."""
    return k if k > 3 else min(k, 2)


class ImageTrunk(nn.Module):
    """F maps images to features: BigGAN's D without its head, i.e. residual blocks, ReLU, sum over places.

    deep: BigGAN-deep's: a 3×3 convolution, then two bottleneck blocks for each of BigGAN's but the first; of the two,
        the first halves the resolution.

    forward: x (N, 3, S, S) → (N, features).
    """

    def __init__(self, image_size: int, width: int, attention: int = 0, deep: bool = False):
        super().__init__()
        _, doublings = split_size(image_size)
        channels = [width * m for m in MULTIPLIERS[doublings]]
        halvings = _halvings(doublings)
        if deep:
            self.stem = SNConv2d(3, channels[0], 3, padding=1)
            steps = [
                ((a, b, i < halvings), (b, b, False))
                for i, (a, b) in enumerate(zip(channels[:-1], channels[1:], strict=True))
            ]
            plan = [block for pair in steps for block in pair]
            self.blocks = nn.ModuleList(DeepDiscriminatorBlock(*block) for block in plan)
        else:
            self.stem = None
            plan = [(a, b, i < halvings) for i, (a, b) in enumerate(zip([3, *channels[:-1]], channels, strict=True))]
            self.blocks = nn.ModuleList(DiscriminatorBlock(*block, first=i == 0) for i, block in enumerate(plan))
        sizes, size = [], image_size
        for *_, halves in plan:
            size //= 2 if halves else 1
            sizes.append(size)
        # After the first block of that resolution; in BigGAN-deep after the second, as in G (BigGAN, tables 7 to 9).
        self.attention_after = place_of_attention(attention, sizes, "discriminator") + (deep and attention > 0)
        self.attention = SelfAttention(plan[self.attention_after][1]) if attention else None
        self.features = channels[-1]
        self.checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.stem is None else self.stem(x)
        for i, block in enumerate(self.blocks):
            x = run_block(block, x, recompute=self.checkpointing)
            if i == self.attention_after:
                x = self.attention(x)
        return F.relu(x).sum((2, 3))


class Discriminator(nn.Module, DiscriminatorInterface):
    """The joint discriminator scores images, latents and pairs of both; high scores mean pairs (x, E(x)).

    latent_dim: Z.  image_size: that of G.  width: F's channels per multiplier (96 in the paper).
    classes: the number of classes, or 0. With classes, s_x gains the projection embed(y)·F(x) (Miyato & Koyama 2018).
    mlp_width, mlp_layers: of H and J (2,048 units, 8 layers in the paper).
    attention: resolution after whose block F has self-attention, or 0.
    joint: False leaves H and J out, as in a plain BigGAN discriminator: only s_x.
    architecture: F's, "biggan" or "biggan_deep" (128 channels per multiplier).

    forward: x (N, 3, S, S) in [−1, 1], z (N, Z) → Scores, (N,) each.  dropout: None, or factors (N, last_features) of
        the features of F, H and J before their scores, each 0 or 1/(1 − share), since a forward draws nothing itself.
    """

    def __init__(
        self,
        latent_dim: int,
        image_size: int,
        width: int,
        classes: int = 0,
        *,
        mlp_width: int = 2048,
        mlp_layers: int = 8,
        attention: int = 0,
        joint: bool = True,
        architecture: str = "biggan",
    ):
        super().__init__()
        check_argument("latent_dim", latent_dim, AtLeastOne), check_argument("width", width, AtLeastOne)
        check_argument("classes", classes, NotNegative), check_argument("mlp_width", mlp_width, AtLeastOne)
        self.image_size, self.latent_dim, self.classes = image_size, latent_dim, classes
        self.f = ImageTrunk(image_size, width, attention, deep=is_deep(architecture))
        self.score_x = SNLinear(self.f.features, 1)  # θ_x
        self.embedding = SNEmbedding(classes, self.f.features) if classes else None
        if joint:
            self.h = ResidualMLP(latent_dim, mlp_width, mlp_layers, spectral_norm=True)
            self.score_z = SNLinear(mlp_width, 1)  # θ_z
            self.j = ResidualMLP(self.f.features + mlp_width, mlp_width, mlp_layers, spectral_norm=True)
            self.score_xz = SNLinear(mlp_width, 1)  # θ_xz
        self.joint = joint
        self.last_features = self.f.features + (2 * mlp_width if joint else 0)
        initialise(self)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of each block of F alone for the backward pass, which computes the block again."""
        self.f.checkpointing = enable

    def score_layers(self) -> dict[str, nn.Module]:
        """Return θ_x, θ_z and θ_xz, which see F(x), H(z) and J(F(x), H(z)); θ_x alone without H and J."""
        joint = {"z": self.score_z, "xz": self.score_xz} if self.joint else {}
        return {"x": self.score_x} | joint

    def forward(
        self, x: Tensor, z: Tensor | None = None, classes: Tensor | None = None, dropout: Tensor | None = None
    ) -> Scores:  # fmt: skip
        """Return the scores of pairs, (N,) each, high for encoder pairs (paper, section 2); None for one left out.

        x: (N, 3, S, S) in [−1, 1].  z: (N, Z).  classes: (N,) for a conditional D.  dropout: see the class.
        """
        f = self.f(x)  # (N, features)
        widths = [self.f.features] + [(self.last_features - self.f.features) // 2] * 2
        kept_x, kept_z, kept_xz = [None] * 3 if dropout is None else dropout.split(widths, dim=1)
        last = _times(f, kept_x)
        s_x = self.score_x(last).squeeze(1)
        if self.embedding is not None:
            if classes is None:
                raise InputError(
                    f"a discriminator of {self.classes} classes expected the classes of its {len(x)} images, found none"
                )
            s_x = s_x + (self.embedding(classes) * last).sum(1)
        if not self.joint:
            return Scores(s_x, None, None)
        h = self.h(z)  # (N, mlp_width)
        s_z = self.score_z(_times(h, kept_z)).squeeze(1)
        s_xz = self.score_xz(_times(self.j(torch.cat([f, h], dim=1)), kept_xz)).squeeze(1)
        return Scores(s_x, s_z, s_xz)


def _times(features: Tensor, factors: Tensor | None) -> Tensor:
    return features if factors is None else features * factors.to(features.dtype)
